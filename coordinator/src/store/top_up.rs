//! Money that is put into a job's escrow after it was posted.

use super::desk::read_book;
use super::idempotency::{Remembered, remember};
use super::pay::{Tx, requester, unexpected};
use super::{Asker, KeyId, Store, StoreError, books, column, failed, to_sql, unreadable};
use crate::time::UnixMs;
use raven_engine::JobPhase;
use raven_engine::ledger::{Account, Action, Entry, EntryId, PayError, Reason, Transfer};
use raven_engine::money::NanoUsd;
use raven_protocol::JobId;

impl Store {
    /// Moves `amount` from a job's owner to its escrow and answers what that holds then;
    /// `answer` makes the answer to the request of it, which is stored with it.
    ///
    /// # Errors
    /// [`StoreError::KeyOver`], [`StoreError::UnknownJob`], [`StoreError::Ended`], [`StoreError::Books`] where its
    /// owner has too little, [`StoreError::Pay`] beyond the range of the books, [`StoreError`].
    pub async fn top_up(
        &self,
        by: impl Into<Asker>,
        job: JobId,
        amount: NanoUsd,
        answer: impl FnOnce(NanoUsd) -> Option<Remembered>,
    ) -> Result<NanoUsd, StoreError> {
        let by = by.into();
        let mut transaction = self.begin().await?;
        by.check(&mut transaction, UnixMs::now()).await?;
        let escrow = enter(&mut transaction, by.account, job, amount).await?;
        if let Some(answer) = answer(escrow) {
            remember(&mut transaction, &answer).await?;
        }
        transaction.commit().await.map_err(failed("commit a top-up"))?;
        Ok(escrow)
    }

    /// What a job's escrow holds; `None` where nothing was added since it was posted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn topped_up(&self, job: JobId) -> Result<Option<NanoUsd>, StoreError> {
        let row = sqlx::query("SELECT escrow FROM jobs WHERE id = ?1 AND topped_up > 0")
            .bind(to_sql(job.0))
            .fetch_optional(self.readers())
            .await
            .map_err(failed("read a job's escrow"))?;
        row.map(|row| column(&row, "jobs", "escrow").map(NanoUsd)).transpose()
    }
}

async fn enter(
    transaction: &mut Tx<'_>,
    owner: KeyId,
    job: JobId,
    amount: NanoUsd,
) -> Result<NanoUsd, StoreError> {
    let row = sqlx::query(
        "SELECT phase, book, escrow, topped_up FROM jobs
         WHERE id = ?1 AND owner = ?2 AND book IS NOT NULL",
    )
    .bind(to_sql(job.0))
    .bind(owner.0)
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("read a job's escrow"))?
    .ok_or(StoreError::UnknownJob { job })?;
    let phase: &str = column(&row, "jobs", "phase")?;
    let phase: JobPhase = phase.parse().map_err(|error| unreadable("jobs", "phase", error))?;
    if phase.is_end() {
        return Err(StoreError::Ended { job, phase });
    }
    let (book, escrow) = (read_book(&row, "jobs")?, column::<i64>(&row, "jobs", "escrow")?);
    let before: i64 = column(&row, "jobs", "topped_up")?;
    let holds = escrow.checked_add(amount.0).ok_or(StoreError::Pay(PayError::Overflow))?;
    let (debit, credit) = (requester(owner), Account::Escrow(job));
    let transfer = Transfer { debit, credit, amount, reason: Reason::Escrow };
    // What was put in before grows with each, so that no two have one id.
    let id = EntryId::of("top_up", &[&job.0.to_le_bytes(), &before.to_le_bytes()]);
    let entries = [Entry { id, at: UnixMs::now().0, action: Action::Post(transfer) }];
    books::enter(transaction, book, &entries).await.map_err(unexpected)?;
    sqlx::query("UPDATE jobs SET escrow = ?2, topped_up = topped_up + ?3 WHERE id = ?1")
        .bind(to_sql(job.0))
        .bind(holds)
        .bind(amount.0)
        .execute(&mut **transaction)
        .await
        .map_err(failed("note a job's escrow"))?;
    Ok(NanoUsd(holds))
}
