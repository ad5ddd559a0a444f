//! What the engine relies on in a plan, checked once when a job is taken in.

use crate::EngineConfig;
use crate::groups;
use crate::plan::{Placement, StagePlan, SyncSgd};
use crate::sampling::{Layout, LayoutError};

/// Why a plan is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("plan.{field}: {found} exceeds the limit of {limit}")]
    Limit { field: &'static str, found: u64, limit: u64 },
    #[error("plan.{field}: must be at least 1")]
    Zero { field: &'static str },
    #[error("plan.stages[{stage}].parts[{part}].slice: {found} is not below slices = {slices}")]
    Slice { stage: usize, part: usize, found: u32, slices: u32 },
    #[error("plan.groups: {found} is no power of two of at most {limit}")]
    Groups { found: u32, limit: u32 },
    #[error("plan.schedule: {reason}")]
    Schedule { reason: String },
}

fn limit(field: &'static str, found: usize, limit: usize) -> Result<(), PlanError> {
    if found > limit {
        return Err(PlanError::Limit { field, found: found as u64, limit: limit as u64 });
    }
    Ok(())
}

/// Checks what the engine relies on.
pub(crate) fn check(plan: &SyncSgd, config: &EngineConfig) -> Result<Layout, PlanError> {
    let layout = Layout::of(plan)?;
    let smallest = match plan.placement {
        Placement::Replica { .. } => layout.micro_batches_least(),
        Placement::Master { .. } => 1,
    };
    let groups_max = smallest.min(groups::GROUPS_MAX);
    if !plan.groups.is_power_of_two() || plan.groups > groups_max {
        return Err(PlanError::Groups { found: plan.groups, limit: groups_max });
    }
    plan.schedule.check().map_err(|error| PlanError::Schedule { reason: error.to_string() })?;
    match &plan.placement {
        Placement::Replica { .. } => {
            let found = layout.micro_batches_per_batch.min(layout.micro_batches_per_epoch);
            let max = config.micro_batches_max;
            limit("micro_batches_per_batch", found as usize, max as usize)?;
        }
        Placement::Master { stages, slices, slices_held_max } => {
            limit("placement.stages", stages.len(), config.stages_max)?;
            if *slices > 0 && *slices_held_max == 0 {
                return Err(PlanError::Zero { field: "placement.slices_held_max" });
            }
            for (s, stage) in stages.iter().enumerate() {
                let StagePlan::Pushed { parts } = stage else { continue };
                limit("placement.stages.parts", parts.len(), config.parts_max)?;
                if parts.is_empty() {
                    return Err(PlanError::Zero { field: "placement.stages.parts" });
                }
                for (p, part) in parts.iter().enumerate() {
                    if let Some(found) = part.slice.filter(|slice| slice >= slices) {
                        let slices = *slices;
                        return Err(PlanError::Slice { stage: s, part: p, found, slices });
                    }
                }
            }
        }
    }
    Ok(layout)
}
