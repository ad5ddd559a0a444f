//! What a job is charged at most: executions beyond its allowance are the operator's cost.

mod support;

use raven_engine::{Allowance, Event, Payer, Terms, Trust, Verification};
use raven_protocol::{ResultDigest, TaskId};
use std::collections::BTreeSet;
use support::{FLOPS, ROUNDS, Rig, TASKS, truth, value};

const VETTED: Trust = Trust::Agreed { results: 1_000, refereed: 5 };

/// Micro-batches of the job.
const UNITS: u64 = (TASKS * ROUNDS) as u64;

/// Everybody who is there does what they are given, each in so many
/// milliseconds, until the job has done so many rounds.
fn work(
    rig: &mut Rig,
    people: &[u64],
    (rounds, ms): (u32, u64),
    digest: impl Fn(u64, TaskId) -> ResultDigest,
) {
    let is_on = |rig: &Rig| {
        let view = rig.engine.job(support::JOB).expect("it was added");
        !view.state.is_end() && view.step < rounds
    };
    while is_on(rig) {
        let mut given = Vec::new();
        for &contributor in people {
            given.extend(rig.take_tasks(contributor).into_iter().map(|it| (contributor, it)));
        }
        if given.is_empty() {
            rig.now += 6_000;
            rig.tell(Event::Tick);
        }
        assert!(rig.now < 10_000_000, "{:?}", rig.state());
        for (contributor, (task, lease, _)) in given {
            rig.digests.insert(lease, digest(contributor, task));
            rig.now += ms;
            rig.commit(contributor, lease, digest(contributor, task));
        }
        let digests = rig.digests.clone();
        rig.reveal_all(|lease| digests[&lease]);
        while !rig.referee.is_empty() {
            support::referee_finds(rig, 7);
        }
    }
}

/// Micro-batches that a job's owner and the operator pay for, of those that count in the
/// end. After each of them what is charged is within the allowance of each task once.
fn paid(allowance: Allowance, rigs: &[&Rig], all: u64) -> (u64, u64) {
    // However its rounds were cut each time.
    let mut done = BTreeSet::new();
    let (mut charged, mut operators) = (0, 0);
    for rig in rigs {
        let void: BTreeSet<_> =
            rig.voids.iter().map(|it| (it.task, it.attempt, it.contributor)).collect();
        for credit in &rig.credits {
            let units = credit.flops / FLOPS;
            let (round, start) = (credit.task.round, u64::from(credit.task.part));
            done.extend((start..start + units).map(|unit| (round, unit)));
            match credit.payer {
                _ if void.contains(&(credit.task, credit.attempt, credit.contributor)) => {}
                Payer::Job => charged += units,
                Payer::Operator => operators += units,
            }
            let done = done.len() as u64;
            assert!(charged * 1_000 <= done * u64::from(allowance.0), "{charged} of {done}");
        }
    }
    assert_eq!(done.len() as u64, all);
    (charged, operators)
}

/// Three who are vetted do every task of a job.
fn executions(allowance: Allowance) -> (u64, u64) {
    let mut rig = Rig::allowing(Verification::Triple, allowance);
    [1, 2, 3].iter().for_each(|&contributor| rig.open_as(contributor, VETTED));
    work(&mut rig, &[1, 2, 3], (ROUNDS, 0), |_, task| truth(task));
    let (charged, operators) = paid(allowance, &[&rig], UNITS);
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

#[test]
fn rounds_that_are_done_again_after_a_crash_allow_no_charge() {
    let allowance = Allowance(2_000);
    let mut before = Rig::allowing(Verification::Triple, allowance);
    let mut after = Rig::resumed(Verification::Triple, allowance, ROUNDS / 2);
    for (rig, rounds) in [(&mut before, ROUNDS / 2), (&mut after, ROUNDS)] {
        [1, 2, 3].iter().for_each(|&contributor| rig.open_as(contributor, VETTED));
        work(rig, &[1, 2, 3], (rounds, 0), |_, task| truth(task));
    }
    let (charged, operators) = paid(allowance, &[&before, &after], UNITS);
    assert_eq!(charged, 2 * UNITS);
    assert_eq!(charged + operators, 3 * UNITS + 3 * UNITS / 2, "half of it twice");
}

#[test]
fn nor_do_rounds_that_are_done_again_before_a_lie() {
    let (rounds, allowance) = (24, Allowance::ONE);
    let terms = Terms { allowance: Some(allowance), ..Terms::default() };
    let mut rig = Rig::of_rounds_on(Verification::Adaptive, rounds, 8, terms);
    [1, 2, 3].iter().for_each(|&contributor| rig.open_as(contributor, VETTED));
    let answer = |contributor, task: TaskId| match contributor == 2 && task.round > 1 {
        true => value(task, 9),
        false => truth(task),
    };
    work(&mut rig, &[1, 2, 3], (9, 1_500), answer);
    assert_eq!(
        rig.engine.stats(0).rollbacks,
        1,
        "it was believed for a while: {:?}",
        rig.engine.stats(0)
    );
    // Whoever is new is confirmed by somebody who is not: two executions of a task.
    (4..=7).for_each(|contributor| rig.open(contributor));
    work(&mut rig, &[1, 2, 3, 4, 5, 6, 7], (rounds, 1_500), answer);
    let all = u64::from(rounds * TASKS);
    let (charged, operators) = paid(allowance, &[&rig], all);
    assert!(charged == all && operators > all / 4, "{charged} and {operators} of {all}");
}
