//! What the engine knows of a job: sizes, costs and ids, never a tensor.

use crate::category::Category;
use crate::divergence::{Divergence, LossMonitor};
use crate::event::ContributorId;
use crate::terms::Spent;
use crate::verify::{OpenWord, Verification};
use raven_graph::schedule::Schedule;
use raven_protocol::{BlobId, GraphId, JobId, KernelId, Numerics, Seed, ShardRef};
use std::collections::{BTreeMap, BTreeSet};

/// A job as a plan of rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPlan {
    pub job: JobId,
    /// What it is for: sessions may refuse to work for it.
    pub category: Category,
    /// Decides initial weights, shuffling and dropout.
    pub seed: Seed,
    pub numerics: Numerics,
    /// How results are checked.
    pub verification: Verification,
    /// The kernel that the job is pinned to.
    pub kernel: KernelId,
    pub algorithm: Algorithm,
}

/// The state machine that drives a job. One file each.
#[derive(Clone, Debug, PartialEq)]
pub enum Algorithm {
    /// Synchronous stochastic gradient descent.
    SyncSgd(SyncSgd),
}

/// Synchronous SGD: every round is one batch, one reduce, one optimizer step.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncSgd {
    /// Rows to train on: `0..train_rows` of the data set.
    pub train_rows: u32,
    /// Rows per optimizer step.
    pub batch: u32,
    /// Rows per run of the graph; fixed by the job, so that its bits are.
    pub micro_batch: u32,
    pub epochs: u32,
    pub schedule: Schedule,
    pub early_stopping: Option<EarlyStopping>,
    /// What becomes of a job whose loss diverges; where there is nothing, only a loss
    /// or gradient that is no finite number ends it.
    pub divergence: Option<Divergence>,
    pub placement: Placement,
    /// Groups of a batch that no task crosses, a power of two; 1 where any node of
    /// the tree may be a task. See [`crate::groups`].
    pub groups: u32,
    /// Shards of the training rows, by first row.
    pub shards: Vec<ShardRef>,
    /// Bytes of one state's weights as they are sent.
    pub weights_bytes: u64,
}

/// Ends a job whose evaluation loss no longer falls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarlyStopping {
    /// Epochs without a gain that are tolerated.
    pub patience: u32,
    /// A gain is a mean loss that is lower by more than this than at the last gain.
    pub min_delta: f32,
}

/// How long ago the evaluation loss last fell by enough. It is measured against
/// the loss of the last gain, not against the best: small steps add up to one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Patience {
    /// Mean loss of the last evaluation that was a gain; the first always is.
    pub gain: Option<f32>,
    /// Evaluations since then.
    pub stale: u32,
}

impl Patience {
    /// The same after an evaluation of that mean loss.
    #[must_use]
    pub fn after(self, loss: f32, min_delta: f32) -> Patience {
        // A loss that is not a number is no gain.
        let has_gained = self.gain.is_none_or(|gain| loss < gain - min_delta);
        if has_gained {
            Patience { gain: Some(loss), stale: 0 }
        } else {
            Patience { stale: self.stale.saturating_add(1), ..self }
        }
    }
}

/// Who holds the model.
#[derive(Clone, Debug, PartialEq)]
pub enum Placement {
    /// Each task runs the whole graph on a slice of the batch.
    Replica {
        graph: GraphId,
        /// Static cost of one micro-batch.
        flops: u64,
        /// Peak bytes of one run.
        bytes_peak: u64,
        /// Bytes of one result payload.
        result_bytes: u64,
    },
    /// The model stays with the coordinator; parts of layers are pushed out.
    Master {
        stages: Vec<StagePlan>,
        /// Slices into which every large weight is cut.
        slices: u32,
        /// Distinct slices that one contributor may ever hold.
        slices_held_max: u32,
    },
}

impl Placement {
    /// Cost of a round of `micro_batches` from `stage` on.
    pub fn flops_from(&self, stage: u32, micro_batches: u32) -> u64 {
        match self {
            Placement::Replica { flops, .. } => flops.saturating_mul(micro_batches.into()),
            Placement::Master { stages, .. } => {
                let parts = stages.iter().skip(stage as usize).flat_map(StagePlan::parts);
                parts.fold(0, |sum, part| sum.saturating_add(part.flops))
            }
        }
    }
}

/// One stage of a master-placement round.
#[derive(Clone, Debug, PartialEq)]
pub enum StagePlan {
    /// Runs on the coordinator.
    Local,
    /// Pushed to contributors.
    Pushed { parts: Vec<PartPlan> },
}

impl StagePlan {
    /// The tasks that it is pushed out as; none where it stays here.
    pub fn parts(&self) -> &[PartPlan] {
        match self {
            StagePlan::Local => &[],
            StagePlan::Pushed { parts } => parts,
        }
    }
}

/// One task of a pushed stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPlan {
    pub graph: GraphId,
    pub flops: u64,
    pub bytes_peak: u64,
    /// Bytes of the attached operands.
    pub operand_bytes: u64,
    pub result_bytes: u64,
    /// Slice of the weights that it shows to the contributor, if any.
    pub slice: Option<u32>,
}

/// Where a job goes on after a restart: its last durable checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct ResumePoint {
    pub weights: BlobId,
    /// Optimizer steps done.
    pub step: u32,
    /// Epochs whose evaluation is done.
    pub epochs_done: u32,
    /// Best mean evaluation loss so far and its state.
    pub best: Option<(f32, BlobId)>,
    /// Where early stopping stands.
    pub patience: Patience,
    /// Slices of the weights that contributors were shown. Where the job has
    /// no checkpoint nothing was: a part is of a state, and states are durable first.
    pub shown: BTreeMap<ContributorId, BTreeSet<u32>>,
    /// Rounds that are credited already: work on them again is free.
    pub credited_rounds: u32,
    /// What was credited.
    pub spent: Spent,
    /// How often it went back to before a wrong result.
    pub rollbacks: u32,
    /// The attempt that it begins with: none that anybody was credited under before, so
    /// that what is done again is an execution of its own.
    pub attempt: u32,
    /// Steps that were done where it began again because its loss diverged, in order.
    pub setbacks: Vec<u32>,
    /// The losses of the rounds up to here.
    pub losses: LossMonitor,
    /// What of rounds from here on was taken on one word, and has not matured.
    pub open: Vec<OpenWord>,
}
