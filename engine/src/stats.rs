//! Counts for operators and the public network page.

use crate::event::Millis;
use raven_protocol::ResultOutcome;
use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

/// Seconds over which rates are taken.
const WINDOW_S: u64 = 60;

/// Answers that were ignored, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Answers to leases that are not live: expired, cancelled, answered, or never given.
    pub unknown_lease: u64,
    /// Answers to another session's lease.
    pub foreign_lease: u64,
    /// Answers that the lease's state does not wait for, such as a second commit.
    pub out_of_turn: u64,
    /// Events that name a session that is not open.
    pub unknown_session: u64,
    /// Answers to effects that were not asked for, or of another kind.
    pub unknown_effect: u64,
    /// Jobs whose id is in use already.
    pub duplicate_job: u64,
}

/// Refused leases, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    pub too_large: u64,
    pub unsupported: u64,
    pub missing: u64,
    pub invalid: u64,
    pub stopping: u64,
    pub failed: u64,
}

/// How many committed results came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes([u64; ResultOutcome::ALL.len()]);

impl Index<ResultOutcome> for Outcomes {
    type Output = u64;

    fn index(&self, outcome: ResultOutcome) -> &u64 {
        &self.0[outcome as usize]
    }
}

impl IndexMut<ResultOutcome> for Outcomes {
    fn index_mut(&mut self, outcome: ResultOutcome) -> &mut u64 {
        &mut self.0[outcome as usize]
    }
}

/// What the engine has done, and what it holds now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Since the engine's start.
    pub leases_issued: u64,
    pub tasks_accepted: u64,
    pub flops_accepted: u64,
    /// Bytes of accepted results.
    pub result_bytes: u64,
    /// Leases that ended without an answer and whose task went to another.
    pub leases_expired: u64,
    /// Leases of sessions that closed.
    pub leases_lost: u64,
    /// Copies of overdue tasks.
    pub copies: u64,
    /// Waiting tasks that were moved to an idle session.
    pub moves: u64,
    /// Leases cancelled because their task was no longer needed.
    pub cancelled: u64,
    /// Payloads that did not match their commitment.
    pub broken_commitments: u64,
    /// Tasks whose contributors were asked for projections, and those of them where
    /// these did not agree.
    pub panels: u64,
    pub panels_split: u64,
    /// Results of GPUs that the referee found doubtful.
    pub doubted: u64,
    /// Executions that qualified, and their cost.
    pub executions_paid: u64,
    pub flops_paid: u64,
    /// Honest executions, as far as is known, that earned nothing.
    pub unpaid: u64,
    /// What became of committed results.
    pub outcomes: Outcomes,
    /// Tasks that the referee computed, and their cost.
    pub referee_runs: u64,
    pub referee_flops: u64,
    /// False results that were proven so, and identities excluded for one.
    pub lies_proven: u64,
    pub excluded: u64,
    /// How often a job went back.
    pub rollbacks: u64,
    /// How often one did because its loss diverged.
    pub setbacks: u64,
    pub refusals: Refusals,
    pub ignored: Ignored,
    /// Sessions and jobs turned away because of a bound.
    pub sessions_refused: u64,
    pub jobs_refused: u64,
    /// Tasks per second over the last minute, or since the start if that is shorter.
    pub tasks_per_s: f64,
    /// Flops per second over the same time.
    pub flops_per_s: f64,
    /// Now.
    pub sessions_open: usize,
    pub contributors_online: usize,
    pub jobs_open: usize,
    pub leases_open: usize,
    pub timers_armed: usize,
    pub effects_open: usize,
    pub payloads_held: usize,
    pub identities_known: usize,
    /// Accepted results that are not settled.
    pub unsettled: usize,
}

/// Accepted work by second, over the last minute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    first_ms: Option<Millis>,
    /// Second, tasks, flops.
    seconds: VecDeque<(u64, u64, u64)>,
}

impl Window {
    pub(crate) fn add(&mut self, now: Millis, flops: u64) {
        self.first_ms.get_or_insert(now);
        let second = now / 1000;
        match self.seconds.back_mut() {
            Some(last) if last.0 == second => {
                last.1 += 1;
                last.2 = last.2.saturating_add(flops);
            }
            _ => self.seconds.push_back((second, 1, flops)),
        }
        while self.seconds.front().is_some_and(|first| first.0 + WINDOW_S < second) {
            self.seconds.pop_front();
        }
    }

    /// Tasks and flops per second.
    pub(crate) fn rates(&self, now: Millis) -> (f64, f64) {
        let Some(first_ms) = self.first_ms else { return (0.0, 0.0) };
        let from = (now / 1000).saturating_sub(WINDOW_S);
        let recent = self.seconds.iter().filter(|second| second.0 >= from);
        let (tasks, flops) = recent
            .fold((0u64, 0u64), |sum, second| (sum.0 + second.1, sum.1.saturating_add(second.2)));
        let seconds = (now.saturating_sub(first_ms) as f64 / 1e3).clamp(1.0, WINDOW_S as f64);
        (tasks as f64 / seconds, flops as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_cover_the_last_minute() {
        let mut window = Window::default();
        assert_eq!(window.rates(5), (0.0, 0.0));
        for second in 0..200 {
            window.add(second * 1000, 50);
            window.add(second * 1000 + 500, 50);
        }
        let (tasks, flops) = window.rates(199_999);
        assert!((tasks - 2.0).abs() < 0.1 && (flops - 100.0).abs() < 5.0, "{tasks} {flops}");
        assert_eq!(window.rates(300_000), (0.0, 0.0));
        assert!(window.seconds.len() <= 62);
    }
}
