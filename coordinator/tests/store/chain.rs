//! The chain of a strict job's rounds and its published states, as they are stored.

use crate::server::{Server, job, record};
use raven_coordinator::certificate::chain::{Follower, RoundLine};
use raven_coordinator::store::{Clock, Snapshot, SnapshotRow, Store};
use raven_coordinator::sweep::sweep;
use raven_engine::{Acceptance, Metrics, Record};
use raven_protocol::frame::TensorPart;
use raven_protocol::{BlobId, JobId, ResultDigest, TaskId};
use serde_json::json;

fn state(byte: u8) -> BlobId {
    BlobId([byte; 32])
}

/// A round's record, computed as two tasks.
fn round(job: JobId, step: u32, weights: BlobId) -> Record {
    let accepted = |part: u32| Acceptance {
        task: TaskId { job, round: step - 1, stage: 0, part },
        digest: ResultDigest([(step * 2 + part) as u8; 32]),
    };
    Record {
        weights: Some(weights),
        train: Some(Metrics { loss_sum: 1.0, correct: 1.0, count: 2.0 }),
        learning_rate: Some(0.1),
        accepted: vec![accepted(1), accepted(0)],
        ..record(job, step)
    }
}

/// A server with a job of that numerics, and the job's first record stored.
fn started(numerics: &str) -> (Server, JobId) {
    let server = Server::start();
    let mut document = job(&server.small_dataset());
    document["numerics"] = json!(numerics);
    let answer = server.post("/v1/jobs", &document);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id: JobId = answer.json()["id"].as_str().expect("an id").parse().expect("an id");
    (server, id)
}

fn persist(server: &Server, record: &Record, bytes: u64, budget: u64) {
    let store = &server.app.store;
    server.runtime.block_on(async {
        let is_due = store.snapshot_due(record.job, record.step).await.expect("asked");
        let snapshot = record.weights.filter(|_| is_due);
        let snapshot = snapshot.map(|state| Snapshot { state, bytes, budget });
        store.persist_published(record, Clock::default(), snapshot).await.expect("persisted");
    });
}

fn begin(server: &Server, id: JobId, budget: u64) {
    let first = Record { weights: Some(state(0)), checkpoint: true, ..record(id, 0) };
    persist(server, &first, 10, budget);
}

fn lines(server: &Server, store: &Store, id: JobId) -> Vec<RoundLine> {
    server.runtime.block_on(store.links(id, 0, 10_000)).expect("read")
}

fn published(server: &Server, id: JobId) -> Vec<u32> {
    let rows: Vec<SnapshotRow> =
        server.runtime.block_on(server.app.store.snapshots(id)).expect("read");
    rows.iter().map(|row| row.step).collect()
}

/// Whether the stored rounds follow each other, and how many there are.
fn followed(server: &Server, id: JobId) -> u32 {
    let mut follower = Follower::new(id, state(0));
    for line in lines(server, &server.app.store, id) {
        assert!(follower.follow(&line), "{line:?}");
    }
    follower.round()
}

#[test]
fn a_chain_follows_the_final_history() {
    let (server, id) = started("strict");
    begin(&server, id, 1000);
    for step in 1..=6 {
        persist(&server, &round(id, step, state(step as u8)), 10, 1000);
    }
    assert_eq!(followed(&server, id), 6);
    let before = lines(&server, &server.app.store, id);
    assert_eq!(before[0].runs, [0, 1]);
    assert_eq!(before[0].tasks.map(|tasks| tasks.count), Some(2));
    assert_eq!(published(&server, id), [0, 1, 2, 3, 4, 5, 6]);
    // After a crash rounds are done again; what came later is no longer so.
    persist(&server, &round(id, 4, state(4)), 10, 1000);
    assert_eq!(lines(&server, &server.app.store, id), before[..4]);
    assert_eq!(published(&server, id), [0, 1, 2, 3, 4]);
    // A lie was found: its round leads elsewhere this time.
    server.runtime.block_on(server.app.store.truncate_rounds(id, 3)).expect("rolled back");
    assert_eq!(followed(&server, id), 2);
    assert_eq!(published(&server, id), [0, 1, 2]);
    let row = server.runtime.block_on(server.app.store.job(server.owner, id)).expect("read");
    assert_eq!(row.map(|row| row.step), Some(2));
    let point = server.runtime.block_on(server.app.store.resume_point(id, None)).expect("read");
    assert_eq!(point.map(|point| (point.step, point.credited_rounds)), Some((0, 2)));
    persist(&server, &round(id, 3, state(33)), 10, 1000);
    assert_eq!(followed(&server, id), 3);
    assert_ne!(lines(&server, &server.app.store, id)[2], before[2]);
    // Two tasks in one place with two results are no record of anything.
    let mut torn = round(id, 4, state(4));
    torn.accepted[1].task.part = 1;
    persist(&server, &torn, 10, 1000);
    assert_eq!(followed(&server, id), 4);
    let last = lines(&server, &server.app.store, id).pop().expect("a line");
    assert_eq!((last.tasks, last.runs), (None, Vec::new()));
}

#[test]
fn every_other_state_is_let_go_of_where_the_budget_is_full() {
    let (server, id) = started("strict");
    begin(&server, id, 55);
    for step in 1..=40 {
        persist(&server, &round(id, step, state(step as u8)), 10, 55);
        let published = published(&server, id);
        assert!(published.len() <= 5 && published[0] == 0, "{step}: {published:?}");
    }
    assert_eq!(published(&server, id), [0, 16, 32]);
    assert_eq!(followed(&server, id), 40);
    // Where there is no room at all the first state stays.
    let (server, id) = started("strict");
    begin(&server, id, 0);
    for step in 1..=9 {
        persist(&server, &round(id, step, state(step as u8)), 10, 0);
    }
    assert_eq!(published(&server, id), [0]);
    // However small they are, there are not more than 128.
    let (server, id) = started("strict");
    begin(&server, id, u64::MAX);
    for step in 1..=300 {
        persist(&server, &round(id, step, state(step as u8)), 0, u64::MAX);
    }
    let published = published(&server, id);
    assert!((64..=128).contains(&published.len()), "{}", published.len());
    assert!(published.windows(2).all(|pair| pair[1] - pair[0] == published[1]), "{published:?}");
}

#[test]
fn relaxed_jobs_have_no_chain() {
    let (server, id) = started("relaxed");
    begin(&server, id, 1000);
    persist(&server, &round(id, 1, state(1)), 10, 1000);
    assert_eq!(followed(&server, id), 0);
    assert_eq!(published(&server, id), [0; 0]);
    let chain = server.runtime.block_on(server.app.store.chain(id)).expect("read");
    assert_eq!(chain, None);
}

#[test]
fn published_states_are_kept_from_being_swept_until_they_are_let_go_of() {
    let (server, id) = started("strict");
    begin(&server, id, 1000);
    let put = |byte: u8| {
        let ty = raven_graph::TensorType::new(raven_graph::DType::U8, [4]);
        let part = TensorPart { name: "w".into(), ty, data: &[byte; 4] };
        server.app.blobs.put_tensors(&[part]).expect("stored").0
    };
    let (kept, stray) = (put(1), put(2));
    persist(&server, &round(id, 1, kept), 10, 1000);
    let swept = || {
        server.runtime.block_on(sweep(&server.app.store, &server.app.blobs)).expect("swept");
        (server.app.blobs.contains(kept), server.app.blobs.contains(stray))
    };
    assert_eq!(swept(), (true, false));
    let is_kept = server.runtime.block_on(server.app.store.is_checkpoint(kept)).expect("asked");
    assert!(is_kept, "no checkpoint's end may take it");
    server.runtime.block_on(server.app.store.truncate_rounds(id, 1)).expect("rolled back");
    assert_eq!(swept(), (false, false));
}
