//! Who is not read while an answer is checked: none of its leases runs out meanwhile.

use crate::ids::IdMap;
use raven_engine::{Check, Event};
use raven_protocol::{LeaseId, SessionId};

/// Sessions that are not read, and for which answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread {
    sessions: IdMap<SessionId, LeaseId>,
    /// Leases that had run out so far.
    expired: u64,
    /// Whether one was cancelled since of a session that is read.
    may_expire: bool,
}

impl Unread {
    /// An event that the engine is about to be told.
    pub(crate) fn event(&mut self, event: &Event) {
        match *event {
            Event::Arrived { session, lease, check: Check::Form } => {
                self.sessions.entry(session).or_insert(lease);
            }
            Event::Arrived { session, lease, check: Check::Comparison }
            | Event::Revealed { session, lease, .. }
            | Event::Misprojected { session, lease }
                if self.sessions.get(&session) == Some(&lease) =>
            {
                self.sessions.remove(&session);
            }
            Event::Committed { session, .. }
            | Event::Refused { session, .. }
            | Event::PaceChanged { session, .. }
            | Event::Paused { session }
            | Event::Resumed { session }
            | Event::SessionClosed { session } => {
                self.sessions.remove(&session);
            }
            _ => {}
        }
    }

    /// A lease of `session` is cancelled, for whatever reason.
    pub(crate) fn cancelled(&mut self, session: SessionId) {
        self.may_expire |= !self.sessions.contains_key(&session);
    }

    /// So many leases have run out after an event.
    pub(crate) fn check(&mut self, expired: u64) {
        let is_allowed = std::mem::take(&mut self.may_expire) || expired == self.expired;
        assert!(is_allowed, "a lease of a session that is not read has run out");
        self.expired = expired;
    }
}
