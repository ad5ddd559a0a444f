//! The one task that owns the engine: events in, effects performed. It waits
//! for nothing but its inputs; what takes time is done elsewhere and comes back
//! as an event.

mod compare;
mod effects;
mod job;
mod link;
mod live;
mod outcomes;
mod parts;
mod publish;
mod task;
mod traffic;

pub use compare::{Compared, Projected, Revealed};
pub use job::NewJob;
pub use link::Opened;
pub use task::{TaskBytes, task_seed};

use super::Shared;
use super::executor::{Done, Executor, ExecutorError, Tensor};
use super::judge::{Judge, Judgment, Observed};
use super::persister::Saving;
use super::snapshot::NetworkSnapshot;
use crate::time::UnixMs;
use compare::{Comparing, Panels};
use job::Job;
use link::Link;
use raven_engine::{
    EffectError, EffectId, Engine, Event, Identity, Millis, Outcome, PayloadId, ResumePoint, Trust,
};
use raven_protocol::{GoodbyeReason, JobId, RefuseReason, SessionId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// How often the network's picture is refreshed.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(400);
/// Without timers the engine is still asked once in a while.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// What the driver is told. Sessions wait where its queue is full.
#[derive(Debug)]
pub enum Input {
    /// A session has consented.
    Opened(Box<Opened>),
    /// Anything that the engine takes as it is.
    Event(Event),
    /// Projections, as many as were asked for.
    Projected(Projected),
    /// A payload.
    Revealed(Box<Revealed>),
    /// One that was compared with projections of its task.
    Compared(Box<Compared>),
    /// What a comparison for a session came to, unless it was lost.
    Checked { session: SessionId, outcome: Option<Box<Input>> },
    /// A job that is stored.
    AddJob { job: Box<NewJob>, resume: Option<ResumePoint>, taken: oneshot::Sender<()> },
    /// The referee has computed.
    Judged { job: JobId, effect: EffectId, result: Result<Box<Judgment>, ExecutorError> },
    /// Something of a job is durable, or not.
    Saved { job: JobId, effect: EffectId, outcome: Result<Outcome, EffectError> },
}

/// What an executor's answer belongs to.
#[derive(Clone, Copy, Debug)]
struct Asked {
    job: JobId,
    round: u32,
}

/// The engine and everything that its effects touch.
#[derive(Debug)]
pub struct Driver {
    engine: Engine,
    shared: Arc<Shared>,
    start: Instant,
    jobs: HashMap<JobId, Job>,
    links: HashMap<SessionId, Link>,
    /// Of those, the ones that may move no more than what they were asked for.
    capped: HashSet<SessionId>,
    payloads: HashMap<PayloadId, HashMap<String, Tensor>>,
    /// Of these, what relaxed tasks yielded, and what was projected of results, whether
    /// they are here or not.
    panels: Panels,
    comparing: Comparing,
    next_payload: u64,
    asked: HashMap<EffectId, Asked>,
    /// Events that performing an effect led to.
    own_events: VecDeque<Event>,
    executor: Executor,
    judge: Judge,
    lessons: mpsc::UnboundedSender<(Identity, Trust)>,
    savings: mpsc::UnboundedSender<Saving>,
    snapshot: watch::Sender<Arc<NetworkSnapshot>>,
}

impl Driver {
    /// A driver around a fresh engine.
    pub fn new(
        engine: Engine,
        shared: Arc<Shared>,
        executor: Executor,
        judge: Judge,
        lessons: mpsc::UnboundedSender<(Identity, Trust)>,
        savings: mpsc::UnboundedSender<Saving>,
        snapshot: watch::Sender<Arc<NetworkSnapshot>>,
    ) -> Self {
        Driver {
            engine,
            shared,
            start: Instant::now(),
            jobs: HashMap::new(),
            links: HashMap::new(),
            capped: HashSet::new(),
            payloads: HashMap::new(),
            panels: Panels::default(),
            comparing: Comparing::default(),
            next_payload: 1,
            asked: HashMap::new(),
            own_events: VecDeque::new(),
            executor,
            judge,
            lessons,
            savings,
            snapshot,
        }
    }

    /// Serves until `stop`, then says goodbye to everyone and ends the executor.
    pub async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut done: mpsc::UnboundedReceiver<(EffectId, Result<Done, ExecutorError>)>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut refresh = interval(SNAPSHOT_EVERY);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // A stop whose sender is gone is a stop as well.
                _ = stop.wait_for(|stop| *stop) => break,
                Some((effect, result)) = done.recv() => self.computed(effect, result),
                Some(input) = inputs.recv() => self.take(input),
                () = sleep_until(self.wake()) => self.tell(Event::Tick),
                _ = refresh.tick() => {
                    self.note_traffic();
                    self.tell_outcomes();
                    self.publish();
                }
            }
        }
        for link in self.links.values() {
            link.close(GoodbyeReason::Draining, "the coordinator is going down; come back later");
        }
        drop(inputs);
        drop(done);
        let (executor, judge) = (self.executor, self.judge);
        let stop = move || {
            executor.stop();
            judge.stop();
        };
        if let Err(error) = tokio::task::spawn_blocking(stop).await {
            tracing::error!(%error, "the executor did not stop");
        }
    }

    fn now(&self) -> Millis {
        self.start.elapsed().as_millis() as Millis + self.shared.config.ahead.ms()
    }

    fn wake(&self) -> Instant {
        let tick = Instant::now() + TICK_EVERY;
        match self.engine.next_timeout() {
            // A millisecond later, so that the engine's clock has reached it.
            Some(at) => {
                let at = at.saturating_sub(self.shared.config.ahead.ms());
                tick.min(self.start + Duration::from_millis(at.saturating_add(1)))
            }
            None => tick,
        }
    }

    /// Tells the engine, and performs what it wants, until it wants nothing more.
    fn tell(&mut self, event: Event) {
        self.own_events.push_back(event);
        while let Some(event) = self.own_events.pop_front() {
            let now = self.now();
            self.engine.handle(now, event);
            while let Some(effect) = self.engine.poll_effect() {
                self.perform(effect);
            }
        }
        self.release_capped();
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Opened(opened) => {
                let (session, profile) = (opened.session, opened.profile.clone());
                let (share, workers) = (profile.share, profile.workers);
                if profile.operator {
                    tracing::info!(%session, "the operator's node is ready");
                } else {
                    tracing::info!(%session, share, workers, "a session has consented");
                }
                self.links.insert(session, Link::new(*opened));
                self.tell(Event::SessionOpened { session, profile });
            }
            Input::Event(event) => {
                if let Event::SessionClosed { session } = event {
                    self.links.remove(&session);
                    if !self.comparing.left(session) {
                        return;
                    }
                }
                self.tell(event);
            }
            Input::Projected(projected) => self.projected(projected),
            Input::Revealed(revealed) => self.revealed((*revealed).into()),
            Input::Compared(compared) => self.revealed(*compared),
            Input::Checked { session, outcome } => {
                if let Some(outcome) = outcome {
                    self.take(*outcome);
                }
                if self.comparing.ended(session) {
                    self.tell(Event::SessionClosed { session });
                }
            }
            Input::AddJob { job, resume, taken } => {
                let plan = Box::new(job.context.plan.clone());
                let terms = Box::new(job.context.terms.on(self.now(), UnixMs::now()));
                self.jobs.entry(plan.job).or_insert_with(|| Job::new(*job));
                let id = plan.job;
                self.tell(Event::JobAdded { plan, resume, terms });
                self.let_go(id);
                // The requester may have given up waiting.
                let _ = taken.send(());
            }
            Input::Judged { job, effect, result } => {
                let outcome = self.judged(job, result);
                self.tell(Event::EffectDone { effect, outcome });
                self.let_go(job);
            }
            Input::Saved { job, effect, outcome } => {
                self.tell(Event::EffectDone { effect, outcome });
                self.let_go(job);
            }
        }
    }

    /// Keeps what the referee has computed, and notes how far GPUs were from it.
    fn judged(
        &mut self,
        job: JobId,
        result: Result<Box<Judgment>, ExecutorError>,
    ) -> Result<Outcome, EffectError> {
        match result {
            Ok(judgment) => {
                let Judgment { digest, values, bytes, agrees, observed, .. } = *judgment;
                if let Some(job) = self.jobs.get_mut(&job) {
                    for Observed { contributor, vetted, distances } in &observed {
                        job.relaxed.observe(contributor, *vetted, distances);
                    }
                }
                let payload = self.hold(values);
                Ok(Outcome::Judged { digest, payload, bytes, agrees })
            }
            Err(ExecutorError::Refused { reason: RefuseReason::Invalid, detail }) => {
                Ok(Outcome::Invalid { reason: detail })
            }
            Err(error) => Err(executor_error(&error)),
        }
    }

    /// Keeps a result until the engine releases it.
    fn hold(&mut self, values: HashMap<String, Tensor>) -> PayloadId {
        let payload = self.next_payload();
        self.payloads.insert(payload, values);
        payload
    }

    fn next_payload(&mut self) -> PayloadId {
        let payload = PayloadId(self.next_payload);
        self.next_payload += 1;
        payload
    }

    /// Forgets a job that the engine no longer holds.
    fn let_go(&mut self, job: JobId) {
        if self.engine.holds(job) || self.jobs.remove(&job).is_none() {
            return;
        }
        self.executor.forget(job);
        if let Some(view) = self.engine.job(job) {
            let (tasks, slices) = (view.tasks_accepted, view.slices_shown_max);
            tracing::info!(%job, state = ?view.state, tasks, slices, "a job has ended");
        }
    }

    /// The executor has answered.
    fn computed(&mut self, effect: EffectId, result: Result<Done, ExecutorError>) {
        let outcome = match result {
            Ok(done) => Ok(self.keep(effect, done)),
            Err(error) => Err(executor_error(&error)),
        };
        self.asked.remove(&effect);
        self.tell(Event::EffectDone { effect, outcome });
    }

    /// Keeps what was computed; answers what the engine needs to know of it.
    fn keep(&mut self, effect: EffectId, done: Done) -> Outcome {
        let asked = self.asked.get(&effect);
        let mut job = asked.and_then(|asked| self.jobs.get_mut(&asked.job));
        match done {
            Done::State(state) => {
                let id = state.id();
                if let Some(job) = &mut job {
                    job.keep_state(state);
                }
                Outcome::StateReady { state: id }
            }
            Done::Stepped { state, metrics, grad_norm } => {
                let id = state.id();
                if let Some(Asked { job, round }) = asked {
                    tracing::debug!(%job, round, loss_sum = metrics.loss_sum, grad_norm, "stepped");
                }
                if let Some(job) = &mut job {
                    job.keep_state(state);
                    job.last_loss = Some(metrics.loss_sum / metrics.count);
                    job.end_round();
                    job.progress.stepped(f64::from(metrics.count), std::time::Instant::now());
                }
                Outcome::Stepped { state: id, metrics, grad_norm }
            }
            Done::Outnumbered { kept, groups } => Outcome::Outnumbered { kept, groups },
            Done::Evaluated { metrics } => Outcome::Evaluated { metrics },
            Done::Values(values) => {
                if let (Some(job), Some(asked)) = (&mut job, asked) {
                    job.define(asked.round, values);
                }
                Outcome::StageDone
            }
        }
    }
}

fn executor_error(error: &ExecutorError) -> EffectError {
    EffectError { stage: "executor", reason: error.to_string() }
}
