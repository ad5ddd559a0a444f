//! The driver's end of one session.

use crate::runtime::leases::LeaseTable;
use crate::runtime::outbox::{Build, Ending, Outbox, Overflow};
use crate::runtime::session::Refusal;
use axum::body::Bytes;
use raven_engine::SessionProfile;
use raven_protocol::{BlobId, GoodbyeReason, SessionId};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A session that has consented, as its socket's task hands it over.
#[derive(Debug)]
pub struct Opened {
    /// The session.
    pub session: SessionId,
    /// What the engine is told of it.
    pub profile: SessionProfile,
    /// Where frames to it wait.
    pub outbox: Outbox,
    /// Leases that it may answer.
    pub leases: Arc<Mutex<LeaseTable>>,
    /// Its token for data shards.
    pub grant: String,
}

/// An open session.
#[derive(Debug)]
pub struct Link {
    pub(super) profile: SessionProfile,
    pub(super) grant: String,
    pub(super) joined: Instant,
    outbox: Outbox,
    leases: Arc<Mutex<LeaseTable>>,
    /// By weights blob, the states that were sent as it. States that differ in
    /// their optimizer slots alone are one blob to a contributor.
    weights: HashMap<BlobId, HashSet<BlobId>>,
}

impl Link {
    pub(super) fn new(opened: Opened) -> Self {
        Link {
            profile: opened.profile,
            grant: opened.grant,
            joined: Instant::now(),
            outbox: opened.outbox,
            leases: opened.leases,
            weights: HashMap::new(),
        }
    }

    /// Leases that the session may answer.
    pub(super) fn lease_table(&self) -> Arc<Mutex<LeaseTable>> {
        self.leases.clone()
    }

    pub(super) fn leases(&self) -> MutexGuard<'_, LeaseTable> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame; a peer that does not drain its socket is told goodbye.
    pub(super) fn send(&self, frame: Bytes) {
        self.told(self.outbox.push(frame));
    }

    /// Queues a frame of `bytes` that is made when its turn has come.
    pub(super) fn defer(&self, bytes: usize, build: Build) {
        self.told(self.outbox.defer(bytes, build));
    }

    fn told(&self, queued: Result<(), Overflow>) {
        if let Err(overflow) = queued {
            self.close(GoodbyeReason::TooSlow, overflow.detail());
        }
    }

    pub(super) fn close(&self, reason: GoodbyeReason, detail: impl Into<String>) {
        self.outbox.end(Ending::Goodbye(Refusal::new(reason, detail)));
    }

    /// Notes that `state` is to be had as `weights`; whether it must be sent.
    pub(super) fn hold_weights(&mut self, state: BlobId, weights: BlobId) -> bool {
        let states = self.weights.entry(weights).or_default();
        let is_new = states.is_empty();
        states.insert(state);
        is_new
    }

    /// The blobs that a contributor is to forget, for states and shards that
    /// the engine wants forgotten.
    pub(super) fn forget(&mut self, blobs: Vec<BlobId>) -> Vec<BlobId> {
        let mut forgotten = Vec::with_capacity(blobs.len());
        for blob in blobs {
            let mut was_state = false;
            self.weights.retain(|&weights, states| {
                if !states.remove(&blob) {
                    return true;
                }
                was_state = true;
                if states.is_empty() {
                    forgotten.push(weights);
                }
                !states.is_empty()
            });
            if !was_state {
                forgotten.push(blob);
            }
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_engine::{ContributorId, NetworkPrefix};
    use raven_protocol::{DeviceClass, KernelId, NumericClass};

    #[test]
    fn weights_shared_by_two_states_are_sent_once_and_kept_until_both_go() {
        let profile = SessionProfile {
            contributor: ContributorId([0; 32]),
            site: None,
            prefix: NetworkPrefix([0; 16]),
            device: DeviceClass::Server,
            numeric: NumericClass::Cpu { kernel: KernelId([0; 32]) },
            flops_per_s: 1,
            share: 1.0,
            workers: 1,
            memory_bytes: 1,
        };
        let mut link = Link::new(Opened {
            session: SessionId(1),
            profile,
            outbox: Outbox::default(),
            leases: Arc::default(),
            grant: String::new(),
        });
        let (sgd, adam, weights) = (BlobId([1; 32]), BlobId([2; 32]), BlobId([3; 32]));
        let shard = BlobId([4; 32]);
        assert!(link.hold_weights(sgd, weights));
        assert!(!link.hold_weights(adam, weights));
        assert_eq!(link.forget(vec![sgd, shard]), [shard]);
        assert_eq!(link.forget(vec![adam]), [weights]);
        assert!(link.hold_weights(sgd, weights));
    }
}
