//! Statements: what one account gave and took, newest first.

use super::{Book, row};
use crate::store::{Store, StoreError, column, deposits, failed};
use crate::token::PaidTokens;
use raven_engine::ledger::{Account, ChainHash, Entry, EntryId, HoldState};

/// Whether an account gave or took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Gave,
    Took,
}

/// One line of a statement: a transfer, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementLine {
    pub number: i64,
    pub entry: Entry,
    pub side: Side,
    /// The chain's hash after it.
    pub hash: ChainHash,
    /// Of a hold.
    pub state: Option<HoldState>,
    /// Of a deposit that was paid in tokens.
    pub paid: Option<PaidTokens>,
}

/// The entry that ended a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldEnd {
    pub number: i64,
    pub entry: Entry,
    /// The chain's hash before it, and after it.
    pub before: ChainHash,
    pub hash: ChainHash,
}

impl Store {
    /// A transfer that an account gave or took, and the chain's hash before it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn transfer(
        &self,
        book: Book,
        account: Account,
        number: i64,
    ) -> Result<Option<(StatementLine, ChainHash)>, StoreError> {
        let after = number.checked_add(1);
        let lines = self.statement(book, account, after, 1).await?;
        let Some(line) = lines.into_iter().find(|line| line.number == number) else {
            return Ok(None);
        };
        Ok(Some((line, self.hash_before(book, number).await?)))
    }

    async fn hash_before(&self, book: Book, number: i64) -> Result<ChainHash, StoreError> {
        let row = sqlx::query("SELECT hash FROM entries WHERE book = ?1 AND number = ?2")
            .bind(book.as_str())
            .bind(number - 1)
            .fetch_optional(self.readers())
            .await
            .map_err(failed("read the entry before"))?;
        row.map_or(Ok(ChainHash::START), |row| row::hash(&row))
    }

    /// The entry that ended a hold; `None` while it is open.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_end(&self, book: Book, hold: EntryId) -> Result<Option<HoldEnd>, StoreError> {
        let query = format!(
            "SELECT {entry} FROM entries e {joins} WHERE e.book = ?1 AND e.hold = ?2",
            entry = row::ENTRY,
            joins = row::JOINS
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(book.as_str())
            .bind(&hold.0[..])
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look for the end of a hold"))?;
        let Some(row) = row else { return Ok(None) };
        let number = column(&row, "entries", "number")?;
        let (entry, hash) = (row::entry(&row)?, row::hash(&row)?);
        let before = self.hash_before(book, number).await?;
        Ok(Some(HoldEnd { number, entry, before, hash }))
    }

    /// At most `limit` transfers of an account with numbers below `before`, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn statement(
        &self,
        book: Book,
        account: Account,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<StatementLine>, StoreError> {
        // Each side by its own index: a condition with OR would scan.
        let query = format!(
            "SELECT {entry}, h.state AS state, me.id = e.credit AS took, {tokens} FROM accounts me
             JOIN entries e ON e.number IN (
                 SELECT number FROM (SELECT number FROM entries
                     WHERE debit = me.id AND number < ?3 ORDER BY number DESC LIMIT ?4)
                 UNION SELECT number FROM (SELECT number FROM entries
                     WHERE credit = me.id AND number < ?3 ORDER BY number DESC LIMIT ?4))
                 AND e.book = ?1
             LEFT JOIN holds h ON h.book = e.book AND h.id = e.id
             {joins} {with_tokens}
             WHERE me.book = ?1 AND me.name = ?2 ORDER BY e.number DESC LIMIT ?4",
            entry = row::ENTRY,
            tokens = deposits::TOKENS,
            joins = row::JOINS,
            with_tokens = deposits::JOINS
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(book.as_str())
            .bind(account.to_string())
            .bind(before.unwrap_or(i64::MAX))
            .bind(i64::from(limit))
            .fetch_all(self.readers())
            .await
            .map_err(failed("read a statement"))?;
        rows.iter()
            .map(|row| {
                let took: bool = column(row, "entries", "took")?;
                let state: Option<&str> = column(row, "holds", "state")?;
                Ok(StatementLine {
                    number: column(row, "entries", "number")?,
                    entry: row::entry(row)?,
                    side: if took { Side::Took } else { Side::Gave },
                    hash: row::hash(row)?,
                    state: state.map(|_| row::hold_state(row)).transpose()?,
                    paid: deposits::read(row)?,
                })
            })
            .collect()
    }
}
