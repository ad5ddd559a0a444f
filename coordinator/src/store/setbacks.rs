//! Jobs that went back to a checkpoint because their loss diverged.

use super::{Store, StoreError, column, events, failed, to_sql, u32_column};
use crate::job::OnDivergence;
use crate::time::UnixMs;
use raven_engine::{LossMonitor, Record, SetBack};
use raven_protocol::JobId;
use serde_json::json;
use sqlx::Transaction;
use sqlx::sqlite::Sqlite;

/// Undoes the rounds after the record's step. They were right and stay paid; what
/// is done instead of them is paid as well. A setback that is stored already
/// changes nothing.
pub(super) async fn set_back(
    transaction: &mut Transaction<'_, Sqlite>,
    record: &Record,
    set_back: SetBack,
    rounds: i64,
    now: UnixMs,
) -> Result<(), StoreError> {
    let (job, step) = (to_sql(record.job.0), i64::from(record.step));
    let added = sqlx::query(
        "INSERT INTO setbacks (job, number, step, diverged_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO NOTHING",
    )
    .bind(job)
    .bind(i64::from(set_back.number))
    .bind(step)
    .bind(i64::from(set_back.diverged_at))
    .execute(&mut **transaction)
    .await
    .map_err(failed("add a setback"))?;
    if added.rows_affected() == 0 {
        return Ok(());
    }
    super::chain::forget_rounds(transaction, record.job, record.step.saturating_add(1)).await?;
    sqlx::query("UPDATE jobs SET setbacks = ?2, rounds_paid = MIN(rounds_paid, ?3) WHERE id = ?1")
        .bind(job)
        .bind(i64::from(set_back.number))
        .bind(step)
        .execute(&mut **transaction)
        .await
        .map_err(failed("count a setback"))?;
    let loss = set_back.loss.is_finite().then_some(set_back.loss);
    let event = json!({
        "at": now.rfc3339(), "round": record.step, "undone": rounds - step,
        "diverged_at": set_back.diverged_at, "loss": loss, "setbacks": set_back.number,
    });
    events::append(transaction, record.job, "setback", &event, now.0).await
}

impl Store {
    /// Steps that were done where a job began again because its loss diverged, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn setbacks(&self, id: JobId) -> Result<Vec<u32>, StoreError> {
        let rows = sqlx::query("SELECT step FROM setbacks WHERE job = ?1 ORDER BY number")
            .bind(to_sql(id.0))
            .fetch_all(self.readers())
            .await
            .map_err(failed("list setbacks"))?;
        rows.iter().map(|row| u32_column(row, "setbacks", "step")).collect()
    }

    /// What the losses of the first `step` rounds leave to judge the next one by, in
    /// f32 as the engine has them.
    pub(super) async fn losses(
        &self,
        id: JobId,
        step: u32,
        rule: Option<OnDivergence>,
        setbacks: &[u32],
    ) -> Result<LossMonitor, StoreError> {
        let mut monitor = LossMonitor::default();
        let Some(rule) = rule.map(OnDivergence::rule) else { return Ok(monitor) };
        let rows = sqlx::query(
            "SELECT step, loss_sum, count FROM rounds WHERE job = ?1 AND step <= ?2 ORDER BY step",
        )
        .bind(to_sql(id.0))
        .bind(i64::from(step))
        .fetch_all(self.readers())
        .await
        .map_err(failed("read losses"))?;
        for row in &rows {
            let round = u32_column(row, "rounds", "step")?.saturating_sub(1);
            let sum: Option<f64> = column(row, "rounds", "loss_sum")?;
            let count: Option<f64> = column(row, "rounds", "count")?;
            if let (Some(sum), Some(count)) = (sum, count) {
                monitor.observe(&rule, setbacks, round, sum as f32 / count as f32);
            }
        }
        Ok(monitor)
    }
}
