//! What is measured of a session: how fast it computes and how fast its link is.

use crate::event::Millis;
use crate::money::FLOPS_PER_CALCULATION;

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

/// Milliseconds of work that a session is judged by: what it did earlier fades.
const DELIVERED_MS: u64 = 60_000;

/// What a session has delivered while it had work: what its rate is borne out by.
///
/// Unlike [`Speed`] nothing of it can be claimed. All of its workers are seen together,
/// so that it does not matter how many there are said to be; nothing is taken off for
/// the link; and the time counts from when it had work at all, so that holding results
/// back, or committing to them in another order, makes nobody faster.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivered {
    /// Since when it has had work without a commitment.
    since: Millis,
    flops: u64,
    ms: u64,
}

impl Delivered {
    /// It was given a task and had none.
    pub(crate) fn begin(&mut self, now: Millis) {
        self.since = now;
    }

    /// It has committed to a task of `flops`. One of less than a calculation takes as
    /// long as its messages do, and says nothing of the device.
    pub(crate) fn commit(&mut self, flops: u64, now: Millis) {
        let ms = now.saturating_sub(self.since).max(1);
        self.since = now;
        if flops < FLOPS_PER_CALCULATION {
            return;
        }
        self.flops = self.flops.saturating_add(flops);
        self.ms = self.ms.saturating_add(ms);
        while self.ms > DELIVERED_MS {
            self.flops /= 2;
            self.ms /= 2;
        }
    }

    /// Whether anything was seen.
    pub(crate) fn is_known(&self) -> bool {
        self.ms > 0
    }

    /// Whether it was at least so fast, at `share` of what is asked for.
    pub(crate) fn reaches(&self, mflops_per_s: u32, share: f64) -> bool {
        self.flops as f64 >= f64::from(mflops_per_s) * 1e3 * self.ms as f64 * share
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
    fn what_is_delivered_is_work_by_the_time_in_which_there_was_any() {
        let second = 1_000_000_000;
        let mut delivered = Delivered::default();
        delivered.begin(5_000);
        delivered.commit(FLOPS_PER_CALCULATION - 1, 5_500);
        assert!(!delivered.is_known(), "a task of that size measures the link");
        // Two results at once are two tasks' work in the time of both.
        delivered.commit(second, 6_500);
        delivered.commit(second, 7_500);
        assert!(delivered.reaches(1_000, 1.0) && !delivered.reaches(1_001, 1.0));
        assert!(delivered.reaches(2_000, 0.5), "half of it at half the share");
        // A rest is no work: the time counts from the next task on.
        delivered.begin(100_000);
        delivered.commit(second, 101_000);
        assert!(delivered.reaches(1_000, 1.0));
        // What was fast for long is slow after two minutes.
        for minute in 0..120 {
            delivered.commit(second / 10, 102_000 + minute * 1_000);
        }
        assert!(!delivered.reaches(200, 1.0) && delivered.reaches(100, 1.0));
        let mut most = Delivered::default();
        most.commit(u64::MAX, 0);
        most.commit(u64::MAX, u64::MAX);
        assert!(most.is_known());
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
