//! Work for sessions that have none, when there is nothing left to lease:
//! copies of overdue tasks, then tasks that wait behind others.

use super::Decision;
use super::fit::finish_ms;
use super::master::{Coverage, part_fit};
use crate::active::Job;
use crate::event::{ContributorId, Millis};
use crate::lease::{Lease, LeaseState};
use crate::session::Session;
use crate::stage::{Demand, Task};
use crate::watch::Watched;
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

/// Whether a copy of a task is wanted.
enum Late {
    Yes,
    /// All who have it are late, and it has as many results as it needs, for all
    /// that is known of those who take part.
    Enough(Vec<ContributorId>),
    No,
}

/// The most useful thing that one of those who compute nothing can do. Watched
/// tasks that need no copy go to `parked`.
pub(super) fn relieve(
    world: &World,
    jobs: &[&Job],
    may_move: bool,
    parked: &mut Vec<(Watched, Vec<ContributorId>)>,
    now: Millis,
) -> Option<Decision> {
    let mut parts: BTreeMap<JobId, BTreeSet<u32>> = BTreeMap::new();
    let waiting = if may_move { Some(&world.queued) } else { None };
    for lease in waiting.into_iter().flatten().filter_map(|&id| world.leases.get(id)) {
        parts.entry(lease.job).or_default().insert(lease.task.part);
    }
    for (id, part) in world.watch.due() {
        let job = world.jobs.get(&id);
        let task = job.and_then(|job| Some((job, job.stage.as_ref()?.tasks.get(&part)?)));
        match task.map_or(Late::No, |(job, task)| late(world, job, task)) {
            Late::Yes => {
                parts.entry(id).or_default().insert(part);
            }
            Late::Enough(people) => parked.push(((id, part), people)),
            Late::No => parked.push(((id, part), Vec::new())),
        }
    }
    jobs.iter().find_map(|job| relieve_job(world, job, parts.get(&job.id)?, now))
}

fn relieve_job(world: &World, job: &Job, parts: &BTreeSet<u32>, now: Millis) -> Option<Decision> {
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
    // Tasks of a stage cost about the same, so one of them is measured for all.
    let measure = &reliefs[0].task.demand;
    for relief in &reliefs {
        let best = match &coverage {
            None => soonest(world, job, relief.task, measure, now),
            Some(coverage) => least_shown(world, job, relief.task, measure, coverage, now),
        };
        let Some((finish, session)) = best else { continue };
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

/// When an idle session would have done what `demand` asks for, in ms.
fn idle_finish_ms(world: &World, session: &Session, demand: &Demand, now: Millis) -> f64 {
    let missing = session.holdings.missing_bytes(demand) + demand.operand_bytes;
    finish_ms(world, session, demand.flops, missing, now)
}

/// Whether an idle session may compute `task`, and what it would be shown by it.
fn fit(
    world: &World,
    job: &Job,
    task: &Task,
    session: &Session,
    coverage: Option<&Coverage<'_>>,
) -> Option<(bool, usize)> {
    let is_alone = world.claims_needed(job, task) <= 1;
    if holds_task(world, session, task) || !(is_alone || world.may_join(task, session)) {
        return None;
    }
    part_fit(world, job, task, session, coverage).ok()
}

/// The idle session that would have done `task` first. Sessions come by speed:
/// once computing alone takes longer than the best so far, so do all that follow.
fn soonest(
    world: &World,
    job: &Job,
    task: &Task,
    measure: &Demand,
    now: Millis,
) -> Option<(f64, SessionId)> {
    let mut best: Option<(f64, SessionId)> = None;
    for (flops_per_ms, id) in world.idle.by_speed() {
        let least = measure.flops as f64 / flops_per_ms + world.round_trip_ms_min;
        if best.is_some_and(|(finish, _)| least > finish) {
            break;
        }
        let Some(session) = world.sessions.get(&id) else { continue };
        let finish = idle_finish_ms(world, session, measure, now);
        let is_sooner =
            best.is_none_or(|best| finish.total_cmp(&best.0).then(id.cmp(&best.1)).is_lt());
        if is_sooner && fit(world, job, task, session, None).is_some() {
            best = Some((finish, id));
        }
    }
    best
}

/// The idle session to which `task` shows the least, and of those the one that
/// would have done it first.
fn least_shown(
    world: &World,
    job: &Job,
    task: &Task,
    measure: &Demand,
    coverage: &Coverage<'_>,
    now: Millis,
) -> Option<(f64, SessionId)> {
    let idle = world.idle.by_speed().filter_map(|(_, id)| world.sessions.get(&id));
    let fitting = idle.filter_map(|session| {
        let shown = fit(world, job, task, session, Some(coverage))?;
        Some((shown, idle_finish_ms(world, session, measure, now), session.id))
    });
    let best = fitting.min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
    best.map(|(_, finish, session)| (finish, session))
}

/// Whether the contributor behind `session` has a lease of `task`.
fn holds_task(world: &World, session: &Session, task: &Task) -> bool {
    let holders = task.leases.iter().filter_map(|&id| world.leases.get(id));
    let mut holders = holders.filter_map(|lease| world.sessions.get(&lease.session));
    holders.any(|holder| holder.profile.contributor == session.profile.contributor)
}

/// Leases of `task` that can be late: what is committed waits for others, only
/// what is computed or sent does not come.
fn awaited<'a>(world: &'a World, task: &'a Task) -> impl Iterator<Item = &'a Lease> {
    let leases = task.leases.iter().filter_map(|&id| world.leases.get(id));
    leases.filter(|lease| {
        !matches!(lease.state, LeaseState::Committed { .. } | LeaseState::Projecting { .. })
    })
}

/// Whether `task` has as many results, or leases to come to them, as it may.
fn has_enough(world: &World, job: &Job, task: &Task) -> bool {
    let results = task.trial.claims.len() + world.computing(task).count();
    let spare = world.config.copies_max.saturating_sub(1);
    // Every result needs one at least, which is told without asking who they are.
    results > spare && results >= world.claims_needed(job, task) as usize + spare
}

fn late(world: &World, job: &Job, task: &Task) -> Late {
    let mut leases = awaited(world, task).peekable();
    // A session whose last leases came to nothing may still be frozen: idle
    // sessions need not wait to find out.
    let is_late = |lease: &Lease| {
        world.overdue.contains(&lease.id) || world.doubtful.contains(&lease.session)
    };
    if leases.peek().is_none() || !leases.all(is_late) {
        return Late::No;
    }
    if !has_enough(world, job, task) {
        return Late::Yes;
    }
    let claimed = task.trial.claims.iter().map(|claim| claim.who);
    let people = claimed.chain(world.computing(task));
    Late::Enough(people.map(|who| who.identity.contributor).collect())
}

fn relief_for<'a>(world: &World, job: &Job, task: &'a Task, now: Millis) -> Option<Relief<'a>> {
    match late(world, job, task) {
        Late::Yes => return Some(Relief { task, waits: None, ends_ms: f64::INFINITY }),
        Late::Enough(_) => return None,
        Late::No => {}
    }
    let lease = awaited(world, task).next()?;
    // With a second lease it is not waiting for this session alone.
    let is_alone = task.leases.len() == 1 && task.trial.claims.is_empty();
    if !is_alone || lease.state != LeaseState::Queued || has_enough(world, job, task) {
        return None;
    }
    let session = world.sessions.get(&lease.session)?;
    let ends_ms = world.ends_ms(session, lease.id, now)?;
    Some(Relief { task, waits: Some(lease.id), ends_ms })
}
