//! What one visit may still move over the network.

use raven_engine::ContributorId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What a WebSocket adds to a message at most, with a client's mask.
const MESSAGE_EXTRA_BYTES: u64 = 14;
/// What a request for a shard adds to it: two heads.
pub const EXCHANGE_BYTES: u64 = 1 << 10;
/// Stands for no cap: a session that moves a gigabyte a second reaches it in five centuries.
const NO_CAP: u64 = u64::MAX;

/// The bytes that are left of a visit's cap. The visitor's browser counts as
/// well; this count is here so that nothing is asked for in vain.
#[derive(Debug)]
pub struct Traffic {
    left: AtomicU64,
}

impl Traffic {
    /// With so many bytes left; without a cap where the contributor names none.
    pub fn of(bytes_left: Option<u64>) -> Self {
        Traffic { left: AtomicU64::new(bytes_left.unwrap_or(NO_CAP)) }
    }

    /// Takes the lower of what was known and `other`.
    fn lower_to(&self, other: &Traffic) {
        self.left.fetch_min(other.left.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Counts a message that was sent or received.
    pub fn message(&self, bytes: usize) {
        self.spend(bytes as u64 + MESSAGE_EXTRA_BYTES);
    }

    /// Counts bytes that move beside the socket.
    pub fn spend(&self, bytes: u64) {
        let spend = |left: u64| (left != NO_CAP).then(|| left.saturating_sub(bytes));
        // It fails only where there is no cap.
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
    }

    /// Bytes that may still move; `None` where there is no cap.
    pub fn left(&self) -> Option<u64> {
        Some(self.left.load(Ordering::Relaxed)).filter(|&left| left != NO_CAP)
    }

    /// Whether so many bytes may still move.
    pub fn fits(&self, bytes: u64) -> bool {
        bytes <= self.left.load(Ordering::Relaxed)
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Traffic::of(None)
    }
}

/// The visits of contributors with open sessions. A browser that lends its GPU
/// has two, and one cap for both.
#[derive(Debug, Default)]
pub struct Visits {
    open: Mutex<HashMap<ContributorId, Weak<Traffic>>>,
}

impl Visits {
    /// The count that all sessions of `contributor` share, no more left than its
    /// new session says.
    pub fn join(&self, contributor: ContributorId, own: Arc<Traffic>) -> Arc<Traffic> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, traffic| traffic.strong_count() > 0);
        if let Some(shared) = open.get(&contributor).and_then(Weak::upgrade) {
            shared.lower_to(&own);
            return shared;
        }
        open.insert(contributor, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_one_visit_share_its_cap() {
        let visits = Visits::default();
        let join =
            |who: u8, left| visits.join(ContributorId([who; 32]), Arc::new(Traffic::of(left)));
        let first = join(1, Some(1000));
        let second = join(1, Some(900));
        assert_eq!(first.left(), Some(900), "the second has been told later");
        second.spend(400);
        assert_eq!((first.left(), join(2, Some(1000)).left()), (Some(500), Some(1000)));
        drop((first, second));
        assert_eq!(join(1, Some(2000)).left(), Some(2000), "another visit");
    }

    #[test]
    fn what_is_left_shrinks_and_never_grows() {
        let traffic = Traffic::of(Some(1000));
        assert_eq!((traffic.left(), Traffic::default().left()), (Some(1000), None));
        assert!(traffic.fits(1000) && !traffic.fits(1001));
        traffic.message(486);
        assert!(traffic.fits(500) && !traffic.fits(501));
        traffic.spend(u64::MAX);
        assert!(traffic.fits(0) && !traffic.fits(1));
        let free = Traffic::default();
        free.spend(u64::MAX);
        assert!(free.fits(u64::MAX));
    }
}
