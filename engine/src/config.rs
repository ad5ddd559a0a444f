//! The engine's bounds, each with its reason.

use crate::event::Millis;

/// Bounds and seeds of an engine. The defaults suit one coordinator process.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// Keys the lease ids. Secret: whoever knows it can guess leases, though
    /// not answer them, because a lease belongs to one session.
    pub seed: u64,
    /// Open sessions. Each costs a socket and its buffers in the shell.
    pub sessions_max: usize,
    /// Jobs that have not ended; one more is failed with this as its reason.
    pub jobs_max: usize,
    /// Jobs that run at once; the others are queued, so that a round's
    /// contributors are not spread thinner than one task each.
    pub jobs_active_max: usize,
    /// Ended jobs whose view is kept for readers.
    pub jobs_ended_kept: usize,
    /// Uncommitted leases per worker: one runs, one waits, so that a worker
    /// does not idle while its commit and the next task cross the wire.
    pub leases_per_worker: u32,
    /// Leases of one session in any state, committed ones included.
    pub leases_per_session_max: u32,
    /// A task's compute time at the session's share, so that a visitor who
    /// leaves loses little and a page stays responsive to stop.
    pub task_ms_max: u64,
    /// The shortest lease: below it a garbage collection would end leases.
    pub lease_ms_min: u64,
    /// The longest lease: what a frozen contributor can cost at most.
    pub lease_ms_max: u64,
    /// Leases of one task at once, the first included.
    pub copies_max: usize,
    /// Pause after a first expired lease; it doubles with each further one in a row.
    pub backoff_ms_min: u64,
    /// The longest pause: a contributor that recovered is not shut out for good.
    pub backoff_ms_max: u64,
    /// Pause before an end that the store did not take is offered again; it
    /// doubles with each further failure.
    pub save_ms_min: u64,
    /// The longest such pause: a store that is back is noticed within it.
    pub save_ms_max: u64,
    /// Distinct contributors that must call a task invalid before its job
    /// fails, where nobody has done it: one liar ends no job.
    pub invalid_refusals_max: usize,
    /// Assumed transfer rate until one was measured, in bytes per second.
    pub link_bytes_per_s: u64,
    /// Assumed round trip until one was measured.
    pub round_trip_ms: Millis,
    /// Micro-batches in one round; bounds the memory that a plan can claim.
    pub micro_batches_max: u32,
    /// Rounds of master placement may have at most this many stages, and
    /// each at most this many parts, for the same reason.
    pub stages_max: usize,
    /// Parts of one stage.
    pub parts_max: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            seed: 0,
            sessions_max: 10_000,
            jobs_max: 1_000,
            jobs_active_max: 64,
            jobs_ended_kept: 1_000,
            leases_per_worker: 2,
            leases_per_session_max: 512,
            task_ms_max: 2_000,
            lease_ms_min: 3_000,
            lease_ms_max: 120_000,
            copies_max: 2,
            backoff_ms_min: 2_000,
            backoff_ms_max: 600_000,
            save_ms_min: 1_000,
            save_ms_max: 60_000,
            invalid_refusals_max: 3,
            link_bytes_per_s: 2_500_000,
            round_trip_ms: 50,
            micro_batches_max: 1 << 16,
            stages_max: 1_024,
            parts_max: 4_096,
        }
    }
}
