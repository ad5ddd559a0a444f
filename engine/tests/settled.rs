//! What is settled when something else is over: a round, a job's money, a visit.

mod support;

use raven_engine::money::NanoUsd;
use raven_engine::{Event, JobState, SessionView, Trust, Verification};
use raven_protocol::ResultOutcome;
use support::{Asked, JOB, Rig, TASKS, referee_finds, truth, value};

/// Of whom so much is known that most of its results are accepted singly.
const VETTED: Trust = Trust::Agreed { results: 1_000, refereed: 5 };

#[test]
fn what_waits_on_the_docket_for_a_round_that_is_over_is_answered_there() {
    let mut rig = Rig::of_parts(Verification::Triple, 2, 1);
    (1..=3).for_each(|contributor| rig.open(contributor));
    let tasks: Vec<_> = (1..=3).map(|contributor| rig.take_tasks(contributor)).collect();
    for (contributor, tag) in [(1, 7), (2, 9), (3, 8)] {
        for &(task, lease, _) in &tasks[contributor as usize - 1] {
            rig.digests.insert(lease, value(task, tag));
            rig.commit(contributor, lease, value(task, tag));
        }
        if contributor < 3 {
            let digests = rig.digests.clone();
            rig.reveal_all(|lease| digests[&lease]);
        }
    }
    // Of two disputed parts one is on the desk, the other waits.
    assert_eq!(rig.referee.len(), 1);
    referee_finds(&mut rig, 7);
    assert_eq!(rig.engine.stats(0).excluded, 1, "the one who was heard");
    referee_finds(&mut rig, 7);
    // What the third has said came too late for both: one question is on the desk, and
    // the other is still to come while its round is over.
    assert_eq!(rig.engine.stats(0).excluded, 2, "it is no other than was found");
    assert!(rig.state() != JobState::Queued && !rig.state().is_end(), "{:?}", rig.state());
    let round = rig.engine.job(JOB).expect("open").step;
    assert_eq!(round, 1);
    let on_desk: Vec<_> = rig.referee.iter().map(|asked| asked.effect).collect();
    assert_eq!(on_desk.len(), 1);
    while !rig.referee.is_empty() {
        let Asked { effect, task, .. } = rig.referee[0];
        assert!(on_desk.contains(&effect) || task.round >= round, "{task} has no operands");
        referee_finds(&mut rig, 7);
    }
    let wrong = rig.outcomes.iter().filter(|(.., it)| *it == ResultOutcome::Wrong).count();
    assert!(wrong >= 2);
    assert!(!rig.state().is_end(), "{:?}", rig.state());
}

/// What a vetted contributor does until its job stops, the referee's findings included.
fn work_till_it_stops(rig: &mut Rig) {
    for _ in 0..60 {
        for (task, lease, _) in rig.take_tasks(1) {
            rig.now += 1_500;
            rig.leased.insert(lease, task);
            rig.commit(1, lease, truth(task));
        }
        let leased = rig.leased.clone();
        rig.reveal_all(|lease| truth(leased[&lease]));
        while !rig.referee.is_empty() {
            referee_finds(rig, 7);
        }
    }
}

#[test]
fn a_job_that_pauses_for_money_owes_nobody_anything_that_is_open() {
    let mut rig = Rig::that_may_diverge(Verification::Adaptive, NanoUsd(100_000));
    rig.open_as(1, VETTED);
    work_till_it_stops(&mut rig);
    assert!(matches!(rig.state(), JobState::Paused { .. }), "{:?}", rig.state());
    let view = rig.engine.job(JOB).expect("open");
    assert!(view.step > 0 && view.unsettled == 0, "{view:?}");
    assert_eq!(rig.settled, 1);
    let accepted = rig.counted.get(&ResultOutcome::Accepted).copied();
    assert_eq!(accepted, Some(u64::from(view.step * TASKS)), "as what they stay");
}

#[test]
fn what_somebody_has_left_behind_counts_as_its_own() {
    let mut rig = Rig::new(Verification::Adaptive);
    rig.open_as(1, VETTED);
    rig.open_as(2, VETTED);
    for _ in 0..60 {
        for contributor in [1, 2] {
            for (task, lease, _) in rig.take_tasks(contributor) {
                rig.now += 1_500;
                rig.leased.insert(lease, task);
                rig.commit(contributor, lease, truth(task));
            }
            let leased = rig.leased.clone();
            rig.reveal_all(|lease| truth(leased[&lease]));
        }
        while !rig.referee.is_empty() {
            referee_finds(&mut rig, 7);
        }
        let has_worked = view_of(&rig, 2).is_some_and(|view| view.tasks_accepted > 0);
        if has_worked {
            rig.tell(Event::SessionClosed { session: Rig::session(2) });
        }
    }
    assert!(rig.state().is_end(), "{:?}", rig.state());
    let accepted = |contributor| {
        let key = (Rig::contributor(contributor), ResultOutcome::Accepted);
        rig.counted_of.get(&key).copied().unwrap_or(0)
    };
    assert!(accepted(1) > 0 && accepted(2) > 0, "{:?}", rig.counted_of);
    assert_eq!(accepted(1) + accepted(2), rig.engine.stats(0).executions_paid);
}

fn view_of(rig: &Rig, contributor: u64) -> Option<SessionView> {
    let sessions = rig.engine.sessions();
    sessions.into_iter().find(|view| view.session == Rig::session(contributor))
}

#[test]
fn a_job_that_went_back_is_careful_for_a_while_and_not_for_good() {
    let (rounds, unsettled) = (96, 16);
    let mut rig = Rig::of_rounds(Verification::Adaptive, rounds, unsettled);
    (1..=3).for_each(|contributor| rig.open_as(contributor, VETTED));
    for _ in 0..2_000 {
        for contributor in [1, 2, 3] {
            for (task, lease, _) in rig.take_tasks(contributor) {
                let is_lie = contributor == 2 && task.round >= 2;
                let digest = if is_lie { value(task, 9) } else { truth(task) };
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
    }
    assert!(rig.state().is_end(), "{:?}", rig.state());
    let stats = rig.engine.stats(0);
    assert_eq!((stats.excluded, stats.rollbacks), (1, 1), "it was believed for a while");
    // Two settlements come after half as many rounds each, those behind them as before.
    let usual = rounds / unsettled as u32;
    assert!((usual + 1..=usual + 2).contains(&rig.settled), "{} settlements", rig.settled);
}
