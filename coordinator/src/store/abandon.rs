//! The end of a job whose books cannot be gone on with: it ends all the same, and its
//! escrow is empty.

use super::desk::Desk;
use super::pay::{Tx, end};
use super::{StoreError, failed, hash_column, to_sql};
use crate::time::UnixMs;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Paid};
use raven_protocol::JobId;
use sqlx::Connection as _;
use std::collections::BTreeSet;

/// Closes a job's pay as far as that can be done. What is held for somebody was
/// verified, and is paid; the rest goes back. Where not even that is possible the
/// books stay as they are, and the auditor tells.
pub(super) async fn close(
    transaction: &mut Tx<'_>,
    job: JobId,
    now: UnixMs,
) -> Result<(), StoreError> {
    let mut part = transaction.begin().await.map_err(failed("try to close pay"))?;
    let Err(error) = end(&mut part, job, now).await else {
        return part.commit().await.map_err(failed("close pay"));
    };
    part.rollback().await.map_err(failed("give up closing pay"))?;
    tracing::error!(%job, %error, "a job's pay is not closed as it should be");
    let mut part = transaction.begin().await.map_err(failed("try to empty an escrow"))?;
    let Err(error) = empty(&mut part, job, now).await else {
        return part.commit().await.map_err(failed("empty an escrow"));
    };
    tracing::error!(%job, %error, "what a job holds does not go back");
    part.rollback().await.map_err(failed("give up emptying an escrow"))
}

/// Pays open holds by the books alone, without what is kept of how they came about,
/// and gives back the rest.
async fn empty(transaction: &mut Tx<'_>, job: JobId, now: UnixMs) -> Result<(), StoreError> {
    let Some(mut desk) = Desk::open(transaction, job).await? else { return Ok(()) };
    let rows = sqlx::query(
        "SELECT h.id FROM holds h WHERE h.book = ?1 AND h.state = 'open' AND h.id IN (
             SELECT id FROM pay_holds WHERE job = ?2
             UNION SELECT e.id FROM entries e JOIN accounts a ON a.id = e.debit
                 WHERE a.book = ?1 AND a.name = ?3 AND e.action = 'hold')",
    )
    .bind(desk.book.as_str())
    .bind(to_sql(job.0))
    .bind(Account::Escrow(job).to_string())
    .fetch_all(&mut **transaction)
    .await
    .map_err(failed("list open holds"))?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        let hold = EntryId(hash_column(row, "holds", "id")?);
        let id = EntryId::of("mature", &[&hold.0]);
        entries.push(Entry { id, at: now.0, action: Action::PostHold { hold } });
    }
    desk.enter(transaction, &Paid { entries, lines: BTreeSet::new() }).await?;
    desk.release(transaction, now).await?;
    for sql in ["DELETE FROM pay_holds WHERE job = ?1", "DELETE FROM pay_rounds WHERE job = ?1"] {
        sqlx::query(sql)
            .bind(to_sql(job.0))
            .execute(&mut **transaction)
            .await
            .map_err(failed("let go of open rounds"))?;
    }
    Ok(())
}
