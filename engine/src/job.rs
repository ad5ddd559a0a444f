//! Where a job stands, as one enum that carries its data.

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
    pub const ALL: [JobPhase; 8] = [
        JobPhase::Queued,
        JobPhase::Initializing,
        JobPhase::WaitingForContributors,
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
            JobPhase::Running => "running",
            JobPhase::Evaluating => "evaluating",
            JobPhase::Completed => "completed",
            JobPhase::Failed => "failed",
            JobPhase::Cancelled => "cancelled",
        }
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
    /// Optimizer step `step` (counted from 1) of `steps` is being worked on, in epoch `epoch` (from 0).
    Running { epoch: u32, step: u32, steps: u32 },
    /// The weights after epoch `epoch` (from 0) are being measured.
    Evaluating { epoch: u32 },
    /// The model is ready.
    Completed { reason: CompletedReason },
    /// `reason` is a sentence for its owner.
    Failed { reason: String },
    /// Its owner cancelled it.
    Cancelled,
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
            JobState::Running { .. } => JobPhase::Running,
            JobState::Evaluating { .. } => JobPhase::Evaluating,
            JobState::Completed { .. } => JobPhase::Completed,
            JobState::Failed { .. } => JobPhase::Failed,
            JobState::Cancelled => JobPhase::Cancelled,
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
    fn only_three_phases_are_ends() {
        let ends: Vec<_> = JobPhase::ALL.into_iter().filter(|phase| phase.is_end()).collect();
        assert_eq!(ends, [JobPhase::Completed, JobPhase::Failed, JobPhase::Cancelled]);
    }
}
