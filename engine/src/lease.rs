//! Leases: single-use rights to answer one task.

use crate::event::Millis;
use crate::ids::IdMap;
use raven_graph::philox::{key, philox4x32};
use raven_protocol::{BlobId, JobId, LeaseId, ResultDigest, SessionId, TaskId};

/// How far a lease is. Expired and answered leases are not kept at all, so
/// whatever arrives for them names an unknown lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseState {
    /// Behind other leases of its session, as far as the engine can tell.
    Queued,
    /// On a worker since then.
    Running { since: Millis },
    /// Answered; another lease's payload is being awaited.
    Committed { digest: ResultDigest },
    /// Random projections of its payload were asked for.
    Projecting { digest: ResultDigest },
    /// Its payload was asked for then.
    Revealing { digest: ResultDigest, since: Millis },
}

/// One lease.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) id: LeaseId,
    pub(crate) session: SessionId,
    pub(crate) job: JobId,
    pub(crate) task: TaskId,
    pub(crate) flops: u64,
    pub(crate) result_bytes: u64,
    /// Blobs that the session must keep while it lasts.
    pub(crate) blobs: Vec<BlobId>,
    pub(crate) issued: Millis,
    pub(crate) expires: Millis,
    /// What its session had to receive or fetch first.
    pub(crate) missing_bytes: u64,
    /// Estimate of fetching it.
    pub(crate) transfer_ms: f64,
    /// Estimate from start to commit, transfer included.
    pub(crate) estimate_ms: f64,
    pub(crate) state: LeaseState,
    /// Since when the coordinator has what it asked for, and checks it.
    pub(crate) arrived: Option<Millis>,
    /// Whether that is a payload as its task asks for.
    pub(crate) is_shown: bool,
    /// How long its session was not read while it was in this state.
    pub(crate) held_up_ms: Millis,
    /// Whether it was given because another one was late.
    pub(crate) is_relief: bool,
}

impl Lease {
    /// Whether a worker still has to compute for it.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, LeaseState::Queued | LeaseState::Running { .. })
    }

    /// When a running or revealing lease counts as overdue: half as long again
    /// as estimated, and never for less than what a hiccup of a page or a link takes.
    pub(crate) fn overdue_at(&self, reveal_ms: f64) -> Option<Millis> {
        let late = |since: Millis, estimate: f64| since + (estimate * 1.5 + 500.0) as Millis;
        match self.state {
            LeaseState::Running { since } => Some(late(since, self.estimate_ms)),
            LeaseState::Revealing { since, .. } => Some(late(since, reveal_ms)),
            LeaseState::Queued | LeaseState::Committed { .. } | LeaseState::Projecting { .. } => {
                None
            }
        }
    }
}

/// The live leases.
#[derive(Debug)]
pub(crate) struct LeaseTable {
    seed: u64,
    issued: u64,
    leases: IdMap<LeaseId, Lease>,
}

impl LeaseTable {
    pub(crate) fn new(seed: u64) -> Self {
        LeaseTable { seed, issued: 0, leases: IdMap::default() }
    }

    /// An id that was never given out: 128 bits of the keyed counter.
    pub(crate) fn next_id(&mut self) -> LeaseId {
        const TAG: u32 = 0x4c45_4153;
        loop {
            let counter = [self.issued as u32, (self.issued >> 32) as u32, TAG, 0];
            self.issued += 1;
            let words = philox4x32(counter, key(self.seed));
            let id = words.iter().fold(0u128, |id, &word| id << 32 | u128::from(word));
            // A keyed counter is a permutation: ids of one engine never repeat.
            // Only zero, which reads like a default, is passed over.
            if id != 0 {
                return LeaseId(id);
            }
        }
    }

    pub(crate) fn insert(&mut self, lease: Lease) {
        let before = self.leases.insert(lease.id, lease);
        assert!(before.is_none(), "lease ids are single-use");
    }

    pub(crate) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: LeaseId) -> Option<&mut Lease> {
        self.leases.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        self.leases.remove(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_do_not_repeat_and_depend_on_the_seed() {
        let ids = |seed| {
            let mut table = LeaseTable::new(seed);
            (0..10_000).map(|_| table.next_id()).collect::<BTreeSet<_>>()
        };
        let (first, second) = (ids(1), ids(2));
        assert_eq!(first.len(), 10_000);
        assert!(first.is_disjoint(&second));
    }
}
