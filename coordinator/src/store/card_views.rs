//! What cards showed, known by its content, and who agreed to it.

use super::contributors::OWN;
use super::pay::Tx;
use super::{Store, StoreError, column, failed, to_sql};
use crate::time::UnixMs;
use crate::view::{NamedView, VIEW_MS_MAX};
use raven_engine::{ContributorId, SiteId};
use raven_protocol::{Receipt, SessionId, ViewId};
use sqlx::AssertSqlSafe;

/// Views of one site that its cards got of late. What waits changes with jobs: this is one
/// change in two seconds for half an hour, and a yes comes within minutes of its card.
pub const VIEWS_PER_SITE_MAX: i64 = 1_000;
/// That a view was given once more is noted so often: a card that many open writes seldom.
const NOTED_MS: i64 = 600_000;
/// Receipts of one session that are listed, the newest ones.
const RECEIPTS_MAX: i64 = 100;

/// What somebody signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub counter: u32,
    pub at: UnixMs,
    /// The exact text.
    pub receipt: String,
    /// Ed25519, in hex.
    pub signature: String,
}

/// What was agreed to for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    pub contributor: ContributorId,
    /// The first, and the newest of those for more.
    pub receipts: Vec<Signed>,
    /// What the card showed, where there was one.
    pub view: Option<(ViewId, String)>,
}

/// Notes that a session names a view; `false` where it is not known, or too old to be named.
pub(super) async fn name(
    transaction: &mut Tx<'_>,
    view: ViewId,
    now: UnixMs,
) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE card_views SET named = 1 WHERE id = ?1 AND given_ms > ?2")
        .bind(&view.0[..])
        // It may have been given once more since that was noted.
        .bind(now.0.saturating_sub(VIEW_MS_MAX + NOTED_MS))
        .execute(&mut **transaction)
        .await
        .map_err(failed("name a view"))?;
    Ok(done.rows_affected() > 0)
}

/// The text of a view.
pub(super) async fn document(
    from: impl sqlx::SqliteExecutor<'_>,
    view: ViewId,
) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar("SELECT document FROM card_views WHERE id = ?1")
        .bind(&view.0[..])
        .fetch_optional(from)
        .await
        .map_err(failed("read a view"))
}

/// Notes that a site's cards got a view.
async fn give_to_site(
    transaction: &mut Tx<'_>,
    view: ViewId,
    site: SiteId,
    now: UnixMs,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO card_views_of_sites (site, view, given_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT (site, view) DO UPDATE SET given_ms = MAX(given_ms, excluded.given_ms)",
    )
    .bind(to_sql(site.0))
    .bind(&view.0[..])
    .bind(now.0)
    .execute(&mut **transaction)
    .await
    .map(drop)
    .map_err(failed("note a site's view"))
}

/// Makes room among a site's views. One that a session has named, or that cards of other
/// sites got, is kept.
async fn forget_oldest(transaction: &mut Tx<'_>, site: SiteId) -> Result<(), StoreError> {
    let oldest: Vec<Vec<u8>> = sqlx::query_scalar(
        "DELETE FROM card_views_of_sites WHERE site = ?1 AND view IN (
             SELECT view FROM card_views_of_sites WHERE site = ?1
             ORDER BY given_ms DESC, view LIMIT -1 OFFSET ?2)
         RETURNING view",
    )
    .bind(to_sql(site.0))
    .bind(VIEWS_PER_SITE_MAX)
    .fetch_all(&mut **transaction)
    .await
    .map_err(failed("find a site's oldest views"))?;
    for view in oldest {
        sqlx::query(
            "DELETE FROM card_views WHERE id = ?1 AND named = 0
             AND NOT EXISTS (SELECT 1 FROM card_views_of_sites WHERE view = ?1)",
        )
        .bind(view)
        .execute(&mut **transaction)
        .await
        .map_err(failed("forget a view"))?;
    }
    Ok(())
}

impl Store {
    /// The text of a view, where it is known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn card_view(&self, view: ViewId) -> Result<Option<String>, StoreError> {
        document(self.readers(), view).await
    }

    /// Keeps a view before a card gets it: one that shows what waits for the visitors of
    /// `site`, or else that of every card.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn give_view(
        &self,
        view: &NamedView,
        site: Option<SiteId>,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let noted = self.view_noted(view.id, site).await?;
        if noted.is_some_and(|noted| now.0 < noted.saturating_add(NOTED_MS)) {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO card_views (id, document, given_ms) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET given_ms = MAX(given_ms, excluded.given_ms)",
        )
        .bind(&view.id.0[..])
        .bind(&view.document)
        .bind(now.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed("keep a view"))?;
        if let Some(site) = site {
            give_to_site(&mut transaction, view.id, site, now).await?;
            if noted.is_none() {
                forget_oldest(&mut transaction, site).await?;
            }
        }
        transaction.commit().await.map_err(failed("commit a view"))
    }

    /// When it was last noted that a site's cards got a view, or that any did.
    async fn view_noted(
        &self,
        view: ViewId,
        site: Option<SiteId>,
    ) -> Result<Option<i64>, StoreError> {
        let query = match site {
            Some(site) => sqlx::query_scalar(
                "SELECT given_ms FROM card_views_of_sites WHERE view = ?1 AND site = ?2",
            )
            .bind(view.0.to_vec())
            .bind(to_sql(site.0)),
            None => sqlx::query_scalar("SELECT given_ms FROM card_views WHERE id = ?1")
                .bind(view.0.to_vec()),
        };
        query.fetch_optional(self.readers()).await.map_err(failed("look for a view"))
    }

    /// Removes views that no session has named and none can name any more; answers how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_card_views(&self, now: UnixMs) -> Result<u64, StoreError> {
        let before = now.0.saturating_sub(VIEW_MS_MAX + VIEW_MS_MAX / 2);
        let mut transaction = self.begin().await?;
        // A site got none of them later than anybody did.
        let mut forgotten = 0;
        for sql in [
            "DELETE FROM card_views_of_sites WHERE given_ms < ?1",
            "DELETE FROM card_views WHERE named = 0 AND given_ms < ?1",
        ] {
            let done = sqlx::query(sql).bind(before).execute(&mut *transaction).await;
            forgotten = done.map_err(failed("forget views"))?.rows_affected();
        }
        transaction.commit().await.map_err(failed("commit forgotten views"))?;
        Ok(forgotten)
    }

    /// What was agreed to for a session of a key, or of one for whom it collects.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn own_consent(
        &self,
        key: ContributorId,
        session: SessionId,
    ) -> Result<Option<Consent>, StoreError> {
        let row = sqlx::query(AssertSqlSafe(format!(
            "SELECT s.contributor, s.opened_ms, s.receipt, s.signature
             FROM {OWN} k JOIN sessions s ON s.contributor = k.key WHERE s.id = ?2"
        )))
        .bind(&key.0[..])
        .bind(to_sql(session.0))
        .fetch_optional(self.readers())
        .await
        .map_err(failed("read a consent"))?;
        let Some(row) = row else { return Ok(None) };
        let table = "sessions";
        let first = Signed {
            counter: 0,
            at: UnixMs(column(&row, table, "opened_ms")?),
            receipt: column(&row, table, "receipt")?,
            signature: column(&row, table, "signature")?,
        };
        let view = match Receipt::from_text(&first.receipt).ok().and_then(|it| it.view) {
            Some(id) => document(self.readers(), id).await?.map(|document| (id, document)),
            None => None,
        };
        let contributor = ContributorId(super::hash_column(&row, table, "contributor")?);
        let mut receipts = vec![first];
        receipts.extend(self.later_receipts(session).await?);
        Ok(Some(Consent { contributor, receipts, view }))
    }

    /// The newest receipts of a session after its first, newest first.
    async fn later_receipts(&self, session: SessionId) -> Result<Vec<Signed>, StoreError> {
        let rows = sqlx::query(
            "SELECT counter, signed_ms, receipt, signature FROM session_receipts
             WHERE session = ?1 ORDER BY counter DESC LIMIT ?2",
        )
        .bind(to_sql(session.0))
        .bind(RECEIPTS_MAX)
        .fetch_all(self.readers())
        .await
        .map_err(failed("read a session's receipts"))?;
        let table = "session_receipts";
        rows.iter()
            .map(|row| {
                Ok(Signed {
                    counter: super::u32_column(row, table, "counter")?,
                    at: UnixMs(column(row, table, "signed_ms")?),
                    receipt: column(row, table, "receipt")?,
                    signature: column(row, table, "signature")?,
                })
            })
            .collect()
    }
}
