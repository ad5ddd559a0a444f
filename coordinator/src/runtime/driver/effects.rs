//! Performing the engine's effects.

use super::task::TaskBytes;
use super::{Asked, Driver, Input, executor_error};
use crate::runtime::executor::{ExecutorError, Fold, Operation, Part, Request};
use crate::runtime::judge::{Heard, Question};
use crate::runtime::leases::{Held, LeaseTable};
use crate::runtime::persister::{Item, Saving, kept_state};
use crate::store::Clock;
use axum::body::Bytes;
use raven_engine::{
    Effect, EffectError, EffectId, Event, Outbound, Outcome, PayloadId, Record, Testimony,
    TreePart, Work,
};
use raven_protocol::frame::encode;
use raven_protocol::{
    BlobId, JobId, LeaseId, Numerics, RefuseReason, SessionId, TaskId, ToContributor,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// A leased task whose frame is made later: whom to tell where it cannot be.
struct Unbuilt {
    session: SessionId,
    lease: LeaseId,
    task: TaskId,
    leases: Arc<Mutex<LeaseTable>>,
    inputs: mpsc::Sender<Input>,
}

impl Unbuilt {
    /// Has the job end for it. Blocks.
    fn tell(self, error: &ExecutorError) {
        let Unbuilt { session, lease, task, leases, inputs } = self;
        tracing::error!(%session, %lease, %task, %error, "a task was not sent");
        leases.lock().unwrap_or_else(PoisonError::into_inner).end(lease);
        let reason = error.to_string();
        // Where the driver is gone, so is its job.
        let _ = inputs.blocking_send(Input::Event(Event::Unsent { session, lease, reason }));
    }
}

/// What it means that the referee was not asked: where the question was whether a
/// task can be done at all, one that cannot be written down can be done by nobody.
fn not_asked(is_inquiry: bool, error: &ExecutorError) -> Result<Outcome, EffectError> {
    let is_stuck = matches!(error, ExecutorError::Full { .. } | ExecutorError::Stopped);
    if is_inquiry && !is_stuck {
        return Ok(Outcome::Invalid { reason: error.to_string() });
    }
    Err(executor_error(error))
}

impl Driver {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { session, message } => self.send(session, message),
            Effect::Close { session, reason, detail } => {
                if let Some(link) = self.links.get(&session) {
                    tracing::info!(%session, ?reason, detail, "closing a session");
                    link.close(reason, detail);
                }
            }
            Effect::InitState { effect, job } => {
                let operation = self.context(job).map(|context| Operation::Init { context });
                self.compute(effect, job, 0, operation);
            }
            Effect::RunLocal { effect, job, round, stage, state } => {
                let operation = self.local(job, round, stage, state);
                self.compute(effect, job, round, operation);
            }
            Effect::Combine { effect, job, round, stage, parts } => {
                let operation = self.combine(job, stage, &parts);
                self.compute(effect, job, round, operation);
            }
            Effect::Fold { job, round, total, part } => self.fold(job, round, total, part),
            Effect::Step { effect, job, round, state, parts, learning_rate, step } => {
                let operation = self.step(job, round, state, &parts, learning_rate, step);
                self.compute(effect, job, round, operation);
            }
            Effect::Evaluate { effect, job, state } => {
                let operation = self.evaluate(job, state);
                self.compute(effect, job, 0, operation);
            }
            Effect::Referee { effect, job, task, work, testimonies } => {
                self.refer(effect, job, task, &work, testimonies);
            }
            Effect::Outcome { session, lease, outcome } => {
                self.note_outcome(session, lease, outcome);
            }
            Effect::Counted { contributor, outcome, results } => {
                self.shared.metrics.outcomes[outcome as usize].add(results);
                self.shared.metrics.tallies.add(contributor, outcome, results);
            }
            Effect::Trust { identity, trust } => {
                // Whoever stores it may be gone while the coordinator goes down.
                let _ = self.lessons.send((identity, trust));
            }
            Effect::RolledBack { job, round } => self.went_back(job, round),
            Effect::Settled { job } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.relaxed.settled();
                }
            }
            Effect::Persist { effect, record } => self.persist(effect, record),
            Effect::Show { effect, job, contributor, slice } => {
                self.save(effect, job, Item::Shown { contributor, slice });
            }
            Effect::ReleasePayloads { payloads } => {
                for payload in payloads {
                    self.payloads.remove(&payload);
                    self.panels.release(payload);
                }
            }
            Effect::ReleaseState { job, state } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.release_state(state);
                }
            }
        }
    }

    fn job(&self, id: JobId) -> Result<&super::Job, ExecutorError> {
        self.jobs.get(&id).ok_or_else(|| ExecutorError::Missing { name: id.to_string() })
    }

    fn job_mut(&mut self, id: JobId) -> Result<&mut super::Job, ExecutorError> {
        self.jobs.get_mut(&id).ok_or_else(|| ExecutorError::Missing { name: id.to_string() })
    }

    fn context(&self, id: JobId) -> Result<Arc<crate::job::JobContext>, ExecutorError> {
        Ok(self.job(id)?.context.clone())
    }

    /// Submits an operation; where that fails the engine learns it at once.
    fn compute(
        &mut self,
        effect: EffectId,
        job: JobId,
        round: u32,
        operation: Result<Operation, ExecutorError>,
    ) {
        let submitted =
            operation.and_then(|operation| self.executor.submit(Request { effect, operation }));
        match submitted {
            Ok(()) => {
                self.asked.insert(effect, Asked { job, round });
            }
            Err(error) => {
                tracing::error!(%job, round, %error, "an operation was not begun");
                let outcome = Err(executor_error(&error));
                self.own_events.push_back(Event::EffectDone { effect, outcome });
            }
        }
    }

    /// Has the referee look at a task, or the engine learn at once that it will not.
    fn refer(
        &mut self,
        effect: EffectId,
        job: JobId,
        task: TaskId,
        work: &Work,
        testimonies: Vec<Testimony>,
    ) {
        let is_inquiry = testimonies.is_empty();
        if let Err(error) = self.ask_referee(effect, job, task, work, testimonies) {
            tracing::error!(%task, %error, "the referee was not asked");
            let outcome = not_asked(is_inquiry, &error);
            self.own_events.push_back(Event::EffectDone { effect, outcome });
        }
    }

    /// Hands a task whose result is in doubt to the referee.
    fn ask_referee(
        &mut self,
        effect: EffectId,
        id: JobId,
        task: TaskId,
        work: &Work,
        testimonies: Vec<Testimony>,
    ) -> Result<(), ExecutorError> {
        let heard = testimonies.into_iter().map(|testimony| {
            let payload = testimony.payload.map(|payload| self.payload(payload).cloned());
            let sketch = self.job(id)?.relaxed.sketch(testimony.lease);
            Ok(Heard { testimony, values: payload.transpose()?, sketch })
        });
        let testimonies = heard.collect::<Result<Vec<_>, ExecutorError>>()?;
        let job = self.job_mut(id)?;
        // Lease ids are drawn from 128 bits; this one is nobody's.
        let lease = LeaseId(u128::from(effect.0));
        // The module is the same whatever the job's class, and here its bits are looked at.
        let built = job.judged_frame(lease, task, work)?;
        let graph = job.graph(built.graph)?;
        let weights = match *work {
            Work::Replica { state, .. } => Some(job.state(state)?.weights().clone()),
            Work::Part { .. } => None,
        };
        let held = Held { task, expected: built.expected, product: None };
        let task = built.frame;
        let bounds = job.bounds();
        let question =
            Question { effect, job: id, graph, weights, lease, task, held, bounds, testimonies };
        self.judge.ask(question)
    }

    fn local(
        &mut self,
        job: JobId,
        round: u32,
        stage: u32,
        state: BlobId,
    ) -> Result<Operation, ExecutorError> {
        let job = self.job_mut(job)?;
        job.progress.working(Instant::now());
        job.begin_round(round, state)?;
        let context = job.context.clone();
        let seed = super::task_seed(context.plan.seed, round);
        Ok(Operation::Local { context, stage, seed, values: job.round_values()? })
    }

    fn combine(
        &self,
        job: JobId,
        stage: u32,
        parts: &[PayloadId],
    ) -> Result<Operation, ExecutorError> {
        let context = self.context(job)?;
        // A part's task has one output.
        let parts = parts.iter().map(|payload| {
            let value = self.payload(*payload)?.values().next().cloned();
            value.ok_or_else(|| ExecutorError::Missing { name: format!("{payload:?}") })
        });
        Ok(Operation::Combine { context, stage, parts: parts.collect::<Result<_, _>>()? })
    }

    /// Lets the executor begin with a result. What is wrong with it is found by its step.
    fn fold(&self, job: JobId, round: u32, total: u32, part: TreePart) {
        let (Ok(context), Ok(values)) = (self.context(job), self.payload(part.payload)) else {
            return;
        };
        let part = Part { start: part.start, count: part.count, values: values.clone() };
        self.executor.fold(Fold { context, round, total, part });
    }

    fn step(
        &mut self,
        job: JobId,
        round: u32,
        state: BlobId,
        parts: &[TreePart],
        learning_rate: f32,
        step: u32,
    ) -> Result<Operation, ExecutorError> {
        let groups = self.job_mut(job)?.groups(round)?;
        let job = self.job(job)?;
        let parts = if job.is_replica() {
            parts
                .iter()
                .map(|part| {
                    let values = self.payload(part.payload)?.clone();
                    Ok(Part { start: part.start, count: part.count, values })
                })
                .collect::<Result<Vec<_>, ExecutorError>>()?
        } else {
            vec![Part { start: 0, count: 1, values: job.cut_outputs()? }]
        };
        let (context, state) = (job.context.clone(), job.state(state)?);
        Ok(Operation::Step { context, state, round, parts, groups, learning_rate, step })
    }

    fn evaluate(&mut self, id: JobId, state: BlobId) -> Result<Operation, ExecutorError> {
        let job = self.job_mut(id)?;
        job.progress.interrupted();
        Ok(Operation::Evaluate { context: job.context.clone(), state: job.state(state)? })
    }

    /// A job begins `round` again.
    fn went_back(&mut self, id: JobId, round: u32) {
        tracing::warn!(job = %id, round, "a job goes back");
        self.executor.forget(id);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.end_round();
            // What led there may have been false.
            job.last_loss = None;
            job.relaxed.went_back(round);
        }
    }

    fn payload(
        &self,
        id: PayloadId,
    ) -> Result<&HashMap<String, crate::runtime::executor::Tensor>, ExecutorError> {
        self.payloads.get(&id).ok_or_else(|| ExecutorError::Missing { name: format!("{id:?}") })
    }

    fn persist(&mut self, effect: EffectId, record: Box<Record>) {
        let job = self.jobs.get_mut(&record.job);
        let (mut state, mut clock) = (None, Clock::default());
        if let Some(job) = job {
            if record.train.is_some() {
                job.progress.contributors = record.contributors;
            } else {
                job.progress.interrupted();
            }
            // Any state of a strict job may be published with its certificate.
            let is_strict = job.context.plan.numerics == Numerics::Strict;
            let kept = kept_state(&record).or(record.weights.filter(|_| is_strict));
            state = kept.and_then(|weights| job.state(weights).ok());
            clock = job.progress.clock();
        }
        let job = record.job;
        self.save(effect, job, Item::Record { record, state, clock });
    }

    fn save(&mut self, effect: EffectId, job: JobId, item: Item) {
        if self.savings.send(Saving { effect, job, item }).is_err() {
            let reason = "records are no longer stored".to_owned();
            let outcome = Err(EffectError { stage: "store", reason });
            self.own_events.push_back(Event::EffectDone { effect, outcome });
        }
    }

    fn send(&mut self, session: SessionId, message: Outbound) {
        // A session that has just closed is still written to until the engine knows.
        if !self.links.contains_key(&session) {
            return;
        }
        let result = match message {
            Outbound::Graph { job, graph } => {
                let frame = self.job_mut(job).and_then(|job| job.graph_frame(graph));
                frame.map(|frame| {
                    if self.fits(session, frame.len()) {
                        self.push(session, frame);
                    }
                })
            }
            Outbound::Weights { job, state } => self.send_weights(session, job, state),
            Outbound::Task { lease, task, lease_ms, flops, work } => {
                self.send_task(session, lease, task, lease_ms, flops, &work);
                Ok(())
            }
            Outbound::Project { lease, key, probes } => {
                let link = self.links.get(&session);
                if link.is_some_and(|link| link.leases().project(lease, key, probes)) {
                    self.push_message(session, &ToContributor::Project { lease, key, probes });
                }
                Ok(())
            }
            Outbound::Reveal { lease } => {
                let link = self.links.get(&session);
                // A lease that was handed back in the meantime is known to the
                // engine as soon as it reads on.
                if link.is_some_and(|link| link.leases().reveal(lease)) {
                    self.push_message(session, &ToContributor::Reveal { lease });
                }
                Ok(())
            }
            Outbound::Cancel { lease } => {
                if let Some(link) = self.links.get(&session) {
                    link.leases().end(lease);
                }
                self.push_message(session, &ToContributor::Cancel { lease });
                Ok(())
            }
            Outbound::Drop { blobs, graphs } => {
                let blobs = self.links.get_mut(&session).map(|link| link.forget(blobs));
                let blobs = blobs.unwrap_or_default();
                if !blobs.is_empty() || !graphs.is_empty() {
                    self.push_message(session, &ToContributor::Drop { blobs, graphs });
                }
                Ok(())
            }
        };
        if let Err(error) = result {
            // The task that needs it will be refused as `missing` and sent again.
            tracing::error!(%session, %error, "a message was not sent");
        }
    }

    fn send_weights(
        &mut self,
        session: SessionId,
        job: JobId,
        state: BlobId,
    ) -> Result<(), ExecutorError> {
        let weights = self.job(job)?.state(state)?.weights().clone();
        let link = self.links.get_mut(&session);
        if link.is_some_and(|link| link.hold_weights(state, weights.id))
            && self.fits(session, weights.frame.len())
        {
            self.push(session, weights.frame);
        }
        Ok(())
    }

    fn send_task(
        &mut self,
        session: SessionId,
        lease: LeaseId,
        task: TaskId,
        lease_ms: u64,
        flops: u64,
        work: &Work,
    ) {
        let built = self.job_mut(task.job).and_then(|job| {
            job.progress.working(Instant::now());
            Ok((job.about(), job.task_frame(lease, task, lease_ms, flops, work)?))
        });
        let (about, built) = match built {
            Ok(built) => built,
            Err(error) => {
                tracing::error!(%session, %lease, %task, %error, "a task was not sent");
                let reason = error.to_string();
                self.own_events.push_back(Event::Unsent { session, lease, reason });
                return;
            }
        };
        let Some(link) = self.links.get_mut(&session) else { return };
        if !link.fits(built.frame.bytes(), &built.shards, built.expected.frame_bytes()) {
            self.cap(session);
            let reason = RefuseReason::Stopping;
            self.own_events.push_back(Event::Refused { session, lease, reason });
            return;
        }
        link.tell_about(about);
        link.name_shards(&built.shards);
        let (job, round, bytes) = (task.job, task.round, built.frame.bytes());
        tracing::debug!(%session, %job, round, %task, %lease, flops, bytes, "leased");
        self.shared.metrics.leases.add(1);
        let shards = built.shards.iter().map(|shard| shard.blob);
        self.shared.grants.allow(&link.grant, shards);
        let held = Held { task, expected: built.expected, product: built.product };
        link.leases().lease(lease, held);
        match built.frame {
            TaskBytes::Ready(frame) => link.send(frame),
            TaskBytes::Deferred { bytes, build } => {
                let failed = Unbuilt {
                    session,
                    lease,
                    task,
                    leases: link.lease_table(),
                    inputs: self.shared.inputs.clone(),
                };
                let build = move || build().map_err(|error| failed.tell(&error)).ok();
                link.defer(bytes, Box::new(build));
            }
        }
    }

    fn push_message(&self, session: SessionId, message: &ToContributor) {
        self.push(session, encode(message, &[]).into());
    }

    fn push(&self, session: SessionId, frame: Bytes) {
        if let Some(link) = self.links.get(&session) {
            link.send(frame);
        }
    }
}
