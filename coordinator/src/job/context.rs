//! What the runtime needs of a job, beyond the engine's tensor-free plan.

use super::{Combine, JobTerms};
use raven_engine::JobPlan;
use raven_graph::{Cut, TensorType, ValidGraph};
use raven_protocol::{JobId, OutputSpec, ShardRef};
use std::sync::Arc;

/// A job that has been validated, lowered and stored. It holds graphs and
/// facts, never tensors, and is rebuilt from the stored document at a restart.
#[derive(Debug)]
pub struct JobContext {
    /// The engine's view.
    pub plan: JobPlan,
    /// Given by the requester.
    pub name: String,
    /// Whether the public network page may show it.
    pub listed: bool,
    /// Until when, for how much, and what happens where nobody is there.
    pub terms: JobTerms,
    /// The model's parameters, in order: the tensors of every state blob come
    /// first in this order, then those of `slots`.
    pub params: Vec<TensorSpec>,
    /// Optimizer state, all zeros at the start.
    pub slots: Vec<TensorSpec>,
    /// No inputs; one output per parameter, named like it. Run once under the job's seed.
    pub init: Arc<ValidGraph>,
    /// Forward and backward of one micro-batch.
    pub train: RowGraph,
    /// Loss and accuracy of one micro-batch, dropout off.
    pub evaluate: RowGraph,
    /// The optimizer.
    pub step: StepGraph,
    /// How the gradients of a round become one.
    pub combine: Combine,
    /// The rows.
    pub data: DataContext,
    /// Master placement: `train.graph` as stages. The parts of a pushed stage in
    /// the engine's plan are those of all its entries, joined in order. `None`
    /// in replica placement.
    pub cut: Option<Cut>,
}

impl JobContext {
    /// The job's id.
    pub fn job(&self) -> JobId {
        self.plan.job
    }
}

/// A named tensor of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Unique among parameters and slots.
    pub name: String,
    /// Element type and extents.
    pub ty: TensorType,
}

/// A graph over one micro-batch of rows. Its inputs are the parameters under
/// their own names, and the three named here.
#[derive(Clone, Debug)]
pub struct RowGraph {
    /// The graph.
    pub graph: Arc<ValidGraph>,
    /// Input that takes the features `[rows, ..sample]`, in the data set's own type.
    pub x: String,
    /// Input that takes the targets: i32 `[rows]` or f32 `[rows, width]`.
    pub y: String,
    /// Input f32 `[rows]`, 1 for a row that counts and 0 for filling.
    pub mask: String,
    /// Rows of one run.
    pub rows: u32,
    /// All outputs with their reduce rule, in the order in which they are digested.
    pub outputs: Vec<OutputSpec>,
    /// Output f32 `[]`: sum of the samples' losses.
    pub loss_sum: String,
    /// Output f32 `[]`: samples classified rightly.
    pub correct: String,
    /// Output f32 `[]`: samples that count.
    pub count: String,
    /// Per parameter, in order, the output with the sum of its gradients; empty when evaluating.
    pub gradients: Vec<String>,
}

/// The optimizer's graph: parameters, slots and summed gradients in; parameters and slots out.
#[derive(Clone, Debug)]
pub struct StepGraph {
    /// The graph.
    pub graph: Arc<ValidGraph>,
    /// Per parameter, in order, the input that takes its summed gradient.
    pub gradients: Vec<String>,
    /// Input f32 `[]`: the batch's count of samples.
    pub count: String,
    /// Input f32 `[]`: the learning rate.
    pub learning_rate: String,
    /// Input f32 `[]`: the step, counted from 1; only where the optimizer reads it.
    pub step: Option<String>,
    /// Per parameter and then per slot, the output with its next value.
    pub next: Vec<String>,
    /// Output f32 `[]`: norm of the mean gradient before clipping.
    pub grad_norm: String,
}

/// Where a job's rows are.
#[derive(Clone, Debug, PartialEq)]
pub struct DataContext {
    /// Column of the shards with the features.
    pub x_column: String,
    /// Column with the targets.
    pub y_column: String,
    /// Training rows, `0..train_rows`.
    pub train_rows: u32,
    /// Their shards, by first row (the same as in the plan).
    pub train_shards: Vec<ShardRef>,
    /// Held-out rows.
    pub test_rows: u32,
    /// Shards of the held-out rows; their row numbers start at 0 again.
    pub test_shards: Vec<ShardRef>,
}
