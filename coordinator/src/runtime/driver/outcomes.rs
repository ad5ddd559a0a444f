//! Telling contributors what became of their results, while there is nothing
//! better to send.

use super::Driver;
use super::link::Link;
use raven_protocol::frame::encode;
use raven_protocol::limits::OUTCOMES_MAX;
use raven_protocol::{LeaseId, LeaseOutcome, ResultOutcome, SessionId, ToContributor};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is told is gathered for so long: one message serves many results.
const EVERY: Duration = Duration::from_secs(2);
/// Outcomes of one session that wait. The oldest go first: what is told is for
/// people, who lose no more than a count.
const WAITING_MAX: usize = 1024;

/// Outcomes that a session was not told.
#[derive(Debug)]
pub struct Outcomes {
    waiting: VecDeque<LeaseOutcome>,
    told: Instant,
}

impl Outcomes {
    /// None, of a session that begins now.
    pub fn new(now: Instant) -> Self {
        Outcomes { waiting: VecDeque::new(), told: now }
    }

    fn add(&mut self, lease: LeaseId, outcome: ResultOutcome) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(LeaseOutcome { lease, outcome });
    }

    /// The next message, if it is time for one.
    fn take(&mut self, now: Instant) -> Option<ToContributor> {
        if self.waiting.is_empty() || now.duration_since(self.told) < EVERY {
            return None;
        }
        self.told = now;
        let count = self.waiting.len().min(OUTCOMES_MAX);
        Some(ToContributor::Outcomes { results: self.waiting.drain(..count).collect() })
    }
}

impl Link {
    /// Tells what became of results, if nothing else is under way to the session
    /// and its visit may still move that much.
    fn tell_outcomes(&mut self, now: Instant) {
        // The coordinator's own node reads no news.
        if self.profile.operator || !self.is_drained() {
            return;
        }
        let Some(message) = self.outcomes.take(now) else { return };
        let frame = encode(&message, &[]);
        if self.has_room(frame.len()) {
            self.send(frame.into());
        }
    }
}

impl Driver {
    /// What became of a result: its contributor is told by and by.
    pub(super) fn note_outcome(&mut self, session: SessionId, lease: LeaseId, it: ResultOutcome) {
        if let Some(link) = self.links.get_mut(&session) {
            link.outcomes.add(lease, it);
        }
    }

    /// Tells every session what it can be told now.
    pub(super) fn tell_outcomes(&mut self) {
        let now = Instant::now();
        for link in self.links.values_mut() {
            link.tell_outcomes(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(message: Option<ToContributor>) -> Vec<u128> {
        match message {
            Some(ToContributor::Outcomes { results }) => {
                results.iter().map(|one| one.lease.0).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn outcomes_are_gathered_and_bounded_and_the_oldest_are_left_out() {
        let start = Instant::now();
        let mut outcomes = Outcomes::new(start);
        for lease in 0..WAITING_MAX as u128 + 5 {
            outcomes.add(LeaseId(lease), ResultOutcome::Accepted);
        }
        assert_eq!(outcomes.take(start + EVERY / 2), None, "not yet");
        let told = leases(outcomes.take(start + EVERY));
        assert_eq!((told.len(), told[0]), (OUTCOMES_MAX, 5));
        assert_eq!(outcomes.take(start + EVERY), None, "one message at a time");
        let told = leases(outcomes.take(start + 2 * EVERY));
        assert_eq!(told[0], 5 + OUTCOMES_MAX as u128);
        let message = ToContributor::Outcomes {
            results: vec![
                LeaseOutcome {
                    lease: LeaseId(u128::MAX),
                    outcome: ResultOutcome::BrokenCommitment
                };
                OUTCOMES_MAX
            ],
        };
        assert!(encode(&message, &[]).len() < 16 << 10, "a message is some kilobytes");
    }
}
