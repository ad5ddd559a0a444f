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

/// Rows of one run, so that other jobs' operations need not wait for long.
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
        let run_max = run_max(
            graph.rows,
            context.data.test_rows,
            &context.data.test_shards,
            self.shard_bytes_max(),
        );
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
        let shards = read_shards(&data.test_shards, first, end).copied().collect();
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

/// Micro-batches of one run: a power of two, so that every run is a node of the
/// reduction tree, and few enough that the shards of any run fit `bytes_max`
/// together. At least one, whatever its shards' size.
fn run_max(rows: u32, test_rows: u32, shards: &[ShardRef], bytes_max: u64) -> u32 {
    let rows = rows.max(1);
    let mut run_max = 1u32 << (ROWS_MAX / rows).max(1).ilog2();
    let fits = |run_max: u32| {
        let step = run_max.saturating_mul(rows);
        (0..test_rows).step_by(step as usize).all(|first| {
            let end = first.saturating_add(step).min(test_rows);
            read_shards(shards, first, end).map(|shard| shard.bytes).sum::<u64>() <= bytes_max
        })
    };
    while run_max > 1 && !fits(run_max) {
        run_max /= 2;
    }
    run_max
}

/// The shards that hold any of the rows `first..end`.
fn read_shards(shards: &[ShardRef], first: u32, end: u32) -> impl Iterator<Item = &ShardRef> {
    shards.iter().filter(move |shard| shard.first_row < end && shard.first_row + shard.rows > first)
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

#[cfg(test)]
mod tests {
    use super::*;
    use raven_protocol::BlobId;

    #[test]
    fn a_run_is_bounded_by_its_shards_bytes_as_well_as_by_its_rows() {
        let shards: Vec<ShardRef> = (0..40)
            .map(|n| ShardRef {
                blob: BlobId([n as u8; 32]),
                first_row: n * 250,
                rows: 250,
                bytes: 50_000,
            })
            .collect();
        let of = |bytes_max| run_max(8, 10_000, &shards, bytes_max);
        assert_eq!(of(u64::MAX), 1024, "8192 rows");
        // 4096 rows touch up to 18 shards of the 40.
        assert_eq!(of(900_000), 512);
        assert_eq!(of(200_000), 64);
        assert_eq!(of(1), 1, "one micro-batch at least");
    }
}
