//! Where a job goes on after a restart, and what of it is remembered until then.

use super::jobs::{JobRow, read};
use super::{Store, StoreError, column, failed, hash_column, to_sql, u32_column, u64_column};
use raven_engine::money::{Charge, Flops, PicoUsd};
use raven_engine::{ContributorId, Patience, ResumePoint, Spent};
use raven_protocol::JobId;
use std::collections::{BTreeMap, BTreeSet};

impl Store {
    /// Where the job goes on: its last checkpoint of a step below `below`, or
    /// `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn resume_point(
        &self,
        id: JobId,
        below: Option<u32>,
    ) -> Result<Option<ResumePoint>, StoreError> {
        let mut checkpoints = self.checkpoints(id).await?;
        checkpoints.retain(|checkpoint| below.is_none_or(|below| checkpoint.step < below));
        let Some(last) = checkpoints.last() else { return Ok(None) };
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ?1")
            .bind(to_sql(id.0))
            .fetch_one(self.readers())
            .await
            .map_err(failed("look up a job"))?;
        let job = read(&row)?;
        let early_stopping = job.spec.training.early_stopping;
        let min_delta = early_stopping.map_or(0.0, |early| early.min_delta);
        let rows =
            sqlx::query("SELECT * FROM evaluations WHERE job = ?1 AND step <= ?2 ORDER BY step")
                .bind(to_sql(id.0))
                .bind(i64::from(last.step))
                .fetch_all(self.readers())
                .await
                .map_err(failed("read evaluations"))?;
        // The engine compares in f32, so the comparisons are repeated in f32.
        let (mut best_loss, mut patience) = (f32::INFINITY, Patience::default());
        for row in &rows {
            let sum: Option<f64> = column(row, "evaluations", "loss_sum")?;
            let count: Option<f64> = column(row, "evaluations", "count")?;
            let loss = match (sum, count) {
                (Some(sum), Some(count)) => sum as f32 / count as f32,
                _ => f32::INFINITY,
            };
            patience = patience.after(loss, min_delta);
            best_loss = best_loss.min(loss);
        }
        let best = checkpoints.iter().find(|checkpoint| checkpoint.best);
        let setbacks = self.setbacks(id).await?;
        let rule = job.spec.training.on_divergence;
        Ok(Some(ResumePoint {
            losses: self.losses(id, last.step, rule, &setbacks).await?,
            setbacks,
            weights: last.weights,
            step: last.step,
            epochs_done: rows.len() as u32,
            best: best.filter(|_| best_loss.is_finite()).map(|best| (best_loss, best.weights)),
            patience,
            shown: self.slices_shown(id).await?,
            credited_rounds: self.credited_rounds(id).await?,
            rollbacks: job.rollbacks,
            attempt: self.next_attempt(&job).await?,
            spent: self.spent(&job).await?,
            open: self.open_words(&job, last).await?,
        }))
    }

    /// What a job's work has cost. The job's own sums say what was ever done for it: what is
    /// void was not paid for.
    async fn spent(&self, job: &JobRow) -> Result<Spent, StoreError> {
        let sql = "SELECT flops, rate FROM credits WHERE job = ?1 AND void = 1 AND payer = 'job'";
        let rows = sqlx::query(sql)
            .bind(to_sql(job.id.0))
            .fetch_all(self.readers())
            .await
            .map_err(failed("sum up what is void"))?;
        let (mut flops, mut units) = (job.flops, job.charge.units());
        for row in &rows {
            let void = u64_column(row, "credits", "flops")?;
            let rate = PicoUsd(u64_column(row, "credits", "rate")?);
            flops = flops.saturating_sub(void);
            units = units.saturating_sub(Charge::of(Flops(void), rate).units()).max(0);
        }
        let operator = self.operator_cost(job.id).await?;
        Ok(Spent { flops, charge: Charge::from_units(units), operator })
    }

    /// More than any attempt under which somebody was credited.
    async fn next_attempt(&self, job: &JobRow) -> Result<u32, StoreError> {
        let sql = "SELECT COALESCE(MAX(attempt) + 1, 0) AS attempt FROM credits WHERE job = ?1";
        let row = sqlx::query(sql)
            .bind(to_sql(job.id.0))
            .fetch_one(self.readers())
            .await
            .map_err(failed("count attempts"))?;
        let credited = u32_column(&row, "credits", "attempt")?;
        Ok(credited.max(job.rollbacks.saturating_add(job.setbacks)))
    }

    /// Rounds that are stored, and so credited.
    async fn credited_rounds(&self, id: JobId) -> Result<u32, StoreError> {
        let sql = "SELECT MAX(rounds_paid, (SELECT COALESCE(MAX(step), 0) FROM rounds
             WHERE job = ?1)) AS rounds FROM jobs WHERE id = ?1";
        let row = sqlx::query(sql)
            .bind(to_sql(id.0))
            .fetch_one(self.readers())
            .await
            .map_err(failed("count rounds"))?;
        u32_column(&row, "rounds", "rounds")
    }

    /// Makes durable that a contributor is shown a slice of a job's weights.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn show_slice(
        &self,
        id: JobId,
        contributor: ContributorId,
        slice: u32,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO slices_shown (job, contributor, slice) VALUES (?1, ?2, ?3)
             ON CONFLICT DO NOTHING",
        )
        .bind(to_sql(id.0))
        .bind(&contributor.0[..])
        .bind(i64::from(slice))
        .execute(self.writer())
        .await
        .map(drop)
        .map_err(failed("note who is shown a slice"))
    }

    /// Slices of a job's weights that each contributor was shown.
    async fn slices_shown(
        &self,
        id: JobId,
    ) -> Result<BTreeMap<ContributorId, BTreeSet<u32>>, StoreError> {
        let rows = sqlx::query("SELECT contributor, slice FROM slices_shown WHERE job = ?1")
            .bind(to_sql(id.0))
            .fetch_all(self.readers())
            .await
            .map_err(failed("list shown slices"))?;
        let mut shown: BTreeMap<ContributorId, BTreeSet<u32>> = BTreeMap::new();
        for row in &rows {
            let contributor = ContributorId(hash_column(row, "slices_shown", "contributor")?);
            let slice = u32_column(row, "slices_shown", "slice")?;
            shown.entry(contributor).or_default().insert(slice);
        }
        Ok(shown)
    }
}
