//! What a session may fetch over HTTP: the shards of the tasks that it was given.

use raven_protocol::{BlobId, SessionId};
use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A session, and what it may fetch.
#[derive(Debug)]
struct Granted {
    session: SessionId,
    blobs: HashSet<BlobId>,
}

/// Grants of open sessions, by token.
#[derive(Debug, Default)]
pub struct Grants {
    tokens: RwLock<HashMap<String, Granted>>,
}

impl Grants {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Granted>> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Granted>> {
        self.tokens.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token that allows nothing yet.
    pub fn issue(&self, token: &str, session: SessionId) {
        let granted = Granted { session, blobs: HashSet::new() };
        self.write().insert(token.to_owned(), granted);
    }

    /// Adds blobs to a token that is still good.
    pub fn allow(&self, token: &str, blobs: impl Iterator<Item = BlobId>) {
        if let Some(allowed) = self.write().get_mut(token) {
            allowed.blobs.extend(blobs);
        }
    }

    /// Whether the holder of `token` may read `blob`.
    pub fn allows(&self, token: &str, blob: BlobId) -> bool {
        self.read().get(token).is_some_and(|allowed| allowed.blobs.contains(&blob))
    }

    /// Whose token it is.
    pub fn session_of(&self, token: &str) -> Option<SessionId> {
        self.read().get(token).map(|granted| granted.session)
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
        grants.issue("t", SessionId(9));
        assert_eq!(grants.session_of("t"), Some(SessionId(9)));
        grants.allow("t", [shard].into_iter());
        assert!(grants.allows("t", shard) && !grants.allows("t", other));
        grants.revoke("t");
        assert_eq!(grants.session_of("t"), None);
        assert!(!grants.allows("t", shard));
    }
}
