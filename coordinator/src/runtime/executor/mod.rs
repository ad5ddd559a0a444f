//! Tensor maths of the master, on the same module that visitors run.
//!
//! Operations are pure functions of what is handed to them; their results do
//! not depend on which thread runs them or what ran before.

mod compose;
mod evaluate;
mod fold;
pub mod kernel;
mod master;
mod operations;
mod pool;
mod replay;
mod robust;
mod runner;
mod state;
mod tensor;

pub use evaluate::Evaluation;
pub use kernel::{Kernel, KernelError, KernelModule};
pub use master::{RoundStart, RoundValues, RowSource, Values, operands};
pub use operations::{Begun, Done, Fold, Operation, Part, ROWS, Worker, attached, row_bindings};
pub use pool::{Executor, Request};
pub use replay::ReplicaTask;
pub use robust::{Combined, Group};
pub use runner::{Run, Runner};
pub use state::{State, Weights};
pub use tensor::{Tensor, tensors_of};

use crate::blobs::BlobError;
use raven_graph::GraphError;
use raven_protocol::{FrameError, RefuseReason};

/// Why an operation came to nothing. The job ends with this reason.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    #[error("{0}")]
    Kernel(#[from] KernelError),
    #[error("the kernel refused the task ({reason:?}): {detail}")]
    Refused { reason: RefuseReason, detail: String },
    #[error("the kernel's reply: {reason}")]
    Reply { reason: String },
    #[error("a frame of the kernel or the store: {0}")]
    Frame(#[from] FrameError),
    #[error("a graph made for a reduction: {0}")]
    Graph(#[from] GraphError),
    #[error("the parts of a round do not tile its micro-batches")]
    TreeShape,
    #[error("the value {name:?} is not there")]
    Missing { name: String },
    #[error("the state does not fit its job: {reason}")]
    StateMismatch { reason: String },
    #[error("{0}")]
    Blob(#[from] BlobError),
    #[error("the shard's column {column:?}: {reason}")]
    Column { column: String, reason: String },
    #[error("more operations wait than the limit of {limit}")]
    Full { limit: usize },
    #[error("the executor has stopped")]
    Stopped,
    #[error("the executor panicked in {operation}; its log says where")]
    Panicked { operation: &'static str },
}
