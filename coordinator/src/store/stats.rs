//! Totals and loss curves for the public pages.

use super::jobs::MeanMetrics;
use super::{Store, StoreError, column, failed, to_sql, u32_column, u64_column, unreadable};
use raven_engine::JobPhase;
use raven_protocol::JobId;

/// Sums over all jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub tasks: u64,
    pub flops: u64,
}

/// A job's curves, thinned out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Step and mean training loss.
    pub loss: Vec<(u32, Option<f64>)>,
    /// Epoch, mean loss and accuracy on the held-out rows.
    pub evaluation: Vec<(u32, Option<f64>, Option<f64>)>,
}

impl Store {
    /// Credited tasks and flops over all jobs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn totals(&self) -> Result<Totals, StoreError> {
        let row = sqlx::query("SELECT tasks, flops FROM totals")
            .fetch_one(self.readers())
            .await
            .map_err(failed("read the totals"))?;
        Ok(Totals {
            tasks: u64_column(&row, "totals", "tasks")?,
            flops: u64_column(&row, "totals", "flops")?,
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
            "SELECT r.* FROM rounds r,
                 (SELECT MAX(step) AS last, MAX(step) / ?2 + 1 AS stride
                  FROM rounds WHERE job = ?1) s
             WHERE r.job = ?1 AND (r.step % s.stride = 0 OR r.step = s.last) ORDER BY r.step",
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
