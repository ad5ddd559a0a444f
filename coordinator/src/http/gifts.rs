//! `/v1/contributors/gifts`: a key gives what it has earned, and what still matures, to the
//! site through which it came. A browser sends it before it erases the key.

use super::body::JsonBody;
use super::contributors::{Said, read_statement};
use super::{App, Problem};
use crate::runtime::session::hex;
use crate::store::{Gift, GiftError, site_text};
use crate::time::UnixMs;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Router<App> {
    Router::new().route("/v1/contributors/gifts", post(give))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// JSON, as it was signed.
    statement: String,
    signature: String,
}

impl From<GiftError> for Problem {
    fn from(error: GiftError) -> Self {
        let detail = error.to_string();
        let at = "statement.from";
        match error {
            GiftError::Collected => Problem::conflict(detail)
                .named("collected", "A wallet collects for this key")
                .with_field(at),
            GiftError::Linked => Problem::conflict(detail)
                .named("linked", "The contributor has an account")
                .with_field(at),
            GiftError::Given => Problem::conflict(detail)
                .named("given", "The earnings are given away")
                .with_field(at),
            GiftError::Stranger => Problem::conflict(detail).with_field("statement.site"),
            GiftError::Books(error) => error.into(),
        }
    }
}

async fn give(
    State(app): State<App>,
    JsonBody(asked, _): JsonBody<Asked>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let now = UnixMs::now();
    let Asked { statement, signature } = asked;
    let Said { from: contributor, site } =
        read_statement(&app, &statement, &signature, "give", now)?;
    let refuse = |rule: &str| {
        Problem::invalid(format!("statement.site: {rule}")).with_field("statement.site")
    };
    let site_key = site.ok_or_else(|| refuse("must be the site's publishable key"))?;
    let site = app.store.site_by_key(&site_key).await?;
    let site = site.ok_or_else(|| refuse("no site has this key"))?.id;
    app.store.give(&Gift { contributor, site, statement, signature }, now).await?;
    let answer = json!({ "from": hex(&contributor.0), "site": site_text(site) });
    Ok((StatusCode::CREATED, Json(answer)))
}
