//! Leases come and go: the only place where they are made and ended.

use crate::effect::{Effect, Outbound};
use crate::engine::Engine;
use crate::event::Millis;
use crate::lease::{Lease, LeaseState};
use crate::scheduler::{self, Decision, Pass};
use crate::stage::{Stage, Supply, Task};
use crate::timer::Timer;
use crate::verify::Verification;
use crate::verify::outcome::Holder;
use raven_protocol::{BlobId, GraphId, JobId, LeaseId, ResultOutcome, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// A session's first tasks may wait for a module to compile and caches to fill.
const FIRST_LEASE_SLACK_MS: f64 = 10_000.0;
/// What a page's hiccup or a link's retransmission may add to any lease.
const LEASE_SLACK_MS: f64 = 1_000.0;
/// How many times its estimate a lease may take: speeds halve when a device
/// heats up or a second page competes, and estimates are young.
const LEASE_FACTOR: f64 = 3.0;

/// A session stays in doubt for so many times its pause, so that what it is given
/// then is given to somebody else as well, at once.
const DOUBT_FACTOR: u64 = 4;
/// Late leases in a row that others have done which are no strike.
const MISSED_MAX: u32 = 1;

/// How long a chosen run length is kept at least.
const RUN_LENGTH_KEPT_MS: Millis = 250;

/// Looking for tasks to move means looking at all that wait; doing so at every
/// event would cost more than the moment that a task waits longer.
const MOVES_APART_MS: Millis = 25;

impl Engine {
    /// Gives out work until nobody can have more.
    pub(crate) fn pump(&mut self) {
        self.start_queued_jobs();
        self.choose_run_lengths();
        self.world.refresh_ready();
        let mut pass = Pass::new(self.now >= self.moves_due);
        while let Some(decision) = pass.next(&self.world, self.now) {
            // Before anything changes again.
            self.park(&mut pass);
            self.apply(decision);
            self.world.refresh_ready();
        }
        self.park(&mut pass);
        if pass.tried_moves {
            self.moves_due = self.now + MOVES_APART_MS;
        }
        self.ask_for_partnerless();
        let jobs: Vec<JobId> = self.world.jobs.keys().copied().collect();
        for id in jobs {
            let Some(job) = self.world.jobs.get(&id) else { continue };
            let waiting = scheduler::waiting(&self.world, job);
            let helped = job.operator && scheduler::has_contributors(&self.world, job);
            self.note_waiting(id, waiting, helped);
        }
    }

    fn park(&mut self, pass: &mut Pass) {
        for (task, people) in pass.parked.drain(..) {
            self.world.watch.park(task, people);
        }
    }

    fn choose_run_lengths(&mut self) {
        let open = |job: &crate::active::Job| -> Option<u32> {
            let stage = job.stage.as_ref()?;
            let is_open = stage.run_length_due <= self.now && stage.has_supply();
            is_open.then(|| scheduler::choose_run_length(&self.world, job, stage))
        };
        let chosen: Vec<(JobId, u32)> =
            self.world.jobs.values().filter_map(|job| Some((job.id, open(job)?))).collect();
        for (id, length) in chosen {
            let stage = self.world.jobs.get_mut(&id).and_then(|job| job.stage.as_mut());
            if let Some(stage) = stage {
                stage.run_length = Some(length);
                stage.run_length_due = Millis::MAX;
                stage.run_length_chosen = self.now;
            }
        }
    }

    /// Contributors came, left or changed: open rounds judge their runs anew.
    pub(crate) fn contributors_changed(&mut self) {
        for job in self.world.jobs.values_mut() {
            if let Some(stage) = &mut job.stage {
                // Where many come and go, not for each of them.
                let again = stage.run_length_chosen + RUN_LENGTH_KEPT_MS;
                stage.run_length_due = stage.run_length_due.min(again);
            }
        }
    }

    fn apply(&mut self, decision: Decision) {
        if let Some((session, job, part)) = decision.of_a_task()
            && self.show_first(session, job, part)
        {
            // Leased by a later pass, once it is durable who sees what.
            return;
        }
        match decision {
            Decision::Run { session, job, start, count, late } => {
                let now = self.now;
                let Some(entry) = self.world.jobs.get_mut(&job) else { return };
                if late {
                    entry.turn_afforded = now;
                }
                let task = entry.run_task(start, count);
                let (Some(task), Some(stage)) = (task, &mut entry.stage) else { return };
                if let Supply::Runs(pool) = &mut stage.supply {
                    pool.take(start, count);
                }
                stage.tasks.insert(start, task);
                self.lease(session, job, start, false);
            }
            Decision::Part { session, job, part } => {
                if let Some(Stage { supply: Supply::Parts(parts), .. }) = self.stage_mut(job) {
                    parts.remove(&part);
                }
                self.lease(session, job, part, false);
            }
            Decision::Copy { session, job, part } => {
                self.stats.copies += 1;
                self.lease(session, job, part, true);
            }
            Decision::Partner { session, job, part } => self.lease(session, job, part, false),
            Decision::Move { session, job, part, from } => {
                self.stats.moves += 1;
                // The new lease comes first, so that the task is never without one.
                self.lease(session, job, part, false);
                self.end_lease(from, Notify::Cancel(ResultOutcome::NotNeeded));
            }
        }
    }

    pub(crate) fn stage_mut(&mut self, job: JobId) -> Option<&mut Stage> {
        self.world.jobs.get_mut(&job)?.stage.as_mut()
    }

    /// Leases a task of the open stage of `job` to `session`, sending what it
    /// needs before it.
    fn lease(&mut self, session_id: SessionId, job_id: JobId, part: u32, is_relief: bool) {
        let Some(task) = self.stage_mut(job_id).and_then(|stage| stage.tasks.get(&part)).cloned()
        else {
            return;
        };
        let missing_bytes = self.send_needs(session_id, job_id, &task) + task.demand.operand_bytes;
        let now = self.now;
        let Some(session) = self.world.sessions.get_mut(&session_id) else { return };
        session.reserve_traffic(missing_bytes.saturating_add(task.demand.result_bytes));
        let Some(session) = self.world.sessions.get(&session_id) else { return };
        let transfer_ms = session.link.transfer_ms(missing_bytes);
        let estimate_ms = transfer_ms + session.speed.task_ms(task.demand.flops);
        let queue_ms = self.world.queue_ms(session, now);
        let slack = if session.speed.is_measured() { 0.0 } else { FIRST_LEASE_SLACK_MS };
        let lease_ms = (queue_ms + estimate_ms + session.link.round_trip_ms()) * LEASE_FACTOR
            + LEASE_SLACK_MS
            + slack;
        let config = &self.world.config;
        let lease_ms = (lease_ms as u64).clamp(config.lease_ms_min, config.lease_ms_max);
        let id = self.world.leases.next_id();
        self.world.leases.insert(Lease {
            id,
            session: session_id,
            job: job_id,
            task: task.id,
            flops: task.demand.flops,
            result_bytes: task.demand.result_bytes,
            blobs: task.demand.blobs().map(|need| need.blob).collect(),
            issued: now,
            expires: now + lease_ms,
            missing_bytes,
            transfer_ms,
            estimate_ms,
            state: LeaseState::Queued,
            arrived: None,
            is_shown: false,
            held_up_ms: 0,
            is_relief,
        });
        self.world.queued.insert(id);
        self.timers.set(Timer::LeaseExpiry(id), now + lease_ms);
        self.stats.leases_issued += 1;
        self.note_lease(session_id, job_id, part, id, &task);
        self.send(
            session_id,
            Outbound::Task {
                lease: id,
                task: task.id,
                lease_ms,
                flops: task.demand.flops,
                work: task.work,
            },
        );
        self.start_next(session_id);
        self.note_partners(job_id, part);
    }

    /// Enters a new lease at its session, its task and its job.
    fn note_lease(&mut self, session: SessionId, job: JobId, part: u32, id: LeaseId, task: &Task) {
        let now = self.now;
        let Some(session) = self.world.sessions.get_mut(&session) else { return };
        session.leases.push(id);
        self.world.touched.insert(session.id);
        session.leased = now;
        if session.open == 0 {
            session.delivered.begin(now);
        }
        session.open += 1;
        let Some(job) = self.world.jobs.get_mut(&job) else { return };
        job.service += u128::from(task.demand.flops);
        if let Some(task) = job.stage.as_mut().and_then(|stage| stage.tasks.get_mut(&part)) {
            task.leases.push(id);
        }
    }

    /// Makes room for, and sends, what `task` needs and the session lacks.
    /// Returns the bytes that it has to receive or fetch.
    fn send_needs(&mut self, session_id: SessionId, job: JobId, task: &Task) -> u64 {
        let demand = &task.demand;
        let Some(session) = self.world.sessions.get(&session_id) else { return 0 };
        let missing_bytes = session.holdings.missing_bytes(demand);
        // Weights that a newer state of the same job replaces are not read again.
        let stale = demand.weights.and_then(|weights| {
            let held = session.holdings.weights.get(&job).copied();
            held.filter(|&held| held != weights.blob && !self.world.is_pinned(session, &held))
        });
        let memory = session.profile.memory_bytes;
        let mut forgotten: Vec<BlobId> = stale.into_iter().collect();
        if let (Some(&blob), Some(session)) =
            (forgotten.first(), self.world.sessions.get_mut(&session_id))
        {
            session.holdings.forget_blob(blob);
        }
        let Some(session) = self.world.sessions.get(&session_id) else { return 0 };
        let pinned = || self.world.pinned(session);
        let evicted = session.holdings.to_evict(demand, pinned, memory).unwrap_or_default();
        let Some(session) = self.world.sessions.get_mut(&session_id) else { return 0 };
        for &blob in &evicted {
            session.holdings.forget_blob(blob);
        }
        forgotten.extend(evicted);
        let new_graph = !session.holdings.has_graph(demand.graph);
        let new_weights = demand.weights.filter(|need| !session.holdings.has_blob(need.blob));
        session.holdings.add_graph(demand.graph);
        for need in demand.blobs() {
            session.holdings.use_blob(need);
        }
        if let Some(weights) = demand.weights {
            session.holdings.weights.insert(job, weights.blob);
        }
        if !forgotten.is_empty() {
            self.send(session_id, Outbound::Drop { blobs: forgotten, graphs: Vec::new() });
        }
        if new_graph {
            self.send(session_id, Outbound::Graph { job, graph: demand.graph });
        }
        if let Some(weights) = new_weights {
            self.send(session_id, Outbound::Weights { job, state: weights.blob });
        }
        missing_bytes
    }

    /// Lets the session's next waiting leases run, one per free worker.
    pub(crate) fn start_next(&mut self, session: SessionId) {
        let Some(session) = self.world.sessions.get(&session) else { return };
        let mut running = 0;
        for &id in &session.leases {
            let Some(lease) = self.world.leases.get_mut(id) else { continue };
            match lease.state {
                LeaseState::Running { .. } => running += 1,
                LeaseState::Queued if running < session.profile.workers => {
                    running += 1;
                    lease.state = LeaseState::Running { since: self.now };
                    lease.held_up_ms = 0;
                    self.world.queued.remove(&id);
                    if let Some(at) = lease.overdue_at(0.0) {
                        self.timers.set(Timer::LeaseOverdue(id), at);
                    }
                }
                _ => {}
            }
        }
    }

    /// Ends a lease: its task can be leased again, its timers stop, its
    /// session goes on with the next. Returns what it was.
    pub(crate) fn end_lease(&mut self, id: LeaseId, notify: Notify) -> Option<Lease> {
        let lease = self.world.leases.remove(id)?;
        self.world.queued.remove(&id);
        self.world.overdue.remove(&id);
        self.timers.stop(Timer::LeaseExpiry(id));
        self.timers.stop(Timer::LeaseOverdue(id));
        if let Some(session) = self.world.sessions.get_mut(&lease.session) {
            session.leases.retain(|&other| other != id);
            self.world.touched.insert(session.id);
            if lease.is_open() {
                session.open -= 1;
            }
            if let (true, Notify::Cancel(outcome)) = (lease.is_open(), notify) {
                session.ended.add(id, outcome);
            }
            if let (LeaseState::Running { since }, Notify::Cancel(outcome)) = (lease.state, notify)
                && outcome != ResultOutcome::Late
            {
                session.delivered.call_off(since, session.profile.workers, self.now);
            }
        }
        // Its session is there, and waits for the coordinator.
        let is_lost = lease.arrived.is_some() && matches!(notify, Notify::Cancel(_));
        let mut dropped = None;
        if let Some(job) = self.world.jobs.get_mut(&lease.job) {
            job.service = job.service.saturating_sub(u128::from(lease.flops));
            if let Some(stage) = &mut job.stage {
                // Where nobody checks, nobody is paid for agreeing.
                let keeps_claim = job.plan.verification != Verification::None;
                dropped = stage.lease_ended(&lease, keeps_claim, is_lost);
            }
        }
        if let Some(claim) = dropped {
            let outcome = if is_lost { ResultOutcome::Withdrawn } else { ResultOutcome::Late };
            self.came_to(Holder::from(&claim), outcome);
        }
        if let Notify::Cancel(_) = notify {
            self.stats.cancelled += 1;
            self.send(lease.session, Outbound::Cancel { lease: id });
        }
        self.start_next(lease.session);
        self.consider(lease.job, lease.task.part);
        Some(lease)
    }

    /// Asks for the payload of a lease that has committed.
    pub(crate) fn reveal(&mut self, id: LeaseId) {
        let Some(lease) = self.world.leases.get_mut(id) else { return };
        let LeaseState::Committed { digest } = lease.state else { return };
        lease.state = LeaseState::Revealing { digest, since: self.now };
        lease.held_up_ms = 0;
        let Some(lease) = self.world.leases.get(id) else { return };
        let session = lease.session;
        let reveal_ms = self.world.reveal_ms(lease);
        let config = &self.world.config;
        let wait_ms = (reveal_ms * LEASE_FACTOR + LEASE_SLACK_MS) as u64;
        let wait_ms = wait_ms.clamp(config.lease_ms_min, config.lease_ms_max);
        let overdue = lease.overdue_at(reveal_ms);
        if let Some(lease) = self.world.leases.get_mut(id) {
            lease.expires = self.now + wait_ms;
        }
        self.timers.set(Timer::LeaseExpiry(id), self.now + wait_ms);
        if let Some(at) = overdue {
            self.timers.set(Timer::LeaseOverdue(id), at);
        }
        self.send(session, Outbound::Reveal { lease: id });
    }

    /// Tasks that nobody else can compute go to the referee.
    fn ask_for_partnerless(&mut self) {
        if self.now < self.partners_due {
            return;
        }
        let wait_ms = self.world.config.partner_wait_ms;
        let mut lonely: Vec<(JobId, u32)> = Vec::new();
        for job in self.world.jobs.values() {
            let Some(stage) = &job.stage else { continue };
            let mut partners = scheduler::Partners::default();
            for (&part, &since) in &stage.short {
                let Some(task) = stage.tasks.get(&part) else { continue };
                let is_open = self.world.computing(task).next().is_some();
                let is_late = self.now >= since + wait_ms;
                if !is_open && (is_late || !partners.has(&self.world, job, task)) {
                    lonely.push((job.id, part));
                }
            }
        }
        for (job, part) in lonely {
            let task = self.stage_mut(job).and_then(|stage| stage.tasks.get(&part));
            if task.is_none_or(|task| task.trial.claims.is_empty()) {
                continue;
            }
            self.drop_mute(job, part);
            // It may have turned out that nobody is left to ask, or that somebody has
            // still to say what it came to.
            let Some(task) = self.task(job, part) else { continue };
            if !task.trial.claims.is_empty() && !self.world.is_hearing(&task.trial) {
                self.ask_referee(job, part);
            }
        }
        let mut stages = self.world.jobs.values().filter_map(|job| job.stage.as_ref());
        if stages.any(|stage| !stage.short.is_empty()) {
            self.partners_due = self.now + MOVES_APART_MS;
            self.timers.set(Timer::Partner, self.partners_due);
        } else {
            self.timers.stop(Timer::Partner);
        }
    }

    /// A lease came to nothing: its session has less, and later.
    pub(crate) fn strike(&mut self, session_id: SessionId) {
        let Some(session) = self.world.sessions.get_mut(&session_id) else { return };
        session.strikes = session.strikes.saturating_add(1);
        let strikes = session.strikes;
        let config = &self.world.config;
        let pause_ms = config
            .backoff_ms_min
            .saturating_mul(1 << (strikes - 1).min(20))
            .min(config.backoff_ms_max);
        session.doubted_until = self.now + DOUBT_FACTOR * pause_ms;
        self.world.doubt(session_id);
        self.block(session_id, pause_ms);
    }

    /// Somebody else had done a task before the holder of an ended `lease` did, which
    /// was late or not.
    pub(crate) fn outrun(&mut self, lease: &Lease, is_late: bool) {
        let session_id = lease.session;
        if is_late {
            // Else its next lease would be as short, and late again.
            self.observe_slow(lease);
        }
        let Some(session) = self.world.sessions.get_mut(&session_id) else { return };
        if is_late {
            session.missed = session.missed.saturating_add(1);
            if session.missed > MISSED_MAX {
                self.strike(session_id);
            }
        } else if self.now >= session.doubted_until {
            // It had no time to show that it works: else whoever is slow would stay in
            // doubt for good, unpaid. Whoever is frozen gets that chance ever less often.
            self.world.doubtful.remove(&session_id);
        }
    }

    /// What was asked for after a commitment did not come: what was committed to may be
    /// nothing, and of a payload the link is as slow as that, at best.
    pub(crate) fn observe_late_answer(&mut self, lease: &Lease) {
        let Some(session) = self.world.sessions.get_mut(&lease.session) else { return };
        match lease.state {
            LeaseState::Revealing { since, .. } => {
                let elapsed = self.now.saturating_sub(since) as f64;
                session.link.observe_at_most(lease.result_bytes, elapsed);
            }
            LeaseState::Projecting { .. } => {}
            LeaseState::Queued | LeaseState::Running { .. } | LeaseState::Committed { .. } => {
                return;
            }
        }
        session.delivered.take_back(lease.flops);
    }

    /// A task was not done by now: its session is as slow as that, at best.
    fn observe_slow(&mut self, lease: &Lease) {
        let (LeaseState::Running { since }, Some(session)) =
            (lease.state, self.world.sessions.get_mut(&lease.session))
        else {
            return;
        };
        let elapsed = self.now.saturating_sub(since) as f64;
        // What was to take longer has most likely been slower still.
        if lease.transfer_ms * 2.0 > lease.estimate_ms {
            session.link.observe_at_most(lease.missing_bytes, elapsed);
        } else {
            session.speed.observe_at_most(lease.flops, elapsed);
        }
        self.world.touched.insert(lease.session);
    }

    /// No tasks for `session` for a while.
    pub(crate) fn block(&mut self, session_id: SessionId, pause_ms: Millis) {
        let Some(session) = self.world.sessions.get_mut(&session_id) else { return };
        let until = (self.now + pause_ms).max(session.blocked_until.unwrap_or(0));
        session.blocked_until = Some(until);
        self.world.touched.insert(session_id);
        self.timers.set(Timer::SessionBackoff(session_id), until);
        self.contributors_changed();
    }

    /// A lease ran out. What waits behind it at the same session is stuck as
    /// well and goes to others too.
    pub(crate) fn expire(&mut self, id: LeaseId) {
        let Some(lease) = self.world.leases.get(id) else { return };
        let (session_id, lease) = (lease.session, lease.clone());
        if let LeaseState::Committed { .. } = lease.state {
            // It waited for others, not they for it.
            self.end_lease(id, Notify::Cancel(ResultOutcome::Late));
            return;
        }
        if lease.arrived.is_some() {
            // The coordinator has lost it, which is nobody's fault but its own.
            self.end_lease(id, Notify::Cancel(ResultOutcome::Withdrawn));
            return;
        }
        if self.is_held_up(&lease) {
            return self.hold_up(Timer::LeaseExpiry(id));
        }
        self.observe_late_answer(&lease);
        self.observe_slow(&lease);
        self.stats.leases_expired += 1;
        self.strike(session_id);
        self.end_lease(id, Notify::Cancel(ResultOutcome::Late));
        let Some(session) = self.world.sessions.get(&session_id) else { return };
        let stuck: Vec<LeaseId> = session
            .leases
            .iter()
            .copied()
            .filter(|&id| self.world.leases.get(id).is_some_and(Lease::is_open))
            .collect();
        for id in stuck {
            self.end_lease(id, Notify::Cancel(ResultOutcome::Late));
        }
    }

    /// Tells sessions to forget what only `job` needed. It is no longer in the world.
    pub(crate) fn forget_job(&mut self, job: JobId, graphs: &BTreeSet<GraphId>, blobs: &[BlobId]) {
        let graphs_in_use: BTreeSet<GraphId> =
            self.world.jobs.values().flat_map(|job| job.graphs()).collect();
        let shards_in_use: BTreeSet<BlobId> = self
            .world
            .jobs
            .values()
            .flat_map(|job| job.sgd.shards.iter().map(|shard| shard.blob))
            .collect();
        // Another job may have come to the same weights: equal bytes are one blob.
        let pinned: BTreeMap<SessionId, BTreeSet<BlobId>> = self
            .world
            .sessions
            .values()
            .map(|session| (session.id, self.world.pinned(session)))
            .collect();
        let mut drops = Vec::new();
        for session in self.world.sessions.values_mut() {
            let graphs: Vec<GraphId> = graphs
                .difference(&graphs_in_use)
                .copied()
                .filter(|&graph| session.holdings.forget_graph(graph))
                .collect();
            let weights = session.holdings.weights.get(&job).copied();
            let unused = blobs.iter().copied().filter(|blob| !shards_in_use.contains(blob));
            let blobs: Vec<BlobId> = weights
                .into_iter()
                .chain(unused)
                .filter(|blob| !pinned[&session.id].contains(blob))
                .filter(|&blob| session.holdings.forget_blob(blob))
                .collect();
            session.holdings.weights.remove(&job);
            session.refused.retain(|&(refused, ..)| refused != job);
            if !graphs.is_empty() || !blobs.is_empty() {
                drops.push((session.id, Outbound::Drop { blobs, graphs }));
            }
        }
        for (session, message) in drops {
            self.send(session, message);
        }
    }

    pub(crate) fn send(&mut self, session: SessionId, message: Outbound) {
        self.out.push_back(Effect::Send { session, message });
    }
}

/// Whether the holder of an ended lease is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notify {
    /// It may still be working on it; a commitment that comes yet has come to this.
    Cancel(ResultOutcome),
    /// It knows, or is gone.
    Silent,
}
