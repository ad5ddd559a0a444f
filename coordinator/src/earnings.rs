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
/// The same of a statement that links: one that moves an amount moves no more than that.
pub const LINK_DOMAIN: &str = "raven link 1\n";
/// A statement that links is good for so long at most, as long as its nonce is kept: one that
/// was never sent links nothing on a later day.
pub const LINK_MS_MAX: i64 = 60 * 60 * 1000;
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkBody {
    coordinator: String,
    contributor: String,
    account: String,
    nonce: String,
    expires_at: String,
}

/// A statement by which all that its contributor earns is an account's from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatement {
    pub contributor: ContributorId,
    /// Whose the money is to be.
    pub account: Account,
    /// One nonce, one link.
    pub nonce: [u8; 16],
    /// When it is no longer good.
    pub end: UnixMs,
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
    #[error("statement.expires_at: {found_ms} ms ahead, at most {LINK_MS_MAX}")]
    TooLate { found_ms: i64 },
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
            StatementError::Over { .. } | StatementError::TooLate { .. } => {
                "statement.expires_at".into()
            }
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
        check_length(text)?;
        let body: Body = serde_json::from_str(text)?;
        let contributor = signed_by(DOMAIN, text, &body.contributor, signature)?;
        check_place_and_time(&body.coordinator, &body.expires_at, origin, now)?;
        if body.nano_usd < 1 {
            return Err(field("nano_usd", "must be 1 or more"));
        }
        let nonce = read_nonce(&body.nonce)?;
        let (account, amount) = (read_account(&body.account)?, NanoUsd(body.nano_usd));
        Ok(Statement { contributor, account, amount, nonce })
    }

    /// The id of the movement: whoever sends the statement again moves nothing.
    pub fn entry(&self) -> EntryId {
        EntryId::of("earnings", &[&self.contributor.0, &self.nonce])
    }
}

impl LinkStatement {
    /// The same as [`Statement::read`], behind [`LINK_DOMAIN`] and with an end that is near.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn read(
        text: &str,
        signature: &str,
        origin: &str,
        now: UnixMs,
    ) -> Result<Self, StatementError> {
        check_length(text)?;
        let body: LinkBody = serde_json::from_str(text)?;
        let contributor = signed_by(LINK_DOMAIN, text, &body.contributor, signature)?;
        let end = check_place_and_time(&body.coordinator, &body.expires_at, origin, now)?;
        let found_ms = end.0.saturating_sub(now.0);
        if found_ms > LINK_MS_MAX {
            return Err(StatementError::TooLate { found_ms });
        }
        let (nonce, account) = (read_nonce(&body.nonce)?, read_account(&body.account)?);
        Ok(LinkStatement { contributor, account, nonce, end })
    }
}

const fn field(field: &'static str, rule: &'static str) -> StatementError {
    StatementError::Field { field, rule }
}

fn check_length(text: &str) -> Result<(), StatementError> {
    let found = text.len();
    if found > STATEMENT_BYTES_MAX { Err(StatementError::TooLong { found }) } else { Ok(()) }
}

fn signed_by(
    domain: &str,
    text: &str,
    contributor: &str,
    signature: &str,
) -> Result<ContributorId, StatementError> {
    let no_key = field("contributor", "must be 64 lower-case hex digits");
    let (Some(id), Ok(key)) = (parse_hex(contributor), contributor.parse::<Signatory>()) else {
        return Err(no_key);
    };
    let signature =
        parse_hex(signature).ok_or(field("signature", "must be 128 lower-case hex digits"))?;
    if key.has_signed_bytes(&[domain.as_bytes(), text.as_bytes()].concat(), &signature) {
        Ok(ContributorId(id))
    } else {
        Err(StatementError::Signature)
    }
}

fn check_place_and_time(
    coordinator: &str,
    expires_at: &str,
    origin: &str,
    now: UnixMs,
) -> Result<UnixMs, StatementError> {
    if coordinator != origin {
        return Err(StatementError::Elsewhere { origin: origin.to_owned() });
    }
    let end = UnixMs::parse(expires_at).ok_or(field("expires_at", "must be RFC 3339 in UTC"))?;
    if end <= now { Err(StatementError::Over { end }) } else { Ok(end) }
}

fn read_account(text: &str) -> Result<Account, StatementError> {
    text.parse().map_err(|_| field("account", "must be the name of an account"))
}

fn read_nonce(text: &str) -> Result<[u8; 16], StatementError> {
    parse_hex(text).ok_or(field("nonce", "must be 32 lower-case hex digits"))
}
