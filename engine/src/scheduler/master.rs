//! Parts of master placement: who may see which slice of the weights.

use super::Decision;
use super::fit::{Unfit, finish_ms, fits, may_work};
use crate::active::Job;
use crate::event::{ContributorId, Millis};
use crate::session::Session;
use crate::stage::{Stage, Supply, Task};
use crate::world::World;
use raven_protocol::JobId;
use std::collections::{BTreeMap, BTreeSet};

/// Which slices of the weights contributors have been shown, and how many
/// more those who are available may be shown.
pub(super) struct Coverage<'a> {
    shown: &'a BTreeMap<ContributorId, BTreeSet<u32>>,
    /// Of those, the ones that are not durable yet.
    showing: &'a BTreeSet<(ContributorId, u32)>,
    held_max: usize,
    /// Slices that somebody available was shown.
    present: BTreeSet<u32>,
    /// Slices that only somebody absent was shown.
    absent: BTreeSet<u32>,
    /// Slices that nobody was ever shown.
    unseen: usize,
    capacity: usize,
}

impl<'a> Coverage<'a> {
    pub(super) fn of(world: &World, job: &'a Job, held_max: u32) -> Self {
        let (slices, bytes_max) = job.sliced();
        let contributors: BTreeSet<ContributorId> = world
            .sessions
            .values()
            .filter(|s| !s.profile.operator)
            .filter(|s| s.is_available() && s.profile.memory_bytes >= bytes_max)
            // A processor that stands back for its GPU does what that refuses.
            .filter(|s| matches!(may_work(world, job, s, 0, None), Ok(()) | Err(Unfit::OwnGpu)))
            .filter(|s| !refused_any(s, job.id))
            .map(|s| s.profile.contributor)
            .collect();
        let held = |c: &ContributorId| job.shown.get(c);
        let present: BTreeSet<u32> =
            contributors.iter().filter_map(held).flatten().copied().collect();
        let seen: BTreeSet<u32> = job.shown.values().flatten().copied().collect();
        let held_max = held_max as usize;
        let left = |c: &ContributorId| held_max.saturating_sub(held(c).map_or(0, BTreeSet::len));
        Coverage {
            shown: &job.shown,
            showing: &job.showing,
            held_max,
            unseen: slices.difference(&seen).count(),
            absent: seen.difference(&present).copied().collect(),
            capacity: contributors.iter().map(left).sum(),
            present,
        }
    }

    /// Whether those who are available could hold all slices between them.
    pub(super) fn is_whole(&self) -> bool {
        self.capacity >= self.unseen + self.absent.len()
    }

    /// Slices that `contributor` was shown, and whether `slice` would be a new
    /// one to it.
    ///
    /// # Errors
    /// [`Unfit::Slices`] where it may not be shown it, [`Unfit::Busy`] while it
    /// is being made durable that somebody is.
    ///
    /// What was shown is never forgotten, so that two contributors could come
    /// to hold the same slices while the rest has no place any more. So a
    /// slice that nobody has seen may always be shown; one whose holder is
    /// absent only while all unseen ones could still be placed; and one whose
    /// holder is there only while those of the absent could be as well.
    fn may_show(&self, contributor: &ContributorId, slice: u32) -> Result<(bool, usize), Unfit> {
        let held = self.shown.get(contributor);
        let count = held.map_or(0, BTreeSet::len);
        if self.showing.contains(&(*contributor, slice)) {
            return Err(Unfit::Busy);
        }
        if held.is_some_and(|held| held.contains(&slice)) {
            return Ok((false, 0));
        }
        // One at a time: whoever is about to see it will do its tasks.
        if self.showing.iter().any(|&(_, shown)| shown == slice) {
            return Err(Unfit::Busy);
        }
        let reserved = if self.present.contains(&slice) {
            self.unseen + self.absent.len()
        } else if self.absent.contains(&slice) {
            self.unseen
        } else {
            0
        };
        let may_be_shown = count < self.held_max && self.capacity > reserved;
        if may_be_shown { Ok((true, count)) } else { Err(Unfit::Slices) }
    }
}

fn refused_any(session: &Session, job: JobId) -> bool {
    let from = (job, 0, None);
    let to = (job, u32::MAX, Some(u32::MAX));
    session.refused.range(from..=to).next().is_some()
}

/// A part for the best session: one that holds the slice already, else the
/// one that holds least, and among equals the one that finishes first.
pub(super) fn lease_part(
    world: &World,
    job: &Job,
    stage: &Stage,
    ready: &[&Session],
    now: Millis,
) -> Option<Decision> {
    let Supply::Parts(parts) = &stage.supply else { return None };
    let coverage = job.slices_held_max().map(|max| Coverage::of(world, job, max));
    for part in parts {
        let Some(task) = stage.tasks.get(part) else { continue };
        let best = ready
            .iter()
            .filter_map(|session| {
                let (new, held) = part_fit(world, job, task, session, coverage.as_ref()).ok()?;
                let missing = task.demand.operand_bytes;
                let finish = finish_ms(world, session, task.demand.flops, missing, now);
                Some((new, held, finish, session.id))
            })
            .min_by(|a, b| {
                let keys = (a.0, a.1).cmp(&(b.0, b.1));
                keys.then(a.2.total_cmp(&b.2)).then(a.3.cmp(&b.3))
            });
        if let Some((_, _, _, session)) = best {
            return Some(Decision::Part { session, job: job.id, part: *part });
        }
    }
    None
}

/// Whether `session` may have `task`: whether it would see a new slice by it,
/// and how many it was shown.
pub(super) fn part_fit(
    world: &World,
    job: &Job,
    task: &Task,
    session: &Session,
    coverage: Option<&Coverage<'_>>,
) -> Result<(bool, usize), Unfit> {
    may_work(world, job, session, task.id.stage, job.part_key(task.id))?;
    let slices = match (task.demand.slice, coverage) {
        (Some(slice), Some(coverage)) if !session.profile.operator => {
            coverage.may_show(&session.profile.contributor, slice)?
        }
        _ => (false, 0),
    };
    fits(world, session, &task.demand)?;
    Ok(slices)
}
