//! Under what terms a job is trained: until when, for how much, and what happens
//! where nobody is there.

use crate::engine::Engine;
use crate::event::Millis;
use crate::job::{Cause, JobState};
use crate::money::{Charge, Flops, PicoUsd};
use crate::rates;
use crate::scheduler::Waiting;
use crate::timer::Timer;
use raven_protocol::JobId;
use serde::{Deserialize, Serialize};

/// The terms of one job. By default there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When it ends at the latest, on the caller's monotonic clock.
    pub deadline: Option<Millis>,
    /// What contributors may be credited for it at most.
    pub budget: Option<Budget>,
    /// What happens where nobody can work on it for `fallback_after_ms`.
    pub fallback: Fallback,
    pub fallback_after_ms: Millis,
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
}

impl Spent {
    pub(crate) fn add(&mut self, flops: u64, rate: PicoUsd) {
        self.flops = self.flops.saturating_add(flops);
        let charge = Charge::of(Flops(flops), rate);
        self.charge = self.charge.plus(charge).unwrap_or(Charge::MAX);
    }

    /// Whether `flops` more could cost more than `budget` allows, whoever does them.
    pub(crate) fn could_exceed(self, budget: Budget, flops: u64) -> bool {
        let mut then = self;
        then.add(flops, rates::HIGHEST);
        match budget {
            Budget::Flops(most) => then.flops > most,
            Budget::Charge(most) => then.charge > most,
        }
    }
}

impl Engine {
    /// Whether a round may be begun or gone on with; where the budget does not
    /// allow it, the job ends.
    pub(crate) fn affords(&mut self, id: JobId, round: u32, stage: u32) -> bool {
        let affords = self.world.jobs.get(&id).is_none_or(|job| job.affords(round, stage));
        if !affords {
            let reason = "the next round could cost more than is left of the budget".to_owned();
            self.begin_end(id, JobState::Failed { cause: Cause::Budget, reason });
        }
        affords
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

    #[test]
    fn the_last_operation_within_a_budget_is_allowed_and_no_other() {
        let spent = Spent { flops: 60, charge: Charge::of(Flops(60), rates::LOWEST) };
        assert!(!spent.could_exceed(Budget::Flops(100), 40));
        assert!(spent.could_exceed(Budget::Flops(100), 41));
        let worst = Charge::of(Flops(40), rates::HIGHEST);
        let most = spent.charge.plus(worst).expect("small");
        assert!(!spent.could_exceed(Budget::Charge(most), 40));
        assert!(spent.could_exceed(Budget::Charge(most), 41));
        assert!(spent.could_exceed(Budget::Flops(u64::MAX - 1), u64::MAX));
    }
}
