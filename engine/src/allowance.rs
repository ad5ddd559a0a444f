//! How many executions of each task a job may be charged at most.

use crate::verify::Verification;
use serde::{Deserialize, Serialize};

/// Mflop of tasks whose executions are counted before what was measured of them is quoted
/// with, a million calculations: a single job says little of the next one. Operations
/// are counted and no tasks, so that many small ones say no more than a large one.
pub const MFLOP_ENOUGH: u64 = 50_000_000;

/// Executions per task, in thousandths. A quote holds that many, a job keeps those that it
/// was quoted with, and executions beyond them are the operator's cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Allowance(pub u32);

impl Allowance {
    /// Each task once.
    pub const ONE: Allowance = Allowance(1_000);
    /// The least that is measured: results are checked now and then, whoever comes.
    pub const MEASURED_MIN: Allowance = Allowance(1_100);
    /// The most: as many as qualify.
    pub const MEASURED_MAX: Allowance = Allowance(3_000);

    /// Of a mode of which nothing is measured. `triple` pays the three that agree, and has
    /// one to spare for a task that is done again. `adaptive` pays the checks of
    /// contributors who are new or drawn: where they come back the simulation measured
    /// less than a quarter.
    pub const fn usual(mode: Verification) -> Self {
        match mode {
            Verification::Triple => Allowance(4_000),
            Verification::Adaptive => Allowance(1_300),
            Verification::None => Allowance::ONE,
        }
    }

    /// Of jobs that do not say with which they were quoted: they are older than that.
    pub const fn unsaid(mode: Verification) -> Self {
        match mode {
            Verification::Triple => Allowance::certain(mode),
            mode => Allowance::usual(mode),
        }
    }

    /// What a mode charges at the least.
    pub const fn certain(mode: Verification) -> Self {
        match mode {
            Verification::Triple => Allowance(3_000),
            Verification::Adaptive | Verification::None => Allowance::ONE,
        }
    }

    /// What `adaptive` jobs came to, both in Mflop: the mean, rounded up. `None` before that
    /// is known.
    pub fn measured(tasks: u64, executions: u64) -> Option<Self> {
        if tasks < MFLOP_ENOUGH {
            return None;
        }
        let mean = (u128::from(executions) * 1_000).div_ceil(u128::from(tasks));
        let mean = Allowance(u32::try_from(mean).unwrap_or(u32::MAX));
        Some(mean.clamp(Allowance::MEASURED_MIN, Allowance::MEASURED_MAX))
    }

    /// Operations that are paid at most for `flops` of tasks, rounded up.
    pub fn of(self, flops: u64) -> u64 {
        let allowed = (u128::from(flops) * u128::from(self.0)).div_ceil(1_000);
        u64::try_from(allowed).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_the_mean_within_its_bounds() {
        let enough = MFLOP_ENOUGH;
        assert_eq!(Allowance::measured(enough - 1, 2 * enough), None);
        assert_eq!(Allowance::measured(enough, 2 * enough), Some(Allowance(2_000)));
        assert_eq!(Allowance::measured(enough, enough + enough / 10 + 1), Some(Allowance(1_101)));
        assert_eq!(Allowance::measured(enough, enough), Some(Allowance(1_100)));
        assert_eq!(Allowance::measured(enough, 9 * enough), Some(Allowance(3_000)));
        assert_eq!(Allowance::measured(enough, u64::MAX), Some(Allowance(3_000)));
        assert_eq!(Allowance::measured(u64::MAX, u64::MAX), Some(Allowance(1_100)));
    }

    #[test]
    fn nothing_that_is_allowed_is_rounded_away() {
        assert_eq!(Allowance(1_300).of(1), 2);
        assert_eq!(Allowance(1_300).of(10), 13);
        assert_eq!(Allowance::ONE.of(u64::MAX), u64::MAX);
        assert_eq!(Allowance::MEASURED_MAX.of(u64::MAX), u64::MAX);
        for mode in Verification::ALL {
            assert!(Allowance::certain(mode) <= Allowance::unsaid(mode));
            assert!(Allowance::unsaid(mode) <= Allowance::usual(mode));
        }
    }
}
