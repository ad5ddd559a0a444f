//! Records of several jobs that are committed together.

use crate::server::{Server, job, record};
use raven_coordinator::store::{Book, Clock, Persisting, StoreError};
use raven_engine::ledger::Account;
use raven_engine::money::PicoUsd;
use raven_engine::{
    Beneficiary, ContributorId, Credit, JobPhase, JobState, Metrics, Payer, Proof, Record,
};
use raven_protocol::{Backend, BlobId, JobId, ResultDigest, SessionId, TaskId};
use sqlx::ConnectOptions as _;

/// What one task earns: 20 calculations.
const EARNS: i64 = 320;

fn posted(server: &Server, dataset: &str) -> JobId {
    let answer = server.post("/v1/jobs", &job(dataset)).json();
    let id = answer["id"].as_str().expect("an id");
    let paid = serde_json::json!({ "amount_nano_usd": 1_000_000 });
    assert_eq!(server.post(&format!("/v1/jobs/{id}/top-up"), &paid).status, 200);
    id.parse().expect("an id")
}

fn round(job: JobId, step: u32, who: u8) -> Record {
    let credit = Credit {
        backend: Backend::Cpu,
        task: TaskId { job, round: step - 1, stage: 0, part: 0 },
        contributor: ContributorId([who; 32]),
        session: SessionId(who.into()),
        site: None,
        beneficiary: Beneficiary::Contributor,
        flops: 1_000_000_000,
        rate: PicoUsd(16_000),
        digest: ResultDigest([9; 32]),
        proof: Proof::Single,
        attempt: 0,
        payer: Payer::Job,
    };
    let train = Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 });
    let weights = Some(BlobId([step as u8; 32]));
    Record { train, weights, credits: vec![credit], ..record(job, step) }
}

fn group(server: &Server, records: &[Record]) -> Vec<Result<(), StoreError>> {
    let persisting = |record| Persisting { record, clock: Clock::default(), snapshot: None };
    let records: Vec<Persisting<'_>> = records.iter().map(persisting).collect();
    server.runtime.block_on(server.app.store.persist_group(&records)).expect("committed")
}

fn write(server: &Server, sql: &'static str, job: JobId) {
    let file = server.app.store.folder().join("raven.sqlite");
    server.runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
        let mut connection = options.connect().await.expect("connects");
        let written = sqlx::query(sql).bind(job.0.cast_signed()).execute(&mut connection).await;
        written.expect("written");
    });
}

/// Its phase, its rounds, and what a contributor has and is to have.
fn state(server: &Server, job: JobId, who: u8) -> (JobPhase, usize, i64) {
    let store = &server.app.store;
    let account = Account::Contributor(ContributorId([who; 32]));
    server.runtime.block_on(async {
        let row = store.job(server.owner, job).await.expect("read").expect("a job");
        let rounds = store.curve(job, 100).await.expect("read").loss.len();
        let balance = store.balance(Book::Test, account).await.expect("read");
        (row.phase, rounds, balance.posted + balance.held_in)
    })
}

#[test]
fn one_that_is_refused_changes_nothing_and_the_others_are_stored() {
    let server = Server::start();
    let dataset = server.small_dataset();
    let jobs = [(); 3].map(|()| posted(&server, &dataset));
    // Its round is added before its books turn out to be unreadable.
    write(&server, "UPDATE jobs SET statements = -1 WHERE id = ?1", jobs[1]);
    let [first, second, third] = jobs;
    let unknown = JobId(first.0 ^ second.0 ^ third.0);
    let records =
        [round(first, 1, 1), round(second, 1, 2), round(unknown, 1, 4), round(third, 1, 3)];
    let results = group(&server, &records);
    assert!(results[0].is_ok() && results[3].is_ok(), "{results:?}");
    assert!(matches!(results[1], Err(StoreError::Unreadable { .. })), "{results:?}");
    assert!(matches!(results[2], Err(StoreError::UnknownJob { job }) if job == unknown));
    let states = [(first, 1), (second, 2), (third, 3)].map(|(job, who)| state(&server, job, who));
    let (running, queued) = (JobPhase::Running, JobPhase::Queued);
    assert_eq!(states, [(running, 1, EARNS), (queued, 0, 0), (running, 1, EARNS)]);
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("the auditor agrees");
    // By itself it is stored, once its books can be read.
    write(&server, "UPDATE jobs SET statements = 0 WHERE id = ?1", second);
    let results = group(&server, &records);
    assert!(results[0].is_ok() && results[1].is_ok() && results[3].is_ok(), "{results:?}");
    let states = [(first, 1), (second, 2), (third, 3)].map(|(job, who)| state(&server, job, who));
    assert_eq!(states, [(running, 1, EARNS); 3], "what was there already is there once");
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("the auditor agrees");
}

#[test]
fn together_they_come_to_the_same_as_one_by_one() {
    let all = |is_grouped: bool| {
        let server = Server::start();
        let dataset = server.small_dataset();
        let jobs = [(); 3].map(|()| posted(&server, &dataset));
        for step in 1..=6 {
            let mut records: Vec<Record> =
                jobs.iter().zip(1..).map(|(job, who)| round(*job, step, who)).collect();
            if step == 6 {
                for record in &mut records {
                    record.checkpoint = true;
                    record.phase = JobPhase::Paused;
                    record.state = JobState::Paused { missing: raven_engine::money::NanoUsd(1) };
                }
            }
            if is_grouped {
                assert!(group(&server, &records).iter().all(Result::is_ok));
            } else {
                for record in &records {
                    server.runtime.block_on(server.app.store.persist(record)).expect("persisted");
                }
            }
        }
        let audited = server.runtime.block_on(server.app.store.audit(Book::Test)).expect("right");
        let states: Vec<_> =
            jobs.iter().zip(1..).map(|(job, who)| state(&server, *job, who)).collect();
        (states, audited.entries)
    };
    let (states, entries) = all(true);
    assert_eq!((states.clone(), entries), all(false));
    assert_eq!(states, vec![(JobPhase::Paused, 6, 6 * EARNS); 3]);
}
