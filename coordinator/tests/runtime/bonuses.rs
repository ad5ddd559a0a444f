//! What is on top of a rate, through the runtime and the books: for a GPU, and for a stay.

use crate::support::Coordinator;
use crate::support::contributor::{Contributor, GPU_KERNEL, Habits, Poison};
use crate::support::data::{Rows, job};
use raven_coordinator::job::resume;
use raven_coordinator::runtime::Ahead;
use raven_coordinator::store::{Book, JobRow};
use raven_engine::ledger::Account;
use raven_engine::money::Charge;
use raven_engine::{ContributorId, JobPhase, Verification};
use raven_protocol::{JobId, Numerics};
use sqlx::Row as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const ROWS: Rows = Rows { train: 600, test: 150 };
const MINUTE: Duration = Duration::from_secs(60);

/// A tenth on top for a GPU, a twentieth for ten minutes. No class is dearer than another,
/// and what is quoted with the usual rates suffices.
const RATES: &str = r#"UPDATE jobs SET facts = json_set(facts, '$.rates', json('{"phone": 10000,
    "desktop": 10000, "server": 10000, "bonus": {"gpu_thousandths": 100, "stay_thousandths": 50,
    "stay_minutes": 10}}'))"#;

fn key(number: u8) -> ContributorId {
    let key = ed25519_dalek::SigningKey::from_bytes(&[number; 32]);
    ContributorId(key.verifying_key().to_bytes())
}

/// Trains a relaxed job under these rates.
async fn train(coordinator: &Coordinator, id: JobId) -> JobRow {
    let mut spec = job("replica", 12, 96, 16);
    (spec.numerics, spec.verification) = (Numerics::Relaxed, Verification::None);
    coordinator.store_job(id, &ROWS, &spec).await;
    coordinator.sql(RATES).await;
    let row = coordinator.store.job(coordinator.owner, id).await.expect("read").expect("a job");
    let kernel = coordinator.runtime.kernel();
    let (context, point) = resume(&coordinator.store, &row, kernel).await.expect("lowered");
    coordinator.runtime.add_job(Arc::new(context), point).await.expect("taken");
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!((row.phase, row.reason.clone()), (JobPhase::Completed, None));
    row
}

/// At which rates each was paid for a job, and what that came to.
async fn paid(
    coordinator: &Coordinator,
    id: JobId,
) -> BTreeMap<ContributorId, (BTreeSet<i64>, i128)> {
    let rows = coordinator.rows("SELECT job, contributor, flops, rate FROM credits").await;
    let mut paid: BTreeMap<ContributorId, (BTreeSet<i64>, i128)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.get::<i64, _>("job") == id.0 as i64) {
        let who: Vec<u8> = row.get("contributor");
        let (flops, rate): (i64, i64) = (row.get("flops"), row.get("rate"));
        let of = paid.entry(ContributorId(who.try_into().expect("32 bytes"))).or_default();
        of.0.insert(rate);
        of.1 += i128::from(flops) * i128::from(rate);
    }
    paid
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_and_a_stay_of_minutes_are_paid_to_the_nano_usd() {
    let ahead = Ahead::default();
    let coordinator = Coordinator::start(|config| {
        config.gpu_kernel = Some(GPU_KERNEL);
        config.ahead = ahead.clone();
    })
    .await;
    let poison = Some(Poison { below: u32::MAX, factor: 1.0, after: 0 });
    // As fast as each other, so that both have work in every turn.
    let slow = Habits { slow: Duration::from_millis(5), ..Habits::default() };
    let gpu = Habits { gpu: true, poison, ..slow };
    let _cpu = Contributor::start(coordinator.address, 1, slow);
    let _gpu = Contributor::start(coordinator.address, 2, gpu);
    while coordinator.runtime.snapshot().nodes.len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut earned: BTreeMap<ContributorId, i128> = BTreeMap::new();
    // After no time, after nine minutes, and after ten.
    let turns = [(0, 10_000, 11_000), (9, 10_000, 11_000), (1, 10_500, 11_500)];
    for (number, (minutes, of_cpu, of_gpu)) in (1..).zip(turns) {
        ahead.pass(MINUTE * minutes);
        let row = train(&coordinator, JobId(number)).await;
        let paid = paid(&coordinator, JobId(number)).await;
        let rates = |who: u8| paid.get(&key(who)).map(|of| of.0.clone()).unwrap_or_default();
        assert_eq!((rates(1), rates(2)), ([of_cpu].into(), [of_gpu].into()), "turn {number}");
        let sum: i128 = paid.values().map(|of| of.1).sum();
        assert_eq!(sum, row.charge.units(), "the job is charged for the bonuses too");
        for (who, (_, units)) in paid {
            *earned.entry(who).or_default() += units;
        }
    }
    for (who, units) in earned {
        let account = Account::Contributor(who);
        let balance = coordinator.store.balance(Book::Test, account).await.expect("readable");
        let whole = i64::try_from(units / Charge::PER_NANO_USD).expect("small");
        // Each job rounds by largest remainder.
        assert!((balance.posted - whole).abs() <= 3, "{} of {whole}", balance.posted);
        assert_eq!((balance.held_in, balance.held_out), (0, 0));
    }
    coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
}
