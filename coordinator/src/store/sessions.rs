//! Contributors' sessions and the receipts of their consent.

use super::partners::{self, Withheld};
use super::pay::Tx;
use super::{Store, StoreError, allocations, card_views, failed, from_sql, to_sql, unreadable};
use crate::allocation::AllocationKind;
use crate::runtime::SessionRecord;
use crate::runtime::session::Raise;
use crate::time::UnixMs;
use raven_protocol::{GoodbyeReason, SessionId};

/// A document's JSON text, or the unquoted text of a JSON string.
fn json_text<T: serde::Serialize>(column: &'static str, value: &T) -> Result<String, StoreError> {
    match serde_json::to_value(value).map_err(|error| unreadable("sessions", column, error))? {
        serde_json::Value::String(text) => Ok(text),
        value => Ok(value.to_string()),
    }
}

/// Stores a receipt for a higher share, before the share is used.
pub(super) async fn raised(
    transaction: &mut Tx<'_>,
    session: SessionId,
    raise: &Raise,
    now: UnixMs,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO session_receipts (session, counter, share, receipt, signature, signed_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(to_sql(session.0))
    .bind(i64::from(raise.counter))
    .bind(raise.share)
    .bind(&raise.receipt)
    .bind(&raise.signature)
    .bind(now.0)
    .execute(&mut **transaction)
    .await
    .map(drop)
    .map_err(failed("raise a session's share"))
}

impl Store {
    /// Stores a session with its signed receipt, before it gets any work. Its ticket is
    /// its key's from then on, and what its card showed is kept with it.
    ///
    /// # Errors
    /// [`StoreError::TicketTaken`], [`StoreError::StaleView`], [`StoreError::Database`].
    pub async fn session_opened(&self, session: &SessionRecord) -> Result<(), StoreError> {
        let now = UnixMs::now();
        let caps = self.site_caps();
        let mut transaction = self.begin().await?;
        let ticket = match session.ticket {
            Some(ticket) => Some(
                partners::take_ticket(&mut transaction, ticket, session.contributor, now).await?,
            ),
            None => None,
        };
        if let Some(view) = session.view
            && !card_views::name(&mut transaction, view, now).await?
        {
            return Err(StoreError::StaleView);
        }
        let withheld = match ticket {
            Some(ticket) if ticket.is_elsewhere => Some(Withheld::Network),
            _ => partners::withheld_at_start(&mut transaction, caps, session, now).await?,
        };
        sqlx::query(
            "INSERT INTO sessions (id, contributor, site, network_prefix, device_class, device,
                 numeric_class, share, workers, receipt, signature, opened_ms, origin,
                 withheld)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )
        .bind(to_sql(session.session.0))
        .bind(&session.contributor.0[..])
        .bind(session.site.map(|site| to_sql(site.0)))
        .bind(&session.prefix.0[..])
        .bind(json_text("device_class", &session.device.class)?)
        .bind(json_text("device", &session.device)?)
        .bind(json_text("numeric_class", &session.numeric)?)
        .bind(session.share)
        .bind(i64::from(session.workers))
        .bind(&session.receipt)
        .bind(&session.signature)
        .bind(now.0)
        .bind(&session.origin)
        .bind(withheld.map(Withheld::as_str))
        .execute(&mut *transaction)
        .await
        .map_err(failed("open a session"))?;
        allocations::append(&mut transaction, &session.allocation(), now).await?;
        transaction.commit().await.map_err(failed("commit a session"))
    }

    /// The receipts that a session sent after its first, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_receipts(&self, session: SessionId) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar(
            "SELECT receipt FROM session_receipts WHERE session = ?1 ORDER BY counter",
        )
        .bind(to_sql(session.0))
        .fetch_all(self.readers())
        .await
        .map_err(failed("read a session's receipts"))
    }

    /// How a session ended: `None` while it is open, else when, and the reason
    /// where a goodbye gave one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_end(
        &self,
        session: SessionId,
    ) -> Result<Option<(UnixMs, Option<String>)>, StoreError> {
        let row: (Option<i64>, Option<String>) =
            sqlx::query_as("SELECT closed_ms, closed_reason FROM sessions WHERE id = ?1")
                .bind(to_sql(session.0))
                .fetch_one(self.readers())
                .await
                .map_err(failed("read a session's end"))?;
        Ok(row.0.map(|closed| (UnixMs(closed), row.1)))
    }

    /// Notes a session's end; only the first is kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_closed(
        &self,
        session: SessionId,
        reason: Option<GoodbyeReason>,
    ) -> Result<(), StoreError> {
        let kind = match reason {
            Some(GoodbyeReason::Stopped) => AllocationKind::Revoke,
            _ => AllocationKind::End,
        };
        let reason = reason.map(|reason| json_text("closed_reason", &reason)).transpose()?;
        let now = UnixMs::now();
        let mut transaction = self.begin().await?;
        let closed = sqlx::query(
            "UPDATE sessions SET closed_ms = ?2, closed_reason = ?3
             WHERE id = ?1 AND closed_ms IS NULL",
        )
        .bind(to_sql(session.0))
        .bind(now.0)
        .bind(reason)
        .execute(&mut *transaction)
        .await
        .map_err(failed("close a session"))?;
        if closed.rows_affected() > 0 {
            allocations::end(&mut transaction, session, kind, now).await?;
        }
        transaction.commit().await.map_err(failed("commit a session's end"))
    }

    /// Closes the sessions that a process left open.
    pub(super) async fn close_sessions(&self, now: UnixMs) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let open: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM sessions WHERE closed_ms IS NULL ORDER BY id")
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed("list open sessions"))?;
        for id in open {
            sqlx::query("UPDATE sessions SET closed_ms = ?2 WHERE id = ?1")
                .bind(id)
                .bind(now.0)
                .execute(&mut *transaction)
                .await
                .map_err(failed("close sessions"))?;
            let session = SessionId(from_sql(id));
            allocations::end(&mut transaction, session, AllocationKind::End, now).await?;
        }
        transaction.commit().await.map_err(failed("commit closed sessions"))
    }
}
