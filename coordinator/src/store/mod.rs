//! The embedded store: one SQLite file, one transaction for each promise.
//!
//! All writes go through one connection, so that none waits for a lock in the
//! middle of a transaction; reads have connections of their own (WAL). Every
//! commit is synced to disk before it returns.

mod abandon;
mod account_links;
mod allocations;
mod books;
mod card_views;
mod chain;
mod children;
mod contributors;
mod credits;
mod datasets;
mod deposits;
mod desk;
mod earlier;
mod earners;
mod events;
mod executions;
mod funnel;
mod gifts;
mod gone;
mod group;
mod idempotency;
mod inspect;
mod jobs;
mod keys;
mod mature;
mod outcomes;
mod owners;
mod partners;
mod passkeys;
mod pay;
#[cfg(test)]
mod plans;
mod proofs;
mod records;
mod repeated;
mod resume;
mod sessions;
mod setbacks;
mod sign_ups;
mod sites;
mod spend;
mod stats;
mod token_rates;
mod top_up;
mod trust;
mod uploads;
mod voided;
mod wallets;
mod withdrawals;

pub use account_links::{AccountLink, LinkError, NewLink};
pub use allocations::{AllocationFault, AuditedAllocations};
pub use books::{AuditError, Audited, Book, BooksError, HoldEnd, Side, StatementLine};
pub use card_views::{Consent, Signed, VIEWS_PER_SITE_MAX};
pub use chain::{ChainRow, Snapshot, SnapshotRow};
pub use children::{ChildError, ChildRow};
pub use contributors::{EarnedDay, OwnSession, Payout};
pub use datasets::{DatasetId, DatasetRow, Removal, StoredShard};
use desk::read_book;
pub use events::StoredEvent;
pub use funnel::{EarningsDay, SiteDay, VisitorWork, Work as SiteWork};
pub use gifts::{Gift, GiftError};
pub use group::Persisting;
pub use idempotency::Remembered;
pub use inspect::{Inspection, inspect};
pub use jobs::{CheckpointRow, JobRow, JobSummary, MeanMetrics, NewJob};
pub use keys::{Asker, KEYS_MAX, KeyId, KeyNumber, KeyRow, KnownKey, NewKey, Revocation, mode_of};
pub use owners::{NewAccount, USED_MS};
pub use partners::{EARNED, SiteCaps, Withheld, day_of};
pub use passkeys::{
    Entered, KnownPasskey, PASSKEYS_MAX, PasskeyError, PasskeyNumber, PasskeyRow, SESSION_MS,
    SESSIONS_MAX, SignIn, Signature,
};
pub use pay::requester;
pub use proofs::{OriginProof, ProofKind};
pub use records::Clock;
pub(crate) use records::state_reason;
pub use sign_ups::{LINK_MS, SignUp};
pub use sites::{OwnedSite, SiteChange, SiteChanged, SiteRow, parse_site, site_text};
pub use stats::{BackendWork, Curve, Totals};
pub use trust::{EvidenceRecord, EvidenceView, Executions};
pub use uploads::{UploadBounds, UploadId, UploadRow};
pub use wallets::{Claim, ClaimError, LINK_DAYS, LINKS_MAX, WalletLink};

use crate::health::{Health, Trouble};
use crate::time::UnixMs;
use raven_engine::JobPhase;
use raven_protocol::{BlobId, JobId};
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Connection as _, Executor as _, Row as _, Transaction};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Each migration once, in order; SQLite's `user_version` counts those done.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_start.sql"),
    include_str!("../../migrations/0002_jobs.sql"),
    include_str!("../../migrations/0003_session_receipts.sql"),
    include_str!("../../migrations/0004_datasets.sql"),
    include_str!("../../migrations/0005_operations.sql"),
    include_str!("../../migrations/0006_job_terms.sql"),
    include_str!("../../migrations/0007_backends.sql"),
    include_str!("../../migrations/0008_proof.sql"),
    include_str!("../../migrations/0009_certificates.sql"),
    include_str!("../../migrations/0010_outcomes.sql"),
    include_str!("../../migrations/0011_setbacks.sql"),
    include_str!("../../migrations/0012_books.sql"),
    include_str!("../../migrations/0013_pay.sql"),
    include_str!("../../migrations/0014_partners.sql"),
    include_str!("../../migrations/0015_contributors.sql"),
    include_str!("../../migrations/0016_accounts.sql"),
    include_str!("../../migrations/0017_choices.sql"),
    include_str!("../../migrations/0018_measures.sql"),
    include_str!("../../migrations/0019_account_links.sql"),
    include_str!("../../migrations/0020_passkeys.sql"),
    include_str!("../../migrations/0021_card_views.sql"),
    include_str!("../../migrations/0022_token_deposits.sql"),
    include_str!("../../migrations/0023_ticket_lines.sql"),
    include_str!("../../migrations/0024_numbered_deposits.sql"),
    include_str!("../../migrations/0025_confirmed_passkeys.sql"),
    include_str!("../../migrations/0026_gifts.sql"),
    include_str!("../../migrations/0027_views_of_sites.sql"),
];

/// Everything that refers to blobs.
const REFERENCED: &str = "SELECT blob FROM shards UNION SELECT weights FROM checkpoints
     UNION SELECT state FROM snapshots";

/// Memory for pages of the file, for each connection; below zero it is in KiB. The books'
/// ids are digests, so that each entry lands on pages of its own: with SQLite's own 2 MiB
/// most of them would be read and written anew for each record.
const CACHE_KIB: &str = "-65536";

/// Connections that read at the same time.
const READERS: u32 = 4;

/// Why the store refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed; the text is for the log.
    #[error("store: {action}: {error}")]
    Database { action: &'static str, error: sqlx::Error },
    /// A stored document cannot be read back.
    #[error("store: {table}.{column} is not readable: {reason}")]
    Unreadable { table: &'static str, column: &'static str, reason: String },
    /// The file was written by a newer version.
    #[error("store: the file has schema {found}, this program knows {known}")]
    NewerSchema { found: i64, known: usize },
    /// The key has as much of something as it may have; with what was to be stored
    /// it would have more than `limit`.
    #[error("store: a key has {found} {what}, the limit is {limit}")]
    Quota { what: &'static str, limit: u64, found: u64 },
    /// No job of the one phase comes to the other.
    #[error("store: job {job} is {from} and cannot become {to}")]
    Transition { job: raven_protocol::JobId, from: JobPhase, to: JobPhase },
    /// A sub-account that was closed is to have something more.
    #[error("store: the account is closed: it has no keys any more")]
    Closed,
    /// The key that asks was revoked, or its time has ended, since its request came.
    #[error("store: the API key was revoked, or its time is over")]
    KeyOver,
    /// A sub-account with jobs that have not ended is to be closed.
    #[error("store: {jobs} of the account's jobs have not ended")]
    OpenJobs { jobs: u64 },
    /// The clock is behind what was entered: it was set back, or is wrong.
    #[error("store: the last rate or deposit is from {}, which is yet to come", from.rfc3339())]
    RateToCome { from: UnixMs },
    /// A job names a data set that is deleted, or was never stored.
    #[error("store: data set {dataset} is not stored")]
    NoDataset { dataset: DatasetId },
    /// The rules of the books refuse an entry.
    #[error("store: books: {0}")]
    Books(raven_engine::ledger::Refusal),
    /// A job takes nothing more: it has ended.
    #[error("store: job {job} has ended: {phase}")]
    Ended { job: raven_protocol::JobId, phase: JobPhase },
    /// A job's pay cannot be computed.
    #[error("store: pay: {0}")]
    Pay(raven_engine::ledger::PayError),
    /// A request of the same name was answered in the meantime.
    #[error("store: the idempotency key was used already")]
    Answered,
    /// A ticket was used by another key before.
    #[error("store: the ticket is another key's")]
    TicketTaken,
    /// A session names what no card was given, or none for too long.
    #[error("store: the view is not known, or too old")]
    StaleView,
    /// A record names a job that was never stored.
    #[error("store: job {job} is not stored")]
    UnknownJob { job: raven_protocol::JobId },
}

impl StoreError {
    /// Whether the disk or the file is at fault, in a way that may pass.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            StoreError::Database { error, .. } => Trouble::of_sqlite(error),
            _ => None,
        }
    }
}

/// Turns a database error into a [`StoreError`] that says what was tried.
pub(crate) fn failed(action: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |error| StoreError::Database { action, error }
}

/// The store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    writer: SqlitePool,
    readers: SqlitePool,
    health: Health,
    folder: PathBuf,
    site_caps: Mutex<SiteCaps>,
    /// Views that are not stored yet.
    views: funnel::Views,
}

impl Store {
    /// Opens the file, making it where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::NewerSchema`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("cache_size", CACHE_KIB)
            .busy_timeout(Duration::from_secs(10));
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .after_release(|connection, _| Box::pin(is_clean(connection)))
            .connect_with(options.clone())
            .await
            .map_err(failed("open the file"))?;
        migrate(&writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await
            .map_err(failed("open the file for reading"))?;
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let health = Health::default();
        Ok(Store {
            inner: Arc::new(Inner {
                writer,
                readers,
                health,
                folder,
                site_caps: Mutex::default(),
                views: Default::default(),
            }),
        })
    }

    /// Forgets what only holds within one process: open sessions and running clocks.
    /// Called once, by the process that serves.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn begin_process(&self) -> Result<(), StoreError> {
        self.close_sessions(UnixMs::now()).await?;
        sqlx::query("UPDATE jobs SET last_record_ms = NULL, train_before_ms = train_ms")
            .execute(self.writer())
            .await
            .map_err(failed("reset clocks"))?;
        Ok(())
    }

    /// The random number of that name, made on first use.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn identity(&self, name: &str) -> Result<[u8; 32], StoreError> {
        let fresh = crate::random::bytes::<32>();
        sqlx::query("INSERT INTO identities (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(&fresh[..])
            .execute(self.writer())
            .await
            .map_err(failed("make an identity"))?;
        let row = sqlx::query("SELECT value FROM identities WHERE name = ?1")
            .bind(name)
            .fetch_one(self.writer())
            .await
            .map_err(failed("read an identity"))?;
        hash_column(&row, "identities", "value")
    }

    /// Whether a query gets an answer.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1")
            .execute(self.readers())
            .await
            .map(drop)
            .map_err(failed("answer a ping"))
    }

    /// What keeps records from being stored, if anything does.
    pub fn health(&self) -> &Health {
        &self.inner.health
    }

    /// Where the file lies.
    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// Jobs that have not ended and whose rows are in this shard.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_jobs_on(&self, shard: BlobId) -> Result<Vec<JobId>, StoreError> {
        let rows = sqlx::query(
            "SELECT DISTINCT j.id AS id FROM shards s JOIN jobs j ON j.dataset = s.dataset
             WHERE s.blob = ?1 AND j.phase NOT IN ('completed', 'failed', 'cancelled')",
        )
        .bind(&shard.0[..])
        .fetch_all(self.readers())
        .await
        .map_err(failed("look for a shard's jobs"))?;
        rows.iter().map(|row| Ok(JobId(from_sql(column(row, "jobs", "id")?)))).collect()
    }

    /// Every blob that something refers to: shards, checkpoints, published states.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn referenced_blobs(&self) -> Result<Vec<BlobId>, StoreError> {
        let rows = sqlx::query(REFERENCED)
            .fetch_all(self.readers())
            .await
            .map_err(failed("list blobs"))?;
        rows.iter().map(|row| Ok(BlobId(hash_column(row, "shards", "blob")?))).collect()
    }

    /// Waits for statements that run and closes the file.
    pub async fn close(&self) {
        if let Err(error) = self.store_views().await {
            tracing::warn!(%error, "the last views of pages are not counted");
        }
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }

    /// Begins a transaction that writes. It takes the file's lock at once: one that
    /// reads first could not go on where another process has written in between,
    /// such as `coordinator keys create`.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer().begin_with("BEGIN IMMEDIATE").await.map_err(failed("begin"))
    }

    fn writer(&self) -> &SqlitePool {
        &self.inner.writer
    }

    fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }
}

/// Whether a connection may be used again. Where the disk is full, SQLite ends a
/// transaction by itself; the driver's own roll-back then fails, and it goes on
/// to count a transaction that is none. What it would commit later would not be
/// durable, so such a connection is closed and another one opened.
async fn is_clean(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // Answered after a roll-back that is still to be done.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

async fn migrate(writer: &SqlitePool) -> Result<(), StoreError> {
    let row = sqlx::query("PRAGMA user_version")
        .fetch_one(writer)
        .await
        .map_err(failed("read the schema's version"))?;
    let found: i64 = row.try_get(0).map_err(failed("read the schema's version"))?;
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        return Err(StoreError::NewerSchema { found, known: MIGRATIONS.len() });
    }
    for (index, &sql) in MIGRATIONS.iter().enumerate().skip(done) {
        let mut transaction = writer.begin().await.map_err(failed("begin a migration"))?;
        transaction.execute(sqlx::raw_sql(sql)).await.map_err(failed("migrate"))?;
        let version = format!("PRAGMA user_version = {}", index + 1);
        transaction
            .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(version)))
            .await
            .map_err(failed("count a migration"))?;
        transaction.commit().await.map_err(failed("commit a migration"))?;
    }
    Ok(())
}

/// SQLite's integers are signed: an id is stored as the number with the same bits.
fn to_sql(id: u64) -> i64 {
    i64::from_le_bytes(id.to_le_bytes())
}

fn from_sql(id: i64) -> u64 {
    u64::from_le_bytes(id.to_le_bytes())
}

/// A count that is far below 2^63 whenever it is right.
fn count_to_sql(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unreadable(
    table: &'static str,
    column: &'static str,
    reason: impl std::fmt::Display,
) -> StoreError {
    StoreError::Unreadable { table, column, reason: reason.to_string() }
}

/// A column of a type that the driver decodes.
fn column<'r, T>(
    row: &'r SqliteRow,
    table: &'static str,
    name: &'static str,
) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(name).map_err(|error| unreadable(table, name, error))
}

fn hash_column(
    row: &SqliteRow,
    table: &'static str,
    name: &'static str,
) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = column(row, table, name)?;
    bytes.try_into().map_err(|_| unreadable(table, name, "not 32 bytes"))
}

fn u32_column(row: &SqliteRow, table: &'static str, name: &'static str) -> Result<u32, StoreError> {
    let value: i64 = column(row, table, name)?;
    u32::try_from(value).map_err(|error| unreadable(table, name, error))
}

fn u64_column(row: &SqliteRow, table: &'static str, name: &'static str) -> Result<u64, StoreError> {
    let value: i64 = column(row, table, name)?;
    u64::try_from(value).map_err(|error| unreadable(table, name, error))
}
