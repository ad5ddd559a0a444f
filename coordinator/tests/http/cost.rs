//! What a job says that it cost, beside what was posted.

use crate::server::{Server, job, record};
use raven_coordinator::store::{Book, requester};
use raven_engine::ledger::Account;
use raven_engine::money::PicoUsd;
use raven_engine::{
    Beneficiary, Cause, ContributorId, Credit, JobPhase, JobState, Metrics, Payer, Proof, Record,
};
use raven_protocol::{Backend, BlobId, JobId, ResultDigest, SessionId, TaskId};

/// Of so many operations that every share has a part of a nano-USD left.
fn credit(job: JobId, part: u32, flops: u64) -> Credit {
    Credit {
        backend: Backend::Cpu,
        task: TaskId { job, round: 0, stage: 0, part },
        contributor: ContributorId([1 + part as u8; 32]),
        session: SessionId(1),
        site: None,
        beneficiary: Beneficiary::Contributor,
        flops,
        rate: PicoUsd(16_000),
        digest: ResultDigest([9; 32]),
        proof: Proof::Single,
        attempt: 0,
        payer: Payer::Job,
    }
}

#[test]
fn a_job_that_has_ended_says_what_was_posted_to_the_nano_dollar() {
    let mut differ = 0;
    for flops in [0, 1, 3_000_000, 51_000_001, 93_749_999, 1_234_567_891, 2_999_999_999] {
        let server = Server::start();
        let free = || {
            let of = server.app.store.balance(Book::Test, requester(server.owner));
            server.runtime.block_on(of).expect("read").posted
        };
        let before = free();
        let answer = server.post("/v1/jobs", &job(&server.small_dataset())).json();
        let text = answer["id"].as_str().expect("an id").to_owned();
        let id: JobId = text.parse().expect("an id");
        let paid = serde_json::json!({ "amount_nano_usd": 100_000 });
        assert_eq!(server.post(&format!("/v1/jobs/{text}/top-up"), &paid).status, 200);
        let cost = || {
            let shown = server.get(&format!("/v1/jobs/{text}")).json();
            shown["cost"]["nano_usd"].as_i64().expect("a number")
        };
        let credits = (0..3).filter(|_| flops > 0).map(|part| credit(id, part, flops)).collect();
        let train = Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 });
        let round = Record { train, weights: Some(BlobId([1; 32])), credits, ..record(id, 1) };
        let state = JobState::Cancelled { cause: Cause::Owner };
        let end = Record { phase: JobPhase::Cancelled, state, ..record(id, 1) };
        let persist = |record: &Record| {
            server.runtime.block_on(server.app.store.persist(record)).expect("persisted");
        };
        persist(&round);
        let bound = cost();
        persist(&end);
        let posted = before - free();
        assert_eq!(cost(), posted, "{flops} flops");
        assert!((posted..=posted + 4).contains(&bound), "{bound} for {posted}");
        differ += i32::from(bound != posted);
        let escrow =
            server.runtime.block_on(server.app.store.balance(Book::Test, Account::Escrow(id)));
        assert_eq!(escrow.expect("read").posted, 0);
    }
    assert!(differ > 3, "{differ}");
}
