//! Jobs: the requester's document, its lowering to graphs, and what the runtime is handed.

mod combine;
pub mod context;
mod divergence;
mod error;
mod lower;
mod pseudonym;
mod quote;
mod resume;
mod sizes;
mod sliced;
mod spec;
mod terms;

pub use combine::Combine;
pub use context::{DataContext, JobContext, RowGraph, StepGraph, TensorSpec};
pub use divergence::OnDivergence;
pub use error::JobError;
pub(crate) use lower::terms;
pub use lower::{Lowering, lower_job};
pub use pseudonym::pseudonym;
pub use quote::{Quote, Speeds, TimeRange, calculations, held, quote};
pub use resume::{ResumeError, resume};
pub use spec::{
    Adam, EarlyStoppingSpec, JobSpec, Optimizer, PlacementKind, SeedNumber, Sgd, Training,
};

pub use terms::{BudgetSpec, Deadline, JobTerms, WhenSpent};

use raven_engine::{Allowance, Rates, Verification};
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
    /// At which its work is paid. Jobs of before rates were set had those of always.
    #[serde(default)]
    pub rates: Rates,
    /// How many executions of each task it may be charged. Jobs of before that was kept
    /// do not say.
    #[serde(default)]
    pub allowance: Option<Allowance>,
}

impl JobFacts {
    /// How many executions of each task a job of this mode may be charged.
    pub fn allowance(&self, mode: Verification) -> Allowance {
        self.allowance.unwrap_or(Allowance::unsaid(mode))
    }

    /// Static cost of the fewest epochs after which the job may be complete.
    pub fn flops_least(&self, training: &Training) -> u64 {
        let epochs = training.epochs.max(1);
        // The first epoch is a gain; one more than the tolerated ones ends the job.
        let least = training
            .early_stopping
            .map_or(epochs, |early| early.patience.saturating_add(2).min(epochs));
        self.flops_planned / u64::from(epochs) * u64::from(least)
    }
}
