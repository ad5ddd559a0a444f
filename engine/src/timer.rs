//! All timers of the engine, in one table.

use crate::event::Millis;
use crate::ids::IdMap;
use raven_protocol::{JobId, LeaseId, SessionId};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is to happen when its time comes. Each is armed at most once at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// Stale entries of the queue that are not worth making it anew.
const STALE_MIN: usize = 64;

/// Timers by time. Those due at once fire in the order of [`Timer`].
#[derive(Debug, Default)]
pub(crate) struct TimerTable {
    due: IdMap<Timer, Millis>,
    /// Every armed timer, and some that were set to another time or stopped since:
    /// never the first, and never more than are armed and a few.
    queue: BinaryHeap<Reverse<(Millis, Timer)>>,
}

impl TimerTable {
    /// Arms `timer`, replacing an earlier time.
    pub(crate) fn set(&mut self, timer: Timer, at: Millis) {
        if self.due.insert(timer, at) != Some(at) {
            self.queue.push(Reverse((at, timer)));
            self.tidy();
        }
    }

    /// Disarms `timer`, if it is armed.
    pub(crate) fn stop(&mut self, timer: Timer) {
        if self.due.remove(&timer).is_some() {
            self.tidy();
        }
    }

    /// When the next timer is due.
    pub(crate) fn next(&self) -> Option<Millis> {
        self.queue.peek().map(|&Reverse((at, _))| at)
    }

    /// Takes the first timer that is due at `now`.
    #[must_use]
    pub(crate) fn pop_due(&mut self, now: Millis) -> Option<Timer> {
        let &Reverse((at, timer)) = self.queue.peek()?;
        if at > now {
            return None;
        }
        self.due.remove(&timer);
        self.tidy();
        Some(timer)
    }

    /// How many are armed.
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }

    /// Takes stale entries from the front, and all of them once most are stale.
    fn tidy(&mut self) {
        if self.queue.len() > 2 * self.due.len() + STALE_MIN {
            self.queue = self.due.iter().map(|(&timer, &at)| Reverse((at, timer))).collect();
        }
        while let Some(&Reverse((at, timer))) = self.queue.peek()
            && self.due.get(&timer) != Some(&at)
        {
            self.queue.pop();
        }
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
    #[test]
    fn timers_that_were_set_again_and_stopped_leave_no_more_than_a_few_entries() {
        let mut timers = TimerTable::default();
        let timer = |n| Timer::LeaseExpiry(LeaseId(n));
        for round in 0..100 {
            for n in 0..50 {
                timers.set(timer(n), 1_000 + round);
                timers.set(timer(100 + n), 10 + round);
                timers.stop(timer(100 + n));
                assert_eq!(
                    (timers.next(), timers.len()),
                    (timers.due.values().min().copied(), timers.due.len())
                );
                assert!(timers.queue.len() <= 2 * timers.len() + STALE_MIN);
            }
        }
        // Those due at once come in their order, each once.
        let fired: Vec<Timer> = std::iter::from_fn(|| timers.pop_due(2_000)).collect();
        assert_eq!(fired, (0..50).map(timer).collect::<Vec<_>>());
        assert_eq!((timers.next(), timers.len()), (None, 0));
    }
}
