//! Runs graphs on one kernel instance: sends what the instance lacks, then the task.

use super::ExecutorError;
use super::kernel::{Kernel, KernelModule, read_frame};
use super::tensor::{Tensor, tensors_of};
use crate::blobs::Blobs;
use axum::body::Bytes;
use raven_graph::{GraphId, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, BlobId, FromContributor, GraphText, JobId, LeaseId, Numerics, OutputSpec, Program,
    RefuseReason, Seed, ShardRef, TaskId, TaskMessage, TaskSpec, TensorPart, ToContributor,
};
use std::collections::{HashMap, VecDeque};

/// Graphs that one instance keeps. A job runs a handful; sums over differently
/// cut batches add a few more.
const GRAPHS_MAX: usize = 64;
/// An instance's budget that data shards may take; the rest is for a run's values.
const SHARD_SHARE: u64 = 2;

/// One run of a graph over micro-batches `start..start + count`.
#[derive(Debug)]
pub struct Run<'a> {
    /// What to run.
    pub graph: &'a ValidGraph,
    /// First micro-batch.
    pub start: u32,
    /// Number of micro-batches.
    pub count: u32,
    /// Key of the graph's random nodes.
    pub seed: Seed,
    /// One binding per input.
    pub bindings: Vec<Binding>,
    /// Shards that rows are drawn from.
    pub shards: Vec<ShardRef>,
    /// Results.
    pub outputs: Vec<OutputSpec>,
    /// Tensors that the bindings name.
    pub attachments: Vec<(String, &'a Tensor)>,
}

/// A kernel instance and what it was given.
#[derive(Debug)]
pub struct Runner {
    module: KernelModule,
    blobs: Blobs,
    memory_bytes: u64,
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    kernel: Kernel,
    /// Least recently used first.
    graphs: VecDeque<GraphId>,
    shards: HashMap<BlobId, u64>,
    shard_order: VecDeque<BlobId>,
}

impl Runner {
    /// A runner that makes its instance when it is first needed.
    pub fn new(module: KernelModule, blobs: Blobs, memory_bytes: u64) -> Self {
        Runner { module, blobs, memory_bytes, live: None }
    }

    /// Bytes of shards that one run may read: they are held together, beside
    /// the run's values.
    pub fn shard_bytes_max(&self) -> u64 {
        self.memory_bytes / SHARD_SHARE
    }

    /// Runs to the end and answers the outputs by name, in their order.
    ///
    /// # Errors
    /// [`ExecutorError`]. An instance that trapped is replaced by the next run.
    pub fn run(&mut self, run: &Run<'_>) -> Result<HashMap<String, Tensor>, ExecutorError> {
        let mut result = self.try_run(run);
        // The kernel forgets what was used longest ago where a large run needs
        // the room, and does not say so. What it holds is then unknown here,
        // so a fresh instance is given all that this run needs.
        if let Err(ExecutorError::Refused { reason: RefuseReason::Missing, detail }) = &result {
            tracing::debug!(detail, "the kernel has forgotten something; running once more");
            self.live = None;
            result = self.try_run(run);
        }
        if let Err(ExecutorError::Kernel(error)) = &result
            && error.is_fatal()
        {
            self.live = None;
        }
        result
    }

    fn try_run(&mut self, run: &Run<'_>) -> Result<HashMap<String, Tensor>, ExecutorError> {
        let shard_budget = self.shard_bytes_max();
        let live = match &mut self.live {
            Some(live) => live,
            empty => empty.insert(Live::new(&self.module, self.memory_bytes)?),
        };
        live.need_graph(run.graph)?;
        live.need_shards(&self.blobs, &run.shards, shard_budget)?;
        let reply = Bytes::from(live.kernel.execute(&task_frame(run))?);
        let header = read_frame(&reply)?.header().to_owned();
        match FromContributor::from_header(&header) {
            Ok(FromContributor::Result { .. }) => Ok(tensors_of(&reply)?.into_iter().collect()),
            Ok(FromContributor::Refuse { reason, detail, .. }) => {
                Err(ExecutorError::Refused { reason, detail })
            }
            Ok(_) => Err(ExecutorError::Reply { reason: "neither result nor refusal".into() }),
            Err(error) => Err(ExecutorError::Reply { reason: error.to_string() }),
        }
    }
}

impl Live {
    fn new(module: &KernelModule, memory_bytes: u64) -> Result<Self, ExecutorError> {
        Ok(Live {
            kernel: Kernel::new(module, memory_bytes)?,
            graphs: VecDeque::new(),
            shards: HashMap::new(),
            shard_order: VecDeque::new(),
        })
    }

    fn need_graph(&mut self, graph: &ValidGraph) -> Result<(), ExecutorError> {
        let id = graph.id();
        if let Some(at) = self.graphs.iter().position(|&known| known == id) {
            self.graphs.remove(at);
            self.graphs.push_back(id);
            return Ok(());
        }
        if self.graphs.len() >= GRAPHS_MAX
            && let Some(oldest) = self.graphs.pop_front()
        {
            self.drop_held(Vec::new(), vec![oldest])?;
        }
        let message = ToContributor::Graph { id, graph: GraphText::of(graph) };
        self.kernel.accept(&encode(&message, &[]))?;
        self.graphs.push_back(id);
        Ok(())
    }

    /// Makes the shards present, dropping the least recently loaded ones for room.
    fn need_shards(
        &mut self,
        blobs: &Blobs,
        shards: &[ShardRef],
        budget: u64,
    ) -> Result<(), ExecutorError> {
        for shard in shards {
            if self.shards.contains_key(&shard.blob) {
                continue;
            }
            while self.shards.values().sum::<u64>() + shard.bytes > budget {
                let needed = |blob: &BlobId| shards.iter().any(|other| other.blob == *blob);
                let Some(at) = self.shard_order.iter().position(|blob| !needed(blob)) else {
                    break;
                };
                if let Some(oldest) = self.shard_order.remove(at) {
                    self.shards.remove(&oldest);
                    self.drop_held(vec![oldest], Vec::new())?;
                }
            }
            let frame = blobs.get(shard.blob)?;
            self.kernel.accept(&frame)?;
            self.shards.insert(shard.blob, frame.len() as u64);
            self.shard_order.push_back(shard.blob);
        }
        Ok(())
    }

    fn drop_held(&mut self, blobs: Vec<BlobId>, graphs: Vec<GraphId>) -> Result<(), ExecutorError> {
        self.kernel.accept(&encode(&ToContributor::Drop { blobs, graphs }, &[]))?;
        Ok(())
    }
}

fn task_frame(run: &Run<'_>) -> Vec<u8> {
    let spec = TaskSpec {
        program: Program::Map { graph: run.graph.id(), start: run.start, count: run.count },
        seed: run.seed,
        bindings: run.bindings.clone(),
        shards: run.shards.clone(),
        outputs: run.outputs.clone(),
        numerics: Numerics::Strict,
    };
    let message = TaskMessage {
        // The master leases nothing to itself: these name no lease and no task.
        lease: LeaseId(0),
        task: TaskId { job: JobId(0), round: 0, stage: 0, part: 0 },
        lease_ms: u64::MAX >> 1,
        flops: run.graph.cost().flops.saturating_mul(u64::from(run.count)),
        spec,
    };
    let parts: Vec<TensorPart<'_>> =
        run.attachments.iter().map(|(name, tensor)| tensor.part(name.clone())).collect();
    encode(&ToContributor::Task(Box::new(message)), &parts)
}
