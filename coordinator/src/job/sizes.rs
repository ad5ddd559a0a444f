//! Whether a lowered job fits contributors, frames and the coordinator itself.
//! What cannot be trained to its end is refused before anyone works for it.

use super::{JobError, JobFacts, PlacementKind};
use crate::dataset::DatasetFacts;
use raven_engine::{Placement, StagePlan};
use raven_graph::{Cost, DType, LoweredModel, ParamSpec, StepGraph, ValidGraph};
use raven_protocol::FrameLimits;

/// Operations of one run: ten seconds of a fast core at full speed, since a
/// run is the least that can be handed out.
pub const RUN_FLOPS_MAX: u64 = 100_000_000_000;
/// Memory of one run, with room for the module itself in what a phone's
/// browser gives to one page.
const RUN_BYTES_MAX: u64 = 512 << 20;
/// Room for a frame's header and padding.
const FRAME_SLACK_BYTES: u64 = 1 << 20;
/// A result must fit one frame of a contributor.
const RESULT_BYTES_MAX: u64 = FrameLimits::TO_COORDINATOR.body_bytes_max as u64 - FRAME_SLACK_BYTES;
/// What a task brings along, and what the optimizer's step reads, is one frame.
const ATTACHED_BYTES_MAX: u64 =
    FrameLimits::TO_CONTRIBUTOR.body_bytes_max as u64 - FRAME_SLACK_BYTES;
/// Memory of the coordinator's own kernel instance.
const EXECUTOR_BYTES_MAX: u64 = 1 << 30;
/// Operations of one evaluation: about an hour of the one core that does them
/// for all jobs.
const EVALUATION_FLOPS_MAX: u64 = 40_000_000_000_000;
/// Gradients of all groups of a round, which are held together.
const GROUP_BYTES_MAX: u64 = 1 << 30;
/// Rows that placement `master` keeps in memory for a job.
const MASTER_DATA_BYTES_MAX: u64 = 512 << 20;

/// Bytes of these tensors.
pub fn bytes(params: &[ParamSpec]) -> u64 {
    params.iter().map(|param| param.shape.bytes(DType::F32).unwrap_or(u64::MAX)).sum()
}

/// What is weighed.
#[derive(Clone, Copy, Debug)]
pub struct Weighed<'a> {
    pub model: &'a LoweredModel,
    pub evaluate: &'a ValidGraph,
    /// Rows of one run of `evaluate`.
    pub evaluate_rows: u32,
    pub step: &'a StepGraph,
    pub facts: &'a JobFacts,
    pub dataset: &'a DatasetFacts,
    pub placement: PlacementKind,
    /// Groups whose gradients are combined; 1 where they are only added.
    pub groups: u32,
}

/// Refuses the first size that is over its limit.
///
/// # Errors
/// [`JobError::Limit`].
pub fn check(weighed: &Weighed<'_>) -> Result<(), JobError> {
    let Weighed { model, evaluate, step, facts, dataset, .. } = weighed;
    let train = model.train.cost();
    let state = facts.weights_bytes.saturating_add(bytes(&step.slots));
    // Two sums of gradients at least are added in front of the step.
    let attached = state.saturating_add(2 * train.bytes_out);
    let update = step_bytes(step.graph.cost(), 2 * train.bytes_out);
    let runs = u64::from(dataset.test_rows.div_ceil(weighed.evaluate_rows.max(1)));
    let evaluation = evaluate.cost().flops.saturating_mul(runs);
    let data = match weighed.placement {
        PlacementKind::Master => dataset.bytes,
        PlacementKind::Replica => 0,
    };
    let groups = match weighed.groups {
        1 => 0,
        groups => facts.weights_bytes.saturating_mul(groups.into()),
    };
    let sizes = [
        ("training.micro_batch", "bytes of memory for one run", RUN_BYTES_MAX, train.bytes_peak),
        ("model", "bytes of gradients", RESULT_BYTES_MAX, train.bytes_out),
        ("optimizer", "bytes of state and gradients", ATTACHED_BYTES_MAX, attached),
        ("optimizer", "bytes of memory for a step", EXECUTOR_BYTES_MAX, update),
        ("training.combine.groups", "bytes of all groups' gradients", GROUP_BYTES_MAX, groups),
        ("model", "operations for one evaluation", EVALUATION_FLOPS_MAX, evaluation),
        ("placement", "bytes of data in memory", MASTER_DATA_BYTES_MAX, data),
    ];
    first_over(sizes)
}

/// What the kernel needs for a step: its values, what is attached, and its
/// results while they are copied out.
fn step_bytes(cost: Cost, sums: u64) -> u64 {
    let copies = cost.bytes_out.saturating_mul(4);
    cost.bytes_peak.saturating_add(cost.bytes_in).saturating_add(copies).saturating_add(sums)
}

/// Refuses a part of placement `master` that no frame could carry.
///
/// # Errors
/// [`JobError::Limit`].
pub fn check_parts(placement: &Placement) -> Result<(), JobError> {
    let Placement::Master { stages, .. } = placement else { return Ok(()) };
    stages.iter().flat_map(StagePlan::parts).try_for_each(|part| {
        first_over([
            ("training.batch", "bytes for one part", ATTACHED_BYTES_MAX, part.operand_bytes),
            ("training.batch", "bytes of a part's result", RESULT_BYTES_MAX, part.result_bytes),
            ("training.batch", "bytes of memory for a part", RUN_BYTES_MAX, part.bytes_peak),
        ])
    })
}

type Size = (&'static str, &'static str, u64, u64);

fn first_over(sizes: impl IntoIterator<Item = Size>) -> Result<(), JobError> {
    match sizes.into_iter().find(|(_, _, limit, found)| found > limit) {
        Some((field, unit, limit, found)) => Err(JobError::Limit { field, unit, limit, found }),
        None => Ok(()),
    }
}
