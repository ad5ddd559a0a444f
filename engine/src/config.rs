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
    /// Results of an identity that must have been confirmed before one is
    /// accepted singly.
    pub vetted_after: u32,
    /// However many were, one in so many is computed a second time: a liar is
    /// found after so many lies on average.
    pub check_one_in_max: u32,
    /// One in so many results on which contributors agreed is computed by the
    /// referee as well: it finds those who agree on a lie.
    pub audit_one_in: u32,
    /// Questions that may be on the referee's desk at once. With as many no new task
    /// is leased of jobs whose results are checked.
    pub cases_max: usize,
    /// Unsettled results of a proven liar that the referee looks at; with more
    /// the job goes back to before the first of them at once.
    pub rechecks_max: usize,
    /// Rounds that may be unsettled at once: what a proven lie can cost at most.
    pub unsettled_rounds_max: usize,
    /// Bytes of the states that these rounds began from, per job.
    pub unsettled_bytes_max: u64,
    /// How long a task waits for a second contributor before the referee steps in.
    pub partner_wait_ms: Millis,
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
            link_bytes_per_s: 2_500_000,
            round_trip_ms: 50,
            micro_batches_max: 1 << 16,
            stages_max: 1_024,
            parts_max: 4_096,
            vetted_after: 5,
            check_one_in_max: 20,
            audit_one_in: 50,
            cases_max: 16_000,
            rechecks_max: 64,
            unsettled_rounds_max: 64,
            unsettled_bytes_max: 256 << 20,
            partner_wait_ms: 5_000,
        }
    }
}

impl EngineConfig {
    /// Rounds of a job with states of that size that may be unsettled at once.
    pub(crate) fn unsettled_rounds_max(&self, state_bytes: u64) -> usize {
        let fit = self.unsettled_bytes_max / state_bytes.max(1);
        usize::try_from(fit).unwrap_or(usize::MAX).clamp(1, self.unsettled_rounds_max.max(1))
    }
}
