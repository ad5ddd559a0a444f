//! The pay of jobs, in the transactions that store their rounds: what a record
//! credits is held on the job's escrow, matures with the next checkpoint, and is
//! closed with the job's end.
//!
//! A checkpoint holds settled rounds only (see `raven_engine::verify`), so that
//! what it finds open can no longer be voided.

use super::books::{self, Book, BooksError};
use super::desk::{Desk, exact, read_book, work_of};
use super::{KeyId, Store, StoreError, column, failed, to_sql};
use crate::time::UnixMs;
use raven_engine::ledger::{
    Account, Action, Entry, EntryId, Exact, Paid, Reason, RequesterId, RoundKey, Transfer, Voided,
    Work,
};
use raven_engine::money::{Charge, NanoUsd};
use raven_engine::{Credit, Payer, Record, Void};
use raven_protocol::JobId;
use sqlx::Transaction;
use sqlx::sqlite::Sqlite;
use std::collections::BTreeMap;

/// What a requester may try things out with: 1,000 USD of play money.
const TRIAL: NanoUsd = NanoUsd(1_000_000_000_000);

/// Entries that are gathered before they are entered.
const ENTRIES_AT_ONCE: usize = 4_000;

/// Every round that there may be.
const LAST: RoundKey = RoundKey { attempt: u32::MAX, round: u32::MAX };

pub(super) type Tx<'a> = Transaction<'a, Sqlite>;

/// The account of whoever owns a key.
pub fn requester(owner: KeyId) -> Account {
    Account::Requester(RequesterId(super::from_sql(owner.0)))
}

impl Store {
    /// The book of a key's money.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn book_of(&self, owner: KeyId) -> Result<Book, StoreError> {
        book_of(self.readers(), owner).await
    }

    /// What work on a job has cost that its owner is not charged for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn operator_cost(&self, job: JobId) -> Result<Charge, StoreError> {
        let rows = sqlx::query("SELECT exact FROM pay_lines WHERE job = ?1 AND payer = 'operator'")
            .bind(to_sql(job.0))
            .fetch_all(self.readers())
            .await
            .map_err(failed("sum up what an operator pays"))?;
        let mut sum = Exact::default();
        for row in &rows {
            sum = sum.plus(exact(row, "pay_lines", "exact")?).unwrap_or(Exact(i128::MAX));
        }
        // An operator's lines are earnings: hundredths of their charges.
        Ok(Charge::from_units(sum.0 / 100))
    }

    /// Gives play money to every owner of test keys who was given none yet.
    ///
    /// # Errors
    /// [`BooksError`].
    pub async fn grant_trials(&self) -> Result<(), BooksError> {
        let mut transaction = self.begin().await?;
        let rows = sqlx::query(
            "SELECT k.id AS id FROM api_keys k JOIN owners o ON o.id = k.id
             WHERE k.book = 'test' AND o.parent IS NULL ORDER BY k.id",
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed("list test keys"))?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in &rows {
            entries.push(trial(KeyId(column(row, "api_keys", "id")?), UnixMs::now()));
        }
        books::enter(&mut transaction, Book::Test, &entries).await?;
        transaction.commit().await.map_err(failed("commit trial balances"))?;
        Ok(())
    }
}

async fn book_of<'c>(
    connection: impl sqlx::Executor<'c, Database = Sqlite>,
    owner: KeyId,
) -> Result<Book, StoreError> {
    let row = sqlx::query("SELECT book FROM api_keys WHERE id = ?1")
        .bind(owner.0)
        .fetch_one(connection)
        .await
        .map_err(failed("read a key's book"))?;
    read_book(&row, "api_keys")
}

fn trial(owner: KeyId, now: UnixMs) -> Entry {
    let (debit, credit) = (Account::Operator, requester(owner));
    let transfer = Transfer { debit, credit, amount: TRIAL, reason: Reason::Trial };
    let id = EntryId::of("trial", &[&owner.0.to_le_bytes()]);
    Entry { id, at: now.0, action: Action::Post(transfer) }
}

/// Gives a new test key's owner its play money.
pub(super) async fn begin_requester(
    transaction: &mut Tx<'_>,
    owner: KeyId,
    book: Book,
) -> Result<(), StoreError> {
    if book == Book::Live {
        return Ok(());
    }
    let entries = [trial(owner, UnixMs::now())];
    books::enter(transaction, book, &entries).await.map(drop).map_err(unexpected)
}

/// The rules of the books refuse nothing of what is entered here.
pub(super) fn unexpected(error: BooksError) -> StoreError {
    match error {
        BooksError::Store(error) => error,
        BooksError::Refused(refusal) => StoreError::Books(refusal),
    }
}

/// Moves a new job's price from its owner to its escrow. No hold, no work.
pub(super) async fn hold_price(
    transaction: &mut Tx<'_>,
    owner: KeyId,
    job: JobId,
    price: NanoUsd,
    now: UnixMs,
) -> Result<(), StoreError> {
    let book = book_of(&mut **transaction, owner).await?;
    sqlx::query("UPDATE jobs SET book = ?2, escrow = ?3 WHERE id = ?1")
        .bind(to_sql(job.0))
        .bind(book.as_str())
        .bind(price.0)
        .execute(&mut **transaction)
        .await
        .map_err(failed("note a job's escrow"))?;
    if price.0 == 0 {
        return Ok(());
    }
    let (debit, credit) = (requester(owner), Account::Escrow(job));
    let transfer = Transfer { debit, credit, amount: price, reason: Reason::Escrow };
    let id = EntryId::of("escrow", &[&job.0.to_le_bytes()]);
    let entries = [Entry { id, at: now.0, action: Action::Post(transfer) }];
    books::enter(transaction, book, &entries).await.map(drop).map_err(unexpected)
}

/// Whether what is open matures with a record, because it is settled: a job that waits for
/// money is so, whether it has a checkpoint of it or not.
pub(super) fn matures(record: &Record) -> bool {
    record.matures()
}

/// Who comes to pay executions, each with who is to and its charge: the operator where they
/// would cost more than the job holds.
pub(super) async fn payers(
    transaction: &mut Tx<'_>,
    job: JobId,
    executions: Vec<(Payer, Charge)>,
) -> Result<Vec<Payer>, StoreError> {
    match Desk::open(transaction, job).await? {
        Some(desk) => desk.pay.payers(executions.into_iter()).map_err(StoreError::Pay),
        None => Ok(executions.into_iter().map(|(payer, _)| payer).collect()),
    }
}

/// Pays what a record credits, voids what it voids, and lets mature what is settled. The
/// credits are not stored yet, so that what is loaded of open rounds is of the time before
/// them; who pays each is as [`payers`] says.
pub(super) async fn enter_record(
    transaction: &mut Tx<'_>,
    record: &Record,
    credits: &[Credit],
    voids: &[Void],
    now: UnixMs,
) -> Result<(), StoreError> {
    let is_end = record.phase.is_end();
    let matures = matures(record);
    if credits.is_empty() && voids.is_empty() && !matures {
        return Ok(());
    }
    let Some(mut desk) = Desk::open(transaction, record.job).await? else { return Ok(()) };
    let is_all = !voids.is_empty() || is_end;
    desk.load(transaction, credits, is_all, matures).await?;
    desk.credit(transaction, credits, now).await?;
    if !voids.is_empty() {
        desk.void(transaction, voids, now).await?;
    }
    if matures {
        desk.mature(transaction, now).await?;
    }
    if is_end {
        desk.close(transaction, now).await?;
    }
    desk.store(transaction).await
}

/// Voids what a record says before the record is stored; it finds nothing more of it then.
pub(super) async fn void(
    transaction: &mut Tx<'_>,
    job: JobId,
    voids: &[Void],
    now: UnixMs,
) -> Result<(), StoreError> {
    let Some(mut desk) = Desk::open(transaction, job).await? else { return Ok(()) };
    desk.load(transaction, &[], true, true).await?;
    desk.void(transaction, voids, now).await?;
    desk.store(transaction).await?;
    super::voided::void_credits(transaction, job, voids).await
}

/// Closes the pay of a job that ends without a record of the engine.
pub(super) async fn end(
    transaction: &mut Tx<'_>,
    job: JobId,
    now: UnixMs,
) -> Result<(), StoreError> {
    let Some(mut desk) = Desk::open(transaction, job).await? else { return Ok(()) };
    desk.load(transaction, &[], true, true).await?;
    desk.mature(transaction, now).await?;
    desk.close(transaction, now).await?;
    desk.store(transaction).await
}

impl Desk {
    /// Holds what the credits of each round earn.
    async fn credit(
        &mut self,
        transaction: &mut Tx<'_>,
        credits: &[Credit],
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let mut rounds: BTreeMap<RoundKey, Vec<Work>> = BTreeMap::new();
        for credit in credits {
            let key = RoundKey { attempt: credit.attempt, round: credit.task.round };
            rounds.entry(key).or_default().push(work_of(credit));
        }
        for (key, work) in rounds {
            let paid = self.pay.verified(key, work, now.0).map_err(StoreError::Pay)?;
            self.enter(transaction, &paid).await?;
        }
        Ok(())
    }

    async fn void(
        &mut self,
        transaction: &mut Tx<'_>,
        voids: &[Void],
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let voided = voids.iter().map(|void| Voided {
            key: RoundKey { attempt: void.attempt, round: void.task.round },
            task: (void.task.stage, void.task.part),
            contributor: void.contributor,
        });
        let voided: Vec<Voided> = voided.collect();
        let paid = self.pay.void(&voided, now.0).map_err(StoreError::Pay)?;
        self.enter(transaction, &paid).await
    }

    /// What is held of the open rounds is its earners' own.
    async fn mature(&mut self, transaction: &mut Tx<'_>, now: UnixMs) -> Result<(), StoreError> {
        let paid = self.pay.mature(LAST, now.0);
        self.enter(transaction, &paid).await
    }

    /// Pays the parts of a nano-USD, and gives back what is left of the escrow.
    async fn close(&mut self, transaction: &mut Tx<'_>, now: UnixMs) -> Result<(), StoreError> {
        let paid = self.pay.close(now.0).map_err(StoreError::Pay)?;
        self.enter(transaction, &paid).await?;
        self.release(transaction, now).await
    }

    /// Gives back what is left of the escrow and is held for nobody.
    pub(super) async fn release(
        &mut self,
        transaction: &mut Tx<'_>,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        // What is left is left of what was entered.
        self.flush(transaction).await?;
        let escrow = Account::Escrow(self.pay.job);
        let sql = "SELECT posted - held_out AS free FROM accounts WHERE book = ?1 AND name = ?2";
        let row = sqlx::query(sql)
            .bind(self.book.as_str())
            .bind(escrow.to_string())
            .fetch_optional(&mut **transaction)
            .await
            .map_err(failed("read an escrow"))?;
        let left: i64 = row.map_or(Ok(0), |row| column(&row, "accounts", "free"))?;
        if left <= 0 {
            return Ok(());
        }
        let (amount, reason) = (NanoUsd(left), Reason::Release);
        let transfer = Transfer { debit: escrow, credit: requester(self.owner), amount, reason };
        let id = EntryId::of("release", &[&self.pay.job.0.to_le_bytes()]);
        let entries = [Entry { id, at: now.0, action: Action::Post(transfer) }];
        books::enter(transaction, self.book, &entries).await.map(drop).map_err(unexpected)
    }

    pub(super) async fn enter(
        &mut self,
        transaction: &mut Tx<'_>,
        paid: &Paid,
    ) -> Result<(), StoreError> {
        self.changed.extend(&paid.lines);
        self.entries.extend(&paid.entries);
        if self.entries.len() >= ENTRIES_AT_ONCE { self.flush(transaction).await } else { Ok(()) }
    }

    /// Enters what was gathered: many entries at once take much less than one by one.
    pub(super) async fn flush(&mut self, transaction: &mut Tx<'_>) -> Result<(), StoreError> {
        let entries = std::mem::take(&mut self.entries);
        if entries.is_empty() {
            return Ok(());
        }
        books::enter(transaction, self.book, &entries).await.map(drop).map_err(unexpected)
    }
}
