//! What a job has accepted and not settled.

use crate::algorithm::sync_sgd::SyncSgdDriver;
use crate::algorithm::{Action, Draft};
use crate::effect::Work;
use crate::verify::trial::Claim;
use crate::verify::trust::Identity;
use raven_protocol::{BlobId, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// An accepted result that the referee has not confirmed.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Counted over the job.
    pub(crate) order: u64,
    pub(crate) task: TaskId,
    pub(crate) work: Work,
    pub(crate) flops: u64,
    /// Who came to it.
    pub(crate) members: Vec<Claim>,
    /// Whether the referee is computing it.
    pub(crate) asked: bool,
    /// Whether it is to be computed again when the rounds are settled.
    pub(crate) drawn: bool,
}

impl Entry {
    /// Whether the referee can compute it again: what parts were cut from is
    /// gone, and of what a GPU came to only the values could be compared.
    pub(crate) fn can_be_rechecked(&self) -> bool {
        matches!(self.work, Work::Replica { .. })
            && self.members.iter().all(|member| member.who.exact)
    }

    fn is_of(&self, identity: &Identity) -> bool {
        self.members.iter().any(|member| member.who.identity == *identity)
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
}

/// Unsettled results of a job.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) entries: BTreeMap<TaskId, Entry>,
    /// Rounds that can be begun again.
    pub(crate) beginnings: BTreeMap<u32, Beginning>,
    /// When a result of each identity was last confirmed, as an order.
    pub(crate) confirmed: BTreeMap<Identity, u64>,
    pub(crate) next_order: u64,
    /// Accepted results that the referee is computing.
    pub(crate) cases: u32,
    pub(crate) held: Option<Held>,
    /// The round that the job goes back to, once nothing is being computed for it.
    pub(crate) back_to: Option<u32>,
    /// How often it went back.
    pub(crate) rollbacks: u32,
}

impl Ledger {
    /// The next number in the order of acceptance.
    pub(crate) fn take_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    /// A result of `identity` was computed a second time and right.
    pub(crate) fn confirm(&mut self, identity: Identity, order: u64) {
        let latest = self.confirmed.entry(identity).or_default();
        *latest = order.max(*latest);
    }

    /// Results to be computed again before the rounds are settled: of each
    /// identity that nobody has checked since, the last one, and those drawn.
    /// Whoever begins to lie and goes on is found by the last one.
    pub(crate) fn to_audit(&self) -> Vec<TaskId> {
        let mut last: BTreeMap<Identity, &Entry> = BTreeMap::new();
        for entry in self.entries.values() {
            // Where several agreed, they are checked by each other.
            let ([single], true) = (entry.members.as_slice(), entry.can_be_rechecked()) else {
                continue;
            };
            let single = single.who.identity;
            let is_confirmed =
                self.confirmed.get(&single).is_some_and(|&order| order >= entry.order);
            if is_confirmed {
                continue;
            }
            let latest = last.entry(single).or_insert(entry);
            if latest.order < entry.order {
                *latest = entry;
            }
        }
        let last = last.into_values().map(|entry| entry.task);
        let drawn = self.entries.values().filter(|entry| entry.drawn && entry.can_be_rechecked());
        let drawn = drawn.map(|entry| entry.task);
        let tasks: BTreeSet<TaskId> = last.chain(drawn).collect();
        tasks.into_iter().collect()
    }

    /// Entries that `identity` had a part in, oldest first.
    pub(crate) fn entries_of(&self, identity: &Identity) -> Vec<TaskId> {
        let of = self.entries.values().filter(|entry| entry.is_of(identity));
        let mut of: Vec<(u64, TaskId)> = of.map(|entry| (entry.order, entry.task)).collect();
        of.sort_unstable();
        of.into_iter().map(|(_, task)| task).collect()
    }

    /// States that its rounds began from.
    pub(crate) fn states(&self) -> BTreeSet<BlobId> {
        self.beginnings.values().map(|beginning| beginning.state).collect()
    }
}
