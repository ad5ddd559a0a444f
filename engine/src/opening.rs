//! A job opens its stages: runs of micro-batches, or parts.

use crate::active::Job;
use crate::effect::Work;
use crate::event::PayloadId;
use crate::groups;
use crate::plan::{PartPlan, Placement, StagePlan};
use crate::runs::RunPool;
use crate::sampling::EpochOrder;
use crate::stage::{Demand, Need, Segment, Stage, Supply, Task};
use crate::verify::trial::Trial;
use raven_protocol::{BlobId, TaskId};
use std::collections::{BTreeMap, HashMap};

impl Job {
    /// Opens a replica round.
    pub(crate) fn open_runs(&mut self, round: u32, state: BlobId) {
        let epoch = self.layout.epoch_of(round);
        if self.order.as_ref().is_none_or(|order| order.epoch() != epoch) {
            self.order = EpochOrder::new(&self.sgd, self.plan.seed, epoch).ok();
        }
        let micro_batches = self.layout.micro_batches(round);
        let span = groups::span(micro_batches, self.sgd.groups);
        let Placement::Replica { flops, .. } = self.sgd.placement else { return };
        let segments = self.segments(round, micro_batches);
        self.stage = Some(Stage {
            round,
            stage: 0,
            state,
            supply: Supply::Runs(RunPool::new(micro_batches, span)),
            tasks: BTreeMap::new(),
            accepted: BTreeMap::new(),
            units_left: micro_batches,
            flops_left: flops.saturating_mul(u64::from(micro_batches)),
            run_length: None,
            run_length_chosen: 0,
            run_length_due: 0,
            segment_of: Segment::by_blob(&segments, &self.sgd.shards),
            segments,
            short: BTreeMap::new(),
        });
    }

    /// Ranges of `round`'s micro-batches that read one and the same shard.
    fn segments(&self, round: u32, micro_batches: u32) -> Vec<Segment> {
        let Some(order) = &self.order else { return Vec::new() };
        let mut segments: Vec<Segment> = Vec::new();
        for micro in 0..micro_batches {
            let shards = order.shards_of(round, micro);
            let &[shard] = shards.as_slice() else { continue };
            match segments.last_mut() {
                Some(last) if last.shard == shard && last.end == micro => last.end += 1,
                _ => segments.push(Segment { shard, start: micro, end: micro + 1 }),
            }
        }
        segments
    }

    /// Opens a pushed stage of a master round.
    pub(crate) fn open_parts(&mut self, round: u32, stage: u32, state: BlobId) {
        let Placement::Master { stages, .. } = &self.sgd.placement else { return };
        let Some(StagePlan::Pushed { parts }) = stages.get(stage as usize) else { return };
        let task = |(part, plan): (usize, &PartPlan)| {
            let part = part as u32;
            let demand = Demand {
                graph: plan.graph,
                flops: plan.flops,
                bytes_peak: plan.bytes_peak,
                operand_bytes: plan.operand_bytes,
                result_bytes: plan.result_bytes,
                weights: None,
                shards: Vec::new(),
                slice: plan.slice,
            };
            let id = TaskId { job: self.id, round, stage, part };
            let work = Work::Part { state, stage, part };
            (part, Task { id, work, demand, leases: Vec::new(), trial: Trial::default() })
        };
        let tasks: BTreeMap<u32, Task> = parts.iter().enumerate().map(task).collect();
        self.stage = Some(Stage {
            round,
            stage,
            state,
            supply: Supply::Parts(tasks.keys().copied().collect()),
            accepted: BTreeMap::new(),
            units_left: tasks.len() as u32,
            flops_left: tasks.values().fold(0, |sum, task| sum.saturating_add(task.demand.flops)),
            tasks,
            run_length: None,
            run_length_chosen: 0,
            run_length_due: 0,
            segments: Vec::new(),
            segment_of: HashMap::new(),
            short: BTreeMap::new(),
        });
    }

    /// The task of a run of micro-batches of the open round.
    pub(crate) fn run_task(&self, start: u32, count: u32) -> Option<Task> {
        let stage = self.stage.as_ref()?;
        let Placement::Replica { graph, flops, bytes_peak, result_bytes } = self.sgd.placement
        else {
            return None;
        };
        let order = self.order.as_ref()?;
        let mut shards: Vec<u32> =
            (start..start + count).flat_map(|micro| order.shards_of(stage.round, micro)).collect();
        shards.sort_unstable();
        shards.dedup();
        let shards = shards.into_iter().map(|shard| {
            let shard = self.sgd.shards[shard as usize];
            Need { blob: shard.blob, bytes: shard.bytes }
        });
        let demand = Demand {
            graph,
            flops: flops.saturating_mul(u64::from(count)),
            bytes_peak,
            operand_bytes: 0,
            result_bytes,
            weights: Some(Need { blob: stage.state, bytes: self.sgd.weights_bytes }),
            shards: shards.collect(),
            slice: None,
        };
        let id = TaskId { job: self.id, round: stage.round, stage: 0, part: start };
        let work = Work::Replica { state: stage.state, start, count };
        Some(Task { id, work, demand, leases: Vec::new(), trial: Trial::default() })
    }

    /// Everything that its stage holds of the shell's memory.
    pub(crate) fn stage_payloads(&self) -> Vec<PayloadId> {
        let Some(stage) = &self.stage else { return Vec::new() };
        let accepted = stage.accepted.values().map(|accepted| accepted.payload);
        accepted.chain(stage.tasks.values().flat_map(|task| task.trial.held())).collect()
    }
}
