//! Money on its way out: a hold in the books, and where it is to go.

use super::books::{self, BooksError};
use super::token_rates;
use super::{
    Book, KeyId, Store, StoreError, column, failed, hash_column, read_book, u64_column, unreadable,
};
use crate::settlement::{
    Decision, Pay, Request, SettlementError, Withdrawal, WithdrawalId, WithdrawalState,
};
use crate::time::UnixMs;
use crate::token::TokenRate;
use raven_engine::SiteId;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};

/// Days in which somebody begins to pay a withdrawal, or its money goes back.
const DECIDED_DAYS: u32 = 30;
/// Withdrawals of one account that wait: more are a mistake.
const WAITING_MAX: u64 = 20;
/// Withdrawals whose time is over that are ended at once.
const EXPIRED_AT_ONCE: i64 = 1_000;

/// Of a withdrawal whose money is held.
const WAITS: &str = "state IN ('pending', 'paying')";

type Tx = Transaction<'static, Sqlite>;

fn read(row: &SqliteRow) -> Result<Withdrawal, StoreError> {
    let table = "withdrawals";
    let (account, state): (&str, &str) =
        (column(row, table, "account")?, column(row, table, "state")?);
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
        state: state.parse().map_err(|error| unreadable(table, "state", error))?,
        requested: UnixMs(column(row, table, "requested_ms")?),
        expires: UnixMs(column(row, table, "expires_ms")?),
        decided: decided.map(UnixMs),
        note: column(row, table, "note")?,
        rate,
    })
}

/// What holds a withdrawal's money.
#[derive(Clone, Copy, Debug)]
struct HeldBy {
    hold: EntryId,
    /// Whether it ends with the withdrawal's time: not once somebody pays it.
    ends: bool,
}

fn hold_of(row: &SqliteRow) -> Result<HeldBy, StoreError> {
    let table = "withdrawals";
    let hold = hash_column(row, table, "hold").map(EntryId)?;
    Ok(HeldBy { hold, ends: column(row, table, "hold_ends")? })
}

/// The entry with which a hold ends where its withdrawal comes to `state`, if it does.
fn ending(state: WithdrawalState, held: HeldBy, at: UnixMs) -> Option<Entry> {
    let hold = held.hold;
    let (name, action) = match state {
        WithdrawalState::Pending | WithdrawalState::Paying => return None,
        WithdrawalState::Approved => ("withdrawal approved", Action::PostHold { hold }),
        WithdrawalState::Refused => ("withdrawal refused", Action::VoidHold { hold }),
        WithdrawalState::Cancelled => ("withdrawal cancelled", Action::VoidHold { hold }),
        WithdrawalState::Expired if held.ends => {
            ("withdrawal expired", Action::ExpireHold { hold })
        }
        WithdrawalState::Expired => ("withdrawal expired", Action::VoidHold { hold }),
    };
    Some(Entry { id: EntryId::of(name, &[&hold.0]), at: at.0, action })
}

/// The entries with which its money is held without an end, since somebody is about to pay
/// it: what is paid can't go back as well. And what holds it then.
fn without_end(found: &Withdrawal, held: HeldBy, at: UnixMs) -> (Vec<Entry>, HeldBy) {
    let (at, hold) = (at.0, EntryId::of("withdrawal paying", &[&held.hold.0]));
    let void = Action::VoidHold { hold: held.hold };
    let again = Action::Hold { transfer: transfer_of(&found.request), expires: None };
    let entries = vec![
        Entry { id: EntryId::of("withdrawal begun", &[&held.hold.0]), at, action: void },
        Entry { id: hold, at, action: again },
    ];
    (entries, HeldBy { hold, ends: false })
}

fn transfer_of(request: &Request) -> Transfer {
    Transfer {
        debit: request.account,
        credit: Account::External,
        amount: request.amount,
        reason: Reason::Withdrawal,
    }
}

/// What a withdrawal comes to by a decision.
fn decided(
    found: &Withdrawal,
    decision: Decision,
    now: UnixMs,
) -> Result<WithdrawalState, SettlementError> {
    let (id, expires) = (found.id, found.expires);
    match (found.state, decision) {
        (WithdrawalState::Pending, Decision::Begin) if now >= expires => {
            Err(SettlementError::Over { id, expires })
        }
        (WithdrawalState::Pending, Decision::Begin) => Ok(WithdrawalState::Paying),
        (WithdrawalState::Pending, Decision::Approve) => Err(SettlementError::NotBegun { id }),
        (WithdrawalState::Paying, Decision::Approve) => Ok(WithdrawalState::Approved),
        (WithdrawalState::Pending | WithdrawalState::Paying, Decision::Refuse) => {
            Ok(WithdrawalState::Refused)
        }
        // A second one who wants to pay it is told that it is being paid.
        (state, _) => Err(SettlementError::Decided { id, state }),
    }
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
        let action = Action::Hold { transfer: transfer_of(request), expires: Some(expires.0) };
        let entry = Entry { id: hold, at: now.0, action };
        books::enter(&mut transaction, request.book, &[entry]).await?;
        let done = sqlx::query(
            "INSERT INTO withdrawals
                 (book, account, reference, amount, address, hold, requested_ms, expires_ms,
                  token_from_ms, token_nano_usd, hold_ends)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1)",
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
            state: WithdrawalState::Pending,
            requested: now,
            expires,
            decided: None,
            note: None,
            rate,
        })
    }

    /// Notes that a withdrawal is being paid, lets what is held go out, or gives it back.
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
        let (found, held) =
            find(&mut transaction, id).await?.ok_or(SettlementError::Unknown(id))?;
        let state = decided(&found, decision, now)?;
        if let Some(entry) = ending(state, held, now) {
            books::enter(&mut transaction, found.request.book, &[entry]).await?;
        } else if held.ends {
            let (entries, held) = without_end(&found, held, now);
            books::enter(&mut transaction, found.request.book, &entries).await?;
            note_hold(&mut transaction, id, held).await?;
        }
        let decided = state_ends(state).then_some(now);
        let note = note.or_else(|| found.note.clone());
        note_state(&mut transaction, id, state, note.as_deref(), decided).await?;
        transaction.commit().await.map_err(failed("commit a withdrawal's state"))?;
        Ok(Withdrawal { state, decided, note, ..found })
    }

    /// Gives an account's money back that nobody has begun to pay. Cancelled again it
    /// stays what it is.
    ///
    /// # Errors
    /// [`SettlementError::Unknown`], also of another account's; [`SettlementError::Decided`].
    pub async fn cancel_withdrawal(
        &self,
        of: (Book, Account),
        id: WithdrawalId,
        now: UnixMs,
    ) -> Result<Withdrawal, SettlementError> {
        let mut transaction = self.begin().await?;
        let found = find(&mut transaction, id).await?;
        let found = found.filter(|(found, _)| (found.request.book, found.request.account) == of);
        let (found, held) = found.ok_or(SettlementError::Unknown(id))?;
        let state = WithdrawalState::Cancelled;
        match found.state {
            WithdrawalState::Cancelled => return Ok(found),
            WithdrawalState::Pending => {}
            state => return Err(SettlementError::Decided { id, state }),
        }
        let entries: Vec<Entry> = ending(state, held, now).into_iter().collect();
        books::enter(&mut transaction, found.request.book, &entries).await?;
        note_state(&mut transaction, id, state, None, Some(now)).await?;
        transaction.commit().await.map_err(failed("commit a cancelled withdrawal"))?;
        Ok(Withdrawal { state, decided: Some(now), ..found })
    }

    /// Gives back what nobody began to pay in time.
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

    /// Withdrawals: of one account, or all; all, newest first, or those whose money is
    /// held, the one that has waited longest first.
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
            "SELECT * FROM withdrawals WHERE (?1 IS NULL OR (book = ?1 AND account = ?2))
             {} LIMIT ?3",
            if waiting_only {
                format!("AND {WAITS} ORDER BY id")
            } else {
                "ORDER BY id DESC".into()
            }
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(of.map(|(book, _)| book.as_str()))
            .bind(of.map(|(_, account)| account.to_string()))
            .bind(i64::from(limit))
            .fetch_all(self.readers())
            .await
            .map_err(failed("list withdrawals"))?;
        rows.iter().map(read).collect()
    }
}

/// Whether nothing more becomes of a withdrawal.
const fn state_ends(state: WithdrawalState) -> bool {
    !matches!(state, WithdrawalState::Pending | WithdrawalState::Paying)
}

async fn find(
    transaction: &mut Tx,
    id: WithdrawalId,
) -> Result<Option<(Withdrawal, HeldBy)>, StoreError> {
    let row = sqlx::query("SELECT * FROM withdrawals WHERE id = ?1")
        .bind(id.0)
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("look up a withdrawal"))?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((read(&row)?, hold_of(&row)?)))
}

async fn known(transaction: &mut Tx, request: &Request) -> Result<Option<Withdrawal>, StoreError> {
    let query = "SELECT * FROM withdrawals WHERE book = ?1 AND account = ?2 AND reference = ?3";
    let row = sqlx::query(query)
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
    let rate = token_rates::in_force(transaction, now).await?;
    rate.ok_or(SettlementError::NoTokenRate).map(Some)
}

async fn check_waiting(transaction: &mut Tx, request: &Request) -> Result<(), StoreError> {
    let query = format!(
        "SELECT COUNT(*) AS waiting FROM withdrawals WHERE book = ?1 AND account = ?2 AND {WAITS}"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(request.book.as_str())
        .bind(request.account.to_string())
        .fetch_one(&mut **transaction)
        .await
        .map_err(failed("count withdrawals"))?;
    let (what, limit) = ("withdrawals that wait", WAITING_MAX);
    let found = u64_column(&row, "withdrawals", "waiting")?;
    if found < limit { Ok(()) } else { Err(StoreError::Quota { what, limit, found }) }
}

async fn note_hold(transaction: &mut Tx, id: WithdrawalId, held: HeldBy) -> Result<(), StoreError> {
    sqlx::query("UPDATE withdrawals SET hold = ?2, hold_ends = ?3 WHERE id = ?1")
        .bind(id.0)
        .bind(&held.hold.0[..])
        .bind(held.ends)
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("note what holds a withdrawal"))
}

async fn note_state(
    transaction: &mut Tx,
    id: WithdrawalId,
    state: WithdrawalState,
    note: Option<&str>,
    decided: Option<UnixMs>,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE withdrawals SET state = ?2, note = ?3, decided_ms = ?4 WHERE id = ?1")
        .bind(id.0)
        .bind(state.as_str())
        .bind(note)
        .bind(decided.map(|at| at.0))
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("note a withdrawal's state"))
}

async fn expire(transaction: &mut Tx, book: Book, now: UnixMs) -> Result<(), SettlementError> {
    let rows = sqlx::query(
        "SELECT id, hold, hold_ends FROM withdrawals
         WHERE state = 'pending' AND book = ?1 AND expires_ms <= ?2
         ORDER BY id LIMIT ?3",
    )
    .bind(book.as_str())
    .bind(now.0)
    .bind(EXPIRED_AT_ONCE)
    .fetch_all(&mut **transaction)
    .await
    .map_err(failed("look for withdrawals whose time is over"))?;
    Ok(end_all(transaction, book, &rows, WithdrawalState::Expired, now).await?)
}

/// Gives back what an account, its sites and those of its sub-accounts wait for:
/// whoever asked for it may not have been its owner.
pub(super) async fn cancel_waiting(
    transaction: &mut Tx,
    owner: KeyId,
    now: UnixMs,
) -> Result<(), StoreError> {
    let sites: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM sites
         WHERE owner = ?1 OR owner IN (SELECT id FROM owners WHERE parent = ?1)",
    )
    .bind(owner.0)
    .fetch_all(&mut **transaction)
    .await
    .map_err(failed("list an account's sites"))?;
    let sites = sites.into_iter().map(|id| Account::Site(SiteId(super::from_sql(id))));
    for account in std::iter::once(super::requester(owner)).chain(sites) {
        for book in Book::ALL {
            let rows = sqlx::query(
                "SELECT id, hold, hold_ends FROM withdrawals
                 WHERE book = ?1 AND account = ?2 AND state = 'pending'",
            )
            .bind(book.as_str())
            .bind(account.to_string())
            .fetch_all(&mut **transaction)
            .await
            .map_err(failed("look for withdrawals that wait"))?;
            end_all(transaction, book, &rows, WithdrawalState::Cancelled, now).await?;
        }
    }
    Ok(())
}

async fn end_all(
    transaction: &mut Tx,
    book: Book,
    rows: &[SqliteRow],
    state: WithdrawalState,
    now: UnixMs,
) -> Result<(), StoreError> {
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        entries.extend(ending(state, hold_of(row)?, now));
        let id = WithdrawalId(column(row, "withdrawals", "id")?);
        note_state(transaction, id, state, None, Some(now)).await?;
    }
    match books::enter(transaction, book, &entries).await {
        Ok(_) => Ok(()),
        Err(BooksError::Store(error)) => Err(error),
        Err(BooksError::Refused(refusal)) => Err(StoreError::Books(refusal)),
    }
}
