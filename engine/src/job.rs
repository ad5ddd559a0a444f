//! Where a job stands, as one enum that carries its data.

use crate::money::NanoUsd;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// [`JobState`] without its data: the name that stores and filters use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobPhase {
    /// Stored, not started: as many jobs run as may run at once.
    Queued,
    /// Its first weights are being made.
    Initializing,
    /// There is work that no contributor may take.
    WaitingForContributors,
    /// What it holds is used up: it goes on once more is put in.
    Paused,
    /// Rounds are going on.
    Running,
    /// The coordinator measures the weights on the held-out rows.
    Evaluating,
    /// Done; the model is ready.
    Completed,
    /// Ended by a reason that is not its owner's wish.
    Failed,
    /// Ended by its owner.
    Cancelled,
}

impl JobPhase {
    /// Every phase, in the order of a job's life.
    pub const ALL: [JobPhase; 9] = [
        JobPhase::Queued,
        JobPhase::Initializing,
        JobPhase::WaitingForContributors,
        JobPhase::Paused,
        JobPhase::Running,
        JobPhase::Evaluating,
        JobPhase::Completed,
        JobPhase::Failed,
        JobPhase::Cancelled,
    ];

    /// The name in stores and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobPhase::Queued => "queued",
            JobPhase::Initializing => "initializing",
            JobPhase::WaitingForContributors => "waiting_for_contributors",
            JobPhase::Paused => "paused",
            JobPhase::Running => "running",
            JobPhase::Evaluating => "evaluating",
            JobPhase::Completed => "completed",
            JobPhase::Failed => "failed",
            JobPhase::Cancelled => "cancelled",
        }
    }

    /// The phases that may follow this one. The one table of a job's life: the
    /// store refuses whatever is not in it.
    pub const fn followers(self) -> &'static [JobPhase] {
        use JobPhase::{
            Cancelled, Completed, Evaluating, Failed, Initializing, Paused, Queued, Running,
            WaitingForContributors,
        };
        match self {
            // A job that goes on after a restart goes straight to where it was.
            Queued => &[
                Initializing,
                WaitingForContributors,
                Paused,
                Running,
                Evaluating,
                Completed,
                Failed,
                Cancelled,
            ],
            Initializing => &[WaitingForContributors, Paused, Running, Failed, Cancelled],
            WaitingForContributors => &[Paused, Running, Failed, Cancelled],
            // After a restart rounds may be done again up to an evaluation.
            Paused => &[WaitingForContributors, Running, Evaluating, Failed, Cancelled],
            // Evaluating is not stored on its own: the record after it is.
            Running => &[WaitingForContributors, Paused, Evaluating, Completed, Failed, Cancelled],
            Evaluating => &[WaitingForContributors, Paused, Running, Completed, Failed, Cancelled],
            Completed | Failed | Cancelled => &[],
        }
    }

    /// Whether a job of this phase may come to `next`; staying is no change.
    pub fn may_become(self, next: JobPhase) -> bool {
        (self == next && !self.is_end()) || self.followers().contains(&next)
    }

    /// Whether nothing follows.
    pub const fn is_end(self) -> bool {
        matches!(self, JobPhase::Completed | JobPhase::Failed | JobPhase::Cancelled)
    }
}

impl fmt::Display for JobPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("phase: not the name of a job's phase")]
pub struct UnknownPhase;

impl FromStr for JobPhase {
    type Err = UnknownPhase;

    fn from_str(text: &str) -> Result<Self, UnknownPhase> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text).ok_or(UnknownPhase)
    }
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// Stored, not started.
    Queued,
    /// Its first weights are being made.
    Initializing,
    /// There is work that no contributor may take; `reason` is a sentence for its owner.
    WaitingForContributors { reason: String },
    /// The next round could cost more than is left of what it holds; `missing` more
    /// would do.
    Paused { missing: NanoUsd },
    /// Optimizer step `step` (counted from 1) of `steps` is being worked on, in epoch `epoch` (from 0).
    Running { epoch: u32, step: u32, steps: u32 },
    /// The weights after epoch `epoch` (from 0) are being measured.
    Evaluating { epoch: u32 },
    /// The model is ready.
    Completed { reason: CompletedReason },
    /// `reason` is a sentence for its owner.
    Failed { cause: Cause, reason: String },
    /// By its owner's wish, at once or under the terms that it was posted with.
    Cancelled { cause: Cause },
}

/// Why a job has ended, as programs read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Completed: all epochs were run.
    EpochsDone,
    /// Completed: the evaluation loss no longer fell.
    EarlyStopped,
    /// Failed: it was not taken in.
    Refused,
    /// Failed: a loss or gradient was not a finite number.
    NotFinite,
    /// Failed: its loss diverged, more often than it may go back.
    Diverged,
    /// Failed: the coordinator itself found that its tasks cannot be done.
    InvalidTasks,
    /// Failed: the coordinator could not go on with it.
    Coordinator,
    /// Failed: its deadline has passed.
    Deadline,
    /// Failed: the next round could cost more than its budget. The cause of a pause, too.
    Budget,
    /// Cancelled: nobody was there for as long as it waits.
    NoContributors,
    /// Cancelled by its owner.
    Owner,
    /// Failed: what the operator pays of its work has come to the limit.
    OperatorCost,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 12] = [
        Cause::EpochsDone,
        Cause::EarlyStopped,
        Cause::Refused,
        Cause::NotFinite,
        Cause::Diverged,
        Cause::InvalidTasks,
        Cause::Coordinator,
        Cause::Deadline,
        Cause::Budget,
        Cause::NoContributors,
        Cause::Owner,
        Cause::OperatorCost,
    ];

    /// The name in stores and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::EpochsDone => "epochs_done",
            Cause::EarlyStopped => "early_stopped",
            Cause::Refused => "refused",
            Cause::NotFinite => "not_finite",
            Cause::Diverged => "diverged",
            Cause::InvalidTasks => "invalid_tasks",
            Cause::Coordinator => "coordinator",
            Cause::Deadline => "deadline",
            Cause::Budget => "budget",
            Cause::NoContributors => "no_contributors",
            Cause::Owner => "owner",
            Cause::OperatorCost => "operator_cost",
        }
    }

    /// The phase that a job ends in by it.
    pub const fn phase(self) -> JobPhase {
        match self {
            Cause::EpochsDone | Cause::EarlyStopped => JobPhase::Completed,
            Cause::Refused
            | Cause::NotFinite
            | Cause::Diverged
            | Cause::InvalidTasks
            | Cause::Coordinator
            | Cause::Deadline
            | Cause::Budget
            | Cause::OperatorCost => JobPhase::Failed,
            Cause::NoContributors | Cause::Owner => JobPhase::Cancelled,
        }
    }
}

impl FromStr for Cause {
    type Err = UnknownPhase;

    fn from_str(text: &str) -> Result<Self, UnknownPhase> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == text).ok_or(UnknownPhase)
    }
}

/// Why a job was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompletedReason {
    /// All epochs were run.
    EpochsDone,
    /// The evaluation loss no longer fell.
    EarlyStopped,
}

impl JobState {
    /// The state's name.
    pub const fn phase(&self) -> JobPhase {
        match self {
            JobState::Queued => JobPhase::Queued,
            JobState::Initializing => JobPhase::Initializing,
            JobState::WaitingForContributors { .. } => JobPhase::WaitingForContributors,
            JobState::Paused { .. } => JobPhase::Paused,
            JobState::Running { .. } => JobPhase::Running,
            JobState::Evaluating { .. } => JobPhase::Evaluating,
            JobState::Completed { .. } => JobPhase::Completed,
            JobState::Failed { .. } => JobPhase::Failed,
            JobState::Cancelled { .. } => JobPhase::Cancelled,
        }
    }

    /// Why it has ended or is paused.
    pub const fn cause(&self) -> Option<Cause> {
        match self {
            JobState::Completed { reason: CompletedReason::EpochsDone } => Some(Cause::EpochsDone),
            JobState::Completed { reason: CompletedReason::EarlyStopped } => {
                Some(Cause::EarlyStopped)
            }
            JobState::Failed { cause, .. } | JobState::Cancelled { cause } => Some(*cause),
            JobState::Paused { .. } => Some(Cause::Budget),
            _ => None,
        }
    }

    /// Whether nothing follows.
    pub const fn is_end(&self) -> bool {
        self.phase().is_end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_is_read_back_from_its_name() {
        for phase in JobPhase::ALL {
            assert_eq!(phase.as_str().parse(), Ok(phase));
        }
        assert_eq!("Running".parse::<JobPhase>(), Err(UnknownPhase));
    }

    #[test]
    fn every_cause_is_read_back_and_belongs_to_an_end() {
        for cause in Cause::ALL {
            assert_eq!(cause.as_str().parse(), Ok(cause));
            assert!(cause.phase().is_end());
        }
    }

    #[test]
    fn phases_follow_each_other_as_the_table_says() {
        use JobPhase::*;
        // Rows: from; columns in the order of `ALL`: q i w p r e c f x.
        let table = [
            (Queued, "yyyyyyyyy"),
            (Initializing, "nyyyynnyy"),
            (WaitingForContributors, "nnyyynnyy"),
            (Paused, "nnyyyynyy"),
            (Running, "nnyyyyyyy"),
            (Evaluating, "nnyyyyyyy"),
            (Completed, "nnnnnnnnn"),
            (Failed, "nnnnnnnnn"),
            (Cancelled, "nnnnnnnnn"),
        ];
        for (from, row) in table {
            for (next, expected) in JobPhase::ALL.into_iter().zip(row.chars()) {
                assert_eq!(from.may_become(next), expected == 'y', "{from} to {next}");
            }
        }
    }

    #[test]
    fn only_three_phases_are_ends() {
        let ends: Vec<_> = JobPhase::ALL.into_iter().filter(|phase| phase.is_end()).collect();
        assert_eq!(ends, [JobPhase::Completed, JobPhase::Failed, JobPhase::Cancelled]);
    }
}
