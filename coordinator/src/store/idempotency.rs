//! Answers that are given again to requests that named themselves.

use super::{KeyId, Store, StoreError, column, failed, hash_column, u32_column, u64_column};
use crate::time::UnixMs;
use sqlx::Transaction;
use sqlx::sqlite::Sqlite;

/// How long an answer is kept. A client that has not heard for a day asks anew.
pub const KEPT_MS: i64 = 24 * 3600 * 1000;
/// Answers that are kept of one key: several a minute, all day.
const ANSWERS_MAX: u64 = 10_000;

/// What a request that named itself was, and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub owner: KeyId,
    /// BLAKE3 of the key as it was sent.
    pub key_hash: [u8; 32],
    /// Method and path.
    pub route: String,
    /// BLAKE3 of the body, or of what an upload holds.
    pub body: [u8; 32],
    pub status: u16,
    /// JSON text.
    pub answer: String,
}

/// Keeps an answer within the transaction of its effect. Whoever comes second
/// with the same key fails here, and its effect with it.
pub(super) async fn remember(
    transaction: &mut Transaction<'_, Sqlite>,
    remembered: &Remembered,
) -> Result<(), StoreError> {
    let now = UnixMs::now();
    sqlx::query("DELETE FROM idempotency WHERE created_ms <= ?1")
        .bind(now.0 - KEPT_MS)
        .execute(&mut **transaction)
        .await
        .map_err(failed("forget old answers"))?;
    let row = sqlx::query("SELECT COUNT(*) AS kept FROM idempotency WHERE owner = ?1")
        .bind(remembered.owner.0)
        .fetch_one(&mut **transaction)
        .await
        .map_err(failed("count answers"))?;
    let found = u64_column(&row, "idempotency", "kept")?;
    if found >= ANSWERS_MAX {
        let (what, limit) = ("idempotency keys of the last 24 hours", ANSWERS_MAX);
        return Err(StoreError::Quota { what, limit, found });
    }
    let added = sqlx::query(
        "INSERT INTO idempotency (owner, key_hash, route, body, status, answer, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    )
    .bind(remembered.owner.0)
    .bind(&remembered.key_hash[..])
    .bind(&remembered.route)
    .bind(&remembered.body[..])
    .bind(i64::from(remembered.status))
    .bind(&remembered.answer)
    .bind(now.0)
    .execute(&mut **transaction)
    .await
    .map_err(failed("keep an answer"))?;
    if added.rows_affected() == 0 { Err(StoreError::Answered) } else { Ok(()) }
}

impl Store {
    /// What was answered to the request of that name in the last 24 hours.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recall(
        &self,
        owner: KeyId,
        key_hash: [u8; 32],
    ) -> Result<Option<Remembered>, StoreError> {
        // Read where it was written, so that it is seen as soon as it is.
        let row = sqlx::query(
            "SELECT * FROM idempotency WHERE owner = ?1 AND key_hash = ?2 AND created_ms > ?3",
        )
        .bind(owner.0)
        .bind(&key_hash[..])
        .bind(UnixMs::now().0 - KEPT_MS)
        .fetch_optional(self.writer())
        .await
        .map_err(failed("look for an answer"))?;
        let table = "idempotency";
        let read = |row| {
            let status = u32_column(&row, table, "status")?;
            Ok(Remembered {
                owner,
                key_hash,
                route: column(&row, table, "route")?,
                body: hash_column(&row, table, "body")?,
                status: u16::try_from(status)
                    .map_err(|error| super::unreadable(table, "status", error))?,
                answer: column(&row, table, "answer")?,
            })
        };
        row.map(read).transpose()
    }

    /// Keeps an answer whose effect is stored elsewhere, or nowhere.
    ///
    /// # Errors
    /// [`StoreError::Answered`], [`StoreError::Quota`], [`StoreError`].
    pub async fn remember(&self, remembered: &Remembered) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        remember(&mut transaction, remembered).await?;
        transaction.commit().await.map_err(failed("commit an answer"))
    }
}
