//! Rows of the books, read back.

use crate::store::{StoreError, column, hash_column, unreadable};
use raven_engine::ledger::{
    Account, Action, Balance, ChainHash, Entry, EntryId, HoldState, Reason, Transfer,
};
use raven_engine::money::NanoUsd;
use sqlx::sqlite::SqliteRow;

/// The columns that [`entry`] reads, of a query that joins `debits` and `credits`.
pub const ENTRY: &str = "e.number, e.id, e.at_ms, e.action, debits.name AS debit,
    credits.name AS credit, e.amount, e.reason, e.expires_ms, e.hold, e.hash";
/// Those joins.
pub const JOINS: &str = "LEFT JOIN accounts debits ON debits.id = e.debit
    LEFT JOIN accounts credits ON credits.id = e.credit";

pub fn balance(row: &SqliteRow) -> Result<Balance, StoreError> {
    Ok(Balance {
        posted: column(row, "accounts", "posted")?,
        held_out: column(row, "accounts", "held_out")?,
        held_in: column(row, "accounts", "held_in")?,
    })
}

pub fn account(row: &SqliteRow, name: &'static str) -> Result<Account, StoreError> {
    let text: &str = column(row, "accounts", name)?;
    text.parse().map_err(|error| unreadable("accounts", name, error))
}

pub fn id(row: &SqliteRow) -> Result<EntryId, StoreError> {
    hash_column(row, "entries", "id").map(EntryId)
}

pub fn hash(row: &SqliteRow) -> Result<ChainHash, StoreError> {
    hash_column(row, "entries", "hash").map(ChainHash)
}

pub fn hold_state(row: &SqliteRow) -> Result<HoldState, StoreError> {
    let text: &str = column(row, "holds", "state")?;
    let all = [HoldState::Open, HoldState::Posted, HoldState::Voided, HoldState::Expired];
    let state = all.into_iter().find(|state| state.as_str() == text);
    state.ok_or_else(|| unreadable("holds", "state", "no state of a hold"))
}

fn transfer(row: &SqliteRow) -> Result<Transfer, StoreError> {
    let text: &str = column(row, "entries", "reason")?;
    let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == text);
    Ok(Transfer {
        debit: account(row, "debit")?,
        credit: account(row, "credit")?,
        amount: NanoUsd(column(row, "entries", "amount")?),
        reason: reason.ok_or_else(|| unreadable("entries", "reason", "no reason"))?,
    })
}

/// An entry, as it was entered.
pub fn entry(row: &SqliteRow) -> Result<Entry, StoreError> {
    let hold = || hash_column(row, "entries", "hold").map(EntryId);
    let action: &str = column(row, "entries", "action")?;
    let action = match action {
        "post" => Action::Post(transfer(row)?),
        "hold" => {
            let expires = column(row, "entries", "expires_ms")?;
            Action::Hold { transfer: transfer(row)?, expires }
        }
        "post_hold" => Action::PostHold { hold: hold()? },
        "void_hold" => Action::VoidHold { hold: hold()? },
        "expire_hold" => Action::ExpireHold { hold: hold()? },
        _ => return Err(unreadable("entries", "action", "no action")),
    };
    Ok(Entry { id: id(row)?, at: column(row, "entries", "at_ms")?, action })
}
