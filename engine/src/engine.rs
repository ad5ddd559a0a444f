//! The engine: events in, effects out.

use crate::active::Job;
use crate::config::EngineConfig;
use crate::effect::{Effect, EffectId};
use crate::ending::TurnedAway;
use crate::event::{ContributorId, Event, Millis, PayloadId};
use crate::ids::IdSet;
use crate::job::{Cause, JobPhase, JobState};
use crate::lease::LeaseTable;
use crate::progress::Pending;
use crate::scheduler;
use crate::session::{Session, Standing};
use crate::stats::{Stats, Window};
use crate::terms::Spent;
use crate::timer::{Timer, TimerTable};
use crate::verify::Case;
use crate::verify::trial::Revealed;
use crate::verify::trust::TrustTable;
use crate::view::{JobView, SessionStatus, SessionView};
use crate::watch::Watch;
use crate::world::{Idle, World};
use raven_protocol::{JobId, SessionId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Jobs, rounds, leases and sessions of one coordinator.
///
/// The shell calls [`Engine::handle`] with whatever happens, then takes
/// effects until there are none, then sleeps until [`Engine::next_timeout`] or
/// the next event. The engine reads no clock: `now` is the shell's, in
/// milliseconds, and never goes back.
#[derive(Debug)]
pub struct Engine {
    pub(crate) world: World,
    pub(crate) now: Millis,
    pub(crate) timers: TimerTable,
    /// Effects that the shell has not taken.
    pub(crate) out: VecDeque<Effect>,
    pub(crate) pending: BTreeMap<EffectId, Pending>,
    pub(crate) next_effect: u64,
    /// What the referee is computing or is to compute.
    pub(crate) cases: BTreeMap<EffectId, Case>,
    /// Questions for which its desk had no room.
    pub(crate) docket: VecDeque<Effect>,
    /// Keys of projections so far: none is used twice.
    pub(crate) keys_drawn: u64,
    /// Payloads that the shell holds for the engine.
    pub(crate) payloads: IdSet<PayloadId>,
    /// Open sessions of each contributor.
    pub(crate) contributors: BTreeMap<ContributorId, u32>,
    /// Jobs that wait to run, oldest first.
    pub(crate) queue: VecDeque<JobId>,
    /// Jobs that were turned away and whose end is not durable yet.
    pub(crate) turned_away: BTreeMap<JobId, TurnedAway>,
    /// Views of ended jobs, oldest first.
    pub(crate) ended: VecDeque<JobView>,
    /// When waiting tasks may be moved to idle sessions again.
    pub(crate) moves_due: Millis,
    /// When tasks without a partner may be looked for again.
    pub(crate) partners_due: Millis,
    pub(crate) stats: Stats,
    pub(crate) window: Window,
}

impl Engine {
    /// An engine without jobs and sessions.
    pub fn new(config: EngineConfig) -> Self {
        Engine {
            now: 0,
            timers: TimerTable::default(),
            out: VecDeque::new(),
            pending: BTreeMap::new(),
            next_effect: 1,
            cases: BTreeMap::new(),
            docket: VecDeque::new(),
            keys_drawn: 0,
            payloads: IdSet::default(),
            contributors: BTreeMap::new(),
            queue: VecDeque::new(),
            turned_away: BTreeMap::new(),
            ended: VecDeque::new(),
            moves_due: 0,
            partners_due: 0,
            stats: Stats::default(),
            window: Window::default(),
            world: World {
                jobs: BTreeMap::new(),
                sessions: BTreeMap::new(),
                leases: LeaseTable::new(config.seed),
                queued: IdSet::default(),
                overdue: IdSet::default(),
                gpus: BTreeMap::new(),
                doubtful: BTreeSet::new(),
                watch: Watch::default(),
                by_contributor: BTreeMap::new(),
                ready: BTreeSet::new(),
                idle: Idle::default(),
                round_trip_ms_min: config.round_trip_ms as f64,
                touched: BTreeSet::new(),
                trust: TrustTable::default(),
                judged: BTreeMap::new(),
                cases: 0,
                config,
            },
        }
    }

    /// Takes in one event, then whatever timers are due, then gives out work.
    pub fn handle(&mut self, now: Millis, event: Event) {
        self.now = self.now.max(now);
        self.hears(&event);
        match event {
            Event::Tick => {}
            Event::JobAdded { plan, resume, terms } => self.job_added(*plan, resume, *terms),
            Event::JobCancelled { job } => {
                self.begin_end(job, JobState::Cancelled { cause: Cause::Owner });
            }
            Event::ToppedUp { job, escrow } => self.topped_up(job, escrow),
            Event::SessionOpened { session, profile } => self.session_opened(session, profile),
            Event::SessionClosed { session } => self.session_closed(session),
            Event::PaceChanged { session, share, workers } => {
                self.pace_changed(session, share, workers);
            }
            Event::TrafficLeft { session, bytes } => {
                if let Some(session) = self.world.sessions.get_mut(&session) {
                    session.profile.traffic_bytes = Some(bytes);
                }
            }
            Event::SiteRefuses { session, categories } => {
                self.refusal_changed(session, |refused| refused.by_site = categories);
            }
            Event::VisitorRefuses { session, categories } => {
                self.refusal_changed(session, |refused| refused.by_visitor = categories);
            }
            Event::Paused { session } => self.standing_changed(session, Standing::Paused),
            Event::Resumed { session } => self.standing_changed(session, Standing::Active),
            Event::Committed { session, lease, digest } => self.committed(session, lease, digest),
            Event::Arrived { session, lease, check } => self.arrived(session, lease, check),
            Event::Projected { session, lease, projection, bytes, agrees } => {
                self.projected(session, lease, projection, bytes, agrees);
            }
            Event::Misprojected { session, lease } => self.misprojected(session, lease),
            Event::Revealed { session, lease, digest, payload, bytes, odd, agrees } => {
                self.revealed(session, digest, Revealed { payload, bytes, lease, odd }, agrees);
            }
            Event::Unsent { session, lease, reason } => self.unsent(session, lease, &reason),
            Event::Refused { session, lease, reason } => self.refused(session, lease, reason),
            Event::EffectDone { effect, outcome } => self.effect_done(effect, outcome),
        }
        self.fire_timers();
        self.pump();
    }

    fn fire_timers(&mut self) {
        while let Some(timer) = self.timers.pop_due(self.now) {
            match timer {
                Timer::LeaseExpiry(lease) => self.expire(lease),
                Timer::LeaseOverdue(lease) => self.overdue(lease),
                Timer::SessionBackoff(session) => {
                    if let Some(session) = self.world.sessions.get_mut(&session) {
                        session.blocked_until = None;
                        self.world.touched.insert(session.id);
                    }
                    self.contributors_changed();
                }
                // The pump looks after it.
                Timer::Partner => {}
                Timer::SaveEnd(job) => self.save_end(job),
                Timer::Deadline(job) => self.deadline_passed(job),
                Timer::Fallback(job) => self.fall_back(job),
            }
        }
    }

    /// The next thing to do. Take them all after every [`Engine::handle`].
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.out.pop_front()
    }

    /// When to call [`Engine::handle`] with [`Event::Tick`] at the latest.
    pub fn next_timeout(&self) -> Option<Millis> {
        self.timers.next()
    }

    /// Ended jobs, oldest first, then open ones by id.
    pub fn jobs(&self) -> Vec<JobView> {
        let open = self.world.jobs.values().map(|job| self.job_view(job));
        self.ended.iter().cloned().chain(open).collect()
    }

    /// One job, open or ended not long ago.
    pub fn job(&self, id: JobId) -> Option<JobView> {
        let open = self.world.jobs.get(&id).map(|job| self.job_view(job));
        open.or_else(|| self.ended.iter().rev().find(|view| view.job == id).cloned())
    }

    /// Whether the job is open, or its end not durable yet.
    pub fn holds(&self, id: JobId) -> bool {
        self.world.jobs.contains_key(&id) || self.turned_away.contains_key(&id)
    }

    /// Whether a session works on nothing and no job's work fits into what its
    /// visit may still move.
    pub fn is_spent(&self, id: SessionId) -> bool {
        let session = self.world.sessions.get(&id);
        session.is_some_and(|session| {
            session.leases.is_empty() && scheduler::is_spent(&self.world, session)
        })
    }

    /// Open sessions by id.
    pub fn sessions(&self) -> Vec<SessionView> {
        self.world.sessions.values().map(session_view).collect()
    }

    /// The phase of every open job, by id.
    pub fn phases(&self) -> impl Iterator<Item = (JobId, JobPhase)> + '_ {
        self.world.jobs.values().map(|job| (job.id, job.phase()))
    }

    /// Counts and sizes; rates are as of `now`.
    pub fn stats(&self, now: Millis) -> Stats {
        let (tasks_per_s, flops_per_s) = self.window.rates(now.max(self.now));
        Stats { tasks_per_s, flops_per_s, ..self.counts() }
    }

    /// The same without rates, which costs little.
    pub fn counts(&self) -> Stats {
        Stats {
            sessions_open: self.world.sessions.len(),
            contributors_online: self.contributors.len(),
            jobs_open: self.world.jobs.len(),
            leases_open: self.world.leases.len(),
            timers_armed: self.timers.len(),
            effects_open: self.pending.len(),
            payloads_held: self.payloads.len(),
            identities_known: self.world.trust.len(),
            unsettled: self.world.jobs.values().map(|job| job.ledger.entries.len()).sum(),
            ..self.stats.clone()
        }
    }

    pub(crate) fn job_view(&self, job: &Job) -> JobView {
        let leases = job.stage.iter().flat_map(|stage| stage.tasks.values());
        JobView {
            job: job.id,
            state: job.state(),
            step: job.driver.step(),
            total_steps: job.driver.total_steps(),
            epochs_done: job.driver.epochs_done(),
            weights: job.driver.state(),
            best: job.driver.best(),
            train: job.train,
            evaluation: job.evaluation,
            tasks_accepted: job.tasks_accepted,
            flops_accepted: job.flops_accepted,
            contributors: job.contributors,
            leases: leases.map(|task| task.leases.len()).sum(),
            slices_shown_max: job.shown.values().map(BTreeSet::len).max().unwrap_or(0),
            unsettled: job.ledger.entries.len(),
            rollbacks: job.ledger.rollbacks,
            setbacks: job.ledger.setbacks,
            spent: job.spent,
        }
    }
}

impl JobView {
    /// A job that was turned away.
    pub(crate) fn refused(job: JobId, state: JobState) -> Self {
        JobView {
            job,
            state,
            step: 0,
            total_steps: 0,
            epochs_done: 0,
            weights: None,
            best: None,
            train: None,
            evaluation: None,
            tasks_accepted: 0,
            flops_accepted: 0,
            contributors: 0,
            leases: 0,
            slices_shown_max: 0,
            unsettled: 0,
            rollbacks: 0,
            setbacks: 0,
            spent: Spent::default(),
        }
    }
}

fn session_view(session: &Session) -> SessionView {
    let status = match (session.standing, session.blocked_until) {
        (Standing::Paused, _) => SessionStatus::Paused,
        (Standing::Active, Some(until)) => SessionStatus::BackingOff { until },
        (Standing::Active, None) if session.leases.is_empty() => SessionStatus::Idle,
        (Standing::Active, None) => SessionStatus::Working,
    };
    SessionView {
        session: session.id,
        contributor: session.profile.contributor,
        site: session.profile.site,
        device: session.profile.device,
        share: session.profile.share,
        workers: session.profile.workers,
        status,
        opened: session.opened,
        flops_per_s: session.flops_per_ms() * 1e3,
        measured: session.speed.is_measured(),
        leases: session.leases.len(),
        tasks_accepted: session.tasks_accepted,
        flops_accepted: session.flops_accepted,
        held_bytes: session.holdings.bytes(),
    }
}
