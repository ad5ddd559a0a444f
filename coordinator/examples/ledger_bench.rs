//! How many tasks a second the books take on one SQLite file, each durable.
//!
//! `cargo run --release -p raven-coordinator --example ledger_bench -- [TASKS] [GROUP]`
//! prints one JSON object. A task is six postings: three contributors, a site,
//! the master node, the fee. Groups of tasks are committed together and synced; beside
//! them stand the same postings committed one by one. The auditor reads all of
//! them from the file, within the measured time.

use raven_coordinator::store::{Book, Store};
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, RequesterId, Transfer};
use raven_engine::money::NanoUsd;
use raven_engine::{ContributorId, SiteId};
use raven_protocol::JobId;
use serde_json::json;
use std::error::Error;
use std::time::Instant;

const JOB: JobId = JobId(1);
const CONTRIBUTORS: u32 = 2_000;
const SITES: u32 = 50;

/// What one task pays.
fn postings(task: u32) -> Vec<Entry> {
    let contributor = |n: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&((task.wrapping_mul(7) + n * 641) % CONTRIBUTORS).to_le_bytes());
        Account::Contributor(ContributorId(id))
    };
    let site = Account::Site(SiteId(u64::from(task % SITES)));
    let paid = [
        (contributor(0), 160, Reason::Earning),
        (contributor(1), 160, Reason::Earning),
        (contributor(2), 160, Reason::Earning),
        (site, 14, Reason::PartnerShare),
        (Account::MasterNode, 24, Reason::MasterShare),
        (Account::ProtocolFee, 10, Reason::Fee),
    ];
    let entry = |(n, (credit, amount, reason)): (usize, (Account, i64, Reason))| {
        let transfer =
            Transfer { debit: Account::Escrow(JOB), credit, amount: NanoUsd(amount), reason };
        let id = EntryId::of("bench", &[&task.to_le_bytes(), &[n as u8]]);
        Entry { id, at: 1, action: Action::Post(transfer) }
    };
    paid.into_iter().enumerate().map(entry).collect()
}

async fn open(folder: &std::path::Path) -> Result<Store, Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let store = Store::open(&folder.join("raven.sqlite")).await?;
    let requester = Account::Requester(RequesterId(1));
    let money =
        |debit, credit, reason| Transfer { debit, credit, amount: NanoUsd(1 << 50), reason };
    let deposit = money(Account::External, requester, Reason::Deposit);
    let escrow = money(requester, Account::Escrow(JOB), Reason::Escrow);
    for (name, transfer) in [("deposit", deposit), ("escrow", escrow)] {
        let id = EntryId::of(name, &[]);
        store.enter(Book::Test, &[Entry { id, at: 0, action: Action::Post(transfer) }]).await?;
    }
    Ok(store)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u32>());
    let tasks = numbers.next().transpose()?.unwrap_or(50_000);
    let group = numbers.next().transpose()?.unwrap_or(500).max(1);
    let folder = std::env::temp_dir().join(format!("raven-ledger-{}", std::process::id()));

    let store = open(&folder.join("grouped")).await?;
    let began = Instant::now();
    let mut slowest = 0.0_f64;
    for first in (0..tasks).step_by(group as usize) {
        let one = Instant::now();
        let last = (first + group).min(tasks);
        let entries: Vec<Entry> = (first..last).flat_map(postings).collect();
        store.enter(Book::Test, &entries).await?;
        slowest = slowest.max(one.elapsed().as_secs_f64() * 1000.0);
    }
    let entered = began.elapsed().as_secs_f64();
    let audited = store.audit(Book::Test).await?;
    let all = began.elapsed().as_secs_f64();
    store.close().await;

    // Few of them: each waits for the disk.
    let some = tasks.min(500);
    let store = open(&folder.join("single")).await?;
    let began = Instant::now();
    for entry in (0..some).flat_map(postings) {
        store.enter(Book::Test, &[entry]).await?;
    }
    let single = began.elapsed().as_secs_f64();
    store.audit(Book::Test).await?;
    store.close().await;
    std::fs::remove_dir_all(&folder)?;

    let result = json!({
        "tasks": tasks, "group": group, "entries": audited.entries, "accounts": audited.accounts,
        "tasks_per_s": f64::from(tasks) / entered,
        "tasks_per_s_audited": f64::from(tasks) / all,
        "slowest_group_ms": slowest,
        "one_by_one_tasks_per_s": f64::from(some) / single,
    });
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}
