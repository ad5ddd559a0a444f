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

/// A whole share, in millionths.
const SHARE_WHOLE: f64 = 1e6;

/// What a session has delivered while it had work: what its rate is borne out by.
///
/// Unlike [`Speed`] nothing of it can be claimed. All of its workers are seen together,
/// so that it does not matter how many there are said to be; nothing is taken off for
/// the link; and the time counts from when it had work at all, so that holding results
/// back, or committing to them in another order, makes nobody faster.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivered {
    /// Since when it has had work without a commitment, at the share that it has now.
    since: Millis,
    /// The time before that, at other shares.
    before: Spell,
    flops: u64,
    spent: Spell,
}

/// A time in which a session had work.
#[derive(Clone, Copy, Debug, Default)]
struct Spell {
    ms: u64,
    /// The same by the share that it had, in millionths.
    at_share: u64,
}

impl Spell {
    fn plus(self, ms: u64, share: f64) -> Spell {
        let at_share = ms.saturating_mul((share * SHARE_WHOLE) as u64);
        self.and(Spell { ms, at_share })
    }

    fn and(self, other: Spell) -> Spell {
        Spell {
            ms: self.ms.saturating_add(other.ms),
            at_share: self.at_share.saturating_add(other.at_share),
        }
    }
}

impl Delivered {
    /// It was given a task and had none.
    pub(crate) fn begin(&mut self, now: Millis) {
        self.since = now;
        self.before = Spell::default();
    }

    /// It goes on at another share than `share`.
    pub(crate) fn repace(&mut self, share: f64, now: Millis) {
        self.before = self.before.plus(now.saturating_sub(self.since), share);
        self.since = now;
    }

    /// It has waited for the coordinator since then, as far as it had nothing to compute:
    /// that is not its own time.
    pub(crate) fn wait(&mut self, since: Millis, busy_ms: Millis, now: Millis) {
        let ms = now.saturating_sub(since.max(self.since));
        self.since += ms.saturating_sub(busy_ms);
    }

    /// One of so many workers began then with what is called off now: its part of the
    /// time is not counted.
    pub(crate) fn call_off(&mut self, began: Millis, workers: u32, now: Millis) {
        let ms = now.saturating_sub(began.max(self.since));
        self.since += ms / Millis::from(workers.max(1));
    }

    /// It has committed to a task of `flops`. One of less than a calculation takes as
    /// long as its messages do, and says nothing of the device: nor does its time, unless
    /// the session had a larger one meanwhile, as `is_beside` says.
    pub(crate) fn commit(&mut self, flops: u64, share: f64, is_beside: bool, now: Millis) {
        if flops < FLOPS_PER_CALCULATION {
            if !is_beside {
                self.begin(now);
            }
            return;
        }
        let ms = now.saturating_sub(self.since);
        // No task takes no time.
        let ms = if self.before.ms == 0 { ms.max(1) } else { ms };
        self.flops = self.flops.saturating_add(flops);
        self.spent = self.spent.and(self.before.plus(ms, share));
        self.begin(now);
        while self.spent.ms > DELIVERED_MS {
            self.flops /= 2;
            self.spent.ms /= 2;
            self.spent.at_share /= 2;
        }
    }

    /// What it had committed to did not come when it was asked for: it counts as not done.
    pub(crate) fn take_back(&mut self, flops: u64) {
        if flops >= FLOPS_PER_CALCULATION {
            self.flops = self.flops.saturating_sub(flops);
        }
    }

    /// Whether anything was seen.
    pub(crate) fn is_known(&self) -> bool {
        self.spent.ms > 0
    }

    /// Whether it was at least so fast.
    pub(crate) fn reaches(&self, mflops_per_s: u32) -> bool {
        let asked = u128::from(mflops_per_s) * 1_000 * u128::from(self.spent.ms);
        u128::from(self.flops) >= asked
    }

    /// Whether it was at least so fast, at the shares of what is asked for that it had.
    pub(crate) fn reaches_at_share(&self, mflops_per_s: u32) -> bool {
        let asked = u128::from(mflops_per_s) * 1_000 * u128::from(self.spent.at_share);
        u128::from(self.flops) * SHARE_WHOLE as u128 >= asked
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
        let commit = |delivered: &mut Delivered, flops, now| {
            delivered.commit(flops, 1.0, false, now);
        };
        delivered.begin(5_000);
        commit(&mut delivered, FLOPS_PER_CALCULATION - 1, 5_500);
        assert!(!delivered.is_known(), "a task of that size measures the link");
        // Two results at once are two tasks' work in the time of both.
        commit(&mut delivered, second, 6_500);
        commit(&mut delivered, second, 7_500);
        assert!(delivered.reaches(1_000) && !delivered.reaches(1_001));
        // A rest is no work: the time counts from the next task on.
        delivered.begin(100_000);
        commit(&mut delivered, second, 101_000);
        assert!(delivered.reaches(1_000));
        // What was fast for long is slow after two minutes.
        for minute in 0..120 {
            commit(&mut delivered, second / 10, 102_000 + minute * 1_000);
        }
        assert!(!delivered.reaches(200) && delivered.reaches(100));
        let mut most = Delivered::default();
        commit(&mut most, u64::MAX, 0);
        commit(&mut most, u64::MAX, u64::MAX);
        assert!(most.is_known());
    }

    #[test]
    fn a_tiny_task_does_not_take_the_time_of_a_larger_one() {
        let mut delivered = Delivered::default();
        delivered.begin(0);
        delivered.commit(1, 1.0, true, 2_000);
        delivered.commit(16_000_000_000, 1.0, false, 2_001);
        assert!(!delivered.reaches(8_000) && delivered.reaches(7_990));
    }

    #[test]
    fn each_moment_is_judged_by_the_share_that_it_had() {
        let mut delivered = Delivered::default();
        delivered.begin(0);
        // A second at a tenth of the share, then one at the whole of it.
        delivered.repace(0.1, 1_000);
        delivered.commit(1_100_000_000, 1.0, false, 2_000);
        assert!(delivered.reaches_at_share(1_000) && !delivered.reaches_at_share(1_001));
        assert!(delivered.reaches(550) && !delivered.reaches(551));
        // That it has more from now on says nothing of what it did.
        delivered.begin(5_000);
        delivered.repace(1.0, 5_000);
        assert!(delivered.reaches_at_share(1_000));
    }

    #[test]
    fn time_that_is_not_its_own_is_not_counted_and_no_more_than_there_was() {
        let mut delivered = Delivered::default();
        delivered.begin(0);
        delivered.wait(200, 300, 1_000);
        delivered.commit(1_000_000_000, 1.0, false, 1_500);
        assert!(delivered.reaches(1_000) && !delivered.reaches(1_001));
        // One of two workers had been at it since before the last commitment.
        let mut called_off = Delivered::default();
        called_off.begin(1_000);
        called_off.call_off(0, 2, 2_000);
        called_off.commit(1_000_000_000, 1.0, false, 2_500);
        assert!(called_off.reaches(1_000) && !called_off.reaches(1_001));
        let mut long = Delivered::default();
        long.begin(1_000);
        long.wait(0, 0, 3_000);
        long.commit(1_000_000_000, 1.0, false, 3_000);
        assert!(long.reaches(1_000_000) && !long.reaches(1_000_001), "a millisecond");
        long.take_back(1_000_000_000);
        assert!(long.is_known() && !long.reaches(1));
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
