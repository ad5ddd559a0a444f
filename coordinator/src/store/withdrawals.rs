//! Money on its way out: a hold in the books, and where it is to go.

use super::books;
use super::token_rates;
use super::{
    Book, Store, StoreError, column, failed, hash_column, read_book, u64_column, unreadable,
};
use crate::settlement::{Decision, Pay, Request, SettlementError, Withdrawal, WithdrawalId};
use crate::time::UnixMs;
use crate::token::TokenRate;
use raven_engine::ledger::{Account, Action, Entry, EntryId, HoldState, Reason, Refusal, Transfer};
use raven_engine::money::NanoUsd;
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};

/// Days in which a withdrawal is approved, or its money goes back.
const DECIDED_DAYS: u32 = 30;
/// Withdrawals of one account that wait: more are a mistake.
const WAITING_MAX: u64 = 20;
/// Withdrawals whose time is over that are ended at once.
const EXPIRED_AT_ONCE: i64 = 1_000;

const SELECT: &str = "SELECT w.*, h.state AS state FROM withdrawals w
     JOIN holds h ON h.book = w.book AND h.id = w.hold";

type Tx = Transaction<'static, Sqlite>;

fn read(row: &SqliteRow) -> Result<Withdrawal, StoreError> {
    let table = "withdrawals";
    let account: &str = column(row, table, "account")?;
    let account = account.parse().map_err(|error| unreadable(table, "account", error))?;
    let decided: Option<i64> = column(row, table, "decided_ms")?;
    let from: Option<i64> = column(row, table, "token_from_ms")?;
    let rate = match from {
        Some(from) => {
            let nano_usd = column(row, table, "token_nano_usd")?;
            Some(TokenRate { from: UnixMs(from), nano_usd })
        }
        None => None,
    };
    Ok(Withdrawal {
        id: WithdrawalId(column(row, table, "id")?),
        request: Request {
            book: read_book(row, table)?,
            account,
            amount: NanoUsd(column(row, table, "amount")?),
            address: column(row, table, "address")?,
            pay: if rate.is_some() { Pay::Tokens } else { Pay::Usd },
            reference: column(row, table, "reference")?,
        },
        state: books::hold_state(row)?,
        requested: UnixMs(column(row, table, "requested_ms")?),
        expires: UnixMs(column(row, table, "expires_ms")?),
        decided: decided.map(UnixMs),
        note: column(row, table, "note")?,
        rate,
    })
}

fn hold_of(row: &SqliteRow) -> Result<EntryId, StoreError> {
    hash_column(row, "withdrawals", "hold").map(EntryId)
}

/// The entry that ends a hold in that way.
fn ending(state: HoldState, hold: EntryId, at: UnixMs) -> Entry {
    let (name, action) = match state {
        HoldState::Posted => ("withdrawal approved", Action::PostHold { hold }),
        HoldState::Expired => ("withdrawal expired", Action::ExpireHold { hold }),
        HoldState::Open | HoldState::Voided => ("withdrawal refused", Action::VoidHold { hold }),
    };
    Entry { id: EntryId::of(name, &[&hold.0]), at: at.0, action }
}

impl Store {
    /// Holds what is asked for, or answers what was held under that reference.
    /// What may be asked for is [`crate::settlement`]'s to say.
    ///
    /// # Errors
    /// [`SettlementError`]; the books are as before.
    pub async fn hold_withdrawal(
        &self,
        request: &Request,
        now: UnixMs,
    ) -> Result<Withdrawal, SettlementError> {
        let mut transaction = self.begin().await?;
        // Money whose time on its way out is over may be asked for again.
        expire(&mut transaction, request.book, now).await?;
        if let Some(known) = known(&mut transaction, request).await? {
            let is_same = known.request == *request;
            return if is_same { Ok(known) } else { Err(SettlementError::ReferenceUsed) };
        }
        check_waiting(&mut transaction, request).await?;
        let rate = rate_of(&mut transaction, request, now).await?;
        let expires = now.plus_days(DECIDED_DAYS);
        let fields = [&request.account.to_bytes()[..], request.reference.as_bytes()];
        let hold = EntryId::of("withdrawal", &fields);
        let transfer = Transfer {
            debit: request.account,
            credit: Account::External,
            amount: request.amount,
            reason: Reason::Withdrawal,
        };
        let action = Action::Hold { transfer, expires: Some(expires.0) };
        let entry = Entry { id: hold, at: now.0, action };
        books::enter(&mut transaction, request.book, &[entry]).await?;
        let done = sqlx::query(
            "INSERT INTO withdrawals
                 (book, account, reference, amount, address, hold, requested_ms, expires_ms,
                  token_from_ms, token_nano_usd)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )
        .bind(request.book.as_str())
        .bind(request.account.to_string())
        .bind(&request.reference)
        .bind(request.amount.0)
        .bind(&request.address)
        .bind(&hold.0[..])
        .bind(now.0)
        .bind(expires.0)
        .bind(rate.map(|rate| rate.from.0))
        .bind(rate.map(|rate| rate.nano_usd))
        .execute(&mut *transaction)
        .await
        .map_err(failed("note a withdrawal"))?;
        transaction.commit().await.map_err(failed("commit a withdrawal"))?;
        Ok(Withdrawal {
            id: WithdrawalId(done.last_insert_rowid()),
            request: request.clone(),
            state: HoldState::Open,
            requested: now,
            expires,
            decided: None,
            note: None,
            rate,
        })
    }

    /// Lets what is held go out, or gives it back.
    ///
    /// # Errors
    /// [`SettlementError`]; the books are as before.
    pub async fn end_withdrawal(
        &self,
        id: WithdrawalId,
        decision: Decision,
        note: Option<String>,
        now: UnixMs,
    ) -> Result<Withdrawal, SettlementError> {
        let mut transaction = self.begin().await?;
        let query = format!("{SELECT} WHERE w.id = ?1");
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(id.0)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed("look up a withdrawal"))?
            .ok_or(SettlementError::Unknown(id))?;
        let found = read(&row)?;
        if found.state != HoldState::Open {
            return Err(SettlementError::Decided { id, state: found.state });
        }
        let state = match decision {
            Decision::Approve => HoldState::Posted,
            Decision::Refuse => HoldState::Voided,
        };
        let entry = ending(state, hold_of(&row)?, now);
        let entered = books::enter(&mut transaction, found.request.book, &[entry]).await;
        entered.map_err(|error| match error {
            books::BooksError::Refused(Refusal::HoldExpired { .. }) => {
                SettlementError::Over { id, expires: found.expires }
            }
            error => error.into(),
        })?;
        note_end(&mut transaction, id, note.as_deref(), now).await?;
        transaction.commit().await.map_err(failed("commit a withdrawal's end"))?;
        Ok(Withdrawal { state, decided: Some(now), note, ..found })
    }

    /// Gives back what was not decided about in time.
    ///
    /// # Errors
    /// [`SettlementError::Books`].
    pub async fn expire_withdrawals(&self, now: UnixMs) -> Result<(), SettlementError> {
        for book in Book::ALL {
            let mut transaction = self.begin().await?;
            expire(&mut transaction, book, now).await?;
            transaction.commit().await.map_err(failed("commit expired withdrawals"))?;
        }
        Ok(())
    }

    /// Withdrawals, newest first: of one account, or all; those that wait, or all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn withdrawals(
        &self,
        of: Option<(Book, Account)>,
        waiting_only: bool,
        limit: u32,
    ) -> Result<Vec<Withdrawal>, StoreError> {
        let query = format!(
            "{SELECT} WHERE (?1 IS NULL OR (w.book = ?1 AND w.account = ?2))
             AND (NOT ?3 OR h.state = 'open') ORDER BY w.id DESC LIMIT ?4"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(of.map(|(book, _)| book.as_str()))
            .bind(of.map(|(_, account)| account.to_string()))
            .bind(waiting_only)
            .bind(i64::from(limit))
            .fetch_all(self.readers())
            .await
            .map_err(failed("list withdrawals"))?;
        rows.iter().map(read).collect()
    }
}

async fn known(transaction: &mut Tx, request: &Request) -> Result<Option<Withdrawal>, StoreError> {
    let query = format!("{SELECT} WHERE w.book = ?1 AND w.account = ?2 AND w.reference = ?3");
    let row = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(request.book.as_str())
        .bind(request.account.to_string())
        .bind(&request.reference)
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("look for a withdrawal"))?;
    row.as_ref().map(read).transpose()
}

/// The rate of a withdrawal in tokens, as it is when it is asked for.
async fn rate_of(
    transaction: &mut Tx,
    request: &Request,
    now: UnixMs,
) -> Result<Option<TokenRate>, SettlementError> {
    if request.pay == Pay::Usd {
        return Ok(None);
    }
    let row = sqlx::query(
        "SELECT from_ms, nano_usd FROM token_rates WHERE from_ms <= ?1
         ORDER BY from_ms DESC LIMIT 1",
    )
    .bind(now.0)
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("read a token's rate"))?;
    let row = row.ok_or(SettlementError::NoTokenRate)?;
    Ok(Some(token_rates::read(&row)?))
}

async fn check_waiting(transaction: &mut Tx, request: &Request) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS waiting FROM withdrawals w
         JOIN holds h ON h.book = w.book AND h.id = w.hold
         WHERE w.book = ?1 AND w.account = ?2 AND h.state = 'open'",
    )
    .bind(request.book.as_str())
    .bind(request.account.to_string())
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed("count withdrawals"))?;
    let (what, limit) = ("withdrawals that wait", WAITING_MAX);
    let found = u64_column(&row, "withdrawals", "waiting")?;
    if found < limit { Ok(()) } else { Err(StoreError::Quota { what, limit, found }) }
}

async fn note_end(
    transaction: &mut Tx,
    id: WithdrawalId,
    note: Option<&str>,
    now: UnixMs,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE withdrawals SET decided_ms = ?2, note = ?3 WHERE id = ?1")
        .bind(id.0)
        .bind(now.0)
        .bind(note)
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("note a withdrawal's end"))
}

async fn expire(transaction: &mut Tx, book: Book, now: UnixMs) -> Result<(), SettlementError> {
    let rows = sqlx::query(
        "SELECT w.id AS id, w.hold AS hold FROM withdrawals w
         JOIN holds h ON h.book = w.book AND h.id = w.hold
         WHERE w.book = ?1 AND w.decided_ms IS NULL AND h.state = 'open' AND w.expires_ms <= ?2
         ORDER BY w.id LIMIT ?3",
    )
    .bind(book.as_str())
    .bind(now.0)
    .bind(EXPIRED_AT_ONCE)
    .fetch_all(&mut **transaction)
    .await
    .map_err(failed("look for withdrawals whose time is over"))?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        entries.push(ending(HoldState::Expired, hold_of(row)?, now));
        let id = WithdrawalId(column(row, "withdrawals", "id")?);
        note_end(transaction, id, None, now).await?;
    }
    books::enter(transaction, book, &entries).await?;
    Ok(())
}
