//! Rounds that are done again after a crash: whose work of before is paid, and whose is not.

use crate::server::{Server, job, record};
use raven_coordinator::store::Book;
use raven_engine::ledger::Account;
use raven_engine::money::PicoUsd;
use raven_engine::{Beneficiary, ContributorId, Credit, Metrics, Payer, Proof, Record};
use raven_protocol::{Backend, BlobId, JobId, ResultDigest, SessionId, TaskId};

const FLOPS: u64 = 1_000_000_000;
/// What one task earns: 20 calculations at 16,000 pico-USD.
const EARNS: i64 = 320;

fn credit(job: JobId, round: u32, part: u32, who: u8, digest: u8) -> Credit {
    Credit {
        backend: Backend::Cpu,
        task: TaskId { job, round, stage: 0, part },
        contributor: ContributorId([who; 32]),
        session: SessionId(who.into()),
        site: None,
        beneficiary: Beneficiary::Contributor,
        flops: FLOPS,
        rate: PicoUsd(16_000),
        digest: ResultDigest([digest; 32]),
        proof: Proof::Single,
        attempt: 0,
        payer: Payer::Job,
    }
}

/// A strict job with money for all of this.
fn with_job() -> (Server, JobId) {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    document["numerics"] = "strict".into();
    let answer = server.post("/v1/jobs", &document).json();
    let id = answer["id"].as_str().expect("an id");
    let paid = serde_json::json!({ "amount_nano_usd": 1_000_000 });
    assert_eq!(server.post(&format!("/v1/jobs/{id}/top-up"), &paid).status, 200);
    (server, id.parse().expect("an id"))
}

fn round(job: JobId, step: u32, weights: u8, credits: Vec<Credit>) -> Record {
    Record {
        train: Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 }),
        weights: Some(BlobId([weights; 32])),
        credits,
        ..record(job, step)
    }
}

fn persist(server: &Server, record: &Record) {
    server.runtime.block_on(server.app.store.persist(record)).expect("persisted");
}

/// What an account has or is to have.
fn earned(server: &Server, account: Account) -> i64 {
    let balance = server.runtime.block_on(server.app.store.balance(Book::Test, account));
    let balance = balance.expect("readable");
    balance.posted + balance.held_in - balance.held_out
}

fn of(server: &Server, who: u8) -> i64 {
    earned(server, Account::Contributor(ContributorId([who; 32])))
}

fn again(credits: Vec<Credit>) -> Vec<Credit> {
    let redone = |credit| Credit { attempt: 1, payer: Payer::Operator, ..credit };
    credits.into_iter().map(redone).collect()
}

#[test]
fn whoever_does_a_round_again_is_paid_by_the_operator_and_the_first_as_well() {
    let (server, job) = with_job();
    persist(&server, &round(job, 1, 1, vec![credit(job, 0, 0, 1, 9), credit(job, 0, 1, 2, 9)]));
    let point = server.runtime.block_on(server.app.store.resume_point(job, None));
    assert!(point.expect("read").is_none(), "no checkpoint");
    let row = server.runtime.block_on(server.app.store.job(server.owner, job));
    let charged = row.expect("read").expect("a job").charged;
    // The next process, cut otherwise, one of them by who did it before.
    let redone = again(vec![credit(job, 0, 0, 1, 9), credit(job, 0, 1, 3, 9)]);
    persist(&server, &round(job, 1, 1, redone.clone()));
    persist(&server, &round(job, 1, 1, redone));
    assert_eq!([1, 2, 3].map(|who| of(&server, who)), [2 * EARNS, EARNS, EARNS]);
    let row = server.runtime.block_on(server.app.store.job(server.owner, job));
    assert_eq!(row.expect("read").expect("a job").charged, charged, "nothing is charged twice");
    assert_eq!(earned(&server, Account::MasterNode), 2 * EARNS / 20, "no margin twice");
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("the auditor agrees");
}

#[test]
fn the_word_of_one_is_void_where_its_round_comes_to_something_else() {
    let (server, job) = with_job();
    // Two lies in the first round, and goes on; four is cut otherwise the second time.
    let first = vec![
        credit(job, 0, 0, 1, 9),
        credit(job, 0, 1, 2, 8),
        Credit { proof: Proof::Agreed, ..credit(job, 0, 2, 3, 8) },
        credit(job, 0, 3, 4, 9),
    ];
    persist(&server, &round(job, 1, 1, first));
    let second = vec![credit(job, 1, 0, 1, 7), credit(job, 1, 1, 2, 7), credit(job, 1, 2, 4, 7)];
    persist(&server, &round(job, 2, 2, second));
    assert_eq!([1, 2, 3, 4].map(|who| of(&server, who)), [640, 640, 320, 640]);
    let redone =
        again(vec![credit(job, 0, 0, 5, 9), credit(job, 0, 1, 5, 9), credit(job, 0, 2, 5, 9)]);
    persist(&server, &round(job, 1, 3, redone));
    // One is confirmed, three was not alone; of four's second nothing is known.
    assert_eq!([1, 2, 3, 4].map(|who| of(&server, who)), [640, 0, 320, 320]);
    // What comes behind it differs for that reason alone.
    let redone = again(vec![credit(job, 1, 0, 5, 6), credit(job, 1, 1, 5, 6)]);
    persist(&server, &round(job, 2, 4, redone));
    assert_eq!([1, 2, 3, 4, 5].map(|who| of(&server, who)), [640, 0, 320, 320, 5 * EARNS]);
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("the auditor agrees");
    // What has matured is nobody's to take back.
    persist(&server, &Record { checkpoint: true, ..round(job, 3, 5, Vec::new()) });
    persist(&server, &round(job, 3, 6, again(vec![credit(job, 2, 0, 5, 6)])));
    assert_eq!([1, 2, 3, 4].map(|who| of(&server, who)), [640, 0, 320, 320]);
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("the auditor agrees");
}

#[test]
fn what_a_repeated_round_shows_is_void_before_many_rounds_mature() {
    let (server, job) = with_job();
    let rounds = 300;
    for step in 1..=rounds {
        let weights = (step % 250) as u8;
        let lie = if step == rounds { 8 } else { 9 };
        persist(&server, &round(job, step, weights, vec![credit(job, step - 1, 0, 1, lie)]));
    }
    // All of it again after a crash; the last one, a checkpoint, comes to something else.
    for step in 1..=rounds {
        let (weights, is_last) = ((step % 250) as u8, step == rounds);
        let redone = again(vec![credit(job, step - 1, 0, 2, 9)]);
        let weights = if is_last { 255 } else { weights };
        persist(&server, &Record { checkpoint: is_last, ..round(job, step, weights, redone) });
    }
    let each = i64::from(rounds) * EARNS;
    assert_eq!([1, 2].map(|who| of(&server, who)), [each - EARNS, each]);
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("the auditor agrees");
}
