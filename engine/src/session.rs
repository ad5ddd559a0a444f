//! What the engine knows of one contributor's session.

use crate::event::{Millis, SessionProfile};
use crate::speed::{Delivered, Link, Speed};
use crate::stage::{Demand, Need};
use crate::verify::Identity;
use crate::verify::outcome::EndedLeases;
use raven_protocol::{BlobId, GraphId, JobId, LeaseId, SessionId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Whether a session may have new tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Active,
    /// Its visitor asked for a pause.
    Paused,
}

/// Since when a session is not read, and the answer for which it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) lease: LeaseId,
    pub(crate) since: Millis,
}

/// Blobs and graphs that a session was given and has not been told to forget.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holdings {
    graphs: BTreeSet<GraphId>,
    /// Bytes and when it was last needed.
    blobs: HashMap<BlobId, (u64, u64)>,
    bytes: u64,
    uses: u64,
    /// The state of each job that was sent last.
    pub(crate) weights: BTreeMap<JobId, BlobId>,
}

impl Holdings {
    pub(crate) fn has_graph(&self, graph: GraphId) -> bool {
        self.graphs.contains(&graph)
    }

    pub(crate) fn add_graph(&mut self, graph: GraphId) {
        self.graphs.insert(graph);
    }

    pub(crate) fn has_blob(&self, blob: BlobId) -> bool {
        self.blobs.contains_key(&blob)
    }

    /// How many blobs there are.
    pub(crate) fn len(&self) -> usize {
        self.blobs.len()
    }

    /// Each of them, in no order.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &BlobId> {
        self.blobs.keys()
    }

    /// Notes that `need` is there and was needed now.
    pub(crate) fn use_blob(&mut self, need: Need) {
        self.uses += 1;
        let before = self.blobs.insert(need.blob, (need.bytes, self.uses));
        self.bytes = self.bytes - before.map_or(0, |(bytes, _)| bytes) + need.bytes;
    }

    /// Forgets a blob; whether it was there.
    pub(crate) fn forget_blob(&mut self, blob: BlobId) -> bool {
        let Some((bytes, _)) = self.blobs.remove(&blob) else { return false };
        self.bytes -= bytes;
        self.weights.retain(|_, &mut state| state != blob);
        true
    }

    pub(crate) fn forget_graph(&mut self, graph: GraphId) -> bool {
        self.graphs.remove(&graph)
    }

    /// Bytes of the blobs that `demand` reads and that are not here.
    pub(crate) fn missing_bytes(&self, demand: &Demand) -> u64 {
        demand.blobs().filter(|need| !self.has_blob(need.blob)).map(|need| need.bytes).sum()
    }

    /// The least recently needed blobs, neither `pinned` nor read by `demand`,
    /// that must go so that `demand` fits into `memory_bytes`. `None` where
    /// it cannot be made to fit.
    pub(crate) fn to_evict(
        &self,
        demand: &Demand,
        pinned: impl FnOnce() -> BTreeSet<BlobId>,
        memory_bytes: u64,
    ) -> Option<Vec<BlobId>> {
        let run = demand.bytes_peak.saturating_add(demand.operand_bytes);
        let budget = memory_bytes.checked_sub(run)?;
        let mut held = self.bytes.saturating_add(self.missing_bytes(demand));
        if held <= budget {
            return Some(Vec::new());
        }
        let pinned = pinned();
        let needed: BTreeSet<BlobId> = demand.blobs().map(|need| need.blob).collect();
        let mut idle: Vec<(u64, BlobId, u64)> = self
            .blobs
            .iter()
            .filter(|(blob, _)| !pinned.contains(blob) && !needed.contains(blob))
            .map(|(&blob, &(bytes, used))| (used, blob, bytes))
            .collect();
        idle.sort_unstable();
        let mut evicted = Vec::new();
        for (_, blob, bytes) in idle {
            if held <= budget {
                break;
            }
            held -= bytes;
            evicted.push(blob);
        }
        (held <= budget).then_some(evicted)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// One session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) profile: SessionProfile,
    pub(crate) standing: Standing,
    /// No tasks before then.
    pub(crate) blocked_until: Option<Millis>,
    /// Set while an answer of it is checked before anything else of it is read.
    pub(crate) unread: Option<Unread>,
    /// Leases that came to nothing, in a row.
    pub(crate) strikes: u32,
    /// Leases since its last commitment that were late when others had done their
    /// tasks: one may be a hiccup.
    pub(crate) missed: u32,
    /// Until when it is in doubt, whatever becomes of its leases, unless it commits.
    pub(crate) doubted_until: Millis,
    /// Active leases in the order in which they were given.
    pub(crate) leases: Vec<LeaseId>,
    /// How many of them are not committed.
    pub(crate) open: u32,
    /// When it was last given one.
    pub(crate) leased: Millis,
    pub(crate) speed: Speed,
    pub(crate) delivered: Delivered,
    pub(crate) link: Link,
    pub(crate) holdings: Holdings,
    /// Tasks not to be offered again: job, stage, part (`None` for any run of a replica round).
    pub(crate) refused: BTreeSet<(JobId, u32, Option<u32>)>,
    /// Leases that ended before it answered them.
    pub(crate) ended: EndedLeases,
    pub(crate) opened: Millis,
    pub(crate) tasks_accepted: u64,
    pub(crate) flops_accepted: u64,
}

impl Session {
    /// To whom trust in it belongs.
    pub(crate) fn identity(&self) -> Identity {
        Identity::of(&self.profile)
    }

    /// Whether it takes part at all now.
    pub(crate) fn is_available(&self) -> bool {
        self.standing == Standing::Active && self.blocked_until.is_none()
    }

    /// Uncommitted leases that it may have. After a strike one at a time, so
    /// that a session which may have gone does not hold two tasks.
    pub(crate) fn open_max(&self, leases_per_worker: u32) -> u32 {
        if self.strikes > 0 { 1 } else { self.profile.workers.saturating_mul(leases_per_worker) }
    }

    /// Counts what a lease moves, until the shell tells what is left indeed.
    pub(crate) fn reserve_traffic(&mut self, bytes: u64) {
        if let Some(left) = &mut self.profile.traffic_bytes {
            *left = left.saturating_sub(bytes);
        }
    }

    /// Speed of all workers.
    pub(crate) fn flops_per_ms(&self) -> f64 {
        self.speed.flops_per_ms() * f64::from(self.profile.workers)
    }
}
