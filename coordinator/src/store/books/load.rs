//! What a batch of entries has to know of the books.

use super::{Book, row};
use crate::store::{StoreError, column, failed};
use raven_engine::ledger::{Account, Action, Entry, EntryId, Hold, HoldState, MemoryBooks};
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};
use std::collections::{BTreeSet, HashMap};

/// The part of the books that some entries concern.
#[derive(Debug, Default)]
pub struct Loaded {
    pub books: MemoryBooks,
    /// The number of the last entry; 0 where there is none.
    pub number: i64,
}

impl Loaded {
    /// Reads what `entries` concern. The transaction holds the file's lock, so
    /// that nothing of it changes until the end.
    pub async fn for_entries(
        transaction: &mut Transaction<'_, Sqlite>,
        book: Book,
        entries: &[Entry],
    ) -> Result<Self, StoreError> {
        let last = sqlx::query(
            "SELECT number, hash FROM entries WHERE book = ?1 ORDER BY number DESC LIMIT 1",
        )
        .bind(book.as_str())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("read the last entry"))?;
        let mut loaded = Loaded::default();
        if let Some(last) = last {
            loaded.number = column(&last, "entries", "number")?;
            loaded.books.head = row::hash(&last)?;
        }
        loaded.load_contents(transaction, book, entries).await?;
        loaded.load_holds(transaction, book, entries).await?;
        loaded.load_balances(transaction, book, entries).await?;
        Ok(loaded)
    }

    async fn load_contents(
        &mut self,
        transaction: &mut Transaction<'_, Sqlite>,
        book: Book,
        entries: &[Entry],
    ) -> Result<(), StoreError> {
        let ids: Vec<EntryId> = entries.iter().map(|entry| entry.id).collect();
        for entry in entries_of(transaction, book, &ids).await? {
            self.books.contents.insert(entry.id, entry.content());
        }
        Ok(())
    }

    async fn load_holds(
        &mut self,
        transaction: &mut Transaction<'_, Sqlite>,
        book: Book,
        entries: &[Entry],
    ) -> Result<(), StoreError> {
        let ended = entries.iter().filter_map(|entry| match entry.action {
            Action::PostHold { hold } | Action::VoidHold { hold } | Action::ExpireHold { hold } => {
                Some(hold)
            }
            Action::Post(_) | Action::Hold { .. } => None,
        });
        let ids: Vec<EntryId> = ended.collect::<BTreeSet<_>>().into_iter().collect();
        let states = states_of(transaction, book, &ids).await?;
        for entry in entries_of(transaction, book, &ids).await? {
            let (Action::Hold { transfer, expires }, Some(&state)) =
                (entry.action, states.get(&entry.id))
            else {
                continue;
            };
            self.books.holds.insert(entry.id, Hold { transfer, expires, state });
        }
        Ok(())
    }

    async fn load_balances(
        &mut self,
        transaction: &mut Transaction<'_, Sqlite>,
        book: Book,
        entries: &[Entry],
    ) -> Result<(), StoreError> {
        let transfers = entries.iter().filter_map(|entry| match entry.action {
            Action::Post(transfer) | Action::Hold { transfer, .. } => Some(transfer),
            _ => None,
        });
        let held = self.books.holds.values().map(|hold| hold.transfer);
        let names: BTreeSet<Account> =
            transfers.chain(held).flat_map(|transfer| [transfer.debit, transfer.credit]).collect();
        // As one value, so that the statement is the same however many there are.
        let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let rows = sqlx::query(
            "SELECT name, posted, held_out, held_in FROM json_each(?2) wanted
             CROSS JOIN accounts ON book = ?1 AND name = wanted.value",
        )
        .bind(book.as_str())
        .bind(format!("[{}]", names.join(",")))
        .fetch_all(&mut **transaction)
        .await
        .map_err(failed("read balances"))?;
        for row in &rows {
            self.books.balances.insert(row::account(row, "name")?, row::balance(row)?);
        }
        Ok(())
    }
}

/// A table `wanted` of the ids that stand one after the other in the second value,
/// so that the statement is the same however many there are.
const WANTED: &str = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n
         WHERE 32 * (i + 1) < length(?2)),
     wanted (id) AS (SELECT substr(?2, 32 * i + 1, 32) FROM n)";

/// The entries of those ids that there are.
async fn entries_of(
    transaction: &mut Transaction<'_, Sqlite>,
    book: Book,
    ids: &[EntryId],
) -> Result<Vec<Entry>, StoreError> {
    let query = format!(
        "{WANTED} SELECT {entry} FROM wanted CROSS JOIN entries e
             ON e.book = ?1 AND e.id = wanted.id {joins}",
        entry = row::ENTRY,
        joins = row::JOINS
    );
    let rows = fetch(transaction, book, ids, query).await?;
    rows.iter().map(row::entry).collect()
}

async fn states_of(
    transaction: &mut Transaction<'_, Sqlite>,
    book: Book,
    ids: &[EntryId],
) -> Result<HashMap<EntryId, HoldState>, StoreError> {
    let query = format!(
        "{WANTED} SELECT h.id, h.state FROM wanted CROSS JOIN holds h
             ON h.book = ?1 AND h.id = wanted.id"
    );
    let rows = fetch(transaction, book, ids, query).await?;
    rows.iter().map(|row| Ok((row::id(row)?, row::hold_state(row)?))).collect()
}

async fn fetch(
    transaction: &mut Transaction<'_, Sqlite>,
    book: Book,
    ids: &[EntryId],
    query: String,
) -> Result<Vec<SqliteRow>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(book.as_str())
        .bind(ids.iter().flat_map(|id| id.0).collect::<Vec<u8>>())
        .fetch_all(&mut **transaction)
        .await
        .map_err(failed("read entries and holds"))
}
