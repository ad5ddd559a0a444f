//! Second and third contributors for tasks whose results need them.

use super::Decision;
use super::fit::{Unfit, finish_ms};
use super::master::{Coverage, part_fit};
use crate::active::Job;
use crate::event::{ContributorId, Millis};
use crate::session::Session;
use crate::stage::Task;
use crate::verify::{Purpose, draw};
use crate::world::World;
use raven_protocol::{JobId, SessionId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

/// Sessions that are looked at for one task, from a drawn one on.
const LOOKED_AT_MAX: usize = 64;
/// A partner may take so many times the longest task: a slower one would hold
/// up the round.
const SLOWNESS_MAX: f64 = 2.0;

/// A partner for a task of `job`, drawn among those who are ready, so that
/// nobody can arrange with whom it is compared.
pub(super) fn find(
    world: &World,
    job: &Job,
    partnerless: &mut BTreeSet<(JobId, u32)>,
    now: Millis,
) -> Option<Decision> {
    let stage = job.stage.as_ref()?;
    if stage.short.is_empty() || world.ready.is_empty() {
        return None;
    }
    let coverage = job.slices_held_max().map(|max| Coverage::of(world, job, max));
    for &part in stage.short.keys() {
        let Some(task) = stage.tasks.get(&part) else { continue };
        if partnerless.contains(&(job.id, part)) {
            continue;
        }
        let session = drawn(world, job, task, coverage.as_ref(), now);
        if let Some(session) = session {
            return Some(Decision::Partner { session, job: job.id, part });
        }
        partnerless.insert((job.id, part));
    }
    None
}

fn drawn(
    world: &World,
    job: &Job,
    task: &Task,
    coverage: Option<&Coverage<'_>>,
    now: Millis,
) -> Option<SessionId> {
    let ready = &world.ready;
    let (first, last) = (ready.first()?, ready.last()?);
    let nonce = (task.trial.claims.len() + task.leases.len()) as u64 | now << 8;
    let drawn = draw(&world.config, task.id, Purpose::Pair, nonce);
    let span = u128::from(last.0 - first.0) + 1;
    let from = SessionId(first.0 + ((u128::from(drawn) * span) >> 32) as u64);
    let behind = ready.range(from..);
    let before = ready.range((Unbounded, Excluded(from)));
    let sites: BTreeSet<_> = task.trial.claims.iter().filter_map(|claim| claim.who.site).collect();
    let longest_ms = world.config.task_ms_max as f64 * SLOWNESS_MAX;
    let mut second_best = None;
    let candidates = behind.chain(before).take(LOOKED_AT_MAX);
    for session in candidates.filter_map(|id| world.sessions.get(id)) {
        let fits = || part_fit(world, job, task, session, coverage).is_ok();
        if !world.may_join(task, session) || !fits() {
            continue;
        }
        let missing = session.holdings.missing_bytes(&task.demand) + task.demand.operand_bytes;
        let ms = finish_ms(world, session, task.demand.flops, missing, now);
        // Whom nobody vetted confirms no GPU: both would have to be computed here.
        let is_vetted = world.trust.of(&session.identity()).is_vetted(&world.config);
        let confirms = is_vetted || !task.trial.is_inexact();
        let is_elsewhere = session.profile.site.is_none_or(|site| !sites.contains(&site));
        if is_elsewhere && confirms && ms <= longest_ms {
            return Some(session.id);
        }
        second_best.get_or_insert(session.id);
    }
    second_best
}

/// Who could be a partner at all, busy or not; asked once for all tasks of a job.
#[derive(Debug, Default)]
pub(crate) struct Partners {
    /// Sessions of each contributor that may work on the job.
    by_contributor: Option<BTreeMap<ContributorId, SessionId>>,
}

impl Partners {
    /// Whether somebody who is online could compute `task` as well.
    pub(crate) fn has(&mut self, world: &World, job: &Job, task: &Task) -> bool {
        let coverage = job.slices_held_max().map(|max| Coverage::of(world, job, max));
        let may = |session: &&Session| {
            session.is_available()
                && matches!(
                    part_fit(world, job, task, session, coverage.as_ref()),
                    Ok(_) | Err(Unfit::Busy)
                )
        };
        let people = self.by_contributor.get_or_insert_with(|| {
            let fit = world.sessions.values().filter(may);
            fit.map(|session| (session.profile.contributor, session.id)).collect()
        });
        // One more than take part already is enough to look for.
        people
            .values()
            .filter_map(|id| world.sessions.get(id))
            .any(|session| world.may_join(task, session))
    }
}
