//! What a job comes to before anyone works for it: operations, price, time.
//! Integers throughout, so that a quote and the books agree.

use super::{BudgetSpec, JobContext, JobFacts, JobSpec};
use raven_engine::ledger::pay;
use raven_engine::money::{Charge, FLOPS_PER_CALCULATION, Flops, NanoUsd};
use raven_engine::{Algorithm, Allowance, Placement, Rates, StagePlan, Verification};

/// Assumed link of a contributor, in bytes per second: the engine assumes the
/// same until it has measured one.
const LINK_BYTES_PER_S: u64 = 2_500_000;
/// What a round waits for beside computing and transfers: two round trips.
const ROUND_OVERHEAD_MS: u64 = 100;
/// Of the speed that is there now, one in so many is counted on to stay.
const CAUTION: u64 = 2;

/// Quotes of a job that its operator pays at most for work beyond its owner's.
const OPERATOR_COST_QUOTES: i64 = 2;

/// Who could work on the job now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speeds {
    /// Speed of each session that takes tasks, all workers at their share, in flop/s.
    pub flops_per_s: Vec<u64>,
    /// Jobs that are being worked on already.
    pub jobs_running: u64,
}

/// From when to when, in seconds from the first round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    pub least_s: u64,
    pub most_s: u64,
}

/// A quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Operations of the fewest epochs that early stopping allows, and of all.
    pub flops_least: u64,
    pub flops_planned: u64,
    /// For the fewest operations at the lowest rate; `None` beyond the books.
    pub price_least: Option<NanoUsd>,
    /// For all of them at the highest.
    pub price_most: Option<NanoUsd>,
    /// The executions of each task that it may be charged.
    pub allowance: Allowance,
    /// Both in every mode of verification.
    pub by_mode: [(Verification, Allowance, Option<NanoUsd>); 3],
    /// The least budget with which a job can be done: a round is begun only where
    /// it fits at the highest rate, so this is counted for the last one.
    pub budget_least: Option<NanoUsd>,
    /// The same for a budget of operations.
    pub budget_flops_least: u64,
    /// `None` where nobody is online.
    pub time: Option<TimeRange>,
}

/// Operations in whole calculations, rounded up.
pub const fn calculations(flops: u64) -> u64 {
    flops.div_ceil(FLOPS_PER_CALCULATION)
}

/// Quotes a lowered job; `adaptive` is what that mode is quoted with now.
pub fn quote(
    spec: &JobSpec,
    context: &JobContext,
    facts: &JobFacts,
    speeds: &Speeds,
    adaptive: Allowance,
) -> Quote {
    let flops_least = facts.flops_least(&spec.training);
    let price = |flops, rate| once(Charge::of(Flops(flops), rate));
    let mode = spec.verification;
    let least = Allowance::certain(mode).of(flops_least);
    let rates = &facts.rates;
    let price_of =
        |allowance: Allowance| price(allowance.of(flops_most(spec, facts)), rates.highest());
    let allowance_of = |mode| match mode {
        mode if mode == spec.verification => facts.allowance(mode),
        Verification::Adaptive => adaptive,
        mode => Allowance::usual(mode),
    };
    let allowance = facts.allowance(mode);
    Quote {
        flops_least,
        flops_planned: facts.flops_planned,
        price_least: price(least, rates.lowest()),
        price_most: price_of(allowance),
        allowance,
        by_mode: Verification::ALL
            .map(|mode| (mode, allowance_of(mode), price_of(allowance_of(mode)))),
        budget_least: budget_least(context, mode, allowance, flops_least, rates),
        budget_flops_least: budget_flops_least(context, mode, allowance, flops_least),
        time: time(context, facts, flops_least, speeds),
    }
}

/// What costs so much without the margin.
fn once(charge: Charge) -> Option<NanoUsd> {
    pay::quote(charge, Allowance::ONE)
}

/// What a job is given for its work: the most that it may cost in its mode, with the
/// margin, and no more than its budget. `None` beyond the books.
pub fn held(spec: &JobSpec, facts: &JobFacts) -> Option<NanoUsd> {
    let quoted = quoted(spec, facts)?;
    let most = |flops| once(Charge::of(Flops(flops), facts.rates.highest()));
    match spec.budget {
        None => Some(quoted),
        Some(BudgetSpec::NanoUsd(amount)) => {
            Some(quoted.min(NanoUsd(i64::try_from(amount).unwrap_or(i64::MAX))))
        }
        Some(BudgetSpec::Calculations(count)) => {
            let budget = most(count.saturating_mul(FLOPS_PER_CALCULATION));
            Some(budget.map_or(quoted, |budget| quoted.min(budget)))
        }
    }
}

/// The most that a job may cost in its mode, with the margin. `None` beyond the books.
fn quoted(spec: &JobSpec, facts: &JobFacts) -> Option<NanoUsd> {
    let flops = facts.allowance(spec.verification).of(flops_most(spec, facts));
    once(Charge::of(Flops(flops), facts.rates.highest()))
}

/// What work beyond its owner's may cost the operator: so many times its quote,
/// whatever its budget. Rounds that are done again after crashes and false results
/// stay far below it where not every other round is.
pub fn operator_cost_max(spec: &JobSpec, facts: &JobFacts) -> Option<NanoUsd> {
    quoted(spec, facts)?.0.checked_mul(OPERATOR_COST_QUOTES).map(NanoUsd)
}

/// Operations of all rounds, as often as the job may begin again where its loss diverges.
fn flops_most(spec: &JobSpec, facts: &JobFacts) -> u64 {
    let setbacks = spec.training.on_divergence.map_or(0, |rule| rule.rule().setbacks_max);
    facts.flops_planned.saturating_mul(u64::from(setbacks) + 1)
}

/// What the last round takes of the fewest operations, and what those before it
/// are charged for certain.
fn last_and_before(
    context: &JobContext,
    mode: Verification,
    allowance: Allowance,
    flops_least: u64,
) -> (u64, u64) {
    let Algorithm::SyncSgd(sgd) = &context.plan.algorithm;
    let micro_batches = sgd.batch.div_ceil(sgd.micro_batch.max(1));
    let round = sgd.placement.flops_from(0, micro_batches);
    let last = round.min(flops_least);
    (allowance.of(last), Allowance::certain(mode).of(flops_least - last))
}

fn budget_least(
    context: &JobContext,
    mode: Verification,
    allowance: Allowance,
    flops_least: u64,
    rates: &Rates,
) -> Option<NanoUsd> {
    let (last, before) = last_and_before(context, mode, allowance, flops_least);
    let before = Charge::of(Flops(before), rates.lowest());
    once(before.plus(Charge::of(Flops(last), rates.highest()))?)
}

fn budget_flops_least(
    context: &JobContext,
    mode: Verification,
    allowance: Allowance,
    flops_least: u64,
) -> u64 {
    let (last, before) = last_and_before(context, mode, allowance, flops_least);
    last.saturating_add(before)
}

/// At the least: the fewest operations at the whole speed of those who can work
/// at the same time. At the most: all of them at the part of that speed that is
/// counted on, shared with the jobs that run, and each round's weights and
/// results over an assumed link.
fn time(
    context: &JobContext,
    facts: &JobFacts,
    flops_least: u64,
    speeds: &Speeds,
) -> Option<TimeRange> {
    let Algorithm::SyncSgd(sgd) = &context.plan.algorithm;
    let (at_once, bytes) = match &sgd.placement {
        Placement::Replica { result_bytes, .. } => {
            let runs = sgd.batch.div_ceil(sgd.micro_batch.max(1));
            (runs as usize, sgd.weights_bytes.saturating_add(*result_bytes))
        }
        Placement::Master { stages, .. } => {
            let pushed = stages.iter().map(StagePlan::parts).filter(|parts| !parts.is_empty());
            let widest = pushed.clone().map(<[_]>::len).max().unwrap_or(1);
            let moved = pushed.flatten().map(|part| part.operand_bytes + part.result_bytes);
            (widest, moved.fold(0, u64::saturating_add))
        }
    };
    let mut fastest: Vec<u64> = speeds.flops_per_s.iter().copied().filter(|&s| s > 0).collect();
    fastest.sort_unstable_by(|a, b| b.cmp(a));
    let speed = fastest.iter().take(at_once.max(1)).fold(0, |sum: u64, &s| sum.saturating_add(s));
    if speed == 0 {
        return None;
    }
    let share = CAUTION.saturating_mul(speeds.jobs_running.saturating_add(1));
    let computing = u128::from(facts.flops_planned) * u128::from(share) / u128::from(speed);
    let round_ms = bytes.saturating_mul(1000) / LINK_BYTES_PER_S + ROUND_OVERHEAD_MS;
    let waiting = u128::from(facts.steps) * u128::from(round_ms) / 1000;
    let most_s = u64::try_from(computing + waiting + 1).unwrap_or(u64::MAX);
    Some(TimeRange { least_s: flops_least.div_ceil(speed).max(1), most_s })
}
