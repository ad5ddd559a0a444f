//! `/v1/sites`: partner sites.

use super::auth::Owner;
use super::body::{JSON_BYTES_MAX, JsonBody};
use super::idempotency::{Once, Turn};
use super::{App, Problem};
use crate::sites::new_site;
use crate::store::site_text;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Router<App> {
    Router::new().route("/v1/sites", post(create).layer(DefaultBodyLimit::max(JSON_BYTES_MAX)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteSpec {
    name: String,
    origins: Vec<String>,
}

async fn create(
    State(app): State<App>,
    owner: Owner,
    once: Once,
    JsonBody(spec, digest): JsonBody<SiteSpec>,
) -> Result<Response, Problem> {
    let claim = match once.begin(&app, owner, digest).await? {
        Turn::Answered(answer) => return Ok(answer),
        Turn::Mine(claim) => claim,
    };
    let site = new_site(&spec.name, &spec.origins).map_err(|error| {
        let problem = Problem::invalid(error.to_string())
            .named("site", "The site is refused")
            .with_field(error.field());
        match error.limit() {
            Some((limit, found)) => problem.with_limit(limit, Some(found)),
            None => problem,
        }
    })?;
    let origin = &app.settings.origin;
    let key = &site.site_key;
    let mut answer = json!({
        "id": site_text(site.id),
        "name": site.name,
        "origins": site.origins,
        "site_key": key,
        "snippet": format!("<script async src=\"{origin}/embed/raven.js?site={key}\"></script>"),
    });
    if let Some(loader) = app.embed.loader() {
        let (name, integrity) = (&loader.name, &loader.integrity);
        answer["snippet_pinned"] = Value::from(format!(
            "<script async src=\"{origin}/embed/{name}?site={key}\" \
             integrity=\"{integrity}\" crossorigin=\"anonymous\"></script>"
        ));
    }
    let remembered = claim.remember(StatusCode::CREATED, &answer);
    app.store.add_site(owner.0, &site, app.settings.sites_max, remembered.as_ref()).await?;
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}
