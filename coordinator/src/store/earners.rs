//! Contributors that have something to be moved, page by page.

use super::books::Book;
use super::wallets::ACCOUNTS_AT_ONCE;
use super::{Store, StoreError, failed, hash_column};
use sqlx::sqlite::SqliteRow;

/// Pages of what a query finds in one book, in the order of the contributors' keys. Each begins
/// behind the one before: whoever earns all the time keeps nobody else's money waiting.
pub(super) struct Earners {
    /// Its values are the book, the key behind which it looks, and how many at most; a column
    /// `contributor` has the key of each.
    query: &'static str,
    book: Book,
    /// `None` once the last page was read.
    after: Option<Vec<u8>>,
}

impl Earners {
    pub(super) fn new(query: &'static str, book: Book) -> Self {
        Earners { query, book, after: Some(Vec::new()) }
    }

    /// The next of them; `None` where there is none. A reader looks for it: there is nothing
    /// most of the time, and nobody waits for that.
    pub(super) async fn next(
        &mut self,
        store: &Store,
    ) -> Result<Option<Vec<SqliteRow>>, StoreError> {
        let Some(after) = self.after.take() else { return Ok(None) };
        let rows = sqlx::query(self.query)
            .bind(self.book.as_str())
            .bind(after)
            .bind(ACCOUNTS_AT_ONCE)
            .fetch_all(store.readers())
            .await
            .map_err(failed("list who has something to be moved"))?;
        let Some(last) = rows.last() else { return Ok(None) };
        if rows.len() == ACCOUNTS_AT_ONCE as usize {
            self.after = Some(hash_column(last, "accounts", "contributor")?.to_vec());
        }
        Ok(Some(rows))
    }
}
