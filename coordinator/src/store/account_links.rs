//! Contributors whose earnings go to an account as they mature, until they are unlinked.

use super::books::{Book, BooksError};
use super::children::check_open;
use super::earners::Earners;
use super::wallets::{LINK_DAYS, LINKS_MAX, give_all};
use super::{
    Asker, KeyId, Store, StoreError, column, failed, hash_column, read_book, requester, u64_column,
};
use crate::time::{DAY_MS, UnixMs};
use raven_engine::ContributorId;
use raven_engine::ledger::Reason;
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};

/// What linked contributors behind one have earned since, in the order of their keys.
pub(super) const TO_FORWARD: &str = "SELECT l.contributor AS contributor, l.account AS account,
         l.book AS book, l.linked_ms AS linked_ms
     FROM account_links l CROSS JOIN accounts a
         ON a.book = l.book AND a.name = 'contributor:' || lower(hex(l.contributor))
     WHERE l.unlinked_ms IS NULL AND a.posted > a.held_out AND l.book = ?1 AND l.contributor > ?2
     ORDER BY l.contributor LIMIT ?3";

/// A contributor, and the account to which its earnings in that account's money go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountLink {
    pub contributor: ContributorId,
    pub account: KeyId,
    pub book: Book,
    pub linked: UnixMs,
}

/// A link whose signature is good, as the account's own key asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLink {
    pub contributor: ContributorId,
    pub account: KeyId,
    /// One statement's own.
    pub nonce: [u8; 16],
    /// When the statement is no longer good, and its nonce is forgotten.
    pub end: UnixMs,
    /// The exact text that the contributor signed.
    pub statement: String,
    pub signature: String,
}

/// Why a link is refused.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the contributor's earnings go to another account; it unlinks itself first")]
    Linked,
    #[error("a wallet collects what the contributor earns: link the wallet")]
    Collected,
    #[error("the contributor has given its earnings to a site")]
    Given,
    #[error("the contributor has neither computed nor earned anything here")]
    Unknown,
    #[error("the statement or its nonce has served before: the contributor signs another one")]
    Used,
    #[error("the account has {LINKS_MAX} new contributors within {LINK_DAYS} days, the limit")]
    Full,
    #[error(transparent)]
    Books(#[from] BooksError),
}

impl From<StoreError> for LinkError {
    fn from(error: StoreError) -> Self {
        LinkError::Books(error.into())
    }
}

fn read(row: &SqliteRow) -> Result<AccountLink, StoreError> {
    let table = "account_links";
    Ok(AccountLink {
        contributor: ContributorId(hash_column(row, table, "contributor")?),
        account: KeyId(column(row, table, "account")?),
        book: read_book(row, table)?,
        linked: UnixMs(column(row, table, "linked_ms")?),
    })
}

impl Store {
    /// Links a contributor to an account and moves what it has. Linked already to that account
    /// it stays as it is, and what it has earned since moves; the statement has served all the same.
    ///
    /// # Errors
    /// [`LinkError`]; then nothing is linked and nothing moved.
    pub async fn link_account(
        &self,
        link: &NewLink,
        now: UnixMs,
    ) -> Result<AccountLink, LinkError> {
        self.link_account_for(link.account.into(), link, now).await
    }

    /// The same for a key of the account, which must still hold.
    ///
    /// # Errors
    /// [`LinkError`], [`StoreError::KeyOver`] in it; then nothing is linked and nothing moved.
    pub async fn link_account_for(
        &self,
        by: Asker,
        link: &NewLink,
        now: UnixMs,
    ) -> Result<AccountLink, LinkError> {
        if !self.is_known(link.contributor).await? {
            return Err(LinkError::Unknown);
        }
        let book = self.book_of(link.account).await?;
        let mut transaction = self.begin().await?;
        by.check(&mut transaction, now).await?;
        check_open(&mut transaction, link.account).await?;
        let linked = match check(&mut transaction, link, book, now).await? {
            Some(linked) => linked,
            None => {
                sqlx::query(
                    "INSERT INTO account_links
                         (contributor, book, account, linked_ms, statement, signature)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )
                .bind(&link.contributor.0[..])
                .bind(book.as_str())
                .bind(link.account.0)
                .bind(now.0)
                .bind(&link.statement)
                .bind(&link.signature)
                .execute(&mut *transaction)
                .await
                .map_err(failed("link a contributor to an account"))?;
                now
            }
        };
        note_nonce(&mut transaction, link, now).await?;
        let (from, to) = (link.contributor, requester(link.account));
        give_all(&mut transaction, book, from, to, Reason::Spend, now).await?;
        transaction.commit().await.map_err(failed("commit a link"))?;
        let NewLink { contributor, account, .. } = *link;
        Ok(AccountLink { contributor, account, book, linked })
    }

    /// Ends a link, that to `of` where one is named: what matures from now on stays the
    /// contributor's. Whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unlink_account(
        &self,
        contributor: ContributorId,
        book: Book,
        of: Option<KeyId>,
        now: UnixMs,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE account_links SET unlinked_ms = ?4
             WHERE contributor = ?1 AND book = ?2 AND unlinked_ms IS NULL
                 AND (?3 IS NULL OR account = ?3)",
        )
        .bind(&contributor.0[..])
        .bind(book.as_str())
        .bind(of.map(|of| of.0))
        .bind(now.0)
        .execute(self.writer())
        .await
        .map_err(failed("unlink a contributor"))?;
        Ok(done.rows_affected() > 0)
    }

    /// The newest contributors that are linked to an account, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn account_links(
        &self,
        account: KeyId,
        limit: u32,
    ) -> Result<Vec<AccountLink>, StoreError> {
        let rows = sqlx::query(
            "SELECT contributor, account, book, linked_ms FROM account_links
             WHERE account = ?1 AND unlinked_ms IS NULL ORDER BY linked_ms DESC LIMIT ?2",
        )
        .bind(account.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list an account's contributors"))?;
        rows.iter().map(read).collect()
    }

    /// The accounts to which a contributor's earnings go: at most one of each book.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn accounts_of(
        &self,
        contributor: ContributorId,
    ) -> Result<Vec<AccountLink>, StoreError> {
        let rows = sqlx::query(
            "SELECT contributor, account, book, linked_ms FROM account_links
             WHERE contributor = ?1 AND unlinked_ms IS NULL ORDER BY book",
        )
        .bind(&contributor.0[..])
        .fetch_all(self.readers())
        .await
        .map_err(failed("read a contributor's accounts"))?;
        rows.iter().map(read).collect()
    }

    /// Moves to their accounts what linked contributors have earned since. Answers how many had some.
    ///
    /// # Errors
    /// [`BooksError`].
    pub async fn forward(&self, now: UnixMs) -> Result<u64, BooksError> {
        let mut moved = 0;
        for book in Book::ALL {
            let mut earners = Earners::new(TO_FORWARD, book);
            while let Some(rows) = earners.next(self).await? {
                let found = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
                moved += self.forward_all(&found, now).await?;
            }
        }
        Ok(moved)
    }

    /// Whoever was unlinked since they were listed keeps what is theirs.
    async fn forward_all(&self, found: &[AccountLink], now: UnixMs) -> Result<u64, BooksError> {
        let (mut transaction, mut moved) = (self.begin().await?, 0);
        for link in found {
            let holds = sqlx::query(
                "SELECT 1 FROM account_links WHERE contributor = ?1 AND book = ?2
                     AND account = ?3 AND unlinked_ms IS NULL",
            )
            .bind(&link.contributor.0[..])
            .bind(link.book.as_str())
            .bind(link.account.0)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed("look whether a link holds"))?;
            if holds.is_some() {
                let (from, to) = (link.contributor, requester(link.account));
                give_all(&mut transaction, link.book, from, to, Reason::Spend, now).await?;
                moved += 1;
            }
        }
        transaction.commit().await.map_err(failed("commit what was forwarded"))?;
        Ok(moved)
    }
}

/// Keeps a statement's nonce until it is over, and forgets those that are.
async fn note_nonce(
    transaction: &mut Transaction<'_, Sqlite>,
    link: &NewLink,
    now: UnixMs,
) -> Result<(), StoreError> {
    // A clock that is set back by less than a day revives none.
    sqlx::query("DELETE FROM link_nonces WHERE expires_ms < ?1")
        .bind(now.0.saturating_sub(DAY_MS))
        .execute(&mut **transaction)
        .await
        .map_err(failed("forget nonces"))?;
    sqlx::query(
        "INSERT INTO link_nonces (contributor, nonce, expires_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET expires_ms = MAX(expires_ms, excluded.expires_ms)",
    )
    .bind(&link.contributor.0[..])
    .bind(&link.nonce[..])
    .bind(link.end.0)
    .execute(&mut **transaction)
    .await
    .map(drop)
    .map_err(failed("keep a nonce"))
}

/// Since when a contributor is linked to that account; whether it may be, where it is not.
async fn check(
    transaction: &mut Transaction<'_, Sqlite>,
    link: &NewLink,
    book: Book,
    now: UnixMs,
) -> Result<Option<UnixMs>, LinkError> {
    let row = sqlx::query(
        "SELECT l.account AS account, l.linked_ms AS linked_ms,
             EXISTS (SELECT 1 FROM wallet_links WHERE contributor = ?1) AS collected,
             EXISTS (SELECT 1 FROM gifts WHERE contributor = ?1) AS given,
             EXISTS (SELECT 1 FROM link_nonces WHERE contributor = ?1 AND nonce = ?6)
                 OR EXISTS (SELECT 1 FROM account_links WHERE statement = ?4) AS used,
             (SELECT COUNT(*) FROM account_links
                 WHERE account = ?3 AND linked_ms > ?5) AS links
         FROM (SELECT 1) LEFT JOIN account_links l
             ON l.contributor = ?1 AND l.book = ?2 AND l.unlinked_ms IS NULL",
    )
    .bind(&link.contributor.0[..])
    .bind(book.as_str())
    .bind(link.account.0)
    .bind(&link.statement)
    .bind(now.0.saturating_sub(LINK_DAYS * DAY_MS))
    .bind(&link.nonce[..])
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed("look for a link"))?;
    let account: Option<i64> = column(&row, "account_links", "account")?;
    match account.map(KeyId) {
        Some(account) if account == link.account => {
            let linked: i64 = column(&row, "account_links", "linked_ms")?;
            return Ok(Some(UnixMs(linked)));
        }
        Some(_) => return Err(LinkError::Linked),
        None => {}
    }
    let is_collected: bool = column(&row, "wallet_links", "collected")?;
    let is_used: bool = column(&row, "account_links", "used")?;
    let links = u64_column(&row, "account_links", "links")?;
    let is_given: bool = column(&row, "gifts", "given")?;
    if is_given {
        Err(LinkError::Given)
    } else if is_collected {
        Err(LinkError::Collected)
    } else if is_used {
        Err(LinkError::Used)
    } else if links >= LINKS_MAX {
        Err(LinkError::Full)
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{ApiKey, KeyMode};
    use raven_engine::ledger::{Account, Action, Entry, EntryId, Transfer};
    use raven_engine::money::NanoUsd;

    #[tokio::test]
    async fn whoever_is_unlinked_between_the_list_and_its_move_keeps_what_is_theirs() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("raven.sqlite")).await.expect("opened");
        let account = store.add_key(&ApiKey::generate(KeyMode::Live)).await.expect("an account");
        let ids = [1, 2].map(|who| ContributorId([who; 32]));
        let earn = async |name: &str, id: ContributorId| {
            let (debit, credit) = (Account::External, Account::Contributor(id));
            let (amount, reason) = (NanoUsd(100), Reason::Earning);
            let transfer = Transfer { debit, credit, amount, reason };
            let id = EntryId::of(name, &[&id.0]);
            let entry = Entry { id, at: 1, action: Action::Post(transfer) };
            store.enter(Book::Live, &[entry]).await.expect("entered");
        };
        let mut found = Vec::new();
        for id in ids {
            earn("first", id).await;
            let (statement, signature) = (format!("{id:?}"), String::new());
            let (nonce, end) = ([id.0[0]; 16], UnixMs(10));
            let link = NewLink { contributor: id, account, nonce, end, statement, signature };
            found.push(store.link_account(&link, UnixMs(5)).await.expect("linked"));
            earn("second", id).await;
        }
        // Both were listed; then one was unlinked.
        assert!(store.unlink_account(ids[1], Book::Live, None, UnixMs(6)).await.expect("ended"));
        assert_eq!(store.forward_all(&found, UnixMs(7)).await.expect("moved"), 1);
        let has = async |account| {
            store.balance(Book::Live, account).await.expect("a balance").available().0
        };
        assert_eq!(has(Account::Contributor(ids[0])).await, 0);
        assert_eq!(has(Account::Contributor(ids[1])).await, 100);
        assert_eq!(has(requester(account)).await, 300);
        store.audit(Book::Live).await.expect("the auditor agrees");
    }
}
