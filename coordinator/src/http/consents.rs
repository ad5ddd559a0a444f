//! `/v1/contributors/{key}/consents/{session}`: what somebody agreed to, for whoever signed it
//! and the wallet that collects for it.

use super::challenge::Contributor;
use super::contributors::own;
use super::extract::Path;
use super::{App, Problem};
use crate::runtime::session::hex;
use crate::store::{Consent, Signed};
use crate::time::UnixMs;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use raven_protocol::SessionId;
use serde_json::{Value, json};

pub fn routes() -> Router<App> {
    Router::new().route("/v1/contributors/{key}/consents/{session}", get(show))
}

async fn show(
    State(app): State<App>,
    contributor: Contributor,
    Path((key, session)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let key = own(&key, contributor)?;
    app.store.contributor_seen(key, UnixMs::now()).await?;
    let consent = match session.parse::<SessionId>() {
        Ok(session) => app.store.own_consent(key, session).await?,
        Err(_) => None,
    };
    let consent = consent.ok_or_else(|| {
        Problem::not_found("session: this key has no session of that name").with_field("session")
    })?;
    Ok(Json(told(&session, &consent)))
}

fn told(session: &str, Consent { contributor, receipts, view }: &Consent) -> Value {
    json!({
        "session": session,
        "key": hex(&contributor.0),
        "receipts": receipts.iter().map(signed).collect::<Vec<_>>(),
        // The text itself: only that has the name which the receipt gives it.
        "view": view.as_ref().map(|(id, document)| json!({ "id": id, "document": document })),
    })
}

fn signed(Signed { counter, at, receipt, signature }: &Signed) -> Value {
    json!({ "counter": counter, "at": at.rfc3339(), "receipt": receipt, "signature": signature })
}
