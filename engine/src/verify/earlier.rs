//! What an earlier process has accepted of a job, and nobody has looked at: its pay has not
//! matured.
//!
//! Rounds that are done again show whose word was wrong, as far as they come to the same
//! bits. Of those that are not, because the job ends before, one can be computed once more:
//! the one at whose weights the job stands.

use crate::effect::{Earlier, Payer, Work};
use crate::event::{Beneficiary, ContributorId, NetworkPrefix};
use crate::money::PicoUsd;
use crate::plan::Placement;
use crate::verify::ledger::{Entry, Ledger};
use crate::verify::trial::{Claim, Who};
use crate::verify::trust::Identity;
use raven_protocol::{Backend, BlobId, DeviceClass, LeaseId, ResultDigest, SessionId, TaskId};
use std::collections::BTreeMap;

/// A result of a strict job that one contributor's word stands for: a run of a round that
/// is stored, under the attempt that it is stored of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenWord {
    pub task: TaskId,
    pub attempt: u32,
    pub contributor: ContributorId,
    pub device: DeviceClass,
    pub session: SessionId,
    /// Of the weights that it was computed from.
    pub state: BlobId,
    pub flops: u64,
    pub rate: PicoUsd,
    pub digest: ResultDigest,
    pub payer: Payer,
}

impl OpenWord {
    /// As the engine would have kept it. Nobody holds a lease of an earlier process, so that
    /// any stands for it.
    fn entry(&self, order: u64, placement: &Placement) -> Option<Entry> {
        let Placement::Replica { flops, .. } = placement else { return None };
        let count = u32::try_from(self.flops.checked_div(*flops)?).ok()?;
        let identity =
            Identity { contributor: self.contributor, device: self.device, backend: Backend::Cpu };
        let who = Who {
            identity,
            site: None,
            beneficiary: Beneficiary::default(),
            prefix: NetworkPrefix([0; 16]),
            exact: true,
            operator: false,
        };
        let lease = LeaseId(u128::from(order) + 1);
        let (session, rate, digest) = (self.session, self.rate, self.digest);
        Some(Entry {
            order,
            task: self.task,
            work: Work::Replica { state: self.state, start: self.task.part, count },
            flops: self.flops,
            attempt: self.attempt,
            members: vec![Claim { lease, session, who, rate, digest, doubtful: false }],
            payers: BTreeMap::from([(lease, self.payer)]),
            asked: false,
            is_odd: false,
            drawn: false,
        })
    }
}

/// What is open of earlier processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    /// The first attempt of this process.
    pub(crate) attempt: u32,
    words: Vec<OpenWord>,
    excluded: Vec<Identity>,
}

impl Before {
    pub(crate) fn new(attempt: u32, words: Vec<OpenWord>) -> Self {
        Before { attempt, words, excluded: Vec::new() }
    }

    /// Somebody turned out to be a liar.
    pub(crate) fn exclude(&mut self, identity: Identity) {
        if self.attempt > 0 {
            self.excluded.push(identity);
        }
    }

    /// What a record says of it that lets it mature.
    pub(crate) fn said(&self) -> Option<Earlier> {
        let Before { attempt, ref excluded, .. } = *self;
        (attempt > 0).then(|| Earlier { below: attempt, excluded: excluded.clone() })
    }
}

impl Ledger {
    /// Takes up what can be looked at of earlier processes: what was computed from `state`.
    pub(crate) fn take_up_earlier(&mut self, state: BlobId, placement: &Placement) {
        for word in std::mem::take(&mut self.before.words) {
            let is_open = self.entries.contains_key(&word.task);
            if word.state != state || is_open {
                continue;
            }
            let order = self.take_order();
            if let Some(entry) = word.entry(order, placement) {
                self.entries.insert(word.task, entry);
            }
        }
    }

    /// Whether an entry is of this process: what is not is no part of what the job is now,
    /// so that nothing is undone where it is wrong.
    pub(crate) fn is_own(&self, entry: &Entry) -> bool {
        entry.attempt >= self.before.attempt
    }
}
