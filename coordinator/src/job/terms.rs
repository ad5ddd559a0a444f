//! Under what terms a job is posted: until when, for how much, and what happens
//! where nobody is there.

use crate::time::UnixMs;
use raven_engine::ledger::pay::MARGIN_PERCENT;
use raven_engine::money::{Charge, FLOPS_PER_CALCULATION};
use raven_engine::{Budget, Fallback, Millis, Terms};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds for which nobody must have been there, where the document does not say.
pub const FALLBACK_AFTER_S: u32 = 300;
/// The longest such time: a month.
pub const FALLBACK_AFTER_S_MAX: u32 = 30 * 24 * 3600;

/// A time in a document, RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub UnixMs);

impl Serialize for Deadline {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.rfc3339())
    }
}

impl<'de> Deserialize<'de> for Deadline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let rule = "a time in UTC such as 2026-11-22T08:30:00Z";
        UnixMs::parse(&text).map(Deadline).ok_or_else(|| serde::de::Error::custom(rule))
    }
}

/// What a job may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetSpec {
    /// Work, whoever does it.
    Calculations(u64),
    /// Money.
    NanoUsd(u64),
}

impl BudgetSpec {
    /// The engine's form.
    pub fn budget(self) -> Budget {
        match self {
            BudgetSpec::Calculations(count) => {
                Budget::Flops(count.saturating_mul(FLOPS_PER_CALCULATION))
            }
            // A budget is what its owner pays; the engine counts what work earns.
            BudgetSpec::NanoUsd(amount) => Budget::Charge(cost_within(amount)),
        }
    }
}

/// The operational cost that comes to `amount` nano-USD with the margin, rounded down.
fn cost_within(amount: u64) -> Charge {
    let units = Charge::nano_usd(amount).units() * 100 / (100 + MARGIN_PERCENT);
    Charge::from_units(units)
}

/// The terms with times as the wall clock has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobTerms {
    pub deadline: Option<Deadline>,
    pub budget: Option<BudgetSpec>,
    pub fallback: Fallback,
    pub fallback_after_s: u32,
}

impl JobTerms {
    /// The same on a monotonic clock that shows `now` while the wall's shows `wall`.
    pub fn on(&self, now: Millis, wall: UnixMs) -> Terms {
        let deadline = self.deadline.map(|Deadline(at)| {
            // A deadline that has passed is due at once.
            now.saturating_add(u64::try_from(at.0 - wall.0).unwrap_or(0))
        });
        Terms {
            deadline,
            budget: self.budget.map(BudgetSpec::budget),
            fallback: self.fallback,
            fallback_after_ms: u64::from(self.fallback_after_s) * 1000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_carried_over_to_another_clock() {
        let at = |ms| JobTerms { deadline: Some(Deadline(UnixMs(ms))), ..JobTerms::default() };
        assert_eq!(at(10_000).on(7, UnixMs(4_000)).deadline, Some(6_007));
        assert_eq!(at(10_000).on(7, UnixMs(14_000)).deadline, Some(7), "it has passed");
        assert_eq!(JobTerms::default().on(7, UnixMs(0)).deadline, None);
    }
}
