//! Loss and accuracy on the held-out rows.

use super::ExecutorError;
use super::operations::{
    Done, Part, Purpose, ROWS, Worker, attached, metrics_of, output_types, row_bindings, scalar,
};
use super::runner::Run;
use super::state::State;
use super::tensor::Tensor;
use crate::job::{JobContext, RowGraph};
use raven_protocol::ShardRef;
use std::collections::HashMap;

/// Rows of one run: its shards have to be in the kernel's memory together.
const ROWS_MAX: u32 = 8192;

impl Worker {
    /// Runs the evaluation graph over all held-out rows and sums along the
    /// same tree as training does.
    pub(super) fn evaluate(
        &mut self,
        context: &JobContext,
        state: &State,
    ) -> Result<Done, ExecutorError> {
        let graph = &context.evaluate;
        let micro_batches = context.data.test_rows.div_ceil(graph.rows.max(1));
        // A power of two, so that every run is a node of the reduction tree.
        let run_max = 1u32 << (ROWS_MAX / graph.rows.max(1)).max(1).ilog2();
        let mut parts = Vec::new();
        for start in (0..micro_batches).step_by(run_max as usize) {
            let count = run_max.min(micro_batches - start);
            let values = self.evaluate_run(context, state, start, count)?;
            parts.push(Part { start, count, values });
        }
        let outputs = output_types(graph)?;
        let sums = self.sum(context.job(), Purpose::SumMetrics, parts, &outputs)?;
        let metrics = metrics_of(graph, |name| scalar(&sums, name))?;
        Ok(Done::Evaluated { metrics })
    }

    fn evaluate_run(
        &mut self,
        context: &JobContext,
        state: &State,
        start: u32,
        count: u32,
    ) -> Result<HashMap<String, Tensor>, ExecutorError> {
        let (graph, data) = (&context.evaluate, &context.data);
        let (first, padded) = (start * graph.rows, count * graph.rows);
        let end = (first + padded).min(data.test_rows);
        let numbers: Vec<i32> =
            (first..first + padded).map(|row| if row < end { row as i32 } else { -1 }).collect();
        let rows = Tensor::rows(count, graph.rows, &numbers);
        let is_read =
            |shard: &&ShardRef| shard.first_row < end && shard.first_row + shard.rows > first;
        let shards = data.test_shards.iter().filter(is_read).copied().collect();
        let mut bindings = row_bindings(context, graph);
        let mut attachments = vec![(ROWS.to_owned(), &rows)];
        for (name, tensor) in read_params(graph, state) {
            bindings.push(attached(name));
            attachments.push((name.clone(), tensor));
        }
        self.run(&Run {
            graph: &graph.graph,
            start,
            count,
            seed: context.plan.seed,
            bindings,
            shards,
            outputs: graph.outputs.clone(),
            attachments,
        })
    }
}

/// The parameters that the graph reads.
fn read_params<'a>(
    graph: &'a RowGraph,
    state: &'a State,
) -> impl Iterator<Item = (&'a String, &'a Tensor)> {
    let params = state.params().iter();
    params
        .filter(|(name, _)| graph.graph.input(name).is_some())
        .map(|(name, tensor)| (name, tensor))
}
