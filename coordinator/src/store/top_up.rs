//! Money that is put into a job's escrow after it was posted.

use super::desk::read_book;
use super::idempotency::{Remembered, remember};
use super::pay::{Tx, requester, unexpected};
use super::{Asker, Book, KeyId, Store, StoreError, books, column, failed, to_sql, unreadable};
use crate::time::UnixMs;
use raven_engine::JobPhase;
use raven_engine::ledger::{Account, Action, Added, Entry, EntryId, PayError, Reason, Transfer};
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
        let (escrow, _) =
            self.put_in(by.into(), job, amount, None, |escrow, _| answer(escrow)).await?;
        Ok(escrow)
    }

    /// The same, once for each `id`, also after the job has ended, and whether it is now.
    ///
    /// # Errors
    /// Those of [`Store::top_up`]; [`StoreError::Books`] where the id is that of something else.
    pub async fn top_up_once(
        &self,
        by: Asker,
        job: JobId,
        amount: NanoUsd,
        id: EntryId,
        answer: impl FnOnce(NanoUsd, Added) -> Option<Remembered>,
    ) -> Result<(NanoUsd, Added), StoreError> {
        self.put_in(by, job, amount, Some(id), answer).await
    }

    async fn put_in(
        &self,
        by: Asker,
        job: JobId,
        amount: NanoUsd,
        id: Option<EntryId>,
        answer: impl FnOnce(NanoUsd, Added) -> Option<Remembered>,
    ) -> Result<(NanoUsd, Added), StoreError> {
        let mut transaction = self.begin().await?;
        by.check(&mut transaction, UnixMs::now()).await?;
        let (escrow, added) = enter(&mut transaction, by.account, job, amount, id).await?;
        if let Some(answer) = answer(escrow, added) {
            remember(&mut transaction, &answer).await?;
        }
        transaction.commit().await.map_err(failed("commit a top-up"))?;
        Ok((escrow, added))
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
    named: Option<EntryId>,
) -> Result<(NanoUsd, Added), StoreError> {
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
    let (book, escrow) = (read_book(&row, "jobs")?, column::<i64>(&row, "jobs", "escrow")?);
    let before: i64 = column(&row, "jobs", "topped_up")?;
    // What was put in before it ended may be asked for again.
    let is_known = match named {
        Some(id) => is_entered(transaction, book, id).await?,
        None => false,
    };
    if phase.is_end() && !is_known {
        return Err(StoreError::Ended { job, phase });
    }
    let holds = escrow.checked_add(amount.0).ok_or(StoreError::Pay(PayError::Overflow))?;
    let (debit, credit) = (requester(owner), Account::Escrow(job));
    let transfer = Transfer { debit, credit, amount, reason: Reason::Escrow };
    // What was put in before grows with each, so that no two without a name have one id.
    let counted = || EntryId::of("top_up", &[&job.0.to_le_bytes(), &before.to_le_bytes()]);
    let id = named.unwrap_or_else(counted);
    let entries = [Entry { id, at: UnixMs::now().0, action: Action::Post(transfer) }];
    let added = books::enter(transaction, book, &entries).await.map_err(unexpected)?;
    if added == [Added::Before] {
        return Ok((NanoUsd(escrow), Added::Before));
    }
    sqlx::query("UPDATE jobs SET escrow = ?2, topped_up = topped_up + ?3 WHERE id = ?1")
        .bind(to_sql(job.0))
        .bind(holds)
        .bind(amount.0)
        .execute(&mut **transaction)
        .await
        .map_err(failed("note a job's escrow"))?;
    Ok((NanoUsd(holds), Added::New))
}

async fn is_entered(transaction: &mut Tx<'_>, book: Book, id: EntryId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM entries WHERE book = ?1 AND id = ?2")
        .bind(book.as_str())
        .bind(&id.0[..])
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("look for an entry"))?;
    Ok(row.is_some())
}
