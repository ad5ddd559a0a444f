//! When a job's loss diverges, and what it does then.

use std::collections::VecDeque;

/// Losses that a window can hold: each is kept in memory and looked at every round.
pub const WINDOW_MAX: u32 = 10_000;

/// A loss that fell below this part of the first one says nothing about the scale
/// of what follows: a network that fits its data varies by orders of magnitude.
const LOWEST_PART: f64 = 1e-3;

/// What counts as a loss that diverges, and what follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divergence {
    /// The mean over the last `window` rounds is more than so many times the lowest
    /// such mean before.
    pub factor: f32,
    /// Rounds of a mean.
    pub window: u32,
    /// How often the job goes back to its last checkpoint; the next time it fails.
    pub setbacks_max: u32,
    /// The learning rate of what follows a setback is so many times what it was.
    pub learning_rate_factor: f32,
}

impl Divergence {
    /// The learning rate of `round` (from 0): what the schedule has for it, once for
    /// every setback to an earlier round or to this one. `setbacks` are the steps
    /// that were done where the job began again, in order.
    pub fn learning_rate(&self, scheduled: f32, setbacks: &[u32], round: u32) -> f32 {
        let before = setbacks.iter().filter(|&&step| step <= round);
        before.fold(scheduled, |rate, _| rate * self.learning_rate_factor)
    }
}

/// The mean losses of a job's rounds, as far as the next one is judged by them. It
/// depends on nothing but them and where the job was set back, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossMonitor {
    first: Option<f32>,
    /// The last ones since the start or the last setback.
    last: VecDeque<f32>,
    /// The lowest mean of a whole window.
    lowest: Option<f64>,
}

impl LossMonitor {
    /// Takes in the mean loss of `round` (from 0); whether it diverges. The first
    /// whole window is measured against the first loss of all. After a setback a
    /// whole window has to pass again before anything but what is no number counts.
    pub fn observe(&mut self, rule: &Divergence, setbacks: &[u32], round: u32, loss: f32) -> bool {
        if !loss.is_finite() {
            return true;
        }
        if setbacks.contains(&round) {
            self.last.clear();
        }
        let first = f64::from(*self.first.get_or_insert(loss));
        self.last.push_back(loss);
        let window = rule.window.clamp(1, WINDOW_MAX) as usize;
        while self.last.len() > window {
            self.last.pop_front();
        }
        if self.last.len() < window {
            return false;
        }
        let mean = self.last.iter().map(|&loss| f64::from(loss)).sum::<f64>() / window as f64;
        let lowest = self.lowest.unwrap_or(first).max(first * LOWEST_PART);
        if mean > lowest * f64::from(rule.factor) {
            return true;
        }
        self.lowest = Some(self.lowest.map_or(mean, |lowest| lowest.min(mean)));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Divergence =
        Divergence { factor: 4.0, window: 3, setbacks_max: 2, learning_rate_factor: 0.5 };

    /// The first round that diverges.
    fn diverges(losses: &[f32], setbacks: &[u32]) -> Option<usize> {
        let mut monitor = LossMonitor::default();
        let mut each = (0..).zip(losses);
        each.position(|(round, &loss)| monitor.observe(&RULE, setbacks, round, loss))
    }

    #[test]
    fn a_mean_is_measured_against_the_lowest_before() {
        assert_eq!(diverges(&[2.0, 1.5, 1.0, 0.9, 1.1, 0.8], &[]), None);
        // One batch that is off is none; a level that stays is.
        assert_eq!(diverges(&[2.0, 1.0, 1.0, 1.0, 8.0, 1.0, 1.0], &[]), None);
        assert_eq!(diverges(&[2.0, 1.0, 1.0, 1.0, 8.0, 8.0, 8.0], &[]), Some(5));
        // However slowly it grew.
        let growing: Vec<f32> = (0..60).map(|i| 1.05f32.powi(i)).collect();
        assert_eq!(diverges(&growing, &[]), Some(31));
        // The first window is measured against the first loss.
        assert_eq!(diverges(&[2.0, 50.0, 900.0], &[]), Some(2));
        assert_eq!(diverges(&[2.0, f32::NAN], &[]), Some(1));
        assert_eq!(diverges(&[f32::INFINITY], &[]), Some(0));
        // Near nothing, variation is not divergence.
        assert_eq!(diverges(&[2.0, 1e-6, 1e-6, 1e-6, 1e-6, 1e-4, 1e-4, 1e-4], &[]), None);
    }

    #[test]
    fn after_a_setback_a_whole_window_passes_first() {
        let losses = [2.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0];
        assert_eq!(diverges(&losses, &[]), Some(5));
        assert_eq!(diverges(&losses, &[4]), Some(6));
        assert_eq!(diverges(&losses, &[5]), Some(7));
        assert_eq!(diverges(&[2.0, 1.0, f32::NAN], &[2]), Some(2));
    }

    #[test]
    fn a_setback_lowers_the_learning_rate_of_what_follows_it() {
        let rates = |setbacks: &[u32]| {
            let rate = |round| RULE.learning_rate(0.8, setbacks, round);
            [0, 4, 5, 9].map(rate)
        };
        assert_eq!(rates(&[]), [0.8; 4]);
        assert_eq!(rates(&[5]), [0.8, 0.8, 0.4, 0.4]);
        assert_eq!(rates(&[0, 5, 5]), [0.4, 0.4, 0.1, 0.1]);
    }
}
