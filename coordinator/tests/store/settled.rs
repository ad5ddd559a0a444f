//! What is settled and what is void, as the store has it.

use crate::server::{Server, job, record};
use raven_coordinator::store::Book;
use raven_engine::ledger::Account;
use raven_engine::money::{Charge, Flops, NanoUsd, PicoUsd};
use raven_engine::{
    Beneficiary, ContributorId, Credit, JobPhase, JobState, Metrics, Payer, Proof, Record, Void,
};
use raven_protocol::{Backend, BlobId, JobId, ResultDigest, SessionId, TaskId};

const FLOPS: u64 = 1_000_000_000;
const RATE: PicoUsd = PicoUsd(16_000);
/// What one task earns: 20 calculations.
const EARNS: i64 = 320;

fn credit(job: JobId, round: u32, who: u8) -> Credit {
    Credit {
        backend: Backend::Cpu,
        task: TaskId { job, round, stage: 0, part: who.into() },
        contributor: ContributorId([who; 32]),
        session: SessionId(who.into()),
        site: None,
        beneficiary: Beneficiary::Contributor,
        flops: FLOPS,
        rate: RATE,
        digest: ResultDigest([9; 32]),
        proof: Proof::Single,
        attempt: 0,
        payer: Payer::Job,
    }
}

fn with_job() -> (Server, JobId) {
    let server = Server::start();
    let answer = server.post("/v1/jobs", &job(&server.small_dataset())).json();
    let id = answer["id"].as_str().expect("an id");
    let paid = serde_json::json!({ "amount_nano_usd": 1_000_000 });
    assert_eq!(server.post(&format!("/v1/jobs/{id}/top-up"), &paid).status, 200);
    (server, id.parse().expect("an id"))
}

fn round(job: JobId, step: u32, credits: Vec<Credit>) -> Record {
    let train = Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 });
    Record { train, weights: Some(BlobId([step as u8; 32])), credits, ..record(job, step) }
}

fn persist(server: &Server, record: &Record) {
    server.runtime.block_on(server.app.store.persist(record)).expect("persisted");
}

/// What a contributor has for good, and what is held for it.
fn earned(server: &Server, who: u8) -> (i64, i64) {
    let account = Account::Contributor(ContributorId([who; 32]));
    let balance = server.runtime.block_on(server.app.store.balance(Book::Test, account));
    let balance = balance.expect("readable");
    (balance.posted - balance.held_out, balance.held_in)
}

#[test]
fn nobodys_pay_waits_for_a_top_up() {
    let (server, job) = with_job();
    persist(&server, &round(job, 1, vec![credit(job, 0, 1), credit(job, 0, 2)]));
    assert_eq!(earned(&server, 1), (0, EARNS), "as long as it may turn out to be false");
    // A job that may begin again from its last checkpoint has none of this.
    let state = JobState::Paused { missing: NanoUsd(42) };
    persist(&server, &Record { phase: JobPhase::Paused, state, ..record(job, 1) });
    assert_eq!([1, 2].map(|who| earned(&server, who)), [(EARNS, 0); 2]);
    server.runtime.block_on(server.app.store.audit(Book::Test)).expect("the auditor agrees");
}

#[test]
fn what_is_void_is_not_spent_for_the_next_process_either() {
    let (server, job) = with_job();
    persist(&server, &round(job, 1, vec![credit(job, 0, 1), credit(job, 0, 2)]));
    let lie =
        Void { task: credit(job, 0, 2).task, attempt: 0, contributor: ContributorId([2; 32]) };
    let checkpoint = Record { checkpoint: true, voids: vec![lie], ..round(job, 2, Vec::new()) };
    persist(&server, &checkpoint);
    let point = server.runtime.block_on(server.app.store.resume_point(job, None));
    let spent = point.expect("read").expect("a checkpoint").spent;
    assert_eq!((spent.flops, spent.charge), (FLOPS, Charge::of(Flops(FLOPS), RATE)));
}
