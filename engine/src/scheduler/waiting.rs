//! Sentences for jobs that nobody works on.

use super::fit::Unfit;
use super::master::{Coverage, part_fit};
use crate::active::Job;
use crate::session::Session;
use crate::stage::{Supply, Task};
use crate::world::World;
use std::collections::BTreeSet;

/// Why nobody works on a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// A sentence for its owner.
    pub(crate) reason: String,
    /// Whether nobody could, as opposed to everybody being busy.
    pub(crate) nobody: bool,
}

/// Contributors, the coordinator's own node not among them.
fn contributors(world: &World) -> impl Iterator<Item = &Session> {
    world.sessions.values().filter(|session| !session.profile.operator)
}

/// A task like those that are to be leased.
fn sample(job: &Job) -> Option<Task> {
    let stage = job.stage.as_ref()?;
    match &stage.supply {
        Supply::Runs(_) => job.run_task(0, 1),
        Supply::Parts(parts) => match parts.first() {
            Some(part) => stage.tasks.get(part).cloned(),
            None => stage.tasks.values().next().cloned(),
        },
    }
}

/// Whether contributors could go on with `job` alone, at once or after their own
/// tasks: one could take such a task, and all slices of the weights could be
/// placed with those who are there. With less the job would wait again as soon as
/// they have done what is theirs.
pub(crate) fn has_contributors(world: &World, job: &Job) -> bool {
    let Some(task) = sample(job) else { return false };
    let coverage = job.slices_held_max().map(|max| Coverage::of(world, job, max));
    if coverage.as_ref().is_some_and(|coverage| !coverage.is_whole()) {
        return false;
    }
    contributors(world).filter(|session| session.is_available()).any(|session| {
        let fit = part_fit(world, job, &task, session, coverage.as_ref());
        matches!(fit, Ok(_) | Err(Unfit::Busy))
    })
}

/// Whether there is work and none of it fits into what a session's visit may still move.
pub(crate) fn is_spent(world: &World, session: &Session) -> bool {
    let mut lacks_traffic = false;
    for job in world.jobs.values() {
        let Some(task) = sample(job) else { continue };
        let coverage = job.slices_held_max().map(|max| Coverage::of(world, job, max));
        match part_fit(world, job, &task, session, coverage.as_ref()) {
            Ok(_) | Err(Unfit::Busy | Unfit::OwnGpu) => return false,
            Err(Unfit::Traffic) => lacks_traffic = true,
            Err(_) => {}
        }
    }
    lacks_traffic
}

/// Why nobody works on `job` although there is something to do.
pub(crate) fn waiting(world: &World, job: &Job) -> Option<Waiting> {
    let stage = job.stage.as_ref()?;
    // Who is about to be shown a slice works on it next.
    if !stage.has_supply() || stage.has_leases() || !job.showing.is_empty() {
        return None;
    }
    if world.is_held_back(job) {
        let cases = world.cases;
        let reason = format!("the coordinator has {cases} results to compute again first");
        return Some(Waiting { reason, nobody: false });
    }
    let nobody = |reason: String| Some(Waiting { reason, nobody: true });
    let online = contributors(world).count();
    if online == 0 {
        return nobody("no contributor is online".into());
    }
    let available: Vec<&Session> =
        contributors(world).filter(|session| session.is_available()).collect();
    if available.is_empty() {
        return nobody(format!("all {online} contributors online are paused or recovering"));
    }
    let coverage = job.slices_held_max().map(|max| Coverage::of(world, job, max));
    let task = sample(job)?;
    let unfit: BTreeSet<Unfit> = available
        .iter()
        .filter_map(|session| part_fit(world, job, &task, session, coverage.as_ref()).err())
        .collect();
    let bytes = task.demand.memory_bytes();
    // The hindrance that is nearest to being overcome is named.
    let reason = match unfit.last() {
        None | Some(Unfit::Busy) => {
            let reason = "all contributors online are busy with other jobs".into();
            return Some(Waiting { reason, nobody: false });
        }
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
        Some(Unfit::Traffic) => {
            "weights and results are more than any contributor online may still move in its visit"
                .into()
        }
        Some(Unfit::Strict) => {
            "a strict job runs on processors, and only graphics processors are online".into()
        }
        Some(Unfit::Category) => {
            let category = job.plan.category;
            format!("every contributor online refuses jobs of category {category}")
        }
        Some(Unfit::Kernel | Unfit::NotCalled | Unfit::OwnGpu) => {
            "no contributor online runs this job's kernel".into()
        }
    };
    nobody(reason)
}
