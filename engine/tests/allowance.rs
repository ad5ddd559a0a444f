//! What a job is charged at most: executions beyond its allowance are the operator's cost.

mod support;

use raven_engine::{Allowance, JobState, Payer, Trust, Verification};
use std::collections::BTreeMap;
use support::{FLOPS, ROUNDS, Rig, TASKS, truth};

const VETTED: Trust = Trust::Agreed { results: 1_000, refereed: 5 };

/// Micro-batches of the job.
const UNITS: u64 = (TASKS * ROUNDS) as u64;

/// Three who are vetted do every task of a job; micro-batches that its owner and the operator
/// pay for.
fn executions(allowance: Allowance) -> (u64, u64) {
    let mut rig = Rig::allowing(Verification::Triple, allowance);
    for contributor in [1, 2, 3] {
        rig.open_as(contributor, VETTED);
    }
    while matches!(rig.state(), JobState::Running { .. }) {
        let mut given = Vec::new();
        for contributor in [1, 2, 3] {
            given.extend(rig.take_tasks(contributor).into_iter().map(|it| (contributor, it)));
        }
        assert!(!given.is_empty() || !rig.referee.is_empty(), "{:?}", rig.state());
        for (contributor, (task, lease, _)) in given {
            rig.digests.insert(lease, truth(task));
            rig.commit(contributor, lease, truth(task));
        }
        let digests = rig.digests.clone();
        rig.reveal_all(|lease| digests[&lease]);
        while !rig.referee.is_empty() {
            support::referee_finds(&mut rig, 7);
        }
    }
    let mut tasks = BTreeMap::new();
    let (mut charged, mut operators) = (0, 0);
    for credit in &rig.credits {
        let units = credit.flops / FLOPS;
        tasks.insert(credit.task, units);
        match credit.payer {
            Payer::Job => charged += units,
            Payer::Operator => operators += units,
        }
        // After each of them, and not only in the end.
        let done: u64 = tasks.values().sum();
        assert!(charged * 1_000 <= done * u64::from(allowance.0), "{charged} of {done}");
    }
    assert_eq!(tasks.values().sum::<u64>(), UNITS);
    assert_eq!(charged + operators, 3 * UNITS);
    let spent = rig.engine.job(support::JOB).expect("it was added").spent;
    assert_eq!(spent.flops, charged * FLOPS);
    (charged, operators)
}

#[test]
fn three_executions_of_each_task_are_the_jobs_where_it_allows_three() {
    assert_eq!(executions(Allowance::usual(Verification::Triple)), (3 * UNITS, 0));
    assert_eq!(executions(Allowance(3_000)), (3 * UNITS, 0));
}

#[test]
fn what_exceeds_the_allowance_is_the_operators() {
    assert_eq!(executions(Allowance(2_000)), (2 * UNITS, UNITS));
    assert_eq!(executions(Allowance::ONE), (UNITS, 2 * UNITS));
    let (charged, _) = executions(Allowance(2_500));
    assert!(charged > 2 * UNITS, "{charged}: halves are charged as far as executions go");
}
