//! Earnings that become an account's to spend on jobs.

use super::books::BooksError;
use super::{KeyId, Store, requester};
use crate::time::UnixMs;
use raven_engine::ledger::{Account, Action, Added, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;

impl Store {
    /// Moves what a site or a contributor has earned, and what has matured of it, to
    /// an account. Whoever calls it has seen that both agree. The same `id` is entered once.
    ///
    /// # Errors
    /// [`BooksError`]; the books are as before.
    pub async fn spend(
        &self,
        from: Account,
        owner: KeyId,
        amount: NanoUsd,
        id: EntryId,
    ) -> Result<Added, BooksError> {
        let book = self.book_of(owner).await?;
        let credit = requester(owner);
        let transfer = Transfer { debit: from, credit, amount, reason: Reason::Spend };
        let entry = Entry { id, at: UnixMs::now().0, action: Action::Post(transfer) };
        let added = self.enter(book, &[entry]).await?;
        Ok(added.first().copied().unwrap_or(Added::Before))
    }
}
