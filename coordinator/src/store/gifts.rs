//! What contributors give to the site through which they came: all that their key has and
//! what still matures, for good. A browser says so before it erases its key.

use super::books::{Book, BooksError};
use super::earners::Earners;
use super::partners;
use super::wallets::give_all;
use super::{Store, StoreError, column, failed, from_sql, hash_column, to_sql};
use crate::time::UnixMs;
use raven_engine::ledger::{Account, Reason};
use raven_engine::{ContributorId, SiteId};
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteRow};

type Tx<'a> = Transaction<'a, Sqlite>;

/// What givers behind one have earned since, in the order of their keys.
pub(super) const TO_GIVE: &str = "SELECT g.contributor AS contributor, g.site AS site
     FROM gifts g CROSS JOIN accounts a
         ON a.book = ?1 AND a.name = 'contributor:' || lower(hex(g.contributor))
     WHERE a.posted > a.held_out AND g.contributor > ?2 ORDER BY g.contributor LIMIT ?3";

/// A gift whose signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gift {
    pub contributor: ContributorId,
    pub site: SiteId,
    /// The exact text that the contributor signed.
    pub statement: String,
    pub signature: String,
}

/// Why a gift is refused.
#[derive(Debug, thiserror::Error)]
pub enum GiftError {
    #[error("a wallet collects what the contributor earns")]
    Collected,
    #[error("the contributor's earnings go to an account: it is unlinked first")]
    Linked,
    #[error("the contributor has given its earnings to another site")]
    Given,
    #[error("the contributor has not computed through this site")]
    Stranger,
    #[error(transparent)]
    Books(#[from] BooksError),
}

impl From<StoreError> for GiftError {
    fn from(error: StoreError) -> Self {
        GiftError::Books(error.into())
    }
}

impl Store {
    /// Gives what a contributor has to a site, and what it will have. The same gift again
    /// changes nothing but what has matured since.
    ///
    /// # Errors
    /// [`GiftError`]; then nothing is given and nothing moved.
    pub async fn give(&self, gift: &Gift, now: UnixMs) -> Result<(), GiftError> {
        let mut transaction = self.begin().await?;
        check(&mut transaction, gift).await?;
        sqlx::query(
            "INSERT INTO gifts (contributor, site, given_ms, statement, signature)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        )
        .bind(&gift.contributor.0[..])
        .bind(to_sql(gift.site.0))
        .bind(now.0)
        .bind(&gift.statement)
        .bind(&gift.signature)
        .execute(&mut *transaction)
        .await
        .map_err(failed("note a gift"))?;
        for book in Book::ALL {
            hand_over(&mut transaction, book, gift.contributor, gift.site, now).await?;
        }
        transaction.commit().await.map_err(failed("commit a gift"))?;
        Ok(())
    }

    /// The site to which a contributor has given what it earns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn given_to(&self, from: ContributorId) -> Result<Option<SiteId>, StoreError> {
        let site: Option<i64> = sqlx::query_scalar("SELECT site FROM gifts WHERE contributor = ?1")
            .bind(&from.0[..])
            .fetch_optional(self.readers())
            .await
            .map_err(failed("read a contributor's gift"))?;
        Ok(site.map(|site| SiteId(from_sql(site))))
    }

    /// Moves to their sites what givers have earned since. Answers how many had some.
    ///
    /// # Errors
    /// [`BooksError`].
    pub async fn give_later(&self, now: UnixMs) -> Result<u64, BooksError> {
        let mut moved = 0;
        for book in Book::ALL {
            let mut earners = Earners::new(TO_GIVE, book);
            while let Some(rows) = earners.next(self).await? {
                moved += rows.len() as u64;
                self.give_rows(book, &rows, now).await?;
            }
        }
        Ok(moved)
    }

    /// A gift is for good: nobody has to look again.
    async fn give_rows(
        &self,
        book: Book,
        rows: &[SqliteRow],
        now: UnixMs,
    ) -> Result<(), BooksError> {
        let mut transaction = self.begin().await?;
        for row in rows {
            let from = ContributorId(hash_column(row, "gifts", "contributor")?);
            let site = SiteId(from_sql(column(row, "gifts", "site")?));
            hand_over(&mut transaction, book, from, site, now).await?;
        }
        transaction.commit().await.map_err(failed("commit what was given"))?;
        Ok(())
    }
}

/// Moves what a giver has. As with what is left to a site from the start, one whose page is
/// not shown to be its own, or whose money is of the other kind, gets nothing: the reserve does.
async fn hand_over(
    transaction: &mut Tx<'_>,
    book: Book,
    from: ContributorId,
    site: SiteId,
    now: UnixMs,
) -> Result<(), BooksError> {
    let origin: Option<Option<String>> = sqlx::query_scalar(
        "SELECT origin FROM sessions WHERE contributor = ?1 AND site = ?2
         ORDER BY opened_ms DESC LIMIT 1",
    )
    .bind(&from.0[..])
    .bind(to_sql(site.0))
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed("read a giver's page"))?;
    let earns = partners::earns(transaction, site, origin.flatten().as_ref(), book).await?;
    let to = if earns { Account::Site(site) } else { Account::Reserve };
    give_all(transaction, book, from, to, Reason::Gift, now).await
}

/// Whether a gift may be: what goes elsewhere already is not given too.
async fn check(transaction: &mut Tx<'_>, gift: &Gift) -> Result<(), GiftError> {
    let row = sqlx::query(
        "SELECT (SELECT site FROM gifts WHERE contributor = ?1) AS given,
             EXISTS (SELECT 1 FROM wallet_links WHERE contributor = ?1 OR wallet = ?1) AS collected,
             EXISTS (SELECT 1 FROM account_links
                 WHERE contributor = ?1 AND unlinked_ms IS NULL) AS linked,
             EXISTS (SELECT 1 FROM sessions WHERE contributor = ?1 AND site = ?2) AS came",
    )
    .bind(&gift.contributor.0[..])
    .bind(to_sql(gift.site.0))
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed("look for a gift"))?;
    let given: Option<i64> = column(&row, "gifts", "given")?;
    let is_collected: bool = column(&row, "wallet_links", "collected")?;
    let is_linked: bool = column(&row, "account_links", "linked")?;
    let came: bool = column(&row, "sessions", "came")?;
    if is_collected {
        Err(GiftError::Collected)
    } else if is_linked {
        Err(GiftError::Linked)
    } else if given.is_some_and(|site| site != to_sql(gift.site.0)) {
        Err(GiftError::Given)
    } else if !came {
        Err(GiftError::Stranger)
    } else {
        Ok(())
    }
}
