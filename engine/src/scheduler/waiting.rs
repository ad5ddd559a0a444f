//! Sentences for jobs that nobody works on.

use super::fit::Unfit;
use super::master::{Coverage, part_fit};
use crate::active::Job;
use crate::session::Session;
use crate::stage::Supply;
use crate::world::World;
use std::collections::BTreeSet;

/// Why nobody works on `job` although there is something to do.
pub(crate) fn waiting_reason(world: &World, job: &Job) -> Option<String> {
    let stage = job.stage.as_ref()?;
    // Who is about to be shown a slice works on it next.
    if !stage.has_supply() || stage.has_leases() || !job.showing.is_empty() {
        return None;
    }
    if world.sessions.is_empty() {
        return Some("no contributor is online".into());
    }
    let available: Vec<&Session> =
        world.sessions.values().filter(|session| session.is_available()).collect();
    if available.is_empty() {
        let online = world.sessions.len();
        return Some(format!("all {online} contributors online are paused or recovering"));
    }
    let coverage = job.slices_held_max().map(|max| Coverage::of(world, job, max));
    let sample = match &stage.supply {
        Supply::Runs(_) => job.run_task(0, 1),
        Supply::Parts(parts) => parts.first().and_then(|part| stage.tasks.get(part)).cloned(),
    };
    let task = sample?;
    let unfit: BTreeSet<Unfit> = available
        .iter()
        .filter_map(|session| part_fit(world, job, &task, session, coverage.as_ref()).err())
        .collect();
    let bytes = task.demand.memory_bytes();
    // The hindrance that is nearest to being overcome is named.
    Some(match unfit.last() {
        None | Some(Unfit::Busy) => "all contributors online are busy with other jobs".into(),
        Some(Unfit::Slices) => {
            let (slices, _) = job.sliced();
            let max = job.slices_held_max().unwrap_or(0);
            format!(
                "each contributor may hold {max} of {} slices of the weights: \
                 more contributors are needed than the {} online",
                slices.len(),
                available.len()
            )
        }
        Some(Unfit::Refused) => "every contributor online refused this task".into(),
        Some(Unfit::Memory) => {
            format!("a task needs {bytes} bytes of memory, more than any contributor online offers")
        }
        Some(Unfit::Kernel) => "no contributor online runs this job's kernel".into(),
    })
}
