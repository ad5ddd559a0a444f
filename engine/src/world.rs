//! What scheduling looks at: jobs, sessions and leases, and questions to them.

use crate::active::Job;
use crate::config::EngineConfig;
use crate::event::{ContributorId, Millis};
use crate::ids::{IdMap, IdSet};
use crate::lease::{Lease, LeaseState, LeaseTable};
use crate::session::Session;
use crate::stage::Task;
use crate::verify::Verification;
use crate::verify::trust::TrustTable;
use crate::watch::Watch;
use raven_protocol::{BlobId, JobId, LeaseId, SessionId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Leases at once of somebody who is not vetted, while any job checks results.
const LEASES_OF_STRANGERS_MAX: usize = 2;

/// Everything that is alive.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) config: EngineConfig,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) leases: LeaseTable,
    /// Leases that wait behind others of their session.
    pub(crate) queued: IdSet<LeaseId>,
    /// Leases that are late against their estimate.
    pub(crate) overdue: IdSet<LeaseId>,
    /// Sessions that compute on a GPU, by whose they are.
    pub(crate) gpus: BTreeMap<ContributorId, BTreeSet<SessionId>>,
    /// Sessions whose last leases came to nothing.
    pub(crate) doubtful: BTreeSet<SessionId>,
    /// Late tasks, as far as they are to be looked at.
    pub(crate) watch: Watch,
    /// Sessions of each contributor.
    pub(crate) by_contributor: BTreeMap<ContributorId, BTreeSet<SessionId>>,
    /// Sessions that may have one more lease, as of the last [`World::refresh_ready`].
    pub(crate) ready: BTreeSet<SessionId>,
    /// Those of them that compute nothing now.
    pub(crate) idle: Idle,
    /// The shortest round trip of any session so far, in ms.
    pub(crate) round_trip_ms_min: f64,
    /// Sessions for which that may have changed since.
    pub(crate) touched: BTreeSet<SessionId>,
    /// What is known of those who compute.
    pub(crate) trust: TrustTable,
    /// Results of each contributor that the referee is computing or is to compute.
    pub(crate) judged: BTreeMap<ContributorId, usize>,
    /// Questions to the referee that are not answered.
    pub(crate) cases: usize,
}

/// Sessions that may have a lease and have none to compute, by id and by speed.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    /// Bits of the speed of one worker, in flops per ms: positive numbers are in the
    /// order of their bits.
    speeds: IdMap<SessionId, u64>,
    fastest: BTreeSet<(Reverse<u64>, SessionId)>,
}

impl Idle {
    /// Enters a session with the speed of one of its workers, or takes it out.
    fn set(&mut self, id: SessionId, flops_per_ms: Option<f64>) {
        let bits = flops_per_ms.map(f64::to_bits);
        let before = match bits {
            Some(bits) => self.speeds.insert(id, bits),
            None => self.speeds.remove(&id),
        };
        if before == bits {
            return;
        }
        if let Some(before) = before {
            self.fastest.remove(&(Reverse(before), id));
        }
        if let Some(bits) = bits {
            self.fastest.insert((Reverse(bits), id));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.speeds.is_empty()
    }

    fn speed(&self, id: SessionId) -> Option<f64> {
        self.speeds.get(&id).copied().map(f64::from_bits)
    }

    /// From the fastest to the slowest, with the speed of one worker.
    pub(crate) fn by_speed(&self) -> impl Iterator<Item = (f64, SessionId)> + '_ {
        self.fastest.iter().map(|&(Reverse(bits), id)| (f64::from_bits(bits), id))
    }
}

impl World {
    /// Judges anew who may have one more lease, among those who changed: looking
    /// at everybody after every event would cost more than the event.
    pub(crate) fn refresh_ready(&mut self) {
        while let Some(id) = self.touched.pop_first() {
            let session = self.sessions.get(&id);
            let ready = session.filter(|session| self.has_capacity(session));
            let idle = ready.filter(|session| session.open == 0);
            let idle = idle.map(|session| session.speed.flops_per_ms());
            if ready.is_some() {
                self.ready.insert(id);
            } else {
                self.ready.remove(&id);
            }
            self.idle.set(id, idle);
        }
        debug_assert!(
            self.sessions.values().all(|s| self.ready.contains(&s.id) == self.has_capacity(s)),
            "every change of a session touches it"
        );
        debug_assert!(
            self.sessions.values().all(|session| {
                let is_idle = session.open == 0 && self.has_capacity(session);
                let speed = is_idle.then(|| session.speed.flops_per_ms());
                self.idle.speed(session.id) == speed
            }),
            "so does every lease that it has"
        );
    }

    /// Somebody's leases came to nothing: what it holds may do so, too.
    pub(crate) fn doubt(&mut self, id: SessionId) {
        if !self.doubtful.insert(id) {
            return;
        }
        let leases = self.sessions.get(&id).map(|session| session.leases.as_slice());
        for lease in leases.into_iter().flatten().filter_map(|&id| self.leases.get(id)) {
            self.watch.changed((lease.job, lease.task.part));
        }
    }

    /// What is known of a contributor has changed, and with it the capacity of
    /// its sessions.
    pub(crate) fn touch_contributor(&mut self, contributor: &ContributorId) {
        let sessions = self.by_contributor.get(contributor);
        self.touched.extend(sessions.into_iter().flatten());
    }

    /// One more result of a contributor is the referee's to compute, or one less.
    pub(crate) fn note_judged(&mut self, contributor: ContributorId, more: bool) {
        let count = self.judged.entry(contributor).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.judged.remove(&contributor);
        }
        self.touch_contributor(&contributor);
    }

    /// Whether nothing new of `job` is begun until the referee has room: its results
    /// may have to be computed there.
    pub(crate) fn is_held_back(&self, job: &Job) -> bool {
        job.plan.verification != Verification::None && self.cases >= self.config.cases_max
    }

    /// Whether `session` may have one more lease.
    pub(crate) fn has_capacity(&self, session: &Session) -> bool {
        let config = &self.config;
        // What costs least is looked at first.
        if !session.is_available() || session.open >= session.open_max(config.leases_per_worker) {
            return false;
        }
        // Committed leases wait for the wire: as many again as the workers
        // have in hand keep it busy, more would only pile up.
        let per_worker = config.leases_per_worker.saturating_mul(2);
        let total = session.profile.workers.saturating_mul(per_worker);
        let total = total.min(config.leases_per_session_max) as usize;
        // Whoever may be lying does not fill the referee's desk.
        let is_known = session.profile.operator
            || self.trust.of(&session.identity()).is_vetted(config)
            || self.jobs.values().all(|job| job.plan.verification == Verification::None);
        let judged = || self.judged.get(&session.profile.contributor).copied().unwrap_or(0);
        match is_known {
            true => session.leases.len() < total,
            false => session.leases.len() + judged() < total.min(LEASES_OF_STRANGERS_MAX),
        }
    }

    /// What decides on everybody's capacity has changed.
    pub(crate) fn touch_all(&mut self) {
        self.touched.extend(self.sessions.keys());
    }

    /// Leases of `task` whose payload was asked for and is late.
    pub(crate) fn late_payloads(&self, task: &Task) -> BTreeSet<LeaseId> {
        let is_late = |id: &&LeaseId| {
            let state = self.leases.get(**id).map(|lease| lease.state);
            matches!(state, Some(LeaseState::Revealing { .. })) && self.overdue.contains(id)
        };
        task.leases.iter().filter(is_late).copied().collect()
    }

    /// Blobs that the session's leases read.
    pub(crate) fn pinned(&self, session: &Session) -> BTreeSet<BlobId> {
        self.reading(session).copied().collect()
    }

    /// Whether a lease of the session reads `blob`.
    pub(crate) fn is_pinned(&self, session: &Session, blob: &BlobId) -> bool {
        self.reading(session).any(|read| read == blob)
    }

    fn reading<'a>(&'a self, session: &'a Session) -> impl Iterator<Item = &'a BlobId> {
        let leases = session.leases.iter().filter_map(|&id| self.leases.get(id));
        leases.filter(|lease| lease.is_open()).flat_map(|lease| &lease.blobs)
    }

    /// When each worker of `session` has finished what it has, in ms from now,
    /// and when `until` (if given) is finished.
    fn worker_ends(
        &self,
        session: &Session,
        until: Option<LeaseId>,
        now: Millis,
    ) -> (Vec<f64>, Option<f64>) {
        let mut ends: Vec<f64> = Vec::with_capacity(session.profile.workers as usize);
        let leases = || session.leases.iter().filter_map(|&id| self.leases.get(id));
        for lease in leases() {
            if let LeaseState::Running { since } = lease.state {
                let left = lease.estimate_ms - now.saturating_sub(since) as f64;
                // A task that is late is expected to stay as late again.
                ends.push(left.abs());
                if until == Some(lease.id) {
                    return (ends, Some(left.abs()));
                }
            }
        }
        ends.resize(session.profile.workers.max(1) as usize, 0.0);
        for lease in leases().filter(|lease| lease.state == LeaseState::Queued) {
            let Some(first) = ends.iter_mut().min_by(|a, b| a.total_cmp(b)) else { break };
            *first += lease.estimate_ms;
            if until == Some(lease.id) {
                let end = *first;
                return (ends, Some(end));
            }
        }
        (ends, None)
    }

    /// Milliseconds until a worker of `session` is free.
    pub(crate) fn queue_ms(&self, session: &Session, now: Millis) -> f64 {
        if session.open < session.profile.workers {
            return 0.0;
        }
        let (ends, _) = self.worker_ends(session, None, now);
        ends.into_iter().fold(f64::INFINITY, f64::min)
    }

    /// Milliseconds until `lease` of `session` would be committed.
    pub(crate) fn ends_ms(&self, session: &Session, lease: LeaseId, now: Millis) -> Option<f64> {
        self.worker_ends(session, Some(lease), now).1
    }

    /// Estimated time from asking for a lease's payload to its arrival.
    pub(crate) fn reveal_ms(&self, lease: &Lease) -> f64 {
        let session = self.sessions.get(&lease.session);
        session.map_or(0.0, |session| {
            let behind = session.leases.iter().filter_map(|&id| self.leases.get(id));
            let revealing =
                behind.filter(|other| matches!(other.state, LeaseState::Revealing { .. })).count();
            session.link.fetch_ms(lease.result_bytes) * revealing.max(1) as f64
        })
    }
}
