//! All timers of the engine, in one table.

use crate::event::Millis;
use raven_protocol::{JobId, LeaseId, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// What is to happen when its time comes. Each is armed at most once at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The lease's task is given to another.
    LeaseExpiry(LeaseId),
    /// The lease is late against its estimate: an idle session may copy its task.
    LeaseOverdue(LeaseId),
    /// The session may have tasks again.
    SessionBackoff(SessionId),
    /// A task has waited for a second contributor for as long as it may.
    Partner,
    /// The job's end is offered to the store once more.
    SaveEnd(JobId),
    /// The job ends, whatever it has come to.
    Deadline(JobId),
    /// Nobody was there for as long as the job waits.
    Fallback(JobId),
}

/// Timers by time. Those due at once fire in the order of [`Timer`].
#[derive(Debug, Default)]
pub(crate) struct TimerTable {
    due: BTreeMap<Timer, Millis>,
    queue: BTreeSet<(Millis, Timer)>,
}

impl TimerTable {
    /// Arms `timer`, replacing an earlier time.
    pub(crate) fn set(&mut self, timer: Timer, at: Millis) {
        if let Some(before) = self.due.insert(timer, at) {
            self.queue.remove(&(before, timer));
        }
        self.queue.insert((at, timer));
    }

    /// Disarms `timer`, if it is armed.
    pub(crate) fn stop(&mut self, timer: Timer) {
        if let Some(at) = self.due.remove(&timer) {
            self.queue.remove(&(at, timer));
        }
    }

    /// When the next timer is due.
    pub(crate) fn next(&self) -> Option<Millis> {
        self.queue.first().map(|&(at, _)| at)
    }

    /// Takes the first timer that is due at `now`.
    #[must_use]
    pub(crate) fn pop_due(&mut self, now: Millis) -> Option<Timer> {
        let &(at, timer) = self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        self.due.remove(&timer);
        Some(timer)
    }

    /// How many are armed.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_once_at_its_latest_time() {
        let mut timers = TimerTable::default();
        let (a, b) = (Timer::LeaseExpiry(LeaseId(1)), Timer::SessionBackoff(SessionId(1)));
        timers.set(a, 10);
        timers.set(b, 20);
        timers.set(a, 30);
        assert_eq!(timers.next(), Some(20));
        assert_eq!(timers.pop_due(19), None);
        assert_eq!(timers.pop_due(30), Some(b));
        assert_eq!(timers.pop_due(30), Some(a));
        assert_eq!(timers.pop_due(u64::MAX), None);
        timers.set(a, 5);
        timers.stop(a);
        assert_eq!((timers.next(), timers.len()), (None, 0));
    }
}
