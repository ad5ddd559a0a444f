//! Push scheduling: which session gets which task. Pure: it only looks.
//!
//! Work goes to whoever would finish it first, as long as that is sooner than
//! waiting for somebody better; so each session gets tasks in proportion to
//! its measured speed at its share. Where a round has fewer tasks than there
//! are sessions, they take turns as far as that costs little. Jobs are served
//! by least flops so far.
//! When nothing is left to lease, idle sessions take over tasks that wait
//! behind others, and copy those that are overdue.

mod fit;
mod master;
mod partner;
mod relief;
mod replica;
mod waiting;

pub(crate) use partner::Partners;
pub(crate) use replica::choose_run_length;
pub(crate) use waiting::{Waiting, has_contributors, is_spent, waiting};

use crate::active::Job;
use crate::event::{ContributorId, Millis};
use crate::session::Session;
use crate::stage::Supply;
use crate::watch::Watched;
use crate::world::World;
use raven_protocol::{JobId, LeaseId, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// One step of scheduling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// A free run of micro-batches; `late` where somebody else would be done sooner.
    Run { session: SessionId, job: JobId, start: u32, count: u32, late: bool },
    /// A part that nobody has.
    Part { session: SessionId, job: JobId, part: u32 },
    /// A second lease for an overdue task.
    Copy { session: SessionId, job: JobId, part: u32 },
    /// One more lease of a task whose result needs others to come to it.
    Partner { session: SessionId, job: JobId, part: u32 },
    /// A waiting task, taken from the session that it waits at.
    Move { session: SessionId, job: JobId, part: u32, from: LeaseId },
}

impl Decision {
    /// The session, job and part, where there is a task already.
    pub(crate) fn of_a_task(&self) -> Option<(SessionId, JobId, u32)> {
        match *self {
            Decision::Run { .. } => None,
            Decision::Part { session, job, part }
            | Decision::Copy { session, job, part }
            | Decision::Partner { session, job, part }
            | Decision::Move { session, job, part, .. } => Some((session, job, part)),
        }
    }
}

/// What one pass over jobs and sessions remembers between its decisions, so
/// that each costs little. It is valid while only its decisions are applied.
#[derive(Debug)]
pub(crate) struct Pass {
    /// Who would finish a run first, by job.
    candidates: BTreeMap<JobId, replica::Candidates>,
    /// Jobs that lease nothing more in this pass.
    closed: BTreeSet<JobId>,
    /// Tasks for which nobody is ready in this pass.
    partnerless: BTreeSet<(JobId, u32)>,
    /// Whether waiting tasks may be moved in this pass, and whether that was tried.
    may_move: bool,
    pub(crate) tried_moves: bool,
    /// Watched tasks that need no copy, and whose results they have.
    pub(crate) parked: Vec<(Watched, Vec<ContributorId>)>,
}

impl Pass {
    pub(crate) fn new(may_move: bool) -> Self {
        Pass {
            candidates: BTreeMap::new(),
            closed: BTreeSet::new(),
            partnerless: BTreeSet::new(),
            may_move,
            tried_moves: false,
            parked: Vec::new(),
        }
    }

    /// The next step, if there is any. The one before it has been applied.
    pub(crate) fn next(&mut self, world: &World, now: Millis) -> Option<Decision> {
        if world.ready.is_empty() {
            return None;
        }
        let mut jobs: Vec<&Job> = world.jobs.values().filter(|job| job.stage.is_some()).collect();
        jobs.sort_by_key(|job| (job.service, job.id));
        // What others wait for comes first: it is short already.
        for job in &jobs {
            let decision = partner::find(world, job, &mut self.partnerless, now);
            if decision.is_some() {
                return decision;
            }
        }
        for job in &jobs {
            if self.closed.contains(&job.id) || world.is_held_back(job) {
                continue;
            }
            let decision = self.lease(world, job, now);
            if decision.is_some() {
                return decision;
            }
            self.closed.insert(job.id);
        }
        let may_move = self.may_move && !world.queued.is_empty();
        if !may_move && world.overdue.is_empty() && world.doubtful.is_empty() {
            return None;
        }
        if world.idle.is_empty() {
            return None;
        }
        self.tried_moves |= self.may_move;
        relief::relieve(world, &jobs, self.may_move, &mut self.parked, now)
    }

    fn lease(&mut self, world: &World, job: &Job, now: Millis) -> Option<Decision> {
        let stage = job.stage.as_ref().filter(|stage| stage.has_supply())?;
        match &stage.supply {
            Supply::Parts(_) => {
                let ready: Vec<&Session> =
                    world.ready.iter().filter_map(|id| world.sessions.get(id)).collect();
                master::lease_part(world, job, stage, &ready, now)
            }
            Supply::Runs(_) => {
                let candidates = self
                    .candidates
                    .entry(job.id)
                    .or_insert_with(|| replica::Candidates::new(world, job, stage, now));
                candidates.next(world, job, stage, now)
            }
        }
    }
}
