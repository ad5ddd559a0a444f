//! Task specs: a pure function from named blobs and attachments to tensors.

use crate::ids::{BlobId, Seed};
use crate::limits::{BINDINGS_MAX, MICRO_BATCHES_MAX, NAME_BYTES_MAX, SCAN_STEPS_MAX, SHARDS_MAX};
use raven_graph::GraphId;
use serde::{Deserialize, Serialize};

/// Whether results must agree bit for bit or within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numerics {
    /// Only the CPU module; results agree bit for bit.
    Strict,
    /// GPUs allowed; results agree within bounds.
    Relaxed,
}

/// How the graph is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Program {
    /// The graph once per micro-batch `start..start + count`; outputs combine
    /// along the job's balanced binary tree. `count` is a power of two and
    /// `start` a multiple of it, or the run is the truncated end of the batch.
    Map {
        /// The graph.
        graph: GraphId,
        /// First micro-batch.
        start: u32,
        /// Number of micro-batches, at least 1.
        count: u32,
    },
    /// The graph `steps` times; each carry's output becomes its input of the next step.
    /// A task's outputs are the values after the last step.
    Scan {
        /// The graph.
        graph: GraphId,
        /// Number of steps, at least 1.
        steps: u32,
        /// State handed from one step to the next.
        carry: Vec<Carry>,
    },
}

impl Program {
    /// The graph that is run.
    pub fn graph(&self) -> GraphId {
        match self {
            Program::Map { graph, .. } | Program::Scan { graph, .. } => *graph,
        }
    }

    /// How often the graph is run.
    pub fn runs(&self) -> u32 {
        match self {
            Program::Map { count, .. } => *count,
            Program::Scan { steps, .. } => *steps,
        }
    }
}

/// A value handed from one step of a `Scan` to the next. The input's first
/// value comes from its binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carry {
    /// Graph input that receives the value.
    pub input: String,
    /// Graph output that yields it.
    pub output: String,
}

/// Where one graph input comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum Binding {
    /// A tensor of a blob, the same for every run.
    Blob { input: String, blob: BlobId, tensor: String },
    /// A tensor attached to the task's own frame, the same for every run.
    Attached { input: String, tensor: String },
    /// Slice `i` of an attached tensor `[runs, ..]` for run `i`.
    PerRun { input: String, tensor: String },
    /// Rows of the data shards' `column`: run `i` reads the row numbers in row
    /// `i` of the attached tensor `rows`, i32[runs, n]. A row number counts from
    /// the start of the data set; -1 yields a row of zeros.
    Rows { input: String, column: String, rows: String },
    /// f32[n]: 1 where the row number in `rows` is not negative, else 0.
    RowMask { input: String, rows: String },
}

impl Binding {
    /// The graph input that is bound.
    pub fn input(&self) -> &str {
        match self {
            Binding::Blob { input, .. }
            | Binding::Attached { input, .. }
            | Binding::PerRun { input, .. }
            | Binding::Rows { input, .. }
            | Binding::RowMask { input, .. } => input,
        }
    }
}

/// How the values of one output combine over micro-batches and tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReduceRule {
    /// Element-wise f32 sum along the tree. Count-weighted means are sums
    /// divided once, at the end, by the sum of an output that counts.
    Sum,
    /// Joined along the first axis, in micro-batch order.
    Concat,
}

/// How an output's elements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Little-endian elements, NaN as `0x7fc00000`.
    Raw,
}

/// One result of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// Graph output.
    pub name: String,
    /// How it is written.
    pub encoding: Encoding,
    /// How it combines.
    pub reduce: ReduceRule,
}

/// A shard of the data set that [`Binding::Rows`] draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRef {
    /// The shard's blob: one tensor `[rows, ..]` per column.
    pub blob: BlobId,
    /// Row number of its first row within the data set.
    pub first_row: u32,
    /// Rows that it holds.
    pub rows: u32,
    /// Bytes of its frame.
    pub bytes: u64,
}

/// A task as a pure function of blobs, attachments and a seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// How the graph is run.
    pub program: Program,
    /// Key of the graph's random nodes; the run's index (micro-batch or step) is part of the counter.
    pub seed: Seed,
    /// One binding per graph input.
    pub bindings: Vec<Binding>,
    /// Shards of the rows that are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<ShardRef>,
    /// Results, in the order in which they are digested.
    pub outputs: Vec<OutputSpec>,
    /// Which classes of device may run it.
    pub numerics: Numerics,
}

/// Why a task spec is refused before its graph is looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("spec.{field}: {found} exceeds the limit of {limit}")]
    Limit { field: &'static str, found: u64, limit: u64 },
    #[error("spec.{field}: must be at least 1")]
    Zero { field: &'static str },
    #[error(
        "spec.program.start: {start} is not a multiple of the next power of two of count {count}"
    )]
    Misaligned { start: u32, count: u32 },
    #[error("spec.bindings: input {input:?} is bound twice")]
    BoundTwice { input: String },
    #[error("spec.outputs: {name:?} is listed twice")]
    OutputTwice { name: String },
    #[error("spec.shards[{index}]: must be sorted by first_row, without overlap")]
    ShardOrder { index: usize },
    #[error("spec.outputs: a scan's outputs cannot be joined by {found:?}")]
    ScanReduce { found: ReduceRule },
}

impl TaskSpec {
    /// Checks what can be checked without the graph: counts, names, alignment.
    ///
    /// # Errors
    /// [`SpecError`] names the first field that is wrong.
    pub fn check(&self) -> Result<(), SpecError> {
        match &self.program {
            Program::Map { start, count, .. } => {
                bound("program.count", u64::from(*count), u64::from(MICRO_BATCHES_MAX))?;
                bound("program.start", u64::from(*start), u64::from(u32::MAX / 2))?;
                if *count == 0 {
                    return Err(SpecError::Zero { field: "program.count" });
                }
                if start % count.next_power_of_two() != 0 {
                    return Err(SpecError::Misaligned { start: *start, count: *count });
                }
            }
            Program::Scan { steps, carry, .. } => {
                bound("program.steps", u64::from(*steps), u64::from(SCAN_STEPS_MAX))?;
                bound("program.carry", carry.len() as u64, BINDINGS_MAX as u64)?;
                if *steps == 0 {
                    return Err(SpecError::Zero { field: "program.steps" });
                }
                if let Some(found) = self.outputs.iter().find(|o| o.reduce != ReduceRule::Sum) {
                    return Err(SpecError::ScanReduce { found: found.reduce });
                }
            }
        }
        bound("bindings", self.bindings.len() as u64, BINDINGS_MAX as u64)?;
        bound("outputs", self.outputs.len() as u64, BINDINGS_MAX as u64)?;
        bound("shards", self.shards.len() as u64, SHARDS_MAX as u64)?;
        self.check_names()?;
        self.check_shards()
    }

    fn check_names(&self) -> Result<(), SpecError> {
        let mut seen = std::collections::HashSet::new();
        for binding in &self.bindings {
            bound("bindings.input", binding.input().len() as u64, NAME_BYTES_MAX as u64)?;
            if !seen.insert(binding.input()) {
                return Err(SpecError::BoundTwice { input: binding.input().to_owned() });
            }
        }
        seen.clear();
        for output in &self.outputs {
            bound("outputs.name", output.name.len() as u64, NAME_BYTES_MAX as u64)?;
            if !seen.insert(&output.name) {
                return Err(SpecError::OutputTwice { name: output.name.clone() });
            }
        }
        Ok(())
    }

    fn check_shards(&self) -> Result<(), SpecError> {
        let mut next_row = 0u64;
        for (index, shard) in self.shards.iter().enumerate() {
            if u64::from(shard.first_row) < next_row {
                return Err(SpecError::ShardOrder { index });
            }
            next_row = u64::from(shard.first_row) + u64::from(shard.rows);
        }
        bound("shards.rows", next_row, i32::MAX as u64)
    }
}

fn bound(field: &'static str, found: u64, limit: u64) -> Result<(), SpecError> {
    if found > limit { Err(SpecError::Limit { field, found, limit }) } else { Ok(()) }
}
