//! The referee's thread: computes tasks whose results are in doubt, on the very
//! module that contributors run, and says who told the truth.

use super::bench::Bench;
use super::driver::{Input, TaskBytes};
use super::executor::{ExecutorError, KernelModule, Tensor, Weights};
use super::leases::Held;
use super::metrics::Metrics;
use super::relaxed::{Bounds, Sketch, Weighed};
use super::session::hex;
use super::ws::verify;
use crate::blobs::Blobs;
use crate::certificate::CertificateKey;
use crate::random;
use crate::referee::{Claim, Evidence, Materials, Referee};
use crate::store::{EvidenceRecord, Store};
use crate::time::UnixMs;
use axum::body::Bytes;
use raven_engine::{Agreement, ContributorId, EffectId, Testimony};
use raven_graph::ValidGraph;
use raven_protocol::frame::encode;
use raven_protocol::{
    Backend, BlobId, Frame, FrameLimits, FromContributor, GraphText, JobId, LeaseId, ResultDigest,
    TensorPart, ToContributor,
};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::mpsc;

/// Questions that may wait: the engine asks no more than
/// [`raven_engine::EngineConfig::cases_max`] at once, which is less.
const QUEUE_MAX: usize = 16_384;

/// Bytes of all evidence beyond which no more is filed: keys cost nothing, and
/// each file holds a job's weights.
const EVIDENCE_BYTES_MAX: u64 = 4 << 30;
/// Contributors of whom it is remembered that there is evidence.
const FILED_MAX: usize = 100_000;

/// A result by output.
pub type Values = HashMap<String, Tensor>;

/// What the referee is asked.
pub struct Question {
    pub effect: EffectId,
    pub job: JobId,
    /// What the task runs.
    pub graph: ValidGraph,
    /// The weights that it reads, where they are a blob.
    pub weights: Option<Weights>,
    /// Under this lease, which nobody was given.
    pub lease: LeaseId,
    pub task: TaskBytes,
    pub held: Held,
    /// For what GPUs say.
    pub bounds: Bounds,
    pub testimonies: Vec<Heard>,
}

/// What a contributor says, and what is at hand of it.
#[derive(Debug)]
pub struct Heard {
    pub testimony: Testimony,
    /// Its result, where that was shown and is still held.
    pub values: Option<Values>,
    /// A GPU's: projections of it.
    pub sketch: Option<Arc<Sketch>>,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("job", &self.job).field("task", &self.held.task).finish()
    }
}

/// How far a GPU's result was off.
#[derive(Debug)]
pub struct Observed {
    pub contributor: ContributorId,
    pub vetted: bool,
    /// By output.
    pub distances: Vec<(String, f64)>,
}

/// What it found.
#[derive(Debug)]
pub struct Judgment {
    pub digest: ResultDigest,
    pub values: Values,
    pub bytes: u64,
    /// By testimony.
    pub agrees: Vec<Agreement>,
    pub observed: Vec<Observed>,
    /// Files of evidence that are durable and not in the store yet.
    pub evidence: Vec<EvidenceRecord>,
}

/// Where evidence is kept, and what it is signed with.
#[derive(Debug)]
pub struct Cabinet {
    pub folder: PathBuf,
    pub key: CertificateKey,
    /// Bytes of what is there.
    pub bytes: u64,
}

/// What the thread works with.
#[derive(Debug)]
struct Desk {
    bench: Bench,
    /// Runs a task once more for evidence, on an instance of its own.
    referee: Referee,
    blobs: Blobs,
    cabinet: Option<Cabinet>,
    /// Against whom evidence was filed: once is enough.
    filed: HashSet<ContributorId>,
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
        cabinet: Option<Cabinet>,
        metrics: Arc<Metrics>,
        store: Store,
        inputs: mpsc::Sender<Input>,
    ) -> std::io::Result<Self> {
        let (queue, questions) = sync_channel(QUEUE_MAX);
        let (answers_out, answers) = mpsc::unbounded_channel();
        let desk = Desk {
            bench: Bench::new(module.clone(), blobs.clone(), memory_bytes),
            referee: Referee::new(module, memory_bytes),
            blobs,
            cabinet,
            filed: HashSet::new(),
        };
        let thread = std::thread::Builder::new()
            .name("referee".into())
            .spawn(move || serve(desk, &questions, &metrics, &answers_out))?;
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
    mut desk: Desk,
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
        let result = desk.judge(question);
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

impl Desk {
    fn judge(&mut self, question: Question) -> Result<Judgment, ExecutorError> {
        let Question { lease, weights, graph, task, held, bounds, testimonies, .. } = question;
        let task = match task {
            TaskBytes::Ready(frame) => frame,
            TaskBytes::Deferred { build, .. } => build()?,
        };
        let message = ToContributor::Graph { id: graph.id(), graph: GraphText::of(&graph) };
        let mut needs = vec![Bytes::from(encode(&message, &[]))];
        needs.extend(weights.iter().map(|weights| weights.frame.clone()));
        // What the instance forgot in between is given to a fresh one.
        let result = match compute(&mut self.bench, &needs, lease, &task) {
            Err(ExecutorError::Refused { .. } | ExecutorError::Reply { .. }) => {
                self.bench.renew();
                compute(&mut self.bench, &needs, lease, &task)?
            }
            result => result?,
        };
        let (digest, values) = verify(&held, &result)
            .map_err(|refusal| ExecutorError::Reply { reason: refusal.detail })?;
        let mut agrees = Vec::with_capacity(testimonies.len());
        let (mut evidence, mut observed) = (Vec::new(), Vec::new());
        let suspect =
            Suspect { lease, held: &held, task: &task, graph: &graph, weights: weights.as_ref() };
        for Heard { testimony, values: claimed, sketch } in &testimonies {
            let contributor = testimony.contributor;
            let finding = match testimony.backend {
                _ if testimony.digest == digest => {
                    agrees.push(Agreement::Agrees);
                    continue;
                }
                Backend::Gpu => {
                    let weighed =
                        weigh(&bounds, &held, &values, (claimed.as_ref(), sketch.as_deref()));
                    agrees.push(weighed.agreement);
                    let (vetted, distances) = (testimony.vetted, weighed.observed);
                    observed.push(Observed { contributor, vetted, distances });
                    // Its bits prove nothing, so there is no file that could be replayed.
                    weighed.finding.map(|finding| (unfiled(&hex(&random::bytes::<16>())), finding))
                }
                Backend::Cpu => {
                    agrees.push(Agreement::False);
                    Some(self.file(&suspect, testimony, claimed.as_ref()))
                }
            };
            let Some((id, finding)) = finding else { continue };
            let task = held.task;
            tracing::warn!(%task, lease = %testimony.lease, finding, "a false result");
            evidence.push(EvidenceRecord { id, task, contributor, finding });
        }
        let bytes = result.len() as u64;
        Ok(Judgment { digest, values, bytes, agrees, observed, evidence })
    }

    /// Makes evidence against a processor's result durable, narrowed down to the
    /// operation that differs where the result was shown. Whatever keeps it from
    /// that, the result is false: the digests differ.
    fn file(
        &mut self,
        suspect: &Suspect<'_>,
        testimony: &Testimony,
        claimed: Option<&Values>,
    ) -> (String, String) {
        let id = hex(&random::bytes::<16>());
        match self.try_file(&id, suspect, testimony, claimed) {
            Ok((finding, true)) => (id, finding),
            Ok((finding, false)) => (unfiled(&id), finding),
            Err(error) => {
                tracing::error!(task = %suspect.held.task, error, "no evidence was written");
                (unfiled(&id), "the digest is not that of the task's result".to_owned())
            }
        }
    }

    /// What was found, and whether there is a file of it.
    fn try_file(
        &mut self,
        id: &str,
        suspect: &Suspect<'_>,
        testimony: &Testimony,
        claimed: Option<&Values>,
    ) -> Result<(String, bool), String> {
        let fetch = |blob: BlobId| match suspect.weights {
            Some(weights) if weights.id == blob => Ok(weights.frame.clone()),
            _ => self.blobs.get(blob),
        };
        let materials = Materials::gather(suspect.task.clone(), suspect.graph, fetch)
            .map_err(|error| error.to_string())?;
        let payload = claimed.map(|claimed| result_frame(suspect.held, suspect.lease, claimed));
        let claim = Claim { contributor: testimony.contributor, digest: testimony.digest, payload };
        let judgement =
            self.referee.judge(&materials, &claim).map_err(|error| error.to_string())?;
        let finding = judgement.finding.to_string();
        let is_new = self.filed.len() < FILED_MAX && self.filed.insert(testimony.contributor);
        let Some(cabinet) = self.cabinet.as_mut().filter(|_| is_new) else {
            return Ok((finding, false));
        };
        let (kernel, key) = (self.referee.kernel(), cabinet.key.secret());
        let file = Evidence::build(&materials, &claim, &judgement, kernel, UnixMs::now(), key)
            .map_err(|error| error.to_string())?;
        if cabinet.bytes.saturating_add(file.len() as u64) > EVIDENCE_BYTES_MAX {
            tracing::warn!(limit = EVIDENCE_BYTES_MAX, "no more evidence is filed");
            return Ok((finding, false));
        }
        cabinet.bytes += file.len() as u64;
        write_durably(&cabinet.folder, &format!("{id}.evidence"), &file)
            .map_err(|error| error.to_string())?;
        Ok((finding, true))
    }
}

/// What to make of a GPU's result, by its values or by what is kept of them.
fn weigh(
    bounds: &Bounds,
    held: &Held,
    truth: &Values,
    claimed: (Option<&Values>, Option<&Sketch>),
) -> Weighed {
    match claimed {
        (Some(values), _) => bounds.weigh(&held.expected, truth, values),
        (None, Some(sketch)) => bounds.weigh_sketch(&held.expected, truth, sketch),
        // Nothing can be said of what is not there.
        (None, None) => {
            Weighed { agreement: Agreement::Doubtful, finding: None, observed: Vec::new() }
        }
    }
}

/// The id of evidence of which there is no file.
fn unfiled(id: &str) -> String {
    format!("{id}-unfiled")
}

/// What a testimony is held against.
struct Suspect<'a> {
    /// Of the frame that the referee ran: evidence is consistent in itself.
    lease: LeaseId,
    held: &'a Held,
    task: &'a Bytes,
    graph: &'a ValidGraph,
    weights: Option<&'a Weights>,
}

/// A result as its contributor sent it.
fn result_frame(held: &Held, lease: LeaseId, values: &Values) -> Bytes {
    let outputs = held.expected.outputs.iter();
    let parts: Vec<TensorPart<'_>> = outputs
        .filter_map(|output| Some(values.get(&output.name)?.part(output.name.clone())))
        .collect();
    encode(&FromContributor::Result { lease }, &parts).into()
}

/// Writes a file that is there in full, or not at all, whatever happens.
fn write_durably(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let partial = folder.join(format!("{name}.part"));
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, folder.join(name))?;
    File::open(folder)?.sync_all()
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

#[cfg(test)]
mod tests {
    use super::*;
    use raven_engine::EngineConfig;

    #[test]
    fn the_engine_asks_no_more_at_once_than_the_queue_takes() {
        assert!(EngineConfig::default().cases_max < QUEUE_MAX);
    }
}
