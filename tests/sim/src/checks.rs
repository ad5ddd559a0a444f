//! Answers that wait for their checks: some before anything else of their session is
//! read, some beside that.

use crate::node::Up;
use crate::sim::{Happening, Sim};
use raven_engine::{Check, Event};
use raven_protocol::{LeaseId, SessionId};
use std::collections::VecDeque;

impl Sim {
    /// A contributor's message is there, and is read unless an earlier one is checked.
    pub(crate) fn read(&mut self, session: SessionId, message: Up) {
        if let Some(waiting) = self.unread.get_mut(&session) {
            waiting.push_back(message);
            return;
        }
        let faults = self.scenario.faults;
        let lease = match message {
            Up::Projected { lease, .. } | Up::Result { lease, .. } => lease,
            _ => return self.arrive(session, message),
        };
        if !self.sessions.contains_key(&session) || !self.checks.chance(faults.slow_check) {
            return self.arrive(session, message);
        }
        // Projections are small: only what others showed is compared with them for long.
        let check = match message {
            Up::Result { .. } if self.checks.chance(0.7) => Check::Form,
            _ => Check::Comparison,
        };
        if check == Check::Form {
            self.unread.insert(session, VecDeque::new());
        }
        self.check(session, lease, message, check);
    }

    fn check(&mut self, session: SessionId, lease: LeaseId, message: Up, check: Check) {
        self.tell(Event::Arrived { session, lease, check });
        let wait = self.checks.wait(self.scenario.faults.check_mean_us);
        self.after(wait, Happening::Checked { session, message, check });
    }

    /// An answer was looked at: it is told, or compared with others, and its session is read on.
    pub(crate) fn checked(&mut self, session: SessionId, message: Up, check: Check) {
        if check == Check::Comparison {
            return self.arrive(session, message);
        }
        match message {
            Up::Result { lease, .. } if self.checks.chance(0.3) => {
                self.check(session, lease, message, Check::Comparison);
            }
            message => self.arrive(session, message),
        }
        // Each of them may be checked for long in its turn.
        for message in self.unread.remove(&session).unwrap_or_default() {
            self.read(session, message);
        }
    }
}
