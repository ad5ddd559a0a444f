//! What contributors are told of their results: one outcome for every committed
//! lease, and nothing of whether it was checked.

mod support;

use raven_engine::{Event, Trust, Verification};
use raven_protocol::{LeaseId, ResultOutcome, SessionId, TaskId};
use std::collections::BTreeMap;
use support::{Rig, TASKS, referee_finds, truth, value};

/// Of whom so much is known that most of its results are accepted singly.
const VETTED: Trust = Trust::Agreed { results: 1_000, refereed: 5 };

/// What was told since this was last asked, one batch for each event.
fn told(rig: &mut Rig) -> Vec<(SessionId, LeaseId, ResultOutcome)> {
    std::mem::take(&mut rig.outcomes)
}

/// Everybody does what is there to do and tells the truth, once. The tasks that were done.
fn work(rig: &mut Rig, contributors: &[u64]) -> Vec<TaskId> {
    let mut done = Vec::new();
    for &contributor in contributors {
        for (task, lease, _) in rig.take_tasks(contributor) {
            // As long as it was estimated, so that tasks stay as small as they are.
            rig.now += 1_500;
            rig.commit(contributor, lease, truth(task));
            rig.leased.insert(lease, task);
            done.push(task);
        }
        let leased = rig.leased.clone();
        rig.reveal_all(|lease| truth(leased[&lease]));
    }
    done
}

#[test]
fn results_that_were_checked_and_others_are_told_alike_and_at_once() {
    let mut rig = Rig::new(Verification::Adaptive);
    rig.open_as(1, VETTED);
    // Whoever is new has each result checked by the one who is vetted.
    rig.open(2);
    let mut batches = 0;
    for _ in 0..200 {
        work(&mut rig, &[1, 2]);
        while !rig.referee.is_empty() {
            referee_finds(&mut rig, 7);
        }
        for batch in std::mem::take(&mut rig.batches) {
            let accepted: Vec<_> =
                batch.iter().filter(|(.., it)| *it == ResultOutcome::Accepted).collect();
            if accepted.is_empty() {
                // Whoever was cancelled is told as it commits.
                continue;
            }
            batches += 1;
            assert!(accepted.len() >= TASKS as usize, "all of a round at once: {batch:?}");
            assert!(batch.is_sorted_by_key(|&(_, lease, _)| lease), "the order says nothing");
        }
    }
    assert!(rig.state().is_end());
    assert_eq!(batches, support::ROUNDS, "one for each round, none before it was over");
    let stats = rig.engine.stats(0);
    assert_eq!(stats.outcomes[ResultOutcome::Accepted], stats.executions_paid);
    assert!(stats.executions_paid > stats.tasks_accepted, "some were done twice");
}

#[test]
fn a_commitment_that_comes_after_its_lease_is_told_why_it_earns_nothing() {
    let mut rig = Rig::new(Verification::Adaptive);
    rig.open(1);
    let (task, lease, _) = rig.take_tasks(1)[0];
    // Its lease runs out, and its task goes to somebody else.
    rig.now += 1_000_000;
    rig.tell(Event::Tick);
    assert!(rig.cancels.contains(&(Rig::session(1), lease)));
    rig.commit(1, lease, truth(task));
    assert_eq!(told(&mut rig), [(Rig::session(1), lease, ResultOutcome::Late)]);
    // One answer for one lease.
    rig.commit(1, lease, truth(task));
    assert_eq!(told(&mut rig), []);
    assert_eq!(rig.engine.stats(0).ignored.unknown_lease, 1);
    // What is in hand when the job ends was not looked at.
    rig.open(2);
    let (task, lease, _) = rig.take_tasks(2)[0];
    rig.tell(Event::JobCancelled { job: support::JOB });
    rig.commit(2, lease, truth(task));
    assert_eq!(told(&mut rig), [(Rig::session(2), lease, ResultOutcome::Withdrawn)]);
    assert_eq!(rig.engine.stats(0).unpaid, 2);
}

#[test]
fn a_proven_lie_is_told_and_what_it_undoes_stays_paid_to_others() {
    let mut rig = Rig::new(Verification::Adaptive);
    rig.open_as(1, VETTED);
    rig.open_as(2, VETTED);
    let mut came_to: BTreeMap<SessionId, Vec<ResultOutcome>> = BTreeMap::new();
    let mut last: BTreeMap<LeaseId, ResultOutcome> = BTreeMap::new();
    let mut rounds = 0;
    for _ in 0..200 {
        for contributor in [1, 2] {
            for (task, lease, _) in rig.take_tasks(contributor) {
                let is_lie = contributor == 2 && task.round >= 2;
                let digest = if is_lie { value(task, 9) } else { truth(task) };
                rounds = rounds.max(task.round);
                rig.digests.insert(lease, digest);
                rig.now += 1_500;
                rig.commit(contributor, lease, digest);
            }
            let digests = rig.digests.clone();
            rig.reveal_all(|lease| digests[&lease]);
        }
        while !rig.referee.is_empty() {
            referee_finds(&mut rig, 7);
        }
        for (session, lease, outcome) in told(&mut rig) {
            came_to.entry(session).or_default().push(outcome);
            let before = last.insert(lease, outcome);
            let may_change = [None, Some(ResultOutcome::Accepted), Some(ResultOutcome::Undone)];
            assert!(may_change.contains(&before), "{lease} came to {before:?} and {outcome:?}");
        }
    }
    let (honest, liar) = (&came_to[&Rig::session(1)], &came_to[&Rig::session(2)]);
    let count = |of: &[ResultOutcome], what| of.iter().filter(|&&it| it == what).count();
    assert!(count(liar, ResultOutcome::Wrong) > 0, "{liar:?}");
    assert_eq!(count(honest, ResultOutcome::Wrong) + count(honest, ResultOutcome::Void), 0);
    let stats = rig.engine.stats(0);
    assert_eq!(stats.excluded, 1);
    let undone = count(honest, ResultOutcome::Undone);
    assert_eq!(undone > 0, stats.rollbacks > 0, "{honest:?}");
    // Each is counted once, as what it came to in the end.
    let mut expected: BTreeMap<ResultOutcome, u64> = BTreeMap::new();
    last.values().for_each(|outcome| *expected.entry(*outcome).or_default() += 1);
    assert_eq!(rig.counted, expected);
    assert!(stats.rollbacks > 0, "a lie was believed for a while in {rounds} rounds");
    assert!(rig.state().is_end());
}
