//! Contributors who call a task invalid: their word alone ends no job, the
//! coordinator computes the task itself.

mod support;

use raven_engine::{Cause, Event, JobState, Verification};
use raven_protocol::RefuseReason;
use support::{Rig, referee_finds, referee_refuses};

/// So many fresh keys as it ever took to end a job.
const STRANGERS: u64 = 5;

/// A job on which strangers have called every task invalid that they were given.
fn called_invalid(verification: Verification) -> Rig {
    let mut rig = Rig::new(verification);
    for stranger in 1..=STRANGERS {
        rig.open(stranger);
        for (_, lease, _) in rig.take_tasks(stranger) {
            let reason = RefuseReason::Invalid;
            rig.tell(Event::Refused { session: Rig::session(stranger), lease, reason });
        }
    }
    rig
}

#[test]
fn strangers_do_not_end_a_job_by_calling_its_tasks_invalid() {
    for verification in Verification::ALL {
        let rig = called_invalid(verification);
        let state = rig.state();
        assert!(!state.is_end(), "{verification:?}: {state:?}");
    }
}

#[test]
fn what_the_referee_computes_is_used_and_those_who_called_it_invalid_pause() {
    let mut rig = called_invalid(Verification::Adaptive);
    assert_eq!(rig.referee.len(), 1, "one task of a kind is looked at, once");
    referee_finds(&mut rig, 7);
    assert!(!rig.state().is_end());
    assert_eq!(rig.engine.stats(0).tasks_accepted, 1, "the referee's result is used");
    assert_eq!(rig.engine.stats(0).lies_proven, 0, "no trust is lost by it");
    assert!(rig.is_backing_off(1), "who was wrong gets less, and later");
    // Whoever says so again is known to be wrong: nothing is computed for it.
    rig.open(99);
    for (_, lease, _) in rig.take_tasks(99) {
        let (session, reason) = (Rig::session(99), RefuseReason::Invalid);
        rig.tell(Event::Refused { session, lease, reason });
    }
    assert!(rig.referee.is_empty());
    assert!(rig.is_backing_off(99));
}

#[test]
fn where_nothing_is_checked_the_referee_only_says_whether_a_task_can_be_done() {
    let mut rig = called_invalid(Verification::None);
    assert_eq!(rig.referee.len(), 1);
    let asked = rig.referee[0].clone();
    assert!(asked.testimonies.is_empty(), "nobody's result is in doubt");
    referee_finds(&mut rig, 7);
    assert_eq!(rig.engine.stats(0).tasks_accepted, 0);
    rig.open(50);
    assert!(!rig.take_tasks(50).is_empty(), "the work is still to be had");
    assert!(rig.is_backing_off(1));
}

#[test]
fn a_job_that_the_referee_finds_invalid_ends_with_its_reason() {
    for verification in Verification::ALL {
        let mut rig = called_invalid(verification);
        referee_refuses(&mut rig, "output \"loss\" is no node of the graph");
        let JobState::Failed { cause, reason } = rig.state() else {
            panic!("{verification:?}: {:?}", rig.state());
        };
        assert_eq!(cause, Cause::InvalidTasks);
        assert!(reason.contains("is no node of the graph"), "{reason}");
    }
}

#[test]
fn one_word_is_enough_to_look_and_a_referee_that_fails_ends_no_unchecked_job() {
    let mut rig = Rig::new(Verification::None);
    rig.open(1);
    let (_, lease, _) = rig.take_tasks(1)[0];
    let reason = RefuseReason::Invalid;
    rig.tell(Event::Refused { session: Rig::session(1), lease, reason });
    let asked = rig.referee.remove(0);
    let outcome = Err(support::no_memory());
    rig.tell(Event::EffectDone { effect: asked.effect, outcome });
    assert!(!rig.state().is_end(), "{:?}", rig.state());
    rig.open(2);
    let tasks = rig.take_tasks(2);
    assert!(!tasks.is_empty());
}
