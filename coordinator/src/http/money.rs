//! What requests say of money: amounts and references.

use raven_engine::ledger::EntryId;
use raven_engine::money::NanoUsd;
use serde::Deserialize;

/// Nano-USD of one movement: a slip of the finger is not entered for good.
const AMOUNT_MAX: i64 = 1_000_000_000_000_000;
/// Bytes of a reference: a UUID has 36.
const REFERENCE_BYTES_MAX: usize = 64;

/// An amount that may be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Amount(pub NanoUsd);

impl TryFrom<i64> for Amount {
    type Error = String;

    fn try_from(nano_usd: i64) -> Result<Self, String> {
        let is_good = (1..=AMOUNT_MAX).contains(&nano_usd);
        let rule = || format!("must be 1 to {AMOUNT_MAX} nano-USD, a million USD");
        is_good.then_some(Amount(NanoUsd(nano_usd))).ok_or_else(rule)
    }
}

/// What whoever asks knows a movement by. It is part of the entry's id, so that
/// one that is sent again, at any time, is entered once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Reference(String);

impl TryFrom<String> for Reference {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_good = (1..=REFERENCE_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        let rule = || {
            format!("must be 1 to {REFERENCE_BYTES_MAX} visible ASCII characters, without spaces")
        };
        if is_good { Ok(Reference(text)) } else { Err(rule()) }
    }
}

impl Reference {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the entry that is known by it, among those of one account and kind.
    pub fn entry(&self, kind: &str, owner: crate::store::KeyId) -> EntryId {
        EntryId::of(kind, &[&owner.0.to_le_bytes(), self.0.as_bytes()])
    }
}
