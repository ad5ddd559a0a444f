//! How many executions the tasks of jobs that have ended took: what later ones are
//! quoted with.

use super::pay::Tx;
use super::{Store, StoreError, failed, to_sql, u64_column};
use raven_engine::{Allowance, Verification};
use raven_protocol::JobId;

/// Executions of one job that are counted: as many say it, and an end takes no longer for more.
const COUNTED_MAX: i64 = 200_000;
/// Tasks beyond which the older ones count half.
const TASKS_MAX: i64 = 1_000_000;

/// Adds a job that ends to the sums of its mode. Void executions are none; a round that
/// was done again has tasks of its own.
pub(super) async fn count(transaction: &mut Tx<'_>, job: JobId) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO executions (mode, tasks, executions)
             SELECT json_extract(j.spec, '$.verification'), COUNT(*), SUM(c.executions)
             FROM jobs j JOIN (SELECT COUNT(*) AS executions
                 FROM (SELECT attempt, round, stage, part FROM credits
                       WHERE job = ?1 AND void = 0 LIMIT ?2)
                 GROUP BY attempt, round, stage, part) c
             WHERE j.id = ?1 GROUP BY j.id
         ON CONFLICT DO UPDATE SET tasks = tasks + excluded.tasks,
             executions = executions + excluded.executions",
    )
    .bind(to_sql(job.0))
    .bind(COUNTED_MAX)
    .execute(&mut **transaction)
    .await
    .map_err(failed("count a job's executions"))?;
    sqlx::query(
        "UPDATE executions SET tasks = tasks / 2, executions = executions / 2 WHERE tasks > ?1",
    )
    .bind(TASKS_MAX)
    .execute(&mut **transaction)
    .await
    .map(drop)
    .map_err(failed("let old executions fade"))
}

impl Store {
    /// Executions per task that a job in mode `adaptive` is quoted with now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn adaptive_allowance(&self) -> Result<Allowance, StoreError> {
        let row = sqlx::query("SELECT tasks, executions FROM executions WHERE mode = ?1")
            .bind(Verification::Adaptive.as_str())
            .fetch_optional(self.readers())
            .await
            .map_err(failed("read what tasks took"))?;
        let measured = match row {
            Some(row) => Allowance::measured(
                u64_column(&row, "executions", "tasks")?,
                u64_column(&row, "executions", "executions")?,
            ),
            None => None,
        };
        Ok(measured.unwrap_or(Allowance::usual(Verification::Adaptive)))
    }
}
