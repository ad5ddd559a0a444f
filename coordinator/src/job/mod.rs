//! Jobs: the requester's document, its lowering to graphs, and what the runtime is handed.

pub mod context;
mod error;
mod lower;
mod resume;
mod sizes;
mod sliced;
mod spec;

pub use context::{DataContext, JobContext, RowGraph, StepGraph, TensorSpec};
pub use error::JobError;
pub use lower::{Lowering, lower_job};
pub use resume::{ResumeError, resume};
pub use spec::{
    Adam, EarlyStoppingSpec, JobSpec, Optimizer, PlacementKind, SeedNumber, Sgd, Training,
};

use serde::{Deserialize, Serialize};

/// What lowering a job came to, as far as its owner is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFacts {
    /// What the model file holds, in order.
    pub params: Vec<raven_graph::ParamSpec>,
    /// Numbers that training changes.
    pub parameters: u64,
    pub weights_bytes: u64,
    pub steps_per_epoch: u32,
    /// Optimizer steps of all epochs.
    pub steps: u32,
    /// Static cost of all of them.
    pub flops_planned: u64,
}
