//! What a share of a device earns: the pay of a simulated network, by the books.

use raven_engine::ledger::{
    Account, Action, Auditor, Batch, Books, Entry, EntryId, JobPay, MemoryBooks, Reason, RoundKey,
    Transfer, Work,
};
use raven_engine::money::{Charge, FLOPS_PER_CALCULATION, Flops, NanoUsd};
use raven_engine::{Credit, rates};
use raven_protocol::{DeviceClass, JobId};
use raven_sim::faults::{Micros, SECOND};
use raven_sim::plans::Replica;
use raven_sim::shell::Story;
use raven_sim::sim::Outcome;
use raven_sim::{NodeSpec, Scenario};

const JOBS: [JobId; 2] = [JobId(1), JobId(2)];
/// More than any job here costs.
const ESCROW: NanoUsd = NanoUsd(1_000_000_000);
/// How far what is paid may be from what the share is worth.
const TOLERANCE: f64 = 0.1;

/// Two jobs, so that one goes on while the other's round ends, and much to compute
/// for each byte.
fn network(share: f64) -> Outcome {
    let sizes = Replica {
        rows: 16 * 256,
        batch: 256,
        micro_batch: 32,
        epochs: 1,
        flops: 500_000_000,
        weights_bytes: 50_000,
        ..Replica::default()
    };
    let mut scenario = Scenario::new(5);
    scenario.nodes = vec![NodeSpec { share, ..NodeSpec::PLAIN }];
    scenario.jobs = JOBS.iter().map(|job| (0, sizes.plan(job.0, 7, 0), Story::default())).collect();
    scenario.run()
}

fn work(credit: &Credit) -> Work {
    Work {
        task: (credit.task.stage, credit.task.part),
        contributor: credit.contributor,
        earner: Account::Contributor(credit.contributor),
        partner: credit.site.map_or(Account::Reserve, Account::Site),
        charge: Charge::of(Flops(credit.flops), credit.rate),
        payer: credit.payer,
    }
}

/// The books, read along by the auditor.
#[derive(Default)]
struct Desk {
    books: MemoryBooks,
    auditor: Auditor,
}

impl Desk {
    fn enter(&mut self, entries: &[Entry]) {
        let mut batch = Batch::new(&self.books);
        for entry in entries {
            batch.add(*entry).expect("within the rules");
        }
        let changes = batch.finish();
        for (entry, hash) in &changes.entries {
            self.auditor.read(entry, *hash).expect("the books took it");
        }
        self.books.apply(changes);
        self.auditor.compare(self.books.accounts()).expect("the auditor's balances");
    }

    /// Gives a job its escrow.
    fn open(&mut self, job: JobId) -> JobPay {
        let (debit, credit) = (Account::External, Account::Escrow(job));
        let transfer = Transfer { debit, credit, amount: ESCROW, reason: Reason::Escrow };
        let id = EntryId::of("escrow", &[&job.0.to_le_bytes()]);
        self.enter(&[Entry { id, at: 0, action: Action::Post(transfer) }]);
        JobPay::new(job, ESCROW)
    }

    /// What an account has, what is held for it among it.
    fn earned(&self, account: Account) -> f64 {
        let balance = self.books.balance(&account);
        (balance.posted + balance.held_in) as f64
    }
}

/// Nano-USD a second that the contributor and its site earn between the first round of
/// both jobs and the last of either.
fn earnings_per_s(outcome: &Outcome) -> (f64, f64) {
    let mut rounds: Vec<(Micros, JobId, &[Credit])> = Vec::new();
    for job in JOBS {
        let records = outcome.records[&job].iter().filter(|record| record.train.is_some());
        let times = outcome.jobs[&job].step_times.iter();
        rounds.extend(times.zip(records).map(|(&at, record)| (at, job, &record.credits[..])));
    }
    let of = |job| move |round: &&(Micros, JobId, &[Credit])| round.1 == job;
    let firsts = JOBS.map(|job| rounds.iter().find(of(job)).expect("a round").0);
    let lasts = JOBS.map(|job| rounds.iter().rfind(of(job)).expect("a round").0);
    let (from, to) = (firsts[0].max(firsts[1]), lasts[0].min(lasts[1]));
    rounds.sort_by_key(|round| (round.0, round.1));
    let mut desk = Desk::default();
    let mut pays = JOBS.map(|job| desk.open(job));
    let mut before = None;
    let credit = rounds[0].2[0];
    let accounts = [
        Account::Contributor(credit.contributor),
        Account::Site(credit.site.expect("through a site")),
    ];
    for (number, (at, job, credits)) in (0..).zip(&rounds).filter(|(_, round)| round.0 <= to) {
        let pay = &mut pays[JOBS.iter().position(|it| it == job).expect("one of them")];
        let key = RoundKey { attempt: 0, round: number };
        let paid = pay.verified(key, credits.iter().map(work).collect(), *at as i64);
        desk.enter(&paid.expect("in order").entries);
        if *at <= from {
            before = Some(accounts.map(|account| desk.earned(account)));
        }
    }
    let before = before.expect("a first round");
    let seconds = (to - from) as f64 / SECOND as f64;
    let of = |at: usize| (desk.earned(accounts[at]) - before[at]) / seconds;
    (of(0), of(1))
}

#[test]
fn a_share_of_ten_gigaflops_earns_what_it_computes() {
    let rate = rates::rate(DeviceClass::Desktop).0 as f64 / 1e3;
    let mut seen = Vec::new();
    for (share, calculations_per_s) in [(0.05, 10.0), (0.1, 20.0)] {
        let device = NodeSpec::PLAIN.flops_per_s as f64 * share / FLOPS_PER_CALCULATION as f64;
        assert!((device - calculations_per_s).abs() < 1e-9);
        let (visitor, site) = earnings_per_s(&network(share));
        let paid = visitor / rate;
        println!("{share}: {paid:.2} calculations a second are paid");
        let off = (paid - calculations_per_s).abs() / calculations_per_s;
        assert!(off <= TOLERANCE, "{share}: {paid} of {calculations_per_s} a second");
        assert!((site / visitor - 0.03).abs() < 0.001, "{site} of {visitor}");
        seen.push(paid);
    }
    assert!((seen[1] / seen[0] - 2.0).abs() <= 2.0 * TOLERANCE, "{seen:?}");
}
