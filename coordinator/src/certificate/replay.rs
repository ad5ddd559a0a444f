//! Rounds of a bundle, run again by the executor's own code.

use super::bundle::{Bundle, BundleError};
use super::chain::{RoundLine, Tasks};
use crate::blobs::{BlobError, Blobs};
use crate::job::JobContext;
use crate::runtime::driver::task_seed;
use crate::runtime::executor::{
    Done, ExecutorError, Group, KernelModule, Operation, Part, ReplicaTask, RoundStart,
    RoundValues, RowSource, Runner, State, Tensor, Worker,
};
use axum::body::Bytes;
use raven_engine::{Algorithm, EpochOrder, Layout, LayoutError, Metrics, SyncSgd, groups, tree};
use raven_graph::cut::{Cut, Stage};
use raven_protocol::limits::MICRO_BATCHES_MAX;
use raven_protocol::{BlobId, Encoding, ResultDigest, ShardRef, TaskId, result_digest};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of graphs, blobs and values, as the coordinator's own executor has.
const MEMORY_BYTES: u64 = 1 << 30;
/// Micro-batches of one run where a round's tasks are not known: a power of two.
const RUN_MAX: u32 = 16;
/// Rows that placement `master` holds in memory, with room for their frames.
const MASTER_BYTES_MAX: u64 = 1 << 30;

/// Why a round is not run again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("shard {blob}: {found} bytes, the certificate has {expected}")]
    ShardBytes { blob: BlobId, expected: u64, found: u64 },
    #[error("{found} bytes of rows exceed the limit of {MASTER_BYTES_MAX} for placement master")]
    Rows { found: u64 },
    #[error("the executor answered something else than was asked")]
    Answer,
}

/// What a round came to.
#[derive(Debug)]
pub struct Replayed {
    pub state: Arc<State>,
    /// The digests of its tasks, where they were run as they were recorded.
    pub tasks: Option<Tasks>,
}

/// A job whose rounds are run again.
#[derive(Debug)]
pub struct Replay<'a> {
    bundle: &'a Bundle,
    context: Arc<JobContext>,
    layout: Layout,
    /// Shards of the bundle, as far as they were read.
    blobs: Blobs,
    worker: Worker,
    /// Where the job began again because its loss diverged.
    setbacks: &'a [u32],
    order: Option<EpochOrder>,
    rows: Option<Arc<RowSource>>,
}

/// Where each task begins and how long it is, if the starts are those of tasks
/// that tile the round.
fn tiles(starts: &[u32], total: u32, span: u32) -> Option<Vec<(u32, u32)>> {
    let ends = starts.iter().skip(1).chain([&total]);
    let runs = starts.iter().zip(ends).map(|(&start, &end)| {
        let count = end.checked_sub(start).filter(|count| *count <= MICRO_BATCHES_MAX)?;
        // Where groups are combined, no task crosses one.
        let is_task = tree::is_node(start, count, total) && count <= span;
        is_task.then_some((start, count))
    });
    let runs = runs.collect::<Option<Vec<_>>>()?;
    (starts.first() == Some(&0)).then_some(runs)
}

impl<'a> Replay<'a> {
    /// Nothing is run yet. Shards are unpacked into `blobs`.
    ///
    /// # Errors
    /// [`ReplayError::Layout`].
    pub fn new(
        bundle: &'a Bundle,
        context: Arc<JobContext>,
        setbacks: &'a [u32],
        module: &KernelModule,
        blobs: Blobs,
    ) -> Result<Self, ReplayError> {
        let Algorithm::SyncSgd(sgd) = &context.plan.algorithm;
        let layout = Layout::of(sgd)?;
        let worker = Worker::new(Runner::new(module.clone(), blobs.clone(), MEMORY_BYTES));
        let (order, rows) = (None, None);
        Ok(Replay { bundle, context, layout, blobs, worker, setbacks, order, rows })
    }

    fn sgd(&self) -> &SyncSgd {
        let Algorithm::SyncSgd(sgd) = &self.context.plan.algorithm;
        sgd
    }

    /// A published state.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn state(&self, id: BlobId) -> Result<Arc<State>, ReplayError> {
        let frame = Bytes::from(self.bundle.state(id)?);
        Ok(State::from_frame(&self.context, &frame)?)
    }

    /// The state that the job's seed comes to.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn first_state(&mut self) -> Result<Arc<State>, ReplayError> {
        match self.worker.perform(Operation::Init { context: self.context.clone() })? {
            Done::State(state) => Ok(state),
            _ => Err(ReplayError::Answer),
        }
    }

    /// What a state comes to on the held-out rows.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn evaluate(&mut self, state: Arc<State>) -> Result<Metrics, ReplayError> {
        let context = self.context.clone();
        self.need(&context.data.test_shards)?;
        match self.worker.perform(Operation::Evaluate { context, state })? {
            Done::Evaluated { metrics } => Ok(metrics),
            _ => Err(ReplayError::Answer),
        }
    }

    /// The round of that line, from the state before it. The line's round is
    /// one of the job's.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn round(&mut self, state: Arc<State>, line: &RoundLine) -> Result<Replayed, ReplayError> {
        let round = line.round.saturating_sub(1);
        let epoch = self.layout.epoch_of(round);
        if self.order.as_ref().is_none_or(|order| order.epoch() != epoch) {
            let order = EpochOrder::new(self.sgd(), self.context.plan.seed, epoch)?;
            self.order = Some(order);
        }
        let context = self.context.clone();
        let (parts, tasks) = match &context.cut {
            None => self.replica_round(&state, round, &line.runs)?,
            Some(cut) => self.master_round(&state, round, cut)?,
        };
        let total = u64::from(self.layout.total_rounds);
        let scheduled = self.sgd().schedule.lr_at(u64::from(round), total);
        let learning_rate = match &self.sgd().divergence {
            Some(rule) => rule.learning_rate(scheduled, self.setbacks, round),
            None => scheduled,
        };
        let order = self.order.as_ref().ok_or(ReplayError::Answer)?;
        let groups = Group::of_round(&context, order, round);
        let step = line.round;
        let operation =
            Operation::Step { context, state, round, parts, groups, learning_rate, step };
        let Done::Stepped { state, .. } = self.worker.perform(operation)? else {
            return Err(ReplayError::Answer);
        };
        Ok(Replayed { state, tasks })
    }

    /// The task's id, as its digest has it.
    fn task(&self, round: u32, stage: u32, part: u32) -> TaskId {
        TaskId { job: self.context.job(), round, stage, part }
    }

    fn replica_round(
        &mut self,
        state: &State,
        round: u32,
        starts: &[u32],
    ) -> Result<(Vec<Part>, Option<Tasks>), ReplayError> {
        let context = self.context.clone();
        let total = self.layout.micro_batches(round);
        let span = groups::span(total, context.combine.groups());
        let recorded = tiles(starts, total, span);
        let is_recorded = recorded.is_some();
        let runs = recorded.unwrap_or_else(|| {
            let longest = RUN_MAX.min(span);
            let starts = (0..total).step_by(longest as usize);
            starts.map(|start| (start, longest.min(total - start))).collect()
        });
        let order = self.order.take().ok_or(ReplayError::Answer)?;
        let (mut parts, mut digests) = (Vec::with_capacity(runs.len()), Vec::new());
        for (start, count) in runs {
            let task = ReplicaTask { context: &context, order: &order, state, round, start, count };
            self.need(&task.shards())?;
            let values = self.worker.replica_task(&task)?;
            let outputs = context.train.outputs.iter().map(|output| {
                let value = values.get(&output.name);
                let missing = || ExecutorError::Missing { name: output.name.clone() };
                Ok((output.encoding, value.ok_or_else(missing)?.view(&output.name)))
            });
            let outputs = outputs.collect::<Result<Vec<_>, ExecutorError>>()?;
            let digest = result_digest(self.task(round, 0, start), outputs);
            digests.push((0, start, digest));
            parts.push(Part { start, count, values });
        }
        self.order = Some(order);
        Ok((parts, Tasks::of(digests).filter(|_| is_recorded)))
    }

    /// Stage after stage, each part of the pushed ones alone.
    fn master_round(
        &mut self,
        state: &Arc<State>,
        round: u32,
        cut: &Cut,
    ) -> Result<(Vec<Part>, Option<Tasks>), ReplayError> {
        let context = self.context.clone();
        let mut values = self.begin(state, round)?;
        let seed = task_seed(context.plan.seed, round);
        let mut digests = Vec::new();
        for (stage, kind) in (0..).zip(&cut.stages) {
            let operation = match kind {
                Stage::Local(_) => {
                    let (context, values) = (context.clone(), values.clone());
                    Operation::Local { context, stage, seed, values }
                }
                Stage::Pushed(_) => {
                    let all = values.all()?;
                    let parts = self.pushed(round, stage, kind, &all, &mut digests)?;
                    Operation::Combine { context: context.clone(), stage, parts }
                }
            };
            let Done::Values(defined) = self.worker.perform(operation)? else {
                return Err(ReplayError::Answer);
            };
            Arc::make_mut(&mut values.defined).extend(defined);
        }
        let all = values.all()?;
        let outputs = cut.outputs.iter().map(|output| {
            let missing = || ExecutorError::Missing { name: output.value.clone() };
            Ok((output.name.clone(), all.get(&output.value).ok_or_else(missing)?.clone()))
        });
        let values = outputs.collect::<Result<HashMap<_, _>, ExecutorError>>()?;
        Ok((vec![Part { start: 0, count: 1, values }], Tasks::of(digests)))
    }

    fn pushed(
        &mut self,
        round: u32,
        stage: u32,
        kind: &Stage,
        values: &HashMap<String, Tensor>,
        digests: &mut Vec<(u32, u32, ResultDigest)>,
    ) -> Result<Vec<Tensor>, ReplayError> {
        let Stage::Pushed(entries) = kind else { return Ok(Vec::new()) };
        let context = self.context.clone();
        let mut results = Vec::new();
        for (index, part) in (0..).zip(entries.iter().flat_map(|entry| &entry.parts)) {
            let result = self.worker.pushed_part(&context, part, round, values)?;
            let outputs = [(Encoding::Raw, result.view(&part.output))];
            digests.push((stage, index, result_digest(self.task(round, stage, index), outputs)));
            results.push(result);
        }
        Ok(results)
    }

    /// Placement `master`: the values that a round starts from.
    fn begin(&mut self, state: &Arc<State>, round: u32) -> Result<RoundValues, ReplayError> {
        let context = self.context.clone();
        let source = match &self.rows {
            Some(rows) => rows.clone(),
            None => {
                let shards = &context.data.train_shards;
                let found = shards.iter().map(|shard| shard.bytes).sum();
                if found > MASTER_BYTES_MAX {
                    return Err(ReplayError::Rows { found });
                }
                self.need(shards)?;
                self.rows.insert(Arc::new(RowSource::load(&self.blobs, shards)?)).clone()
            }
        };
        let order = self.order.as_ref().ok_or(ReplayError::Answer)?;
        let micro_batches = self.layout.micro_batches(round);
        let rows = (0..micro_batches).flat_map(|index| order.rows(round, index)).collect();
        let start = RoundStart::new(context, source, state.clone(), rows);
        Ok(RoundValues { start: Arc::new(start), defined: Arc::default() })
    }

    /// Unpacks shards that were not read before.
    fn need(&self, shards: &[ShardRef]) -> Result<(), ReplayError> {
        for shard in shards.iter().filter(|shard| !self.blobs.contains(shard.blob)) {
            let frame = self.bundle.shard(shard.blob)?;
            let (blob, expected, found) = (shard.blob, shard.bytes, frame.len() as u64);
            if expected != found {
                return Err(ReplayError::ShardBytes { blob, expected, found });
            }
            self.blobs.put(shard.blob, &frame)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_starts_that_tile_a_round_are_taken() {
        assert_eq!(tiles(&[0, 4, 6], 7, 8), Some(vec![(0, 4), (4, 2), (6, 1)]));
        assert_eq!(tiles(&[0], 5, 8), Some(vec![(0, 5)]));
        assert_eq!(tiles(&[0, 4], 7, 4), Some(vec![(0, 4), (4, 3)]));
        assert_eq!(tiles(&[0, 4], 7, 2), None, "a task that crosses groups");
        for (starts, total) in [
            (&[][..], 4),
            (&[1, 2], 4),
            (&[0, 3], 4),
            (&[0, 2, 2], 4),
            (&[0, 2, 1], 4),
            (&[0, 8], 4),
            (&[0], u32::MAX),
        ] {
            assert_eq!(tiles(starts, total, 8), None, "{starts:?} of {total}");
        }
    }
}
