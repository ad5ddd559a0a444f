//! Kinds of jobs that an open session comes to refuse, and takes back again.

mod support;

use raven_engine::{Category, CategorySet, Event, JobState, Verification};
use support::{Rig, truth};

/// Does what is there to do, and answers how much that was.
fn work(rig: &mut Rig, contributor: u64) -> usize {
    let tasks = rig.take_tasks(contributor);
    for &(task, lease, _) in &tasks {
        rig.now += 1_500;
        rig.commit(contributor, lease, truth(task));
        rig.leased.insert(lease, task);
    }
    let leased = rig.leased.clone();
    rig.reveal_all(|lease| truth(leased[&lease]));
    tasks.len()
}

#[test]
fn a_refusal_ends_the_work_of_an_open_session_until_it_is_taken_back() {
    let session = Rig::session(1);
    let categories = CategorySet::EMPTY.with(Category::Vision);
    let refusals: [fn(_, _) -> Event; 2] = [
        |session, categories| Event::SiteRefuses { session, categories },
        |session, categories| Event::VisitorRefuses { session, categories },
    ];
    for refuse in refusals {
        let mut rig = Rig::new(Verification::None);
        rig.open(1);
        assert!(work(&mut rig, 1) > 0);
        // Of another kind than the job is.
        rig.tell(refuse(session, CategorySet::EMPTY.with(Category::Finance)));
        assert!(work(&mut rig, 1) > 0);
        rig.tell(refuse(session, categories));
        // What was under way is finished; then nothing comes any more.
        work(&mut rig, 1);
        assert_eq!(work(&mut rig, 1), 0);
        let JobState::WaitingForContributors { reason } = rig.state() else {
            panic!("{:?}", rig.state());
        };
        assert!(reason.contains("refuses jobs of category vision"), "{reason}");
        rig.tell(refuse(session, CategorySet::EMPTY));
        assert!(work(&mut rig, 1) > 0);
    }
}

#[test]
fn a_refusal_of_a_session_that_is_gone_is_ignored() {
    let mut rig = Rig::new(Verification::None);
    let before = rig.engine.counts().ignored.unknown_session;
    let (session, categories) = (Rig::session(1), CategorySet::EMPTY);
    rig.tell(Event::SiteRefuses { session, categories });
    assert_eq!(rig.engine.counts().ignored.unknown_session, before + 1);
}
