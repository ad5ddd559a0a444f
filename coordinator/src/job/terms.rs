//! Under what terms a job is posted: until when, for how much, and what happens
//! where nobody is there.

use crate::time::UnixMs;
use raven_engine::ledger::pay::cost_within;
use raven_engine::money::{FLOPS_PER_CALCULATION, NanoUsd};
use raven_engine::{Allowance, Budget, Fallback, Millis, Rates, Terms};
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
    /// The amount, where it is one.
    fn amount(self) -> Option<NanoUsd> {
        match self {
            BudgetSpec::Calculations(_) => None,
            BudgetSpec::NanoUsd(amount) => Some(NanoUsd(i64::try_from(amount).unwrap_or(i64::MAX))),
        }
    }
}

/// What happens where the money that a job holds is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenSpent {
    /// It waits until more is put in.
    #[default]
    Pause,
    /// It ends.
    End,
}

impl WhenSpent {
    /// Whether it is what happens where a document does not say.
    pub fn is_pause(&self) -> bool {
        *self == WhenSpent::Pause
    }
}

/// The terms with times as the wall clock has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobTerms {
    pub deadline: Option<Deadline>,
    pub budget: Option<BudgetSpec>,
    pub when_spent: WhenSpent,
    /// What it holds for its work; where that is not known, its budget counts.
    pub escrow: Option<NanoUsd>,
    /// What work beyond that may cost the operator.
    pub operator_cost_max: Option<NanoUsd>,
    pub fallback: Fallback,
    pub fallback_after_s: u32,
    /// At which its work is paid.
    pub rates: Rates,
    /// How many executions of each task it may be charged.
    pub allowance: Option<Allowance>,
}

impl JobTerms {
    /// What ends it and what pauses it. A bound on work is no matter of money, and ends it.
    fn bounds(&self) -> (Option<Budget>, Option<NanoUsd>) {
        if let Some(BudgetSpec::Calculations(count)) = self.budget {
            let flops = count.saturating_mul(FLOPS_PER_CALCULATION);
            return (Some(Budget::Flops(flops)), None);
        }
        let holds = self.escrow.or(self.budget.and_then(BudgetSpec::amount));
        match self.when_spent {
            WhenSpent::Pause => (None, holds),
            // What it holds is what its owner pays; the engine counts what work earns.
            WhenSpent::End => (holds.map(|holds| Budget::Charge(cost_within(holds))), None),
        }
    }

    /// The same on a monotonic clock that shows `now` while the wall's shows `wall`.
    pub fn on(&self, now: Millis, wall: UnixMs) -> Terms {
        let deadline = self.deadline.map(|Deadline(at)| {
            // A deadline that has passed is due at once.
            now.saturating_add(u64::try_from(at.0 - wall.0).unwrap_or(0))
        });
        let (budget, escrow) = self.bounds();
        Terms {
            deadline,
            budget,
            escrow,
            operator_cost_max: self.operator_cost_max,
            fallback: self.fallback,
            fallback_after_ms: u64::from(self.fallback_after_s) * 1000,
            rates: self.rates,
            allowance: self.allowance,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_engine::money::Charge;

    #[test]
    fn a_deadline_is_carried_over_to_another_clock() {
        let at = |ms| JobTerms { deadline: Some(Deadline(UnixMs(ms))), ..JobTerms::default() };
        assert_eq!(at(10_000).on(7, UnixMs(4_000)).deadline, Some(6_007));
        assert_eq!(at(10_000).on(7, UnixMs(14_000)).deadline, Some(7), "it has passed");
        assert_eq!(JobTerms::default().on(7, UnixMs(0)).deadline, None);
    }

    #[test]
    fn money_pauses_a_job_and_whatever_else_was_said_ends_it() {
        let (pause, end) = (WhenSpent::Pause, WhenSpent::End);
        let money = Some(BudgetSpec::NanoUsd(110));
        let held = Some(NanoUsd(220));
        let cost = |amount| Some(Budget::Charge(Charge::nano_usd(amount)));
        for (budget, when_spent, escrow, bounds) in [
            (None, pause, None, (None, None)),
            (None, pause, held, (None, held)),
            (money, pause, None, (None, Some(NanoUsd(110)))),
            // What was put in later counts as well.
            (money, pause, held, (None, held)),
            (money, end, None, (cost(100), None)),
            (money, end, held, (cost(200), None)),
            (None, end, held, (cost(200), None)),
            (
                Some(BudgetSpec::Calculations(2)),
                pause,
                held,
                (Some(Budget::Flops(2 * FLOPS_PER_CALCULATION)), None),
            ),
        ] {
            let terms = JobTerms { budget, when_spent, escrow, ..JobTerms::default() };
            let engine = terms.on(7, UnixMs(0));
            assert_eq!((engine.budget, engine.escrow), bounds, "{terms:?}");
        }
    }
}
