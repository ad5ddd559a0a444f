//! Tasks of contributors, run here: the same graph on the same rows, on the
//! same module, so that what they returned can be told bit for bit.

use super::ExecutorError;
use super::master::{Values, operands};
use super::operations::{ROWS, Worker, attached, row_bindings, summed, take};
use super::runner::Run;
use super::state::State;
use super::tensor::Tensor;
use crate::job::JobContext;
use crate::runtime::driver::task_seed;
use raven_engine::EpochOrder;
use raven_graph::cut::Part as CutPart;
use raven_protocol::ShardRef;
use std::collections::{BTreeSet, HashMap};

/// A task of placement `replica`: micro-batches `start..start + count` of a round.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaTask<'a> {
    pub context: &'a JobContext,
    /// Of the round's epoch.
    pub order: &'a EpochOrder,
    pub state: &'a State,
    /// Counted from 0.
    pub round: u32,
    pub start: u32,
    pub count: u32,
}

impl ReplicaTask<'_> {
    /// The shards that it reads, by first row.
    pub fn shards(&self) -> Vec<ShardRef> {
        let all = &self.context.data.train_shards;
        let read: BTreeSet<u32> = (self.start..self.start + self.count)
            .flat_map(|micro_batch| self.order.shards_of(self.round, micro_batch))
            .collect();
        read.into_iter().filter_map(|index| all.get(index as usize)).copied().collect()
    }
}

impl Worker {
    /// The outputs of a task by name, as a contributor returns them.
    ///
    /// # Errors
    /// [`ExecutorError`].
    ///
    /// # Panics
    /// Where the order is of another epoch, or has no such micro-batches.
    pub fn replica_task(
        &mut self,
        task: &ReplicaTask<'_>,
    ) -> Result<HashMap<String, Tensor>, ExecutorError> {
        let ReplicaTask { context, order, state, round, start, count } = *task;
        let train = &context.train;
        let numbers: Vec<i32> =
            (start..start + count).flat_map(|index| order.rows(round, index)).collect();
        let rows = Tensor::rows(count, train.rows, &numbers);
        let mut bindings = row_bindings(context, train);
        let mut attachments = vec![(ROWS.to_owned(), &rows)];
        for (name, tensor) in state.params() {
            if train.graph.input(name).is_some() {
                bindings.push(attached(name));
                attachments.push((name.clone(), tensor));
            }
        }
        self.run(&Run {
            graph: &train.graph,
            start,
            count,
            seed: task_seed(context.plan.seed, round),
            bindings,
            shards: task.shards(),
            outputs: train.outputs.clone(),
            attachments,
        })
    }

    /// The output of a part of a pushed stage, over the round's values.
    ///
    /// # Errors
    /// [`ExecutorError`].
    pub fn pushed_part(
        &mut self,
        context: &JobContext,
        part: &CutPart,
        round: u32,
        values: &Values,
    ) -> Result<Tensor, ExecutorError> {
        let bound = operands(&part.inputs, values)?;
        let sources = bound.iter().map(|(name, tensor)| (name.clone(), tensor)).collect();
        let seed = task_seed(context.plan.seed, round);
        let outputs = vec![summed(&part.output)];
        let mut found = self.run_attached(&part.graph, seed, &sources, outputs)?;
        take(&mut found, &part.output)
    }
}
