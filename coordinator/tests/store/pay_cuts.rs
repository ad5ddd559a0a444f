//! Random histories of a job's pay that are cut off: a record's future is dropped at any
//! point where it waits, or the process is gone there and another one opens what is on the
//! disk. Either nothing of a record is stored or all of it, whoever repeats it changes
//! nothing, and the auditor computes the same balances.
//!
//! `RAVEN_LEDGER_HISTORIES=N` runs N / 100 of them, 2,000 at most; `RAVEN_PAY_SEED=S` only one.

use crate::pay::{Lines, Rng, in_memory, lines_in, random_credit, with_job, with_sites, work};
use crate::server::{Server, record};
use raven_coordinator::store::{Book, KeyId, Store, StoreError};
use raven_engine::ledger::{Account, JobPay, RoundKey, Voided};
use raven_engine::money::NanoUsd;
use raven_engine::{
    Cause, Credit, JobPhase, JobState, Metrics, Payer, Record, SetBack, SiteId, Void,
};
use raven_protocol::{BlobId, JobId};
use std::path::Path;
use std::task::Poll;

const HISTORIES: u64 = 20_000;
const ONE_IN: u64 = 100;
const MOST: u64 = 2_000;
/// Records of one history, its end not counted: so few that the file's log is never begun anew.
const RECORDS: u32 = 12;
/// A record waits for fewer than so many answers, mostly.
const POLLS: u64 = 90;
const LAST: RoundKey = RoundKey { attempt: u32::MAX, round: u32::MAX };

/// A store with one job of which nothing is done; histories begin with copies of it.
struct Template {
    folder: tempfile::TempDir,
    owner: KeyId,
    job: JobId,
    sites: [SiteId; 2],
}

impl Template {
    fn new() -> Self {
        let server = Server::start();
        let (job, sites, owner) = (with_job(&server, 600), with_sites(&server), server.owner);
        server.runtime.block_on(server.app.store.close());
        let folder = tempfile::tempdir().expect("a folder");
        copy(server.folder.path(), folder.path());
        Template { folder, owner, job, sites }
    }
}

/// What is on the disk: the file, and its log where there is one.
fn copy(from: &Path, to: &Path) {
    for name in ["raven.sqlite", "raven.sqlite-wal"] {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).expect("copied");
        }
    }
}

async fn open(folder: &Path) -> Store {
    Store::open(&folder.join("raven.sqlite")).await.expect("a store")
}

/// What is to be stored, kept in its own way.
#[derive(Clone)]
struct Model {
    pay: JobPay,
    open: Vec<(RoundKey, Credit)>,
    round: u32,
    attempt: u32,
    /// Rounds that are stored, and those of the last checkpoint.
    rounds: u32,
    kept: u32,
    setbacks: u32,
    is_over: bool,
}

impl Model {
    /// A round, and now and then a lie in what is open, or a checkpoint.
    fn round(&mut self, rng: &mut Rng, (job, sites): (JobId, &[SiteId; 2])) -> Record {
        let key = RoundKey { attempt: self.attempt, round: self.round };
        let credits: Vec<Credit> = (0..1 + rng.below(6) as u32)
            .map(|part| {
                let who = 1 + rng.below(5) as u8;
                random_credit(rng, sites, (job, key), part, who)
            })
            .collect();
        let lie = self.open.get(rng.below(1 + 2 * self.open.len() as u64) as usize).copied();
        let voids: Vec<Void> = lie
            .iter()
            .map(|(key, credit)| Void {
                task: credit.task,
                attempt: key.attempt,
                contributor: credit.contributor,
            })
            .collect();
        let checkpoint = rng.below(4) == 0;
        let step = self.round + 1;
        let record = Record {
            train: Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 }),
            weights: Some(BlobId([step as u8; 32])),
            credits: credits.clone(),
            voids,
            checkpoint,
            ..record(job, step)
        };
        // A round that is done again is the operator's.
        let again = self.round < self.rounds;
        let of = |credit: &Credit| match again {
            true => work(&Credit { payer: Payer::Operator, ..*credit }),
            false => work(credit),
        };
        self.pay.verified(key, credits.iter().map(of).collect(), 1).expect("entered");
        self.open.extend(credits.iter().map(|credit| (key, *credit)));
        if let Some((key, credit)) = lie {
            let task = (credit.task.stage, credit.task.part);
            let voided = Voided { key, task, contributor: credit.contributor };
            self.pay.void(&[voided], 1).expect("voided");
            self.open.retain(|(other, it)| (*other, it.task) != (key, credit.task));
        }
        self.round = step;
        self.rounds = self.rounds.max(step);
        if checkpoint {
            self.pay.mature(LAST, 1);
            self.open.clear();
            self.kept = step;
        }
        record
    }

    /// Its loss diverged: it goes on from its last checkpoint.
    fn set_back(&mut self, job: JobId) -> Record {
        self.attempt += 1;
        self.setbacks += 1;
        let set_back = SetBack { number: self.setbacks, diverged_at: self.round, loss: 9.0 };
        (self.round, self.rounds) = (self.kept, self.kept);
        Record { set_back: Some(set_back), ..record(job, self.kept) }
    }

    fn end(&mut self, job: JobId) -> Record {
        self.pay.mature(LAST, 1);
        self.pay.close(1).expect("nothing open");
        self.is_over = true;
        let state = JobState::Cancelled { cause: Cause::Owner };
        Record { phase: JobPhase::Cancelled, state, ..record(job, self.round) }
    }

    /// Another process goes on from the last checkpoint.
    fn restart(&mut self) {
        self.attempt += 1;
        self.round = self.kept;
    }
}

/// How often a record was cut off, and what it had come to by then.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    records: u32,
    dropped: u32,
    crashed: u32,
    /// Cut records that were not stored, those that were, and those that were repeated.
    lost: u32,
    stored: u32,
    repeated: u32,
    again: u32,
}

/// One history's store.
struct Run {
    folder: tempfile::TempDir,
    store: Store,
    job: JobId,
    reached: Reached,
}

impl Run {
    async fn lines(&self) -> Lines {
        lines_in(self.folder.path(), self.job).await
    }

    /// Stores a record, or is cut off after so many answers that it has waited for.
    async fn persist(&mut self, record: &Record, polls: u64, is_crash: bool) -> bool {
        let mut left = polls;
        let next = tempfile::tempdir().expect("a folder");
        let store = self.store.clone();
        let mut storing = Box::pin(store.persist(record));
        let stored: Option<Result<(), StoreError>> = std::future::poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            storing.as_mut().poll(context).map(Some)
        })
        .await;
        self.reached.records += 1;
        if let Some(stored) = stored {
            stored.expect("stored");
            return true;
        }
        if is_crash {
            copy(self.folder.path(), next.path());
        }
        drop(storing);
        if is_crash {
            self.go_on_in(next).await;
        }
        self.reached.dropped += u32::from(!is_crash);
        false
    }

    /// The process is gone; another one opens what was on the disk.
    async fn crash(&mut self) {
        let next = tempfile::tempdir().expect("a folder");
        copy(self.folder.path(), next.path());
        self.go_on_in(next).await;
    }

    async fn go_on_in(&mut self, folder: tempfile::TempDir) {
        self.store.close().await;
        self.store = open(folder.path()).await;
        self.folder = folder;
        self.reached.crashed += 1;
    }

    async fn audit(&self) {
        self.store.audit(Book::Test).await.expect("the auditor's balances");
    }
}

async fn begin(template: &Template, rng: &mut Rng) -> (Run, Model) {
    let folder = tempfile::tempdir().expect("a folder");
    copy(template.folder.path(), folder.path());
    let store = open(folder.path()).await;
    let more = NanoUsd(1 + rng.below(2_500) as i64);
    let job = template.job;
    let escrow = store.top_up(template.owner, job, more, |_| None).await.expect("paid");
    let model = Model {
        pay: JobPay::new(job, escrow),
        open: Vec::new(),
        round: 0,
        attempt: 0,
        rounds: 0,
        kept: 0,
        setbacks: 0,
        is_over: false,
    };
    (Run { folder, store, job, reached: Reached::default() }, model)
}

async fn history(template: &Template, seed: u64) -> Reached {
    let mut rng = Rng(seed);
    let (mut run, mut model) = begin(template, &mut rng).await;
    while !model.is_over {
        let mut after = model.clone();
        run.reached.again += u32::from(model.round < model.rounds);
        let record = match rng.below(10) {
            _ if run.reached.records >= RECORDS => after.end(template.job),
            0 => after.set_back(template.job),
            _ => after.round(&mut rng, (template.job, &template.sites)),
        };
        let polls = if rng.below(2) == 0 { u64::MAX } else { rng.below(POLLS) };
        let is_crash = rng.below(2) == 0;
        if run.persist(&record, polls, is_crash).await {
            model = after;
            if !model.is_over && rng.below(6) == 0 {
                run.crash().await;
                run.audit().await;
                model.restart();
            }
            assert_eq!(run.lines().await, in_memory(&model.pay));
            continue;
        }
        let found = run.lines().await;
        let row = run.store.job(template.owner, template.job).await.expect("read").expect("a job");
        let is_same = (row.setbacks, row.phase.is_end()) == (after.setbacks, after.is_over);
        let is_stored = found == in_memory(&after.pay) && is_same;
        assert!(is_stored || found == in_memory(&model.pay), "a part of a record is stored");
        run.audit().await;
        run.reached.lost += u32::from(!is_stored);
        run.reached.stored += u32::from(is_stored);
        if !is_crash || rng.below(2) == 0 {
            // Whoever does not know how far it came repeats it.
            assert!(run.persist(&record, u64::MAX, false).await);
            assert_eq!(run.lines().await, in_memory(&after.pay));
            run.audit().await;
            run.reached.repeated += u32::from(is_stored);
            model = after;
            continue;
        }
        if is_stored {
            model = after;
        }
        if !model.is_over {
            model.restart();
        }
    }
    assert_eq!(run.lines().await, in_memory(&model.pay));
    run.audit().await;
    let left = run.store.balance(Book::Test, Account::Escrow(template.job)).await;
    assert_eq!(left.expect("read").posted, 0);
    run.store.close().await;
    run.reached
}

#[test]
fn a_record_that_is_cut_off_is_stored_as_a_whole_or_not_at_all() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let histories = number("RAVEN_LEDGER_HISTORIES").unwrap_or(HISTORIES);
    let seeds = match number("RAVEN_PAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..(histories / ONE_IN).clamp(1, MOST),
    };
    let template = Template::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let count = seeds.end - seeds.start;
    let mut all = Reached::default();
    for seed in seeds {
        println!("history {seed}; RAVEN_PAY_SEED={seed} replays it");
        let it = runtime.block_on(history(&template, seed));
        all.records += it.records;
        all.dropped += it.dropped;
        all.crashed += it.crashed;
        all.lost += it.lost;
        all.stored += it.stored;
        all.repeated += it.repeated;
        all.again += it.again;
    }
    println!("{count} histories, {all:?}");
    let least = [all.dropped, all.crashed, all.lost, all.again].into_iter().min();
    assert!(count < 50 || least.is_some_and(|least| u64::from(least) > count / 2), "{all:?}");
    assert!(count < 50 || all.stored > 0, "{all:?}");
}
