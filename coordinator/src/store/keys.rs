//! API keys, by their hash.

use super::{Book, Store, StoreError, column, failed, pay};
use crate::keys::{ApiKey, KeyMode};
use crate::time::UnixMs;

/// A stored key's number: who owns data sets, jobs and sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub i64);

impl Store {
    /// Stores a new key's hash. The owner of a test key is given play money.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn add_key(&self, key: &ApiKey) -> Result<KeyId, StoreError> {
        let book = match key.mode() {
            KeyMode::Test => Book::Test,
            KeyMode::Live => Book::Live,
        };
        let mut transaction = self.begin().await?;
        let done = sqlx::query(
            "INSERT INTO api_keys (hash, hint, created_ms, book) VALUES (?1, ?2, ?3, ?4)",
        )
        .bind(&key.hash()[..])
        .bind(key.hint())
        .bind(UnixMs::now().0)
        .bind(book.as_str())
        .execute(&mut *transaction)
        .await
        .map_err(failed("add a key"))?;
        let owner = KeyId(done.last_insert_rowid());
        pay::begin_requester(&mut transaction, owner, book).await?;
        transaction.commit().await.map_err(failed("commit a key"))?;
        Ok(owner)
    }

    /// The key's number, unless it is unknown or revoked.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_key(&self, key: &ApiKey) -> Result<Option<KeyId>, StoreError> {
        let row = sqlx::query("SELECT id FROM api_keys WHERE hash = ?1 AND revoked_ms IS NULL")
            .bind(&key.hash()[..])
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look up a key"))?;
        row.map(|row| Ok(KeyId(column(&row, "api_keys", "id")?))).transpose()
    }

    /// Revokes a key; whether there was one to revoke.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revoke_key(&self, key: &ApiKey) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE api_keys SET revoked_ms = ?2 WHERE hash = ?1 AND revoked_ms IS NULL",
        )
        .bind(&key.hash()[..])
        .bind(UnixMs::now().0)
        .execute(self.writer())
        .await
        .map_err(failed("revoke a key"))?;
        Ok(done.rows_affected() > 0)
    }
}
