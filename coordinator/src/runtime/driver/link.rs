//! The driver's end of one session.

use super::outcomes::Outcomes;
use crate::runtime::leases::LeaseTable;
use crate::runtime::outbox::{Build, Ending, Outbox, Overflow};
use crate::runtime::session::Refusal;
use crate::runtime::traffic::{EXCHANGE_BYTES, Traffic};
use axum::body::Bytes;
use raven_engine::SessionProfile;
use raven_protocol::frame::encode;
use raven_protocol::{BlobId, GoodbyeReason, JobCategory, SessionId, ShardRef, ToContributor};
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
    /// What it may still move.
    pub traffic: Arc<Traffic>,
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
    traffic: Arc<Traffic>,
    /// Shards of its tasks, which are fetched beside the socket, once each.
    shards: HashSet<BlobId>,
    /// Of what it may still move, what the engine was told last.
    traffic_told: Option<u64>,
    /// Whether something did not fit into what it may still move.
    is_capped: bool,
    /// What became of its results, and it was not told.
    pub(super) outcomes: Outcomes,
    /// What it was told last of the jobs that it works on.
    about: Option<About>,
}

/// For whom a job is, and of what kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub(super) requester: String,
    pub(super) category: JobCategory,
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
            traffic: opened.traffic,
            shards: HashSet::new(),
            traffic_told: None,
            is_capped: false,
            outcomes: Outcomes::new(Instant::now()),
            about: None,
        }
    }

    /// Says for whom the tasks are that follow, where that is news. The operator's node has
    /// nobody who would read it.
    pub(super) fn tell_about(&mut self, about: About) {
        if self.profile.operator || self.about.as_ref() == Some(&about) {
            return;
        }
        let About { requester, category } = about.clone();
        self.send(encode(&ToContributor::About { requester, category }, &[]).into());
        self.about = Some(about);
    }

    /// Whether a frame, shards that were not named before, and a result fit
    /// beside the results that are owed. Once something did not, nothing does.
    pub(super) fn fits(&mut self, frame_bytes: usize, shards: &[ShardRef], result: u64) -> bool {
        let new = shards.iter().filter(|shard| !self.shards.contains(&shard.blob));
        let fetched = new.map(|shard| shard.bytes.saturating_add(EXCHANGE_BYTES));
        let bytes = fetched.fold(frame_bytes as u64, u64::saturating_add);
        let owed = self.leases().owed_bytes().saturating_add(result);
        self.is_capped |= !self.traffic.fits(bytes.saturating_add(owed));
        !self.is_capped
    }

    /// What it may still move besides the results that it owes, where that has changed.
    pub(super) fn traffic_news(&mut self) -> Option<u64> {
        let left = self.traffic.left()?.saturating_sub(self.leases().owed_bytes());
        let is_news = self.traffic_told.replace(left) != Some(left);
        is_news.then_some(left)
    }

    pub(super) fn has_less_than(&self, bytes: u64) -> bool {
        self.traffic.left().is_some_and(|left| left < bytes)
    }

    /// Whether nothing is under way to it.
    pub(super) fn is_drained(&self) -> bool {
        self.outbox.is_drained()
    }

    /// Whether a frame that need not be sent fits beside the results that are owed.
    pub(super) fn has_room(&self, frame_bytes: usize) -> bool {
        let owed = self.leases().owed_bytes();
        self.traffic.fits(owed.saturating_add(frame_bytes as u64))
    }

    /// It gets no more work.
    pub(super) fn cap(&mut self) {
        self.is_capped = true;
    }

    /// Notes the shards of a task that is sent.
    pub(super) fn name_shards(&mut self, shards: &[ShardRef]) {
        for shard in shards {
            if self.shards.insert(shard.blob) {
                self.traffic.spend(shard.bytes.saturating_add(EXCHANGE_BYTES));
            }
        }
    }

    /// Whether it is capped and has answered all that it was asked.
    pub(super) fn is_spent(&self) -> bool {
        self.is_capped && self.leases().is_empty()
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
        self.traffic.message(frame.len());
        self.told(self.outbox.push(frame));
    }

    /// Queues a frame of `bytes` that is made when its turn has come.
    pub(super) fn defer(&self, bytes: usize, build: Build) {
        self.traffic.message(bytes);
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
    use raven_engine::{Beneficiary, ContributorId, NetworkPrefix, RefusedCategories, Trust};
    use raven_protocol::{DeviceClass, KernelId, NumericClass};

    #[test]
    fn weights_shared_by_two_states_are_sent_once_and_kept_until_both_go() {
        let profile = SessionProfile {
            contributor: ContributorId([0; 32]),
            site: None,
            beneficiary: Beneficiary::default(),
            prefix: NetworkPrefix([0; 16]),
            device: DeviceClass::Server,
            numeric: NumericClass::Cpu { kernel: KernelId([0; 32]) },
            flops_per_s: 1,
            share: 1.0,
            workers: 1,
            memory_bytes: 1,
            traffic_bytes: None,
            refused: RefusedCategories::default(),
            trust: Trust::default(),
            operator: false,
        };
        let mut link = Link::new(Opened {
            session: SessionId(1),
            profile,
            outbox: Outbox::default(),
            leases: Arc::default(),
            grant: String::new(),
            traffic: Arc::default(),
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
