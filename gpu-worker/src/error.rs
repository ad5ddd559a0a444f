//! Why the GPU kernel does not do what it is asked.

use raven_graph::GraphError;
use raven_proof::projection::NotWhole;
use raven_protocol::{FrameError, LeaseId, MessageError, RefuseReason, SpecError};

/// A frame or a call that cannot be taken. Nothing has changed when one is returned.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The bytes are not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The header is not a message from a coordinator.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The graph is not valid.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A result has a part of an element.
    #[error(transparent)]
    Project(#[from] NotWhole),
    /// The graph cannot run on this device.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The message is not one that this call takes.
    #[error("type: {found} is not accepted here, {expected} is")]
    UnexpectedMessage { expected: &'static str, found: &'static str },
    /// The content does not hash to the id that it came under.
    #[error("{kind}.id: {claimed} was claimed, the content is {found}")]
    WrongId { kind: &'static str, claimed: String, found: String },
    /// The entry does not fit beside what a running task holds.
    #[error(
        "too_large: {field} needs {needed} bytes, {available} of the budget of {budget} can be freed"
    )]
    TooLarge { field: &'static str, needed: u64, available: u64, budget: u64 },
    /// The device is gone: open another, or hand leases back.
    #[error("device: lost ({reason})")]
    Lost { reason: String },
    /// A task is running already.
    #[error("lease: {running} is still running")]
    Busy { running: LeaseId },
    /// No task is running.
    #[error("lease: no task is running")]
    Idle,
    /// The running task has not come back from the device yet.
    #[error("lease: {running} is still on the device")]
    Unfinished { running: LeaseId },
}

/// Why a graph cannot run on a device, judged from the graph alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// A value does not fit one binding of the device.
    #[error("graph.nodes[{node}] ({op}): {bytes} bytes, a binding holds {limit}")]
    Value { node: u32, op: &'static str, bytes: u64, limit: u64 },
    /// A window's geometry leaves the range in which shaders count.
    #[error("graph.nodes[{node}] ({op}): {field} of {found} exceeds {limit}")]
    Geometry { node: u32, op: &'static str, field: &'static str, found: u64, limit: u64 },
    /// One invocation would compute for too long.
    #[error("graph.nodes[{node}] ({op}): {found} steps in one invocation exceed {limit}")]
    Steps { node: u32, op: &'static str, found: u64, limit: u64 },
    /// The graph takes more launches, or more shader text, than a plan may hold.
    #[error("graph: {found} {field} exceed {limit}")]
    Size { field: &'static str, found: u64, limit: u64 },
    /// An op and its operands do not fit one shader.
    #[error("graph.nodes[{node}] ({op}): more buffers or parameters than one shader takes")]
    Chain { node: u32, op: &'static str },
}

/// Why no device was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no adapter, or only a software one that was not asked for.
    #[error("adapter: {reason}")]
    Adapter { reason: String },
    /// The adapter gave no device with WebGPU's default limits.
    #[error("device: {reason}")]
    Device { reason: String },
}

/// Why a well-formed task is handed back.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The spec contradicts itself.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Results of this class are not bit-exact, and the job asks for that.
    #[error("spec.numerics: strict tasks run on the CPU module only")]
    Strict,
    /// A graph or blob is not here.
    #[error("{field}: {id} is not here")]
    Missing { field: &'static str, id: String },
    /// A named thing does not exist.
    #[error("{field}: there is no {name:?}")]
    Unknown { field: &'static str, name: String },
    /// A graph input is not bound.
    #[error("spec.bindings: input {input:?} is not bound")]
    Unbound { input: String },
    /// A tensor is not what the graph takes.
    #[error("{field}: {name:?} is {found}, expected {expected}")]
    Type { field: &'static str, name: String, expected: String, found: String },
    /// A row number that no shard holds.
    #[error("{field}: row {row} is in none of the task's shards")]
    Row { field: &'static str, row: i32 },
    /// A name is listed twice.
    #[error("{field}: {name:?} is listed twice")]
    Twice { field: &'static str, name: String },
    /// The task needs more memory than the budget leaves.
    #[error(
        "too_large: the task needs {needed} bytes, {available} of the budget of {budget} can be freed"
    )]
    TooLarge { needed: u64, available: u64, budget: u64 },
    /// The task does not fit one submission, or a part of it one binding.
    #[error("too_large: {field} of {found} exceeds {limit}")]
    Limit { field: &'static str, found: u64, limit: u64 },
    /// The device had no memory left.
    #[error("device: out of memory")]
    OutOfMemory,
    /// The device went away before the result was read.
    #[error("device: lost ({reason})")]
    Lost { reason: String },
    /// The device refused the work or did not complete it.
    #[error("device: {reason}")]
    Device { reason: String },
    /// No result is kept under that lease.
    #[error("lease: no result of {lease} is kept")]
    NoResult { lease: LeaseId },
    /// The task was given up.
    #[error("lease: given up before its end")]
    Stopped,
}

impl TaskError {
    /// The reason that a refusal states.
    pub fn reason(&self) -> RefuseReason {
        match self {
            TaskError::Missing { .. } | TaskError::NoResult { .. } => RefuseReason::Missing,
            TaskError::TooLarge { .. } | TaskError::Limit { .. } | TaskError::OutOfMemory => {
                RefuseReason::TooLarge
            }
            TaskError::Stopped => RefuseReason::Stopping,
            TaskError::Lost { .. } | TaskError::Device { .. } => RefuseReason::Failed,
            TaskError::Spec(_)
            | TaskError::Strict
            | TaskError::Unknown { .. }
            | TaskError::Unbound { .. }
            | TaskError::Type { .. }
            | TaskError::Row { .. }
            | TaskError::Twice { .. } => RefuseReason::Invalid,
        }
    }
}
