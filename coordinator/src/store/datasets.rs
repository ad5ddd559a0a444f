//! Data sets and the shards that hold their rows.

use super::children::{check_open, family};
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

/// What came of deleting a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// There is none of that id.
    Unknown,
    /// So many jobs that have not ended use it.
    InUse { jobs: u64 },
    /// These blobs belonged to it alone.
    Removed { blobs: Vec<BlobId> },
}

fn part_name(test: bool) -> &'static str {
    if test { "test" } else { "train" }
}

/// Bytes of all shards of an account's and its family's data sets; shared ones count each time.
pub(super) async fn held_bytes<'c>(
    connection: impl sqlx::Executor<'c, Database = sqlx::Sqlite>,
    owner: KeyId,
) -> Result<u64, StoreError> {
    let query = format!(
        "SELECT COALESCE(SUM(s.bytes), 0) AS bytes
         FROM shards s JOIN datasets d ON d.id = s.dataset WHERE d.owner IN {}",
        family(1)
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(query))
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
        check_open(&mut transaction, owner).await?;
        let held = held_bytes(&mut *transaction, owner).await?;
        let added = shards.iter().fold(0, |sum: u64, s| sum.saturating_add(s.shard.bytes));
        if held.saturating_add(added) > bytes_max {
            let what = "bytes of data sets";
            return Err(StoreError::Quota { what, limit: bytes_max, found: held });
        }
        sqlx::query(
            "INSERT INTO datasets (id, owner, name, facts, created_ms, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(to_sql(dataset.id.0))
        .bind(owner.0)
        .bind(&dataset.facts.name)
        .bind(facts)
        .bind(UnixMs::now().0)
        .bind(&dataset.facts.expires_at)
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

    /// Deletes a data set and its shards, unless a job that has not ended uses
    /// it. Its facts stay where ended jobs refer to them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_dataset(&self, id: DatasetId) -> Result<Removal, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM jobs j WHERE j.dataset = d.id) AS jobs,
                    (SELECT COUNT(*) FROM jobs j WHERE j.dataset = d.id
                     AND j.phase NOT IN ('completed', 'failed', 'cancelled')) AS open_jobs
             FROM datasets d WHERE d.id = ?1 AND d.deleted_ms IS NULL",
        )
        .bind(to_sql(id.0))
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed("look at a data set's jobs"))?;
        let Some(row) = row else { return Ok(Removal::Unknown) };
        let open_jobs = u64_column(&row, "jobs", "open_jobs")?;
        if open_jobs > 0 {
            return Ok(Removal::InUse { jobs: open_jobs });
        }
        let blobs = sqlx::query(
            "SELECT DISTINCT s.blob AS blob FROM shards s WHERE s.dataset = ?1
             AND NOT EXISTS (SELECT 1 FROM shards o WHERE o.blob = s.blob AND o.dataset <> ?1)
             AND NOT EXISTS (SELECT 1 FROM checkpoints c WHERE c.weights = s.blob)
             AND NOT EXISTS (SELECT 1 FROM snapshots p WHERE p.state = s.blob)",
        )
        .bind(to_sql(id.0))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed("list a data set's own blobs"))?;
        let blobs = blobs.iter().map(|row| Ok(BlobId(hash_column(row, "shards", "blob")?)));
        let blobs = blobs.collect::<Result<Vec<_>, StoreError>>()?;
        sqlx::query("DELETE FROM shards WHERE dataset = ?1")
            .bind(to_sql(id.0))
            .execute(&mut *transaction)
            .await
            .map_err(failed("delete shards"))?;
        super::chain::unpublish(&mut transaction, id).await?;
        let forget = if u64_column(&row, "jobs", "jobs")? == 0 {
            sqlx::query("DELETE FROM datasets WHERE id = ?1").bind(to_sql(id.0))
        } else {
            sqlx::query("UPDATE datasets SET deleted_ms = ?2 WHERE id = ?1")
                .bind(to_sql(id.0))
                .bind(UnixMs::now().0)
        };
        forget.execute(&mut *transaction).await.map_err(failed("delete a data set"))?;
        transaction.commit().await.map_err(failed("commit a deletion"))?;
        Ok(Removal::Removed { blobs })
    }

    /// The data sets of all keys whose end is at or before that time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expired_datasets(&self, now: UnixMs) -> Result<Vec<DatasetId>, StoreError> {
        let rows =
            sqlx::query("SELECT id FROM datasets WHERE expires_at <= ?1 AND deleted_ms IS NULL")
                .bind(now.rfc3339())
                .fetch_all(self.readers())
                .await
                .map_err(failed("list data sets that ended"))?;
        rows.iter().map(|row| Ok(DatasetId(from_sql(column(row, "datasets", "id")?)))).collect()
    }

    /// What is known of a job's data set, which may be deleted where the job has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn dataset_facts(&self, id: DatasetId) -> Result<Option<DatasetFacts>, StoreError> {
        let row = sqlx::query("SELECT id, facts FROM datasets WHERE id = ?1")
            .bind(to_sql(id.0))
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look up a data set"))?;
        Ok(row.as_ref().map(read).transpose()?.map(|row| row.facts))
    }

    /// The owner's data set of that id, unless it is deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn dataset(
        &self,
        owner: KeyId,
        id: DatasetId,
    ) -> Result<Option<DatasetRow>, StoreError> {
        let row = sqlx::query(
            "SELECT id, facts FROM datasets WHERE id = ?1 AND owner = ?2 AND deleted_ms IS NULL",
        )
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
            "SELECT id, facts FROM datasets WHERE owner = ?1 AND deleted_ms IS NULL
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
