//! What becomes of committed results.

use crate::ids::LeaseId;
use serde::{Deserialize, Serialize};

/// What became of a result that was committed to. Whether it was computed a
/// second time is no part of it: nobody learns which of its results are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultOutcome {
    /// Believed, used and paid, on whatever grounds.
    Accepted,
    /// It was accepted, and its round is computed again because somebody else's
    /// result was false. It stays paid.
    Undone,
    /// Others were faster. Not paid.
    NotNeeded,
    /// Its lease had run out, or its payload did not come in time. Not paid.
    Late,
    /// Nobody looked at it: its round is computed again, or its job is over. Not paid.
    Withdrawn,
    /// It is not what the task yields. Not paid.
    Wrong,
    /// The payload is not what was committed to. Not paid.
    BrokenCommitment,
    /// Another result of the same contributor is wrong, so this one is not paid.
    Void,
}

impl ResultOutcome {
    /// Every outcome.
    pub const ALL: [ResultOutcome; 8] = [
        ResultOutcome::Accepted,
        ResultOutcome::Undone,
        ResultOutcome::NotNeeded,
        ResultOutcome::Late,
        ResultOutcome::Withdrawn,
        ResultOutcome::Wrong,
        ResultOutcome::BrokenCommitment,
        ResultOutcome::Void,
    ];

    /// The name on the wire and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            ResultOutcome::Accepted => "accepted",
            ResultOutcome::Undone => "undone",
            ResultOutcome::NotNeeded => "not_needed",
            ResultOutcome::Late => "late",
            ResultOutcome::Withdrawn => "withdrawn",
            ResultOutcome::Wrong => "wrong",
            ResultOutcome::BrokenCommitment => "broken_commitment",
            ResultOutcome::Void => "void",
        }
    }

    /// Whether work that is honest, as far as anybody knows, earns nothing by it.
    pub const fn is_unpaid(self) -> bool {
        matches!(self, ResultOutcome::NotNeeded | ResultOutcome::Late | ResultOutcome::Withdrawn)
    }
}

/// The outcome of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseOutcome {
    pub lease: LeaseId,
    pub outcome: ResultOutcome,
}
