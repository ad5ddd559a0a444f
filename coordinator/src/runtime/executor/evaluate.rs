//! Loss and accuracy on the held-out rows.

use super::ExecutorError;
use super::operations::{
    Done, Part, Purpose, ROWS, Worker, attached, metrics_of, output_types, row_bindings, scalar,
};
use super::runner::Run;
use super::state::State;
use super::tensor::Tensor;
use crate::job::{JobContext, RowGraph};
use raven_protocol::{JobId, ShardRef};
use std::collections::HashMap;
use std::sync::Arc;

/// Rows of one run; beyond it nothing is gained.
const ROWS_MAX: u32 = 8192;
/// Operations of one run, half a second of a core or so: other jobs' operations
/// wait for one run, not for the whole evaluation.
const RUN_FLOPS_MAX: u64 = 4_000_000_000;

/// An evaluation that is going on: run after run over all held-out rows, summed
/// along the same tree as training does.
#[derive(Debug)]
pub struct Evaluation {
    context: Arc<JobContext>,
    state: Arc<State>,
    micro_batches: u32,
    /// Micro-batches of one run. It decides how long others wait, not the bits.
    run_max: u32,
    parts: Vec<Part>,
}

impl Evaluation {
    /// The job whose state is measured.
    pub fn job(&self) -> JobId {
        self.context.job()
    }

    /// Micro-batches that were run.
    fn done(&self) -> u32 {
        self.parts.last().map_or(0, |part| part.start + part.count)
    }
}

impl Worker {
    pub(super) fn evaluation(&self, context: Arc<JobContext>, state: Arc<State>) -> Evaluation {
        let (graph, data) = (&context.evaluate, &context.data);
        let run_max = run_max(
            graph.rows,
            graph.graph.cost().flops,
            data.test_rows,
            &data.test_shards,
            self.shard_bytes_max(),
        );
        let micro_batches = data.test_rows.div_ceil(graph.rows.max(1));
        Evaluation { context, state, micro_batches, run_max, parts: Vec::new() }
    }

    /// Does one run more; answers the metrics after the last.
    ///
    /// # Errors
    /// [`ExecutorError`], with which the job ends.
    pub fn go_on(&mut self, evaluation: &mut Evaluation) -> Result<Option<Done>, ExecutorError> {
        let start = evaluation.done();
        if start < evaluation.micro_batches {
            let count = evaluation.run_max.min(evaluation.micro_batches - start);
            let (context, state) = (&evaluation.context, &evaluation.state);
            let values = self.evaluate_run(context, state, start, count)?;
            evaluation.parts.push(Part { start, count, values });
        }
        if evaluation.done() < evaluation.micro_batches {
            return Ok(None);
        }
        let graph = &evaluation.context.evaluate;
        let (outputs, parts) = (output_types(graph)?, std::mem::take(&mut evaluation.parts));
        let sums = self.sum(evaluation.job(), Purpose::SumMetrics, parts, &outputs)?;
        let metrics = metrics_of(graph, |name| scalar(&sums, name))?;
        Ok(Some(Done::Evaluated { metrics }))
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
/// reduction tree, and few enough that a run is short and its shards fit
/// `bytes_max` together. At least one, whatever its size.
fn run_max(rows: u32, flops: u64, test_rows: u32, shards: &[ShardRef], bytes_max: u64) -> u32 {
    let rows = rows.max(1);
    let by_flops = u32::try_from(RUN_FLOPS_MAX / flops.max(1)).unwrap_or(u32::MAX);
    let mut run_max = 1u32 << (ROWS_MAX / rows).min(by_flops).max(1).ilog2();
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
        let of = |bytes_max| run_max(8, 1000, 10_000, &shards, bytes_max);
        assert_eq!(of(u64::MAX), 1024, "8192 rows");
        // 4096 rows touch up to 18 shards of the 40.
        assert_eq!(of(900_000), 512);
        assert_eq!(of(200_000), 64);
        assert_eq!(of(1), 1, "one micro-batch at least");
        let costing = |flops| run_max(8, flops, 10_000, &shards, u64::MAX);
        assert_eq!(costing(RUN_FLOPS_MAX / 100), 64);
        assert_eq!(costing(RUN_FLOPS_MAX * 2), 1, "one micro-batch at least");
    }
}
