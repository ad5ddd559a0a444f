//! Learning rates over the course of a job.
//!
//! The arithmetic is f64 additions, multiplications and divisions only, which
//! IEEE 754 defines to the last bit; the cosine is a fixed polynomial. So every
//! machine computes the same rate, whatever its mathematical library.

use crate::error::GraphError;
use serde::{Deserialize, Serialize};

/// A learning rate, with a linear warm-up over `warmup_steps` and a decay from
/// there to the last step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The same rate after warm-up.
    Constant {
        learning_rate: f32,
        #[serde(default)]
        warmup_steps: u64,
    },
    /// Multiplied by `factor` after every `every_steps` steps.
    Step {
        learning_rate: f32,
        #[serde(default)]
        warmup_steps: u64,
        every_steps: u64,
        factor: f32,
    },
    /// Half a cosine wave down to `floor`.
    Cosine {
        learning_rate: f32,
        #[serde(default)]
        warmup_steps: u64,
        #[serde(default)]
        floor: f32,
    },
    /// A straight line down to `floor`.
    Linear {
        learning_rate: f32,
        #[serde(default)]
        warmup_steps: u64,
        #[serde(default)]
        floor: f32,
    },
}

impl Schedule {
    /// The same rate at every step.
    pub const fn constant(learning_rate: f32) -> Self {
        Schedule::Constant { learning_rate, warmup_steps: 0 }
    }

    /// The rate at the end of warm-up.
    pub const fn learning_rate(&self) -> f32 {
        match *self {
            Schedule::Constant { learning_rate, .. }
            | Schedule::Step { learning_rate, .. }
            | Schedule::Cosine { learning_rate, .. }
            | Schedule::Linear { learning_rate, .. } => learning_rate,
        }
    }

    /// Steps over which the rate rises linearly.
    pub const fn warmup_steps(&self) -> u64 {
        match *self {
            Schedule::Constant { warmup_steps, .. }
            | Schedule::Step { warmup_steps, .. }
            | Schedule::Cosine { warmup_steps, .. }
            | Schedule::Linear { warmup_steps, .. } => warmup_steps,
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`GraphError::Parameter`] for a rate, floor or factor that is negative
    /// or not finite, and for steps of length zero.
    pub fn check(&self) -> Result<(), GraphError> {
        positive("schedule.learning_rate", self.learning_rate())?;
        match *self {
            Schedule::Constant { .. } => Ok(()),
            Schedule::Step { every_steps: 0, .. } => {
                let rule = "at least 1";
                Err(GraphError::Parameter { field: "schedule.every_steps", rule, found: 0.0 })
            }
            Schedule::Step { factor, .. } => positive("schedule.factor", factor),
            Schedule::Cosine { floor, .. } | Schedule::Linear { floor, .. } => {
                positive("schedule.floor", floor)
            }
        }
    }

    /// The rate of `step` (from 0) in a job of `total_steps`. Past the end it
    /// stays at the last value.
    pub fn lr_at(&self, step: u64, total_steps: u64) -> f32 {
        let (rate, warmup) = (f64::from(self.learning_rate()), self.warmup_steps());
        if step < warmup {
            return (rate * ((step + 1) as f64 / warmup as f64)) as f32;
        }
        let after = step - warmup;
        let last = total_steps.saturating_sub(warmup).saturating_sub(1).max(1);
        let progress = after.min(last) as f64 / last as f64;
        let between = |floor: f32, weight: f64| {
            let floor = f64::from(floor);
            floor + (rate - floor) * weight
        };
        let decayed = match *self {
            Schedule::Constant { .. } => rate,
            Schedule::Step { every_steps, factor, .. } => {
                rate * power(f64::from(factor), after / every_steps.max(1))
            }
            Schedule::Cosine { floor, .. } => between(floor, 0.5 * (1.0 + cos_half_turn(progress))),
            Schedule::Linear { floor, .. } => between(floor, 1.0 - progress),
        };
        decayed as f32
    }
}

fn positive(field: &'static str, found: f32) -> Result<(), GraphError> {
    if found.is_finite() && found >= 0.0 {
        Ok(())
    } else {
        Err(GraphError::Parameter { field, rule: "finite and not negative", found })
    }
}

/// `base^exponent` by repeated squaring, in a fixed order of multiplications.
fn power(mut base: f64, mut exponent: u64) -> f64 {
    let mut result = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    result
}

/// `cos(pi * t)` for `t` in 0..=1, to about 1e-15: by symmetry
/// `cos(pi * t) = -sin(pi * (t - 1/2))`, and the sine's Taylor series to the
/// 19th power is exact enough on a quarter turn either way.
fn cos_half_turn(t: f64) -> f64 {
    let x = std::f64::consts::PI * (t - 0.5);
    let square = x * x;
    let mut sum = 1.0;
    // Horner's scheme over x^2: sin x = x (1 - x^2/6 (1 - x^2/20 (...))).
    for k in (1..=9).rev() {
        let k = f64::from(k);
        sum = 1.0 - square / ((2.0 * k) * (2.0 * k + 1.0)) * sum;
    }
    -(x * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PINNED: [u32; 5] =
        [1_036_831_949, 1_050_242_278, 1_049_703_116, 1_041_729_220, 998_575_116];

    #[test]
    fn the_polynomial_is_a_cosine() {
        for i in 0..=1000 {
            let t = f64::from(i) / 1000.0;
            let error = (cos_half_turn(t) - (std::f64::consts::PI * t).cos()).abs();
            assert!(error < 1e-13, "t = {t}: {error}");
        }
    }

    #[test]
    fn rates_at_the_ends() {
        let (learning_rate, warmup_steps) = (0.1, 0);
        let cosine = Schedule::Cosine { learning_rate, warmup_steps: 10, floor: 0.01 };
        assert_eq!(cosine.lr_at(0, 110), 0.01);
        assert_eq!(cosine.lr_at(9, 110), 0.1);
        assert_eq!(cosine.lr_at(10, 110), 0.1);
        assert_eq!(cosine.lr_at(109, 110), 0.01);
        assert_eq!(cosine.lr_at(5000, 110), 0.01);
        let linear = Schedule::Linear { learning_rate, warmup_steps, floor: 0.0 };
        assert_eq!(linear.lr_at(0, 101), 0.1);
        assert_eq!(linear.lr_at(50, 101), 0.05);
        assert_eq!(linear.lr_at(100, 101), 0.0);
        let (every_steps, factor) = (30, 0.5);
        let step = Schedule::Step { learning_rate, warmup_steps, every_steps, factor };
        assert_eq!([29, 30, 60].map(|at| step.lr_at(at, 100)), [0.1, 0.05, 0.025]);
        assert_eq!(Schedule::constant(learning_rate).lr_at(7, 0), 0.1);
    }

    /// Bits that any machine must reproduce.
    #[test]
    fn bits_are_pinned() {
        let cosine = Schedule::Cosine { learning_rate: 0.3, warmup_steps: 3, floor: 0.001 };
        let bits = [0, 5, 17, 50, 90].map(|step| cosine.lr_at(step, 97).to_bits());
        assert_eq!(bits, PINNED);
    }

    #[test]
    fn json_is_small_and_strict() {
        let parse = |text| serde_json::from_str::<Schedule>(text);
        let constant = parse(r#"{"kind":"constant","learning_rate":0.1}"#);
        assert_eq!(constant.ok(), Some(Schedule::constant(0.1)));
        let cosine = parse(r#"{"kind":"cosine","learning_rate":0.1,"warmup_steps":5}"#);
        let expected = Schedule::Cosine { learning_rate: 0.1, warmup_steps: 5, floor: 0.0 };
        assert_eq!(cosine.ok(), Some(expected));
        assert!(parse(r#"{"kind":"constant","learning_rate":0.1,"warmup":5}"#).is_err());
        assert!(parse(r#"{"kind":"cosine","learning_rate":0.1,"flor":1}"#).is_err());
        assert!(Schedule::constant(f32::NAN).check().is_err());
        assert!(Schedule::constant(-0.1).check().is_err());
    }
}
