//! The kernel: frames in, frames out, within a declared budget of memory.

use crate::cache::{Blob, Cache};
use crate::device::{Gpu, Waiting};
use crate::error::{KernelError, TaskError, Unsupported};
use crate::plan::Plan;
use crate::task::{Finished, Room, Task};
use raven_graph::{DType, GraphId, Limits, TensorType, ValidGraph};
use raven_proof::projection::{PROJECTION_BYTES, project_bytes, to_bytes};
use raven_protocol::frame::encode;
use raven_protocol::limits::TEXT_BYTES_MAX;
use raven_protocol::{
    Backend, Binding, BlobId, Frame, FrameLimits, FromContributor, GraphText, LeaseId,
    RefuseReason, Seed, TaskMessage, TensorPart, TensorView, ToContributor, blob_id,
};
use std::collections::HashMap;

/// Results that are kept for their reveal at most. A coordinator keeps a few
/// tasks in flight per worker; more than this are leases long expired.
const RESULTS_MAX: usize = 64;

/// A kernel with its device, its cache, its running task and the results that
/// wait for their reveal.
#[derive(Debug)]
pub struct Kernel {
    gpu: Gpu,
    cache: Cache,
    running: Option<Box<Task>>,
    /// Encoded `result` frames with the order in which they came.
    results: HashMap<LeaseId, (u64, Vec<u8>)>,
    finished: u64,
    budget: u64,
}

/// A message's name in errors.
fn kind(message: &ToContributor) -> &'static str {
    match message {
        ToContributor::Welcome { .. } => "welcome",
        ToContributor::Ready { .. } => "ready",
        ToContributor::About { .. } => "about",
        ToContributor::Graph { .. } => "graph",
        ToContributor::Blob { .. } => "blob",
        ToContributor::Task(_) => "task",
        ToContributor::Project { .. } => "project",
        ToContributor::Reveal { .. } => "reveal",
        ToContributor::Cancel { .. } => "cancel",
        ToContributor::Drop { .. } => "drop",
        ToContributor::Outcomes { .. } => "outcomes",
        ToContributor::Goodbye { .. } => "goodbye",
    }
}

fn decode(bytes: &[u8]) -> Result<Frame<'_>, KernelError> {
    Ok(Frame::decode(bytes, &FrameLimits::TO_CONTRIBUTOR)?)
}

fn task_message(frame: &Frame<'_>) -> Result<Box<TaskMessage>, KernelError> {
    match ToContributor::from_header(frame.header())? {
        ToContributor::Task(message) => Ok(message),
        other => Err(KernelError::UnexpectedMessage { expected: "task", found: kind(&other) }),
    }
}

fn refuse(lease: LeaseId, reason: RefuseReason, detail: &str) -> Vec<u8> {
    let mut end = detail.len().min(TEXT_BYTES_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    encode(&FromContributor::Refuse { lease, reason, detail: detail[..end].to_owned() }, &[])
}

fn refusal(lease: LeaseId, error: &TaskError) -> Vec<u8> {
    refuse(lease, error.reason(), &error.to_string())
}

impl Kernel {
    /// A kernel on `gpu` that holds at most `budget` bytes of blobs, graphs,
    /// values and kept results together.
    pub fn new(gpu: Gpu, budget: u64) -> Self {
        Kernel {
            gpu,
            cache: Cache::default(),
            running: None,
            results: HashMap::new(),
            finished: 0,
            budget,
        }
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The device, to measure it.
    pub fn gpu_mut(&mut self) -> &mut Gpu {
        &mut self.gpu
    }

    /// Whether a graph can run here.
    ///
    /// # Errors
    /// [`KernelError::Unsupported`] names the first node that cannot.
    pub fn supports(&self, graph: &ValidGraph) -> Result<(), KernelError> {
        Plan::new(graph.clone(), self.gpu.target())?;
        Ok(())
    }

    /// Why the graph of a `graph` frame cannot run here; `None` where it can.
    ///
    /// # Errors
    /// Bytes that are no such frame, a graph that is not valid.
    pub fn unsupported(&self, bytes: &[u8]) -> Result<Option<Unsupported>, KernelError> {
        let frame = decode(bytes)?;
        match ToContributor::from_header(frame.header())? {
            ToContributor::Graph { graph, .. } => {
                let graph = graph.validate(&Limits::default())?;
                Ok(Plan::new(graph, self.gpu.target()).err())
            }
            other => Err(KernelError::UnexpectedMessage { expected: "graph", found: kind(&other) }),
        }
    }

    /// Takes a `graph`, `blob`, `drop`, `cancel`, `project` or `reveal` frame. A
    /// project is answered by a `projected` frame and a reveal by a `result` frame,
    /// or by a `refuse` frame where nothing is kept under the lease; a cancel of the
    /// running task by a `refuse` frame.
    ///
    /// # Errors
    /// Bytes that are no such frame, content that does not match its id, a
    /// graph that is not valid or cannot run here, an entry that does not fit
    /// the budget, a lost device.
    pub fn accept(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        let frame = decode(bytes)?;
        match ToContributor::from_header(frame.header())? {
            ToContributor::Graph { id, graph } => self.accept_graph(id, &graph).map(|()| None),
            ToContributor::Blob { id } => self.accept_blob(id, &frame).map(|()| None),
            ToContributor::Drop { blobs, graphs } => {
                blobs.into_iter().for_each(|id| self.cache.drop_blob(id));
                graphs.into_iter().for_each(|id| self.cache.drop_graph(id));
                Ok(None)
            }
            ToContributor::Cancel { lease } => {
                self.results.remove(&lease);
                let is_running = self.running().is_some_and(|task| task.lease() == lease);
                Ok(if is_running { self.abort() } else { None })
            }
            ToContributor::Project { lease, key, probes } => {
                Ok(Some(self.project(lease, key, probes)?))
            }
            ToContributor::Reveal { lease } => Ok(Some(self.reveal(lease))),
            other => Err(KernelError::UnexpectedMessage {
                expected: "graph, blob, drop, cancel, project or reveal",
                found: kind(&other),
            }),
        }
    }

    fn accept_graph(&mut self, claimed: GraphId, graph: &GraphText) -> Result<(), KernelError> {
        let graph = graph.validate(&Limits::default())?;
        if graph.id() != claimed {
            return Err(wrong_id("graph", &claimed, &graph.id()));
        }
        let plan = Plan::new(graph, self.gpu.target())?;
        let others = self.bytes_beside_cache();
        self.cache.make_room("graph", plan.held_bytes(), others, self.budget)?;
        self.cache.put_graph(claimed, plan);
        Ok(())
    }

    fn accept_blob(&mut self, claimed: BlobId, frame: &Frame<'_>) -> Result<(), KernelError> {
        if self.cache.blob(claimed).is_some() {
            return Ok(());
        }
        if let Some(reason) = self.gpu.lost() {
            return Err(KernelError::Lost { reason });
        }
        let found = blob_id(frame.tensors());
        if found != claimed {
            return Err(wrong_id("blob", &claimed, &found));
        }
        let bytes = Blob::device_bytes(frame);
        let limit = self.gpu.buffer_bytes_max().min(self.budget);
        if bytes > limit {
            let (field, budget) = ("blob", self.budget);
            return Err(KernelError::TooLarge { field, needed: bytes, available: limit, budget });
        }
        let others = self.bytes_beside_cache();
        self.cache.make_room("blob", bytes, others, self.budget)?;
        self.trim(bytes);
        let blob = Blob::upload(&mut self.gpu, frame);
        self.cache.put_blob(claimed, blob);
        Ok(())
    }

    /// The blobs that a task names and that are not here, shards included.
    ///
    /// # Errors
    /// Bytes that are no task frame.
    pub fn missing(&self, bytes: &[u8]) -> Result<Vec<BlobId>, KernelError> {
        let frame = decode(bytes)?;
        let message = task_message(&frame)?;
        let shards = message.spec.shards.iter().map(|shard| shard.blob);
        let bound = message.spec.bindings.iter().filter_map(|binding| match binding {
            Binding::Blob { blob, .. } => Some(*blob),
            Binding::Attached { .. }
            | Binding::PerRun { .. }
            | Binding::Rows { .. }
            | Binding::RowMask { .. } => None,
        });
        let mut missing: Vec<BlobId> =
            shards.chain(bound).filter(|id| !self.cache.holds_blob(*id)).collect();
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }

    /// Checks a task and submits it to the device. `Some` is a `refuse` frame:
    /// the task cannot be done here.
    ///
    /// # Errors
    /// Bytes that are no task frame; a task that is running already.
    pub fn begin(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        if let Some(task) = self.running() {
            return Err(KernelError::Busy { running: task.lease() });
        }
        let frame = decode(bytes)?;
        let message = task_message(&frame)?;
        let room = Room { others: self.bytes_beside_cache(), budget: self.budget };
        match Task::begin(&mut self.gpu, &message, &frame, &mut self.cache, room) {
            Ok(task) => {
                self.running = Some(Box::new(task));
                Ok(None)
            }
            Err(error) => Ok(Some(refusal(message.lease, &error))),
        }
    }

    /// The task that is on the device, if any.
    pub fn running(&self) -> Option<&Task> {
        self.running.as_deref()
    }

    /// Resolves once the device has answered the running task, well or not.
    /// Handed out once per task; the kernel may be used meanwhile.
    ///
    /// # Errors
    /// [`KernelError::Idle`].
    pub fn settled(&mut self) -> Result<Waiting<()>, KernelError> {
        let task = self.running.as_mut().ok_or(KernelError::Idle)?;
        Ok(task.take_pending().unwrap_or_else(|| Box::pin(std::future::ready(()))))
    }

    /// Ends the task that the device has answered: the payload is kept under its
    /// lease and the `commit` frame is returned, or, where the device failed, the
    /// `refuse` frame that hands the lease back. `elapsed_ms` is what the commit states.
    ///
    /// # Errors
    /// [`KernelError::Idle`], [`KernelError::Unfinished`].
    pub fn finish(&mut self, elapsed_ms: u64) -> Result<Vec<u8>, KernelError> {
        Ok(match self.take_finished()? {
            Ok(Finished { lease, digest, frame }) => {
                self.keep(lease, frame);
                encode(
                    &FromContributor::Commit { lease, digest, elapsed_ms, backend: Backend::Gpu },
                    &[],
                )
            }
            Err(refused) => refused,
        })
    }

    /// What the task left, or its refusal.
    fn take_finished(&mut self) -> Result<Result<Finished, Vec<u8>>, KernelError> {
        match self.running.take() {
            Some(task) if task.is_done() => {
                let lease = task.lease();
                match task.finish(&mut self.gpu) {
                    Ok(finished) => {
                        self.trim(finished.frame.len() as u64);
                        Ok(Ok(finished))
                    }
                    Err(error) => {
                        // Whatever was on the device may be spoilt; blobs are sent again.
                        self.gpu.clear();
                        self.cache.drop_blobs();
                        Ok(Err(refusal(lease, &error)))
                    }
                }
            }
            Some(task) => {
                let running = task.lease();
                self.running = Some(task);
                Err(KernelError::Unfinished { running })
            }
            None => Err(KernelError::Idle),
        }
    }

    /// Waits for the device where threads may block. In a page, await
    /// [`Kernel::settled`].
    ///
    /// # Errors
    /// [`KernelError::Idle`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&mut self) -> Result<(), KernelError> {
        let pending = self.settled()?;
        let answered = crate::doors::native::block_on(&self.gpu, pending);
        if let (None, Some(task)) = (answered, &mut self.running) {
            let reason = self.gpu.lost().unwrap_or_else(|| "no answer".to_owned());
            task.fail(TaskError::Lost { reason });
        }
        Ok(())
    }

    /// Runs a whole task, blocking, and returns its `result` frame, or a
    /// `refuse` frame. Nothing is kept.
    ///
    /// # Errors
    /// As [`Kernel::begin`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn execute(&mut self, bytes: &[u8]) -> Result<Vec<u8>, KernelError> {
        if let Some(refused) = self.begin(bytes)? {
            return Ok(refused);
        }
        self.wait()?;
        Ok(self.take_finished()?.map_or_else(|refused| refused, |finished| finished.frame))
    }

    /// Gives the running task up at once: its `refuse` frame, if one was
    /// running. The device finishes what it was given; nobody reads it.
    pub fn abort(&mut self) -> Option<Vec<u8>> {
        let task = self.running.take()?;
        // Its buffers are still in use on the device: none may be taken from the pool.
        self.gpu.clear();
        Some(refusal(task.lease(), &TaskError::Stopped))
    }

    fn reveal(&mut self, lease: LeaseId) -> Vec<u8> {
        match self.results.remove(&lease) {
            Some((_, frame)) => frame,
            None => refusal(lease, &TaskError::NoResult { lease }),
        }
    }

    /// Random projections of a kept payload, which stays.
    fn project(&self, lease: LeaseId, key: Seed, probes: u32) -> Result<Vec<u8>, KernelError> {
        match self.results.get(&lease) {
            Some((_, result)) => projected(lease, &decode(result)?, key, probes),
            None => Ok(refusal(lease, &TaskError::NoResult { lease })),
        }
    }

    /// Keeps a payload; the oldest goes where there are too many.
    fn keep(&mut self, lease: LeaseId, frame: Vec<u8>) {
        while self.results.len() >= RESULTS_MAX {
            let oldest = self.results.iter().min_by_key(|(_, (order, _))| *order);
            let Some(oldest) = oldest.map(|(lease, _)| *lease) else { break };
            self.results.remove(&oldest);
        }
        self.finished += 1;
        self.results.insert(lease, (self.finished, frame));
    }

    /// Bytes of graphs, blobs, kept results and the running task; free buffers
    /// of the pool, which make room for all of them, are not counted.
    pub fn held_bytes(&self) -> u64 {
        self.cache.bytes() + self.bytes_beside_cache()
    }

    /// Lets the pool keep only what the budget leaves beside `coming` bytes.
    fn trim(&mut self, coming: u64) {
        let left = self.budget.saturating_sub(self.held_bytes().saturating_add(coming));
        self.gpu.give([], left);
    }

    fn bytes_beside_cache(&self) -> u64 {
        let results: u64 = self.results.values().map(|(_, frame)| frame.len() as u64).sum();
        results + self.running().map_or(0, Task::bytes)
    }
}

/// A `projected` frame of a result.
fn projected(
    lease: LeaseId,
    result: &Frame<'_>,
    key: Seed,
    probes: u32,
) -> Result<Vec<u8>, KernelError> {
    let ty = TensorType::new(DType::U8, [probes, PROJECTION_BYTES as u32]);
    let project = |(number, tensor): (u32, TensorView<'_>)| {
        let projections = project_bytes(key.0, number, probes, tensor.dtype, tensor.data)?;
        Ok((tensor.name.to_owned(), to_bytes(&projections)))
    };
    let written = (0..).zip(result.tensors()).map(project);
    let written = written.collect::<Result<Vec<(String, Vec<u8>)>, KernelError>>()?;
    let parts = written.iter().map(|(name, data)| {
        let (name, ty) = (name.clone(), ty.clone());
        TensorPart { name, ty, data }
    });
    let parts: Vec<TensorPart<'_>> = parts.collect();
    Ok(encode(&FromContributor::Projected { lease }, &parts))
}

fn wrong_id(kind: &'static str, claimed: &impl ToString, found: &impl ToString) -> KernelError {
    KernelError::WrongId { kind, claimed: claimed.to_string(), found: found.to_string() }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::device::Fault;
    use crate::signal::Signal;
    use raven_graph::{DType, GraphBuilder, Shape, TensorType};
    use raven_protocol::{
        Encoding, JobId, Numerics, OutputSpec, Program, ReduceRule, Seed, TaskId, TaskSpec,
        TensorPart,
    };

    /// The frames of a graph, of a blob, and of a task that answers with the blob's words.
    fn frames() -> ([Vec<u8>; 3], BlobId) {
        let mut b = GraphBuilder::new(&Limits::default());
        let w = b.input("w", DType::F32, [4]).expect("valid");
        b.output("y", w);
        let graph = b.finish().expect("valid");
        let (name, data) = ("w".to_owned(), &[7u8; 16]);
        let ty = TensorType { dtype: DType::F32, shape: Shape(vec![4]) };
        let parts = [TensorPart { name, ty, data }];
        let unnamed = encode(&ToContributor::Blob { id: BlobId([0; 32]) }, &parts);
        let id = blob_id(decode(&unnamed).expect("a frame").tensors());
        let bound = Binding::Blob { input: "w".into(), blob: id, tensor: "w".into() };
        let spec = TaskSpec {
            program: Program::Map { graph: graph.id(), start: 0, count: 1 },
            seed: Seed(1),
            bindings: vec![bound],
            shards: Vec::new(),
            outputs: vec![OutputSpec {
                name: "y".into(),
                encoding: Encoding::Raw,
                reduce: ReduceRule::Sum,
            }],
            numerics: Numerics::Relaxed,
        };
        let task = TaskId { job: JobId(1), round: 0, stage: 0, part: 0 };
        let task = TaskMessage { lease: LeaseId(1), task, lease_ms: 1000, flops: 0, spec };
        let graph = ToContributor::Graph { id: graph.id(), graph: GraphText::of(&graph) };
        let frames = [
            encode(&graph, &[]),
            encode(&ToContributor::Blob { id }, &parts),
            encode(&ToContributor::Task(Box::new(task)), &[]),
        ];
        (frames, id)
    }

    #[test]
    fn a_failed_upload_is_known_to_the_task_and_to_those_after_it() {
        let Some(gpu) = crate::doors::native::open_for_tests() else { return };
        let ([graph, blob, task], id) = frames();
        let mut kernel = Kernel::new(gpu, 1 << 20);
        kernel.accept(&graph).expect("a graph");
        for is_aborted in [true, false] {
            kernel.accept(&blob).expect("a blob");
            assert_eq!(kernel.missing(&task).expect("a task"), []);
            let upload: Signal<Option<Fault>> = Signal::default();
            kernel.cache.set_upload(id, Box::pin(upload.clone()));
            assert!(kernel.begin(&task).expect("a task").is_none());
            // Nobody reads what became of a task that was given up.
            let stopped = is_aborted.then(|| kernel.abort());
            upload.send(Some(Fault::OutOfMemory));
            if stopped.is_none() {
                kernel.wait().expect("running");
                let refused = kernel.finish(1).expect("answered");
                assert_eq!(refused, refusal(LeaseId(1), &TaskError::OutOfMemory));
            }
            assert_eq!(kernel.missing(&task).expect("a task"), [id]);
            assert!(kernel.begin(&task).expect("a task").is_some(), "nothing is computed from it");
        }
    }
}
