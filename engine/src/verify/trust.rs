//! What is known of those who compute.

use crate::config::EngineConfig;
use crate::event::{ContributorId, SessionProfile};
use raven_protocol::{Backend, DeviceClass};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};

/// To whom trust belongs: a phone that earned it says nothing of the same
/// person's server, nor a processor of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    pub contributor: ContributorId,
    pub device: DeviceClass,
    pub backend: Backend,
}

/// A contributor has a few devices at most, so that its key is enough.
impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.contributor.0);
    }
}

impl Identity {
    /// The identity behind a session.
    pub fn of(profile: &SessionProfile) -> Self {
        Identity {
            contributor: profile.contributor,
            device: profile.device,
            backend: profile.numeric.backend(),
        }
    }
}

/// What an identity's past results say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum Trust {
    /// So many of its results were computed a second time, and were right.
    Agreed {
        /// Since it was first seen.
        results: u32,
        /// Of those, the ones that the coordinator computed itself. Friends may
        /// agree with each other as often as they like.
        refereed: u32,
    },
    /// A lie was proven. It gets no work any more.
    Excluded,
}

impl Default for Trust {
    fn default() -> Self {
        Trust::Agreed { results: 0, refereed: 0 }
    }
}

impl Trust {
    /// Whether its results may be accepted singly.
    pub(crate) fn is_vetted(self, config: &EngineConfig) -> bool {
        matches!(self, Trust::Agreed { results, refereed: 1.. } if results >= config.vetted_after)
    }

    /// Its next result is computed a second time with probability one in so many.
    pub(crate) fn check_one_in(self, config: &EngineConfig) -> u32 {
        match self {
            Trust::Agreed { results, .. } if self.is_vetted(config) => {
                results.saturating_add(1).min(config.check_one_in_max)
            }
            Trust::Agreed { .. } | Trust::Excluded => 1,
        }
    }

    /// Whether only the referee is lacking before it is vetted.
    pub(crate) fn lacks_referee(self, config: &EngineConfig) -> bool {
        matches!(self, Trust::Agreed { results, refereed: 0 }
            if results.saturating_add(1) >= config.vetted_after)
    }

    /// One more result of it was right, as the referee or others found.
    #[must_use]
    pub(crate) fn agreed(self, by_referee: bool) -> Trust {
        match self {
            Trust::Agreed { results, refereed } => Trust::Agreed {
                results: results.saturating_add(1),
                refereed: refereed.saturating_add(by_referee.into()),
            },
            Trust::Excluded => Trust::Excluded,
        }
    }

    /// A result of it was farther from the truth than others are as a rule: it is
    /// looked at as if it were new.
    #[must_use]
    pub(crate) fn doubted(self) -> Trust {
        match self {
            Trust::Agreed { .. } => Trust::default(),
            Trust::Excluded => Trust::Excluded,
        }
    }
}

/// How far a result was from the truth that did not prove a lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Within what may be in a model: many small layers have such kinks.
    Slight,
    /// Beyond that: honest GPUs are so in three of a thousand results at most.
    Grave,
}

impl Doubt {
    const fn weight(self) -> u32 {
        match self {
            Doubt::Slight => 1,
            Doubt::Grave => 8,
        }
    }
}

/// Doubts beyond which an identity is excluded, where each result that agreed takes
/// one off: eight grave ones in a row, or one in eight results for long. Of an honest
/// GPU with three grave ones in a thousand that is one result in 10^11, and with slight
/// ones in a third of its results one in 10^18.
const DOUBTS_MAX: u32 = 64;
/// Identities whose doubts are remembered, whether they are online or not.
const DOUBTED_MAX: usize = 16_384;

/// Trust in those who are online or whose results are not settled. It is asked for
/// several times an event; contributors choose their keys, so that the hash is keyed.
#[derive(Debug, Default)]
pub(crate) struct TrustTable {
    /// What is held against identities, beyond what [`Trust`] says: it is forgotten
    /// with a restart.
    doubts: BTreeMap<Identity, u32>,
    known: HashMap<Identity, Known>,
    /// Who was excluded since the start, on whatever device. What is stored may
    /// be behind, so they stay; each took the proof of a lie.
    excluded: HashSet<ContributorId>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    trust: Trust,
    /// Open sessions.
    sessions: u32,
    /// Whether its contributor was excluded, on whatever device.
    excluded: bool,
}

impl TrustTable {
    /// A session of `identity` opened; `stored` is what an earlier one left.
    /// What is known here is newer.
    pub(crate) fn opened(&mut self, identity: Identity, stored: Trust) -> Trust {
        let known = self.entry(identity, stored);
        if stored == Trust::Excluded {
            known.trust = Trust::Excluded;
        }
        known.sessions += 1;
        known.trust
    }

    /// A session of `identity` is gone; its results may still be `open`.
    pub(crate) fn closed(&mut self, identity: Identity, open: bool) {
        if let Some(known) = self.known.get_mut(&identity) {
            known.sessions = known.sessions.saturating_sub(1);
            // The store may be behind: a proven lie is not forgotten.
            if known.sessions == 0 && !open && known.trust != Trust::Excluded {
                self.known.remove(&identity);
            }
        }
    }

    /// Forgets those who are gone and of whom nothing is open; who they were, in no order.
    pub(crate) fn prune(&mut self, is_open: impl Fn(&Identity) -> bool) -> Vec<ContributorId> {
        let mut forgotten = Vec::new();
        self.known.retain(|identity, known| {
            let is_kept = known.sessions > 0 || known.trust == Trust::Excluded || is_open(identity);
            if !is_kept {
                forgotten.push(identity.contributor);
            }
            is_kept
        });
        forgotten
    }

    pub(crate) fn of(&self, identity: &Identity) -> Trust {
        match self.known.get(identity) {
            Some(known) if known.excluded => Trust::Excluded,
            Some(known) => known.trust,
            None if self.excluded.contains(&identity.contributor) => Trust::Excluded,
            None => Trust::default(),
        }
    }

    /// What is known of `identity`, which is `stored` if nothing is.
    fn entry(&mut self, identity: Identity, stored: Trust) -> &mut Known {
        let excluded = &self.excluded;
        self.known.entry(identity).or_insert_with(|| Known {
            trust: stored,
            sessions: 0,
            excluded: excluded.contains(&identity.contributor),
        })
    }

    pub(crate) fn set(&mut self, identity: Identity, trust: Trust) {
        self.entry(identity, trust).trust = trust;
    }

    /// A result of `identity` was doubtful; whether that is once too often.
    pub(crate) fn note_doubt(&mut self, identity: Identity, doubt: Doubt) -> bool {
        if self.doubts.len() >= DOUBTED_MAX && !self.doubts.contains_key(&identity) {
            // Whoever has least against it is closest to being cleared of it.
            let least = self.doubts.iter().min_by_key(|&(_, &doubts)| doubts);
            if let Some(least) = least.map(|(&identity, _)| identity) {
                self.doubts.remove(&least);
            }
        }
        let doubts = self.doubts.entry(identity).or_default();
        *doubts = doubts.saturating_add(doubt.weight());
        *doubts >= DOUBTS_MAX
    }

    /// A result of `identity` was computed a second time, and right.
    pub(crate) fn clear_doubt(&mut self, identity: &Identity) {
        if let Some(doubts) = self.doubts.get_mut(identity) {
            *doubts -= 1;
            if *doubts == 0 {
                self.doubts.remove(identity);
            }
        }
    }

    /// Excludes somebody on every device.
    pub(crate) fn exclude(&mut self, contributor: ContributorId) {
        self.excluded.insert(contributor);
        let known = self.known.iter_mut();
        for (_, known) in known.filter(|(identity, _)| identity.contributor == contributor) {
            known.excluded = true;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_become_rarer_and_never_end() {
        let config = EngineConfig::default();
        let one_in = |results| Trust::Agreed { results, refereed: 1 }.check_one_in(&config);
        assert_eq!((one_in(0), one_in(config.vetted_after - 1)), (1, 1));
        assert_eq!(one_in(config.vetted_after), config.vetted_after + 1);
        assert_eq!(one_in(u32::MAX), config.check_one_in_max);
        assert_eq!(Trust::Excluded.check_one_in(&config), 1);
        assert_eq!(Trust::Excluded.agreed(true), Trust::Excluded);
        assert_eq!(Trust::Excluded.doubted(), Trust::Excluded);
        let doubted = Trust::Agreed { results: 1_000, refereed: 40 }.doubted();
        assert!(!doubted.is_vetted(&config), "it is to be vetted again");
        let friends = Trust::Agreed { results: 1_000, refereed: 0 };
        assert!(!friends.is_vetted(&config) && friends.lacks_referee(&config));
        assert!(friends.agreed(true).is_vetted(&config));
    }

    #[test]
    fn doubts_exclude_whoever_has_them_often_and_nobody_who_has_them_now_and_then() {
        let who = |id| Identity {
            contributor: ContributorId([id; 32]),
            device: DeviceClass::Desktop,
            backend: Backend::Gpu,
        };
        let mut table = TrustTable::default();
        let until_excluded = |table: &mut TrustTable, id, doubt, agreed_between: u32| {
            (1..=1_000).find(|_| {
                (0..agreed_between).for_each(|_| table.clear_doubt(&who(id)));
                table.note_doubt(who(id), doubt)
            })
        };
        assert_eq!(until_excluded(&mut table, 1, Doubt::Grave, 0), Some(8));
        assert_eq!(until_excluded(&mut table, 2, Doubt::Slight, 0), Some(64));
        assert!(until_excluded(&mut table, 3, Doubt::Grave, 7).is_some_and(|doubts| doubts > 32));
        assert_eq!(until_excluded(&mut table, 4, Doubt::Grave, 8), None);
        assert_eq!(until_excluded(&mut table, 5, Doubt::Slight, 1), None);
        // It is not forgotten with its sessions, and as many are remembered as may be.
        let mut one = |number: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_le_bytes());
            let identity = Identity { contributor: ContributorId(key), ..who(0) };
            table.note_doubt(identity, Doubt::Slight)
        };
        (0..DOUBTED_MAX as u32 + 9).for_each(|number| assert!(!one(number)));
        assert_eq!(table.doubts.len(), DOUBTED_MAX);
        assert!(table.note_doubt(who(1), Doubt::Slight), "who has most against it stays");
    }

    #[test]
    fn an_exclusion_outlives_sessions_and_wins_over_what_is_stored() {
        let who = Identity {
            contributor: ContributorId([1; 32]),
            device: DeviceClass::Phone,
            backend: Backend::Cpu,
        };
        let mut table = TrustTable::default();
        let good = Trust::Agreed { results: 9, refereed: 2 };
        table.opened(who, good);
        table.set(who, Trust::Excluded);
        assert_eq!(table.opened(who, good), Trust::Excluded);
        table.closed(who, false);
        table.closed(who, true);
        assert_eq!((table.of(&who), table.len()), (Trust::Excluded, 1));
        // What is stored may be behind, so that a processor's and a GPU's stay.
        assert_eq!(table.prune(|_| false), []);
        assert_eq!(table.opened(who, good), Trust::Excluded);
        let other = Identity { device: DeviceClass::Desktop, ..who };
        table.opened(other, good);
        table.closed(other, true);
        assert_eq!(table.prune(|_| false), [who.contributor]);
        assert_eq!(table.len(), 1);
        table.exclude(who.contributor);
        assert_eq!(table.of(&Identity { device: DeviceClass::Server, ..who }), Trust::Excluded);
        // Whether it was known before on another device, or comes to be known after.
        let before = Identity { contributor: ContributorId([2; 32]), ..who };
        table.opened(before, good);
        table.exclude(before.contributor);
        let after = Identity { device: DeviceClass::Server, ..before };
        table.opened(after, good);
        assert_eq!((table.of(&before), table.of(&after)), (Trust::Excluded, Trust::Excluded));
    }
}
