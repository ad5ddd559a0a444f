//! Answers that are here and not yet checked: their contributors wait for the
//! coordinator, and nothing runs out for them meanwhile.

use crate::engine::Engine;
use crate::event::Millis;
use crate::lease::{Lease, LeaseState};
use crate::timer::Timer;
use raven_protocol::{LeaseId, SessionId};

/// How soon a lease whose clock stands still is looked at again, and how long what its
/// session has said meanwhile may take to be read.
const HELD_UP_MS: Millis = 1_000;

impl Engine {
    /// What was asked for under a lease is here: its clock stops. Where the shell loses
    /// the check, another one ends it.
    pub(crate) fn arrived(&mut self, session: SessionId, id: LeaseId) {
        let check_ms_max = self.check_ms_max();
        let lease = self.world.leases.get_mut(id);
        let Some(lease) = lease.filter(|lease| lease.session == session) else { return };
        let is_asked =
            matches!(lease.state, LeaseState::Projecting { .. } | LeaseState::Revealing { .. });
        if !is_asked || lease.arrived.is_some() {
            return;
        }
        lease.arrived = Some(self.now);
        lease.expires = self.now + check_ms_max;
        self.timers.set(Timer::LeaseExpiry(id), lease.expires);
        self.timers.stop(Timer::LeaseOverdue(id));
        self.world.overdue.remove(&id);
    }

    /// The longest check: a burst of results queues behind the cores, and whatever takes
    /// longer has been lost.
    fn check_ms_max(&self) -> Millis {
        2 * self.world.config.lease_ms_max
    }

    /// Whether an open lease runs out, or is late, only because its session is not read
    /// while an earlier answer of it is checked. For so long as that may take at most.
    pub(crate) fn is_held_up(&self, lease: &Lease) -> bool {
        let Some(session) = self.world.sessions.get(&lease.session) else { return false };
        let mut leases = session.leases.iter().filter_map(|&id| self.world.leases.get(id));
        self.now < lease.expires + self.check_ms_max()
            && leases.any(|other| other.id != lease.id && other.arrived.is_some())
    }

    /// An answer of `session` was checked: what came after it is read now, and is not late.
    pub(crate) fn reads_on(&mut self, session: SessionId) {
        let Some(session) = self.world.sessions.get(&session) else { return };
        let read = self.now + HELD_UP_MS;
        let leases = session.leases.iter().filter_map(|&id| self.world.leases.get(id));
        let is_due = |lease: &&Lease| lease.arrived.is_none() && lease.expires < read;
        let due: Vec<LeaseId> = leases
            .filter(is_due)
            .filter(|lease| self.now < lease.expires + self.check_ms_max())
            .map(|lease| lease.id)
            .collect();
        for id in due {
            self.timers.set(Timer::LeaseExpiry(id), read);
        }
    }

    /// A lease has run out while its session was not read: it is looked at again.
    pub(crate) fn hold_up(&mut self, timer: Timer) {
        self.timers.set(timer, self.now + HELD_UP_MS);
    }

    /// A lease takes longer than it should: an idle session may copy its task.
    pub(crate) fn overdue(&mut self, id: LeaseId) {
        let Some(lease) = self.world.leases.get(id) else { return };
        let (job, part) = (lease.job, lease.task.part);
        if self.is_held_up(lease) {
            return self.hold_up(Timer::LeaseOverdue(id));
        }
        self.world.overdue.insert(id);
        // The task is watched as it is considered.
        self.consider(job, part);
    }
}
