//! What cards showed, known by its content, and who agreed to it.

use super::contributors::OWN;
use super::pay::Tx;
use super::{Store, StoreError, column, failed, to_sql};
use crate::time::UnixMs;
use crate::view::{NamedView, VIEW_MS_MAX};
use raven_engine::ContributorId;
use raven_protocol::{Receipt, SessionId, ViewId};
use sqlx::AssertSqlSafe;

/// Views that no session has named: cards that were opened within three days. What waits
/// changes with jobs, of which there are far fewer.
pub const UNNAMED_MAX: i64 = 100_000;
/// That a view was given once more is noted so often: a card that many open writes seldom.
const NOTED_MS: i64 = 3_600_000;
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

impl Store {
    /// The text of a view, where it is known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn card_view(&self, view: ViewId) -> Result<Option<String>, StoreError> {
        document(self.readers(), view).await
    }

    /// Keeps a view before a card gets it; `false` where there is no room for another one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn give_view(&self, view: &NamedView, now: UnixMs) -> Result<bool, StoreError> {
        let noted: Option<i64> =
            sqlx::query_scalar("SELECT given_ms FROM card_views WHERE id = ?1")
                .bind(&view.id.0[..])
                .fetch_optional(self.readers())
                .await
                .map_err(failed("look for a view"))?;
        if noted.is_some_and(|noted| now.0 < noted.saturating_add(NOTED_MS)) {
            return Ok(true);
        }
        if noted.is_none() && self.unnamed_views().await? >= UNNAMED_MAX {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO card_views (id, document, given_ms) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET given_ms = MAX(given_ms, excluded.given_ms)",
        )
        .bind(&view.id.0[..])
        .bind(&view.document)
        .bind(now.0)
        .execute(self.writer())
        .await
        .map(|_| true)
        .map_err(failed("keep a view"))
    }

    async fn unnamed_views(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT COUNT(*) FROM card_views WHERE named = 0")
            .fetch_one(self.readers())
            .await
            .map_err(failed("count views"))
    }

    /// Removes views that no session has named and none can name any more; answers how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_card_views(&self, now: UnixMs) -> Result<u64, StoreError> {
        sqlx::query("DELETE FROM card_views WHERE named = 0 AND given_ms < ?1")
            .bind(now.0.saturating_sub(VIEW_MS_MAX + VIEW_MS_MAX / 2))
            .execute(self.writer())
            .await
            .map(|done| done.rows_affected())
            .map_err(failed("forget views"))
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
