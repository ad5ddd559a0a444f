//! Runs of replica rounds.

use super::Decision;
use super::fit::{finish_ms, fits, may_move, may_work};
use crate::active::Job;
use crate::event::Millis;
use crate::run_length::{Contributor, choose, longest_run};
use crate::session::Session;
use crate::stage::{Stage, Supply};
use crate::world::World;
use raven_protocol::SessionId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Segments of held shards that are tried before any other run.
const PREFERRED_MAX: usize = 8;

/// Part of a job's time that may go into work for sessions which are slower
/// than others who are free. A session that gets nothing is never measured
/// again, and its visitor agreed to something that does not happen.
const TURNS_PART: f64 = 0.05;

/// Cost of one micro-batch.
fn unit_flops(stage: &Stage) -> u64 {
    stage.flops_left / u64::from(stage.units_left.max(1))
}

/// A session and when it would finish a run, in microseconds.
type Candidate = Reverse<(u64, SessionId, usize)>;

/// Sessions by how soon they would finish a run of a job. An entry is stale
/// once its session has other leases than when it was entered.
#[derive(Debug)]
pub(super) struct Candidates {
    heap: BinaryHeap<Candidate>,
    /// Speed of everybody who is available and may have runs.
    flops_per_ms: f64,
    /// By run length: when the first of those who are busy would finish one,
    /// in ms. Within a pass sessions only get busier.
    soonest_busy: BTreeMap<u32, f64>,
    /// Who has been idle for longest; asked once in a pass.
    longest_idle: Option<SessionId>,
}

impl Candidates {
    pub(super) fn new(world: &World, job: &Job, stage: &Stage, now: Millis) -> Self {
        let sessions: Vec<&Session> = world
            .ready
            .iter()
            .filter_map(|id| world.sessions.get(id))
            .filter(|session| may_run(world, job, session, stage))
            .collect();
        let idle = sessions.iter().filter(|session| session.leases.is_empty());
        let longest_idle = idle.min_by_key(|session| (session.leased, session.id));
        Candidates {
            heap: sessions.iter().map(|s| candidate(world, job, stage, s, now)).collect(),
            flops_per_ms: speed_for(world, job, stage),
            soonest_busy: BTreeMap::new(),
            longest_idle: longest_idle.map(|session| session.id),
        }
    }

    /// A run for the session that would finish it first, or for one whose turn it is.
    pub(super) fn next(
        &mut self,
        world: &World,
        job: &Job,
        stage: &Stage,
        now: Millis,
    ) -> Option<Decision> {
        while let Some(Reverse((finish, id, leases))) = self.heap.pop() {
            let Some(session) = world.sessions.get(&id) else { continue };
            if !world.has_capacity(session) {
                continue;
            }
            if session.leases.len() != leases {
                self.heap.push(candidate(world, job, stage, session, now));
                continue;
            }
            let length = run_length(world, stage, session);
            let finish_ms = finish as f64 / 1e3;
            // Work that is done before the stage can be holds nobody up;
            // other work waits where somebody busy would be clearly sooner.
            if finish_ms * self.flops_per_ms > stage.flops_left as f64 {
                let soonest = || soonest_busy(world, job, stage, length, now);
                let soonest = *self.soonest_busy.entry(length).or_insert_with(soonest);
                if finish_ms > soonest * 1.1 {
                    return None;
                }
            }
            if let Some((start, count)) = fitting_run(world, job, stage, session, length) {
                self.heap.push(Reverse((finish, id, leases)));
                let turn = self.turn(world, job, stage, finish_ms, now);
                let soonest =
                    || Decision::Run { session: id, job: job.id, start, count, late: false };
                return Some(turn.unwrap_or_else(soonest));
            }
        }
        None
    }

    /// A run for the session that has been idle for longest, if it is done
    /// hardly later than at `soonest_ms`: what it is late by must be within
    /// [`TURNS_PART`] of the time since the job last afforded that, and no
    /// more than the longest task, however long ago that was.
    fn turn(
        &mut self,
        world: &World,
        job: &Job,
        stage: &Stage,
        soonest_ms: f64,
        now: Millis,
    ) -> Option<Decision> {
        let session = world.sessions.get(&self.longest_idle.take()?)?;
        if !world.has_capacity(session) {
            return None;
        }
        let Reverse((finish, ..)) = candidate(world, job, stage, session, now);
        let late_ms = finish as f64 / 1e3 - soonest_ms;
        let saved_ms = now.saturating_sub(job.turn_afforded) as f64 * TURNS_PART;
        if late_ms > saved_ms.min(world.config.task_ms_max as f64) {
            return None;
        }
        let length = run_length(world, stage, session);
        let (start, count) = fitting_run(world, job, stage, session, length)?;
        let late = late_ms > 0.0;
        Some(Decision::Run { session: session.id, job: job.id, start, count, late })
    }
}

/// Speed of all who may take part in the stage, busy or not.
fn speed_for(world: &World, job: &Job, stage: &Stage) -> f64 {
    let available = world.sessions.values().filter(|session| session.is_available());
    available
        .filter(|session| may_work(world, job, session, stage.stage, None).is_ok())
        .map(Session::flops_per_ms)
        .sum()
}

/// Whether a session may take runs at all, of one micro-batch at least.
fn may_run(world: &World, job: &Job, session: &Session, stage: &Stage) -> bool {
    let moves = || job.run_task(0, 1).is_some_and(|task| may_move(session, &task.demand));
    may_work(world, job, session, stage.stage, None).is_ok()
        && (session.profile.traffic_bytes.is_none() || moves())
}

fn candidate(world: &World, job: &Job, stage: &Stage, session: &Session, now: Millis) -> Candidate {
    let flops = unit_flops(stage).saturating_mul(run_length(world, stage, session).into());
    let weights = session.holdings.has_blob(stage.state);
    let missing = if weights { 0 } else { job.sgd.weights_bytes };
    let finish = finish_ms(world, session, flops, missing, now);
    Reverse(((finish * 1e3) as u64, session.id, session.leases.len()))
}

/// When the first of the sessions that can have no more now would finish
/// another run, in ms.
fn soonest_busy(world: &World, job: &Job, stage: &Stage, length: u32, now: Millis) -> f64 {
    let flops = unit_flops(stage).saturating_mul(length.into());
    world
        .sessions
        .values()
        .filter(|session| session.is_available() && !world.has_capacity(session))
        .filter(|session| may_run(world, job, session, stage))
        .map(|session| finish_ms(world, session, flops, 0, now))
        .fold(f64::INFINITY, f64::min)
}

/// How long a run `session` takes from `stage`. A claim may be far too high:
/// before anything was measured a run is as short as can be.
fn run_length(world: &World, stage: &Stage, session: &Session) -> u32 {
    if !session.speed.is_measured() {
        return 1;
    }
    let unit_ms = session.speed.task_ms(unit_flops(stage));
    stage.run_length.unwrap_or(1).min(longest_run(unit_ms, world.config.task_ms_max))
}

/// A free run of at most `length` that fits into the session's memory.
fn fitting_run(
    world: &World,
    job: &Job,
    stage: &Stage,
    session: &Session,
    mut length: u32,
) -> Option<(u32, u32)> {
    let Supply::Runs(pool) = &stage.supply else { return None };
    let preferred: Vec<(u32, u32)> = stage
        .held_segments(&session.holdings, &job.sgd.shards)
        .into_iter()
        .filter(|segment| pool.find_within(length, segment.start, segment.end).is_some())
        .take(PREFERRED_MAX)
        .map(|segment| (segment.start, segment.end))
        .collect();
    loop {
        let (start, count) = pool.find(length, &preferred)?;
        let task = job.run_task(start, count)?;
        if fits(world, session, &task.demand).is_ok() {
            return Some((start, count));
        }
        // A shorter run reads fewer shards.
        if count == 1 {
            return None;
        }
        length = count.next_power_of_two() / 2;
    }
}

/// The run length for everyone who takes part in the open round of `job`.
pub(crate) fn choose_run_length(world: &World, job: &Job, stage: &Stage) -> u32 {
    let Supply::Runs(pool) = &stage.supply else { return 1 };
    let result_bytes = job.run_task(0, 1).map_or(0, |task| task.demand.result_bytes);
    let contributors: Vec<Contributor> = world
        .sessions
        .values()
        .filter(|session| session.is_available())
        .filter(|session| may_run(world, job, session, stage))
        .map(|session| {
            let held = session.holdings.has_blob(stage.state);
            let weights = if held { 0 } else { job.sgd.weights_bytes };
            Contributor {
                workers: session.profile.workers,
                micro_batch_ms: session.speed.task_ms(unit_flops(stage)),
                result_ms: session.link.fetch_ms(result_bytes),
                setup_ms: session.link.transfer_ms(weights),
            }
        })
        .collect();
    choose(pool.len(), &contributors, world.config.task_ms_max).min(pool.span())
}
