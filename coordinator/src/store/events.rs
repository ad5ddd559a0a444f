//! A job's events, with ids that outlive the process.

use super::{Store, StoreError, column, failed, to_sql};
use raven_protocol::JobId;
use sqlx::Transaction;
use sqlx::sqlite::Sqlite;

/// One event as a reader gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Rises over all jobs; never used twice.
    pub id: i64,
    /// `state`, `round`, `evaluation`, `rollback` or `setback`.
    pub kind: String,
    /// JSON text.
    pub data: String,
}

/// Adds an event within a transaction.
pub(super) async fn append(
    transaction: &mut Transaction<'_, Sqlite>,
    job: JobId,
    kind: &str,
    data: &serde_json::Value,
    at_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO events (job, kind, data, at_ms) VALUES (?1, ?2, ?3, ?4)")
        .bind(to_sql(job.0))
        .bind(kind)
        .bind(data.to_string())
        .bind(at_ms)
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("add an event"))
}

impl Store {
    /// Events of a job after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn events_after(
        &self,
        job: JobId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, kind, data FROM events WHERE job = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
        )
        .bind(to_sql(job.0))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("read events"))?;
        rows.iter()
            .map(|row| {
                Ok(StoredEvent {
                    id: column(row, "events", "id")?,
                    kind: column(row, "events", "kind")?,
                    data: column(row, "events", "data")?,
                })
            })
            .collect()
    }
}
