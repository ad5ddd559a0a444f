//! Work for sessions that have none, when there is nothing left to lease:
//! copies of overdue tasks, then tasks that wait behind others.

use super::Decision;
use super::fit::finish_ms;
use super::master::{Coverage, part_fit};
use crate::active::Job;
use crate::event::Millis;
use crate::lease::{Lease, LeaseState};
use crate::session::Session;
use crate::stage::Task;
use crate::world::World;
use raven_protocol::{JobId, LeaseId, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// A task that an idle session could relieve another of.
struct Relief<'a> {
    task: &'a Task,
    /// `Some` where the lease waits and can be moved, `None` where it is overdue and is copied.
    waits: Option<LeaseId>,
    /// Milliseconds until it would be committed where it is.
    ends_ms: f64,
}

/// The most useful thing that one of the `idle` sessions can do.
pub(super) fn relieve(
    world: &World,
    jobs: &[&Job],
    idle: &[&Session],
    may_move: bool,
    now: Millis,
) -> Option<Decision> {
    let waiting = if may_move { Some(&world.queued) } else { None };
    let doubtful = world.doubtful.iter().filter_map(|id| world.sessions.get(id));
    let leases: BTreeSet<LeaseId> = doubtful
        .flat_map(|session| &session.leases)
        .chain(waiting.into_iter().flatten())
        .chain(&world.overdue)
        .copied()
        .collect();
    let mut parts: BTreeMap<JobId, BTreeSet<u32>> = BTreeMap::new();
    for lease in leases.into_iter().filter_map(|id| world.leases.get(id)) {
        parts.entry(lease.job).or_default().insert(lease.task.part);
    }
    jobs.iter().find_map(|job| relieve_job(world, job, parts.get(&job.id)?, idle, now))
}

fn relieve_job(
    world: &World,
    job: &Job,
    parts: &BTreeSet<u32>,
    idle: &[&Session],
    now: Millis,
) -> Option<Decision> {
    let stage = job.stage.as_ref()?;
    let tasks = parts.iter().filter_map(|part| stage.tasks.get(part));
    let mut reliefs: Vec<Relief<'_>> =
        tasks.filter_map(|task| relief_for(world, job, task, now)).collect();
    if reliefs.is_empty() {
        return None;
    }
    // Overdue tasks first, then those that would take longest where they are.
    reliefs.sort_by(|a, b| {
        let order = a.waits.is_some().cmp(&b.waits.is_some());
        order.then(b.ends_ms.total_cmp(&a.ends_ms)).then(a.task.id.cmp(&b.task.id))
    });
    let coverage = job.slices_held_max().map(|max| Coverage::of(world, job, max));
    // Tasks of a stage cost about the same, so one order of sessions serves all.
    let mut idle: Vec<(f64, &Session)> = idle
        .iter()
        .map(|session| {
            let demand = &reliefs[0].task.demand;
            let missing = session.holdings.missing_bytes(demand) + demand.operand_bytes;
            (finish_ms(world, session, demand.flops, missing, now), *session)
        })
        .collect();
    idle.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.id.cmp(&b.1.id)));
    for relief in &reliefs {
        let Some((finish, session)) = best_for(world, job, relief.task, &idle, coverage.as_ref())
        else {
            continue;
        };
        let (job, part) = (job.id, relief.task.id.part);
        match relief.waits {
            None => return Some(Decision::Copy { session, job, part }),
            // Moving costs a message each way: only for a clear gain.
            Some(from) if finish * 1.2 + 50.0 < relief.ends_ms => {
                return Some(Decision::Move { session, job, part, from });
            }
            // The others would end sooner still.
            Some(_) => return None,
        }
    }
    None
}

/// The first of the `idle` sessions that may have `task`; in master placement
/// one that shows it no new slice, if there is any.
fn best_for(
    world: &World,
    job: &Job,
    task: &Task,
    idle: &[(f64, &Session)],
    coverage: Option<&Coverage<'_>>,
) -> Option<(f64, SessionId)> {
    let is_alone = world.claims_needed(job, task) <= 1;
    let mut fitting = idle
        .iter()
        .filter(|(_, session)| !holds_task(world, session, task))
        .filter(|(_, session)| is_alone || world.may_join(task, session))
        .filter_map(|(finish, session)| {
            let fit = part_fit(world, job, task, session, coverage).ok()?;
            Some((fit, (*finish, session.id)))
        });
    if coverage.is_none() {
        return fitting.next().map(|(_, best)| best);
    }
    // The minimum is the first of its equals, and they come by finish.
    fitting.min_by_key(|(fit, _)| *fit).map(|(_, best)| best)
}

/// Whether the contributor behind `session` has a lease of `task`.
fn holds_task(world: &World, session: &Session, task: &Task) -> bool {
    let holders = task.leases.iter().filter_map(|&id| world.leases.get(id));
    let mut holders = holders.filter_map(|lease| world.sessions.get(&lease.session));
    holders.any(|holder| holder.profile.contributor == session.profile.contributor)
}

fn relief_for<'a>(world: &World, job: &Job, task: &'a Task, now: Millis) -> Option<Relief<'a>> {
    // What is committed waits for others; only what is computed or sent can be late.
    let late = |lease: &&Lease| {
        !matches!(lease.state, LeaseState::Committed { .. } | LeaseState::Projecting { .. })
    };
    let leases = || task.leases.iter().filter_map(|&id| world.leases.get(id)).filter(late);
    let results = task.trial.claims.len() + world.computing(task).count();
    let spare = world.config.copies_max.saturating_sub(1);
    if leases().next().is_none() || results >= world.claims_needed(job, task) as usize + spare {
        return None;
    }
    // A session whose last leases came to nothing may still be frozen: idle
    // sessions need not wait to find out.
    let overdue = |lease: &Lease| {
        world.overdue.contains(&lease.id) || world.doubtful.contains(&lease.session)
    };
    if leases().all(overdue) {
        return Some(Relief { task, waits: None, ends_ms: f64::INFINITY });
    }
    let lease = leases().next().filter(|lease| lease.state == LeaseState::Queued)?;
    let session = world.sessions.get(&lease.session)?;
    let ends_ms = world.ends_ms(session, lease.id, now)?;
    // With a second lease it is not waiting for this session alone.
    (task.leases.len() == 1 && task.trial.claims.is_empty()).then_some(Relief {
        task,
        waits: Some(lease.id),
        ends_ms,
    })
}
