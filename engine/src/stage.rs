//! A stage that contributors work on: its tasks, open and accepted.

use crate::effect::{TreePart, Work};
use crate::event::{Millis, PayloadId};
use crate::lease::{Lease, LeaseState};
use crate::runs::RunPool;
use crate::session::Holdings;
use crate::verify::trial::{Claim, Judging, Trial};
use raven_protocol::{BlobId, GraphId, LeaseId, ShardRef, TaskId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A blob that a task reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) blob: BlobId,
    pub(crate) bytes: u64,
}

/// What a task asks of a session, whoever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) graph: GraphId,
    pub(crate) flops: u64,
    /// Peak of a run and attached operands.
    pub(crate) bytes_peak: u64,
    /// Sent with the task.
    pub(crate) operand_bytes: u64,
    pub(crate) result_bytes: u64,
    /// Sent over the socket before the task, if any.
    pub(crate) weights: Option<Need>,
    /// Fetched by the worker.
    pub(crate) shards: Vec<Need>,
    /// Slice of the weights that it shows.
    pub(crate) slice: Option<u32>,
}

impl Demand {
    /// The blobs that it reads.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = Need> + '_ {
        self.weights.iter().chain(&self.shards).copied()
    }

    /// Memory that one worker needs.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.blobs().fold(self.bytes_peak.saturating_add(self.operand_bytes), |sum, need| {
            sum.saturating_add(need.bytes)
        })
    }
}

/// A task that is not accepted yet.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) work: Work,
    pub(crate) demand: Demand,
    /// Active leases, oldest first.
    pub(crate) leases: Vec<LeaseId>,
    pub(crate) trial: Trial,
}

impl Task {
    /// Micro-batches of a run; a part counts as one.
    pub(crate) fn units(&self) -> u32 {
        match self.work {
            Work::Replica { count, .. } => count,
            Work::Part { .. } => 1,
        }
    }
}

/// An accepted result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    pub(crate) units: u32,
    pub(crate) payload: PayloadId,
}

/// What was not leased yet.
#[derive(Clone, Debug)]
pub(crate) enum Supply {
    /// Runs of micro-batches; a task exists from lease to acceptance.
    Runs(RunPool),
    /// Parts by number; their tasks exist from the start.
    Parts(BTreeSet<u32>),
}

/// A stage of a round.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) round: u32,
    pub(crate) stage: u32,
    /// The weights that it reads.
    pub(crate) state: BlobId,
    pub(crate) supply: Supply,
    /// Tasks with a lease, and parts of any kind, until accepted.
    pub(crate) tasks: BTreeMap<u32, Task>,
    pub(crate) accepted: BTreeMap<u32, Accepted>,
    /// Micro-batches or parts that are not accepted.
    pub(crate) units_left: u32,
    /// Their cost.
    pub(crate) flops_left: u64,
    /// Run length for this round's contributors, once it was chosen.
    pub(crate) run_length: Option<u32>,
    /// When it was chosen, and when it is to be chosen again.
    pub(crate) run_length_chosen: Millis,
    pub(crate) run_length_due: Millis,
    /// Replica rounds: ranges of micro-batches by the one shard that they read, in order.
    pub(crate) segments: Vec<Segment>,
    /// Which of them reads each blob, if no two of them read the same.
    pub(crate) segment_of: HashMap<BlobId, u32>,
    /// Tasks that somebody else should compute as well, and since when.
    pub(crate) short: BTreeMap<u32, Millis>,
}

/// A range of a batch's micro-batches that read one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) shard: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Segment {
    /// Which of `segments` reads each blob.
    pub(crate) fn by_blob(segments: &[Segment], shards: &[ShardRef]) -> HashMap<BlobId, u32> {
        let blob = |segment: &Segment| shards[segment.shard as usize].blob;
        segments.iter().zip(0..).map(|(segment, at)| (blob(segment), at)).collect()
    }
}

impl Stage {
    /// The segments whose shards a session holds, in order.
    pub(crate) fn held_segments(&self, held: &Holdings, shards: &[ShardRef]) -> Vec<Segment> {
        let is_held = |segment: &&Segment| held.has_blob(shards[segment.shard as usize].blob);
        if self.segment_of.len() < self.segments.len() || self.segments.len() < held.len() {
            return self.segments.iter().filter(is_held).copied().collect();
        }
        // It holds few: looking for each of these takes less.
        let found = held.blobs().filter_map(|blob| self.segment_of.get(blob).copied());
        let mut found: Vec<u32> = found.collect();
        found.sort_unstable();
        found.into_iter().map(|at| self.segments[at as usize]).collect()
    }

    /// Whether something could be leased.
    pub(crate) fn has_supply(&self) -> bool {
        match &self.supply {
            Supply::Runs(pool) => !pool.is_empty(),
            Supply::Parts(parts) => !parts.is_empty(),
        }
    }

    /// Whether `task` is one of its own.
    pub(crate) fn is_of(&self, task: TaskId) -> bool {
        (self.round, self.stage) == (task.round, task.stage)
    }

    /// Whether a lease is out.
    pub(crate) fn has_leases(&self) -> bool {
        self.tasks.values().any(|task| !task.leases.is_empty())
    }

    /// Whether everything was accepted.
    pub(crate) fn is_done(&self) -> bool {
        self.units_left == 0
    }

    /// Takes a lease off its task; without any lease left the work can be leased again.
    /// Returns the commitment under it, if that is dropped. A payload that is not as the
    /// task asks for has not come, and one whose check is lost has.
    pub(crate) fn lease_ended(
        &mut self,
        lease: &Lease,
        keeps_claim: bool,
        is_lost: bool,
    ) -> Option<Claim> {
        let is_withheld =
            matches!(lease.state, LeaseState::Revealing { .. }) && !lease.is_shown && !is_lost;
        let (part, lease) = (lease.task.part, lease.id);
        let task = self.tasks.get_mut(&part)?;
        task.leases.retain(|&other| other != lease);
        if is_withheld {
            task.trial.withheld.insert(lease);
        }
        let Trial { claims, payloads, .. } = &mut task.trial;
        let is_dropped = |claim: &Claim| {
            claim.lease == lease && !keeps_claim && !payloads.contains_key(&claim.digest)
        };
        let dropped = claims.iter().position(is_dropped).map(|at| claims.remove(at));
        self.put_back(part);
        dropped
    }

    /// Offers a task again as if nobody had had it, if nobody has it or has
    /// committed to a result of it.
    pub(crate) fn put_back(&mut self, part: u32) {
        let Some(task) = self.tasks.get_mut(&part) else { return };
        let Trial { judging, claims, .. } = &task.trial;
        let is_free = *judging == Judging::NotAsked && claims.is_empty();
        if !task.leases.is_empty() || !is_free {
            return;
        }
        self.short.remove(&part);
        match (&mut self.supply, &task.work) {
            (Supply::Runs(pool), &Work::Replica { start, count, .. }) => {
                pool.put(start, count);
                self.tasks.remove(&part);
            }
            (Supply::Parts(parts), _) => {
                parts.insert(part);
            }
            (Supply::Runs(_), Work::Part { .. }) => unreachable!("runs are replica work"),
        }
    }

    /// The accepted results in the order of their starts.
    pub(crate) fn tree_parts(&self) -> Vec<TreePart> {
        self.accepted
            .iter()
            .map(|(&start, accepted)| TreePart {
                start,
                count: accepted.units,
                payload: accepted.payload,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stage whose segments read these shards, one micro-batch each.
    fn stage(read: &[u32], shards: &[ShardRef]) -> Stage {
        let segment = |(at, &shard): (usize, &u32)| {
            let start = at as u32;
            Segment { shard, start, end: start + 1 }
        };
        let segments: Vec<Segment> = read.iter().enumerate().map(segment).collect();
        Stage {
            round: 0,
            stage: 0,
            state: BlobId([9; 32]),
            supply: Supply::Runs(RunPool::new(8, 8)),
            tasks: BTreeMap::new(),
            accepted: BTreeMap::new(),
            units_left: 8,
            flops_left: 8,
            run_length: None,
            run_length_chosen: 0,
            run_length_due: 0,
            segment_of: Segment::by_blob(&segments, shards),
            segments,
            short: BTreeMap::new(),
        }
    }

    #[test]
    fn segments_of_held_shards_come_in_order_however_they_are_looked_for() {
        let shard = |n: u8| ShardRef { blob: BlobId([n; 32]), first_row: 0, rows: 1, bytes: 1 };
        let shards: Vec<ShardRef> = (0..6).map(shard).collect();
        let twice: Vec<ShardRef> = [0, 1, 2, 0, 4, 5].into_iter().map(shard).collect();
        let mut held = Holdings::default();
        let starts = |stage: &Stage, held: &Holdings, shards: &[ShardRef]| -> Vec<u32> {
            stage.held_segments(held, shards).iter().map(|segment| segment.start).collect()
        };
        for blob in [4, 0, 9, 2] {
            held.use_blob(Need { blob: BlobId([blob; 32]), bytes: 1 });
        }
        // Each of what it holds is looked for, or each segment, where it holds more or
        // two of them read the same blob.
        assert_eq!(starts(&stage(&[0, 1, 2, 3, 4], &shards), &held, &shards), [0, 2, 4]);
        assert_eq!(starts(&stage(&[0, 1, 2], &shards), &held, &shards), [0, 2]);
        assert_eq!(starts(&stage(&[0, 1, 2, 3, 4], &twice), &held, &twice), [0, 2, 3, 4]);
    }
}
