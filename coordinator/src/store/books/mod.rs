//! The books in the store: entries are checked by [`raven_engine::ledger`] and
//! appended in the transaction of what they pay for.

mod audit;
mod load;
mod row;
mod statement;

pub use audit::{AuditError, Audited};
pub use statement::{HoldEnd, Side, StatementLine};

use super::{Store, StoreError, column, failed};
use load::Loaded;
use raven_engine::ledger::{
    Account, Action, Added, Balance, Batch, Changes, Entry, Hold, Refusal, Transfer,
};
use sqlx::sqlite::Sqlite;
use sqlx::{QueryBuilder, Transaction};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// Rows of one statement: SQLite binds 32,766 values at most, and a row has eleven.
const ROWS_AT_ONCE: usize = 1_000;

/// Which money: play money never meets real money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Book {
    Test,
    Live,
}

impl Book {
    /// Both.
    pub const ALL: [Book; 2] = [Book::Test, Book::Live];

    /// The name in stores and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Book::Test => "test",
            Book::Live => "live",
        }
    }
}

impl fmt::Display for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Book {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let book = Book::ALL.into_iter().find(|book| book.as_str() == text);
        book.ok_or("must be test or live")
    }
}

/// Why entries are not in the books.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// The rules of the books refuse one of them.
    #[error("books: {0}")]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Appends entries, all or none; they are durable when this returns. Those that
    /// are there already, with the same content, change nothing.
    ///
    /// # Errors
    /// [`BooksError`]; the books are as before.
    pub async fn enter(&self, book: Book, entries: &[Entry]) -> Result<Vec<Added>, BooksError> {
        let mut transaction = self.begin().await?;
        let added = enter(&mut transaction, book, entries).await?;
        transaction.commit().await.map_err(failed("commit entries"))?;
        Ok(added)
    }

    /// What an account has; nothing where it is unknown.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn balance(&self, book: Book, account: Account) -> Result<Balance, StoreError> {
        let row = sqlx::query(
            "SELECT posted, held_out, held_in FROM accounts WHERE book = ?1 AND name = ?2",
        )
        .bind(book.as_str())
        .bind(account.to_string())
        .fetch_optional(self.readers())
        .await
        .map_err(failed("read a balance"))?;
        row.map_or(Ok(Balance::default()), |row| row::balance(&row))
    }
}

/// Appends entries within the caller's transaction.
pub(in crate::store) async fn enter(
    transaction: &mut Transaction<'_, Sqlite>,
    book: Book,
    entries: &[Entry],
) -> Result<Vec<Added>, BooksError> {
    let loaded = Loaded::for_entries(transaction, book, entries).await?;
    let mut batch = Batch::new(&loaded.books);
    let mut added = Vec::with_capacity(entries.len());
    for entry in entries {
        added.push(batch.add(*entry)?);
    }
    let changes = batch.finish();
    if !changes.entries.is_empty() {
        store(transaction, book, loaded.number, &changes).await?;
    }
    Ok(added)
}

async fn store(
    transaction: &mut Transaction<'_, Sqlite>,
    book: Book,
    last: i64,
    changes: &Changes,
) -> Result<(), StoreError> {
    let accounts = store_balances(transaction, book, changes).await?;
    store_entries(transaction, book, last, changes, &accounts).await?;
    store_holds(transaction, book, changes).await
}

/// Stores balances and answers the accounts' numbers.
async fn store_balances(
    transaction: &mut Transaction<'_, Sqlite>,
    book: Book,
    changes: &Changes,
) -> Result<HashMap<Account, i64>, StoreError> {
    // In one order, whatever the map's: new accounts are numbered by it.
    let mut balances: Vec<(Account, Balance)> =
        changes.balances.iter().map(|(account, balance)| (*account, *balance)).collect();
    balances.sort_unstable_by_key(|(account, _)| *account);
    let mut numbers = HashMap::with_capacity(balances.len());
    for some in balances.chunks(ROWS_AT_ONCE) {
        let mut query =
            QueryBuilder::new("INSERT INTO accounts (book, name, posted, held_out, held_in) ");
        query.push_values(some, |mut row, (account, balance)| {
            row.push_bind(book.as_str())
                .push_bind(account.to_string())
                .push_bind(balance.posted)
                .push_bind(balance.held_out)
                .push_bind(balance.held_in);
        });
        query.push(
            " ON CONFLICT (book, name) DO UPDATE SET posted = excluded.posted,
                 held_out = excluded.held_out, held_in = excluded.held_in
             RETURNING id, name",
        );
        let rows =
            query.build().fetch_all(&mut **transaction).await.map_err(failed("store balances"))?;
        for row in &rows {
            numbers.insert(row::account(row, "name")?, column(row, "accounts", "id")?);
        }
    }
    Ok(numbers)
}

async fn store_entries(
    transaction: &mut Transaction<'_, Sqlite>,
    book: Book,
    last: i64,
    changes: &Changes,
    accounts: &HashMap<Account, i64>,
) -> Result<(), StoreError> {
    let mut number = last;
    for some in changes.entries.chunks(ROWS_AT_ONCE) {
        let mut query = QueryBuilder::new(
            "INSERT INTO entries (book, number, id, at_ms, action, debit, credit, amount, reason,
                 expires_ms, hold, hash) ",
        );
        query.push_values(some, |mut row, (entry, hash)| {
            number += 1;
            let (transfer, expires, hold) = parts(&entry.action);
            let account = |account: &Account| accounts.get(account).copied();
            row.push_bind(book.as_str())
                .push_bind(number)
                .push_bind(entry.id.0.to_vec())
                .push_bind(entry.at)
                .push_bind(entry.action.as_str())
                .push_bind(transfer.and_then(|transfer| account(&transfer.debit)))
                .push_bind(transfer.and_then(|transfer| account(&transfer.credit)))
                .push_bind(transfer.map(|transfer| transfer.amount.0))
                .push_bind(transfer.map(|transfer| transfer.reason.as_str()))
                .push_bind(expires)
                .push_bind(hold)
                .push_bind(hash.0.to_vec());
        });
        query.build().execute(&mut **transaction).await.map_err(failed("append entries"))?;
    }
    Ok(())
}

/// An action's transfer, when it expires, and the hold that it ends.
fn parts(action: &Action) -> (Option<&Transfer>, Option<i64>, Option<Vec<u8>>) {
    match action {
        Action::Post(transfer) => (Some(transfer), None, None),
        Action::Hold { transfer, expires } => (Some(transfer), *expires, None),
        Action::PostHold { hold } | Action::VoidHold { hold } | Action::ExpireHold { hold } => {
            (None, None, Some(hold.0.to_vec()))
        }
    }
}

async fn store_holds(
    transaction: &mut Transaction<'_, Sqlite>,
    book: Book,
    changes: &Changes,
) -> Result<(), StoreError> {
    let holds: Vec<(&[u8; 32], &Hold)> =
        changes.holds.iter().map(|(id, hold)| (&id.0, hold)).collect();
    for some in holds.chunks(ROWS_AT_ONCE) {
        let mut query = QueryBuilder::new("INSERT INTO holds (book, id, state) ");
        query.push_values(some, |mut row, (id, hold)| {
            row.push_bind(book.as_str()).push_bind(id.to_vec()).push_bind(hold.state.as_str());
        });
        query.push(" ON CONFLICT (book, id) DO UPDATE SET state = excluded.state");
        query.build().execute(&mut **transaction).await.map_err(failed("store holds"))?;
    }
    Ok(())
}
