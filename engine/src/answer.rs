//! What contributors say: sessions come and go, leases are answered.

use crate::category::RefusedCategories;
use crate::dispatch::Notify;
use crate::effect::Effect;
use crate::engine::Engine;
use crate::event::SessionProfile;
use crate::job::{Cause, JobState};
use crate::lease::LeaseState;
use crate::money::FLOPS_PER_CALCULATION;
use crate::session::{Holdings, Session, Standing};
use crate::speed::{Delivered, Link, Speed};
use crate::timer::Timer;
use crate::verify::outcome::Holder;
use crate::verify::trial::{Claim, Revealed};
use crate::verify::{Identity, Trust, Verification};
use raven_protocol::{
    Backend, GoodbyeReason, JobId, LeaseId, RefuseReason, ResultDigest, ResultOutcome, SessionId,
    TaskId,
};
use std::collections::BTreeSet;

/// After a refusal that is nobody's fault: long enough not to loop, short
/// enough to go unnoticed.
const SHORT_PAUSE_MS: u64 = 1_000;

/// GPU sessions of one contributor: each of its other sessions looks at them all.
const GPUS_MAX: usize = 4;

/// No share is taken to be smaller: estimates stay finite.
const SHARE_MIN: f64 = 1e-3;

impl Engine {
    pub(crate) fn session_opened(&mut self, id: SessionId, profile: SessionProfile) {
        if self.world.sessions.contains_key(&id) {
            self.stats.ignored.out_of_turn += 1;
            return;
        }
        if self.world.sessions.len() >= self.world.config.sessions_max {
            self.stats.sessions_refused += 1;
            let detail = format!("{} sessions are open", self.world.sessions.len());
            self.out.push_back(Effect::Close { session: id, reason: GoodbyeReason::Full, detail });
            return;
        }
        let is_gpu = profile.numeric.backend() == Backend::Gpu;
        let gpus = self.world.gpus.get(&profile.contributor).map_or(0, BTreeSet::len);
        if is_gpu && gpus >= GPUS_MAX {
            self.stats.sessions_refused += 1;
            let detail = format!("{gpus} sessions of this contributor compute on GPUs");
            self.out.push_back(Effect::Close { session: id, reason: GoodbyeReason::Full, detail });
            return;
        }
        let identity = Identity::of(&profile);
        let is_excluded =
            profile.trust == Trust::Excluded || self.world.trust.of(&identity) == Trust::Excluded;
        if is_excluded && !profile.operator {
            self.stats.sessions_refused += 1;
            let detail = "a result of this contributor was proven false".to_owned();
            let reason = GoodbyeReason::Excluded;
            self.out.push_back(Effect::Close { session: id, reason, detail });
            return;
        }
        let config = &self.world.config;
        let share = sane_share(profile.share);
        let workers = profile.workers.clamp(1, 256);
        let session = Session {
            id,
            standing: Standing::Active,
            blocked_until: None,
            unread: None,
            strikes: 0,
            missed: 0,
            doubted_until: 0,
            leases: Vec::new(),
            open: 0,
            leased: self.now,
            speed: Speed::claimed(profile.flops_per_s, share),
            delivered: Delivered::default(),
            link: Link::assumed(config.link_bytes_per_s, config.round_trip_ms),
            holdings: Holdings::default(),
            refused: Default::default(),
            ended: Default::default(),
            opened: self.now,
            tasks_accepted: 0,
            flops_accepted: 0,
            profile: SessionProfile { share, workers, ..profile },
        };
        let contributor = session.profile.contributor;
        if !session.profile.operator {
            *self.contributors.entry(contributor).or_default() += 1;
        }
        if is_gpu {
            self.world.gpus.entry(contributor).or_default().insert(id);
        }
        self.world.by_contributor.entry(contributor).or_default().insert(id);
        self.world.trust.opened(identity, session.profile.trust);
        self.world.watch.trust_changed(&contributor);
        self.world.sessions.insert(id, session);
        self.world.touched.insert(id);
        self.contributors_changed();
    }

    /// The session is gone; its leases are free.
    pub(crate) fn session_closed(&mut self, id: SessionId) {
        let Some(session) = self.world.sessions.get(&id) else {
            self.stats.ignored.unknown_session += 1;
            return;
        };
        let leases = session.leases.clone();
        for lease in leases {
            self.stats.leases_lost += 1;
            self.end_lease(lease, Notify::Silent);
        }
        self.world.touched.insert(id);
        self.world.doubtful.remove(&id);
        if let Some(session) = self.world.sessions.remove(&id) {
            self.forget_session(&session);
        }
        self.timers.stop(Timer::SessionBackoff(id));
        self.contributors_changed();
    }

    /// Takes a session that is gone out of what is counted by contributor.
    fn forget_session(&mut self, session: &Session) {
        let contributor = session.profile.contributor;
        let identity = session.identity();
        // Whether one of them is its own is looked at when they are settled.
        let is_open = self.world.jobs.values().any(|job| !job.ledger.entries.is_empty());
        self.world.trust.closed(identity, is_open);
        self.world.watch.trust_changed(&contributor);
        if let Some(sessions) = self.world.by_contributor.get_mut(&contributor) {
            sessions.remove(&session.id);
            if sessions.is_empty() {
                self.world.by_contributor.remove(&contributor);
            }
        }
        if let Some(gpus) = self.world.gpus.get_mut(&contributor) {
            gpus.remove(&session.id);
            if gpus.is_empty() {
                self.world.gpus.remove(&contributor);
            }
        }
        if session.profile.operator {
            return;
        }
        if let Some(count) = self.contributors.get_mut(&contributor) {
            *count -= 1;
            if *count == 0 {
                self.contributors.remove(&contributor);
            }
        }
    }

    pub(crate) fn pace_changed(&mut self, id: SessionId, share: f64, workers: u32) {
        let Some(session) = self.world.sessions.get_mut(&id) else {
            self.stats.ignored.unknown_session += 1;
            return;
        };
        let (share, workers) = (sane_share(share), workers.clamp(1, 256));
        // The share is spread over the workers, and the speed is that of one.
        let duty = |share: f64, workers: u32| share / f64::from(workers);
        let before = duty(session.profile.share, session.profile.workers);
        session.speed.scale(duty(share, workers) / before);
        session.delivered.repace(session.profile.share, self.now);
        session.profile.share = share;
        session.profile.workers = workers;
        self.world.touched.insert(id);
        self.start_next(id);
        self.contributors_changed();
    }

    /// The kinds of jobs that a session works for are others now.
    pub(crate) fn refusal_changed(
        &mut self,
        id: SessionId,
        change: impl FnOnce(&mut RefusedCategories),
    ) {
        let Some(session) = self.world.sessions.get_mut(&id) else {
            self.stats.ignored.unknown_session += 1;
            return;
        };
        change(&mut session.profile.refused);
        self.world.touched.insert(id);
        self.contributors_changed();
    }

    pub(crate) fn standing_changed(&mut self, id: SessionId, standing: Standing) {
        let Some(session) = self.world.sessions.get_mut(&id) else {
            self.stats.ignored.unknown_session += 1;
            return;
        };
        session.standing = standing;
        self.world.touched.insert(id);
        self.contributors_changed();
    }

    /// Whether `session` is the one that may answer `lease`; counts it if not.
    pub(crate) fn may_answer(&mut self, session: SessionId, lease: LeaseId) -> bool {
        let Some(lease) = self.world.leases.get(lease) else {
            self.stats.ignored.unknown_lease += 1;
            return false;
        };
        if lease.session != session {
            self.stats.ignored.foreign_lease += 1;
            return false;
        }
        true
    }

    /// Whether a session has still to do a task of a calculation or more.
    fn has_calculations(&self, session: SessionId) -> bool {
        let leases = self.world.sessions.get(&session).map(|session| &session.leases);
        let mut leases = leases.into_iter().flatten().filter_map(|&id| self.world.leases.get(id));
        leases.any(|lease| lease.is_open() && lease.flops >= FLOPS_PER_CALCULATION)
    }

    pub(crate) fn committed(&mut self, session_id: SessionId, id: LeaseId, digest: ResultDigest) {
        if self.came_late(session_id, id) || !self.may_answer(session_id, id) {
            return;
        }
        let now = self.now;
        let Some(lease) = self.world.leases.get_mut(id).filter(|lease| lease.is_open()) else {
            self.stats.ignored.out_of_turn += 1;
            return;
        };
        let before = lease.state;
        lease.state = LeaseState::Committed { digest };
        lease.expires = now + 2 * self.world.config.lease_ms_max;
        let (job, part, flops) = (lease.job, lease.task.part, lease.flops);
        let (issued, transfer_ms) = (lease.issued, lease.transfer_ms);
        // When it said so while it was not read is not known.
        let is_timed = lease.held_up_ms == 0;
        self.timers.set(Timer::LeaseExpiry(id), lease.expires);
        self.timers.stop(Timer::LeaseOverdue(id));
        self.world.queued.remove(&id);
        self.world.overdue.remove(&id);
        // It computes: whether it sends what it came to is seen when it is asked to.
        self.world.doubtful.remove(&session_id);
        let mut is_first = false;
        let is_beside = self.has_calculations(session_id);
        if let Some(session) = self.world.sessions.get_mut(&session_id) {
            session.open -= 1;
            session.missed = 0;
            session.delivered.commit(flops, session.profile.share, is_beside, now);
            self.world.touched.insert(session_id);
            is_first = !session.speed.is_measured();
            if let (LeaseState::Running { since }, true) = (before, is_timed) {
                let elapsed = now.saturating_sub(since) as f64;
                // A task that was sent to an idle worker also crossed the wire.
                let wire = if since == issued { session.link.round_trip_ms() } else { 0.0 };
                let computing = (elapsed - transfer_ms - wire).max(elapsed * 0.25);
                session.speed.observe(flops, computing);
            }
        }
        if is_first {
            // The runs were chosen by its claim.
            self.contributors_changed();
        }
        self.start_next(session_id);
        let Some(session) = self.world.sessions.get(&session_id) else { return };
        let rates = self.world.jobs.get(&job).map(|job| job.terms.rates).unwrap_or_default();
        let claim = Claim::of(session, id, digest, rates.paid(session, now));
        let task = self.stage_mut(job).and_then(|stage| stage.tasks.get_mut(&part));
        if let Some(task) = task {
            task.trial.claims.push(claim);
            self.ask_to_project(job, &claim);
        }
        self.consider(job, part);
    }

    pub(crate) fn revealed(
        &mut self,
        session_id: SessionId,
        digest: ResultDigest,
        revealed: Revealed,
        agrees: bool,
    ) {
        let Revealed { payload, bytes, lease: id, .. } = revealed;
        self.payloads.insert(payload);
        if !self.may_answer(session_id, id) {
            self.release_payloads(vec![payload]);
            return;
        }
        let Some(LeaseState::Revealing { digest: promised, since }) =
            self.world.leases.get(id).map(|lease| lease.state)
        else {
            self.stats.ignored.out_of_turn += 1;
            self.release_payloads(vec![payload]);
            return;
        };
        if digest != promised {
            self.release_payloads(vec![payload]);
            return self.broke_commitment(session_id, id);
        }
        let lease = self.world.leases.get(id);
        let arrived = lease.and_then(|lease| lease.arrived);
        let is_timed = lease.is_some_and(|lease| lease.held_up_ms == 0);
        // How long it was checked, or lay there unread, says nothing of the link.
        let elapsed = arrived.unwrap_or(self.now).saturating_sub(since) as f64;
        if let Some(session) = self.world.sessions.get_mut(&session_id).filter(|_| is_timed) {
            session.link.observe(bytes, elapsed);
            let round_trip_ms = session.link.round_trip_ms();
            self.world.round_trip_ms_min = self.world.round_trip_ms_min.min(round_trip_ms);
        }
        let Some(lease) = self.world.leases.get_mut(id) else { return };
        // What was asked for has come.
        lease.state = LeaseState::Committed { digest };
        let lease = lease.clone();
        let task =
            self.stage_mut(lease.job).and_then(|stage| stage.tasks.get_mut(&lease.task.part));
        match task {
            // Whoever is a proven liar by now is not compared with.
            Some(task) if !task.trial.claims.iter().any(|claim| claim.lease == id) => {
                self.release_payloads(vec![payload]);
            }
            Some(task) if !task.trial.payloads.contains_key(&digest) => {
                task.trial.payloads.insert(digest, revealed);
                task.trial.panel.differ |= !agrees;
            }
            _ => self.release_payloads(vec![payload]),
        }
        // Its part is done, whatever becomes of the result; the trial goes on with it.
        self.end_lease(id, Notify::Silent);
    }

    /// A payload is not what was committed to: the commitment counts for nothing.
    pub(crate) fn broke_commitment(&mut self, session: SessionId, id: LeaseId) {
        self.stats.broken_commitments += 1;
        let Some(lease) = self.world.leases.get(id).cloned() else { return };
        let task =
            self.stage_mut(lease.job).and_then(|stage| stage.tasks.get_mut(&lease.task.part));
        let mut unused = Vec::new();
        let claim = task.map(|task| &mut task.trial).and_then(|trial| {
            let at = trial.claims.iter().position(|claim| claim.lease == id)?;
            let claim = trial.claims.remove(at);
            unused = trial.unclaimed_answers();
            Some(claim)
        });
        self.release_payloads(unused);
        let detail = format!("{id}: the payload does not match its commitment");
        let contributor = self.world.sessions.get(&session).map(|it| it.profile.contributor);
        if let Some(contributor) = contributor {
            let holder = Holder { lease: id, session, contributor };
            self.came_to(holder, ResultOutcome::BrokenCommitment);
        }
        let reason = GoodbyeReason::BrokenCommitment;
        self.out.push_back(Effect::Close { session, reason, detail });
        self.session_closed(session);
        if let Some(claim) = claim.filter(|_| !self.is_unchecked(lease.job)) {
            self.prove_lie(&claim, lease.task);
        }
    }

    pub(crate) fn refused(&mut self, session_id: SessionId, id: LeaseId, reason: RefuseReason) {
        if !self.may_answer(session_id, id) {
            return;
        }
        // Asked while the task is there: without a lease it may be cut anew.
        let is_wrong = reason == RefuseReason::Invalid && self.called_invalid(session_id, id);
        let Some(lease) = self.end_lease(id, Notify::Silent) else { return };
        if let (false, Some(session)) = (lease.is_open(), self.world.sessions.get_mut(&session_id))
        {
            session.delivered.take_back(lease.flops);
        }
        let refusals = &mut self.stats.refusals;
        match reason {
            RefuseReason::TooLarge => refusals.too_large += 1,
            RefuseReason::Unsupported => refusals.unsupported += 1,
            RefuseReason::Missing => refusals.missing += 1,
            RefuseReason::Invalid => refusals.invalid += 1,
            RefuseReason::Stopping => refusals.stopping += 1,
            RefuseReason::Failed => refusals.failed += 1,
        }
        match reason {
            RefuseReason::Stopping => self.block(session_id, SHORT_PAUSE_MS),
            RefuseReason::Failed => self.strike(session_id),
            RefuseReason::Missing => {
                // It lost what it was given (a cache was evicted): all of it
                // is sent again, after a pause that grows if it goes on.
                if let Some(session) = self.world.sessions.get_mut(&session_id) {
                    for &blob in &lease.blobs {
                        session.holdings.forget_blob(blob);
                    }
                    let graphs = self.world.jobs.get(&lease.job).map(|job| job.graphs());
                    for graph in graphs.into_iter().flatten() {
                        session.holdings.forget_graph(graph);
                    }
                }
                self.strike(session_id);
            }
            RefuseReason::TooLarge | RefuseReason::Unsupported | RefuseReason::Invalid => {
                self.not_again(session_id, &lease);
            }
        }
        if is_wrong {
            self.strike(session_id);
        }
        self.contributors_changed();
    }

    /// A task was not sent. Nobody else's can be, so its job ends, through no fault of
    /// the session's.
    pub(crate) fn unsent(&mut self, session: SessionId, id: LeaseId, reason: &str) {
        if !self.may_answer(session, id) {
            return;
        }
        let Some(lease) = self.end_lease(id, Notify::Silent) else { return };
        let reason = format!("task {} cannot be written down: {reason}", lease.task);
        self.begin_end(lease.job, JobState::Failed { cause: Cause::Coordinator, reason });
    }

    /// Does not offer this kind of task to the session again.
    fn not_again(&mut self, session: SessionId, lease: &crate::lease::Lease) {
        let Some(job) = self.world.jobs.get(&lease.job) else { return };
        let key = job.part_key(lease.task);
        if let Some(session) = self.world.sessions.get_mut(&session) {
            session.refused.insert((lease.job, lease.task.stage, key));
        }
    }

    /// Somebody says that nobody can do such a task. Only the coordinator's own
    /// computation can say so: it is asked once, and answers for all tasks of the
    /// kind. Returns whether it is known already that such a task can be done.
    fn called_invalid(&mut self, session: SessionId, lease: LeaseId) -> bool {
        let Some(lease) = self.world.leases.get(lease) else { return false };
        let (id, task) = (lease.job, lease.task);
        let Some(job) = self.world.jobs.get_mut(&id) else { return false };
        let kind = job.kind_of(task);
        if job.proven.contains(&kind) {
            return true;
        }
        job.invalid.entry(kind).or_default().insert(session);
        // Where every result is believed, one that is on its way will tell.
        let open = job.stage.as_ref().and_then(|stage| stage.tasks.get(&task.part));
        let is_claimed = open.is_some_and(|task| !task.trial.claims.is_empty());
        if is_claimed && job.plan.verification == Verification::None {
            return false;
        }
        if job.inquired.insert(kind) {
            self.ask_whether_valid(id, task.part);
        }
        false
    }

    /// A task was done: whoever called one of its kind invalid was wrong. Something
    /// is amiss with them, so they get less, and later; it says nothing of their results.
    pub(crate) fn found_valid(&mut self, id: JobId, task: TaskId) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let kind = job.kind_of(task);
        job.proven.insert(kind);
        for session in job.invalid.remove(&kind).unwrap_or_default() {
            self.strike(session);
        }
    }
}

/// A share within (0, 1], whatever was said.
fn sane_share(share: f64) -> f64 {
    if share.is_nan() { SHARE_MIN } else { share.clamp(SHARE_MIN, 1.0) }
}
