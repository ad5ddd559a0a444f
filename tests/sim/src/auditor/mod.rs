//! An independent model of what the engine may do, told of every event before
//! the engine and of every effect after it. It keeps its own books and shares
//! no code with the engine's state machine. After each event it looks at what
//! that event touched, now and then at everything.

mod asked;
mod books;
mod job;
mod lease;
mod outcome;
mod session;
mod unread;
mod whole;

use crate::ids::{IdMap, IdSet};
use crate::shell::Shell;
use asked::ModelEffect;
use job::ModelJob;
use lease::{ModelLease, StageKey};
use outcome::Given;
use raven_engine::{
    Effect, EffectId, Engine, EngineConfig, Event, JobPhase, JobState, JobView, PayloadId,
    ResumePoint, Work,
};
use raven_protocol::{BlobId, JobId, LeaseId, ResultOutcome, Seed, SessionId, TaskId};
use session::ModelSession;
use std::collections::BTreeMap;
use unread::Unread;

/// Events between two looks at everything.
const WHOLE_EVERY: u64 = 4_096;

/// The model.
#[derive(Debug)]
pub struct Auditor {
    config: EngineConfig,
    sessions: IdMap<SessionId, ModelSession>,
    live: IdMap<LeaseId, ModelLease>,
    /// By stage: what live leases are of, and how many there are of each.
    extents: BTreeMap<StageKey, BTreeMap<u32, (u32, usize)>>,
    /// How many open effects read each payload and each state.
    payload_readers: IdMap<PayloadId, u32>,
    state_readers: IdMap<(JobId, BlobId), u32>,
    /// Every lease id that was ever given out, with what came of it.
    given: IdMap<LeaseId, Given>,
    jobs: BTreeMap<JobId, ModelJob>,
    effects: IdMap<EffectId, ModelEffect>,
    payloads: IdSet<PayloadId>,
    /// Keys of projections, with what they were drawn for.
    keys: IdMap<Seed, TaskId>,
    /// States that the shell keeps, by job: two jobs may come to equal weights.
    states: IdSet<(JobId, BlobId)>,
    accepted: u64,
    /// Where each job stood after the last event.
    phases: BTreeMap<JobId, JobPhase>,
    checks: u64,
    /// The lease that the event in hand must make the engine accept.
    expected: Option<LeaseId>,
    /// How many results came to what.
    counted: BTreeMap<ResultOutcome, u64>,
    unread: Unread,
}

impl Auditor {
    pub fn new(config: EngineConfig) -> Self {
        Auditor {
            config,
            sessions: IdMap::default(),
            live: IdMap::default(),
            extents: BTreeMap::new(),
            payload_readers: IdMap::default(),
            state_readers: IdMap::default(),
            given: IdMap::default(),
            jobs: BTreeMap::new(),
            effects: IdMap::default(),
            payloads: IdSet::default(),
            keys: IdMap::default(),
            states: IdSet::default(),
            accepted: 0,
            phases: BTreeMap::new(),
            checks: 0,
            expected: None,
            counted: BTreeMap::new(),
            unread: Unread::default(),
        }
    }

    /// A job goes on from a checkpoint of an earlier coordinator, which also
    /// read the rows of the epoch so far.
    pub fn resumed(&mut self, job: JobId, point: &ResumePoint) {
        self.states.insert((job, point.weights));
        let job = self.jobs.entry(job).or_default();
        job.durable.insert(point.weights);
        job.resumed_at = point.step;
        job.attempt = point.rollbacks + point.setbacks.len() as u32;
        job.credited_rounds = point.credited_rounds;
        job.books.resumed(&point.spent, point.credited_rounds);
        job.shown.clone_from(&point.shown);
    }

    /// An event that the engine is about to be told.
    pub fn event(&mut self, event: &Event) {
        self.unread.event(event);
        match event {
            Event::SessionOpened { session, profile } => self.opened(*session, profile),
            Event::SessionClosed { session } => self.close(*session),
            Event::PaceChanged { session, share, workers } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.profile.share = *share;
                    session.profile.workers = *workers;
                }
            }
            Event::Committed { session, lease, digest } => {
                self.committed(*session, *lease, *digest);
            }
            Event::Revealed { session, lease, digest, payload, .. } => {
                assert!(self.payloads.insert(*payload), "{payload:?} was used twice");
                self.revealed(*session, *lease, *digest, *payload);
            }
            Event::Projected { projection, .. } => {
                assert!(self.payloads.insert(*projection), "{projection:?} was used twice");
            }
            Event::Refused { session, lease, reason } => self.refused(*session, *lease, *reason),
            Event::EffectDone { effect, outcome } => self.effect_done(*effect, outcome),
            Event::JobAdded { plan, terms, .. } => self.added(plan, terms.allowance),
            Event::Tick
            | Event::JobCancelled { .. }
            | Event::ToppedUp { .. }
            | Event::Paused { .. }
            | Event::Resumed { .. }
            | Event::Arrived { .. }
            | Event::Misprojected { .. }
            | Event::SiteRefuses { .. }
            | Event::VisitorRefuses { .. }
            | Event::Unsent { .. }
            | Event::TrafficLeft { .. } => {}
        }
    }

    /// An effect that the engine asked for.
    pub fn effect(&mut self, effect: &Effect, shell: &mut Shell) {
        match effect {
            Effect::Send { session, message } => self.sent(*session, message, shell),
            Effect::Close { session, .. } => self.close(*session),
            Effect::InitState { effect, job } => self.asked(*effect, *job, vec![], None, None),
            Effect::RunLocal { effect, job, state, .. } => {
                self.asked(*effect, *job, vec![], Some(*state), None);
            }
            Effect::Combine { effect, job, parts, .. } if self.jobs[job].checked => {
                self.asked(*effect, *job, parts.clone(), None, None);
            }
            Effect::Combine { effect, job, round, stage, parts } => {
                self.combines(*job, *round, *stage, parts);
                self.asked(*effect, *job, parts.clone(), None, None);
            }
            Effect::Fold { job, round, total, part } => {
                self.folds(*job, *round, *total, part, shell);
            }
            Effect::Step { effect, job, round, state, parts, step, .. } => {
                self.step(*job, *round, *step, parts, shell);
                let payloads = parts.iter().map(|part| part.payload).collect();
                self.asked(*effect, *job, payloads, Some(*state), None);
            }
            Effect::Evaluate { effect, job, state } => {
                self.asked(*effect, *job, vec![], Some(*state), None);
            }
            Effect::Persist { effect, record } => {
                self.persist(record);
                self.asked(*effect, record.job, vec![], None, Some(record.clone()));
            }
            Effect::Referee { effect, job, work, testimonies, .. } => {
                let reads = testimonies.iter().filter_map(|testimony| testimony.payload).collect();
                let state = match *work {
                    Work::Replica { state, .. } | Work::Part { state, .. } => state,
                };
                self.asked(*effect, *job, reads, Some(state), None);
            }
            Effect::Trust { .. } | Effect::Settled { .. } => {}
            Effect::Outcome { lease, outcome, .. } => self.came_to(*lease, *outcome),
            Effect::Counted { outcome, results, .. } => {
                *self.counted.entry(*outcome).or_default() += results;
            }
            Effect::RolledBack { job, round } => self.rolled_back(*job, *round),
            Effect::Show { effect, job, contributor, slice } => {
                self.asked(*effect, *job, vec![], None, None);
                let shows = Some((*contributor, *slice));
                self.effects.get_mut(effect).expect("it was asked").shows = shows;
            }
            Effect::ReleasePayloads { payloads } => self.released(payloads),
            Effect::ReleaseState { job, state } => self.released_state(*job, *state),
        }
    }

    /// After each event: the engine's counts are the model's. What is kept of live
    /// leases and open effects is checked as they come and go, and counted anew
    /// every so many events.
    pub fn check(&mut self, engine: &Engine, now: u64) {
        self.checks += 1;
        if self.checks.is_multiple_of(WHOLE_EVERY) {
            self.check_whole(engine);
        }
        let stats = engine.counts();
        self.accepted += u64::from(self.expected.take().is_some());
        // Acceptance of a checked part shows only in what its stage combines.
        let is_hidden = |job: &ModelJob| job.checked && job.shown_parts;
        if !self.jobs.values().any(is_hidden) {
            assert_eq!(stats.tasks_accepted, self.accepted, "accepted tasks");
        }
        assert_eq!(stats.leases_open, self.live.len(), "live leases");
        self.unread.check(stats.leases_expired);
        assert_eq!(stats.effects_open, self.effects.len(), "open effects");
        assert_eq!(stats.payloads_held, self.payloads.len(), "held payloads");
        assert!(stats.sessions_open <= self.config.sessions_max);
        assert!(stats.jobs_open <= self.config.jobs_max);
        // Two timers per lease, one per session; a job's deadline, its fallback, and the end
        // that the store did not take.
        let timers_max = 2 * stats.leases_open + stats.sessions_open + 3 * self.jobs.len() + 1;
        assert!(stats.timers_armed <= timers_max, "timers");
        for (job, phase) in engine.phases() {
            self.phase(job, phase);
        }
        for (id, job) in &mut self.jobs {
            if job.books.closes() {
                let view = engine.job(*id).expect("it has ended just now");
                job.books.compare(*id, &view.spent);
            }
        }
        if let Some(timeout) = engine.next_timeout() {
            assert!(timeout > now, "a timer that is due has fired");
        }
    }

    fn phase(&mut self, job: JobId, now: JobPhase) {
        // An end counts once it is durable: a completion on its way overtakes a wish to end.
        if now.is_end() && self.jobs.get(&job).is_some_and(|job| !job.ended) {
            return;
        }
        let before = self.phases.insert(job, now).unwrap_or(JobPhase::Queued);
        assert!(before == now || before.may_become(now), "{job}: {before} became {now}");
    }

    /// A job that has not ended is being worked on or says why not.
    pub fn excuse(&self, job: &JobView) {
        if job.state.is_end() {
            return;
        }
        let working = job.leases > 0 || self.effects.values().any(|effect| effect.job == job.job);
        let says_why = match &job.state {
            JobState::WaitingForContributors { reason } => !reason.is_empty(),
            JobState::Queued | JobState::Paused { .. } => true,
            _ => false,
        };
        assert!(working || says_why, "{} stands still: {:?}", job.job, job.state);
    }

    /// After the end: nothing is left over.
    pub fn finish(&mut self, engine: &Engine, shell: &Shell) {
        self.check_whole(engine);
        let stats = engine.stats(0);
        assert_eq!((stats.leases_open, self.live.len()), (0, 0), "leases are left");
        assert_eq!(stats.timers_armed, 0, "timers are left");
        assert_eq!((stats.effects_open, self.effects.len()), (0, 0), "effects are left");
        assert_eq!((stats.payloads_held, self.payloads.len()), (0, 0), "payloads are left");
        assert!(shell.payloads.is_empty(), "the shell keeps payloads");
        assert!(self.states.is_empty() && shell.states.is_empty(), "states are left");
        assert_eq!((stats.sessions_open, stats.jobs_open), (0, 0));
        let mut paid = 0;
        let executions: usize = self.jobs.values().map(|job| job.executions.len()).sum();
        for (id, job) in &self.jobs {
            assert!(job.ended, "{id}: its end is not durable");
            assert!(job.unpaid.is_empty(), "{id}: accepted work was not paid");
            paid += job.paid.len() + job.unpaid.len();
        }
        self.check_outcomes(executions + paid);
        if !self.jobs.values().any(|job| job.checked) {
            assert_eq!(paid as u64, self.accepted, "credits equal accepted tasks");
        }
        for job in engine.jobs() {
            assert!(job.state.is_end(), "{} has not ended", job.job);
            if job.state.phase() == JobPhase::Completed {
                assert!(job.step <= job.total_steps);
            }
        }
    }
}
