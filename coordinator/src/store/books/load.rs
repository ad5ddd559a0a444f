//! What a batch of entries has to know of the books.

use super::{Book, ROWS_AT_ONCE, row};
use crate::store::{StoreError, column, failed};
use raven_engine::ledger::{Account, Action, Entry, EntryId, Hold, HoldState, MemoryBooks};
use sqlx::sqlite::Sqlite;
use sqlx::{QueryBuilder, Transaction};
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
        let names: Vec<Account> = names.into_iter().collect();
        for some in names.chunks(ROWS_AT_ONCE) {
            let mut query = QueryBuilder::new(
                "SELECT name, posted, held_out, held_in FROM accounts WHERE book = ",
            );
            query.push_bind(book.as_str()).push(" AND name IN (");
            let mut list = query.separated(", ");
            for name in some {
                list.push_bind(name.to_string());
            }
            query.push(")");
            let rows = query
                .build()
                .fetch_all(&mut **transaction)
                .await
                .map_err(failed("read balances"))?;
            for row in &rows {
                self.books.balances.insert(row::account(row, "name")?, row::balance(row)?);
            }
        }
        Ok(())
    }
}

/// The entries of those ids that there are.
async fn entries_of(
    transaction: &mut Transaction<'_, Sqlite>,
    book: Book,
    ids: &[EntryId],
) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    for some in ids.chunks(ROWS_AT_ONCE) {
        let mut query = QueryBuilder::new("SELECT ");
        query.push(row::ENTRY).push(" FROM entries e ").push(row::JOINS);
        query.push(" WHERE e.book = ").push_bind(book.as_str()).push(" AND e.id IN (");
        let mut list = query.separated(", ");
        for id in some {
            list.push_bind(id.0.to_vec());
        }
        query.push(")");
        let rows =
            query.build().fetch_all(&mut **transaction).await.map_err(failed("read entries"))?;
        for row in &rows {
            entries.push(row::entry(row)?);
        }
    }
    Ok(entries)
}

async fn states_of(
    transaction: &mut Transaction<'_, Sqlite>,
    book: Book,
    ids: &[EntryId],
) -> Result<HashMap<EntryId, HoldState>, StoreError> {
    let mut states = HashMap::with_capacity(ids.len());
    for some in ids.chunks(ROWS_AT_ONCE) {
        let mut query = QueryBuilder::new("SELECT id, state FROM holds WHERE book = ");
        query.push_bind(book.as_str()).push(" AND id IN (");
        let mut list = query.separated(", ");
        for id in some {
            list.push_bind(id.0.to_vec());
        }
        query.push(")");
        let rows =
            query.build().fetch_all(&mut **transaction).await.map_err(failed("read holds"))?;
        for row in &rows {
            states.insert(row::id(row)?, row::hold_state(row)?);
        }
    }
    Ok(states)
}
