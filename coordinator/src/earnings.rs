//! What a contributor says, under the key that it works with, so that its
//! earnings become an account's to spend.

use crate::certificate::Signatory;
use crate::runtime::session::parse_hex;
use crate::time::UnixMs;
use raven_engine::ContributorId;
use raven_engine::ledger::{Account, EntryId};
use raven_engine::money::NanoUsd;
use serde::Deserialize;

/// What is signed begins with it: a receipt of consent, which the same key signs,
/// is no statement.
pub const DOMAIN: &str = "raven earnings 1\n";
/// Bytes of a statement: it has six short fields.
pub const STATEMENT_BYTES_MAX: usize = 2_048;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    coordinator: String,
    contributor: String,
    account: String,
    nano_usd: i64,
    nonce: String,
    expires_at: String,
}

/// A statement that its contributor has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub contributor: ContributorId,
    /// Whose the money is to be.
    pub account: Account,
    pub amount: NanoUsd,
    /// One nonce, one movement.
    pub nonce: [u8; 16],
}

/// Why a statement moves nothing.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    #[error("statement: {found} bytes, at most {STATEMENT_BYTES_MAX} are read")]
    TooLong { found: usize },
    #[error("statement: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("statement.{field}: {rule}")]
    Field { field: &'static str, rule: &'static str },
    #[error("signature: the contributor's key did not sign this statement")]
    Signature,
    #[error("statement.coordinator: it is for another one than {origin}")]
    Elsewhere { origin: String },
    #[error("statement.expires_at: its time was over at {}", end.rfc3339())]
    Over { end: UnixMs },
}

impl StatementError {
    /// The field of the request at fault.
    pub fn field(&self) -> String {
        match self {
            StatementError::TooLong { .. } | StatementError::Unreadable(_) => "statement".into(),
            StatementError::Field { field: "signature", .. } | StatementError::Signature => {
                "signature".into()
            }
            StatementError::Field { field, .. } => format!("statement.{field}"),
            StatementError::Elsewhere { .. } => "statement.coordinator".into(),
            StatementError::Over { .. } => "statement.expires_at".into(),
        }
    }
}

impl Statement {
    /// Reads a statement and checks who signed it, and that it is for the coordinator at
    /// `origin`: the same words said elsewhere move nothing here. `text` is what was signed
    /// behind [`DOMAIN`], byte by byte.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn read(
        text: &str,
        signature: &str,
        origin: &str,
        now: UnixMs,
    ) -> Result<Self, StatementError> {
        if text.len() > STATEMENT_BYTES_MAX {
            return Err(StatementError::TooLong { found: text.len() });
        }
        let field = |field, rule| StatementError::Field { field, rule };
        let body: Body = serde_json::from_str(text)?;
        let contributor: [u8; 32] = parse_hex(&body.contributor)
            .ok_or(field("contributor", "must be 64 lower-case hex digits"))?;
        let key: Signatory = body
            .contributor
            .parse()
            .map_err(|()| field("contributor", "must be 64 lower-case hex digits"))?;
        let signature =
            parse_hex(signature).ok_or(field("signature", "must be 128 lower-case hex digits"))?;
        if !key.has_signed_bytes(&[DOMAIN.as_bytes(), text.as_bytes()].concat(), &signature) {
            return Err(StatementError::Signature);
        }
        if body.coordinator != origin {
            return Err(StatementError::Elsewhere { origin: origin.to_owned() });
        }
        let end = UnixMs::parse(&body.expires_at)
            .ok_or(field("expires_at", "must be RFC 3339 in UTC"))?;
        if end <= now {
            return Err(StatementError::Over { end });
        }
        if body.nano_usd < 1 {
            return Err(field("nano_usd", "must be 1 or more"));
        }
        let account = body.account.parse();
        Ok(Statement {
            contributor: ContributorId(contributor),
            account: account.map_err(|_| field("account", "must be the name of an account"))?,
            amount: NanoUsd(body.nano_usd),
            nonce: parse_hex(&body.nonce)
                .ok_or(field("nonce", "must be 32 lower-case hex digits"))?,
        })
    }

    /// The id of the movement: whoever sends the statement again moves nothing.
    pub fn entry(&self) -> EntryId {
        EntryId::of("earnings", &[&self.contributor.0, &self.nonce])
    }
}
