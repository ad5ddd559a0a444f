//! Who waits for whom: nothing runs out for a contributor whose answer the coordinator
//! has, whoever is slower than was thought gets less, and what is kept to look again at
//! results is bounded.

mod support;

use raven_engine::{Check, Event, SessionView, Trust, Verification};
use raven_protocol::{LeaseId, ResultOutcome, TaskId};
use support::{JOB, Rig, referee_finds, truth};

/// Of whom so much is known that most of its results are accepted singly.
const VETTED: Trust = Trust::Agreed { results: 1_000, refereed: 5 };

/// The longest that a check is waited for: twice the longest lease.
const CHECK_MS_MAX: u64 = 240_000;

fn tick(rig: &mut Rig, ms: u64) {
    rig.now += ms;
    rig.tell(Event::Tick);
}

fn checks(rig: &mut Rig, contributor: u64, lease: LeaseId, check: Check) {
    rig.tell(Event::Arrived { session: Rig::session(contributor), lease, check });
}

fn arrived(rig: &mut Rig, contributor: u64, lease: LeaseId) {
    checks(rig, contributor, lease, Check::Form);
}

fn view(rig: &Rig, contributor: u64) -> SessionView {
    let sessions = rig.engine.sessions();
    let of = sessions.into_iter().find(|view| view.session == Rig::session(contributor));
    of.expect("it is open")
}

/// A contributor commits to what `digest` says of its first task, which is asked for.
fn commits(rig: &mut Rig, contributor: u64) -> (TaskId, LeaseId) {
    let tasks = rig.take_tasks(contributor);
    let (task, lease, _) = tasks[0];
    rig.now += 1_500;
    rig.digests.insert(lease, truth(task));
    rig.commit(contributor, lease, truth(task));
    (task, lease)
}

#[test]
fn a_result_that_is_here_does_not_run_out_while_it_is_checked() {
    for is_told in [false, true] {
        let mut rig = Rig::new(Verification::None);
        rig.open(1);
        let (_, lease) = commits(&mut rig, 1);
        if is_told {
            arrived(&mut rig, 1, lease);
        }
        // Somebody else would copy what is late.
        rig.open(2);
        let copies = rig.engine.stats(0).copies;
        let mut is_struck = false;
        for _ in 0..130 {
            tick(&mut rig, 1_000);
            is_struck |= rig.is_backing_off(1);
        }
        assert_eq!(is_struck, !is_told);
        if !is_told {
            continue;
        }
        assert_eq!(rig.engine.stats(0).copies, copies, "nobody is asked to do it again");
        let speed = view(&rig, 1).flops_per_s;
        rig.reveal(1, lease, true);
        assert_eq!(rig.engine.stats(0).tasks_accepted, 1);
        assert_eq!(view(&rig, 1).flops_per_s, speed);
        assert!(!rig.cancels.contains(&(Rig::session(1), lease)));
    }
}

#[test]
fn what_a_session_says_while_an_earlier_answer_is_checked_is_not_late() {
    for is_told in [false, true] {
        let mut rig = Rig::new(Verification::None);
        rig.open(1);
        let tasks = rig.take_tasks(1);
        let [(first, one, _), (second, other, _)] = tasks[..] else { panic!("{tasks:?}") };
        rig.now += 1_500;
        rig.digests.insert(one, truth(first));
        rig.commit(1, one, truth(first));
        if is_told {
            arrived(&mut rig, 1, one);
        }
        // It has committed to the other one long ago, which nobody has read.
        for _ in 0..60 {
            tick(&mut rig, 1_000);
        }
        if is_told {
            rig.reveal(1, one, true);
            rig.digests.insert(other, truth(second));
            rig.commit(1, other, truth(second));
            rig.reveal(1, other, true);
            assert_eq!(rig.engine.stats(0).tasks_accepted, 2);
        }
        assert_eq!(rig.engine.stats(0).leases_expired > 0, !is_told);
    }
}

#[test]
fn whoever_delivers_a_checked_result_a_second_keeps_no_other_lease_for_that() {
    let mut rig = Rig::of_parts(Verification::None, 400, 16);
    rig.open(1);
    let mut tasks = rig.take_tasks(1);
    let (_, kept, _) = tasks.remove(0);
    let began = rig.now;
    while !rig.cancels.contains(&(Rig::session(1), kept)) {
        assert!(rig.now < began + 30_000, "it is held for {} ms", rig.now - began);
        let (task, lease, _) = tasks.pop().expect("there are more");
        rig.now += 950;
        rig.digests.insert(lease, truth(task));
        rig.commit(1, lease, truth(task));
        arrived(&mut rig, 1, lease);
        rig.now += 50;
        rig.reveal(1, lease, true);
        tasks.extend(rig.take_tasks(1));
    }
    assert_eq!(rig.engine.stats(0).leases_expired, 1);
}

#[test]
fn a_session_is_unread_although_others_have_done_what_it_answered() {
    let mut rig = Rig::new(Verification::Triple);
    (1..=3).for_each(|contributor| rig.open_as(contributor, VETTED));
    let tasks = [1, 2, 3].map(|contributor| rig.take_tasks(contributor));
    let (task, ..) = tasks[0][0];
    let of = |of_one: &Vec<(TaskId, LeaseId, u64)>| {
        of_one.iter().find(|(of, ..)| *of == task).expect("three do each task").1
    };
    let leases = [of(&tasks[0]), of(&tasks[1]), of(&tasks[2])];
    let (later, other, _) = *tasks[0].iter().find(|(of, ..)| *of != task).expect("it has two");
    rig.now += 1_500;
    for (contributor, lease) in (1..).zip(leases) {
        rig.digests.insert(lease, truth(task));
        rig.commit(contributor, lease, truth(task));
    }
    // It is a little late with its result, so that somebody else is asked, too.
    tick(&mut rig, 1_000);
    arrived(&mut rig, 1, leases[0]);
    rig.reveal(2, leases[1], true);
    assert!(rig.cancels.contains(&(Rig::session(1), leases[0])));
    for _ in 0..60 {
        tick(&mut rig, 1_000);
        assert!(!rig.is_backing_off(1));
    }
    // Its check is over, and what it has said meanwhile is read.
    rig.digests.insert(leases[0], truth(task));
    rig.reveals.push((Rig::session(1), leases[0]));
    rig.reveal(1, leases[0], true);
    rig.commit(1, other, truth(later));
    assert!(!rig.cancels.contains(&(Rig::session(1), other)));
    assert!(!rig.outcomes.iter().any(|&(_, lease, _)| lease == other));
}

#[test]
fn what_is_compared_beside_the_driver_holds_up_no_other_lease() {
    for (check, is_struck) in [(Check::Form, false), (Check::Comparison, true)] {
        let mut rig = Rig::new(Verification::None);
        rig.open(1);
        let (_, lease) = commits(&mut rig, 1);
        // As it is told where a form that took long is followed by a comparison.
        arrived(&mut rig, 1, lease);
        checks(&mut rig, 1, lease, check);
        (0..60).for_each(|_| tick(&mut rig, 1_000));
        assert_eq!(rig.engine.stats(0).leases_expired > 0, is_struck, "{check:?}");
        assert!(!rig.cancels.contains(&(Rig::session(1), lease)), "it has come");
    }
}

#[test]
fn a_check_that_is_lost_is_told_as_what_it_is() {
    let mut rig = Rig::new(Verification::None);
    rig.open(1);
    let (_, lease) = commits(&mut rig, 1);
    arrived(&mut rig, 1, lease);
    tick(&mut rig, CHECK_MS_MAX + 10);
    let told: Vec<_> = rig.outcomes.iter().filter(|&&(_, of, _)| of == lease).collect();
    assert_eq!(told, [&(Rig::session(1), lease, ResultOutcome::Withdrawn)]);
}

/// What four come to who commit to one task, the first of whom leaves while its payload
/// is looked at.
fn left_while_its_payload_was_looked_at(check: Check) -> [ResultOutcome; 4] {
    let mut rig = Rig::of_parts(Verification::Triple, 1, 16);
    (1..=4).for_each(|contributor| rig.open_as(contributor, VETTED));
    let [(task, first, _)] = rig.take_tasks(1)[..] else { panic!("each round is one task") };
    let [second, late] = [2, 3].map(|contributor| rig.take_tasks(contributor)[0].1);
    rig.now += 1_500;
    rig.commit(1, first, truth(task));
    rig.commit(2, second, truth(task));
    // All are late with what they were asked for, so a fourth is asked.
    (0..2).for_each(|_| tick(&mut rig, 1_000));
    let [(_, fourth, _)] = rig.take_tasks(4)[..] else { panic!("it was idle") };
    checks(&mut rig, 1, first, check);
    rig.tell(Event::SessionClosed { session: Rig::session(1) });
    rig.commit(3, late, truth(task));
    rig.commit(4, fourth, truth(task));
    rig.digests.insert(second, truth(task));
    rig.reveal(2, second, true);
    rig.tell(Event::JobCancelled { job: JOB });
    [first, second, late, fourth].map(|lease| {
        let told = rig.outcomes.iter().find(|&&(_, of, _)| of == lease);
        told.expect("its stage is over").2
    })
}

#[test]
fn a_payload_that_is_none_takes_no_place_of_one_that_came() {
    use ResultOutcome::{Accepted, NotNeeded};
    // Whoever knows the digest needs no result to commit to it, and none to leave with.
    let told = left_while_its_payload_was_looked_at(Check::Form);
    assert_eq!(told, [NotNeeded, Accepted, Accepted, Accepted]);
    // Of what is compared nothing is missing: its contributor may leave.
    let told = left_while_its_payload_was_looked_at(Check::Comparison);
    assert_eq!(told, [Accepted, Accepted, Accepted, NotNeeded]);
}

#[test]
fn a_check_that_is_lost_holds_a_task_no_longer_than_any_takes_and_is_nobodys_fault() {
    let mut rig = Rig::new(Verification::Adaptive);
    rig.open_as(1, VETTED);
    let (task, lease) = commits(&mut rig, 1);
    arrived(&mut rig, 1, lease);
    // Told once more, it begins no new wait.
    tick(&mut rig, CHECK_MS_MAX / 2);
    arrived(&mut rig, 1, lease);
    assert!(!rig.cancels.contains(&(Rig::session(1), lease)));
    tick(&mut rig, CHECK_MS_MAX / 2 + 10);
    assert!(rig.cancels.contains(&(Rig::session(1), lease)));
    // Its other lease was not held up for longer than that either.
    let expired = rig.engine.stats(0).leases_expired;
    assert!(expired <= 1, "{expired} leases ran out");
    // Nobody else is there to do it.
    assert!(rig.referee.iter().any(|asked| asked.task == task));
}

#[test]
fn whoever_is_outrun_is_measured_anew() {
    let mut rig = Rig::new(Verification::Adaptive);
    rig.open_as(1, VETTED);
    let slow = rig.take_tasks(1);
    let before = view(&rig, 1).flops_per_s;
    rig.open_as(2, VETTED);
    // It does all that there is, and what the other one is late with.
    for _ in 0..40 {
        for (task, lease, _) in rig.take_tasks(2) {
            rig.now += 200;
            rig.leased.insert(lease, task);
            rig.commit(2, lease, truth(task));
        }
        let leased = rig.leased.clone();
        rig.reveal_all(|lease| truth(leased[&lease]));
        tick(&mut rig, 200);
        if rig.cancels.contains(&(Rig::session(1), slow[0].1)) {
            break;
        }
    }
    assert!(rig.cancels.contains(&(Rig::session(1), slow[0].1)), "it was outrun");
    assert_eq!(rig.engine.stats(0).leases_expired, 0);
    let after = view(&rig, 1).flops_per_s;
    assert!(after < before * 0.8, "{after} of {before}");
}

#[test]
fn projections_are_settled_before_they_fill_the_shell() {
    let settled = |bytes: u64| {
        let mut rig = Rig::relaxed(Verification::Adaptive);
        rig.projection_bytes = bytes;
        rig.open_gpu(1, VETTED);
        for _ in 0..60 {
            for (task, lease, _) in rig.take_tasks(1) {
                rig.now += 1_500;
                rig.digests.insert(lease, truth(task));
                rig.commit(1, lease, truth(task));
                rig.project(1, lease, true);
            }
            let digests = rig.digests.clone();
            rig.reveal_all(|lease| digests[&lease]);
            tick(&mut rig, 6_000);
            while !rig.referee.is_empty() {
                referee_finds(&mut rig, 7);
            }
        }
        assert!(rig.state().is_end(), "{:?}", rig.state());
        rig.settled
    };
    let (few, many) = (settled(256), settled(20 << 20));
    assert!(many >= few + 4, "{many} times instead of {few}");
}

#[test]
fn before_projections_are_settled_a_part_of_whoever_did_any_is_looked_at() {
    // They fill the shell every fourth round.
    let mut rig = Rig::relaxed_parts(Verification::Adaptive, 40);
    rig.projection_bytes = 4 << 20;
    rig.open_gpu(1, VETTED);
    let (mut looked_at, mut asked, mut settled) = (Vec::new(), 0, 0);
    while !rig.state().is_end() && looked_at.len() < 8 {
        for (task, lease, _) in rig.take_tasks(1) {
            rig.now += 1_500;
            rig.digests.insert(lease, truth(task));
            rig.commit(1, lease, truth(task));
            rig.project(1, lease, true);
        }
        let digests = rig.digests.clone();
        rig.reveal_all(|lease| digests[&lease]);
        asked += rig.referee.len();
        while !rig.referee.is_empty() {
            referee_finds(&mut rig, 7);
        }
        tick(&mut rig, 6_000);
        if rig.settled > settled {
            settled = rig.settled;
            looked_at.push(std::mem::take(&mut asked));
        }
    }
    assert!(looked_at.len() >= 8 && looked_at.iter().all(|&parts| parts > 0), "{looked_at:?}");
}
