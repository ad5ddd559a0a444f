//! How many tasks a second are paid for on one SQLite file by whole records of rounds: each
//! with its credits, the holds of its job's pay, and totals; every sixteenth matures what is
//! held, as a checkpoint does.
//!
//! `cargo run --release -p raven-coordinator --example record_bench -- [RECORDS] [TASKS] [JOBS]`
//! prints one JSON object. Three contributors did each task. A record's entries are one for
//! each account that it pays, so that many tasks need fewer than six each. The records of
//! several jobs, RECORDS of each, are committed together, as those that wait at the same
//! time are; beside them stand the same records committed one by one.

#[path = "../tests/server/mod.rs"]
mod server;

use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::store::{Book, Clock, Persisting};
use raven_engine::money::{NanoUsd, PicoUsd};
use raven_engine::{
    Beneficiary, ContributorId, Credit, JobPhase, JobState, Metrics, Payer, Proof, Record,
};
use raven_protocol::{Backend, BlobId, JobId, ResultDigest, SessionId, TaskId};
use serde_json::json;
use server::{Server, job, record};
use std::time::Instant;

const CONTRIBUTORS: u32 = 2_000;
/// Rounds between two settlements.
const SETTLED_EVERY: u32 = 16;

fn credit(job: JobId, round: u32, part: u32, one_of: u32) -> Credit {
    let mut id = [0; 32];
    let number = (round * 97 + part * 7 + one_of * 641) % CONTRIBUTORS;
    id[..4].copy_from_slice(&number.to_le_bytes());
    Credit {
        backend: Backend::Cpu,
        task: TaskId { job, round, stage: 0, part },
        contributor: ContributorId(id),
        session: SessionId(number.into()),
        site: None,
        beneficiary: Beneficiary::Contributor,
        flops: 1_000_000_000,
        rate: PicoUsd(16_000),
        digest: ResultDigest([9; 32]),
        proof: Proof::Agreed,
        attempt: 0,
        payer: Payer::Job,
    }
}

/// A job that holds enough for its records.
fn posted(server: &Server, dataset: &str) -> JobId {
    let posted = server.post("/v1/jobs", &job(dataset)).json();
    let id: JobId = posted["id"].as_str().expect("an id").parse().expect("an id");
    let paid = json!({ "amount_nano_usd": 1_000_000_000_i64 });
    assert_eq!(server.post(&format!("/v1/jobs/{id}/top-up"), &paid).status, 200);
    id
}

/// What is stored of a job after each of its rounds.
fn records(id: JobId, records: u32, tasks: u32) -> Vec<Record> {
    let round = |step: u32| {
        let parts = (0..tasks).flat_map(|part| [0, 1, 2].map(|one| (part, one)));
        let mut weights = [1; 32];
        weights[..4].copy_from_slice(&step.to_le_bytes());
        Record {
            train: Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 }),
            weights: Some(BlobId(weights)),
            credits: parts.map(|(part, one)| credit(id, step - 1, part, one)).collect(),
            ..record(id, step)
        }
    };
    let paused = |step: u32| Record {
        phase: JobPhase::Paused,
        state: JobState::Paused { missing: NanoUsd(1) },
        ..record(id, step)
    };
    let with_pause = |step: u32| {
        let is_settled = step.is_multiple_of(SETTLED_EVERY) || step == records;
        std::iter::once(round(step)).chain(is_settled.then(|| paused(step)))
    };
    (1..=records).flat_map(with_pause).collect()
}

/// Seconds until all is stored, and until it is audited; and the entries.
fn measure(jobs: u32, of_each: u32, tasks: u32, is_grouped: bool) -> (f64, f64, u64) {
    let server = Server::start_with_settings(UploadLimits::default(), |settings| {
        settings.open_jobs_max = u64::from(jobs);
    });
    let dataset = server.small_dataset();
    let of_job = |_| records(posted(&server, &dataset), of_each, tasks);
    let all: Vec<Vec<Record>> = (0..jobs).map(of_job).collect();
    let store = &server.app.store;
    server.runtime.block_on(async {
        let began = Instant::now();
        for place in 0..all[0].len() {
            let together: Vec<&Record> = all.iter().map(|of_job| &of_job[place]).collect();
            if is_grouped {
                let group: Vec<Persisting<'_>> = together.into_iter().map(persisting).collect();
                for stored in store.persist_group(&group).await.expect("stored") {
                    stored.expect("stored");
                }
            } else {
                for record in together {
                    store.persist(record).await.expect("stored");
                }
            }
        }
        let stored = began.elapsed().as_secs_f64();
        let audited = store.audit(Book::Test).await.expect("all right");
        (stored, began.elapsed().as_secs_f64(), audited.entries)
    })
}

fn persisting(record: &Record) -> Persisting<'_> {
    Persisting { record, clock: Clock::default(), snapshot: None }
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u32>().expect("a number"));
    let (of_each, tasks) = (numbers.next().unwrap_or(128), numbers.next().unwrap_or(512));
    let jobs = numbers.next().unwrap_or(1).max(1);
    let done = f64::from(of_each) * f64::from(tasks) * f64::from(jobs);
    let (alone, _, _) = measure(jobs, of_each, tasks, false);
    let (stored, audited, entries) = measure(jobs, of_each, tasks, true);
    let result = json!({
        "records": of_each, "tasks_of_each": tasks, "jobs": jobs, "executions": 3.0 * done,
        "entries": entries, "tasks_per_s": done / stored, "tasks_per_s_audited": done / audited,
        "one_by_one_tasks_per_s": done / alone,
    });
    println!("{}", serde_json::to_string_pretty(&result).expect("numbers"));
}
