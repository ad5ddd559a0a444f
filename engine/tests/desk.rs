//! The referee's desk: where it is full, jobs wait and go on.

mod support;

use raven_engine::{Cause, Event, JobState, Verification};
use support::{Rig, TASKS, referee_finds, truth};

/// Strangers do what they are given; nobody vetted is there, so that the referee
/// computes it all.
fn work(rig: &mut Rig, strangers: u64) {
    for stranger in 1..=strangers {
        for (task, lease, _) in rig.take_tasks(stranger) {
            rig.leased.insert(lease, task);
            rig.now += 1_500;
            rig.commit(stranger, lease, truth(task));
        }
    }
    let leased = rig.leased.clone();
    rig.reveal_all(|lease| truth(leased[&lease]));
    rig.now += 6_000;
    rig.tell(Event::Tick);
}

#[test]
fn a_full_desk_holds_leases_back_and_ends_no_job() {
    let mut waited = false;
    for (strangers, room) in [(4, 2), (1, 1)] {
        let mut rig = Rig::with_desk(Verification::Adaptive, room);
        (1..=strangers).for_each(|stranger| rig.open(stranger));
        let mut most = 0;
        for _ in 0..200 {
            work(&mut rig, strangers);
            most = most.max(rig.referee.len());
            if let JobState::WaitingForContributors { reason } = rig.state() {
                waited |= reason.contains("results to compute again first");
            }
            if !rig.referee.is_empty() {
                referee_finds(&mut rig, 7);
            }
        }
        assert_eq!(most, room, "questions at once, of {TASKS} tasks");
        assert!(matches!(rig.state(), JobState::Completed { .. }), "{:?}", rig.state());
    }
    assert!(waited, "it said why");
}

#[test]
fn a_task_that_cannot_be_written_down_ends_its_job_and_is_nobodys_fault() {
    let mut rig = Rig::new(Verification::Adaptive);
    rig.open(1);
    let (_, lease, _) = rig.take_tasks(1)[0];
    let (session, reason) = (Rig::session(1), "value \"x\" is missing".to_owned());
    rig.tell(Event::Unsent { session, lease, reason });
    let JobState::Failed { cause, reason } = rig.state() else { panic!("{:?}", rig.state()) };
    assert_eq!(cause, Cause::Coordinator);
    assert!(reason.contains("is missing"), "{reason}");
    assert!(rig.referee.is_empty(), "nobody is asked to compute it");
    assert!(!rig.is_backing_off(1));
}
