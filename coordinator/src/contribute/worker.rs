//! One worker: a thread with an instance of the module, which runs one task at a
//! time in short steps, rests in between, and obeys orders at each of these moments.

use super::frames::{Frames, Name};
use super::pace::Pacer;
use crate::runtime::executor::{Kernel, KernelError, KernelModule};
use axum::body::Bytes;
use raven_graph::GraphId;
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, BlobId, Frame, FrameLimits, FromContributor, LeaseId, RefuseReason, TaskMessage,
    ToContributor,
};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// A worker looks at its orders and rests this often.
const STEP_S_TARGET: f64 = 0.012;
const STEP_FLOPS_MIN: f64 = 100_000.0;
/// How long an idle worker waits before it looks whether all is over.
const IDLE: Duration = Duration::from_secs(1);

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Order {
    Task {
        lease: LeaseId,
        frame: Bytes,
        came: Instant,
        /// All that the task needs, so that nobody waits for the link here.
        shards: Vec<(BlobId, Bytes)>,
    },
    /// A project or a reveal.
    Ask {
        lease: LeaseId,
        frame: Bytes,
    },
    Cancel {
        lease: LeaseId,
        frame: Bytes,
    },
    /// Hand the running task back.
    Abort,
    /// Forget blobs and graphs.
    Drop {
        frame: Bytes,
        graphs: Vec<GraphId>,
    },
    /// The session is over, and all that it brought.
    Renew,
}

/// What a worker says: one word for each task, project and reveal that is not cancelled.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) worker: usize,
    pub(super) lease: LeaseId,
    pub(super) said: Said,
}

#[derive(Debug)]
pub(super) enum Said {
    /// A commitment, and that the payload is kept.
    Commit(Vec<u8>),
    /// Projections; the payload is kept.
    Projected(Vec<u8>),
    /// A payload or a refusal: nothing is kept.
    Last(Vec<u8>),
    /// What the task needs is here.
    Fetched { frame: Bytes, came: Instant, shards: Vec<(BlobId, Bytes)> },
    /// The same as the last word, of an instance that broke.
    Broke { detail: String, refusal: Vec<u8> },
}

struct Running {
    lease: LeaseId,
    came: Instant,
}

pub(super) struct Worker {
    pub(super) number: usize,
    pub(super) module: KernelModule,
    pub(super) frames: Arc<Frames>,
    pub(super) orders: Receiver<Order>,
    pub(super) words: UnboundedSender<Word>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) pacer: Pacer,
    pub(super) step_flops: f64,
    memory_bytes: u64,
    kernel: Option<Kernel>,
    /// Graphs that the instance was given.
    given: HashSet<GraphId>,
    running: Option<Running>,
}

/// What a worker is made of.
pub(super) struct Parts {
    pub(super) number: usize,
    pub(super) module: KernelModule,
    pub(super) frames: Arc<Frames>,
    pub(super) orders: Receiver<Order>,
    pub(super) words: UnboundedSender<Word>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) duty: f64,
    pub(super) flops_per_s: u64,
    /// Of graphs, blobs and values that the instance may hold.
    pub(super) memory_bytes: u64,
}

/// What came of an order.
type Outcome = Result<Option<Vec<u8>>, Failure>;

/// Why a task comes to nothing.
enum Failure {
    Kernel(KernelError),
    /// It is handed back.
    Unable {
        reason: RefuseReason,
        detail: String,
    },
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        Failure::Kernel(error)
    }
}

impl Worker {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { number, module, frames, orders, words, stop, .. } = parts;
        let Parts { duty, flops_per_s, memory_bytes, .. } = parts;
        Worker {
            number,
            module,
            frames,
            orders,
            words,
            stop,
            pacer: Pacer::new(duty),
            step_flops: (flops_per_s as f64 * STEP_S_TARGET).max(STEP_FLOPS_MIN),
            memory_bytes,
            kernel: None,
            given: HashSet::new(),
            running: None,
        }
    }

    /// Works until everything is over: nobody has orders any more, or all is to stop.
    pub(super) fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let wait = if self.running.is_some() { self.pacer.due() } else { IDLE };
            let idle_since = Instant::now();
            let order = self.orders.recv_timeout(wait);
            self.pacer.rested(idle_since.elapsed());
            let (began, computed) = (Instant::now(), computed());
            match order {
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if self.pacer.due() > Duration::ZERO => {}
                Err(RecvTimeoutError::Timeout) => self.step(),
            }
            // Whoever waits for the link, or for a processor that others keep busy, rests.
            let worked = self::computed().saturating_sub(computed);
            self.pacer.worked(worked);
            self.pacer.rested(began.elapsed().saturating_sub(worked));
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Task { lease, frame, came, shards } => match self.begin(&frame, &shards) {
                Ok(None) => self.running = Some(Running { lease, came }),
                Ok(Some(refusal)) => self.say(lease, refusal),
                Err(failure) => self.fail(lease, failure),
            },
            Order::Ask { lease, frame } => match self.accept(&frame) {
                Ok(Some(answer)) => self.say(lease, answer),
                Ok(None) => self.fail(lease, nothing()),
                Err(failure) => self.fail(lease, failure),
            },
            Order::Cancel { lease, frame } => {
                self.running.take_if(|running| running.lease == lease);
                // What it answers is of no use, the lease being cancelled.
                if let Err(Failure::Kernel(error)) = self.accept(&frame) {
                    self.note(&error);
                }
            }
            Order::Abort => self.abort(),
            Order::Drop { frame, graphs } => {
                for graph in graphs {
                    self.given.remove(&graph);
                }
                if let Err(Failure::Kernel(error)) = self.accept(&frame) {
                    self.note(&error);
                }
            }
            Order::Renew => self.renew(),
        }
    }

    fn abort(&mut self) {
        let Some(Running { lease, .. }) = self.running.take() else { return };
        let cancel = encode(&ToContributor::Cancel { lease }, &[]);
        let outcome = self.accept(&cancel);
        let detail = "paused".to_owned();
        match outcome {
            Ok(_) => self.fail(lease, Failure::Unable { reason: RefuseReason::Stopping, detail }),
            Err(failure) => self.fail(lease, failure),
        }
    }

    /// Gives up the instance; the next order meets a fresh one.
    fn renew(&mut self) {
        self.kernel = None;
        self.running = None;
        self.given.clear();
    }

    fn kernel(&mut self) -> Result<&mut Kernel, KernelError> {
        match &mut self.kernel {
            Some(kernel) => Ok(kernel),
            empty => Ok(empty.insert(Kernel::new(&self.module, self.memory_bytes)?)),
        }
    }

    fn accept(&mut self, frame: &[u8]) -> Outcome {
        Ok(self.kernel()?.accept(frame)?)
    }

    /// Brings the instance what the task names, and begins it; answers its refusal.
    fn begin(&mut self, frame: &Bytes, shards: &[(BlobId, Bytes)]) -> Outcome {
        let task = read_task(frame)?;
        self.give_blobs(frame, &task, shards)?;
        let graph = task.spec.program.graph();
        // An instance that is short of memory may have dropped the graph: it gets it once more.
        for is_again in [false, true] {
            if is_again {
                self.given.remove(&graph);
            }
            if !self.given.contains(&graph) {
                let Some(frame) = self.frames.get(Name::Graph(graph)) else {
                    return Err(missing(format!("graph {graph}")));
                };
                self.accept(&frame)?;
                self.given.insert(graph);
            }
            match self.kernel()?.begin(frame)? {
                Some(refusal) if !is_again && lacks_something(&refusal) => {}
                answer => return Ok(answer),
            }
        }
        Err(missing(format!("graph {graph}")))
    }

    fn give_blobs(
        &mut self,
        frame: &[u8],
        task: &TaskMessage,
        shards: &[(BlobId, Bytes)],
    ) -> Result<(), Failure> {
        for id in self.kernel()?.missing(frame)? {
            let is_bound = task.spec.bindings.iter().any(
                |binding| matches!(binding, Binding::Blob { blob, .. } if blob.to_string() == id),
            );
            let shard = shards.iter().find(|(blob, _)| blob.to_string() == id);
            let blob = match (shard, is_bound) {
                (Some((blob, fetched)), _) => {
                    let taken = self.accept(fetched);
                    if taken.is_err() {
                        // What is no such shard is fetched anew the next time.
                        self.frames.remove(Name::Shard(*blob));
                    }
                    taken?;
                    continue;
                }
                (None, true) => id.parse().ok().and_then(|id| self.frames.get(Name::Blob(id))),
                (None, false) => None,
            };
            let blob = blob.ok_or_else(|| missing(format!("blob {id}")))?;
            self.accept(&blob)?;
        }
        Ok(())
    }

    /// Runs one step of the running task.
    fn step(&mut self) {
        let Some(Running { lease, came }) = self.running.take() else { return };
        let flops = self.step_flops;
        let stepped = self.kernel().and_then(|kernel| {
            if !kernel.step(flops)? {
                return Ok(None);
            }
            kernel.finish(came.elapsed().as_millis() as u64).map(Some)
        });
        match stepped {
            Ok(None) => self.running = Some(Running { lease, came }),
            Ok(Some(commit)) => self.say(lease, commit),
            Err(error) => self.fail(lease, error.into()),
        }
    }

    /// Passes on what the module wrote.
    fn say(&mut self, lease: LeaseId, frame: Vec<u8>) {
        let message = Frame::decode(&frame, &FrameLimits::TO_CONTRIBUTOR)
            .ok()
            .and_then(|frame| FromContributor::from_header(frame.header()).ok());
        let said = match message {
            Some(FromContributor::Commit { .. }) => Said::Commit(frame),
            Some(FromContributor::Projected { .. }) => Said::Projected(frame),
            // A payload that no frame may carry is never asked for twice.
            Some(FromContributor::Result { .. })
                if frame.len() as u64 > FrameLimits::TO_COORDINATOR.frame_bytes_max() =>
            {
                let detail = format!("the result has {} bytes", frame.len());
                return self
                    .fail(lease, Failure::Unable { reason: RefuseReason::TooLarge, detail });
            }
            _ => Said::Last(frame),
        };
        self.send(lease, said);
    }

    fn fail(&mut self, lease: LeaseId, failure: Failure) {
        let said = match failure {
            Failure::Unable { reason, detail } => Said::Last(refusal(lease, reason, &detail)),
            Failure::Kernel(error) if error.is_fatal() => {
                self.renew();
                let detail = error.to_string();
                // What a broken instance lost is sent again.
                let refusal = refusal(lease, RefuseReason::Missing, &detail);
                Said::Broke { detail, refusal }
            }
            Failure::Kernel(error) => {
                let detail = match &error {
                    KernelError::Refused { reason, .. } => reason.clone(),
                    error => error.to_string(),
                };
                // Kernels begin their words with the reason: what is too large now is so the next time.
                let reason = match detail.starts_with("too_large") {
                    true => RefuseReason::TooLarge,
                    false => RefuseReason::Failed,
                };
                Said::Last(refusal(lease, reason, &detail))
            }
        };
        self.send(lease, said);
    }

    /// What went wrong where no lease is to be answered.
    fn note(&mut self, error: &KernelError) {
        tracing::warn!(%error, worker = self.number, "the kernel did not take a frame");
        if error.is_fatal() {
            self.renew();
        }
    }

    fn send(&self, lease: LeaseId, said: Said) {
        // Where nobody listens all is over, which the next look at the orders tells.
        let _ = self.words.send(Word { worker: self.number, lease, said });
    }
}

/// Processor time of this thread so far.
fn computed() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

fn read_task(frame: &[u8]) -> Result<Box<TaskMessage>, Failure> {
    let unreadable = |detail: String| Failure::Unable { reason: RefuseReason::Invalid, detail };
    let frame = Frame::decode(frame, &FrameLimits::TO_CONTRIBUTOR)
        .map_err(|error| unreadable(error.to_string()))?;
    match ToContributor::from_header(frame.header()) {
        Ok(ToContributor::Task(task)) => Ok(task),
        Ok(_) => Err(unreadable("not a task".into())),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn lacks_something(refusal: &[u8]) -> bool {
    let message = Frame::decode(refusal, &FrameLimits::TO_CONTRIBUTOR)
        .ok()
        .and_then(|frame| FromContributor::from_header(frame.header()).ok());
    matches!(message, Some(FromContributor::Refuse { reason: RefuseReason::Missing, .. }))
}

fn missing(detail: String) -> Failure {
    Failure::Unable { reason: RefuseReason::Missing, detail }
}

fn nothing() -> Failure {
    let detail = "the kernel gave no answer".to_owned();
    Failure::Unable { reason: RefuseReason::Failed, detail }
}

/// A lease handed back. A quarter of the limit: a character takes up to four bytes.
pub(super) fn refusal(lease: LeaseId, reason: RefuseReason, detail: &str) -> Vec<u8> {
    let detail = detail.chars().take(raven_protocol::limits::TEXT_BYTES_MAX / 4).collect();
    encode(&FromContributor::Refuse { lease, reason, detail }, &[])
}
