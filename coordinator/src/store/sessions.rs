//! Contributors' sessions and the receipts of their consent.

use super::{Store, StoreError, failed, to_sql, unreadable};
use crate::runtime::SessionRecord;
use crate::time::UnixMs;
use raven_protocol::{GoodbyeReason, SessionId};

/// A document's JSON text, or the unquoted text of a JSON string.
fn json_text<T: serde::Serialize>(column: &'static str, value: &T) -> Result<String, StoreError> {
    match serde_json::to_value(value).map_err(|error| unreadable("sessions", column, error))? {
        serde_json::Value::String(text) => Ok(text),
        value => Ok(value.to_string()),
    }
}

impl Store {
    /// Stores a session with its signed receipt, before it gets any work.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_opened(&self, session: &SessionRecord) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO sessions (id, contributor, site, network_prefix, device_class, device,
                 numeric_class, share, workers, receipt, signature, opened_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
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
        .bind(UnixMs::now().0)
        .execute(self.writer())
        .await
        .map(drop)
        .map_err(failed("open a session"))
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
        let reason = reason.map(|reason| json_text("closed_reason", &reason)).transpose()?;
        sqlx::query(
            "UPDATE sessions SET closed_ms = ?2, closed_reason = ?3
             WHERE id = ?1 AND closed_ms IS NULL",
        )
        .bind(to_sql(session.0))
        .bind(UnixMs::now().0)
        .bind(reason)
        .execute(self.writer())
        .await
        .map(drop)
        .map_err(failed("close a session"))
    }
}
