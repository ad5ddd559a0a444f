//! Files that arrive in pieces.

use super::children::family;
use super::datasets::held_bytes;
use super::idempotency::remember;
use super::{
    KeyId, Remembered, Store, StoreError, column, count_to_sql, failed, from_sql, to_sql,
    u64_column, unreadable,
};
use crate::time::UnixMs;
use sqlx::sqlite::SqliteRow;
use std::fmt;
use std::str::FromStr;

/// An upload: `up_` and 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(pub u64);

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up_{:016x}", self.0)
    }
}

impl FromStr for UploadId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.strip_prefix("up_").ok_or(())?;
        let id = UploadId(u64::from_str_radix(digits, 16).map_err(|_| ())?);
        // One id has one spelling.
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}

/// A stored upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadRow {
    pub id: UploadId,
    /// Bytes of the whole file.
    pub bytes: u64,
    /// What the whole file must hash to, where the client said so.
    pub sha256: Option<[u8; 32]>,
    /// Bytes that are on the disk.
    pub received: u64,
    /// Whether all bytes are here and their hash is right.
    pub complete: bool,
    pub expires: UnixMs,
}

/// What a key may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadBounds {
    /// Uploads that no data set was made of yet.
    pub count_max: u64,
    /// Bytes of data sets and of uploads as they were declared, received or not.
    pub bytes_max: u64,
}

const TABLE: &str = "uploads";

fn read(row: &SqliteRow) -> Result<UploadRow, StoreError> {
    let sha256: Option<&[u8]> = column(row, TABLE, "sha256")?;
    let hash = |bytes: &[u8]| bytes.try_into().map_err(|_| unreadable(TABLE, "sha256", "length"));
    Ok(UploadRow {
        id: UploadId(from_sql(column(row, TABLE, "id")?)),
        bytes: u64_column(row, TABLE, "bytes")?,
        sha256: sha256.map(hash).transpose()?,
        received: u64_column(row, TABLE, "received")?,
        complete: column(row, TABLE, "complete")?,
        expires: UnixMs(column(row, TABLE, "expires_ms")?),
    })
}

impl Store {
    /// Stores an upload of which nothing has been received, where its owner then
    /// keeps to `bounds`, and the answer to its request.
    ///
    /// # Errors
    /// [`StoreError::Quota`], [`StoreError::Answered`], [`StoreError::Database`].
    pub async fn add_upload(
        &self,
        owner: KeyId,
        upload: &UploadRow,
        bounds: UploadBounds,
        answer: Option<&Remembered>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let query = format!(
            "SELECT COUNT(*) AS count, COALESCE(SUM(bytes), 0) AS bytes
             FROM uploads WHERE owner IN {}",
            family(1)
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(owner.0)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed("measure uploads"))?;
        let found = u64_column(&row, TABLE, "count")?;
        if found >= bounds.count_max {
            return Err(StoreError::Quota { what: "uploads", limit: bounds.count_max, found });
        }
        let found = held_bytes(&mut *transaction, owner).await?;
        let found = found.saturating_add(u64_column(&row, TABLE, "bytes")?);
        if found.saturating_add(upload.bytes) > bounds.bytes_max {
            let (what, limit) = ("bytes of data sets and uploads", bounds.bytes_max);
            return Err(StoreError::Quota { what, limit, found });
        }
        sqlx::query(
            "INSERT INTO uploads (id, owner, bytes, sha256, created_ms, expires_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(to_sql(upload.id.0))
        .bind(owner.0)
        .bind(count_to_sql(upload.bytes))
        .bind(upload.sha256.as_ref().map(|hash| &hash[..]))
        .bind(UnixMs::now().0)
        .bind(upload.expires.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed("add an upload"))?;
        if let Some(answer) = answer {
            remember(&mut transaction, answer).await?;
        }
        transaction.commit().await.map_err(failed("commit an upload"))
    }

    /// The owner's upload of that id, unless it has expired.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn upload(
        &self,
        owner: KeyId,
        id: UploadId,
        now: UnixMs,
    ) -> Result<Option<UploadRow>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM uploads WHERE id = ?1 AND owner = ?2 AND expires_ms > ?3")
                .bind(to_sql(id.0))
                .bind(owner.0)
                .bind(now.0)
                // A piece that was just stored must be seen by who goes on from it.
                .fetch_optional(self.writer())
                .await
                .map_err(failed("look up an upload"))?;
        row.as_ref().map(read).transpose()
    }

    /// The owner's uploads, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn uploads(
        &self,
        owner: KeyId,
        now: UnixMs,
        limit: u32,
    ) -> Result<Vec<UploadRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM uploads WHERE owner = ?1 AND expires_ms > ?2
             ORDER BY created_ms DESC, id LIMIT ?3",
        )
        .bind(owner.0)
        .bind(now.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list uploads"))?;
        rows.iter().map(read).collect()
    }

    /// Notes that so many bytes are on the disk, and puts the end off.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn set_received(
        &self,
        id: UploadId,
        received: u64,
        complete: bool,
        expires: UnixMs,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE uploads SET received = ?2, complete = ?3, expires_ms = ?4 WHERE id = ?1",
        )
        .bind(to_sql(id.0))
        .bind(count_to_sql(received))
        .bind(complete)
        .bind(expires.0)
        .execute(self.writer())
        .await
        .map(drop)
        .map_err(failed("note what was received"))
    }

    /// Forgets an upload.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn remove_upload(&self, id: UploadId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM uploads WHERE id = ?1")
            .bind(to_sql(id.0))
            .execute(self.writer())
            .await
            .map(drop)
            .map_err(failed("remove an upload"))
    }

    /// The uploads of all keys whose end is at or before that time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expired_uploads(&self, now: UnixMs) -> Result<Vec<UploadId>, StoreError> {
        self.upload_ids("SELECT id FROM uploads WHERE expires_ms <= ?1", now).await
    }

    /// The uploads of all keys that have not expired.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn present_uploads(&self, now: UnixMs) -> Result<Vec<UploadId>, StoreError> {
        self.upload_ids("SELECT id FROM uploads WHERE expires_ms > ?1", now).await
    }

    async fn upload_ids(
        &self,
        query: &'static str,
        now: UnixMs,
    ) -> Result<Vec<UploadId>, StoreError> {
        let rows = sqlx::query(query)
            .bind(now.0)
            .fetch_all(self.readers())
            .await
            .map_err(failed("list uploads"))?;
        rows.iter().map(|row| Ok(UploadId(from_sql(column(row, TABLE, "id")?)))).collect()
    }
}
