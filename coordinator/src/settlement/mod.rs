//! Where money comes in and goes out. The books know what is owed; how it is
//! paid is behind [`Settlement`], of which there is one: whoever runs the
//! coordinator sees each payment and enters it ([`Manual`]).

mod manual;

pub use manual::Manual;

use crate::store::{Book, BooksError, KeyId, StoreError};
use crate::time::UnixMs;
use crate::token::{MicroTokens, TokenRate};
use futures_util::future::BoxFuture;
use raven_engine::ledger::{Account, Added, Refusal};
use raven_engine::money::NanoUsd;
use std::fmt;
use std::str::FromStr;

/// Bytes of an address: a bank's and an owner's name fit.
pub const ADDRESS_BYTES_MAX: usize = 200;

/// A withdrawal's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WithdrawalId(pub i64);

impl fmt::Display for WithdrawalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wd_{:016x}", self.0)
    }
}

impl FromStr for WithdrawalId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let rule = "must be wd_ and 16 hex digits";
        let digits = text.strip_prefix("wd_").ok_or(rule)?;
        let id = WithdrawalId(i64::from_str_radix(digits, 16).map_err(|_| rule)?);
        // One withdrawal has one spelling.
        if id.to_string() == text { Ok(id) } else { Err(rule) }
    }
}

/// Money that somebody wants to have outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub book: Book,
    /// Of a requester, a site or a contributor; whoever asks has shown that it is theirs.
    pub account: Account,
    pub amount: NanoUsd,
    /// Where it is to be paid, as a person reads it.
    pub address: String,
    pub pay: Pay,
    /// What whoever asks knows it by: the same one is held once.
    pub reference: String,
}

/// What a withdrawal is paid in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pay {
    #[default]
    Usd,
    /// At the rate that is in force when it is asked for.
    Tokens,
}

impl Pay {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Pay::Usd => "usd",
            Pay::Tokens => "tokens",
        }
    }
}

/// A withdrawal, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    pub id: WithdrawalId,
    pub request: Request,
    pub state: WithdrawalState,
    pub requested: UnixMs,
    /// From then on it can't be begun, and the money goes back.
    pub expires: UnixMs,
    pub decided: Option<UnixMs>,
    /// What whoever decided has noted, e.g. what the payment is known by.
    pub note: Option<String>,
    /// Of one that is paid in tokens.
    pub rate: Option<TokenRate>,
}

/// How far a withdrawal is. Its money is held in the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithdrawalState {
    /// Nobody has begun to pay it: it can be cancelled, and ends with its time.
    Pending,
    /// Somebody is about to pay it, or has. Only they know, and only they end it.
    Paying,
    /// It was paid.
    Approved,
    /// Whoever was to pay it has given it back.
    Refused,
    /// Whoever asked for it has taken it back.
    Cancelled,
    /// Nobody began to pay it in time.
    Expired,
}

impl WithdrawalState {
    /// All states.
    pub const ALL: [WithdrawalState; 6] = [
        WithdrawalState::Pending,
        WithdrawalState::Paying,
        WithdrawalState::Approved,
        WithdrawalState::Refused,
        WithdrawalState::Cancelled,
        WithdrawalState::Expired,
    ];

    /// The name in stores and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            WithdrawalState::Pending => "pending",
            WithdrawalState::Paying => "paying",
            WithdrawalState::Approved => "approved",
            WithdrawalState::Refused => "refused",
            WithdrawalState::Cancelled => "cancelled",
            WithdrawalState::Expired => "expired",
        }
    }
}

impl FromStr for WithdrawalState {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let found = WithdrawalState::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or("is no state of a withdrawal")
    }
}

/// What becomes of a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Somebody goes to pay it: from here on it neither ends by itself nor is cancelled,
    /// so that nothing is paid and given back as well.
    Begin,
    /// It was paid: what was held leaves the books.
    Approve,
    /// It goes back.
    Refuse,
}

/// What a payment was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tender {
    Usd(NanoUsd),
    /// At the rate that is in force when the payment is entered.
    Tokens(MicroTokens),
}

impl From<NanoUsd> for Tender {
    fn from(amount: NanoUsd) -> Self {
        Tender::Usd(amount)
    }
}

/// Nano-USD of one deposit, a million USD: a slip of the finger is not entered for good.
pub const DEPOSIT_MAX: NanoUsd = NanoUsd(1_000_000_000_000_000);

/// Money that came in, as whoever runs the coordinator has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deposit {
    pub owner: KeyId,
    pub amount: Tender,
    /// What the payment is known by: one payment is entered once.
    pub payment: String,
}

/// Why money does not come in or go out. The books are as before.
#[derive(Debug, thiserror::Error)]
pub enum SettlementError {
    #[error("test keys have play money, which is worth nothing outside")]
    PlayMoney,
    #[error("nano_usd: {} nano-USD, at least {} are paid out", found.0, least.0)]
    BelowLeast { found: NanoUsd, least: NanoUsd },
    #[error("address: must have 1 to {ADDRESS_BYTES_MAX} printable ASCII characters")]
    Address,
    #[error("account {account}: nothing is paid out of it")]
    NotPayable { account: Account },
    #[error("there is no rate at which tokens could be paid: the operator has set none")]
    NoTokenRate,
    #[error("micro_tokens: {}, must be 1 or more", found.0)]
    Tokens { found: MicroTokens },
    #[error("micro_tokens: {} are worth less than half a nano-USD", found.0)]
    TokensWorthNothing { found: MicroTokens },
    #[error("micro_tokens: {} are worth more than {} nano-USD", found.0, DEPOSIT_MAX.0)]
    TokensWorthTooMuch { found: MicroTokens },
    #[error("no withdrawal has the id {0}")]
    Unknown(WithdrawalId),
    #[error("withdrawal {id} is {} already", state.as_str())]
    Decided { id: WithdrawalId, state: WithdrawalState },
    #[error("withdrawal {id} is not begun: say so before it is paid, or it may be paid twice")]
    NotBegun { id: WithdrawalId },
    #[error("reference: it is that of another withdrawal")]
    ReferenceUsed,
    #[error("the time of withdrawal {id} was over at {}", expires.rfc3339())]
    Over { id: WithdrawalId, expires: UnixMs },
    #[error(transparent)]
    Books(#[from] BooksError),
}

impl From<StoreError> for SettlementError {
    fn from(error: StoreError) -> Self {
        SettlementError::Books(error.into())
    }
}

impl From<Refusal> for SettlementError {
    fn from(refusal: Refusal) -> Self {
        SettlementError::Books(refusal.into())
    }
}

/// How money comes in and goes out.
pub trait Settlement: fmt::Debug + Send + Sync {
    /// What is less is not paid out.
    fn least(&self) -> NanoUsd;

    /// Enters money that came in. What came in tokens is entered again at the rate at
    /// which it was, whatever the rate is by then.
    ///
    /// # Errors
    /// [`SettlementError::Books`], also where the payment was entered with other content;
    /// of tokens what they are not worth, and [`SettlementError::PlayMoney`].
    fn deposit(&self, deposit: Deposit) -> BoxFuture<'_, Result<Added, SettlementError>>;

    /// Holds money that is to go out. Asked again with the same reference it
    /// answers what it has answered.
    ///
    /// # Errors
    /// [`SettlementError`].
    fn request(
        &self,
        request: Request,
        now: UnixMs,
    ) -> BoxFuture<'_, Result<Withdrawal, SettlementError>>;

    /// Notes that what is held is being paid, or was, or gives it back.
    ///
    /// # Errors
    /// [`SettlementError`].
    fn decide(
        &self,
        id: WithdrawalId,
        decision: Decision,
        note: Option<String>,
        now: UnixMs,
    ) -> BoxFuture<'_, Result<Withdrawal, SettlementError>>;

    /// Gives back what an account has asked for and nobody has begun to pay. Cancelled
    /// again it stays what it is.
    ///
    /// # Errors
    /// [`SettlementError::Unknown`], also of another account's; [`SettlementError::Decided`].
    fn cancel(
        &self,
        of: (Book, Account),
        id: WithdrawalId,
        now: UnixMs,
    ) -> BoxFuture<'_, Result<Withdrawal, SettlementError>>;

    /// Gives back what nobody began to pay in time.
    ///
    /// # Errors
    /// [`SettlementError::Books`].
    fn expire(&self, now: UnixMs) -> BoxFuture<'_, Result<(), SettlementError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let id = WithdrawalId(0xab);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "wd_", "wd_ab", "wd_00000000000000AB", "wd_0000000000000000ab"] {
            assert!(text.parse::<WithdrawalId>().is_err(), "{text:?}");
        }
    }
}
