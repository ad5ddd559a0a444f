//! Tokens that say what a visitor of a site did there.

use super::auth::{Owner, bearer};
use super::body::JsonBody;
use super::extract::Path;
use super::{App, Problem, partner};
use crate::certificate::issue;
use crate::certificate::key::CertificateKey;
use crate::store::site_text;
use crate::time::UnixMs;
use crate::work_token::{TOKEN_MS, Work, check, pseudonym, sign};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use raven_engine::money::FLOPS_PER_CALCULATION;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/work-tokens", post(issue_token))
        .route("/v1/sites/{id}/work-tokens/check", post(check_token))
}

/// The name under which the store keeps what pseudonyms are made with.
const SECRET: &str = "site_pseudonyms";

async fn key(app: &App) -> Result<CertificateKey, Problem> {
    let store = app.store.clone();
    let key = tokio::task::spawn_blocking(move || issue::key_of(&store)).await?;
    key.map_err(|error| Problem::internal(&error))
}

/// A visitor's session asks for itself, with its grant.
async fn issue_token(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let token = bearer(&headers)
        .ok_or_else(|| Problem::unauthorized("send the session's grant as a bearer token"))?;
    let session = app
        .network
        .session_of(token)
        .ok_or_else(|| Problem::unauthorized("the grant is of no open session"))?;
    let done = app.store.work_of_session(session).await?;
    let done = done.ok_or_else(|| Problem::conflict("the session came through no site"))?;
    let now = UnixMs::now();
    let secret = app.store.identity(SECRET).await?;
    let work = Work {
        site: site_text(done.site),
        visitor: pseudonym(&secret, done.site, &done.contributor),
        visit_flops: done.visit_flops,
        total_flops: done.total_flops,
        visit_calculations: done.visit_flops / FLOPS_PER_CALCULATION,
        total_calculations: done.total_flops / FLOPS_PER_CALCULATION,
        issued_ms: now.0,
        expires_ms: now.0 + TOKEN_MS,
    };
    let token = sign(&work, &key(&app).await?).map_err(|error| Problem::internal(&error))?;
    let mut answer = Json(json!({"token": token, "work": work})).into_response();
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    token: String,
}

async fn check_token(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
    JsonBody(body, _): JsonBody<Check>,
) -> Result<Json<Value>, Problem> {
    let site = partner::find(&app, owner, &id).await?;
    let signatory = key(&app).await?.signatory();
    Ok(Json(match check(&body.token, site.id, &signatory, UnixMs::now()) {
        Ok(work) => json!({"valid": true, "work": work}),
        Err(error) => {
            json!({"valid": false, "reason": error.name(), "detail": error.to_string()})
        }
    }))
}
