//! A simulated contributor: a queue, workers, a cache, a link.

use crate::adversary::Adversary;
use crate::faults::Micros;
use crate::ids::{IdMap, IdSet};
use crate::kernel::Value;
use crate::network::{Lane, LinkSpec};
use crate::plans::{GPU_KERNEL, KERNEL};
use crate::relaxed::Vector;
use raven_engine::{CategorySet, ContributorId, RefusedCategories, Work};
use raven_protocol::{
    BlobId, GraphId, LeaseId, NumericClass, RefuseReason, ResultDigest, SessionId, TaskId,
};
use std::collections::VecDeque;

/// What a contributor is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeSpec {
    pub workers: u32,
    /// Of one worker at full share.
    pub flops_per_s: u64,
    pub share: f64,
    pub memory_bytes: u64,
    /// What its visit may move, if that is limited.
    pub traffic_bytes: Option<u64>,
    /// Kinds of jobs of which it wants no task.
    pub refused: RefusedCategories,
    pub link: LinkSpec,
    /// When it comes.
    pub joins_at: Micros,
    /// When it freezes for good, if it does.
    pub freezes_at: Option<Micros>,
    /// Whether it is the coordinator's own node.
    pub operator: bool,
    /// The node whose GPU it is, with a session of its own.
    pub gpu_of: Option<usize>,
    /// Whether every task is too large for it.
    pub refuses: bool,
    /// How it cheats, if it does.
    pub adversary: Option<Adversary>,
    /// Whether it comes with a new key each time.
    pub ephemeral: bool,
    /// How long it stays each time, on average; 0 for as long as it can.
    pub stay_mean_us: Micros,
}

impl NodeSpec {
    /// One worker of 10 Gflop/s at full share on a household's link.
    pub const PLAIN: NodeSpec = NodeSpec {
        workers: 1,
        flops_per_s: 10_000_000_000,
        share: 1.0,
        memory_bytes: 1 << 30,
        traffic_bytes: None,
        refused: RefusedCategories { by_visitor: CategorySet::EMPTY, by_site: CategorySet::EMPTY },
        link: LinkSpec::HOUSEHOLD,
        joins_at: 0,
        freezes_at: None,
        operator: false,
        gpu_of: None,
        refuses: false,
        adversary: None,
        ephemeral: false,
        stay_mean_us: 0,
    };

    /// The class in which its results are compared.
    pub fn numeric(&self) -> NumericClass {
        match self.gpu_of {
            Some(_) => NumericClass::Gpu { kernel: GPU_KERNEL },
            None => NumericClass::Cpu { kernel: KERNEL },
        }
    }
}

/// A message to the coordinator.
#[derive(Clone, Debug, PartialEq)]
pub enum Up {
    Commit { lease: LeaseId, digest: ResultDigest },
    Projected { lease: LeaseId, projections: Vec<f64> },
    Result { lease: LeaseId, value: Value, vector: Option<Vector>, bytes: u64 },
    Refuse { lease: LeaseId, reason: RefuseReason },
    Pace { share: f64, workers: u32 },
    Pause,
    Resume,
}

/// A task in hand.
#[derive(Clone, Debug, PartialEq)]
pub struct Assigned {
    pub lease: LeaseId,
    pub task: TaskId,
    pub work: Work,
    pub flops: u64,
    /// Shards that are still on their way.
    pub fetching: bool,
}

/// A result that was committed and not yet asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kept {
    pub value: Value,
    /// A GPU's tensor.
    pub vector: Option<Vector>,
    pub bytes: u64,
}

/// A contributor's page, from connecting to leaving.
#[derive(Clone, Debug)]
pub struct Connection {
    pub session: SessionId,
    pub graphs: IdSet<GraphId>,
    /// Weights and shards.
    pub blobs: IdSet<BlobId>,
    pub queue: VecDeque<Assigned>,
    pub running: Vec<Assigned>,
    pub kept: IdMap<LeaseId, Kept>,
    /// Leases that it has committed to.
    pub done: IdSet<LeaseId>,
    pub paused: bool,
    pub down: Lane,
    pub up: Lane,
}

impl Connection {
    pub fn new(session: SessionId) -> Self {
        Connection {
            session,
            graphs: IdSet::default(),
            blobs: IdSet::default(),
            queue: VecDeque::new(),
            running: Vec::new(),
            kept: IdMap::default(),
            done: IdSet::default(),
            paused: false,
            down: Lane::default(),
            up: Lane::default(),
        }
    }
}

/// A contributor.
#[derive(Clone, Debug)]
pub struct Node {
    pub contributor: ContributorId,
    pub spec: NodeSpec,
    pub share: f64,
    pub workers: u32,
    pub connection: Option<Connection>,
    pub frozen: bool,
    /// Happenings that wait for the thaw.
    pub deferred: Vec<crate::sim::Happening>,
    pub gone: bool,
    /// Tasks that it has done under its present key.
    pub tasks_done: u32,
    /// False results under its present key.
    pub lies_told: u32,
    /// What it last came to.
    pub last_value: Value,
    /// How often it has come.
    pub visits: u64,
}

/// Who node `index` is.
pub fn contributor(index: usize) -> ContributorId {
    let mut id = [0x4e; 32];
    id[..8].copy_from_slice(&(index as u64).to_le_bytes());
    ContributorId(id)
}

impl Node {
    pub fn new(index: usize, spec: NodeSpec) -> Self {
        Node {
            contributor: contributor(spec.gpu_of.unwrap_or(index)),
            spec,
            share: spec.share,
            workers: spec.workers,
            connection: None,
            frozen: false,
            deferred: Vec::new(),
            gone: false,
            tasks_done: 0,
            lies_told: 0,
            last_value: 0,
            visits: 0,
        }
    }

    /// Comes again, as somebody new if it has no key that lasts.
    pub fn arrives(&mut self) {
        self.visits += 1;
        if self.spec.ephemeral {
            self.contributor.0[8..16].copy_from_slice(&self.visits.to_le_bytes());
            (self.tasks_done, self.lies_told) = (0, 0);
        }
    }

    /// Microseconds that `flops` take on one worker.
    pub fn compute_us(&self, flops: u64) -> Micros {
        (flops as f64 / (self.spec.flops_per_s as f64 * self.share) * 1e6) as Micros
    }
}
