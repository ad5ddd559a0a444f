//! Results of GPUs: whoever commits is asked for projections, and nobody can tell
//! whether somebody else is asked for the same task.

mod support;

use raven_engine::{Agreement, Event, Outcome, Trust, Verification};
use raven_protocol::{LeaseId, RefuseReason, ResultOutcome, SessionId, TaskId};
use std::collections::BTreeSet;
use support::{Asked, Rig, value};

/// Of whom so much is known that most of its results are accepted singly.
const VETTED: Trust = Trust::Agreed { results: 1_000, refereed: 5 };

/// Three vetted GPUs on a job in mode `triple`, all of which have committed to the
/// first task. Their leases.
fn committed() -> (Rig, TaskId, [LeaseId; 3]) {
    let mut rig = Rig::relaxed(Verification::Triple);
    (1..=3).for_each(|gpu| rig.open_gpu(gpu, VETTED));
    let tasks = [1, 2, 3].map(|gpu| rig.take_tasks(gpu));
    let (task, ..) = tasks[0][0];
    let leases = tasks.map(|of_one| {
        let lease = of_one.iter().find(|(of, ..)| *of == task);
        lease.expect("three do each task").1
    });
    rig.now += 1_500;
    for (gpu, lease) in (1..).zip(leases) {
        commit(&mut rig, gpu, lease, task);
    }
    (rig, task, leases)
}

/// Commits to what a GPU came to.
fn commit(rig: &mut Rig, gpu: u64, lease: LeaseId, task: TaskId) {
    let digest = value(task, gpu as u8);
    rig.digests.insert(lease, digest);
    rig.commit(gpu, lease, digest);
}

/// The referee answers its first question, by what it makes of each contributor.
fn referee_says(rig: &mut Rig, says: impl Fn(LeaseId) -> Agreement) -> usize {
    let Asked { effect, task, testimonies } = rig.referee.remove(0);
    let agrees = testimonies.iter().map(|testimony| says(testimony.lease)).collect();
    let payload = rig.payload();
    let outcome = Ok(Outcome::Judged { digest: value(task, 99), payload, bytes: 100, agrees });
    rig.tell(Event::EffectDone { effect, outcome });
    testimonies.len()
}

fn accepted(rig: &Rig) -> u64 {
    rig.engine.stats(0).tasks_accepted
}

/// Executions that were paid.
fn paid(rig: &Rig) -> u64 {
    rig.engine.stats(0).executions_paid
}

fn came_to(rig: &Rig, lease: LeaseId) -> Vec<ResultOutcome> {
    let of = rig.outcomes.iter().filter(|(_, of, _)| *of == lease);
    of.map(|&(.., outcome)| outcome).collect()
}

#[test]
fn whoever_commits_is_asked_at_once_and_alike_whether_it_is_checked_or_not() {
    // In `triple` all are checked; of a vetted one in `adaptive` one in twenty results.
    for verification in [Verification::Triple, Verification::Adaptive] {
        for trust in [VETTED, Trust::default()] {
            let mut rig = Rig::relaxed(verification);
            rig.open_gpu(1, trust);
            let (task, lease, _) = rig.take_tasks(1)[0];
            rig.now += 1_500;
            commit(&mut rig, 1, lease, task);
            let what = format!("{verification:?}, {trust:?}");
            let asked: Vec<_> =
                rig.projects.iter().map(|&(session, it, _)| (session, it)).collect();
            assert_eq!(asked, [(Rig::session(1), lease)], "{what}");
            assert!(rig.reveals.is_empty(), "{what}: it is pinned down first");
            rig.project(1, lease, true);
            assert_eq!(rig.reveals, [(Rig::session(1), lease)], "{what}");
        }
    }
    // Where nothing is checked there is nothing to be told from it.
    let mut rig = Rig::relaxed(Verification::None);
    rig.open_gpu(1, VETTED);
    let (task, lease, _) = rig.take_tasks(1)[0];
    commit(&mut rig, 1, lease, task);
    assert!(rig.projects.is_empty() && rig.reveals.len() == 1);
}

#[test]
fn those_who_agree_are_paid_and_each_had_a_key_of_its_own() {
    let (mut rig, _, leases) = committed();
    let keys: BTreeSet<_> = rig.projects.iter().map(|(.., key)| key.0).collect();
    assert_eq!(keys.len(), 3);
    for (gpu, lease) in (1..).zip(leases) {
        rig.project(gpu, lease, true);
    }
    assert_eq!(rig.reveals, [(Rig::session(1), leases[0])], "one shows its result");
    rig.reveal(1, leases[0], true);
    assert_eq!((accepted(&rig), paid(&rig), rig.engine.stats(0).panels), (1, 3, 1));
    assert!(rig.referee.is_empty());
}

#[test]
fn a_split_goes_to_the_referee_with_all_who_answered() {
    let (mut rig, _, leases) = committed();
    rig.project(1, leases[0], true);
    rig.reveal(1, leases[0], true);
    rig.project(2, leases[1], false);
    assert!(rig.referee.is_empty(), "the third is still to be heard");
    rig.project(3, leases[2], true);
    assert_eq!(rig.engine.stats(0).panels_split, 1);
    let heard = referee_says(&mut rig, |lease| {
        if lease == leases[1] { Agreement::False } else { Agreement::Agrees }
    });
    assert_eq!((heard, accepted(&rig), paid(&rig)), (3, 1, 2));
    let stats = rig.engine.stats(0);
    assert_eq!((stats.lies_proven, stats.excluded), (1, 1));
    assert_eq!(came_to(&rig, leases[1]), [ResultOutcome::Wrong]);
}

#[test]
fn a_result_that_is_shown_last_is_compared_with_all_answers() {
    let (mut rig, _, leases) = committed();
    for (gpu, lease) in (1..).zip(leases) {
        rig.project(gpu, lease, true);
    }
    rig.reveal(1, leases[0], false);
    assert_eq!((accepted(&rig), rig.referee.len()), (0, 1));
}

#[test]
fn a_doubtful_result_is_paid_and_one_far_off_is_not() {
    for (agreement, executions) in [(Agreement::Doubtful, 3), (Agreement::Far, 2)] {
        let (mut rig, _, leases) = committed();
        rig.project(1, leases[0], true);
        rig.reveal(1, leases[0], true);
        rig.project(2, leases[1], false);
        rig.project(3, leases[2], true);
        referee_says(
            &mut rig,
            |lease| {
                if lease == leases[1] { agreement } else { Agreement::Agrees }
            },
        );
        let stats = rig.engine.stats(0);
        assert_eq!((stats.doubted, stats.lies_proven, stats.excluded), (1, 0, 0));
        assert_eq!((accepted(&rig), paid(&rig)), (1, executions), "{agreement:?}");
    }
}

#[test]
fn whoever_is_silent_loses_its_seat_within_seconds_and_no_trust() {
    let (mut rig, task, leases) = committed();
    rig.project(1, leases[0], true);
    rig.reveal(1, leases[0], true);
    rig.project(2, leases[1], true);
    rig.open_gpu(4, VETTED);
    let (other, busy, _) = rig.take_tasks(4)[0];
    rig.now += 4_000;
    rig.tell(Event::Tick);
    // It has room for one more now.
    commit(&mut rig, 4, busy, other);
    assert!(rig.cancels.contains(&(Rig::session(3), leases[2])));
    assert!(rig.is_backing_off(3), "a missed lease");
    let stats = rig.engine.stats(0);
    assert_eq!((stats.doubted, stats.lies_proven, stats.excluded), (0, 0, 0));
    assert_eq!(came_to(&rig, leases[2]), [], "what it came to is told with the others'");
    // Somebody else has its seat.
    let tasks = rig.take_tasks(4);
    let (_, lease, _) = *tasks.iter().find(|(of, ..)| *of == task).expect("it is given out");
    rig.now += 1_500;
    commit(&mut rig, 4, lease, task);
    rig.project(4, lease, true);
    assert_eq!((accepted(&rig), paid(&rig)), (1, 3));
    // What comes late is let go of.
    let held = rig.engine.stats(0).payloads_held;
    rig.project(3, leases[2], false);
    assert_eq!(rig.engine.stats(0).payloads_held, held);
}

#[test]
fn whoever_leaves_after_it_answered_is_paid_and_before_that_is_replaced() {
    let (mut rig, _, leases) = committed();
    rig.project(1, leases[0], true);
    rig.reveal(1, leases[0], true);
    rig.project(2, leases[1], true);
    rig.tell(Event::SessionClosed { session: Rig::session(2) });
    rig.project(3, leases[2], true);
    assert_eq!((accepted(&rig), paid(&rig)), (1, 3), "what it projected speaks for it");

    let (mut rig, task, leases) = committed();
    rig.project(1, leases[0], true);
    rig.reveal(1, leases[0], true);
    rig.tell(Event::SessionClosed { session: Rig::session(2) });
    assert_eq!(came_to(&rig, leases[1]), []);
    rig.project(3, leases[2], true);
    assert_eq!(accepted(&rig), 0);
    rig.open_gpu(4, VETTED);
    let tasks = rig.take_tasks(4);
    assert!(tasks.iter().any(|(of, ..)| *of == task), "its seat is given out");
}

#[test]
fn a_task_that_everybody_leaves_is_done_again() {
    let (mut rig, task, leases) = committed();
    // One has answered and none has shown anything.
    rig.project(1, leases[0], true);
    let sessions: Vec<SessionId> = (1..=3).map(Rig::session).collect();
    for session in sessions {
        rig.tell(Event::SessionClosed { session });
    }
    assert_eq!(accepted(&rig), 0);
    (4..=6).for_each(|gpu| rig.open_gpu(gpu, VETTED));
    let mut done = 0;
    for gpu in 4..=6 {
        for (of, lease, _) in rig.take_tasks(gpu) {
            if of != task {
                continue;
            }
            done += 1;
            rig.now += 1_500;
            commit(&mut rig, gpu, lease, of);
            rig.project(gpu, lease, true);
            if rig.reveals.contains(&(Rig::session(gpu), lease)) {
                rig.reveal(gpu, lease, true);
            }
        }
    }
    // With the one that answered they are three: it is paid.
    assert!(done >= 2, "{done}");
    assert_eq!((accepted(&rig), paid(&rig)), (1, 3));
}

#[test]
fn who_calls_a_task_invalid_takes_nobodys_pay() {
    let mut rig = Rig::relaxed(Verification::Triple);
    (1..=3).for_each(|gpu| rig.open_gpu(gpu, VETTED));
    let tasks = [1, 2, 3].map(|gpu| rig.take_tasks(gpu));
    let (task, ..) = tasks[0][0];
    let lease_of = |gpu: usize| {
        let lease = tasks[gpu - 1].iter().find(|(of, ..)| *of == task);
        lease.expect("three do each task").1
    };
    // One is done, one computes, and the third says that nobody can.
    rig.now += 1_500;
    commit(&mut rig, 1, lease_of(1), task);
    let (session, reason) = (Rig::session(3), RefuseReason::Invalid);
    rig.tell(Event::Refused { session, lease: lease_of(3), reason });
    assert_eq!(rig.referee.len(), 1, "it is looked into");
    assert!(rig.referee[0].testimonies.is_empty());
    rig.open_gpu(4, VETTED);
    rig.project(1, lease_of(1), true);
    rig.reveal(1, lease_of(1), true);
    commit(&mut rig, 2, lease_of(2), task);
    rig.project(2, lease_of(2), true);
    assert_eq!(referee_says(&mut rig, |_| Agreement::Agrees), 0);
    assert!(rig.is_backing_off(3), "it was wrong");
    assert_eq!(accepted(&rig), 0, "the referee's result takes the place of nobody's");
    let tasks = rig.take_tasks(4);
    let (_, lease, _) = *tasks.iter().find(|(of, ..)| *of == task).expect("the seat is free");
    rig.now += 1_500;
    commit(&mut rig, 4, lease, task);
    rig.project(4, lease, true);
    assert_eq!((accepted(&rig), paid(&rig)), (1, 3));
}

#[test]
fn whoever_answers_and_leaves_is_followed_by_no_more_than_a_few() {
    let mut rig = Rig::relaxed(Verification::Triple);
    rig.open_gpu(1, VETTED);
    let mut answered = 0;
    let mut first = None;
    for gpu in 1..60 {
        // The next one is there before it leaves.
        rig.open_gpu(gpu + 1, VETTED);
        let leased = rig.take_tasks(gpu);
        for &(task, lease, _) in &leased {
            if *first.get_or_insert(task) == task {
                commit(&mut rig, gpu, lease, task);
                rig.project(gpu, lease, true);
                answered += 1;
            }
        }
        rig.tell(Event::SessionClosed { session: Rig::session(gpu) });
    }
    assert_eq!(answered, 8, "then the referee computes it");
    assert!(rig.referee.iter().any(|asked| Some(asked.task) == first));
}
