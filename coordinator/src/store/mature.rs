//! Rounds that mature before the record that makes them so, where there are many: a
//! checkpoint, or a pause, behind ten thousand rounds is no transaction of a hundred thousand lines.
//!
//! What a checkpoint, a pause or an end finds open was settled before the engine made its record
//! (see `raven_engine::verify`), so that it matters little which of them is durable
//! first. After a crash in between the rest matures with the record that comes then.

use super::desk::read_book;
use super::pay::{self, Tx, unexpected};
use super::records::read_before;
use super::{Store, StoreError, books, column, earlier, failed, hash_column, repeated, to_sql};
use crate::time::UnixMs;
use raven_engine::Record;
use raven_engine::ledger::{Action, Entry, EntryId};
use raven_protocol::JobId;

/// Rounds that mature in one transaction.
const ROUNDS_AT_ONCE: i64 = 256;

impl Store {
    /// Lets all but the newest rounds mature that `record` would let mature.
    pub(super) async fn mature_ahead(&self, record: &Record) -> Result<(), StoreError> {
        let job = record.job;
        if !pay::matures(record) || self.open_rounds(job).await? == 0 {
            return Ok(());
        }
        if self.open_rounds(job).await? > ROUNDS_AT_ONCE {
            self.void_ahead(record).await?;
        }
        while self.open_rounds(job).await? > ROUNDS_AT_ONCE {
            let mut transaction = self.begin().await?;
            mature_some(&mut transaction, job, UnixMs::now()).await?;
            transaction.commit().await.map_err(failed("commit matured rounds"))?;
        }
        Ok(())
    }

    /// What is void must be so before it matures: what the record says, and what its round
    /// shows of the time before a crash.
    async fn void_ahead(&self, record: &Record) -> Result<(), StoreError> {
        let (mut transaction, mut voids) = (self.begin().await?, record.voids.clone());
        voids.extend(earlier::void(&mut transaction, record).await?);
        if record.train.is_some() && read_before(&mut transaction, record.job).await?.is_strict {
            voids.extend(repeated::differs(&mut transaction, record).await?.unwrap_or_default());
        }
        if voids.is_empty() {
            return Ok(());
        }
        pay::void(&mut transaction, record.job, &voids, UnixMs::now()).await?;
        transaction.commit().await.map_err(failed("commit what is void"))
    }

    async fn open_rounds(&self, job: JobId) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS open FROM pay_rounds WHERE job = ?1")
            .bind(to_sql(job.0))
            .fetch_one(self.writer())
            .await
            .map_err(failed("count open rounds"))?;
        column(&row, "pay_rounds", "open")
    }
}

/// The oldest rounds, in the order in which [`JobPay`](raven_engine::ledger::JobPay) lets
/// them mature: where one is void, those behind it are stated anew.
const OLDEST: &str = "(SELECT attempt, round FROM pay_rounds WHERE job = ?1
     ORDER BY attempt, round LIMIT ?2)";

async fn mature_some(transaction: &mut Tx<'_>, job: JobId, now: UnixMs) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT book FROM jobs WHERE id = ?1")
        .bind(to_sql(job.0))
        .fetch_one(&mut **transaction)
        .await
        .map_err(failed("read a job's book"))?;
    let book = read_book(&row, "jobs")?;
    let sql = format!("SELECT id FROM pay_holds WHERE job = ?1 AND (attempt, round) IN {OLDEST}");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(to_sql(job.0))
        .bind(ROUNDS_AT_ONCE)
        .fetch_all(&mut **transaction)
        .await
        .map_err(failed("list holds that mature"))?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        let hold = EntryId(hash_column(row, "pay_holds", "id")?);
        let id = EntryId::of("mature", &[&hold.0]);
        entries.push(Entry { id, at: now.0, action: Action::PostHold { hold } });
    }
    books::enter(transaction, book, &entries).await.map_err(unexpected)?;
    for table in ["pay_holds", "pay_rounds"] {
        let sql = format!("DELETE FROM {table} WHERE job = ?1 AND (attempt, round) IN {OLDEST}");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(to_sql(job.0))
            .bind(ROUNDS_AT_ONCE)
            .execute(&mut **transaction)
            .await
            .map_err(failed("let go of matured rounds"))?;
    }
    Ok(())
}
