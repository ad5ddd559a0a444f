//! Wallets: keys of the coordinator's own page that collect what contributors have
//! earned, and the end of what nobody collects.

use super::books::{self, Book, BooksError};
use super::earners::Earners;
use super::{Store, StoreError, column, failed, hash_column, unreadable};
use crate::time::{DAY_MS, UnixMs};
use raven_engine::ContributorId;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};

/// Contributors of one wallet that are linked within [`LINK_DAYS`]: more of them are no longer
/// one person's browsers. A browser may make a new key for every visit, for years.
pub const LINKS_MAX: u64 = 1_000;
pub const LINK_DAYS: i64 = 30;
/// Accounts that one transaction of the upkeep moves at most: others write in between.
pub(super) const ACCOUNTS_AT_ONCE: i64 = 500;
/// Such transactions of one turn, where many are due at the same time.
const LOOKS_AT_ONCE: u32 = 20;

/// What linked contributors behind one have earned since, in the order of their keys.
pub(super) const TO_COLLECT: &str = "SELECT l.contributor AS contributor, l.wallet AS wallet
     FROM wallet_links l CROSS JOIN accounts a
         ON a.book = ?1 AND a.name = 'contributor:' || lower(hex(l.contributor))
     WHERE a.posted > a.held_out AND l.contributor > ?2 ORDER BY l.contributor LIMIT ?3";

/// Accounts of contributors of whom nothing was seen since a time, as far as is known
/// from when they were looked at last.
pub(super) const DUE: &str = "SELECT a.book AS book, unhex(substr(a.name, 13)) AS contributor
     FROM unclaimed_looks due CROSS JOIN accounts a ON a.id = due.account
     WHERE due.seen_ms <= ?1 ORDER BY due.seen_ms LIMIT ?2";
/// Whether nobody has claimed what is in one of them.
const IS_UNCLAIMED: &str = "SELECT 1 FROM accounts a
     WHERE a.book = ?3 AND a.name = ?4 AND a.posted > a.held_out
         AND NOT EXISTS (SELECT 1 FROM sessions s
             WHERE s.contributor = unhex(substr(a.name, 13)) AND COALESCE(s.closed_ms, ?1) > ?2)
         AND NOT EXISTS (SELECT 1 FROM contributors c
             WHERE c.key = unhex(substr(a.name, 13)) AND c.seen_ms > ?2)
         AND NOT EXISTS (SELECT 1 FROM wallet_links l
             WHERE l.contributor = unhex(substr(a.name, 13))
                 OR l.wallet = unhex(substr(a.name, 13)))
         AND NOT EXISTS (SELECT 1 FROM account_links t
             WHERE t.contributor = unhex(substr(a.name, 13)) AND t.book = a.book
                 AND t.unlinked_ms IS NULL)";
/// Notes that an account was looked at: what was seen of its owner since `?4`, or that there
/// was nothing to take.
const LOOKED: &str = "UPDATE unclaimed_looks SET seen_ms = COALESCE((
         SELECT MAX(seen) FROM (
             SELECT MAX(COALESCE(closed_ms, ?3)) AS seen FROM sessions WHERE contributor = ?5
             UNION ALL SELECT seen_ms FROM contributors WHERE key = ?5)
         WHERE seen > ?4), ?3)
     WHERE account = (SELECT id FROM accounts WHERE book = ?1 AND name = ?2)";

/// A contributor whose earnings a wallet collects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalletLink {
    pub contributor: ContributorId,
    pub linked: UnixMs,
}

/// A claim whose signatures are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub contributor: ContributorId,
    pub wallet: ContributorId,
    /// The exact text that the contributor signed.
    pub statement: String,
    pub signature: String,
}

/// Why a claim is refused.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("the contributor's earnings go to another wallet already")]
    Claimed,
    #[error("the contributor's earnings go to an account: it is unlinked first")]
    Linked,
    #[error("the contributor has given its earnings to a site")]
    Given,
    #[error(
        "a wallet cannot be claimed, and a contributor whose earnings go elsewhere is no wallet"
    )]
    Chained,
    #[error("the contributor has neither computed nor earned anything here")]
    Unknown,
    #[error("the wallet has {LINKS_MAX} new contributors within {LINK_DAYS} days, the limit")]
    Full,
    #[error(transparent)]
    Books(#[from] BooksError),
}

impl From<StoreError> for ClaimError {
    fn from(error: StoreError) -> Self {
        ClaimError::Books(error.into())
    }
}

impl Store {
    /// Links a contributor to a wallet and moves what it has. The same claim again changes
    /// nothing but what has been earned since.
    ///
    /// # Errors
    /// [`ClaimError`]; then nothing is linked and nothing moved.
    pub async fn claim(&self, claim: &Claim, now: UnixMs) -> Result<(), ClaimError> {
        let mut transaction = self.begin().await?;
        check(&mut transaction, claim, now).await?;
        sqlx::query(
            "INSERT INTO wallet_links (contributor, wallet, linked_ms, statement, signature)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        )
        .bind(&claim.contributor.0[..])
        .bind(&claim.wallet.0[..])
        .bind(now.0)
        .bind(&claim.statement)
        .bind(&claim.signature)
        .execute(&mut *transaction)
        .await
        .map_err(failed("link a contributor"))?;
        let (from, to) = (claim.contributor, Account::Contributor(claim.wallet));
        for book in Book::ALL {
            give_all(&mut transaction, book, from, to, Reason::Claim, now).await?;
        }
        transaction.commit().await.map_err(failed("commit a claim"))?;
        Ok(())
    }

    /// The newest contributors of a wallet, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wallet_links(
        &self,
        wallet: ContributorId,
        limit: u32,
    ) -> Result<Vec<WalletLink>, StoreError> {
        let rows = sqlx::query(
            "SELECT contributor, linked_ms FROM wallet_links WHERE wallet = ?1
             ORDER BY linked_ms DESC LIMIT ?2",
        )
        .bind(&wallet.0[..])
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await
        .map_err(failed("list a wallet's contributors"))?;
        let link = |row: &SqliteRow| {
            Ok(WalletLink {
                contributor: ContributorId(hash_column(row, "wallet_links", "contributor")?),
                linked: UnixMs(column(row, "wallet_links", "linked_ms")?),
            })
        };
        rows.iter().map(link).collect()
    }

    /// The wallet that collects for a contributor.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wallet_of(
        &self,
        contributor: ContributorId,
    ) -> Result<Option<ContributorId>, StoreError> {
        let row = sqlx::query("SELECT wallet FROM wallet_links WHERE contributor = ?1")
            .bind(&contributor.0[..])
            .fetch_optional(self.readers())
            .await
            .map_err(failed("read a contributor's wallet"))?;
        let wallet = row.map(|row| hash_column(&row, "wallet_links", "wallet"));
        Ok(wallet.transpose()?.map(ContributorId))
    }

    /// Moves to their wallets what linked contributors have earned since. Answers how many had some.
    ///
    /// # Errors
    /// [`BooksError`].
    pub async fn collect(&self, now: UnixMs) -> Result<u64, BooksError> {
        let mut moved = 0;
        for book in Book::ALL {
            let mut earners = Earners::new(TO_COLLECT, book);
            while let Some(rows) = earners.next(self).await? {
                moved += rows.len() as u64;
                self.collect_all(book, &rows, now).await?;
            }
        }
        Ok(moved)
    }

    /// A link of a wallet is for good: nobody has to look again.
    async fn collect_all(
        &self,
        book: Book,
        rows: &[SqliteRow],
        now: UnixMs,
    ) -> Result<(), BooksError> {
        let mut transaction = self.begin().await?;
        for row in rows {
            let from = ContributorId(hash_column(row, "wallet_links", "contributor")?);
            let to = ContributorId(hash_column(row, "wallet_links", "wallet")?);
            let to = Account::Contributor(to);
            give_all(&mut transaction, book, from, to, Reason::Claim, now).await?;
        }
        transaction.commit().await.map_err(failed("commit what was collected"))?;
        Ok(())
    }

    /// Gives to the reserve what nobody has claimed of contributors that were not seen for
    /// `days`: neither at work nor with their key. What a wallet has collected is
    /// claimed; an address to be paid to is no claim yet. Answers how many had some.
    ///
    /// # Errors
    /// [`BooksError`].
    pub async fn expire_unclaimed(&self, now: UnixMs, days: u32) -> Result<u64, BooksError> {
        let before = now.0.saturating_sub(i64::from(days) * DAY_MS);
        let mut taken = 0;
        for _ in 0..LOOKS_AT_ONCE {
            let rows = sqlx::query(DUE)
                .bind(before)
                .bind(ACCOUNTS_AT_ONCE)
                .fetch_all(self.readers())
                .await
                .map_err(failed("list what nobody may have claimed"))?;
            let mut found = Vec::with_capacity(rows.len());
            for row in &rows {
                let from = ContributorId(hash_column(row, "accounts", "contributor")?);
                found.push((read_book(row)?, from));
            }
            taken += self.take_unclaimed(&found, now, before).await?;
            if (found.len() as i64) < ACCOUNTS_AT_ONCE {
                break;
            }
        }
        Ok(taken)
    }

    /// Whoever came back since they were listed keeps what is theirs. Each is looked at again
    /// once as much time has passed since it was seen.
    async fn take_unclaimed(
        &self,
        found: &[(Book, ContributorId)],
        now: UnixMs,
        before: i64,
    ) -> Result<u64, BooksError> {
        if found.is_empty() {
            return Ok(0);
        }
        let (mut transaction, mut taken) = (self.begin().await?, 0);
        for &(book, from) in found {
            let row = sqlx::query(IS_UNCLAIMED)
                .bind(now.0)
                .bind(before)
                .bind(book.as_str())
                .bind(Account::Contributor(from).to_string())
                .fetch_optional(&mut *transaction)
                .await
                .map_err(failed("look whether something is unclaimed"))?;
            if row.is_some() {
                let to = Account::Reserve;
                give_all(&mut transaction, book, from, to, Reason::Unclaimed, now).await?;
                taken += 1;
            }
            sqlx::query(LOOKED)
                .bind(book.as_str())
                .bind(Account::Contributor(from).to_string())
                .bind(now.0)
                .bind(before)
                .bind(&from.0[..])
                .execute(&mut *transaction)
                .await
                .map_err(failed("note when an account was looked at"))?;
        }
        transaction.commit().await.map_err(failed("commit what has expired"))?;
        Ok(taken)
    }

    /// When a contributor was last at work or proved its key; `now` while it is at work.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_seen(
        &self,
        key: ContributorId,
        now: UnixMs,
    ) -> Result<Option<UnixMs>, StoreError> {
        let last: Option<i64> = sqlx::query_scalar(
            "SELECT MAX(seen) FROM (
                 SELECT MAX(COALESCE(closed_ms, ?2)) AS seen FROM sessions WHERE contributor = ?1
                 UNION ALL SELECT seen_ms FROM contributors WHERE key = ?1)",
        )
        .bind(&key.0[..])
        .bind(now.0)
        .fetch_one(self.readers())
        .await
        .map_err(failed("read when a contributor was seen"))?;
        Ok(last.map(UnixMs))
    }
}

/// Whether a claim may be: one contributor has one wallet, and wallets are not claimed.
async fn check(
    transaction: &mut Transaction<'_, Sqlite>,
    claim: &Claim,
    now: UnixMs,
) -> Result<(), ClaimError> {
    let row = sqlx::query(
        "SELECT (SELECT wallet FROM wallet_links WHERE contributor = ?1) AS wallet,
             EXISTS (SELECT 1 FROM wallet_links WHERE wallet = ?1)
                 OR EXISTS (SELECT 1 FROM wallet_links WHERE contributor = ?2) AS chained,
             EXISTS (SELECT 1 FROM sessions WHERE contributor = ?1)
                 OR EXISTS (SELECT 1 FROM accounts WHERE book = 'live' AND name = ?4)
                 OR EXISTS (SELECT 1 FROM accounts WHERE book = 'test' AND name = ?4) AS known,
             EXISTS (SELECT 1 FROM account_links
                 WHERE contributor = ?1 AND unlinked_ms IS NULL) AS linked,
             EXISTS (SELECT 1 FROM gifts WHERE contributor = ?1) AS given,
             (SELECT COUNT(*) FROM wallet_links WHERE wallet = ?2 AND linked_ms > ?3) AS links",
    )
    .bind(&claim.contributor.0[..])
    .bind(&claim.wallet.0[..])
    .bind(now.0.saturating_sub(LINK_DAYS * DAY_MS))
    .bind(Account::Contributor(claim.contributor).to_string())
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed("look for a claim"))?;
    let wallet: Option<&[u8]> = column(&row, "wallet_links", "wallet")?;
    let is_linked = match wallet {
        Some(wallet) if wallet == claim.wallet.0 => true,
        Some(_) => return Err(ClaimError::Claimed),
        None => false,
    };
    let is_chained: bool = column(&row, "wallet_links", "chained")?;
    if is_chained || claim.contributor == claim.wallet {
        return Err(ClaimError::Chained);
    }
    // Two who take the same money would get it by chance.
    let goes_to_account: bool = column(&row, "account_links", "linked")?;
    if goes_to_account {
        return Err(ClaimError::Linked);
    }
    let is_given: bool = column(&row, "gifts", "given")?;
    if is_given {
        return Err(ClaimError::Given);
    }
    // Keys cost nothing: a row for one that has nothing would be free, too.
    let is_known: bool = column(&row, "sessions", "known")?;
    if !is_known {
        return Err(ClaimError::Unknown);
    }
    let links = super::u64_column(&row, "wallet_links", "links")?;
    if !is_linked && links >= LINKS_MAX {
        return Err(ClaimError::Full);
    }
    Ok(())
}

/// Moves all that a contributor can spend. What is left afterwards is nothing, so that
/// whoever does it again moves nothing.
pub(super) async fn give_all(
    transaction: &mut Transaction<'_, Sqlite>,
    book: Book,
    from: ContributorId,
    to: Account,
    reason: Reason,
    now: UnixMs,
) -> Result<(), BooksError> {
    let debit = Account::Contributor(from);
    let row = sqlx::query(
        "SELECT posted - held_out AS available,
             (SELECT COALESCE(MAX(number), 0) FROM entries WHERE book = ?1) AS last
         FROM accounts WHERE book = ?1 AND name = ?2",
    )
    .bind(book.as_str())
    .bind(debit.to_string())
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("read earnings"))?;
    let Some(row) = row else { return Ok(()) };
    let available: i64 = column(&row, "accounts", "available")?;
    let last: i64 = column(&row, "entries", "last")?;
    if available <= 0 {
        return Ok(());
    }
    let transfer = Transfer { debit, credit: to, amount: NanoUsd(available), reason };
    // The place in the chain makes it another one than any before.
    let id = EntryId::of(reason.as_str(), &[&from.0, &last.to_le_bytes()]);
    let entries = [Entry { id, at: now.0, action: Action::Post(transfer) }];
    books::enter(transaction, book, &entries).await.map(drop)
}

fn read_book(row: &SqliteRow) -> Result<Book, StoreError> {
    let text: &str = column(row, "accounts", "book")?;
    text.parse().map_err(|error| unreadable("accounts", "book", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_comes_back_between_the_list_and_its_sweep_keeps_what_is_theirs() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("raven.sqlite")).await.expect("opened");
        let ids = [1, 2, 3, 4].map(|who| ContributorId([who; 32]));
        for id in ids {
            let (debit, credit) = (Account::External, Account::Contributor(id));
            let transfer =
                Transfer { debit, credit, amount: NanoUsd(100), reason: Reason::Earning };
            let id = EntryId::of("test", &[&id.0]);
            let entry = Entry { id, at: 1, action: Action::Post(transfer) };
            store.enter(Book::Live, &[entry]).await.expect("entered");
        }
        // All of them were listed; then one has proven its key, and one was collected.
        let now = UnixMs(1_000_000);
        store.contributor_seen(ids[1], UnixMs(900_000)).await.expect("noted");
        store.contributor_seen(ids[2], UnixMs(400_000)).await.expect("noted");
        let (statement, signature) = (String::new(), String::new());
        let claim = Claim { contributor: ids[3], wallet: ids[1], statement, signature };
        store.claim(&claim, now).await.expect("claimed");
        let found = ids.map(|id| (Book::Live, id));
        let taken = store.take_unclaimed(&found, now, 500_000).await.expect("swept");
        assert_eq!(taken, 2);
        let reserve = store.balance(Book::Live, Account::Reserve).await.expect("read");
        assert_eq!(reserve.posted, 200);
        let back = store.balance(Book::Live, Account::Contributor(ids[1])).await.expect("read");
        assert_eq!(back.posted, 200, "its own and what it has collected");
        assert_eq!(store.expire_unclaimed(now, 0).await.expect("swept"), 0);
    }

    #[tokio::test]
    async fn an_account_is_looked_at_again_when_it_may_be_due() {
        const DAY_MS: i64 = 86_400_000;
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("raven.sqlite")).await.expect("opened");
        let [gone, back, empty] = [1, 2, 3].map(|who| ContributorId([who; 32]));
        let give = async |to: ContributorId, name: &str| {
            let (debit, credit) = (Account::External, Account::Contributor(to));
            let (amount, reason) = (NanoUsd(100), Reason::Earning);
            let transfer = Transfer { debit, credit, amount, reason };
            let id = EntryId::of(name, &[&to.0]);
            let entry = Entry { id, at: 1, action: Action::Post(transfer) };
            store.enter(Book::Live, &[entry]).await.expect("entered");
        };
        let due = async |day: i64| {
            let rows = sqlx::query(DUE).bind((day - 180) * DAY_MS).bind(10);
            rows.fetch_all(store.readers()).await.expect("listed").len()
        };
        let sweep = async |day: i64| {
            store.expire_unclaimed(UnixMs(day * DAY_MS), 180).await.expect("swept")
        };
        for who in [gone, back, empty] {
            give(who, "first").await;
        }
        store.contributor_seen(gone, UnixMs(1_000 * DAY_MS)).await.expect("noted");
        store.contributor_seen(back, UnixMs(1_000 * DAY_MS)).await.expect("noted");
        // New accounts are looked at once: of the third nobody was ever seen.
        assert_eq!((due(1_001).await, sweep(1_001).await), (3, 1));
        assert_eq!((due(1_002).await, sweep(1_002).await), (0, 0), "nobody is due");
        store.contributor_seen(back, UnixMs(1_100 * DAY_MS)).await.expect("noted");
        // The empty account earns again and nobody comes for it.
        give(empty, "second").await;
        assert_eq!((due(1_180).await, sweep(1_180).await), (2, 1), "one of them came back");
        assert_eq!((due(1_181).await, sweep(1_181).await), (1, 1), "what was earned later");
        assert_eq!((due(1_279).await, due(1_280).await, sweep(1_280).await), (0, 1, 1));
        let reserve = store.balance(Book::Live, Account::Reserve).await.expect("read");
        assert_eq!(reserve.posted, 400);
        store.audit(Book::Live).await.expect("the auditor agrees");
    }
}
