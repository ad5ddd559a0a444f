//! What the master computes for a job, one function per operation.

use super::ExecutorError;
use super::compose::{TreeShape, part_input, step_graph, sum_graph, sum_output};
use super::evaluate::Evaluation;
use super::fold::Folds;
use super::master::RoundValues;
use super::robust::{Combined, Group, GroupGraph};
use super::runner::{Run, Runner};
use super::state::State;
use super::tensor::Tensor;
use crate::job::{JobContext, RowGraph};
use raven_engine::{Metrics, groups};
use raven_graph::{TensorType, ValidGraph};
use raven_protocol::{Binding, Encoding, JobId, OutputSpec, ReduceRule, Seed};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of parts that one run may attach; more are summed in groups first.
const PART_BYTES_MAX: u64 = 64 << 20;
/// Inputs that one sum may have, well below the protocol's bound on bindings.
const PART_INPUTS_MAX: usize = 2048;
/// Composed graphs that are kept ready.
const COMPOSED_MAX: usize = 32;

/// A partial result along the reduction tree: outputs of the training graph.
#[derive(Clone, Debug)]
pub struct Part {
    /// First micro-batch.
    pub start: u32,
    /// Number of micro-batches.
    pub count: u32,
    /// Outputs by name.
    pub values: HashMap<String, Tensor>,
}

/// A result that will be among the parts of its round's [`Operation::Step`].
#[derive(Debug)]
pub struct Fold {
    pub context: Arc<JobContext>,
    pub round: u32,
    /// Micro-batches of the round.
    pub total: u32,
    pub part: Part,
}

/// One thing to compute.
#[derive(Debug)]
pub enum Operation {
    /// Initial weights under the job's seed, and slots of zeros.
    Init { context: Arc<JobContext> },
    /// The reduction tree, then the optimizer.
    Step {
        context: Arc<JobContext>,
        state: Arc<State>,
        round: u32,
        parts: Vec<Part>,
        /// What the job's rule combines; none where gradients are only added.
        groups: Vec<Group>,
        learning_rate: f32,
        /// Counted from 1.
        step: u32,
    },
    /// Loss and accuracy on the held-out rows.
    Evaluate { context: Arc<JobContext>, state: Arc<State> },
    /// A local stage of master placement.
    Local { context: Arc<JobContext>, stage: u32, seed: Seed, values: RoundValues },
    /// Combines the parts of a pushed stage, in part order.
    Combine { context: Arc<JobContext>, stage: u32, parts: Vec<Tensor> },
}

/// What an operation came to.
#[derive(Debug)]
pub enum Done {
    /// [`Operation::Init`].
    State(Arc<State>),
    /// [`Operation::Step`].
    Stepped { state: Arc<State>, metrics: Metrics, grad_norm: f32 },
    /// [`Operation::Step`]: only `kept` of the groups are fit to be combined.
    Outnumbered { kept: u32, groups: u32 },
    /// [`Operation::Evaluate`].
    Evaluated { metrics: Metrics },
    /// [`Operation::Local`] and [`Operation::Combine`]: values for the round's environment.
    Values(Vec<(String, Tensor)>),
}

impl Operation {
    /// The job that it is for.
    pub fn job(&self) -> JobId {
        match self {
            Operation::Init { context }
            | Operation::Step { context, .. }
            | Operation::Evaluate { context, .. }
            | Operation::Local { context, .. }
            | Operation::Combine { context, .. } => context.job(),
        }
    }

    /// A word for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Init { .. } => "init",
            Operation::Step { .. } => "step",
            Operation::Evaluate { .. } => "evaluate",
            Operation::Local { .. } => "local",
            Operation::Combine { .. } => "combine",
        }
    }
}

/// What beginning an operation came to.
#[derive(Debug)]
pub enum Begun {
    /// It is done.
    Done(Done),
    /// To be gone on with, see [`Worker::go_on`].
    Evaluation(Box<Evaluation>),
}

/// A runner and the graphs that were composed for it.
#[derive(Debug)]
pub struct Worker {
    runner: Runner,
    composed: HashMap<ComposedKey, Arc<ValidGraph>>,
    folds: Folds,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ComposedKey {
    Tree { job: JobId, purpose: Purpose, shape: TreeShape },
    Groups(GroupGraph),
}

/// What a composed graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    SumTrain,
    SumMetrics,
    Step,
}

impl Worker {
    /// A worker on its own kernel instance.
    pub fn new(runner: Runner) -> Self {
        Worker { runner, composed: HashMap::new(), folds: Folds::default() }
    }

    /// Runs a graph on this worker's kernel.
    pub(super) fn run(&mut self, run: &Run<'_>) -> Result<HashMap<String, Tensor>, ExecutorError> {
        self.runner.run(run)
    }

    /// Bytes of shards that one run may read.
    pub(super) fn shard_bytes_max(&self) -> u64 {
        self.runner.shard_bytes_max()
    }

    /// Computes an operation to its end. [`Worker::begin`] lets others in between.
    ///
    /// # Errors
    /// [`ExecutorError`], with which the job ends.
    pub fn perform(&mut self, operation: Operation) -> Result<Done, ExecutorError> {
        match operation {
            Operation::Init { context } => self.init(&context),
            Operation::Step { context, state, round, parts, groups, learning_rate, step } => {
                let parts = self.folds.take(context.job(), round, parts);
                if groups.is_empty() {
                    return self.step(&context, &state, parts, learning_rate, step);
                }
                self.grouped_step(&context, &state, parts, &groups, learning_rate, step)
            }
            Operation::Evaluate { context, state } => {
                let mut evaluation = self.evaluation(context, state);
                loop {
                    if let Some(done) = self.go_on(&mut evaluation)? {
                        return Ok(done);
                    }
                }
            }
            Operation::Local { context, stage, seed, values } => {
                self.local(&context, stage, seed, &values)
            }
            Operation::Combine { context, stage, parts } => self.combine(&context, stage, &parts),
        }
    }

    /// Computes an operation, or begins it where it takes long.
    ///
    /// # Errors
    /// [`ExecutorError`], with which the job ends.
    pub fn begin(&mut self, operation: Operation) -> Result<Begun, ExecutorError> {
        match operation {
            Operation::Evaluate { context, state } => {
                Ok(Begun::Evaluation(Box::new(self.evaluation(context, state))))
            }
            operation => self.perform(operation).map(Begun::Done),
        }
    }

    /// Takes a result of a round that is going on, and sums what can be summed.
    /// Where that fails nothing is lost: the round's step has all results.
    ///
    /// # Errors
    /// [`ExecutorError`].
    pub fn fold(&mut self, fold: Fold) -> Result<(), ExecutorError> {
        let Fold { context, round, total, part } = fold;
        let job = context.job();
        // What is summed must be a part of a group.
        let span = groups::span(total, context.combine.groups());
        let mut due = self.folds.add(job, round, total, span, part);
        while let Some(parts) = due {
            let start = parts[0].start;
            let count = tree_shape(&parts)?.total;
            let outputs = output_types(&context.train)?;
            let values = self.sum(job, Purpose::SumTrain, parts, &outputs)?;
            due = self.folds.summed(job, round, Part { start, count, values });
        }
        Ok(())
    }

    /// Lets go of what an ended job left of a round.
    pub fn forget(&mut self, job: JobId) {
        self.folds.forget(job);
    }

    fn init(&mut self, context: &JobContext) -> Result<Done, ExecutorError> {
        let outputs: Vec<OutputSpec> =
            context.params.iter().map(|param| summed(&param.name)).collect();
        let mut values = self.run(&Run {
            graph: &context.init,
            start: 0,
            count: 1,
            seed: context.plan.seed,
            bindings: Vec::new(),
            shards: Vec::new(),
            outputs,
            attachments: Vec::new(),
        })?;
        let mut tensors = Vec::with_capacity(context.params.len() + context.slots.len());
        for param in &context.params {
            tensors.push(take(&mut values, &param.name)?);
        }
        tensors.extend(context.slots.iter().map(|slot| Tensor::zeros(slot.ty.clone())));
        let state = State::new(context, tensors)?;
        // Encoded here, so that the task that owns the engine never hashes a model.
        if context.cut.is_none() {
            state.weights();
        }
        Ok(Done::State(state))
    }

    /// A step over what the job's rule makes of its groups.
    fn grouped_step(
        &mut self,
        context: &JobContext,
        state: &State,
        parts: Vec<Part>,
        groups: &[Group],
        learning_rate: f32,
        step: u32,
    ) -> Result<Done, ExecutorError> {
        let (part, metrics) = match self.combine_groups(context, parts, groups)? {
            Combined::Part { part, metrics } => (part, metrics),
            Combined::Outnumbered { kept, groups } => {
                return Ok(Done::Outnumbered { kept, groups });
            }
        };
        match self.step(context, state, vec![part], learning_rate, step)? {
            // The count that it divided by is the rule's.
            Done::Stepped { state, grad_norm, .. } => {
                Ok(Done::Stepped { state, metrics, grad_norm })
            }
            other => Ok(other),
        }
    }

    fn step(
        &mut self,
        context: &JobContext,
        state: &State,
        parts: Vec<Part>,
        learning_rate: f32,
        step: u32,
    ) -> Result<Done, ExecutorError> {
        let train = &context.train;
        let outputs = output_types(train)?;
        let metrics = [train.loss_sum.clone(), train.correct.clone(), train.count.clone()];
        let parts = self.within_budget(context.job(), Purpose::SumTrain, parts, &outputs)?;
        let shape = tree_shape(&parts)?;
        let (job, purpose) = (context.job(), Purpose::Step);
        let key = ComposedKey::Tree { job, purpose, shape: shape.clone() };
        let graph = self.composed(&key, || {
            let mut feeds: HashMap<String, String> = context
                .step
                .gradients
                .iter()
                .cloned()
                .zip(train.gradients.iter().cloned())
                .collect();
            feeds.insert(context.step.count.clone(), train.count.clone());
            step_graph(&shape, &outputs, &context.step, &feeds, &metrics)
        })?;
        let mut sources: HashMap<String, &Tensor> =
            state.tensors().iter().map(|(name, tensor)| (name.clone(), tensor)).collect();
        let (rate, number) = (Tensor::scalar(learning_rate), Tensor::scalar(step as f32));
        sources.insert(context.step.learning_rate.clone(), &rate);
        if let Some(input) = &context.step.step {
            sources.insert(input.clone(), &number);
        }
        part_sources(&mut sources, &parts, &outputs)?;
        let mut wanted: Vec<OutputSpec> =
            context.step.next.iter().map(|name| summed(name)).collect();
        wanted.push(summed(&context.step.grad_norm));
        wanted.extend(metrics.iter().map(|name| summed(&sum_output(name))));
        let mut values = self.run_attached(&graph, Seed(0), &sources, wanted)?;
        let tensors = context
            .step
            .next
            .iter()
            .map(|name| take(&mut values, name))
            .collect::<Result<Vec<_>, _>>()?;
        let state = State::new(context, tensors)?;
        if context.cut.is_none() {
            state.weights();
        }
        let grad_norm = scalar(&values, &context.step.grad_norm)?;
        let metrics = metrics_of(train, |name| scalar(&values, &sum_output(name)))?;
        Ok(Done::Stepped { state, metrics, grad_norm })
    }

    /// Groups parts that are too large to be attached together into fewer, by
    /// summing the two halves of the tree first.
    fn within_budget(
        &mut self,
        job: JobId,
        purpose: Purpose,
        parts: Vec<Part>,
        outputs: &[(String, TensorType)],
    ) -> Result<Vec<Part>, ExecutorError> {
        let part_bytes: u64 = outputs.iter().filter_map(|(_, ty)| ty.bytes()).sum();
        let fits = part_bytes.saturating_mul(parts.len() as u64) <= PART_BYTES_MAX
            && outputs.len().saturating_mul(parts.len()) <= PART_INPUTS_MAX;
        if fits || parts.len() <= 2 {
            return Ok(parts);
        }
        let shape = tree_shape(&parts)?;
        let start = parts[0].start;
        let middle = raven_engine::tree::split(start, shape.total);
        let (left, right): (Vec<Part>, Vec<Part>) =
            parts.into_iter().partition(|part| part.start < middle);
        if left.is_empty() || right.is_empty() {
            return Err(ExecutorError::TreeShape);
        }
        let mut halves = Vec::with_capacity(2);
        for half in [left, right] {
            let start = half[0].start;
            let count = tree_shape(&half)?.total;
            let values = self.sum(job, purpose, half, outputs)?;
            halves.push(Part { start, count, values });
        }
        Ok(halves)
    }

    /// The outputs summed over all parts, by the outputs' own names.
    pub(super) fn sum(
        &mut self,
        job: JobId,
        purpose: Purpose,
        parts: Vec<Part>,
        outputs: &[(String, TensorType)],
    ) -> Result<HashMap<String, Tensor>, ExecutorError> {
        let mut parts = self.within_budget(job, purpose, parts, outputs)?;
        if parts.len() == 1 {
            return Ok(parts.remove(0).values);
        }
        let shape = tree_shape(&parts)?;
        let key = ComposedKey::Tree { job, purpose, shape: shape.clone() };
        let graph = self.composed(&key, || sum_graph(&shape, outputs))?;
        let mut sources = HashMap::new();
        part_sources(&mut sources, &parts, outputs)?;
        let wanted = outputs.iter().map(|(name, _)| summed(&sum_output(name))).collect();
        let mut values = self.run_attached(&graph, Seed(0), &sources, wanted)?;
        outputs
            .iter()
            .map(|(name, _)| Ok((name.clone(), take(&mut values, &sum_output(name))?)))
            .collect()
    }

    /// Runs a graph once with every input attached.
    pub(super) fn run_attached(
        &mut self,
        graph: &ValidGraph,
        seed: Seed,
        sources: &HashMap<String, &Tensor>,
        outputs: Vec<OutputSpec>,
    ) -> Result<HashMap<String, Tensor>, ExecutorError> {
        let mut attachments = Vec::with_capacity(graph.inputs().len());
        for input in graph.inputs() {
            let source = sources
                .get(&input.name)
                .ok_or_else(|| ExecutorError::Missing { name: input.name.clone() })?;
            attachments.push((input.name.clone(), *source));
        }
        let bindings = graph.inputs().iter().map(|input| attached(&input.name)).collect();
        self.run(&Run {
            graph,
            start: 0,
            count: 1,
            seed,
            bindings,
            shards: Vec::new(),
            outputs,
            attachments,
        })
    }

    pub(super) fn group_graph(
        &mut self,
        graph: GroupGraph,
    ) -> Result<Arc<ValidGraph>, ExecutorError> {
        self.composed(&ComposedKey::Groups(graph), || graph.build())
    }

    fn composed(
        &mut self,
        key: &ComposedKey,
        compose: impl FnOnce() -> Result<ValidGraph, ExecutorError>,
    ) -> Result<Arc<ValidGraph>, ExecutorError> {
        if let Some(graph) = self.composed.get(key) {
            return Ok(graph.clone());
        }
        let graph = Arc::new(compose()?);
        if self.composed.len() >= COMPOSED_MAX {
            self.composed.clear();
        }
        self.composed.insert(key.clone(), graph.clone());
        Ok(graph)
    }
}

/// Name of the attached row numbers.
pub const ROWS: &str = "rows";

/// Bindings of a row graph's data inputs.
pub fn row_bindings(context: &JobContext, graph: &RowGraph) -> Vec<Binding> {
    let rows = || ROWS.to_owned();
    let column = |input: &String, column: &String| Binding::Rows {
        input: input.clone(),
        column: column.clone(),
        rows: rows(),
    };
    let bindings = [
        column(&graph.x, &context.data.x_column),
        column(&graph.y, &context.data.y_column),
        Binding::RowMask { input: graph.mask.clone(), rows: rows() },
    ];
    bindings.into_iter().filter(|binding| graph.graph.input(binding.input()).is_some()).collect()
}

/// Binds an input to the attachment of the same name.
pub fn attached(name: &str) -> Binding {
    Binding::Attached { input: name.to_owned(), tensor: name.to_owned() }
}

pub(super) fn summed(name: &str) -> OutputSpec {
    OutputSpec { name: name.to_owned(), encoding: Encoding::Raw, reduce: ReduceRule::Sum }
}

/// The outputs of a row graph with the types that a task of any length returns.
pub fn output_types(graph: &RowGraph) -> Result<Vec<(String, TensorType)>, ExecutorError> {
    graph
        .outputs
        .iter()
        .map(|output| {
            let ty = graph.graph.output_type(&output.name);
            let ty = ty.ok_or_else(|| ExecutorError::Missing { name: output.name.clone() })?;
            Ok((output.name.clone(), ty.clone()))
        })
        .collect()
}

fn tree_shape(parts: &[Part]) -> Result<TreeShape, ExecutorError> {
    let first = parts.first().ok_or(ExecutorError::TreeShape)?.start;
    let runs: Vec<(u32, u32)> = parts.iter().map(|part| (part.start - first, part.count)).collect();
    let total = runs.last().map_or(0, |&(start, count)| start + count);
    Ok(TreeShape { total, runs })
}

fn part_sources<'a>(
    sources: &mut HashMap<String, &'a Tensor>,
    parts: &'a [Part],
    outputs: &[(String, TensorType)],
) -> Result<(), ExecutorError> {
    for (index, part) in parts.iter().enumerate() {
        for (name, _) in outputs {
            let value = part.values.get(name);
            let value = value.ok_or_else(|| ExecutorError::Missing { name: name.clone() })?;
            sources.insert(part_input(index, name), value);
        }
    }
    Ok(())
}

pub(super) fn take(
    values: &mut HashMap<String, Tensor>,
    name: &str,
) -> Result<Tensor, ExecutorError> {
    values.remove(name).ok_or_else(|| ExecutorError::Missing { name: name.to_owned() })
}

pub(super) fn scalar(values: &HashMap<String, Tensor>, name: &str) -> Result<f32, ExecutorError> {
    let value = values.get(name).and_then(Tensor::as_scalar);
    value.ok_or_else(|| ExecutorError::Missing { name: name.to_owned() })
}

pub(super) fn metrics_of(
    graph: &RowGraph,
    sum: impl Fn(&str) -> Result<f32, ExecutorError>,
) -> Result<Metrics, ExecutorError> {
    Ok(Metrics {
        loss_sum: sum(&graph.loss_sum)?,
        correct: sum(&graph.correct)?,
        count: sum(&graph.count)?,
    })
}
