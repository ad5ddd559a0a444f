//! Answers that are here and not yet checked: their contributors wait for the
//! coordinator, and nothing runs out for them meanwhile.

use crate::engine::Engine;
use crate::event::{Check, Event, Millis};
use crate::lease::{Lease, LeaseState};
use crate::session::Unread;
use crate::timer::Timer;
use raven_protocol::{LeaseId, SessionId};

/// How soon a lease whose clock stands still is looked at again, and how long what its
/// session has said meanwhile may take to be read.
const HELD_UP_MS: Millis = 1_000;

impl Engine {
    /// What was asked for under a lease is here: its clock stops. Where the shell loses
    /// the check, another one ends it.
    pub(crate) fn arrived(&mut self, session: SessionId, id: LeaseId, check: Check) {
        let now = self.now;
        if let (Check::Form, Some(session)) = (check, self.world.sessions.get_mut(&session)) {
            // Whatever becomes of the lease meanwhile, its session is not read.
            session.unread.get_or_insert(Unread { lease: id, since: now });
        }
        let check_ms_max = self.check_ms_max();
        let lease = self.world.leases.get_mut(id);
        let Some(lease) = lease.filter(|lease| lease.session == session) else { return };
        let is_revealing = matches!(lease.state, LeaseState::Revealing { .. });
        if !is_revealing && !matches!(lease.state, LeaseState::Projecting { .. }) {
            return;
        }
        lease.is_shown |= is_revealing && check == Check::Comparison;
        if lease.arrived.is_some() {
            return;
        }
        lease.arrived = Some(now);
        lease.expires = now + check_ms_max;
        self.timers.set(Timer::LeaseExpiry(id), lease.expires);
        self.timers.stop(Timer::LeaseOverdue(id));
        self.world.overdue.remove(&id);
    }

    /// The longest check: a burst of results queues behind the cores, and whatever takes
    /// longer has been lost.
    fn check_ms_max(&self) -> Millis {
        2 * self.world.config.lease_ms_max
    }

    /// Whether a lease runs out, or is late, only because its session is not read while
    /// an earlier answer of it is checked. For so long as that may take at most.
    pub(crate) fn is_held_up(&self, lease: &Lease) -> bool {
        let unread = self.world.sessions.get(&lease.session).and_then(|session| session.unread);
        unread.is_some_and(|unread| self.now < unread.since + self.check_ms_max())
    }

    /// Notes from what a session says that it is read again. What the shell compares
    /// beside its driver is told whenever that is done, and says nothing of other answers.
    pub(crate) fn hears(&mut self, event: &Event) {
        match *event {
            Event::Committed { session, .. }
            | Event::Refused { session, .. }
            | Event::PaceChanged { session, .. }
            | Event::VisitorRefuses { session, .. }
            | Event::Paused { session }
            | Event::Resumed { session } => self.reads_on(session, None),
            Event::Arrived { session, lease, check: Check::Comparison }
            | Event::Misprojected { session, lease }
            | Event::Projected { session, lease, .. }
            | Event::Revealed { session, lease, .. } => self.reads_on(session, Some(lease)),
            _ => {}
        }
    }

    /// A session is read again, if it was not, and that for `of`: the clocks of its leases
    /// have stood still for as long.
    fn reads_on(&mut self, id: SessionId, of: Option<LeaseId>) {
        let Some(session) = self.world.sessions.get_mut(&id) else { return };
        let is_of = |unread: &mut Unread| of.is_none_or(|lease| lease == unread.lease);
        let Some(Unread { since, .. }) = session.unread.take_if(is_of) else { return };
        let mut flops_open: u64 = 0;
        for id in session.leases.clone() {
            let Some(lease) = self.world.leases.get(id) else { continue };
            if lease.is_open() {
                flops_open = flops_open.saturating_add(lease.flops);
            }
            if lease.arrived.is_none() && !matches!(lease.state, LeaseState::Committed { .. }) {
                self.stood_still(id, since);
            }
        }
        if let Some(session) = self.world.sessions.get_mut(&id) {
            // As long as it had something to compute it did not wait.
            let busy_ms = flops_open as f64 / session.flops_per_ms();
            session.delivered.wait(since, busy_ms as Millis, self.now);
        }
    }

    /// The clock of a lease goes on after its session was unread `since` then.
    fn stood_still(&mut self, id: LeaseId, since: Millis) {
        let now = self.now;
        // What it has said meanwhile is read in a moment, and once that is over no more
        // is added for it, however often it is unread.
        let due = |at: Millis| at.max((now + HELD_UP_MS).min(at + HELD_UP_MS));
        let Some(lease) = self.world.leases.get_mut(id) else { return };
        let waited = now.saturating_sub(since.max(lease.issued));
        lease.expires += waited;
        lease.held_up_ms += waited;
        self.timers.set(Timer::LeaseExpiry(id), due(lease.expires));
        if self.world.overdue.contains(&id) {
            return;
        }
        let Some(lease) = self.world.leases.get(id) else { return };
        let is_revealing = matches!(lease.state, LeaseState::Revealing { .. });
        let reveal_ms = if is_revealing { self.world.reveal_ms(lease) } else { 0.0 };
        if let Some(at) = lease.overdue_at(reveal_ms) {
            self.timers.set(Timer::LeaseOverdue(id), due(at + lease.held_up_ms));
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
