//! What became of committed results, for those who committed to them.
//!
//! A result that was believed at once and one that others or the referee had to
//! confirm first are told at the same moment, when their stage is over: from the
//! time of an answer nobody learns which of its results are checked.

use crate::effect::Effect;
use crate::engine::Engine;
use crate::event::ContributorId;
use crate::verify::Verification;
use crate::verify::ledger::Entry;
use crate::verify::trial::Claim;
use crate::verify::trust::Identity;
use raven_protocol::{JobId, LeaseId, ResultOutcome, SessionId, TaskId};
use std::collections::{BTreeMap, VecDeque};

/// Leases that ended before they were answered, of which a session's late
/// commitments are known: more than it may have at once is not under way.
const ENDED_MAX: usize = 64;

/// A lease and whose it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    pub(crate) lease: LeaseId,
    pub(crate) session: SessionId,
    pub(crate) contributor: ContributorId,
}

impl From<&Claim> for Holder {
    fn from(claim: &Claim) -> Self {
        let contributor = claim.who.identity.contributor;
        Holder { lease: claim.lease, session: claim.session, contributor }
    }
}

/// A result that was accepted, and is not settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paid {
    holder: Holder,
    /// Whether its round is done again.
    is_undone: bool,
}

/// Leases of a session that ended before they were answered, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndedLeases(VecDeque<(LeaseId, ResultOutcome)>);

impl EndedLeases {
    /// Notes what a commitment that still comes has come to.
    pub(crate) fn add(&mut self, lease: LeaseId, outcome: ResultOutcome) {
        if self.0.len() >= ENDED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((lease, outcome));
    }

    /// What the commitment that comes now has come to: each lease is asked about once.
    fn take(&mut self, lease: LeaseId) -> Option<ResultOutcome> {
        let at = self.0.iter().position(|&(ended, _)| ended == lease)?;
        self.0.remove(at).map(|(_, outcome)| outcome)
    }
}

impl Engine {
    /// Counts what became of a result in the end, and has it told.
    pub(crate) fn came_to(&mut self, holder: Holder, outcome: ResultOutcome) {
        self.count(holder.contributor, outcome, 1);
        self.tell_outcome(holder, outcome);
    }

    /// What is told and may change until the rounds are settled, is counted then.
    fn tell_outcome(&mut self, holder: Holder, outcome: ResultOutcome) {
        let Holder { lease, session, .. } = holder;
        self.out.push_back(Effect::Outcome { session, lease, outcome });
    }

    fn count(&mut self, contributor: ContributorId, outcome: ResultOutcome, results: u64) {
        self.stats.unpaid += if outcome.is_unpaid() { results } else { 0 };
        self.stats.outcomes[outcome] += results;
        self.out.push_back(Effect::Counted { contributor, outcome, results });
    }

    /// A result of `task` came to something of which its contributor may not learn
    /// before others do: it says who is checked.
    pub(crate) fn comes_to(&mut self, task: TaskId, holder: Holder, outcome: ResultOutcome) {
        let job = self.world.jobs.get_mut(&task.job);
        let open = job.filter(|job| job.stage.as_ref().is_some_and(|stage| stage.is_of(task)));
        match open {
            Some(job) => job.outcomes.push((holder, outcome)),
            None => self.came_to(holder, outcome),
        }
    }

    /// What was accepted stays so.
    pub(crate) fn count_paid(&mut self, paid: BTreeMap<u32, Vec<Paid>>) {
        let mut counts: BTreeMap<(ContributorId, ResultOutcome), u64> = BTreeMap::new();
        for Paid { holder, is_undone } in paid.into_values().flatten() {
            let outcome = if is_undone { ResultOutcome::Undone } else { ResultOutcome::Accepted };
            *counts.entry((holder.contributor, outcome)).or_default() += 1;
        }
        for ((contributor, outcome), results) in counts {
            self.count(contributor, outcome, results);
        }
    }

    /// A commitment to a lease that is over; false where nothing is known of it.
    pub(crate) fn came_late(&mut self, session: SessionId, lease: LeaseId) -> bool {
        let Some(holder) = self.world.sessions.get_mut(&session) else { return false };
        let Some(outcome) = holder.ended.take(lease) else { return false };
        let contributor = holder.profile.contributor;
        self.came_to(Holder { lease, session, contributor }, outcome);
        true
    }

    /// The job's stage is over: tells what became of its results, in an order
    /// that says nothing.
    pub(crate) fn tell_stage(&mut self, id: JobId, round: u32) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let mut outcomes = std::mem::take(&mut job.outcomes);
        outcomes.sort_unstable();
        let is_checked = job.plan.verification != Verification::None;
        if is_checked {
            let accepted = outcomes.iter().filter(|(_, it)| *it == ResultOutcome::Accepted);
            let of_round = job.ledger.accepted.entry(round).or_default();
            of_round.extend(accepted.map(|&(holder, _)| Paid { holder, is_undone: false }));
        }
        for (holder, outcome) in outcomes {
            match outcome {
                ResultOutcome::Accepted if is_checked => self.tell_outcome(holder, outcome),
                _ => self.came_to(holder, outcome),
            }
        }
    }

    /// What somebody earned with a result is void.
    pub(crate) fn came_to_nothing(
        &mut self,
        id: JobId,
        entries: &[Entry],
        is_theirs: impl Fn(&Identity) -> bool,
    ) {
        let members = entries.iter().flat_map(|entry| &entry.members);
        let theirs = members.filter(|member| is_theirs(&member.who.identity));
        let holders: Vec<Holder> = theirs.map(Holder::from).collect();
        for holder in holders {
            if self.forget_paid(id, holder.lease) {
                self.came_to(holder, ResultOutcome::Void);
            }
        }
    }

    /// A result is not paid after all; false where that was known.
    pub(crate) fn forget_paid(&mut self, id: JobId, lease: LeaseId) -> bool {
        let Some(job) = self.world.jobs.get_mut(&id) else { return false };
        let untold = job.outcomes.len();
        job.outcomes.retain(|(holder, _)| holder.lease != lease);
        let mut was_paid = job.outcomes.len() < untold;
        for of_round in job.ledger.accepted.values_mut() {
            let before = of_round.len();
            of_round.retain(|paid| paid.holder.lease != lease);
            was_paid |= of_round.len() < before;
        }
        was_paid
    }

    /// The rounds from `round` on are done again.
    pub(crate) fn tell_undone(&mut self, id: JobId, round: u32) {
        let Some(job) = self.world.jobs.get_mut(&id) else { return };
        let of_rounds = job.ledger.accepted.range_mut(round..);
        let paid = of_rounds.flat_map(|(_, of_round)| of_round).filter(|paid| !paid.is_undone);
        let undone = paid.map(|paid| {
            paid.is_undone = true;
            paid.holder
        });
        let undone: Vec<Holder> = undone.collect();
        for holder in undone {
            self.tell_outcome(holder, ResultOutcome::Undone);
        }
    }
}
