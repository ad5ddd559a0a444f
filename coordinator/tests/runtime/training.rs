//! Jobs are trained to their end by contributors over real sockets, and come
//! to the same bits whoever contributed.

use crate::support::Coordinator;
use crate::support::contributor::{Contributor, Habits, Poison};
use crate::support::data::{Rows, job};
use ed25519_dalek::SigningKey;
use raven_coordinator::job::JobContext;
use raven_engine::{ContributorId, Identity, JobPhase, Trust};
use raven_graph::cut::Stage;
use raven_protocol::{Backend, BlobId, DeviceClass, GoodbyeReason, JobId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const ROWS: Rows = Rows { train: 600, test: 150 };

/// What a training came to.
struct Trained {
    state: BlobId,
    accuracy: f64,
    context: Arc<JobContext>,
    /// By contributor, what it was sent.
    tasks: Vec<Vec<TaskId>>,
}

/// Trains with the given contributors.
async fn train(placement: &str, habits: &[Habits]) -> Trained {
    let coordinator = Coordinator::start(|_| {}).await;
    let id = JobId(1);
    let contributors: Vec<Contributor> = habits
        .iter()
        .enumerate()
        .map(|(number, &habits)| Contributor::start(coordinator.address, number as u8 + 1, habits))
        .collect();
    // The job is short: whoever comes late would find nothing to do.
    while coordinator.runtime.snapshot().nodes.len() < habits.len() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let context = coordinator.add_job(id, &ROWS, &job(placement, 3, 96, 16)).await;
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!((row.phase, row.reason), (JobPhase::Completed, None));
    assert_eq!((row.step, row.epochs_done), (21, 3));
    for (contributor, habits) in contributors.iter().zip(habits) {
        assert!(contributor.commits() > 0, "every contributor worked");
        if let Some(limit) = habits.dies_after {
            assert_eq!(contributor.commits(), limit, "it died on the way");
        }
    }
    let summary = coordinator.store.job_summary(id).await.expect("read");
    let accuracy = summary.evaluation.and_then(|(_, means)| means.accuracy).expect("evaluated");
    let state = coordinator.last_state(id).await;
    assert!(coordinator.blobs.get(state).is_ok(), "the checkpoint is on disk");
    let metrics = coordinator.runtime.metrics();
    // What the mode's allowance does not cover is the operator's, not the job's.
    let executions = coordinator.store.executions(id).await.expect("read");
    let (all, own) = executions
        .iter()
        .fold((0, 0), |(all, own), one| (all + one.count, own + one.count - one.by_operator));
    assert_eq!((metrics.tasks_accepted.get(), row.tasks), (all, own));
    coordinator.runtime.shutdown().await;
    let tasks = contributors.iter().map(Contributor::tasks).collect();
    Trained { state, accuracy, context, tasks }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bits_with_one_and_three_contributors_and_one_killed() {
    let steady = Habits::default();
    let slow = Habits { slow: Duration::from_millis(30), ..steady };
    let dying = Habits { dies_after: Some(2), ..steady };
    let alone = train("replica", &[steady]).await;
    assert!(alone.accuracy > 0.9, "accuracy {}", alone.accuracy);
    let three = train("replica", &[steady, slow, steady]).await;
    assert_eq!(alone.state, three.state);
    let killed = train("replica", &[dying, slow, steady]).await;
    assert_eq!(alone.state, killed.state);
}

#[tokio::test(flavor = "multi_thread")]
async fn master_placement_shows_nobody_more_than_half_of_the_weights() {
    let steady = Habits::default();
    let two = train("master", &[steady, steady]).await;
    assert!(two.accuracy > 0.9, "accuracy {}", two.accuracy);
    let three = train("master", &[steady, steady, steady]).await;
    assert_eq!(two.state, three.state);
    for trained in [two, three] {
        for tasks in &trained.tasks {
            let held = held_fraction(&trained.context, tasks);
            println!("a contributor was shown {:.1} % of the weights", held * 100.0);
            assert!(held > 0.0 && held <= 0.5, "{held}");
        }
    }
}

/// Who is vetted is believed without a second opinion, but not about products.
#[tokio::test(flavor = "multi_thread")]
async fn a_false_product_of_a_vetted_contributor_is_found_by_probes() {
    let steady = Habits::default();
    let honest = train("master", &[steady, steady]).await;
    let coordinator = Coordinator::start(|_| {}).await;
    let id = JobId(1);
    // It is so when it comes: of a short job a busy machine may leave it too little to
    // become so, or to lie.
    let who = Identity {
        contributor: ContributorId(SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes()),
        device: DeviceClass::Server,
        backend: Backend::Cpu,
    };
    let vetted = Trust::Agreed { results: 100, refereed: 5 };
    coordinator.store.set_trust(&[(who, vetted)]).await.expect("stored");
    let poison = Poison { below: u32::MAX, factor: 1.01, after: 10 };
    let liar = Habits { poison: Some(poison), ..steady };
    let slower = Habits { slow: Duration::from_millis(2), ..steady };
    let mut contributors: Vec<Contributor> = (1u8..)
        .zip([liar, slower, slower, slower, slower])
        .map(|(number, habits)| Contributor::start(coordinator.address, number, habits))
        .collect();
    while coordinator.runtime.snapshot().nodes.len() < contributors.len() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    coordinator.add_job(id, &ROWS, &job("master", 3, 96, 16)).await;
    let begun = Instant::now();
    while contributors[0].goodbye().is_none() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(contributors[0].goodbye(), Some(GoodbyeReason::Excluded));
    // Of so few, those who are left may have been shown too much to see the slices that
    // only the liar has seen.
    let new = [6, 7].map(|number| Contributor::start(coordinator.address, number, steady));
    contributors.extend(new);
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!((row.phase, row.reason), (JobPhase::Completed, None));
    assert_eq!(coordinator.last_state(id).await, honest.state);
    let metrics = coordinator.runtime.metrics();
    let (checks, faults) = (metrics.product_checks.get(), metrics.product_faults.get());
    println!("{checks} products checked, {faults} false");
    assert!(checks > 100, "{checks}");
    // Two leases at once may both be answered before the first is found out.
    assert!((1..=4).contains(&faults), "{faults}");
    let executions = coordinator.store.executions(id).await.expect("read");
    let single = executions.iter().find(|one| one.proof == "single").map_or(0, |one| one.count);
    assert!(single > 50, "most are believed singly: {executions:?}");
    coordinator.runtime.shutdown().await;
}

/// The fraction of all large weights that the operands of these tasks show.
fn held_fraction(context: &JobContext, tasks: &[TaskId]) -> f64 {
    let stages = &context.cut.as_ref().expect("a cut").stages;
    let mut held: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let mut extents: BTreeMap<String, u32> = BTreeMap::new();
    let parts = |stage: &Stage| match stage {
        Stage::Pushed(entries) => entries.iter().flat_map(|entry| entry.parts.clone()).collect(),
        Stage::Local(_) => Vec::new(),
    };
    for slice in stages.iter().flat_map(parts).filter_map(|part| part.held) {
        let param = context.params.iter().find(|param| param.name == slice.param);
        let extent = param.expect("a parameter").ty.shape.dims()[slice.axis as usize];
        extents.insert(slice.param, extent);
    }
    for task in tasks {
        let part = parts(&stages[task.stage as usize])[task.part as usize].clone();
        if let Some(slice) = part.held {
            held.entry(slice.param).or_default().extend(slice.start..slice.end);
        }
    }
    let size = |name: &String| -> f64 {
        let param = context.params.iter().find(|param| param.name == *name).expect("a parameter");
        param.ty.shape.elements().expect("small") as f64
    };
    let whole: f64 = extents.keys().map(size).sum();
    let shown =
        held.iter().map(|(name, shown)| size(name) * shown.len() as f64 / f64::from(extents[name]));
    shown.sum::<f64>() / whole
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_of_megabytes_are_hashed_beside_the_sockets() {
    let coordinator = Coordinator::start(|_| {}).await;
    let id = JobId(1);
    let mut spec = job("replica", 1, 200, 50);
    // Gradients of 1.2 MB.
    let wide = serde_json::json!({
        "layers": [{"type": "flatten"}, {"type": "dense", "units": 4500}, {"type": "dense", "units": 4}],
        "loss": "cross_entropy"
    });
    spec.model = serde_json::from_value(wide).expect("a model");
    coordinator.add_job(id, &ROWS, &spec).await;
    let contributor = Contributor::start(coordinator.address, 1, Habits::default());
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Completed, "{:?}", row.reason);
    let metrics = coordinator.runtime.metrics();
    assert!(metrics.bytes_in.get() > 3 * (1 << 20), "{}", metrics.bytes_in.get());
    drop(contributor);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_coordinator_goes_on_to_the_same_bits() {
    let whole = train("replica", &[Habits::default()]).await;
    let coordinator = Coordinator::start(|_| {}).await;
    let (id, spec) = (JobId(1), job("replica", 3, 96, 16));
    coordinator.add_job(id, &ROWS, &spec).await;
    let slow = Habits { slow: Duration::from_millis(20), ..Habits::default() };
    let contributor = Contributor::start(coordinator.address, 1, slow);
    while coordinator.row(id).await.step < 10 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let coordinator = coordinator.restart(|_| {}).await;
    drop(contributor);
    let context = coordinator.store_job(id, &ROWS, &spec).await;
    let resume = coordinator.store.resume_point(id, None).await.expect("read");
    coordinator.runtime.add_job(context, resume).await.expect("taken again");
    let contributor = Contributor::start(coordinator.address, 2, Habits::default());
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Completed);
    assert_eq!(coordinator.last_state(id).await, whole.state);
    drop(contributor);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_the_store_does_not_take_is_stored_once_it_does() {
    let coordinator = Coordinator::start(|_| {}).await;
    let id = JobId(1);
    coordinator.add_job(id, &ROWS, &job("replica", 1000, 96, 16)).await;
    let contributor = Contributor::start(coordinator.address, 1, Habits::default());
    while coordinator.row(id).await.step < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    coordinator
        .sql(
            "CREATE TRIGGER refuse BEFORE UPDATE ON jobs WHEN NEW.phase = 'cancelled'
             BEGIN SELECT RAISE(FAIL, 'the disk is full'); END",
        )
        .await;
    coordinator.runtime.cancel_job(id).await.expect("told");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(coordinator.row(id).await.phase, JobPhase::Running);
    let live = coordinator.runtime.job_live(id).expect("it is still held");
    assert_eq!(live.phase, JobPhase::Cancelled);
    coordinator.sql("DROP TRIGGER refuse").await;
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Cancelled);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(coordinator.runtime.job_live(id), None, "and then forgotten");
    drop(contributor);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_contributors_were_shown_counts_in_the_next_process() {
    let coordinator = Coordinator::start(|_| {}).await;
    let (id, spec) = (JobId(1), job("master", 3, 96, 16));
    let context = coordinator.add_job(id, &ROWS, &spec).await;
    let slow = Habits { slow: Duration::from_millis(5), ..Habits::default() };
    let start = |address, numbers: [u8; 2]| numbers.map(|n| Contributor::start(address, n, slow));
    let before = start(coordinator.address, [1, 2]);
    while coordinator.row(id).await.step < 9 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let coordinator = coordinator.restart(|_| {}).await;
    let again = coordinator.store_job(id, &ROWS, &spec).await;
    let resume =
        coordinator.store.resume_point(id, None).await.expect("read").expect("a checkpoint");
    assert_eq!(resume.shown.len(), 2, "{:?}", resume.shown);
    // They come back in the other order.
    let [second, first] = start(coordinator.address, [2, 1]);
    coordinator.runtime.add_job(again, Some(resume)).await.expect("taken again");
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Completed, "{:?}", row.reason);
    for (old, new) in before.iter().zip([&first, &second]) {
        let tasks = [old.tasks(), new.tasks()].concat();
        let held = held_fraction(&context, &tasks);
        assert!(held > 0.0 && held <= 0.5, "{held} over both processes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_of_one_seed_share_their_states_and_both_keep_them() {
    let coordinator = Coordinator::start(|_| {}).await;
    let spec = job("replica", 3, 96, 16);
    for id in [JobId(1), JobId(2)] {
        coordinator.add_job(id, &ROWS, &spec).await;
    }
    let contributors: Vec<Contributor> =
        (1..=2).map(|n| Contributor::start(coordinator.address, n, Habits::default())).collect();
    for id in [JobId(1), JobId(2)] {
        assert_eq!(coordinator.finished(id, PATIENCE).await.phase, JobPhase::Completed);
    }
    assert_eq!(coordinator.last_state(JobId(1)).await, coordinator.last_state(JobId(2)).await);
    for id in [JobId(1), JobId(2)] {
        for blob in coordinator.store.checkpoint_blobs(id).await.expect("read") {
            assert!(coordinator.blobs.get(blob).is_ok(), "every checkpoint is on disk");
        }
    }
    drop(contributors);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_ends_and_is_forgotten() {
    let coordinator = Coordinator::start(|_| {}).await;
    let id = JobId(1);
    coordinator.add_job(id, &ROWS, &job("replica", 1000, 96, 16)).await;
    let contributor = Contributor::start(coordinator.address, 1, Habits::default());
    let mut notices = coordinator.runtime.notices();
    while coordinator.row(id).await.step < 5 {
        assert_eq!(notices.recv().await, Ok(id));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let live = coordinator.runtime.job_live(id).expect("it runs");
    assert!(live.images_per_s > 0.0 && live.train_ms > 0, "{live:?}");
    let node = coordinator.runtime.snapshot().nodes[0].clone();
    assert!(node.tasks_accepted > 0 && node.flops_per_s > 0, "{node:?}");
    let metrics = coordinator.runtime.render_metrics();
    assert!(metrics.contains("\nraven_contributors 1\n"), "{metrics}");
    coordinator.runtime.cancel_job(id).await.expect("told");
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Cancelled);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(coordinator.runtime.job_live(id), None);
    assert_eq!(coordinator.runtime.snapshot().nodes.len(), 1);
    drop(contributor);
}
