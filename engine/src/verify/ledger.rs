//! What a job has accepted and not settled.

use crate::algorithm::sync_sgd::SyncSgdDriver;
use crate::algorithm::{Action, Diverged, Draft};
use crate::effect::{Payer, SetBack, Work};
use crate::terms::Paused;
use crate::verify::earlier::Before;
use crate::verify::outcome::Paid;
use crate::verify::trial::Claim;
use crate::verify::trust::Identity;
use raven_protocol::{BlobId, LeaseId, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// An accepted result that the referee has not confirmed.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Counted over the job.
    pub(crate) order: u64,
    pub(crate) task: TaskId,
    pub(crate) work: Work,
    pub(crate) flops: u64,
    /// How often the job had gone back.
    pub(crate) attempt: u32,
    /// Who came to it.
    pub(crate) members: Vec<Claim>,
    /// Who pays for each of them, as long as it is not void.
    pub(crate) payers: BTreeMap<LeaseId, Payer>,
    /// Whether the referee is computing it.
    pub(crate) asked: bool,
    /// Whether it looked unlikely.
    pub(crate) is_odd: bool,
    /// Whether it is to be computed again when the rounds are settled.
    pub(crate) drawn: bool,
}

impl Entry {
    /// Whether somebody had a part in it.
    pub(crate) fn is_of(&self, is_theirs: impl Fn(&Identity) -> bool) -> bool {
        self.members.iter().any(|member| is_theirs(&member.who.identity))
    }

    /// Whether the referee can compute it again: what parts were cut from is
    /// gone, so that theirs is done before they are accepted. Of what a GPU came to
    /// the shell keeps projections.
    pub(crate) fn can_be_rechecked(&self) -> bool {
        matches!(self.work, Work::Replica { .. })
    }
}

/// Where a round began: what is needed to begin it once more.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    pub(crate) driver: SyncSgdDriver,
    /// Of the weights that its tasks read; the shell keeps them.
    pub(crate) state: BlobId,
    pub(crate) action: Action,
}

/// What waits until all accepted results are settled.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// A checkpoint: nothing before it can be undone once it is durable.
    Save(Draft),
    /// A round, where as many unsettled ones are kept as may be.
    Round(Action),
    /// Going back to the last checkpoint: what diverges may be a wrong result.
    SetBack(Diverged),
    /// A pause before a round, whose beginning is kept.
    Pause(u32, Paused),
}

/// Unsettled results of a job.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) entries: BTreeMap<TaskId, Entry>,
    /// Results of rounds that were undone since the last settlement: nobody has
    /// looked at them, and their contributors may turn out to be liars yet.
    pub(crate) undone: Vec<Entry>,
    /// What the shell keeps of the projections that came since the last settlement.
    pub(crate) projected_bytes: u64,
    /// Leases whose results were accepted and told so, by round.
    pub(crate) accepted: BTreeMap<u32, Vec<Paid>>,
    /// Rounds that can be begun again.
    pub(crate) beginnings: BTreeMap<u32, Beginning>,
    pub(crate) next_order: u64,
    /// Accepted and late results that the referee is computing.
    pub(crate) cases: u32,
    pub(crate) held: Option<Held>,
    /// The round that the job goes back to, once nothing is being computed for it.
    pub(crate) back_to: Option<u32>,
    /// How often the rounds that may be unsettled are halved: once more with each wrong
    /// result that it goes back to before, once less where it did not for long.
    pub(crate) caution: u32,
    /// Rounds that were settled since that was changed.
    pub(crate) calm: usize,
    /// How often it went back to before a wrong result, and because its loss diverged.
    pub(crate) rollbacks: u32,
    pub(crate) setbacks: u32,
    /// Attempts of earlier processes that are among neither.
    pub(crate) attempts_before: u32,
    /// The last of the latter, while it is not durable.
    pub(crate) set_back: Option<SetBack>,
    /// Whether what is to be computed again before it is settled was asked for.
    pub(crate) sampled: bool,
    /// Whether that was asked for since the job is ending.
    pub(crate) sampled_at_end: bool,
    /// Of whom the referee computed a part in the last rounds before the next settlement.
    pub(crate) looked_at: BTreeSet<Identity>,
    /// What is open of earlier processes.
    pub(crate) before: Before,
    /// The round that it went back to as it ended.
    pub(crate) went_back_at_end: Option<u32>,
}

/// An eighth of the rounds is the least.
pub(crate) const CAUTION_MAX: u32 = 3;

impl Ledger {
    /// How often the job went back, or on in another process: a round that is done again
    /// is other work.
    pub(crate) fn attempt(&self) -> u32 {
        self.rollbacks.saturating_add(self.setbacks).saturating_add(self.attempts_before)
    }

    /// The next number in the order of acceptance.
    pub(crate) fn take_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    /// Results to be computed again before the rounds are settled: the last one
    /// of each identity that nobody repeated, so that whoever begins to lie and
    /// goes on is found, and those drawn, so that no rhythm is safe.
    pub(crate) fn to_audit(&self) -> Vec<TaskId> {
        let mut last: BTreeMap<Identity, &Entry> = BTreeMap::new();
        let open = self.entries.values().filter(|entry| entry.can_be_rechecked());
        for entry in open.clone() {
            // Where several agreed, they are checked by each other.
            let [single] = entry.members.as_slice() else { continue };
            let latest = last.entry(single.who.identity).or_insert(entry);
            if latest.order < entry.order {
                *latest = entry;
            }
        }
        let last = last.into_values().map(|entry| entry.task);
        let drawn = open.clone().filter(|entry| entry.drawn).map(|entry| entry.task);
        // What makes a loss diverge may be one false number: it is looked for.
        let is_set_back = matches!(self.held, Some(Held::SetBack(_)));
        let newest = open.clone().map(|entry| entry.task.round).max();
        let suspect = open
            .filter(|entry| is_set_back && (entry.is_odd || Some(entry.task.round) == newest))
            .map(|entry| entry.task);
        last.chain(drawn).chain(suspect).collect::<BTreeSet<TaskId>>().into_iter().collect()
    }

    /// Entries that somebody had a part in, oldest first.
    pub(crate) fn entries_of(&self, is_theirs: impl Fn(&Identity) -> bool) -> Vec<Entry> {
        let mut of: Vec<Entry> =
            self.entries.values().filter(|entry| entry.is_of(&is_theirs)).cloned().collect();
        of.sort_unstable_by_key(|entry| entry.order);
        of
    }

    /// States that its rounds began from.
    pub(crate) fn states(&self) -> BTreeSet<BlobId> {
        self.beginnings.values().map(|beginning| beginning.state).collect()
    }
}
