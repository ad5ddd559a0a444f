//! Totals and loss curves for the public pages.

use super::jobs::MeanMetrics;
use super::{Store, StoreError, column, failed, to_sql, u32_column, u64_column, unreadable};
use raven_engine::JobPhase;
use raven_engine::money::FLOPS_PER_CALCULATION;
use raven_protocol::JobId;
use serde::Serialize;

/// Sums over all jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub tasks: u64,
    /// More than 64 bits would hold after some years.
    pub flops: u128,
}

/// A job's curves, thinned out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Step and mean training loss.
    pub loss: Vec<(u32, Option<f64>)>,
    /// Epoch, mean loss and accuracy on the held-out rows.
    pub evaluation: Vec<(u32, Option<f64>, Option<f64>)>,
}

/// A job's credited work on one kind of hardware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendWork {
    /// `cpu` or `gpu`.
    pub backend: String,
    pub tasks: u64,
    pub flops: u64,
}

impl Store {
    /// A job's credited work, by what executed it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_work(&self, id: JobId) -> Result<Vec<BackendWork>, StoreError> {
        let table = "job_work";
        let rows = sqlx::query(
            "SELECT backend, tasks, flops FROM job_work WHERE job = ?1 ORDER BY backend",
        )
        .bind(to_sql(id.0))
        .fetch_all(self.readers())
        .await
        .map_err(failed("sum up a job's work"))?;
        rows.iter()
            .map(|row| {
                Ok(BackendWork {
                    backend: column(row, table, "backend")?,
                    tasks: u64_column(row, table, "tasks")?,
                    flops: u64_column(row, table, "flops")?,
                })
            })
            .collect()
    }

    /// Credited tasks and flops over all jobs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn totals(&self) -> Result<Totals, StoreError> {
        let row = sqlx::query("SELECT tasks, calculations, flops_rest FROM totals")
            .fetch_one(self.readers())
            .await
            .map_err(failed("read the totals"))?;
        let calculations = u128::from(u64_column(&row, "totals", "calculations")?);
        let rest = u128::from(u64_column(&row, "totals", "flops_rest")?);
        Ok(Totals {
            tasks: u64_column(&row, "totals", "tasks")?,
            flops: calculations * u128::from(FLOPS_PER_CALCULATION) + rest,
        })
    }

    /// How many jobs stand where.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_phases(&self) -> Result<Vec<(JobPhase, u64)>, StoreError> {
        let rows = sqlx::query("SELECT phase, COUNT(*) AS jobs FROM jobs GROUP BY phase")
            .fetch_all(self.readers())
            .await
            .map_err(failed("count jobs"))?;
        rows.iter()
            .map(|row| {
                let phase: &str = column(row, "jobs", "phase")?;
                let phase = phase.parse().map_err(|error| unreadable("jobs", "phase", error))?;
                Ok((phase, u64_column(row, "jobs", "jobs")?))
            })
            .collect()
    }

    /// Both curves with at most about `points` points each: every n-th step
    /// and the last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn curve(&self, job: JobId, points: u32) -> Result<Curve, StoreError> {
        let rows = sqlx::query(
            // The steps are made first, so that a long job costs no more than a short one.
            "WITH RECURSIVE
                 ends (last, stride) AS
                     (SELECT MAX(step), MAX(step) / ?2 + 1 FROM rounds WHERE job = ?1),
                 steps (step) AS
                     (SELECT stride FROM ends WHERE stride <= last UNION ALL
                      SELECT step + stride FROM steps, ends WHERE step + stride <= last)
             SELECT r.* FROM
                 (SELECT step FROM steps UNION SELECT last FROM ends) s
                 JOIN rounds r ON r.job = ?1 AND r.step = s.step ORDER BY r.step",
        )
        .bind(to_sql(job.0))
        .bind(i64::from(points.max(2)) - 1)
        .fetch_all(self.readers())
        .await
        .map_err(failed("read a loss curve"))?;
        let mut curve = Curve::default();
        for row in &rows {
            let loss = MeanMetrics::read(row, "rounds")?.loss;
            curve.loss.push((u32_column(row, "rounds", "step")?, loss));
        }
        let rows =
            sqlx::query("SELECT * FROM evaluations WHERE job = ?1 ORDER BY step DESC LIMIT ?2")
                .bind(to_sql(job.0))
                .bind(i64::from(points))
                .fetch_all(self.readers())
                .await
                .map_err(failed("read evaluations"))?;
        for row in rows.iter().rev() {
            let MeanMetrics { loss, accuracy } = MeanMetrics::read(row, "evaluations")?;
            curve.evaluation.push((u32_column(row, "evaluations", "epoch")?, loss, accuracy));
        }
        Ok(curve)
    }
}
