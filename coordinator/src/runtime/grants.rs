//! What a session may fetch over HTTP: the shards of the tasks that it was given.

use raven_protocol::BlobId;
use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Grants of open sessions, by token.
#[derive(Debug, Default)]
pub struct Grants {
    tokens: RwLock<HashMap<String, HashSet<BlobId>>>,
}

impl Grants {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, HashSet<BlobId>>> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, HashSet<BlobId>>> {
        self.tokens.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token that allows nothing yet.
    pub fn issue(&self, token: &str) {
        self.write().insert(token.to_owned(), HashSet::new());
    }

    /// Adds blobs to a token that is still good.
    pub fn allow(&self, token: &str, blobs: impl Iterator<Item = BlobId>) {
        if let Some(allowed) = self.write().get_mut(token) {
            allowed.extend(blobs);
        }
    }

    /// Whether the holder of `token` may read `blob`.
    pub fn allows(&self, token: &str, blob: BlobId) -> bool {
        self.read().get(token).is_some_and(|allowed| allowed.contains(&blob))
    }

    /// The session has ended.
    pub fn revoke(&self, token: &str) {
        self.write().remove(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_covers_its_sessions_shards_until_it_ends() {
        let grants = Grants::default();
        let (shard, other) = (BlobId([1; 32]), BlobId([2; 32]));
        grants.allow("unknown", [shard].into_iter());
        assert!(!grants.allows("unknown", shard));
        grants.issue("t");
        grants.allow("t", [shard].into_iter());
        assert!(grants.allows("t", shard) && !grants.allows("t", other));
        grants.revoke("t");
        assert!(!grants.allows("t", shard));
    }
}
