//! Read-only pictures for HTTP.

use crate::event::{ContributorId, Metrics, Millis, SiteId};
use crate::job::JobState;
use crate::terms::Spent;
use raven_protocol::{BlobId, DeviceClass, JobId, SessionId};

/// A job, running or ended.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    pub job: JobId,
    pub state: JobState,
    /// Optimizer steps done, of `total_steps`.
    pub step: u32,
    pub total_steps: u32,
    pub epochs_done: u32,
    /// The newest state.
    pub weights: Option<BlobId>,
    /// Best mean evaluation loss and its state.
    pub best: Option<(f32, BlobId)>,
    /// Of the last step.
    pub train: Option<Metrics>,
    /// Of the last evaluation.
    pub evaluation: Option<Metrics>,
    pub tasks_accepted: u64,
    pub flops_accepted: u64,
    /// Contributors to the last durable round.
    pub contributors: u32,
    /// Leases out now.
    pub leases: usize,
    /// Master placement: the most slices of the weights that any contributor was shown.
    pub slices_shown_max: usize,
    /// Accepted results that are not settled.
    pub unsettled: usize,
    /// How often it went back to a round before a wrong result.
    pub rollbacks: u32,
    /// How often it went back because its loss diverged.
    pub setbacks: u32,
    /// What its accepted work has cost, without what is void.
    pub spent: Spent,
}

/// What a session may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStatus {
    /// It has work.
    Working,
    /// It could have work.
    Idle,
    /// Its visitor asked for a pause.
    Paused,
    /// Its leases came to nothing; it gets none before then.
    BackingOff { until: Millis },
}

/// An open session.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionView {
    pub session: SessionId,
    pub contributor: ContributorId,
    pub site: Option<SiteId>,
    pub device: DeviceClass,
    pub share: f64,
    pub workers: u32,
    pub status: SessionStatus,
    pub opened: Millis,
    /// Speed of all workers at this share, measured or still claimed, in flop/s.
    pub flops_per_s: f64,
    pub measured: bool,
    pub leases: usize,
    pub tasks_accepted: u64,
    pub flops_accepted: u64,
    /// Bytes of blobs that it was given.
    pub held_bytes: u64,
}
