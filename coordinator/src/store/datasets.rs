//! Data sets and the shards that hold their rows.

use super::idempotency::{Remembered, remember};
use super::{
    KeyId, Store, StoreError, column, count_to_sql, failed, from_sql, hash_column, to_sql,
    u32_column, u64_column, unreadable,
};
use crate::dataset::DatasetFacts;
use crate::time::UnixMs;
use raven_protocol::{BlobId, ShardRef};
use sqlx::sqlite::SqliteRow;
use std::fmt;
use std::str::FromStr;

/// An uploaded data set: `ds_` and 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatasetId(pub u64);

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ds_{:016x}", self.0)
    }
}

impl FromStr for DatasetId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.strip_prefix("ds_").ok_or(())?;
        let id = DatasetId(u64::from_str_radix(digits, 16).map_err(|_| ())?);
        // One id has one spelling.
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}

/// A stored data set.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetRow {
    pub id: DatasetId,
    pub facts: DatasetFacts,
}

/// A shard with the part of the data set that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredShard {
    /// Whether its rows are held out.
    pub test: bool,
    /// `first_row` counts from the start of its part.
    pub shard: ShardRef,
}

fn read(row: &SqliteRow) -> Result<DatasetRow, StoreError> {
    let facts: &str = column(row, "datasets", "facts")?;
    Ok(DatasetRow {
        id: DatasetId(from_sql(column(row, "datasets", "id")?)),
        facts: serde_json::from_str(facts)
            .map_err(|error| unreadable("datasets", "facts", error))?,
    })
}

fn part_name(test: bool) -> &'static str {
    if test { "test" } else { "train" }
}

async fn held_bytes<'c>(
    connection: impl sqlx::Executor<'c, Database = sqlx::Sqlite>,
    owner: KeyId,
) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT COALESCE(SUM(s.bytes), 0) AS bytes
         FROM shards s JOIN datasets d ON d.id = s.dataset WHERE d.owner = ?1",
    )
    .bind(owner.0)
    .fetch_one(connection)
    .await
    .map_err(failed("measure data sets"))?;
    u64_column(&row, "shards", "bytes")
}

impl Store {
    /// Stores a data set whose shards are in the blob store already, where its
    /// owner then has no more than `bytes_max` bytes of shards, and the answer to its request.
    ///
    /// # Errors
    /// [`StoreError::Quota`], [`StoreError::Answered`], [`StoreError::Database`].
    pub async fn add_dataset(
        &self,
        owner: KeyId,
        dataset: &DatasetRow,
        shards: &[StoredShard],
        bytes_max: u64,
        answer: Option<&Remembered>,
    ) -> Result<(), StoreError> {
        let facts = serde_json::to_string(&dataset.facts)
            .map_err(|error| unreadable("datasets", "facts", error))?;
        // There is one writer: nobody adds a data set between the sum and the insert.
        let mut transaction = self.begin().await?;
        let held = held_bytes(&mut *transaction, owner).await?;
        let added = shards.iter().fold(0, |sum: u64, s| sum.saturating_add(s.shard.bytes));
        if held.saturating_add(added) > bytes_max {
            let what = "bytes of data sets";
            return Err(StoreError::Quota { what, limit: bytes_max, found: held });
        }
        sqlx::query(
            "INSERT INTO datasets (id, owner, name, facts, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(to_sql(dataset.id.0))
        .bind(owner.0)
        .bind(&dataset.facts.name)
        .bind(facts)
        .bind(UnixMs::now().0)
        .execute(&mut *transaction)
        .await
        .map_err(failed("add a data set"))?;
        for StoredShard { test, shard } in shards {
            sqlx::query(
                "INSERT INTO shards (dataset, part, first_row, rows, bytes, blob)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )
            .bind(to_sql(dataset.id.0))
            .bind(part_name(*test))
            .bind(i64::from(shard.first_row))
            .bind(i64::from(shard.rows))
            .bind(count_to_sql(shard.bytes))
            .bind(&shard.blob.0[..])
            .execute(&mut *transaction)
            .await
            .map_err(failed("add a shard"))?;
        }
        if let Some(answer) = answer {
            remember(&mut transaction, answer).await?;
        }
        transaction.commit().await.map_err(failed("commit a data set"))
    }

    /// Bytes of all shards of a key's data sets; shared ones count each time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn dataset_bytes(&self, owner: KeyId) -> Result<u64, StoreError> {
        held_bytes(self.readers(), owner).await
    }

    /// The owner's data set of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn dataset(
        &self,
        owner: KeyId,
        id: DatasetId,
    ) -> Result<Option<DatasetRow>, StoreError> {
        let row = sqlx::query("SELECT id, facts FROM datasets WHERE id = ?1 AND owner = ?2")
            .bind(to_sql(id.0))
            .bind(owner.0)
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look up a data set"))?;
        row.as_ref().map(read).transpose()
    }

    /// The owner's data sets, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn datasets(&self, owner: KeyId, limit: u32) -> Result<Vec<DatasetRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, facts FROM datasets WHERE owner = ?1
             ORDER BY created_ms DESC, id LIMIT ?2",
        )
        .bind(owner.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list data sets"))?;
        rows.iter().map(read).collect()
    }

    /// The shards of one part, by first row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn shards(&self, id: DatasetId, test: bool) -> Result<Vec<ShardRef>, StoreError> {
        let rows = sqlx::query(
            "SELECT first_row, rows, bytes, blob FROM shards WHERE dataset = ?1 AND part = ?2
             ORDER BY first_row",
        )
        .bind(to_sql(id.0))
        .bind(part_name(test))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list shards"))?;
        rows.iter()
            .map(|row| {
                Ok(ShardRef {
                    blob: BlobId(hash_column(row, "shards", "blob")?),
                    first_row: u32_column(row, "shards", "first_row")?,
                    rows: u32_column(row, "shards", "rows")?,
                    bytes: u64_column(row, "shards", "bytes")?,
                })
            })
            .collect()
    }
}
