//! What is measured of a session: how fast it computes and how fast its link is.

use crate::event::Millis;

/// Claims outside of these bounds are cut, so that no claim can make an
/// estimate useless before the first measurement. In flop/s.
const CLAIM_MIN: f64 = 1e6;
const CLAIM_MAX: f64 = 1e13;
/// Weight of the newest sample. Devices heat up and tabs compete: old speeds fade.
const NEWEST: f64 = 0.3;
/// Transfers below this tell the round trip, above it the rate.
const RATE_BYTES_MIN: u64 = 64 << 10;

/// No link is taken to be slower, in bytes per ms: estimates stay finite.
const RATE_MIN: f64 = 1.0;

/// Speed of one worker at the session's share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speed {
    flops_per_ms: f64,
    measured: bool,
}

impl Speed {
    /// From a claim, in flop/s of one worker at full share.
    pub(crate) fn claimed(flops_per_s: u64, share: f64) -> Self {
        let flops_per_s = (flops_per_s as f64 * share).clamp(CLAIM_MIN, CLAIM_MAX);
        Speed { flops_per_ms: flops_per_s / 1e3, measured: false }
    }

    /// A task of `flops` took `elapsed_ms` on one worker.
    pub(crate) fn observe(&mut self, flops: u64, elapsed_ms: f64) {
        let sample = (flops as f64 / elapsed_ms.max(0.5)).clamp(CLAIM_MIN / 1e3, CLAIM_MAX / 1e3);
        // The first measurement replaces the claim.
        let weight = if self.measured { NEWEST } else { 1.0 };
        self.flops_per_ms += (sample - self.flops_per_ms) * weight;
        self.measured = true;
    }

    /// A task of `flops` was not done after `elapsed_ms`.
    pub(crate) fn observe_at_most(&mut self, flops: u64, elapsed_ms: f64) {
        let sample = (flops as f64 / elapsed_ms.max(0.5)).max(CLAIM_MIN / 1e3);
        self.flops_per_ms = self.flops_per_ms.min(sample);
    }

    /// The share changed by `ratio`.
    pub(crate) fn scale(&mut self, ratio: f64) {
        let scaled = self.flops_per_ms * ratio;
        self.flops_per_ms = scaled.clamp(CLAIM_MIN / 1e3, CLAIM_MAX / 1e3);
    }

    /// Whether any task was measured.
    pub(crate) fn is_measured(&self) -> bool {
        self.measured
    }

    /// Of one worker.
    pub(crate) fn flops_per_ms(&self) -> f64 {
        self.flops_per_ms
    }

    /// Time that a task of `flops` takes on one worker.
    pub(crate) fn task_ms(&self, flops: u64) -> f64 {
        flops as f64 / self.flops_per_ms
    }
}

/// Round trip and rate of a session's link, judged from result uploads: the
/// slower direction on most links, so estimates err on the safe side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    bytes_per_ms: f64,
    round_trip_ms: f64,
}

impl Link {
    pub(crate) fn assumed(bytes_per_s: u64, round_trip_ms: Millis) -> Self {
        Link {
            bytes_per_ms: (bytes_per_s as f64 / 1e3).max(RATE_MIN),
            round_trip_ms: round_trip_ms as f64,
        }
    }

    /// `bytes` were asked for and had arrived `elapsed_ms` later.
    pub(crate) fn observe(&mut self, bytes: u64, elapsed_ms: f64) {
        if bytes < RATE_BYTES_MIN {
            self.round_trip_ms += (elapsed_ms - self.round_trip_ms) * NEWEST;
        } else {
            let sample = bytes as f64 / (elapsed_ms - self.round_trip_ms).max(1.0);
            self.bytes_per_ms += (sample - self.bytes_per_ms) * NEWEST;
        }
    }

    /// `bytes` had not arrived after `elapsed_ms`.
    pub(crate) fn observe_at_most(&mut self, bytes: u64, elapsed_ms: f64) {
        let sample = (bytes as f64 / elapsed_ms.max(1.0)).max(RATE_MIN);
        self.bytes_per_ms = self.bytes_per_ms.min(sample);
    }

    /// Time to move `bytes`, without the round trip.
    pub(crate) fn transfer_ms(&self, bytes: u64) -> f64 {
        bytes as f64 / self.bytes_per_ms
    }

    /// Time from asking for `bytes` to their arrival.
    pub(crate) fn fetch_ms(&self, bytes: u64) -> f64 {
        self.round_trip_ms + self.transfer_ms(bytes)
    }

    pub(crate) fn round_trip_ms(&self) -> f64 {
        self.round_trip_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_replaces_a_claim_and_then_fades() {
        let mut speed = Speed::claimed(u64::MAX, 1.0);
        assert_eq!(speed.flops_per_ms(), CLAIM_MAX / 1e3);
        speed.observe(1_000_000_000, 1000.0);
        assert_eq!(speed.task_ms(1_000_000_000), 1000.0);
        for _ in 0..40 {
            speed.observe(1_000_000_000, 500.0);
        }
        assert!((speed.task_ms(1_000_000_000) - 500.0).abs() < 1.0);
        speed.observe_at_most(1_000_000_000, 4000.0);
        assert_eq!(speed.task_ms(1_000_000_000), 4000.0);
        speed.scale(2.0);
        assert_eq!(speed.task_ms(1_000_000_000), 2000.0);
    }

    #[test]
    fn small_transfers_do_not_spoil_the_rate() {
        let mut link = Link::assumed(1_000_000, 50);
        for _ in 0..60 {
            link.observe(100, 200.0);
        }
        assert!((link.round_trip_ms() - 200.0).abs() < 1.0);
        assert_eq!(link.transfer_ms(1_000_000), 1000.0);
        for _ in 0..60 {
            link.observe(10_000_000, 1200.0);
        }
        assert!((link.fetch_ms(10_000_000) - 1200.0).abs() < 5.0);
    }
}
