//! Contributors over real sockets are told what became of their results.

use crate::support::Coordinator;
use crate::support::contributor::{Contributor, Habits, Poison};
use crate::support::data::{Rows, job};
use raven_protocol::{JobId, LeaseId, ResultOutcome};
use std::collections::BTreeSet;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const ROWS: Rows = Rows { train: 600, test: 150 };

#[tokio::test(flavor = "multi_thread")]
async fn every_result_has_an_outcome_that_is_told_and_counted() {
    let coordinator = Coordinator::start(|_| {}).await;
    let contributors: Vec<Contributor> =
        (1..=3).map(|n| Contributor::start(coordinator.address, n, Habits::default())).collect();
    while coordinator.runtime.snapshot().nodes.len() < contributors.len() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let id = JobId(1);
    coordinator.add_job(id, &ROWS, &job("replica", 3, 96, 16)).await;
    coordinator.finished(id, PATIENCE).await;
    let told = || contributors.iter().map(|one| one.outcomes().len()).sum::<usize>();
    let commits = || contributors.iter().map(|one| one.commits() as usize).sum::<usize>();
    // They are gathered for a while first.
    for _ in 0..200 {
        if told() >= commits() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(told(), commits(), "every commitment came to something");
    let mut leases: BTreeSet<LeaseId> = BTreeSet::new();
    for contributor in &contributors {
        for one in contributor.outcomes() {
            assert!(leases.insert(one.lease), "{} has two outcomes", one.lease);
        }
    }
    let accepted = |it: &Contributor| {
        let outcomes = it.outcomes();
        outcomes.iter().filter(|one| one.outcome == ResultOutcome::Accepted).count() as u64
    };
    let accepted: u64 = contributors.iter().map(accepted).sum();
    let executions = coordinator.store.executions(id).await.expect("read");
    assert_eq!(
        accepted,
        executions.iter().map(|one| one.count).sum::<u64>(),
        "who is paid is told"
    );
    let text = coordinator.runtime.render_metrics();
    assert!(text.contains(&format!("raven_outcomes_total{{outcome=\"accepted\"}} {accepted}\n")));
    coordinator.runtime.shutdown().await;
    let stored = coordinator.store.outcomes().await.expect("read");
    assert_eq!(stored[&ResultOutcome::Accepted], accepted, "the counts outlive the process");
    assert_eq!(stored[&ResultOutcome::Wrong], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_counted_apart_and_others_are_told_nothing_of_it() {
    let coordinator = Coordinator::start(|_| {}).await;
    let poison = Some(Poison { below: u32::MAX, factor: -1.0, after: 0 });
    let habits = [Habits::default(), Habits::default(), Habits { poison, ..Habits::default() }];
    let contributors: Vec<Contributor> = habits
        .into_iter()
        .zip(1..)
        .map(|(habits, number)| Contributor::start(coordinator.address, number, habits))
        .collect();
    while coordinator.runtime.snapshot().nodes.len() < contributors.len() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    coordinator.add_job(JobId(1), &ROWS, &job("replica", 3, 96, 16)).await;
    coordinator.finished(JobId(1), PATIENCE).await;
    coordinator.runtime.shutdown().await;
    let stored = coordinator.store.outcomes().await.expect("read");
    assert!(stored[&ResultOutcome::Wrong] > 0, "{stored:?}");
    let mut honest = contributors[..2].iter().flat_map(Contributor::outcomes);
    let is_accused = |it: ResultOutcome| matches!(it, ResultOutcome::Wrong | ResultOutcome::Void);
    assert!(!honest.any(|one| is_accused(one.outcome)));
}
