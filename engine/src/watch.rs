//! Tasks that might be copied to somebody idle because whoever has them is late.
//! Looking at all that are late after every event would cost more than the event:
//! a task is looked at again only once something of it has changed.

use crate::event::ContributorId;
use raven_protocol::JobId;
use std::collections::{BTreeMap, BTreeSet};

/// A task of a job's open stage, by its part.
pub(crate) type Watched = (JobId, u32);

/// What is to be looked at, and what need not be.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Tasks of which something has changed since they were looked at.
    due: BTreeSet<Watched>,
    /// Late tasks that have as many results as they need, by those who take part:
    /// what is needed depends on what is known of them.
    parked: BTreeMap<Watched, Vec<ContributorId>>,
    by_contributor: BTreeMap<ContributorId, BTreeSet<Watched>>,
}

impl Watch {
    /// Something of `task` has changed.
    pub(crate) fn changed(&mut self, task: Watched) {
        self.due.insert(task);
        let Some(people) = self.parked.remove(&task) else { return };
        for person in people {
            let Some(tasks) = self.by_contributor.get_mut(&person) else { continue };
            tasks.remove(&task);
            if tasks.is_empty() {
                self.by_contributor.remove(&person);
            }
        }
    }

    /// What is known of somebody has changed.
    pub(crate) fn trust_changed(&mut self, contributor: &ContributorId) {
        let tasks = self.by_contributor.remove(contributor);
        for task in tasks.into_iter().flatten() {
            self.changed(task);
        }
    }

    /// Tasks to look at, in order.
    pub(crate) fn due(&self) -> impl Iterator<Item = Watched> + '_ {
        self.due.iter().copied()
    }

    /// `task` needs no copy, until something of it changes or of the `people` whose
    /// results are what it needs.
    pub(crate) fn park(&mut self, task: Watched, people: Vec<ContributorId>) {
        self.changed(task);
        self.due.remove(&task);
        for &person in &people {
            self.by_contributor.entry(person).or_default().insert(task);
        }
        if !people.is_empty() {
            self.parked.insert(task, people);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_task_is_looked_at_again_when_it_or_somebody_in_it_changes() {
        let mut watch = Watch::default();
        let (a, b) = ((JobId(1), 4), (JobId(1), 5));
        let person = |byte| ContributorId([byte; 32]);
        watch.changed(a);
        watch.changed(b);
        assert_eq!(watch.due().collect::<Vec<_>>(), [a, b]);
        watch.park(a, vec![person(1), person(2)]);
        watch.park(b, vec![person(2)]);
        assert_eq!(watch.due().count(), 0);
        watch.trust_changed(&person(1));
        assert_eq!(watch.due().collect::<Vec<_>>(), [a]);
        watch.park(a, vec![person(2)]);
        watch.changed(a);
        watch.trust_changed(&person(2));
        assert_eq!(watch.due().collect::<Vec<_>>(), [a, b]);
        watch.park(a, Vec::new());
        watch.park(b, Vec::new());
        assert!(watch.parked.is_empty() && watch.by_contributor.is_empty());
    }
}
