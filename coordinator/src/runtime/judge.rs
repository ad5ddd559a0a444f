//! The referee's thread: computes tasks whose results are in doubt, on the very
//! module that contributors run, and says who told the truth.

use super::bench::Bench;
use super::driver::{Input, TaskBytes};
use super::executor::{ExecutorError, KernelModule, Tensor};
use super::leases::Held;
use super::metrics::Metrics;
use super::ws::verify;
use crate::blobs::Blobs;
use crate::store::{EvidenceRecord, Store};
use axum::body::Bytes;
use raven_engine::{EffectId, Testimony};
use raven_protocol::frame::encode;
use raven_protocol::{
    Backend, Frame, FrameLimits, FromContributor, JobId, LeaseId, ResultDigest, ToContributor,
};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::mpsc;

/// Questions that may wait. Open tasks ask one each at most, and accepted ones
/// only while their round is not settled, so that this is not reached in peace.
const QUEUE_MAX: usize = 16_384;

/// A result by output.
pub type Values = HashMap<String, Tensor>;

/// What the referee is asked.
pub struct Question {
    pub effect: EffectId,
    pub job: JobId,
    /// Graph and weights that the task reads.
    pub needs: Vec<Bytes>,
    /// Under this lease, which nobody was given.
    pub lease: LeaseId,
    pub task: TaskBytes,
    pub held: Held,
    pub testimonies: Vec<(Testimony, Option<Values>)>,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("job", &self.job).field("task", &self.held.task).finish()
    }
}

/// What it found.
#[derive(Debug)]
pub struct Judgment {
    pub digest: ResultDigest,
    pub values: Values,
    pub bytes: u64,
    /// By testimony.
    pub agrees: Vec<bool>,
    /// Files of evidence that are durable and not in the store yet.
    pub evidence: Vec<EvidenceRecord>,
}

/// An answer on its way to the driver.
#[derive(Debug)]
struct Answer {
    effect: EffectId,
    job: JobId,
    result: Result<Judgment, ExecutorError>,
}

/// The thread.
#[derive(Debug)]
pub struct Judge {
    queue: SyncSender<Question>,
    thread: JoinHandle<()>,
}

impl Judge {
    /// Starts the thread, and a task that stores what it proves.
    ///
    /// # Errors
    /// Where the system starts no thread.
    pub fn start(
        module: KernelModule,
        blobs: Blobs,
        memory_bytes: u64,
        metrics: Arc<Metrics>,
        store: Store,
        inputs: mpsc::Sender<Input>,
    ) -> std::io::Result<Self> {
        let (queue, questions) = sync_channel(QUEUE_MAX);
        let (answers_out, answers) = mpsc::unbounded_channel();
        let bench = Bench::new(module, blobs, memory_bytes);
        let thread = std::thread::Builder::new()
            .name("referee".into())
            .spawn(move || serve(bench, &questions, &metrics, &answers_out))?;
        tokio::spawn(pass_on(answers, store, inputs));
        Ok(Judge { queue, thread })
    }

    /// Queues a question.
    ///
    /// # Errors
    /// [`ExecutorError::Full`], [`ExecutorError::Stopped`].
    pub fn ask(&self, question: Question) -> Result<(), ExecutorError> {
        self.queue.try_send(question).map_err(|error| match error {
            TrySendError::Full(_) => ExecutorError::Full { limit: QUEUE_MAX },
            TrySendError::Disconnected(_) => ExecutorError::Stopped,
        })
    }

    /// Ends the thread after what it has begun. Blocks.
    pub fn stop(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("the referee's thread panicked");
        }
    }
}

/// Stores what was proven before the engine acts on it.
async fn pass_on(
    mut answers: mpsc::UnboundedReceiver<Answer>,
    store: Store,
    inputs: mpsc::Sender<Input>,
) {
    while let Some(Answer { effect, job, result }) = answers.recv().await {
        for evidence in result.iter().flat_map(|judgment| &judgment.evidence) {
            if let Err(error) = store.add_evidence(evidence).await {
                // The file is there, and the lie is acted on all the same.
                tracing::error!(%job, %error, "a proven lie was not entered into the store");
            }
        }
        if inputs.send(Input::Judged { job, effect, result: result.map(Box::new) }).await.is_err() {
            return;
        }
    }
}

fn serve(
    mut bench: Bench,
    questions: &Receiver<Question>,
    metrics: &Metrics,
    answers: &mpsc::UnboundedSender<Answer>,
) {
    while let Ok(question) = questions.recv() {
        // Once nobody listens, what is still queued is not worth computing.
        if answers.is_closed() {
            return;
        }
        let began = Instant::now();
        let (effect, job) = (question.effect, question.job);
        let result = judge(&mut bench, question);
        metrics.referee_busy_ms.add(began.elapsed().as_millis() as u64);
        metrics.referee_runs.add(1);
        if let Err(error) = &result {
            tracing::error!(%job, %error, "the referee came to nothing");
        }
        if answers.send(Answer { effect, job, result }).is_err() {
            return;
        }
    }
}

fn judge(bench: &mut Bench, question: Question) -> Result<Judgment, ExecutorError> {
    let Question { needs, lease, task, held, testimonies, .. } = question;
    let task = match task {
        TaskBytes::Ready(frame) => frame,
        TaskBytes::Deferred { build, .. } => build()?,
    };
    // What the instance forgot in between is given to a fresh one.
    let result = match compute(bench, &needs, lease, &task) {
        Err(ExecutorError::Refused { .. } | ExecutorError::Reply { .. }) => {
            bench.renew();
            compute(bench, &needs, lease, &task)?
        }
        result => result?,
    };
    let (digest, values) = verify(&held, &result)
        .map_err(|refusal| ExecutorError::Reply { reason: refusal.detail })?;
    let agrees: Vec<bool> = testimonies
        .iter()
        .map(|(testimony, claimed)| match (testimony.backend, claimed) {
            (Backend::Cpu, _) => testimony.digest == digest,
            (Backend::Gpu, Some(claimed)) => {
                testimony.digest == digest || is_within(&values, claimed)
            }
            (Backend::Gpu, None) => testimony.digest == digest,
        })
        .collect();
    for ((testimony, _), _) in testimonies.iter().zip(&agrees).filter(|(_, agrees)| !**agrees) {
        let (task, lease) = (held.task, testimony.lease);
        tracing::warn!(%task, %lease, "a result is not what its task yields");
    }
    let bytes = result.len() as u64;
    Ok(Judgment { digest, values, bytes, agrees, evidence: Vec::new() })
}

/// The result frame of a task.
fn compute(
    bench: &mut Bench,
    needs: &[Bytes],
    lease: LeaseId,
    task: &Bytes,
) -> Result<Bytes, ExecutorError> {
    for frame in needs {
        bench.take(frame);
    }
    for reply in bench.take(task) {
        let frame = Frame::decode(&reply, &FrameLimits::TO_COORDINATOR)?;
        match FromContributor::from_header(frame.header()) {
            Ok(FromContributor::Commit { .. }) => {
                let reveal = encode(&ToContributor::Reveal { lease }, &[]);
                let result = bench.take(&reveal).into_iter().next();
                let nothing = || ExecutorError::Reply { reason: "no result".into() };
                return result.map(Bytes::from).ok_or_else(nothing);
            }
            Ok(FromContributor::Refuse { reason, detail, .. }) => {
                return Err(ExecutorError::Refused { reason, detail });
            }
            _ => {}
        }
    }
    Err(ExecutorError::Reply { reason: "neither commitment nor refusal".into() })
}

/// Part of a tensor's norm by which a GPU's result may differ from the processor's.
const TOLERANCE: f64 = 0.02;
/// Norm below which a tensor is noise.
const FLOOR: f64 = 1e-6;

/// Whether every tensor of `claimed` is close to the true one, by norm.
fn is_within(truth: &Values, claimed: &Values) -> bool {
    truth.len() == claimed.len()
        && truth
            .iter()
            .all(|(name, truth)| claimed.get(name).is_some_and(|claimed| is_close(truth, claimed)))
}

fn is_close(truth: &Tensor, claimed: &Tensor) -> bool {
    let (Some(truth), Some(claimed)) = (truth.as_f32s(), claimed.as_f32s()) else {
        return truth.data == claimed.data;
    };
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let norm = squares(&mut truth.clone().map(f64::from));
    let pairs = truth.zip(claimed);
    let distance = squares(&mut pairs.map(|(a, b)| f64::from(a) - f64::from(b)));
    // A distance that is no number is not close.
    distance <= TOLERANCE * norm + FLOOR
}
