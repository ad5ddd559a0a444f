//! The kernel: frames in, frames out, within a declared budget of memory.

use crate::buffer;
use crate::cache::{Blob, Cache};
use crate::error::{KernelError, TaskError};
use crate::plan::Plan;
use crate::received::Received;
use crate::task::{Finished, Task};
use raven_graph::{DType, GraphId, Limits, TensorType};
use raven_proof::projection::{PROJECTION_BYTES, project_bytes, to_bytes};
use raven_protocol::frame::encode;
use raven_protocol::limits::TEXT_BYTES_MAX;
use raven_protocol::{
    Backend, BlobId, Frame, FrameLimits, FromContributor, GraphText, LeaseId, RefuseReason, Seed,
    TaskMessage, TensorPart, TensorView, ToContributor, blob_id,
};
use std::collections::HashMap;
use std::rc::Rc;

/// Results that are kept for their reveal at most. A coordinator keeps a few
/// tasks in flight per worker; more than this are leases long expired.
const RESULTS_MAX: usize = 64;

/// What a budget may promise at most: three quarters of the address space,
/// 3 GiB in the module. The rest is for code, stack and frames in transit.
const BUDGET_MAX: u64 = usize::MAX as u64 / 4 * 3;

/// What the kernel is at.
#[derive(Debug)]
enum State {
    Idle,
    Running(Box<Task>),
}

/// A kernel with its cache, its running task and the results that wait for
/// their reveal.
#[derive(Debug)]
pub struct Kernel {
    cache: Cache,
    state: State,
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
    /// A kernel that holds at most `budget` bytes of blobs, graphs, values and
    /// kept results together.
    pub fn new(budget: u64) -> Self {
        Kernel {
            cache: Cache::default(),
            state: State::Idle,
            results: HashMap::new(),
            finished: 0,
            budget: budget.min(BUDGET_MAX),
        }
    }

    /// Takes a `graph`, `blob`, `drop`, `cancel`, `project` or `reveal` frame. A
    /// project is answered by a `projected` frame and a reveal by a `result` frame,
    /// or by a `refuse` frame where nothing is kept under the lease; a cancel of the
    /// running task by a `refuse` frame.
    ///
    /// # Errors
    /// Bytes that are no such frame, content that does not match its id, a
    /// graph that is not valid, an entry that does not fit the budget.
    pub fn accept(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        self.accept_received(&Received::borrowed(bytes))
    }

    /// The same of bytes that are ours: tensors stay where they lie, so that none is copied.
    ///
    /// # Errors
    /// As [`Kernel::accept`].
    pub fn accept_owned(&mut self, bytes: Vec<u8>) -> Result<Option<Vec<u8>>, KernelError> {
        self.accept_received(&Received::owned(&Rc::new(bytes)))
    }

    fn accept_received(&mut self, received: &Received<'_>) -> Result<Option<Vec<u8>>, KernelError> {
        let frame = decode(received.bytes())?;
        match ToContributor::from_header(frame.header())? {
            ToContributor::Graph { id, graph } => self.accept_graph(id, &graph).map(|()| None),
            ToContributor::Blob { id } => self.accept_blob(id, &frame, received).map(|()| None),
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
        let plan = Plan::new(graph);
        let others = self.bytes_beside_cache();
        self.cache.make_room("graph", plan.held_bytes(), others, self.budget)?;
        self.limit_buffers(plan.held_bytes());
        self.cache.put_graph(claimed, plan);
        Ok(())
    }

    fn accept_blob(
        &mut self,
        claimed: BlobId,
        frame: &Frame<'_>,
        received: &Received<'_>,
    ) -> Result<(), KernelError> {
        if self.cache.blob(claimed).is_some() {
            return Ok(());
        }
        let found = blob_id(frame.tensors());
        if found != claimed {
            return Err(wrong_id("blob", &claimed, &found));
        }
        let bytes = received.held_bytes(frame);
        let others = self.bytes_beside_cache();
        self.cache.make_room("blob", bytes, others, self.budget)?;
        self.limit_buffers(bytes);
        self.cache.put_blob(claimed, Blob::from_frame(frame, received));
        Ok(())
    }

    /// The blobs that a task names and that are not here, shards included.
    ///
    /// # Errors
    /// Bytes that are no task frame.
    pub fn missing(&self, bytes: &[u8]) -> Result<Vec<BlobId>, KernelError> {
        use raven_protocol::Binding;
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

    /// Begins a task. `Some` is a `refuse` frame: the task cannot be done here.
    ///
    /// # Errors
    /// Bytes that are no task frame; a task that is running already.
    pub fn begin(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        self.begin_received(&Received::borrowed(bytes))
    }

    /// The same of bytes that are ours: attachments stay where they lie.
    ///
    /// # Errors
    /// As [`Kernel::begin`].
    pub fn begin_owned(&mut self, bytes: Vec<u8>) -> Result<Option<Vec<u8>>, KernelError> {
        self.begin_received(&Received::owned(&Rc::new(bytes)))
    }

    fn begin_received(&mut self, received: &Received<'_>) -> Result<Option<Vec<u8>>, KernelError> {
        if let Some(task) = self.running() {
            return Err(KernelError::Busy { running: task.lease() });
        }
        let frame = decode(received.bytes())?;
        let message = task_message(&frame)?;
        let others = self.bytes_beside_cache();
        match Task::begin(&message, (&frame, received), &mut self.cache, others, self.budget) {
            Ok(task) => {
                self.state = State::Running(Box::new(task));
                self.limit_buffers(0);
                Ok(None)
            }
            Err(error) => Ok(Some(refusal(message.lease, &error))),
        }
    }

    /// Advances the running task by at least `flops` operations, in whole
    /// steps of its plan. True once it is finished.
    ///
    /// # Errors
    /// [`KernelError::Idle`].
    pub fn step(&mut self, flops: u64) -> Result<bool, KernelError> {
        let State::Running(task) = &mut self.state else { return Err(KernelError::Idle) };
        task.step(flops);
        Ok(task.is_done())
    }

    /// The task that is running, if any.
    pub fn running(&self) -> Option<&Task> {
        match &self.state {
            State::Running(task) => Some(task),
            State::Idle => None,
        }
    }

    /// Ends the finished task: the payload is kept under its lease, the
    /// `commit` frame is returned. `elapsed_ms` is what the frame states.
    ///
    /// # Errors
    /// [`KernelError::Idle`], [`KernelError::Unfinished`].
    pub fn finish(&mut self, elapsed_ms: u64) -> Result<Vec<u8>, KernelError> {
        let Finished { lease, digest, frame } = self.take_finished()?;
        self.keep(lease, frame);
        self.limit_buffers(0);
        Ok(encode(
            &FromContributor::Commit { lease, digest, elapsed_ms, backend: Backend::Cpu },
            &[],
        ))
    }

    fn take_finished(&mut self) -> Result<Finished, KernelError> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Running(task) if task.is_done() => Ok(task.finish()),
            State::Running(task) => {
                let running = task.lease();
                self.state = State::Running(task);
                Err(KernelError::Unfinished { running })
            }
            State::Idle => Err(KernelError::Idle),
        }
    }

    /// Runs a whole task and returns its `result` frame, or a `refuse` frame.
    /// Nothing is kept.
    ///
    /// # Errors
    /// As [`Kernel::begin`].
    pub fn execute(&mut self, bytes: &[u8]) -> Result<Vec<u8>, KernelError> {
        if let Some(refused) = self.begin(bytes)? {
            return Ok(refused);
        }
        self.step(u64::MAX)?;
        Ok(self.take_finished()?.frame)
    }

    /// Gives the running task up at once: its `refuse` frame, if one was running.
    pub fn abort(&mut self) -> Option<Vec<u8>> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Running(task) => Some(refusal(task.lease(), &TaskError::Stopped)),
            State::Idle => None,
        }
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

    /// Bytes of graphs, blobs, kept results and the running task.
    pub fn held_bytes(&self) -> u64 {
        self.cache.bytes() + self.bytes_beside_cache()
    }

    /// Leaves to buffers what the running task's values may take, and what the budget has beside
    /// all that is held and `coming`.
    fn limit_buffers(&self, coming: u64) {
        let held = self.held_bytes().saturating_add(coming);
        let values = self.running().map_or(0, Task::value_bytes);
        buffer::limit(self.budget.saturating_sub(held), values);
    }

    fn bytes_beside_cache(&self) -> u64 {
        let results: u64 = self.results.values().map(|(_, frame)| frame.len() as u64).sum();
        results + self.running().map_or(0, Task::bytes)
    }
}

/// What was kept for this kernel's values goes with it.
impl Drop for Kernel {
    fn drop(&mut self) {
        buffer::limit(0, 0);
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
