//! A look at a store's file that changes nothing in it.

use super::{MIGRATIONS, REFERENCED, StoreError, failed, hash_column};
use raven_protocol::{BlobId, KernelId};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use std::path::Path;
use std::time::Duration;

/// What was found.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Migrations done, and those that this program knows.
    pub schema: (i64, usize),
    /// The first sentences of SQLite's own check; `ok` where nothing is wrong.
    pub check: String,
    /// When the newest event was stored, in milliseconds since 1970.
    pub newest_ms: Option<i64>,
    /// Kernels of jobs that have not ended.
    pub kernels: Vec<KernelId>,
    /// Blobs that something refers to, in no order that means anything.
    pub blobs: Vec<BlobId>,
}

async fn open(path: &Path) -> Result<SqlitePool, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(Duration::from_secs(5));
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
    pool.map_err(failed("open the file for a look"))
}

/// Looks at the file.
///
/// # Errors
/// [`StoreError`] where it cannot be read at all.
pub async fn inspect(path: &Path) -> Result<Inspection, StoreError> {
    let pool = open(path).await?;
    let version = sqlx::query("PRAGMA user_version").fetch_one(&pool).await;
    let found: i64 =
        version.and_then(|row| row.try_get(0)).map_err(failed("read the schema's version"))?;
    let check = sqlx::query("PRAGMA quick_check(3)").fetch_all(&pool).await;
    let check = check.map_err(failed("check the file"))?;
    let check: Vec<String> = check.iter().filter_map(|row| row.try_get(0).ok()).collect();
    let newest = sqlx::query("SELECT MAX(at_ms) FROM events").fetch_one(&pool).await;
    let newest_ms = newest.and_then(|row| row.try_get(0)).map_err(failed("read the events"))?;
    let kernels = sqlx::query(
        "SELECT DISTINCT kernel FROM jobs WHERE phase NOT IN ('completed', 'failed', 'cancelled')",
    );
    let kernels = kernels.fetch_all(&pool).await.map_err(failed("read the jobs"))?;
    let blobs = sqlx::query(REFERENCED);
    let blobs = blobs.fetch_all(&pool).await.map_err(failed("list blobs"))?;
    pool.close().await;
    Ok(Inspection {
        schema: (found, MIGRATIONS.len()),
        check: check.join("; "),
        newest_ms,
        kernels: kernels
            .iter()
            .map(|row| Ok(KernelId(hash_column(row, "jobs", "kernel")?)))
            .collect::<Result<_, StoreError>>()?,
        blobs: blobs
            .iter()
            .map(|row| Ok(BlobId(hash_column(row, "shards", "blob")?)))
            .collect::<Result<_, StoreError>>()?,
    })
}
