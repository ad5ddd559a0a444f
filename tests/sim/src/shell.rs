//! The coordinator's shell: runs effects, keeps payloads and states.

use crate::ids::IdMap;
use crate::kernel::{Kernel, Value, digest_of, state_of};
use crate::relaxed::{Bounds, Vector};
use raven_engine::{
    Agreement, Effect, EffectId, Metrics, Outcome, PayloadId, Record, Testimony, Work, tree,
};
use raven_protocol::{Backend, BlobId, JobId, LeaseId, ResultDigest, Seed, TaskId};
use std::collections::BTreeMap;

/// What a job's numbers do, to reach the ends of the state machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Story {
    /// The loss of this step is NaN.
    pub nan_at_step: Option<u32>,
    /// From this evaluation on the loss stays as it is.
    pub plateau_after: Option<u32>,
    /// The losses of the evaluations, one after another.
    pub losses: Option<&'static [f32]>,
    /// From this step on the loss explodes, at learning rates above this.
    pub explodes: Option<(u32, f32)>,
}

/// The shell.
#[derive(Debug, Default)]
pub struct Shell {
    pub kernel: Kernel,
    pub payloads: IdMap<PayloadId, Value>,
    /// Of these, the tensors that GPUs came to.
    pub vectors: IdMap<PayloadId, Vector>,
    /// What was shown of a task.
    pub shown: IdMap<PayloadId, (TaskId, Vector)>,
    /// And those that are projections, with the key and the task that they are of.
    pub projections: IdMap<PayloadId, (TaskId, Seed, Vec<f64>)>,
    /// What was asked for by lease.
    pub projecting: IdMap<LeaseId, (TaskId, Seed)>,
    /// Projections of what GPUs came to, by lease.
    pub sketches: IdMap<LeaseId, (Seed, Vec<f64>)>,
    /// By job.
    pub bounds: BTreeMap<JobId, Bounds>,
    /// By job: two jobs may come to equal weights.
    pub states: BTreeMap<(JobId, BlobId), Value>,
    pub stories: BTreeMap<JobId, Story>,
    evaluations: BTreeMap<JobId, u32>,
    /// Durable records, in order.
    pub records: BTreeMap<JobId, Vec<Record>>,
    next_payload: u64,
}

impl Shell {
    /// Takes a payload into memory.
    pub fn keep(&mut self, value: Value) -> PayloadId {
        self.next_payload += 1;
        let id = PayloadId(self.next_payload);
        self.payloads.insert(id, value);
        id
    }

    /// Takes what a contributor answered under a key into memory, and says whether
    /// it agrees with all that was shown of the task.
    pub fn project(&mut self, lease: LeaseId, projections: Vec<f64>) -> Option<(PayloadId, bool)> {
        let (task, key) = self.projecting.remove(&lease)?;
        let bounds = self.bounds.entry(task.job).or_default();
        let probes = projections.len() as u32;
        let mut shown = self.shown.values().filter(|(of, _)| *of == task);
        let agrees = shown.all(|(_, it)| bounds.agree(&it.project(key, probes), &projections));
        self.sketches.insert(lease, (key, projections.clone()));
        let id = self.keep(0);
        self.projections.insert(id, (task, key, projections));
        Some((id, agrees))
    }

    /// Keeps what was shown of a task, and says whether it agrees with all that others
    /// answered.
    pub fn show(&mut self, payload: PayloadId, task: TaskId, vector: Vector) -> bool {
        let bounds = self.bounds.entry(task.job).or_default();
        self.shown.insert(payload, (task, vector));
        let mut answers = self.projections.values().filter(|it| it.0 == task);
        answers.all(|(_, key, it)| bounds.agree(&vector.project(*key, it.len() as u32), it))
    }

    /// Whether a payload has the projections that were answered under its lease.
    pub fn is_projected(&self, lease: LeaseId, vector: &Vector) -> bool {
        self.sketches.get(&lease).is_none_or(|(key, projections)| {
            vector.project(*key, projections.len() as u32) == *projections
        })
    }

    /// Forgets a payload.
    pub fn release(&mut self, payload: PayloadId) {
        self.payloads.remove(&payload);
        self.vectors.remove(&payload);
        self.shown.remove(&payload);
        self.projections.remove(&payload);
    }

    /// Runs an effect that is answered; `None` for the others.
    pub fn run(&mut self, effect: &Effect) -> Option<(EffectId, Outcome)> {
        match effect {
            Effect::InitState { effect, job } => {
                let value = self.kernel.init(*job);
                Some((*effect, Outcome::StateReady { state: self.new_state(*job, value) }))
            }
            Effect::RunLocal { effect, job, round, stage, state } => {
                assert!(
                    self.states.contains_key(&(*job, *state)),
                    "a local stage reads a released state"
                );
                self.kernel.local(*job, *round, *stage, *state);
                Some((*effect, Outcome::StageDone))
            }
            Effect::Combine { effect, job, round, stage, parts } => {
                let values: Vec<Value> = parts.iter().map(|part| self.payloads[part]).collect();
                self.kernel.join(*job, *round, *stage, &values);
                Some((*effect, Outcome::StageDone))
            }
            Effect::Step { effect, job, round, state, parts, learning_rate, step } => {
                assert!(self.states.contains_key(&(*job, *state)), "a step reads a released state");
                let gradient = if parts.is_empty() {
                    self.kernel.round_value(*job)
                } else {
                    let total = self.kernel.order(*job, *round).layout().micro_batches(*round);
                    let values =
                        parts.iter().map(|p| (p.start, p.count, self.payloads[&p.payload]));
                    let values: Vec<_> = values.collect();
                    tree::combine(total, values, crate::kernel::mix)
                        .expect("the parts of a step cover its batch along the tree")
                };
                let value = self.kernel.step(*state, gradient, *learning_rate, *step);
                let nan = self.story(*job).nan_at_step == Some(*step);
                let explodes = self.story(*job).explodes;
                let explodes =
                    explodes.is_some_and(|(from, rate)| *step >= from && *learning_rate > rate);
                let loss_sum = match (nan, explodes) {
                    (true, _) => f32::NAN,
                    (_, true) => 1e6 * *step as f32,
                    _ => 100.0 / *step as f32,
                };
                let metrics = Metrics { loss_sum, correct: 0.0, count: 100.0 };
                let state = self.new_state(*job, value);
                Some((*effect, Outcome::Stepped { state, metrics, grad_norm: 1.0 }))
            }
            Effect::Evaluate { effect, job, state } => {
                assert!(
                    self.states.contains_key(&(*job, *state)),
                    "an evaluation reads a released state"
                );
                let count = self.evaluations.entry(*job).or_default();
                *count += 1;
                let plateau = self.stories.get(job).and_then(|story| story.plateau_after);
                let n = plateau.map_or(*count, |after| (*count).min(after));
                let losses = self.stories.get(job).and_then(|story| story.losses);
                let loss = losses.map_or(1.0 / n as f32, |losses| losses[n as usize - 1]);
                let metrics = Metrics { loss_sum: 100.0 * loss, correct: 50.0, count: 100.0 };
                Some((*effect, Outcome::Evaluated { metrics }))
            }
            Effect::Persist { effect, .. } | Effect::Show { effect, .. } => {
                Some((*effect, Outcome::Persisted))
            }
            Effect::Referee { effect, job, task, work, testimonies } => {
                let value = self.kernel.run(*task, work);
                let digest = digest_of(*task, value);
                self.bounds.entry(*job).or_default().is_linear = matches!(work, Work::Part { .. });
                let agrees = testimonies.iter().map(|it| self.judge(*job, it, digest, value));
                let agrees = agrees.collect();
                let payload = self.keep(value);
                Some((*effect, Outcome::Judged { digest, payload, bytes: 0, agrees }))
            }
            Effect::Trust { .. }
            | Effect::RolledBack { .. }
            | Effect::Settled { .. }
            | Effect::Outcome { .. }
            | Effect::Counted { .. } => None,
            Effect::Send { .. }
            | Effect::Close { .. }
            | Effect::Fold { .. }
            | Effect::ReleasePayloads { .. }
            | Effect::ReleaseState { .. } => None,
        }
    }

    fn judge(
        &mut self,
        job: JobId,
        testimony: &Testimony,
        digest: ResultDigest,
        truth: Value,
    ) -> Agreement {
        let vector = testimony.payload.and_then(|payload| self.vectors.get(&payload));
        let bounds = self.bounds.entry(job).or_default();
        match (testimony.backend, vector, self.sketches.get(&testimony.lease)) {
            (Backend::Gpu, Some(vector), _) => {
                let source = testimony.contributor.0;
                let source = u64::from_le_bytes(source[..8].try_into().expect("eight bytes"));
                bounds.judge(source, testimony.vetted, vector, truth)
            }
            (Backend::Gpu, None, Some((key, projections))) => {
                bounds.judge_sketch(*key, projections, truth)
            }
            (Backend::Gpu, None, None) => panic!("{} has no sketch", testimony.lease),
            _ if testimony.digest == digest => Agreement::Agrees,
            _ => Agreement::False,
        }
    }

    fn story(&self, job: JobId) -> Story {
        self.stories.get(&job).copied().unwrap_or_default()
    }

    fn new_state(&mut self, job: JobId, value: Value) -> BlobId {
        let state = state_of(value);
        self.states.insert((job, state), value);
        state
    }
}
