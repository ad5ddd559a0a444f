//! Jobs as they are stored, and where they go on after a restart.

use super::children::{check_open, family};
use super::idempotency::{Remembered, remember};
use super::stats::BackendWork;
use super::{
    Asker, DatasetId, KeyId, Store, StoreError, abandon, column, desk, executions, failed,
    from_sql, hash_column, pay, to_sql, u32_column, u64_column, unreadable,
};
use crate::job::{JobFacts, JobSpec, held};
use crate::time::UnixMs;
use raven_engine::ledger::{Exact, PayError};
use raven_engine::money::{Charge, NanoUsd};
use raven_engine::{Cause, ContributorId, JobPhase};
use raven_protocol::{BlobId, JobId, KernelId};
use sqlx::sqlite::SqliteRow;

/// A job to be stored.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub id: JobId,
    pub owner: KeyId,
    pub dataset: DatasetId,
    /// The requester's document.
    pub spec: JobSpec,
    /// What lowering it came to.
    pub facts: JobFacts,
    /// The kernel that it is pinned to.
    pub kernel: KernelId,
    pub created: UnixMs,
}

impl NewJob {
    /// The job as it is stored.
    pub fn row(&self) -> JobRow {
        JobRow {
            id: self.id,
            owner: self.owner,
            dataset: self.dataset,
            spec: self.spec.clone(),
            facts: self.facts.clone(),
            kernel: self.kernel,
            phase: JobPhase::Queued,
            cause: None,
            reason: None,
            step: 0,
            epochs_done: 0,
            tasks: 0,
            flops: 0,
            void_tasks: 0,
            void_flops: 0,
            charge: Charge::default(),
            escrow: held(&self.spec, &self.facts).unwrap_or_default(),
            topped_up: NanoUsd(0),
            charged: Exact::default(),
            rollbacks: 0,
            setbacks: 0,
            train_ms: 0,
            model_sha256: None,
            created: self.created,
            started: None,
            ended: None,
        }
    }
}

/// A job with its progress.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRow {
    pub id: JobId,
    pub owner: KeyId,
    pub dataset: DatasetId,
    pub spec: JobSpec,
    pub facts: JobFacts,
    pub kernel: KernelId,
    pub phase: JobPhase,
    /// Why it has ended or is paused.
    pub cause: Option<Cause>,
    /// A sentence for its owner, where there is one.
    pub reason: Option<String>,
    /// Optimizer steps done.
    pub step: u32,
    /// Epochs whose evaluation is done.
    pub epochs_done: u32,
    /// Tasks that were ever credited and that it pays for, and their flops.
    pub tasks: u64,
    pub flops: u64,
    /// Those of them that turned out to be void.
    pub void_tasks: u64,
    pub void_flops: u64,
    /// What they cost.
    pub charge: Charge,
    /// What it was given for its work, with what was put in later.
    pub escrow: NanoUsd,
    /// What of that was put in later.
    pub topped_up: NanoUsd,
    /// What its owner is charged for that work, with the margin.
    pub charged: Exact,
    /// How often it went back to before a false result.
    pub rollbacks: u32,
    /// How often it went back because its loss diverged.
    pub setbacks: u32,
    /// Milliseconds spent on rounds.
    pub train_ms: u64,
    /// Digest of the model file, once it is ready.
    pub model_sha256: Option<String>,
    pub created: UnixMs,
    /// When work on its first round began.
    pub started: Option<UnixMs>,
    pub ended: Option<UnixMs>,
}

/// What belongs to a job beside its row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobSummary {
    /// Metrics of the last step.
    pub train: Option<MeanMetrics>,
    /// Epoch and metrics of the last evaluation.
    pub evaluation: Option<(u32, MeanMetrics)>,
    /// Epoch and metrics of the best one.
    pub best: Option<(u32, MeanMetrics)>,
    /// Contributors whose work was credited.
    pub contributors: u64,
    /// What was credited, by what executed it.
    pub work: Vec<BackendWork>,
    /// What of its escrow is its earners' and its shares': posted, or held until it matures.
    /// `None` where the job is of before there were books.
    pub paid: Option<NanoUsd>,
}

/// Means over samples; `None` where they are not finite numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanMetrics {
    pub loss: Option<f64>,
    /// `None` as well where the loss has no classes.
    pub accuracy: Option<f64>,
}

/// A state that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointRow {
    pub step: u32,
    pub epoch: u32,
    pub weights: BlobId,
    pub best: bool,
}

impl MeanMetrics {
    pub(super) fn of(loss_sum: Option<f64>, correct: Option<f64>, count: Option<f64>) -> Self {
        let mean = |sum: Option<f64>| {
            let mean = sum? / count?;
            mean.is_finite().then_some(mean)
        };
        MeanMetrics { loss: mean(loss_sum), accuracy: mean(correct) }
    }

    pub(super) fn read(row: &SqliteRow, table: &'static str) -> Result<Self, StoreError> {
        Ok(MeanMetrics::of(
            column(row, table, "loss_sum")?,
            column(row, table, "correct")?,
            column(row, table, "count")?,
        ))
    }
}

/// What a job's credited work has cost.
pub(super) fn charge_column(row: &SqliteRow) -> Result<Charge, StoreError> {
    let units: &str = column(row, "jobs", "charge")?;
    let units = units.parse().map_err(|error| unreadable("jobs", "charge", error))?;
    Ok(Charge::from_units(units))
}

pub(super) fn read(row: &SqliteRow) -> Result<JobRow, StoreError> {
    let document = |name| column::<&str>(row, "jobs", name);
    let phase: &str = column(row, "jobs", "phase")?;
    Ok(JobRow {
        id: JobId(from_sql(column(row, "jobs", "id")?)),
        owner: KeyId(column(row, "jobs", "owner")?),
        dataset: DatasetId(from_sql(column(row, "jobs", "dataset")?)),
        spec: serde_json::from_str(document("spec")?)
            .map_err(|error| unreadable("jobs", "spec", error))?,
        facts: serde_json::from_str(document("facts")?)
            .map_err(|error| unreadable("jobs", "facts", error))?,
        kernel: KernelId(hash_column(row, "jobs", "kernel")?),
        phase: phase.parse().map_err(|error| unreadable("jobs", "phase", error))?,
        cause: column::<Option<&str>>(row, "jobs", "cause")?
            .map(str::parse)
            .transpose()
            .map_err(|error| unreadable("jobs", "cause", error))?,
        reason: column(row, "jobs", "reason")?,
        step: u32_column(row, "jobs", "step")?,
        epochs_done: u32_column(row, "jobs", "epochs_done")?,
        tasks: u64_column(row, "jobs", "tasks")?,
        flops: u64_column(row, "jobs", "flops")?,
        void_tasks: u64_column(row, "jobs", "void_tasks")?,
        void_flops: u64_column(row, "jobs", "void_flops")?,
        charge: charge_column(row)?,
        escrow: NanoUsd(column(row, "jobs", "escrow")?),
        topped_up: NanoUsd(column(row, "jobs", "topped_up")?),
        charged: desk::exact(row, "jobs", "charged")?,
        rollbacks: u32_column(row, "jobs", "rollbacks")?,
        setbacks: u32_column(row, "jobs", "setbacks")?,
        train_ms: u64_column(row, "jobs", "train_ms")?,
        model_sha256: column(row, "jobs", "model_sha256")?,
        created: UnixMs(column(row, "jobs", "created_ms")?),
        started: column::<Option<i64>>(row, "jobs", "started_ms")?.map(UnixMs),
        ended: column::<Option<i64>>(row, "jobs", "ended_ms")?.map(UnixMs),
    })
}

/// Jobs of an account's family that have not ended.
async fn count_open_of_family<'c>(
    connection: impl sqlx::Executor<'c, Database = sqlx::Sqlite>,
    owner: KeyId,
) -> Result<u64, StoreError> {
    let query = format!(
        "SELECT COUNT(*) AS open FROM jobs WHERE owner IN {}
         AND phase NOT IN ('completed', 'failed', 'cancelled')",
        family(1)
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(owner.0)
        .fetch_one(connection)
        .await
        .map_err(failed("count open jobs"))?;
    u64_column(&row, "jobs", "open")
}

/// Jobs of one account that have not ended.
pub(super) async fn count_open<'c>(
    connection: impl sqlx::Executor<'c, Database = sqlx::Sqlite>,
    owner: KeyId,
) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS open FROM jobs
         WHERE owner = ?1 AND phase NOT IN ('completed', 'failed', 'cancelled')",
    )
    .bind(owner.0)
    .fetch_one(connection)
    .await
    .map_err(failed("count open jobs"))?;
    u64_column(&row, "jobs", "open")
}

impl Store {
    /// Stores an accepted job in phase `queued`, where its owner has fewer than
    /// `open_max` that have not ended, and the answer to its request.
    ///
    /// # Errors
    /// [`StoreError::Quota`], [`StoreError::NoDataset`], [`StoreError::Answered`],
    /// [`StoreError::Books`] where its owner cannot pay, [`StoreError`].
    pub async fn add_job(
        &self,
        job: &NewJob,
        open_max: u64,
        answer: Option<&Remembered>,
    ) -> Result<(), StoreError> {
        self.add_job_for(job.owner.into(), job, open_max, answer).await
    }

    /// The same for a key of its owner's, which must still hold.
    ///
    /// # Errors
    /// [`StoreError::KeyOver`], and those of [`Store::add_job`].
    pub async fn add_job_for(
        &self,
        by: Asker,
        job: &NewJob,
        open_max: u64,
        answer: Option<&Remembered>,
    ) -> Result<(), StoreError> {
        let text = |column, value: serde_json::Result<String>| {
            value.map_err(|error| unreadable("jobs", column, error))
        };
        let now = job.created;
        // There is one writer: nobody adds a job between the count and the insert,
        // and nobody deletes its data set.
        let mut transaction = self.begin().await?;
        by.check(&mut transaction, UnixMs::now()).await?;
        let dataset = sqlx::query("SELECT 1 FROM datasets WHERE id = ?1 AND deleted_ms IS NULL")
            .bind(to_sql(job.dataset.0))
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed("look for a job's data set"))?;
        if dataset.is_none() {
            return Err(StoreError::NoDataset { dataset: job.dataset });
        }
        check_open(&mut transaction, job.owner).await?;
        let open = count_open_of_family(&mut *transaction, job.owner).await?;
        if open >= open_max {
            return Err(StoreError::Quota { what: "open jobs", limit: open_max, found: open });
        }
        sqlx::query(
            "INSERT INTO jobs (id, owner, dataset, name, listed, spec, facts, kernel, phase, created_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )
        .bind(to_sql(job.id.0))
        .bind(job.owner.0)
        .bind(to_sql(job.dataset.0))
        .bind(&job.spec.name)
        .bind(job.spec.listed)
        .bind(text("spec", serde_json::to_string(&job.spec))?)
        .bind(text("facts", serde_json::to_string(&job.facts))?)
        .bind(&job.kernel.0[..])
        .bind(JobPhase::Queued.as_str())
        .bind(now.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed("add a job"))?;
        let price = held(&job.spec, &job.facts).ok_or(StoreError::Pay(PayError::Overflow))?;
        pay::hold_price(&mut transaction, job.owner, job.id, price, now).await?;
        let event = super::records::state_event(now, JobPhase::Queued, None, None);
        super::events::append(&mut transaction, job.id, "state", &event, now.0).await?;
        if let Some(answer) = answer {
            remember(&mut transaction, answer).await?;
        }
        transaction.commit().await.map_err(failed("commit a job"))
    }

    /// The owner's job of that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job(&self, owner: KeyId, id: JobId) -> Result<Option<JobRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ?1 AND owner = ?2")
            .bind(to_sql(id.0))
            .bind(owner.0)
            .fetch_optional(self.readers())
            .await
            .map_err(failed("look up a job"))?;
        row.as_ref().map(read).transpose()
    }

    /// The owner's jobs, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn jobs(&self, owner: KeyId, limit: u32) -> Result<Vec<JobRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM jobs WHERE owner = ?1 ORDER BY created_ms DESC, id LIMIT ?2",
        )
        .bind(owner.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list jobs"))?;
        rows.iter().map(read).collect()
    }

    /// Jobs that the public page may show, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn listed_jobs(&self, limit: u32) -> Result<Vec<JobRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM jobs WHERE listed <> 0 ORDER BY created_ms DESC, id LIMIT ?1",
        )
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list public jobs"))?;
        rows.iter().map(read).collect()
    }

    /// Jobs that have not ended, oldest first: the work of a restarted coordinator.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_jobs(&self) -> Result<Vec<JobRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM jobs WHERE phase NOT IN ('completed', 'failed', 'cancelled')
             ORDER BY created_ms, id",
        )
        .fetch_all(self.readers())
        .await
        .map_err(failed("list open jobs"))?;
        rows.iter().map(read).collect()
    }

    /// How many jobs of an owner and its family have not ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_job_count(&self, owner: KeyId) -> Result<u64, StoreError> {
        count_open_of_family(self.readers(), owner).await
    }

    /// Last step, last and best evaluation, contributors.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_summary(&self, id: JobId) -> Result<JobSummary, StoreError> {
        let one = |sql: &'static str| {
            let query = sqlx::query(sql).bind(to_sql(id.0)).fetch_optional(self.readers());
            async { query.await.map_err(failed("summarize a job")) }
        };
        let train = one("SELECT * FROM rounds WHERE job = ?1 ORDER BY step DESC LIMIT 1").await?;
        let last =
            one("SELECT * FROM evaluations WHERE job = ?1 ORDER BY step DESC LIMIT 1").await?;
        let best = one("SELECT e.* FROM evaluations e JOIN checkpoints c
             ON c.job = e.job AND c.step = e.step AND c.best <> 0 WHERE e.job = ?1")
        .await?;
        let people = one("SELECT COUNT(*) AS people FROM job_contributors WHERE job = ?1").await?;
        let evaluated = |row: Option<SqliteRow>| {
            row.map(|row| {
                let epoch = u32_column(&row, "evaluations", "epoch")?;
                Ok((epoch, MeanMetrics::read(&row, "evaluations")?))
            })
            .transpose()
        };
        let paid = one("SELECT CASE WHEN book IS NOT NULL THEN
                 (SELECT COALESCE(SUM(paid), 0) FROM pay_lines WHERE job = ?1 AND payer = 'job')
             END AS paid FROM jobs WHERE id = ?1")
        .await?;
        Ok(JobSummary {
            paid: paid
                .map(|row| column::<Option<i64>>(&row, "pay_lines", "paid"))
                .transpose()?
                .flatten()
                .map(NanoUsd),
            work: self.job_work(id).await?,
            train: train.map(|row| MeanMetrics::read(&row, "rounds")).transpose()?,
            evaluation: evaluated(last)?,
            best: evaluated(best)?,
            contributors: people
                .map(|row| u64_column(&row, "job_contributors", "people"))
                .transpose()?
                .unwrap_or(0),
        })
    }

    /// Whose a job is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_owner(&self, id: JobId) -> Result<KeyId, StoreError> {
        let row = sqlx::query("SELECT owner FROM jobs WHERE id = ?1")
            .bind(to_sql(id.0))
            .fetch_optional(self.readers())
            .await
            .map_err(failed("read a job's owner"))?
            .ok_or(StoreError::UnknownJob { job: id })?;
        Ok(KeyId(column(&row, "jobs", "owner")?))
    }

    /// Who was credited for a job, with their number of tasks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_contributors(
        &self,
        id: JobId,
    ) -> Result<Vec<(ContributorId, u64)>, StoreError> {
        let table = "job_contributors";
        let rows = sqlx::query("SELECT contributor, tasks FROM job_contributors WHERE job = ?1")
            .bind(to_sql(id.0))
            .fetch_all(self.readers())
            .await
            .map_err(failed("list a job's contributors"))?;
        rows.iter()
            .map(|row| {
                let contributor = ContributorId(hash_column(row, table, "contributor")?);
                Ok((contributor, u64_column(row, table, "tasks")?))
            })
            .collect()
    }

    /// The states that are kept, by step.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn checkpoints(&self, id: JobId) -> Result<Vec<CheckpointRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM checkpoints WHERE job = ?1 ORDER BY step")
            .bind(to_sql(id.0))
            .fetch_all(self.readers())
            .await
            .map_err(failed("list checkpoints"))?;
        rows.iter()
            .map(|row| {
                Ok(CheckpointRow {
                    step: u32_column(row, "checkpoints", "step")?,
                    epoch: u32_column(row, "checkpoints", "epoch")?,
                    weights: BlobId(hash_column(row, "checkpoints", "weights")?),
                    best: column::<i64>(row, "checkpoints", "best")? != 0,
                })
            })
            .collect()
    }

    /// The blobs of the states that are kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn checkpoint_blobs(&self, id: JobId) -> Result<Vec<BlobId>, StoreError> {
        Ok(self.checkpoints(id).await?.into_iter().map(|row| row.weights).collect())
    }

    /// Whether any job keeps or publishes this state; jobs of one model and seed share states.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_checkpoint(&self, blob: BlobId) -> Result<bool, StoreError> {
        sqlx::query(
            "SELECT 1 FROM checkpoints WHERE weights = ?1
             UNION ALL SELECT 1 FROM snapshots WHERE state = ?1 LIMIT 1",
        )
        .bind(&blob.0[..])
        .fetch_optional(self.readers())
        .await
        .map(|row| row.is_some())
        .map_err(failed("look for a checkpoint"))
    }

    /// Ends a job that the engine does not hold. One that has ended stays as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_job(
        &self,
        id: JobId,
        cause: Cause,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let (now, phase) = (UnixMs::now(), cause.phase());
        let mut transaction = self.begin().await?;
        let done = sqlx::query(
            "UPDATE jobs SET phase = ?2, reason = ?3, ended_ms = ?4, cause = ?5
             WHERE id = ?1 AND phase NOT IN ('completed', 'failed', 'cancelled')",
        )
        .bind(to_sql(id.0))
        .bind(phase.as_str())
        .bind(reason)
        .bind(now.0)
        .bind(cause.as_str())
        .execute(&mut *transaction)
        .await
        .map_err(failed("end a job"))?;
        if done.rows_affected() == 0 {
            return Ok(());
        }
        let event = super::records::state_event(now, phase, Some(cause), reason);
        super::events::append(&mut transaction, id, "state", &event, now.0).await?;
        abandon::close(&mut transaction, id, now).await?;
        executions::count(&mut transaction, id).await?;
        transaction.commit().await.map_err(failed("commit a job's end"))
    }

    /// Keeps the digest of the model file.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_model_sha256(&self, id: JobId, sha256: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE jobs SET model_sha256 = ?2 WHERE id = ?1")
            .bind(to_sql(id.0))
            .bind(sha256)
            .execute(self.writer())
            .await
            .map(drop)
            .map_err(failed("keep a model's digest"))
    }
}
