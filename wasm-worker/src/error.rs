//! Why the kernel does not do what it is asked.

use raven_graph::GraphError;
use raven_proof::projection::NotWhole;
use raven_protocol::{FrameError, LeaseId, MessageError, RefuseReason, SpecError};

/// A frame that the kernel cannot take. Nothing has changed when one is returned.
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
    /// A task is running already.
    #[error("lease: {running} is still running")]
    Busy { running: LeaseId },
    /// No task is running.
    #[error("lease: no task is running")]
    Idle,
    /// The running task has steps left.
    #[error("lease: {running} has steps left")]
    Unfinished { running: LeaseId },
}

/// Why a well-formed task is handed back.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The spec contradicts itself.
    #[error(transparent)]
    Spec(#[from] SpecError),
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
            TaskError::TooLarge { .. } => RefuseReason::TooLarge,
            TaskError::Stopped => RefuseReason::Stopping,
            TaskError::Spec(_)
            | TaskError::Unknown { .. }
            | TaskError::Unbound { .. }
            | TaskError::Type { .. }
            | TaskError::Row { .. }
            | TaskError::Twice { .. } => RefuseReason::Invalid,
        }
    }
}
