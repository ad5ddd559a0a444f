//! A task's frame: what to compute, the tensors that go with it, and what it returns.

use super::job::Job;
use crate::job::RowGraph;
use crate::runtime::executor::{ExecutorError, ROWS, RoundValues, Tensor, operands, row_bindings};
use crate::runtime::leases::{Expected, ExpectedOutput};
use crate::runtime::product::Product;
use axum::body::Bytes;
use raven_engine::Work;
use raven_graph::cut::PartInput;
use raven_graph::{GraphId, Shape, TensorType};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, BlobId, LeaseId, Numerics, Program, ReduceRule, Seed, ShardRef, TaskId, TaskMessage,
    TaskSpec, TensorPart, ToContributor,
};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The referee's tasks are leased to nobody; evidence states a bound that a reader takes.
const LEASE_MS_JUDGED: u64 = 3_600_000;

/// Separates the seeds of tasks from everything else that is drawn from a job's seed.
const TAG_TASK: u32 = 0x5441_534b;

/// Key of the random nodes of all tasks of a round; the micro-batch's index is
/// part of the counter. A function of job and round alone, so that it does not
/// matter who runs a task, or how often.
pub fn task_seed(job: Seed, round: u32) -> Seed {
    Seed(raven_graph::philox::derive_seed(job.0, [round, TAG_TASK, 0, 0]))
}

/// A task before its lease: what to compute, the tensors that go with it, and
/// what it returns.
pub(super) struct Draft {
    pub(super) spec: TaskSpec,
    pub(super) attachments: Attachments,
    pub(super) expected: Expected,
    pub(super) product: Option<Product>,
}

impl Draft {
    fn frame(self, lease: LeaseId, task: TaskId, lease_ms: u64, flops: u64) -> TaskFrame {
        let Draft { spec, attachments, expected, product } = self;
        let (shards, graph) = (spec.shards.clone(), spec.program.graph());
        let message = TaskMessage { lease, task, lease_ms, flops, spec };
        let frame = match attachments {
            Attachments::Ready(attachments) => TaskBytes::Ready(encode_task(message, &attachments)),
            Attachments::Cut { inputs, values, bytes } => TaskBytes::Deferred {
                bytes,
                build: Box::new(move || {
                    let attachments = operands(&inputs, &values.all()?)?;
                    Ok(encode_task(message, &attachments))
                }),
            },
        };
        let (expected, product) = (Arc::new(expected), product.map(Arc::new));
        TaskFrame { frame, expected, product, shards, graph }
    }
}

/// Tensors that go with a task.
pub(super) enum Attachments {
    /// Here, and small.
    Ready(Vec<(String, Tensor)>),
    /// Cut out of the round's values, of so many bytes, when the frame is made:
    /// that copies a part of the batch and the weights.
    Cut { inputs: Vec<PartInput>, values: RoundValues, bytes: usize },
}

/// A task's frame, or how to make it.
pub enum TaskBytes {
    Ready(Bytes),
    /// Of about so many bytes. Making it blocks.
    Deferred {
        bytes: usize,
        build: Box<dyn FnOnce() -> Result<Bytes, ExecutorError> + Send>,
    },
}

impl fmt::Debug for TaskBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a task's frame of {} bytes", self.bytes())
    }
}

impl TaskBytes {
    pub(super) fn bytes(&self) -> usize {
        match self {
            TaskBytes::Ready(frame) => frame.len(),
            TaskBytes::Deferred { bytes, .. } => *bytes,
        }
    }
}

/// A task ready to be sent.
pub struct TaskFrame {
    pub(super) frame: TaskBytes,
    pub(super) expected: Arc<Expected>,
    pub(super) product: Option<Arc<Product>>,
    /// To be fetched by the contributor.
    pub(super) shards: Vec<ShardRef>,
    /// The graph that it runs.
    pub(super) graph: GraphId,
}

impl Job {
    /// Builds a leased task.
    ///
    /// # Errors
    /// [`ExecutorError`] where a value or state is not there: a fault of this process.
    pub(super) fn task_frame(
        &mut self,
        lease: LeaseId,
        task: TaskId,
        lease_ms: u64,
        flops: u64,
        work: &Work,
    ) -> Result<TaskFrame, ExecutorError> {
        let draft = self.draft(task, work)?;
        Ok(draft.frame(lease, task, lease_ms, flops))
    }

    /// Builds a task for the referee: the same, as a strict one.
    ///
    /// # Errors
    /// Those of [`Job::task_frame`].
    pub(super) fn judged_frame(
        &mut self,
        lease: LeaseId,
        task: TaskId,
        work: &Work,
    ) -> Result<TaskFrame, ExecutorError> {
        // The values of a round are dropped with it. To begin it anew would drop those of
        // the one that is going on, and its stages would be missing.
        let is_over = self.round.as_ref().is_none_or(|(current, _)| *current != task.round);
        if matches!(work, Work::Part { .. }) && is_over {
            return Err(ExecutorError::Missing { name: format!("values of round {}", task.round) });
        }
        let mut draft = self.draft(task, work)?;
        draft.spec.numerics = Numerics::Strict;
        Ok(draft.frame(lease, task, LEASE_MS_JUDGED, 0))
    }

    fn draft(&mut self, task: TaskId, work: &Work) -> Result<Draft, ExecutorError> {
        match *work {
            Work::Replica { state, start, count } => {
                self.replica_spec(task.round, state, start, count)
            }
            Work::Part { state, stage, part } => self.part_spec(task.round, state, stage, part),
        }
    }

    fn replica_spec(
        &mut self,
        round: u32,
        state: BlobId,
        start: u32,
        count: u32,
    ) -> Result<Draft, ExecutorError> {
        let weights = self.state(state)?.weights().id;
        let order = self.order(round)?;
        let mut numbers = Vec::new();
        let mut shards_read = BTreeSet::new();
        for micro_batch in start..start + count {
            numbers.extend(order.rows(round, micro_batch));
            shards_read.extend(order.shards_of(round, micro_batch));
        }
        let sgd = self.sgd();
        let shards = shards_read.into_iter().filter_map(|i| sgd.shards.get(i as usize)).copied();
        let shards: Vec<ShardRef> = shards.collect();
        let rows = Tensor::rows(count, sgd.micro_batch, &numbers);
        let context = &self.context;
        let mut bindings = row_bindings(context, &context.train);
        let params = context.params.iter().map(|param| param.name.clone());
        let bound = params.filter(|name| context.train.graph.input(name).is_some());
        bindings.extend(bound.map(|name| Binding::Blob {
            input: name.clone(),
            blob: weights,
            tensor: name,
        }));
        let spec = TaskSpec {
            program: Program::Map { graph: context.train.graph.id(), start, count },
            seed: task_seed(context.plan.seed, round),
            bindings,
            shards,
            outputs: context.train.outputs.clone(),
            numerics: context.plan.numerics,
        };
        let expected = expected_of(&context.train, count)?;
        let attachments = Attachments::Ready(vec![(ROWS.to_owned(), rows)]);
        Ok(Draft { spec, attachments, expected, product: None })
    }
}

fn encode_task(message: TaskMessage, attachments: &[(String, Tensor)]) -> Bytes {
    let parts: Vec<TensorPart<'_>> =
        attachments.iter().map(|(name, tensor)| tensor.part(name.clone())).collect();
    encode(&ToContributor::Task(Box::new(message)), &parts).into()
}

/// What a task of `count` micro-batches of a row graph returns.
fn expected_of(graph: &RowGraph, count: u32) -> Result<Expected, ExecutorError> {
    let outputs = graph.outputs.iter().map(|output| {
        let ty = graph.graph.output_type(&output.name);
        let ty = ty.ok_or_else(|| ExecutorError::Missing { name: output.name.clone() })?;
        let ty = match output.reduce {
            ReduceRule::Sum => ty.clone(),
            ReduceRule::Concat => joined(ty, count),
        };
        Ok(ExpectedOutput { name: output.name.clone(), encoding: output.encoding, ty })
    });
    Ok(Expected { outputs: outputs.collect::<Result<_, ExecutorError>>()? })
}

/// The type of `count` tensors joined along their first axis.
fn joined(ty: &TensorType, count: u32) -> TensorType {
    let mut dims = ty.shape.dims().to_vec();
    if let Some(first) = dims.first_mut() {
        *first = first.saturating_mul(count);
    }
    TensorType { dtype: ty.dtype, shape: Shape(dims) }
}
