//! Earnings that become an account's to spend on jobs.

use super::books::{self, BooksError};
use super::{Asker, Book, Store, failed, requester};
use crate::time::UnixMs;
use raven_engine::ledger::{Account, Action, Added, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;

impl Store {
    /// Moves what a site or a contributor has earned, and what has matured of it, to
    /// an account. Whoever calls it has seen that both agree. The same `id` is entered once.
    ///
    /// # Errors
    /// [`BooksError`], [`StoreError::KeyOver`](super::StoreError::KeyOver) in it; the books are as before.
    pub async fn spend(
        &self,
        from: Account,
        by: impl Into<Asker>,
        amount: NanoUsd,
        id: EntryId,
    ) -> Result<Added, BooksError> {
        let by = by.into();
        let book = self.book_of(by.account).await?;
        let credit = requester(by.account);
        let transfer = Transfer { debit: from, credit, amount, reason: Reason::Spend };
        self.move_for(by, book, transfer, id).await
    }

    /// Enters one movement of money that somebody asked for. The same `id` is entered once.
    ///
    /// # Errors
    /// [`BooksError`], [`StoreError::KeyOver`](super::StoreError::KeyOver) in it; the books are as before.
    pub async fn move_for(
        &self,
        by: Asker,
        book: Book,
        transfer: Transfer,
        id: EntryId,
    ) -> Result<Added, BooksError> {
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        by.check(&mut transaction, now).await?;
        let entry = Entry { id, at: now.0, action: Action::Post(transfer) };
        let added = books::enter(&mut transaction, book, &[entry]).await?;
        transaction.commit().await.map_err(failed("commit a movement"))?;
        Ok(added.first().copied().unwrap_or(Added::Before))
    }
}
