//! Under what terms a job is trained: until when, for how much, and what happens
//! where nobody is there or the money is used up.

use crate::active::Job;
use crate::algorithm::{Action, Draft};
use crate::allowance::Allowance;
use crate::effect::Payer;
use crate::engine::Engine;
use crate::event::Millis;
use crate::job::{Cause, JobState};
use crate::ledger::pay;
use crate::money::{Charge, Flops, NanoUsd, PicoUsd};
use crate::progress::Kind;
use crate::rates::Rates;
use crate::scheduler::Waiting;
use crate::timer::Timer;
use raven_protocol::JobId;
use serde::{Deserialize, Serialize};

/// The terms of one job. By default there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When it ends at the latest, on the caller's monotonic clock.
    pub deadline: Option<Millis>,
    /// What contributors may be credited for it at most: it ends where a round could
    /// exceed that.
    pub budget: Option<Budget>,
    /// What it holds for its work, with the margin: it pauses where a round could cost
    /// more than is left of that.
    pub escrow: Option<NanoUsd>,
    /// What work beyond its owner's may cost the operator at most: it ends where a round
    /// begins beyond that.
    pub operator_cost_max: Option<NanoUsd>,
    /// What happens where nobody can work on it for `fallback_after_ms`.
    pub fallback: Fallback,
    pub fallback_after_ms: Millis,
    /// At which its work is paid, whatever becomes of the operator's settings.
    pub rates: Rates,
    /// How many executions of each task it may be charged; where it does not say, what its
    /// mode usually allows.
    pub allowance: Option<Allowance>,
}

/// A bound on what a job costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// Operations.
    Flops(u64),
    /// Money.
    Charge(Charge),
}

/// What happens where nobody can work on a job for as long as it waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// It waits on.
    #[default]
    Wait,
    /// It is cancelled.
    Cancel,
    /// The coordinator's own node works on it until somebody is there.
    Operator,
}

/// What a job's accepted work has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    pub flops: u64,
    pub charge: Charge,
    /// What work has cost that its owner is not charged for.
    pub operator: Charge,
}

impl Spent {
    pub(crate) fn add(&mut self, flops: u64, rate: PicoUsd) {
        self.flops = self.flops.saturating_add(flops);
        let charge = Charge::of(Flops(flops), rate);
        self.charge = self.charge.plus(charge).unwrap_or(Charge::MAX);
    }

    pub(crate) fn add_operators(&mut self, flops: u64, rate: PicoUsd) {
        let charge = Charge::of(Flops(flops), rate);
        self.operator = self.operator.plus(charge).unwrap_or(Charge::MAX);
    }

    /// Work that was paid for is void: it is as if it had not been done.
    pub(crate) fn take_back(&mut self, payer: Payer, flops: u64, rate: PicoUsd) {
        let charge = Charge::of(Flops(flops), rate).units();
        let less = |of: Charge| Charge::from_units(of.units().saturating_sub(charge).max(0));
        match payer {
            Payer::Job => {
                self.flops = self.flops.saturating_sub(flops);
                self.charge = less(self.charge);
            }
            Payer::Operator => self.operator = less(self.operator),
        }
    }

    /// The same with `flops` more at the highest rate.
    fn at_most(self, flops: u64, rates: &Rates) -> Spent {
        let mut then = self;
        then.add(flops, rates.highest());
        then
    }

    /// Whether `flops` more could cost more than `budget` allows, whoever does them.
    pub(crate) fn could_exceed(self, budget: Budget, flops: u64, rates: &Rates) -> bool {
        let then = self.at_most(flops, rates);
        match budget {
            Budget::Flops(most) => then.flops > most,
            Budget::Charge(most) => then.charge > most,
        }
    }

    /// What is missing in `escrow` for `flops` more with the margin, whoever does them.
    pub(crate) fn missing(self, escrow: NanoUsd, flops: u64, rates: &Rates) -> Option<NanoUsd> {
        let needed = pay::quote(self.at_most(flops, rates).charge, Allowance::ONE)
            .unwrap_or(NanoUsd(i64::MAX));
        let missing = needed.0.saturating_sub(escrow.0);
        (missing > 0).then_some(NanoUsd(missing))
    }
}

/// A job that waits for money.
#[derive(Clone, Debug)]
pub(crate) struct Paused {
    /// With what it goes on.
    pub(crate) action: Action,
    missing: NanoUsd,
    /// Whether the pause is durable: nothing goes on before.
    is_saved: bool,
}

impl Paused {
    pub(crate) fn state(&self) -> JobState {
        JobState::Paused { missing: self.missing }
    }
}

impl Job {
    /// Why the operator pays for no more of it, once that is so.
    fn is_too_dear(&self) -> Option<String> {
        let most = self.terms.operator_cost_max?;
        let cost = self.spent.operator.rounded_up().unwrap_or(NanoUsd(i64::MAX));
        (cost > most).then(|| {
            format!(
                "work that its owner is not charged for has cost the operator {} nano-USD, the \
                 limit is {}: it went back {} times before false results and {} times where its \
                 loss diverged, and this is its attempt number {}",
                cost.0,
                most.0,
                self.ledger.rollbacks,
                self.ledger.setbacks,
                self.ledger.attempt().saturating_add(1)
            )
        })
    }

    /// What is missing in its escrow for what is left of `round` from `stage` on. A
    /// round that was begun is done to its end: what it costs beyond is the operator's.
    fn missing(&self, round: u32, stage: u32) -> Option<NanoUsd> {
        let escrow = self.terms.escrow?;
        let is_begun = self.credits.iter().any(|credit| credit.task.round == round);
        if is_begun || self.tally.is_paid(round) {
            return None;
        }
        self.spent.missing(escrow, self.flops_paid_from(round, stage), &self.terms.rates)
    }
}

impl Action {
    /// The round and its stage that contributors are to work on.
    fn opens(&self) -> Option<(u32, u32)> {
        match *self {
            Action::OpenRuns { round, .. } => Some((round, 0)),
            Action::OpenParts { round, stage, .. } => Some((round, stage)),
            _ => None,
        }
    }
}

impl Engine {
    /// Whether a round may be begun or gone on with as `action` says; where the budget
    /// does not allow it the job ends, and where its escrow does not it pauses.
    pub(crate) fn affords(&mut self, id: JobId, action: &Action) -> bool {
        let Some((round, stage)) = action.opens() else { return true };
        let Some(job) = self.world.jobs.get_mut(&id) else { return false };
        if let Some(reason) = job.is_too_dear() {
            self.begin_end(id, JobState::Failed { cause: Cause::OperatorCost, reason });
            return false;
        }
        if !job.affords(round, stage) {
            let reason = "the next round could cost more than is left of the budget".to_owned();
            self.begin_end(id, JobState::Failed { cause: Cause::Budget, reason });
            return false;
        }
        let Some(missing) = job.missing(round, stage) else { return true };
        let paused = Paused { action: action.clone(), missing, is_saved: false };
        self.hold_pause(id, round, paused);
        false
    }

    /// Makes durable that a job waits for money. All before is settled, so that what it
    /// owes is its contributors' own meanwhile.
    pub(crate) fn pause(&mut self, id: JobId, paused: Paused) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        // A checkpoint more would change to where it goes back when its loss diverges.
        let checkpoint = job.sgd.divergence.is_none();
        let draft = job.driver.draft(paused.state());
        job.paused = Some(paused);
        self.persist_as(id, Draft { checkpoint, ..draft }, Kind::Pause);
    }

    /// The pause is durable. Money may have come meanwhile.
    pub(crate) fn pause_saved(&mut self, id: JobId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        if let Some(paused) = &mut job.paused {
            paused.is_saved = true;
        }
        self.go_on_if_paid(id);
    }

    /// The job's escrow holds more: what it holds now, with the margin. Of two that are
    /// told in the wrong order the higher one counts: nothing is taken out while it runs.
    pub(crate) fn topped_up(&mut self, id: JobId, escrow: NanoUsd) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        if let Some(holds) = &mut job.terms.escrow {
            *holds = escrow.max(*holds);
        } else if let Some(Budget::Charge(most)) = &mut job.terms.budget {
            *most = pay::cost_within(escrow).max(*most);
        }
        self.go_on_if_paid(id);
    }

    /// A paused job whose next round is paid for waits for its turn.
    fn go_on_if_paid(&mut self, id: JobId) {
        let Some(job) = self.world.jobs.get_mut(&id).filter(|job| job.ending.is_none()) else {
            return;
        };
        let (Some(paused), Some(escrow)) = (&job.paused, job.terms.escrow) else { return };
        let (round, stage) = match paused.action {
            Action::OpenRuns { round, .. } => (round, 0),
            Action::OpenParts { round, stage, .. } => (round, stage),
            _ => return,
        };
        let flops = job.flops_paid_from(round, stage);
        let missing = job.spent.missing(escrow, flops, &job.terms.rates);
        match (missing, &mut job.paused) {
            (Some(missing), Some(paused)) => paused.missing = missing,
            (None, Some(paused)) if paused.is_saved && job.active => {
                job.active = false;
                self.queue.push_back(id);
            }
            _ => {}
        }
    }

    pub(crate) fn deadline_passed(&mut self, id: JobId) {
        let reason = "the deadline has passed".to_owned();
        self.begin_end(id, JobState::Failed { cause: Cause::Deadline, reason });
    }

    /// Nobody could work on a job for as long as it waits.
    pub(crate) fn fall_back(&mut self, id: JobId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        match job.terms.fallback {
            Fallback::Wait => {}
            Fallback::Cancel => {
                self.begin_end(id, JobState::Cancelled { cause: Cause::NoContributors });
            }
            Fallback::Operator => job.operator = true,
        }
    }

    /// Notes why a job waits, and counts the time for which nobody can work on it.
    pub(crate) fn note_waiting(&mut self, id: JobId, waiting: Option<Waiting>, helped: bool) {
        let now = self.now;
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        if helped {
            job.operator = false;
        }
        let nobody = waiting.as_ref().is_some_and(|waiting| waiting.nobody);
        job.waiting = waiting.map(|waiting| waiting.reason);
        if nobody == job.nobody {
            return;
        }
        job.nobody = nobody;
        if nobody && job.terms.fallback != Fallback::Wait {
            // A timer that is due at once would fire before anybody was asked.
            let after = job.terms.fallback_after_ms.max(1);
            self.timers.set(Timer::Fallback(id), now.saturating_add(after));
        } else {
            self.timers.stop(Timer::Fallback(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rates;

    const RATES: Rates = Rates::FLAT;

    #[test]
    fn the_last_operation_within_a_budget_is_allowed_and_no_other() {
        let charge = Charge::of(Flops(60), rates::LOWEST);
        let spent = Spent { flops: 60, charge, ..Spent::default() };
        assert!(!spent.could_exceed(Budget::Flops(100), 40, &RATES));
        assert!(spent.could_exceed(Budget::Flops(100), 41, &RATES));
        let worst = Charge::of(Flops(40), rates::HIGHEST);
        let most = spent.charge.plus(worst).expect("small");
        assert!(!spent.could_exceed(Budget::Charge(most), 40, &RATES));
        assert!(spent.could_exceed(Budget::Charge(most), 41, &RATES));
        assert!(spent.could_exceed(Budget::Flops(u64::MAX - 1), u64::MAX, &RATES));
    }

    #[test]
    fn what_is_missing_is_what_would_do() {
        let flops = 7 * crate::money::FLOPS_PER_CALCULATION;
        let mut spent = Spent::default();
        spent.add(flops, rates::LOWEST);
        // 84 and 140 nano-USD of work, and a tenth of that.
        assert_eq!(spent.missing(NanoUsd(247), flops, &RATES), None);
        assert_eq!(spent.missing(NanoUsd(246), flops, &RATES), Some(NanoUsd(1)));
        assert_eq!(spent.missing(NanoUsd(0), flops, &RATES), Some(NanoUsd(247)));
        assert!(
            spent.missing(NanoUsd(i64::MAX - 1), u64::MAX, &RATES).is_none_or(|left| left.0 > 0)
        );
    }
}
