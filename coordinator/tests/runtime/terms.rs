//! Budgets, deadlines, and jobs that nobody is there for.

use crate::support::Coordinator;
use crate::support::contributor::{Contributor, Habits};
use crate::support::data::{Rows, job};
use raven_coordinator::job::{BudgetSpec, Deadline, JobSpec, WhenSpent};
use raven_coordinator::runtime::operator_contributor;
use raven_coordinator::store::JobRow;
use raven_coordinator::time::UnixMs;
use raven_engine::money::Charge;
use raven_engine::{Cause, Fallback, JobPhase};
use raven_protocol::{BlobId, JobId};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const ROWS: Rows = Rows { train: 600, test: 150 };
const ID: JobId = JobId(1);

/// Runs a job to its end beside so many contributors.
async fn run(spec: &JobSpec, contributors: u8) -> (Coordinator, JobRow) {
    let coordinator = Coordinator::start(|_| {}).await;
    let contributors: Vec<Contributor> = (1..=contributors)
        .map(|number| Contributor::start(coordinator.address, number, Habits::default()))
        .collect();
    while coordinator.runtime.snapshot().nodes.len() < contributors.len() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    coordinator.add_job(ID, &ROWS, spec).await;
    let row = coordinator.finished(ID, PATIENCE).await;
    (coordinator, row)
}

async fn state(spec: &JobSpec, contributors: u8) -> BlobId {
    let (coordinator, row) = run(spec, contributors).await;
    assert_eq!((row.phase, row.reason), (JobPhase::Completed, None));
    coordinator.last_state(ID).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_node_comes_to_the_same_bits_and_is_credited() {
    for placement in ["replica", "master"] {
        let plain = job(placement, 3, 96, 16);
        let by_contributors = state(&plain, 2).await;
        let alone = JobSpec { fallback: Fallback::Operator, fallback_after_s: 1, ..plain };
        let (coordinator, row) = run(&alone, 0).await;
        assert_eq!((row.phase, row.cause), (JobPhase::Completed, Some(Cause::EpochsDone)));
        assert_eq!(coordinator.last_state(ID).await, by_contributors, "{placement}");
        assert!(row.tasks > 0 && row.flops > 0);
        let operator = operator_contributor(&coordinator.store).await.expect("an id");
        let credited = coordinator.store.job_contributors(ID).await.expect("read");
        assert_eq!(credited, [(operator, row.tasks)], "{placement}");
        let snapshot = coordinator.runtime.snapshot();
        assert_eq!((snapshot.contributors, snapshot.nodes.len()), (0, 0), "it is no contributor");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_call_the_operators_node_does_nothing() {
    let coordinator = Coordinator::start(|_| {}).await;
    let patient = JobSpec { fallback_after_s: 0, ..job("replica", 1, 96, 16) };
    coordinator.add_job(ID, &ROWS, &patient).await;
    let hasty = JobSpec { fallback: Fallback::Cancel, fallback_after_s: 1, ..patient };
    coordinator.add_job(JobId(2), &ROWS, &hasty).await;
    let row = coordinator.finished(JobId(2), PATIENCE).await;
    assert_eq!((row.phase, row.cause), (JobPhase::Cancelled, Some(Cause::NoContributors)));
    assert!(row.reason.is_some_and(|reason| reason.contains("nobody")));
    let waiting = coordinator.runtime.job_live(ID).expect("it waits on");
    assert_eq!(waiting.phase, JobPhase::WaitingForContributors);
    assert_eq!(waiting.reason.as_deref(), Some("no contributor is online"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_ends_a_job_and_what_was_trained_is_kept() {
    let whole = run(&job("replica", 3, 96, 16), 1).await.1;
    let price = whole.charge.rounded_up().expect("small").0;
    let most = price.unsigned_abs() / 2;
    assert!(most > 0, "half of {price} nano-USD");
    let budget = Some(BudgetSpec::NanoUsd(most));
    let when_spent = WhenSpent::End;
    let spec = JobSpec { budget, when_spent, ..job("replica", 3, 96, 16) };
    let (coordinator, row) = run(&spec, 1).await;
    assert_eq!((row.phase, row.cause), (JobPhase::Failed, Some(Cause::Budget)));
    assert!(row.charge <= Charge::nano_usd(most), "{row:?}");
    assert!((1..whole.step).contains(&row.step), "{row:?}");
    let kept = coordinator.store.checkpoints(ID).await.expect("read");
    let last = kept.iter().max_by_key(|kept| kept.step).expect("a checkpoint");
    assert_eq!(last.step, row.step, "the newest weights are kept");
    assert!(coordinator.blobs.get(last.weights).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_job_also_in_the_next_process() {
    let coordinator = Coordinator::start(|_| {}).await;
    let at = UnixMs(UnixMs::now().0 + 2_500);
    let spec = JobSpec { deadline: Some(Deadline(at)), ..job("replica", 1, 96, 16) };
    coordinator.add_job(ID, &ROWS, &spec).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let coordinator = coordinator.restart(|_| {}).await;
    let context = coordinator.store_job(ID, &ROWS, &spec).await;
    let resume = coordinator.store.resume_point(ID, None).await.expect("read");
    coordinator.runtime.add_job(context, resume).await.expect("taken again");
    let row = coordinator.finished(ID, PATIENCE).await;
    assert_eq!((row.phase, row.cause), (JobPhase::Failed, Some(Cause::Deadline)));
    let ended = row.ended.expect("it has ended").0;
    assert!((at.0 - 50..at.0 + 2_000).contains(&ended), "{} ms late", ended - at.0);
}
