//! The chain of a job's rounds: each link hashes the one before it together
//! with what its round started from and came to. Whoever knows the last link
//! can tell whether any round of a list was changed, left out or added.

use crate::runtime::session::{hex, parse_hex};
use raven_protocol::{BlobId, JobId, ResultDigest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

const ORIGIN_CONTEXT: &str = "raven 2026 certificate chain origin 1";
const LINK_CONTEXT: &str = "raven 2026 certificate chain link 1";
const TASKS_CONTEXT: &str = "raven 2026 certificate accepted tasks 1";

macro_rules! hash {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let bytes = parse_hex(&text);
                bytes.map($name).ok_or_else(|| {
                    serde::de::Error::custom("64 lower-case hex digits are expected")
                })
            }
        }
    };
}

hash!(
    /// Where a chain stands after a round.
    Link
);
hash!(
    /// Hash of the digests of a round's accepted tasks, in the order of stage and part.
    TasksDigest
);

/// The accepted tasks of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tasks {
    pub count: u32,
    pub digest: TasksDigest,
}

impl Tasks {
    /// Of tasks by stage and part, in any order; `None` where there are none, or
    /// where one task has two digests.
    pub fn of(tasks: impl IntoIterator<Item = (u32, u32, ResultDigest)>) -> Option<Tasks> {
        let mut tasks: Vec<_> = tasks.into_iter().collect();
        tasks.sort_unstable();
        tasks.dedup();
        let is_torn = tasks.windows(2).any(|pair| pair[0].0 == pair[1].0 && pair[0].1 == pair[1].1);
        if tasks.is_empty() || is_torn {
            return None;
        }
        let mut hasher = blake3::Hasher::new_derive_key(TASKS_CONTEXT);
        for (stage, part, digest) in &tasks {
            hasher.update(&stage.to_le_bytes()).update(&part.to_le_bytes()).update(&digest.0);
        }
        let count = u32::try_from(tasks.len()).ok()?;
        Some(Tasks { count, digest: TasksDigest(*hasher.finalize().as_bytes()) })
    }
}

/// One round as it is published: a line of the list of rounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundLine {
    /// Counted from 1: as many optimizer steps are done after it.
    pub round: u32,
    /// The state after it.
    pub state: BlobId,
    /// Its accepted tasks, where their digests are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Tasks>,
    /// Placement `replica`: first micro-batch of each accepted task, ascending.
    /// A task goes on to where the next one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<u32>,
    pub link: Link,
}

/// Where a job's chain starts.
pub fn origin(job: JobId, state: BlobId) -> Link {
    let mut hasher = blake3::Hasher::new_derive_key(ORIGIN_CONTEXT);
    hasher.update(&job.0.to_le_bytes()).update(&state.0);
    Link(*hasher.finalize().as_bytes())
}

/// The link of a round that followed `previous`. Every field has a fixed length.
pub fn link(
    previous: Link,
    round: u32,
    before: BlobId,
    after: BlobId,
    tasks: Option<&Tasks>,
) -> Link {
    let mut hasher = blake3::Hasher::new_derive_key(LINK_CONTEXT);
    hasher.update(&previous.0).update(&round.to_le_bytes()).update(&before.0).update(&after.0);
    match tasks {
        Some(Tasks { count, digest }) => {
            hasher.update(&[1]).update(&count.to_le_bytes()).update(&digest.0)
        }
        None => hasher.update(&[0]),
    };
    Link(*hasher.finalize().as_bytes())
}

/// A chain that is followed round by round.
#[derive(Clone, Copy, Debug)]
pub struct Follower {
    round: u32,
    state: BlobId,
    link: Link,
}

impl Follower {
    /// Before the first round.
    pub fn new(job: JobId, state: BlobId) -> Self {
        Follower { round: 0, state, link: origin(job, state) }
    }

    /// Goes on to the next round; false where the line does not follow.
    #[must_use]
    pub fn follow(&mut self, line: &RoundLine) -> bool {
        let next = self.round.checked_add(1);
        let expected = link(self.link, line.round, self.state, line.state, line.tasks.as_ref());
        if next != Some(line.round) || expected != line.link {
            return false;
        }
        *self = Follower { round: line.round, state: line.state, link: line.link };
        true
    }

    /// Rounds followed.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// The state after them.
    pub fn state(&self) -> BlobId {
        self.state
    }

    /// The last link.
    pub fn link(&self) -> Link {
        self.link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId(7);

    fn state(byte: u8) -> BlobId {
        BlobId([byte; 32])
    }

    /// Three rounds; the second has no record of its tasks.
    fn lines() -> Vec<RoundLine> {
        let (mut previous, mut before) = (origin(JOB, state(0)), state(0));
        let tasks = |round: u32| {
            let of = |part: u32| (0, part, ResultDigest([(10 * round + part) as u8; 32]));
            (round != 2).then(|| Tasks::of([of(4), of(0)]).expect("tasks"))
        };
        (1..=3u32)
            .map(|round| {
                let (after, tasks) = (state(round as u8), tasks(round));
                let own = link(previous, round, before, after, tasks.as_ref());
                (previous, before) = (own, after);
                let runs = if tasks.is_some() { vec![0, 4] } else { Vec::new() };
                RoundLine { round, state: after, tasks, runs, link: own }
            })
            .collect()
    }

    /// How far a list can be followed.
    fn followed(lines: &[RoundLine]) -> u32 {
        let mut follower = Follower::new(JOB, state(0));
        let _ = lines.iter().all(|line| follower.follow(line));
        follower.round()
    }

    #[test]
    fn a_chain_is_followed_to_its_end_and_read_back() {
        let lines = lines();
        assert_eq!(followed(&lines), 3);
        for line in lines {
            let text = serde_json::to_string(&line).expect("written");
            assert_eq!(serde_json::from_str::<RoundLine>(&text).expect("read"), line, "{text}");
        }
    }

    #[test]
    fn a_change_of_any_field_breaks_the_chain_there() {
        let changes: [fn(&mut RoundLine); 7] = [
            |line| line.round += 1,
            |line| line.state.0[0] ^= 1,
            |line| line.link.0[31] ^= 1,
            |line| line.tasks = None,
            |line| line.tasks.as_mut().expect("tasks").count += 1,
            |line| line.tasks.as_mut().expect("tasks").digest.0[0] ^= 1,
            |line| *line = lines()[1].clone(),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut changed = lines();
            change(&mut changed[2]);
            assert_eq!(followed(&changed), 2, "change {index}");
        }
        let mut shorter = lines();
        shorter.remove(1);
        assert_eq!(followed(&shorter), 1, "a round was left out");
        let mut follower = Follower::new(JobId(8), state(0));
        assert!(!follower.follow(&lines()[0]), "another job's chain");
    }

    #[test]
    fn tasks_are_hashed_in_their_own_order_and_each_once() {
        let of = |part: u32, byte| (0, part, ResultDigest([byte; 32]));
        let tasks = Tasks::of([of(0, 1), of(4, 2)]);
        assert_eq!(tasks.map(|tasks| tasks.count), Some(2));
        assert_eq!(Tasks::of([of(4, 2), of(0, 1), of(4, 2)]), tasks, "two who agreed");
        assert_eq!(Tasks::of([of(0, 1), of(0, 2)]), None, "one task, two results");
        assert_ne!(Tasks::of([of(0, 1), of(5, 2)]), tasks);
        assert_ne!(Tasks::of([of(0, 1), (1, 4, ResultDigest([2; 32]))]), tasks);
        assert_eq!(Tasks::of([]), None);
    }
}
