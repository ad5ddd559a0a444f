//! `/v1/recover`: an account for whoever has lost its keys.

use super::auth::Caller;
use super::body::JsonBody;
use super::keys::secret;
use super::{App, Problem};
use crate::secret::{Secret, SecretKind};
use crate::store::requester;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;
use serde_json::json;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/recover", post(recover))
        .route("/v1/account/recovery-code", post(renew))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Code {
    code: String,
}

/// A new code in the place of the one before.
async fn renew(State(app): State<App>, Caller(caller): Caller) -> Result<Response, Problem> {
    if caller.expires.is_some() {
        let detail = "the key that asks has an end: what it makes would outlast it";
        return Err(Problem::forbidden(detail));
    }
    let code = Secret::generate(SecretKind::Recovery);
    app.store.set_recovery(caller.account, caller.number, &code).await?;
    Ok(secret(StatusCode::CREATED, json!({ "recovery_code": code.reveal() })))
}

/// Needs no key: the front counts it with all requests of its network, and a code
/// has 200 random bits.
async fn recover(
    State(app): State<App>,
    JsonBody(Code { code }, _): JsonBody<Code>,
) -> Result<Response, Problem> {
    let code = Secret::parse(SecretKind::Recovery, code.trim())
        .map_err(|error| Problem::invalid(format!("code: {error}")).with_field("code"))?;
    let next = Secret::generate(SecretKind::Recovery);
    let Some((owner, key)) = app.store.recover(&code, &next).await? else {
        return Err(Problem::unauthorized("the code is of no account, or was used before"));
    };
    tracing::info!(account = %requester(owner), "an account was recovered");
    let answer = json!({
        "account": requester(owner).to_string(), "key": key.reveal(),
        "recovery_code": next.reveal(),
    });
    Ok(secret(StatusCode::CREATED, answer))
}
