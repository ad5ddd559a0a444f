//! How long to wait before the next try: doubling, jittered, bounded; as the
//! hub of the frame does it.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A coordinator that is full or going down is given time.
const CROWDED: Duration = Duration::from_secs(15);

/// Failures since a session last lasted.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Time until the next try. `asked` is what the coordinator wants at least, where it
    /// is not unreasonable; `random` is in [0, 1], so that a crowd spreads out.
    pub(super) fn next(&mut self, crowded: bool, asked: Option<Duration>, random: f64) -> Duration {
        let wanted = asked.unwrap_or_default().min(LONGEST);
        let first = if crowded && asked.is_none() { CROWDED } else { FIRST.max(wanted) };
        let whole = (first * 2u32.pow(self.failures.min(6))).min(LONGEST);
        self.failures += 1;
        (whole / 2).max(wanted) + (whole / 2).mul_f64(random.clamp(0.0, 1.0))
    }

    /// After a session that lasted.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_reset() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..8).map(|_| backoff.next(false, None, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.next(false, None, 0.0), Duration::from_millis(500));
    }

    #[test]
    fn a_coordinator_is_not_called_on_before_it_wants_to_be() {
        let asked = Some(Duration::from_secs(5));
        assert_eq!(Backoff::default().next(true, asked, 0.0), Duration::from_secs(5));
        assert!(Backoff::default().next(true, None, 0.0) >= CROWDED / 2);
        let long = Some(Duration::from_secs(3600));
        assert!(Backoff::default().next(true, long, 1.0) <= LONGEST * 3 / 2);
    }
}
