//! Identifiers. Each is its own type, written on the wire as text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Why a text is not an identifier of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: expected {expected}, found a text of {found_bytes} bytes")]
pub struct ParseIdError {
    /// The identifier's kind, e.g. `lease`.
    pub kind: &'static str,
    /// The form that would have been accepted.
    pub expected: &'static str,
    /// Length of what came instead; the text itself is not repeated.
    pub found_bytes: usize,
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes = text.as_bytes();
    if bytes.len() != 2 * N {
        return None;
    }
    let mut out = [0u8; N];
    for (slot, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *slot = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(out)
}

fn hex_digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $int:ty, $bytes:literal, $prefix:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:0width$x}"), self.0, width = 2 * $bytes)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    .and_then(parse_hex::<$bytes>)
                    .map(|bytes| $name(<$int>::from_be_bytes(bytes)))
                    .ok_or(ParseIdError {
                        kind: stringify!($name),
                        expected: $expected,
                        found_bytes: text.len(),
                    })
            }
        }

        text_serde!($name);
    };
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex::<32>(text).map($name).ok_or(ParseIdError {
                    kind: stringify!($name),
                    expected: "64 lower-case hex digits",
                    found_bytes: text.len(),
                })
            }
        }

        text_serde!($name);
    };
}

number_id!(
    /// A requester's job.
    JobId, u64, 8, "job_", "job_ and 16 lower-case hex digits"
);
number_id!(
    /// One WebSocket session of one contributor.
    SessionId, u64, 8, "ses_", "ses_ and 16 lower-case hex digits"
);
number_id!(
    /// A single-use right to answer one task; unguessable.
    LeaseId, u128, 16, "lease_", "lease_ and 32 lower-case hex digits"
);
number_id!(
    /// A seed of counter-based random numbers, in hex because JSON numbers lose bits beyond 2^53.
    Seed, u64, 8, "0x", "0x and 16 lower-case hex digits"
);

hash_id!(
    /// blake3 of a blob's canonical bytes: data shards, weights, states.
    BlobId
);
hash_id!(
    /// blake3 of the kernel module's file.
    KernelId
);
hash_id!(
    /// blake3 of what a visitor was shown before a yes, as the coordinator keeps it.
    ViewId
);
hash_id!(
    /// blake3 of a task's outputs under the task's id (see [`crate::digest`]).
    ResultDigest
);

/// A unit of work and of verification: one part of one stage of one round.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The job that it belongs to.
    pub job: JobId,
    /// Counted from 0 over the whole job.
    pub round: u32,
    /// Stage within the round.
    pub stage: u32,
    /// Part within the stage; for replica placement the first micro-batch of its run.
    pub part: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.job, self.round, self.stage, self.part)
    }
}

impl FromStr for TaskId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = ParseIdError {
            kind: "TaskId",
            expected: "JOB/ROUND/STAGE/PART",
            found_bytes: text.len(),
        };
        let mut fields = text.split('/');
        let mut next = || fields.next().ok_or_else(|| error.clone());
        let (job, round, stage, part) = (next()?, next()?, next()?, next()?);
        let number = |field: &str| field.parse::<u32>().map_err(|_| error.clone());
        let id = TaskId {
            job: job.parse()?,
            round: number(round)?,
            stage: number(stage)?,
            part: number(part)?,
        };
        // One task has one spelling: "+1", "01" and trailing fields are refused.
        if id.to_string() == text { Ok(id) } else { Err(error) }
    }
}

text_serde!(TaskId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_through_text() {
        let lease = LeaseId(0x1234_5678_9abc_def0_0fed_cba9_8765_4321);
        assert_eq!(lease.to_string().parse(), Ok(lease));
        let task = TaskId { job: JobId(7), round: 12, stage: 0, part: 3 };
        assert_eq!(task.to_string(), "job_0000000000000007/12/0/3");
        assert_eq!(task.to_string().parse(), Ok(task));
        let blob = BlobId([0xab; 32]);
        assert_eq!(blob.to_string().parse(), Ok(blob));
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in ["", "lease_", "lease_00", "LEASE_00000000000000000000000000000000", "job_é"] {
            assert!(text.parse::<LeaseId>().is_err(), "{text}");
        }
        for text in ["job_0000000000000007/+1/0/0", "job_0000000000000007/01/0/0", "a/1/2/3/4"] {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
    }
}
