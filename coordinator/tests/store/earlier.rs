//! Work that was open when a process ended: what of it the next one lets mature, and what it
//! is told of it.

use crate::server::{Server, job, record};
use raven_coordinator::runtime::SessionRecord;
use raven_coordinator::store::Book;
use raven_engine::ledger::Account;
use raven_engine::money::PicoUsd;
use raven_engine::{
    Beneficiary, Cause, ContributorId, Credit, Earlier, Identity, JobPhase, JobState, Metrics,
    NetworkPrefix, Payer, Proof, Record, Trust,
};
use raven_protocol::{
    Backend, BlobId, Device, DeviceClass, JobId, KernelId, NumericClass, ResultDigest, SessionId,
    TaskId,
};

const FLOPS: u64 = 1_000_000_000;
/// What one task earns: 20 calculations at 16,000 pico-USD.
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
        rate: PicoUsd(16_000),
        digest: ResultDigest([who; 32]),
        proof: Proof::Single,
        attempt: 0,
        payer: Payer::Job,
    }
}

fn with_job(numerics: &str) -> (Server, JobId) {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    document["numerics"] = numerics.into();
    let answer = server.post("/v1/jobs", &document).json();
    let id = answer["id"].as_str().expect("an id");
    let paid = serde_json::json!({ "amount_nano_usd": 1_000_000 });
    assert_eq!(server.post(&format!("/v1/jobs/{id}/top-up"), &paid).status, 200);
    (server, id.parse().expect("an id"))
}

fn open_session(server: &Server, who: u8) {
    let device = Device { class: DeviceClass::Phone, cores: 1, memory_bytes: 1, flops_per_s: 1 };
    let record = SessionRecord {
        session: SessionId(who.into()),
        contributor: ContributorId([who; 32]),
        site: None,
        origin: None,
        ticket: None,
        prefix: NetworkPrefix([0; 16]),
        device,
        numeric: NumericClass::Cpu { kernel: KernelId([7; 32]) },
        share: 1.0,
        workers: 1,
        refuses: raven_engine::CategorySet::EMPTY,
        view: None,
        receipt: "{}".into(),
        signature: String::new(),
    };
    server.runtime.block_on(server.app.store.session_opened(&record)).expect("stored");
}

fn round(job: JobId, step: u32, credits: Vec<Credit>) -> Record {
    let train = Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 });
    Record { train, weights: Some(BlobId([step as u8; 32])), credits, ..record(job, step) }
}

fn persist(server: &Server, record: &Record) {
    server.runtime.block_on(server.app.store.persist(record)).expect("persisted");
}

/// What somebody has for good, and what is held for it.
fn earned(server: &Server, who: u8) -> (i64, i64) {
    let account = Account::Contributor(ContributorId([who; 32]));
    let balance = server.runtime.block_on(server.app.store.balance(Book::Test, account));
    let balance = balance.expect("readable");
    (balance.posted - balance.held_out, balance.held_in)
}

fn identity(who: u8, device: DeviceClass, backend: Backend) -> Identity {
    Identity { contributor: ContributorId([who; 32]), device, backend }
}

fn end(job: JobId, step: u32, earlier: Option<Earlier>) -> Record {
    let state = JobState::Cancelled { cause: Cause::Owner };
    Record { phase: JobPhase::Cancelled, state, earlier, ..record(job, step) }
}

#[test]
fn what_a_liar_did_before_a_restart_does_not_mature() {
    for (is_end, rounds) in [(true, 2), (false, 2), (false, 300)] {
        let (server, job) = with_job("relaxed");
        let gpu = |round, who| {
            let session = SessionId(10 + u64::from(who));
            Credit { backend: Backend::Gpu, session, ..credit(job, round, who) }
        };
        [1, 2, 3].iter().for_each(|&who| open_session(&server, who));
        for step in 1..=rounds {
            let refereed = Credit { proof: Proof::Refereed, ..credit(job, step - 1, 4) };
            let mut credits: Vec<Credit> =
                [1, 2, 3].iter().map(|&who| credit(job, step - 1, who)).collect();
            credits.extend([refereed, gpu(step - 1, 5)]);
            persist(&server, &round(job, step, credits));
        }
        // The next process goes on from nothing, and finds out two, a fourth, and a GPU; of
        // three that is stored.
        let own = Credit { attempt: 1, payer: Payer::Operator, ..credit(job, 0, 2) };
        let cpu = |who| identity(who, DeviceClass::Phone, Backend::Cpu);
        let known =
            [(cpu(3), Trust::Excluded), (cpu(1), Trust::Agreed { results: 9, refereed: 1 })];
        server.runtime.block_on(server.app.store.set_trust(&known)).expect("stored");
        let other_gpu = identity(1, DeviceClass::Desktop, Backend::Gpu);
        let earlier = Some(Earlier { below: 1, excluded: vec![cpu(2), cpu(4), other_gpu] });
        persist(&server, &round(job, 1, vec![own]));
        let last = match is_end {
            true => end(job, 1, earlier),
            false => Record { checkpoint: true, earlier, ..record(job, 1) },
        };
        persist(&server, &last);
        persist(&server, &last);
        let all = i64::from(rounds) * EARNS;
        // What the engine itself has of two it looks at itself; what the referee computed is
        // right, whoever did.
        let found = [1, 2, 3, 4, 5].map(|who| earned(&server, who));
        assert_eq!(found, [(all, 0), (EARNS, 0), (0, 0), (all, 0), (all, 0)], "{is_end} {rounds}");
        server.runtime.block_on(server.app.store.audit(Book::Test)).expect("the auditor agrees");
    }
}

#[test]
fn what_nobody_looked_at_goes_with_the_job_as_far_as_its_weights_are_known() {
    let (server, job) = with_job("strict");
    [1, 2].iter().for_each(|&who| open_session(&server, who));
    let both = |round: u32| vec![credit(job, round, 1), credit(job, round, 2)];
    persist(&server, &Record { checkpoint: true, ..round(job, 1, both(0)) });
    let open = || {
        let point = server.runtime.block_on(server.app.store.resume_point(job, None));
        let open = point.expect("read").expect("a checkpoint").open;
        open.iter()
            .map(|it| (it.task.round, it.attempt, it.contributor.0[0], it.state.0[0]))
            .collect()
    };
    let found: Vec<(u32, u32, u8, u8)> = open();
    assert_eq!(found, [], "it has matured");
    let agreed = Credit { proof: Proof::Agreed, ..credit(job, 1, 3) };
    let unknown = credit(job, 1, 4);
    persist(&server, &round(job, 2, [both(1), vec![agreed, unknown]].concat()));
    persist(&server, &round(job, 3, both(2)));
    let found: Vec<(u32, u32, u8, u8)> = open();
    assert_eq!(found, [(1, 0, 1, 1), (1, 0, 2, 1), (2, 0, 1, 2), (2, 0, 2, 2)]);
    // The round is done again, and comes to something else: of what began from it nobody
    // knows the weights any more.
    let again =
        |round, who| Credit { attempt: 1, payer: Payer::Operator, ..credit(job, round, who) };
    persist(
        &server,
        &Record { weights: Some(BlobId([9; 32])), ..round(job, 2, vec![again(1, 1)]) },
    );
    let found: Vec<(u32, u32, u8, u8)> = open();
    assert_eq!(found, [(1, 1, 1, 1)]);
    // A third process, and what it does behind that.
    let again = |round, who| Credit { attempt: 2, ..again(round, who) };
    persist(
        &server,
        &Record { weights: Some(BlobId([9; 32])), ..round(job, 2, vec![again(1, 2)]) },
    );
    let found: Vec<(u32, u32, u8, u8)> = open();
    assert_eq!(found, [(1, 2, 2, 1)]);
}
