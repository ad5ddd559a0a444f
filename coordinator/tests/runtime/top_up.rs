//! Jobs that hold less than they cost: they wait for money, and lose nothing by it.

use crate::support::Coordinator;
use crate::support::contributor::{Contributor, Habits};
use crate::support::data::{Rows, job};
use raven_coordinator::job::{BudgetSpec, JobSpec, WhenSpent, resume};
use raven_coordinator::store::{Book, JobRow};
use raven_coordinator::time::UnixMs;
use raven_engine::ledger::Account;
use raven_engine::money::NanoUsd;
use raven_engine::{Cause, JobPhase, Verification};
use raven_protocol::JobId;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const ROWS: Rows = Rows { train: 600, test: 150 };
const ID: JobId = JobId(1);

fn contributors(coordinator: &Coordinator) -> Vec<Contributor> {
    (1..=2)
        .map(|number| Contributor::start(coordinator.address, number, Habits::default()))
        .collect()
}

async fn paused(coordinator: &Coordinator) -> JobRow {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let row = coordinator.row(ID).await;
        let live = coordinator.runtime.job_live(ID);
        let is_paused = live.as_ref().is_some_and(|live| live.phase == JobPhase::Paused);
        if is_paused && row.phase == JobPhase::Paused {
            return row;
        }
        assert!(!row.phase.is_end() && tokio::time::Instant::now() < deadline, "{row:?} {live:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The next process goes on as the program does.
async fn restart(coordinator: Coordinator) -> Coordinator {
    let coordinator = coordinator.restart(|_| {}).await;
    let row = coordinator.row(ID).await;
    let (context, point) =
        resume(&coordinator.store, &row, coordinator.runtime.kernel()).await.expect("resumes");
    coordinator.runtime.add_job(Arc::new(context), point).await.expect("taken again");
    coordinator
}

async fn top_up(coordinator: &Coordinator, amount: i64) {
    let paid = coordinator.store.top_up(coordinator.owner, ID, NanoUsd(amount), |_| None);
    let escrow = paid.await.expect("paid");
    coordinator.runtime.top_up(ID, escrow).await.expect("told");
}

async fn states(coordinator: &Coordinator) -> Vec<(String, Value)> {
    let events = coordinator.store.events_after(ID, 0, 10_000).await.expect("read");
    let states = events.into_iter().filter(|event| event.kind == "state");
    states
        .map(|event| serde_json::from_str::<Value>(&event.data).expect("JSON"))
        .map(|data| (data["state"].as_str().expect("a state").to_owned(), data["cause"].clone()))
        .collect()
}

/// What a job of this kind comes to where nothing stops it: its cost and its bits.
async fn uninterrupted(spec: &JobSpec) -> (JobRow, raven_protocol::BlobId) {
    let coordinator = Coordinator::start(|_| {}).await;
    let _contributors = contributors(&coordinator);
    coordinator.add_job(ID, &ROWS, spec).await;
    let row = coordinator.finished(ID, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Completed);
    (row, coordinator.last_state(ID).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_money_waits_and_goes_on_to_the_same_bits() {
    for placement in ["replica", "master"] {
        let verification = Verification::None;
        let spec = JobSpec { verification, ..job(placement, 3, 96, 16) };
        let (whole, bits) = uninterrupted(&spec).await;
        let price = whole.charged.rounded_up().expect("small").0;
        let spec = JobSpec { budget: Some(BudgetSpec::NanoUsd(price.unsigned_abs() / 2)), ..spec };
        let coordinator = Coordinator::start(|_| {}).await;
        let first = contributors(&coordinator);
        coordinator.add_job(ID, &ROWS, &spec).await;
        let row = paused(&coordinator).await;
        assert_eq!(row.cause, Some(Cause::Budget));
        assert!(row.reason.as_ref().is_some_and(|reason| reason.contains("top it up")), "{row:?}");
        assert!((1..whole.step).contains(&row.step), "{row:?}");
        assert!(row.charged.is_within(row.escrow));
        assert_eq!(coordinator.runtime.snapshot().leases, 0, "nobody works for it");
        let kept = coordinator.store.checkpoints(ID).await.expect("read");
        assert!(
            kept.iter().any(|kept| kept.step == row.step),
            "{placement}: what was done is kept"
        );

        // It waits as well in the next process.
        drop(first);
        let coordinator = restart(coordinator).await;
        let again = paused(&coordinator).await;
        assert_eq!((again.step, again.charged, again.tasks), (row.step, row.charged, row.tasks));
        let second = contributors(&coordinator);
        // A little takes it a little further.
        top_up(&coordinator, 1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let later = paused(&coordinator).await;
        assert!((row.step..whole.step).contains(&later.step), "{later:?}");
        // What is paid in before a restart counts after it.
        let paid = NanoUsd(10 * price);
        let held = coordinator.store.top_up(coordinator.owner, ID, paid, |_| None).await;
        assert_eq!(held.expect("paid"), NanoUsd(row.escrow.0 + 1 + paid.0));
        drop(second);
        let coordinator = restart(coordinator).await;
        let _third = contributors(&coordinator);
        let row = coordinator.finished(ID, PATIENCE).await;
        assert_eq!((row.phase, row.cause), (JobPhase::Completed, Some(Cause::EpochsDone)));
        assert_eq!(coordinator.last_state(ID).await, bits, "{placement}");
        assert_eq!(row.charged, whole.charged, "{placement}: nothing is charged twice");
        let named = states(&coordinator).await;
        assert!(named.contains(&("paused".into(), "budget".into())), "{named:?}");
        let left = coordinator.store.balance(Book::Test, Account::Escrow(ID)).await;
        assert_eq!(left.expect("readable").posted, 0);
        coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_at_once_is_enough_and_what_is_checked_stays_so() {
    let spec = job("replica", 3, 96, 16);
    assert_eq!(spec.verification, Verification::Adaptive);
    let (whole, bits) = uninterrupted(&spec).await;
    let price = whole.charged.rounded_up().expect("small").0;
    let spec = JobSpec { budget: Some(BudgetSpec::NanoUsd(price.unsigned_abs() / 2)), ..spec };
    let coordinator = Coordinator::start(|_| {}).await;
    let _contributors = contributors(&coordinator);
    coordinator.add_job(ID, &ROWS, &spec).await;
    paused(&coordinator).await;
    top_up(&coordinator, price / 3).await;
    while coordinator.row(ID).await.phase == JobPhase::Paused {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It waits once more, however little this run has cost: without it there would be no
    // telling whether it has come to its end by the time that it is paid.
    paused(&coordinator).await;
    top_up(&coordinator, 10 * price).await;
    let row = coordinator.finished(ID, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Completed);
    assert_eq!(coordinator.last_state(ID).await, bits);
    coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_job_ends_at_its_deadline_and_leaves_its_place_to_others() {
    let coordinator = Coordinator::start(|_| {}).await;
    let _contributors = contributors(&coordinator);
    let at = UnixMs(UnixMs::now().0 + 4_000);
    let deadline = Some(raven_coordinator::job::Deadline(at));
    let poor =
        JobSpec { deadline, budget: Some(BudgetSpec::NanoUsd(1)), ..job("replica", 1, 96, 16) };
    coordinator.add_job(ID, &ROWS, &poor).await;
    let row = paused(&coordinator).await;
    assert!(row.charged.is_within(row.escrow), "{row:?}");
    // More jobs than may run at once are paused: none of them is in the way.
    for id in 2..20 {
        let poor = JobSpec { deadline: None, ..poor.clone() };
        coordinator.add_job(JobId(id), &ROWS, &poor).await;
    }
    let rich = JobSpec { verification: Verification::None, ..job("replica", 1, 96, 16) };
    coordinator.add_job(JobId(30), &ROWS, &rich).await;
    assert_eq!(coordinator.finished(JobId(30), PATIENCE).await.phase, JobPhase::Completed);
    let row = coordinator.finished(ID, PATIENCE).await;
    assert_eq!((row.phase, row.cause), (JobPhase::Failed, Some(Cause::Deadline)));
    assert!(row.charged.is_within(NanoUsd(1)), "{row:?}");
    // An end is final: nothing more is taken for it.
    let late = coordinator.store.top_up(coordinator.owner, ID, NanoUsd(5), |_| None).await;
    let error = late.expect_err("refused").to_string();
    assert!(error.contains("has ended"), "{error}");
    coordinator.store.audit(Book::Test).await.expect("the auditor agrees");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_document_says_so_ends_instead() {
    let coordinator = Coordinator::start(|_| {}).await;
    let _contributors = contributors(&coordinator);
    let (budget, when_spent) = (Some(BudgetSpec::NanoUsd(1)), WhenSpent::End);
    let spec = JobSpec { budget, when_spent, ..job("replica", 1, 96, 16) };
    coordinator.add_job(ID, &ROWS, &spec).await;
    let row = coordinator.finished(ID, PATIENCE).await;
    assert_eq!((row.phase, row.cause), (JobPhase::Failed, Some(Cause::Budget)));
}

/// Two top-ups at once are told in any order, and what comes while a job is taken again
/// is told before anybody knows it.
#[tokio::test(flavor = "multi_thread")]
async fn no_top_up_is_lost_by_another_or_by_the_moment() {
    let verification = Verification::None;
    for when_spent in [WhenSpent::Pause, WhenSpent::End] {
        let spec = JobSpec { verification, when_spent, ..job("replica", 3, 96, 16) };
        let (whole, _) = uninterrupted(&spec).await;
        let price = whole.charged.rounded_up().expect("small").0;
        let spec = JobSpec { budget: Some(BudgetSpec::NanoUsd(price.unsigned_abs() / 2)), ..spec };
        let coordinator = Coordinator::start(|_| {}).await;
        coordinator.add_job(ID, &ROWS, &spec).await;
        let more = |amount| coordinator.store.top_up(coordinator.owner, ID, amount, |_| None);
        let first = more(NanoUsd(1)).await.expect("paid");
        let second = more(NanoUsd(10 * price)).await.expect("paid");
        for escrow in [second, first] {
            coordinator.runtime.top_up(ID, escrow).await.expect("told");
        }
        let _contributors = contributors(&coordinator);
        let row = coordinator.finished(ID, PATIENCE).await;
        assert_eq!((row.phase, row.cause), (JobPhase::Completed, Some(Cause::EpochsDone)));
    }
    let spec = JobSpec { verification, ..job("replica", 3, 96, 16) };
    let spec = JobSpec { budget: Some(BudgetSpec::NanoUsd(1)), ..spec };
    let coordinator = Coordinator::start(|_| {}).await;
    coordinator.add_job(ID, &ROWS, &spec).await;
    let coordinator = coordinator.restart(|_| {}).await;
    let row = coordinator.row(ID).await;
    let (context, point) =
        resume(&coordinator.store, &row, coordinator.runtime.kernel()).await.expect("resumes");
    let paid = coordinator.store.top_up(coordinator.owner, ID, NanoUsd(1_000_000_000), |_| None);
    let escrow = paid.await.expect("paid");
    coordinator.runtime.top_up(ID, escrow).await.expect("told to nobody");
    coordinator.runtime.add_job(Arc::new(context), point).await.expect("taken again");
    let _contributors = contributors(&coordinator);
    let row = coordinator.finished(ID, PATIENCE).await;
    assert_eq!((row.phase, row.cause), (JobPhase::Completed, Some(Cause::EpochsDone)));
}
