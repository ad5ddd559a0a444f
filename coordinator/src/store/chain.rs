//! What a strict job's certificate is made of: the chain of its rounds, and
//! the states that are published.

use super::jobs::{JobRow, read};
use super::{
    DatasetId, Store, StoreError, column, count_to_sql, failed, hash_column, to_sql, u32_column,
    u64_column, unreadable,
};
use crate::certificate::Measured;
use crate::certificate::chain::{self, Link, RoundLine, Tasks, TasksDigest};
use raven_engine::Record;
use raven_protocol::{BlobId, JobId};
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};

/// Published states of one job, whatever room there is: each is a file, and
/// between two of them a handful of rounds is soon run again.
const SNAPSHOTS_MAX: u64 = 128;

/// A state whose blob is durable and which may be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub state: BlobId,
    /// Of its frame.
    pub bytes: u64,
    /// Bytes that the job's published states may take together.
    pub budget: u64,
}

/// A state that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    pub step: u32,
    pub state: BlobId,
    pub bytes: u64,
}

/// A job's chain, apart from its links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainRow {
    /// The state before the first round.
    pub origin: BlobId,
    /// Why there can be no certificate.
    pub refused: Option<String>,
}

/// What a record adds to its job's chain, and the first micro-batches of its tasks.
fn accepted(record: &Record) -> (Option<Tasks>, Vec<u32>) {
    let credits = record.credits.iter().filter(|credit| credit.task.round + 1 == record.step);
    let tasks = credits.clone().map(|credit| (credit.task.stage, credit.task.part, credit.digest));
    let tasks = Tasks::of(tasks);
    let is_one_stage = credits.clone().all(|credit| credit.task.stage == 0);
    let mut runs: Vec<u32> = match tasks.is_some() && is_one_stage {
        true => credits.map(|credit| credit.task.part).collect(),
        false => Vec::new(),
    };
    runs.sort_unstable();
    runs.dedup();
    (tasks, runs)
}

/// Adds a strict job's record to its chain. A round that is done again takes
/// the place of what was recorded of it and of all later ones.
pub(super) async fn extend(
    transaction: &mut Transaction<'_, Sqlite>,
    record: &Record,
    snapshot: Option<Snapshot>,
) -> Result<(), StoreError> {
    let Some(weights) = record.weights else { return Ok(()) };
    if record.train.is_none() {
        if record.step == 0 {
            begin(transaction, record.job, weights).await?;
            keep(transaction, record, snapshot).await?;
        }
        return Ok(());
    }
    // A job that began before there were chains has none.
    let Some((before, previous)) = end_of(transaction, record.job, record.step).await? else {
        return Ok(());
    };
    truncate(transaction, record.job, record.step).await?;
    let (tasks, runs) = accepted(record);
    let link = chain::link(previous, record.step, before, weights, tasks.as_ref());
    sqlx::query(
        "INSERT INTO links (job, step, state, tasks, tasks_digest, runs, link)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .bind(to_sql(record.job.0))
    .bind(i64::from(record.step))
    .bind(&weights.0[..])
    .bind(i64::from(tasks.map_or(0, |tasks| tasks.count)))
    .bind(tasks.map(|tasks| tasks.digest.0.to_vec()))
    .bind(runs.iter().flat_map(|run| run.to_le_bytes()).collect::<Vec<u8>>())
    .bind(&link.0[..])
    .execute(&mut **transaction)
    .await
    .map_err(failed("add a link"))?;
    keep(transaction, record, snapshot).await
}

async fn begin(
    transaction: &mut Transaction<'_, Sqlite>,
    job: JobId,
    origin: BlobId,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO chains (job, origin) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
        .bind(to_sql(job.0))
        .bind(&origin.0[..])
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("begin a chain"))
}

/// State and link that the round of that number follows.
async fn end_of(
    transaction: &mut Transaction<'_, Sqlite>,
    job: JobId,
    step: u32,
) -> Result<Option<(BlobId, Link)>, StoreError> {
    let sql = match step {
        1 => "SELECT origin AS state, origin AS link FROM chains WHERE job = ?1",
        _ => "SELECT state, link FROM links WHERE job = ?1 AND step = ?2 - 1",
    };
    let row = sqlx::query(sql)
        .bind(to_sql(job.0))
        .bind(i64::from(step))
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("read the end of a chain"))?;
    let Some(row) = row else { return Ok(None) };
    let state = BlobId(hash_column(&row, "links", "state")?);
    let link = match step {
        1 => chain::origin(job, state),
        _ => Link(hash_column(&row, "links", "link")?),
    };
    Ok(Some((state, link)))
}

/// Forgets links and published states from the round of that number on.
/// [`Store::truncate_rounds`] within a transaction.
pub(super) async fn forget_rounds(
    transaction: &mut Transaction<'_, Sqlite>,
    job: JobId,
    from: u32,
) -> Result<(), StoreError> {
    let from = from.max(1);
    truncate(transaction, job, from).await?;
    for sql in [
        "DELETE FROM rounds WHERE job = ?1 AND step >= ?2",
        "DELETE FROM evaluations WHERE job = ?1 AND step >= ?2",
        "DELETE FROM checkpoints WHERE job = ?1 AND step >= ?2",
        "UPDATE jobs SET step = MIN(step, ?2 - 1),
             epochs_done = (SELECT COUNT(*) FROM evaluations WHERE job = ?1) WHERE id = ?1",
    ] {
        sqlx::query(sql)
            .bind(to_sql(job.0))
            .bind(i64::from(from))
            .execute(&mut **transaction)
            .await
            .map_err(failed("roll rounds back"))?;
    }
    Ok(())
}

async fn truncate(
    transaction: &mut Transaction<'_, Sqlite>,
    job: JobId,
    from: u32,
) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM links WHERE job = ?1 AND step >= ?2",
        "DELETE FROM snapshots WHERE job = ?1 AND step >= ?2 AND step > 0",
    ] {
        sqlx::query(sql)
            .bind(to_sql(job.0))
            .bind(i64::from(from))
            .execute(&mut **transaction)
            .await
            .map_err(failed("cut a chain"))?;
    }
    Ok(())
}

/// Publishes a state. Where the budget is full every other one is let go of,
/// until there is room or this one is among those. The first always stays.
async fn keep(
    transaction: &mut Transaction<'_, Sqlite>,
    record: &Record,
    snapshot: Option<Snapshot>,
) -> Result<(), StoreError> {
    let (Some(snapshot), job) = (snapshot, to_sql(record.job.0)) else { return Ok(()) };
    let sql =
        "SELECT stride, (SELECT COALESCE(SUM(bytes), 0) FROM snapshots WHERE job = ?1) AS bytes,
                   (SELECT COUNT(*) FROM snapshots WHERE job = ?1) AS count
               FROM chains WHERE job = ?1";
    loop {
        let row = sqlx::query(sql).bind(job).fetch_optional(&mut **transaction).await;
        let Some(row) = row.map_err(failed("measure published states"))? else { return Ok(()) };
        let stride = u32_column(&row, "chains", "stride")?.max(1);
        let (bytes, count) =
            (u64_column(&row, "snapshots", "bytes")?, u64_column(&row, "snapshots", "count")?);
        if !record.step.is_multiple_of(stride) {
            return Ok(());
        }
        let fits = bytes.saturating_add(snapshot.bytes) <= snapshot.budget && count < SNAPSHOTS_MAX;
        if fits || record.step == 0 {
            break;
        }
        thin_out(transaction, record.job, stride.saturating_mul(2)).await?;
    }
    sqlx::query(
        "INSERT INTO snapshots (job, step, state, bytes) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET state = excluded.state, bytes = excluded.bytes",
    )
    .bind(job)
    .bind(i64::from(record.step))
    .bind(&snapshot.state.0[..])
    .bind(count_to_sql(snapshot.bytes))
    .execute(&mut **transaction)
    .await
    .map(drop)
    .map_err(failed("publish a state"))
}

async fn thin_out(
    transaction: &mut Transaction<'_, Sqlite>,
    job: JobId,
    stride: u32,
) -> Result<(), StoreError> {
    for sql in [
        "UPDATE chains SET stride = ?2 WHERE job = ?1",
        "DELETE FROM snapshots WHERE job = ?1 AND step % ?2 <> 0",
    ] {
        sqlx::query(sql)
            .bind(to_sql(job.0))
            .bind(i64::from(stride))
            .execute(&mut **transaction)
            .await
            .map_err(failed("let go of published states"))?;
    }
    Ok(())
}

/// Without its rows no round of a job can be run again: the published states
/// of a deleted data set's jobs go with it.
pub(super) async fn unpublish(
    transaction: &mut Transaction<'_, Sqlite>,
    dataset: DatasetId,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM snapshots WHERE job IN (SELECT id FROM jobs WHERE dataset = ?1)")
        .bind(to_sql(dataset.0))
        .execute(&mut **transaction)
        .await
        .map(drop)
        .map_err(failed("let go of published states"))
}

fn line(row: &SqliteRow) -> Result<RoundLine, StoreError> {
    let digest: Option<&[u8]> = column(row, "links", "tasks_digest")?;
    let tasks = digest
        .map(|_| {
            let digest = TasksDigest(hash_column(row, "links", "tasks_digest")?);
            Ok::<_, StoreError>(Tasks { count: u32_column(row, "links", "tasks")?, digest })
        })
        .transpose()?;
    let runs: &[u8] = column(row, "links", "runs")?;
    let (runs, rest) = runs.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(unreadable("links", "runs", "not a list of u32"));
    }
    Ok(RoundLine {
        round: u32_column(row, "links", "step")?,
        state: BlobId(hash_column(row, "links", "state")?),
        tasks,
        runs: runs.iter().map(|run| u32::from_le_bytes(*run)).collect(),
        link: Link(hash_column(row, "links", "link")?),
    })
}

impl Store {
    /// Whether the state after that many rounds is to be published.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn snapshot_due(&self, job: JobId, step: u32) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT (SELECT stride FROM chains WHERE job = ?1) AS stride FROM jobs
             WHERE id = ?1 AND json_extract(spec, '$.numerics') = 'strict'",
        )
        .bind(to_sql(job.0))
        .fetch_optional(self.readers())
        .await
        .map_err(failed("look at a chain"))?;
        let Some(row) = row else { return Ok(false) };
        let stride: Option<i64> = column(&row, "chains", "stride")?;
        // There is a chain from the first state on.
        Ok(step == 0 || stride.is_some_and(|stride| i64::from(step) % stride.max(1) == 0))
    }

    /// Forgets what the rounds from that number on, counted from 1, have led to, as
    /// if they had never been: rounds, evaluations, checkpoints, links and published
    /// states. Credits and the first state stay. The blobs are swept later.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn truncate_rounds(&self, job: JobId, from: u32) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        forget_rounds(&mut transaction, job, from).await?;
        transaction.commit().await.map_err(failed("commit a rollback"))
    }

    /// A job's chain, where it has one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn chain(&self, job: JobId) -> Result<Option<ChainRow>, StoreError> {
        let row = sqlx::query("SELECT origin, refused FROM chains WHERE job = ?1")
            .bind(to_sql(job.0))
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look up a chain"))?;
        row.map(|row| {
            let origin = BlobId(hash_column(&row, "chains", "origin")?);
            Ok(ChainRow { origin, refused: column(&row, "chains", "refused")? })
        })
        .transpose()
    }

    /// Links behind the round of that number, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn links(
        &self,
        job: JobId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<RoundLine>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM links WHERE job = ?1 AND step > ?2 ORDER BY step LIMIT ?3")
                .bind(to_sql(job.0))
                .bind(i64::from(after))
                .bind(i64::from(limit))
                .fetch_all(self.readers())
                .await
                .map_err(failed("read links"))?;
        rows.iter().map(line).collect()
    }

    /// The published states of a job, by round.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn snapshots(&self, job: JobId) -> Result<Vec<SnapshotRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM snapshots WHERE job = ?1 ORDER BY step")
            .bind(to_sql(job.0))
            .fetch_all(self.readers())
            .await
            .map_err(failed("list published states"))?;
        rows.iter()
            .map(|row| {
                Ok(SnapshotRow {
                    step: u32_column(row, "snapshots", "step")?,
                    state: BlobId(hash_column(row, "snapshots", "state")?),
                    bytes: u64_column(row, "snapshots", "bytes")?,
                })
            })
            .collect()
    }

    /// The sums of the evaluation after that many rounds, where there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn measured(&self, job: JobId, step: u32) -> Result<Option<Measured>, StoreError> {
        let row = sqlx::query("SELECT * FROM evaluations WHERE job = ?1 AND step = ?2")
            .bind(to_sql(job.0))
            .bind(i64::from(step))
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look up an evaluation"))?;
        let Some(row) = row else { return Ok(None) };
        // They were f32 before they were stored.
        let sum = |name| column::<Option<f64>>(&row, "evaluations", name);
        let (loss_sum, count) = (sum("loss_sum")?, sum("count")?);
        let correct = sum("correct")?.map(|correct| correct as f32);
        Ok(loss_sum.zip(count).map(|(loss_sum, count)| Measured {
            loss_sum: loss_sum as f32,
            correct,
            count: count as f32,
        }))
    }

    /// The certificate of a job, where it was issued.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn certificate(&self, job: JobId) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT document FROM certificates WHERE job = ?1")
            .bind(to_sql(job.0))
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look up a certificate"))?;
        row.map(|row| column(&row, "certificates", "document")).transpose()
    }

    /// Keeps a job's certificate. The first one stays.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_certificate(&self, job: JobId, document: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO certificates (job, document) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )
        .bind(to_sql(job.0))
        .bind(document)
        .execute(self.writer())
        .await
        .map(drop)
        .map_err(failed("keep a certificate"))
    }

    /// Notes that a job can have no certificate, so that it is not tried again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn refuse_certificate(&self, job: JobId, reason: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE chains SET refused = ?2 WHERE job = ?1")
            .bind(to_sql(job.0))
            .bind(reason)
            .execute(self.writer())
            .await
            .map(drop)
            .map_err(failed("refuse a certificate"))
    }

    /// Ended jobs with a chain that wait for their certificate, at most `limit`;
    /// of one data set or of all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn uncertified_jobs(
        &self,
        dataset: Option<DatasetId>,
        limit: u32,
    ) -> Result<Vec<JobRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT j.* FROM jobs j JOIN chains c ON c.job = j.id
             WHERE c.refused IS NULL AND j.phase IN ('completed', 'failed', 'cancelled')
                 AND (?1 IS NULL OR j.dataset = ?1)
                 AND NOT EXISTS (SELECT 1 FROM certificates d WHERE d.job = j.id)
             ORDER BY j.ended_ms LIMIT ?2",
        )
        .bind(dataset.map(|dataset| to_sql(dataset.0)))
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list jobs without a certificate"))?;
        rows.iter().map(read).collect()
    }
}
