//! A job that ends right after a restart: what the process before has accepted, and nobody
//! has looked at, is looked at as far as it can be.

mod support;

use raven_engine::money::PicoUsd;
use raven_engine::{Allowance, Event, JobState, OpenWord, Payer, Verification};
use raven_protocol::{BlobId, DeviceClass, TaskId};
use support::{FIRST_STATE, FLOPS, JOB, Rig, referee_finds, truth, value};

fn word(contributor: u64, round: u32, part: u32, tag: u8, state: BlobId) -> OpenWord {
    let task = TaskId { job: JOB, round, stage: 0, part };
    OpenWord {
        task,
        attempt: 0,
        contributor: Rig::contributor(contributor),
        device: DeviceClass::Desktop,
        session: Rig::session(contributor),
        state,
        flops: FLOPS,
        rate: PicoUsd(16_000),
        digest: if tag == 7 { truth(task) } else { value(task, tag) },
        payer: Payer::Job,
    }
}

/// Two did the first round, and a second one behind it of which nobody has the weights.
fn words() -> Vec<OpenWord> {
    let other = BlobId([3; 32]);
    let first = |contributor, part, tag| word(contributor, 0, part, tag, FIRST_STATE);
    let mut words = vec![first(1, 0, 7), first(1, 1, 7), first(2, 2, 9), first(2, 3, 9)];
    words.extend((0..4).map(|part| word(1 + u64::from(part / 2), 1, part, 9, other)));
    words
}

#[test]
fn an_end_right_after_a_restart_looks_at_the_round_where_the_job_stands() {
    let mut rig = Rig::resumed_with(Verification::Adaptive, Allowance(1_300), 2, words());
    rig.tell(Event::JobCancelled { job: JOB });
    assert!(rig.earlier.is_none(), "its end waits");
    let asked: Vec<TaskId> = rig.referee.iter().map(|asked| asked.task).collect();
    let of = |part| TaskId { job: JOB, round: 0, stage: 0, part };
    assert!(asked.contains(&of(1)) && asked.contains(&of(3)), "the last of each: {asked:?}");
    assert!(asked.iter().all(|task| task.round == 0), "{asked:?}");
    while !rig.referee.is_empty() {
        referee_finds(&mut rig, 7);
    }
    assert!(matches!(rig.state(), JobState::Cancelled { .. }), "{:?}", rig.state());
    let stats = rig.engine.stats(0);
    assert_eq!((stats.lies_proven, stats.excluded, stats.rollbacks), (1, 1, 0));
    let earlier = rig.earlier.expect("the end says what is known of it");
    assert_eq!(earlier.below, 1);
    let excluded: Vec<_> = earlier.excluded.iter().map(|it| it.contributor).collect();
    assert_eq!(excluded, [Rig::contributor(2)]);
    let voided: Vec<_> = rig.voids.iter().map(|it| (it.task, it.attempt, it.contributor)).collect();
    assert!(voided.contains(&(of(3), 0, Rig::contributor(2))), "{voided:?}");
    assert!(voided.iter().all(|it| it.2 == Rig::contributor(2)), "{voided:?}");
}

#[test]
fn what_is_done_again_is_looked_at_as_it_always_is() {
    let mut rig = Rig::resumed_with(Verification::Adaptive, Allowance(1_300), 2, words());
    let vetted = raven_engine::Trust::Agreed { results: 1_000, refereed: 5 };
    rig.open_as(3, vetted);
    for _ in 0..60 {
        for (task, lease, _) in rig.take_tasks(3) {
            rig.now += 1_500;
            rig.leased.insert(lease, task);
            rig.commit(3, lease, truth(task));
        }
        let leased = rig.leased.clone();
        rig.reveal_all(|lease| truth(leased[&lease]));
        while !rig.referee.is_empty() {
            referee_finds(&mut rig, 7);
        }
    }
    assert!(matches!(rig.state(), JobState::Completed { .. }), "{:?}", rig.state());
    let stats = rig.engine.stats(0);
    assert_eq!((stats.lies_proven, stats.excluded, rig.voids.len()), (0, 0, 0));
}
