//! What becomes of a job whose loss diverges: `training.on_divergence` of the document.

use super::JobError;
use raven_engine::Divergence;
use raven_engine::divergence::WINDOW_MAX;
use serde::{Deserialize, Serialize};

/// Setbacks of a job: each halves its learning rate by default.
const SETBACKS_MAX: u32 = 16;

/// A loss diverges where it is no finite number, where the gradient is none, and
/// where its mean over the last `window` rounds is more than `factor` times the
/// lowest such mean before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum OnDivergence {
    /// The job ends.
    Stop {
        #[serde(default = "factor")]
        factor: f32,
        #[serde(default = "window")]
        window: u32,
    },
    /// It goes back to its last checkpoint, `max` times at most, and on from there
    /// at `learning_rate_factor` times the learning rate.
    RollBack {
        #[serde(default = "factor")]
        factor: f32,
        #[serde(default = "window")]
        window: u32,
        #[serde(default = "max")]
        max: u32,
        #[serde(default = "learning_rate_factor")]
        learning_rate_factor: f32,
    },
}

const fn factor() -> f32 {
    4.0
}

const fn window() -> u32 {
    20
}

const fn max() -> u32 {
    3
}

const fn learning_rate_factor() -> f32 {
    0.5
}

impl OnDivergence {
    /// The rule as the engine has it.
    pub const fn rule(self) -> Divergence {
        match self {
            OnDivergence::Stop { factor, window } => {
                Divergence { factor, window, setbacks_max: 0, learning_rate_factor: 1.0 }
            }
            OnDivergence::RollBack { factor, window, max, learning_rate_factor } => {
                Divergence { factor, window, setbacks_max: max, learning_rate_factor }
            }
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`JobError::Field`] and [`JobError::Limit`], with the field at fault.
    pub(super) fn check(&self) -> Result<(), JobError> {
        let Divergence { factor, window, setbacks_max, .. } = self.rule();
        if !(factor.is_finite() && factor > 1.0) {
            return Err(field("training.on_divergence.factor", "finite and above 1", factor));
        }
        if window == 0 {
            return Err(field("training.on_divergence.window", "at least 1", window));
        }
        over("training.on_divergence.window", "steps", WINDOW_MAX, window)?;
        let OnDivergence::RollBack { learning_rate_factor: lower, .. } = *self else {
            return Ok(());
        };
        if setbacks_max == 0 {
            return Err(field("training.on_divergence.max", "at least 1", setbacks_max));
        }
        over("training.on_divergence.max", "setbacks", SETBACKS_MAX, setbacks_max)?;
        // With the same learning rate it would diverge again.
        if !(lower > 0.0 && lower < 1.0) {
            let name = "training.on_divergence.learning_rate_factor";
            return Err(field(name, "above 0 and below 1", lower));
        }
        Ok(())
    }
}

fn over(field: &'static str, unit: &'static str, limit: u32, found: u32) -> Result<(), JobError> {
    if found <= limit {
        return Ok(());
    }
    Err(JobError::Limit { field, unit, limit: limit.into(), found: found.into() })
}

fn field(field: &'static str, rule: &str, found: impl ToString) -> JobError {
    JobError::Field { field, rule: rule.into(), found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(rule: Value) -> OnDivergence {
        serde_json::from_value(rule).expect("a rule")
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let rule = read(json!({"action": "roll_back"})).rule();
        let expected =
            Divergence { factor: 4.0, window: 20, setbacks_max: 3, learning_rate_factor: 0.5 };
        assert_eq!(rule, expected);
        assert_eq!(read(json!({"action": "stop", "factor": 9})).rule().setbacks_max, 0);
    }

    #[test]
    fn refusals_name_the_field_and_its_limit() {
        let refused = |rule: Value| {
            let checked = read(rule).check();
            checked.err().map(|error| (error.field(), error.limit()))
        };
        let is = |name: &str, limit| Some((format!("training.on_divergence.{name}"), limit));
        let back = |name: &str, value: Value| {
            let mut rule = json!({"action": "roll_back"});
            rule[name] = value;
            refused(rule)
        };
        assert_eq!(back("factor", json!(4)), None);
        assert_eq!(back("factor", json!(1)), is("factor", None));
        assert_eq!(back("window", json!(0)), is("window", None));
        assert_eq!(back("window", json!(10_001)), is("window", Some((10_000, 10_001))));
        assert_eq!(back("max", json!(0)), is("max", None));
        assert_eq!(back("max", json!(17)), is("max", Some((16, 17))));
        assert_eq!(back("learning_rate_factor", json!(1)), is("learning_rate_factor", None));
        assert_eq!(back("learning_rate_factor", json!(0)), is("learning_rate_factor", None));
        assert_eq!(refused(json!({"action": "stop"})), None);
        assert_eq!(refused(json!({"action": "stop", "factor": 0.5})), is("factor", None));
    }

    #[test]
    fn what_an_action_does_not_know_is_no_field_of_it() {
        for unknown in [
            json!({"action": "stop", "max": 1}),
            json!({"action": "roll_back", "patience": 1}),
            json!({"action": "retry"}),
            json!({"factor": 4}),
        ] {
            assert!(serde_json::from_value::<OnDivergence>(unknown.clone()).is_err(), "{unknown}");
        }
    }
}
