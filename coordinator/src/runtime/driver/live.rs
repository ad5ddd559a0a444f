//! A job's speed between two records.

use crate::store::Clock;
use crate::time::UnixMs;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Rounds over which the speed is taken.
const ROUNDS_MAX: usize = 32;

/// Rounds as they are worked on. Waiting for contributors and evaluating do
/// not count: the clock runs from a round's first task, or from the end of the
/// round before where one followed the other.
#[derive(Debug, Default)]
pub struct Progress {
    /// When the round that is worked on began.
    began: Option<Instant>,
    /// Rows and time of the last rounds.
    recent: VecDeque<(f64, Duration)>,
    /// Contributors to the last recorded round.
    pub(super) contributors: u32,
    /// When work on the first round of this process began.
    started: Option<UnixMs>,
    train: Duration,
}

impl Progress {
    /// Work on a round was given out or begun.
    pub(super) fn working(&mut self, now: Instant) {
        self.began.get_or_insert(now);
        self.started.get_or_insert_with(UnixMs::now);
    }

    /// A round of so many rows has ended in new weights.
    pub(super) fn stepped(&mut self, rows: f64, now: Instant) {
        let Some(began) = self.began.replace(now) else { return };
        let took = now.duration_since(began);
        self.train += took;
        if self.recent.len() >= ROUNDS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((rows, took));
    }

    /// What comes next is not a round, or not yet.
    pub(super) fn interrupted(&mut self) {
        self.began = None;
    }

    /// Rows a second over the last rounds.
    pub(super) fn rows_per_s(&self) -> f64 {
        let (rows, took) = self
            .recent
            .iter()
            .fold((0.0, Duration::ZERO), |sum, round| (sum.0 + round.0, sum.1 + round.1));
        if took.is_zero() { 0.0 } else { rows / took.as_secs_f64() }
    }

    /// What the store is told with a record.
    pub(super) fn clock(&self) -> Clock {
        Clock { process_train_ms: Some(self.train_ms()), started: self.started }
    }

    /// Milliseconds spent on rounds.
    pub(super) fn train_ms(&self) -> u64 {
        self.train.as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_rounds_counts_and_interruptions_do_not() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut progress = Progress::default();
        progress.stepped(100.0, at(0));
        assert_eq!(progress.rows_per_s(), 0.0);
        progress.interrupted();
        progress.working(at(1000));
        progress.working(at(1500));
        progress.stepped(100.0, at(2000));
        progress.stepped(100.0, at(3000));
        progress.interrupted();
        progress.working(at(60_000));
        progress.stepped(100.0, at(61_000));
        assert_eq!(progress.rows_per_s(), 100.0);
        assert_eq!(progress.train_ms(), 3000);
    }
}
