//! Plans as state machines: what a job does next, without knowing who does it.

pub(crate) mod sync_sgd;

use crate::effect::TreePart;
use crate::event::Metrics;
use crate::job::JobState;
use raven_protocol::BlobId;

/// What a plan is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    /// The job may start.
    Begin,
    /// The first weights exist.
    StateReady { state: BlobId },
    /// All tasks of the open stage were accepted.
    StageFinished { parts: Vec<TreePart> },
    /// A local stage, or the combining of a pushed one, is done.
    StageDone,
    /// The optimizer's step is done.
    Stepped { state: BlobId, metrics: Metrics, grad_norm: f32 },
    /// Too few groups of the batch are fit to be combined.
    Outnumbered { kept: u32, groups: u32 },
    /// The weights were measured.
    Evaluated { metrics: Metrics },
    /// The last draft is durable.
    Persisted,
    /// A contributor may be shown a slice; the plan need not know.
    Shown,
}

/// What a plan wants.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    InitState,
    /// Micro-batches of a replica round.
    OpenRuns {
        round: u32,
        state: BlobId,
    },
    /// A pushed stage of a master round.
    OpenParts {
        round: u32,
        stage: u32,
        state: BlobId,
    },
    RunLocal {
        round: u32,
        stage: u32,
        state: BlobId,
    },
    Combine {
        round: u32,
        stage: u32,
        parts: Vec<TreePart>,
    },
    Step {
        round: u32,
        state: BlobId,
        parts: Vec<TreePart>,
        learning_rate: f32,
        step: u32,
    },
    Evaluate {
        state: BlobId,
    },
    Persist(Draft),
    /// A step came to a loss that diverges. It is not taken.
    Diverged(Diverged),
    ReleaseState {
        state: BlobId,
    },
    /// The job ends. `persisted` where the last draft already said so.
    End {
        state: JobState,
        persisted: bool,
    },
}

/// A step whose loss diverges.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Diverged {
    /// Counted from 1.
    pub(crate) step: u32,
    pub(crate) loss: f32,
    /// What it did, for the job's owner.
    pub(crate) what: String,
}

/// A record without what the engine adds: credits and contributors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    pub(crate) state: JobState,
    pub(crate) step: u32,
    pub(crate) epoch: u32,
    pub(crate) weights: Option<BlobId>,
    pub(crate) checkpoint: bool,
    pub(crate) best: bool,
    pub(crate) train: Option<Metrics>,
    pub(crate) evaluation: Option<Metrics>,
    pub(crate) learning_rate: Option<f32>,
}
