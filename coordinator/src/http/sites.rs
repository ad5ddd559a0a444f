//! `/v1/sites`: partner sites.

use super::auth::{Caller, Owner};
use super::body::{JsonBody, RawBody, parse};
use super::extract::{Path, Query};
use super::idempotency::{Once, Turn};
use super::{App, Problem, partner};
use crate::keys::ApiKey;
use crate::scopes::Scope;
use crate::sites::new_site;
use crate::store::{Book, SiteRow, requester, site_text};
use crate::time::UnixMs;
use crate::verify::{Finding, PageReport, check_page, check_url};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/sites", post(create).get(list))
        .route("/v1/sites/{id}/verify", post(verify))
        .route("/v1/sites/{id}/hand-over", post(hand_over))
}

/// Pages of one request that are read at a time.
const PAGES_AT_A_TIME: usize = 8;

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
    let book = app.store.book_of(owner.0).await?;
    let site = new_site(&spec.name, &spec.origins, book);
    let site = site.map_err(|error| partner::refusal(&error))?;
    let mut answer = json!({
        "id": site_text(site.id),
        "name": site.name,
        "origins": site.origins,
        "site_key": site.site_key,
    });
    if let (Value::Object(answer), Value::Object(tags)) = (&mut answer, partner::tags(&app, &site))
    {
        answer.extend(tags);
    }
    let remembered = claim.remember(StatusCode::CREATED, &answer);
    app.store.add_site(owner.0, &site, app.settings.sites_max, remembered.as_ref()).await?;
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Whether revoked sites follow the others: what they have earned is still their owner's.
    #[serde(default)]
    revoked: bool,
}

async fn list(
    State(app): State<App>,
    owner: Owner,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Problem> {
    let mut sites = Vec::new();
    let mut found = app.store.sites_of(owner.0, false).await?;
    if wanted.revoked {
        found.extend(app.store.sites_of(owner.0, true).await?);
    }
    for owned in found {
        let mut site = partner::summary(&app, owner, &owned.site).await?;
        site["created_at"] = Value::from(owned.created.rfc3339());
        sites.push(site);
    }
    Ok(Json(json!({ "sites": sites })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HandOver {
    /// A live key of whoever takes the site.
    to_key: String,
}

/// Whoever has tried things out with a test key, and whose site has begun to earn real
/// money, takes the site to an account that may have it: both keys agree.
async fn hand_over(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    JsonBody(asked, _): JsonBody<HandOver>,
) -> Result<Json<Value>, Problem> {
    let site = partner::find(&app, Owner(caller.account), &id).await?;
    let refuse = |rule: &str| Problem::invalid(format!("to_key: {rule}")).with_field("to_key");
    let key = ApiKey::parse(asked.to_key.trim()).map_err(|error| refuse(&error.to_string()))?;
    let to = app.store.known_key(&key, UnixMs::now()).await?;
    let to = to.ok_or_else(|| refuse("it is unknown, revoked, or its time is over"))?;
    if let Some(scope) = to.scopes.lacks(Scope::Account.into()) {
        return Err(Problem::scope(scope).with_field("to_key"));
    }
    let from = app.store.book_of(caller.account).await?;
    if (from, app.store.book_of(to.account).await?) != (Book::Test, Book::Live) {
        return Err(Problem::conflict("a site goes from a test key's account to a live key's")
            .with_field("to_key"));
    }
    if !app.store.hand_over_site(site.id, &caller, &to, app.settings.sites_max).await? {
        return Err(Problem::not_found("no such site of this key"));
    }
    Ok(Json(json!({ "id": site_text(site.id), "account": requester(to.account).to_string() })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifySpec {
    /// The page to look at; the first page of every origin where it is absent.
    page: Option<String>,
}

async fn verify(
    State(app): State<App>,
    owner: Owner,
    once: Once,
    Path(id): Path<String>,
    RawBody(body): RawBody,
) -> Result<Response, Problem> {
    let claim = match once.begin(&app, owner, *blake3::hash(&body).as_bytes()).await? {
        Turn::Answered(answer) => return Ok(answer),
        Turn::Mine(claim) => claim,
    };
    let spec: VerifySpec = if body.is_empty() { VerifySpec::default() } else { parse(&body)? };
    let site = partner::find(&app, owner, &id).await?;
    if site.revoked {
        return Err(Problem::conflict("the site is revoked: its tag shows nothing"));
    }
    let origin = app.settings.origin.clone();
    let pages = match spec.page {
        Some(page) => {
            check_url(&origin, &site, &page)
                .map_err(|error| Problem::invalid(error.to_string()).with_field("page"))?;
            vec![page]
        }
        None => site.origins.iter().map(|origin| format!("{origin}/")).collect(),
    };
    let turn = app.verifier.begin(site.id).map_err(|busy| {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Problem::new(status, "too-soon", "Asked again too soon", busy.to_string())
    })?;
    // A client that hangs up takes its handler with it, but not the looks, which
    // block threads: they keep their turn until they are over.
    let looks = tokio::spawn(async move {
        let reports = look(origin, &site, pages).await?;
        drop(turn);
        let live = reports.iter().any(|report| matches!(report.finding, Finding::Live { .. }));
        let answer = json!({"id": site_text(site.id), "live": live, "pages": reports});
        claim.keep(&app, StatusCode::OK, &answer).await?;
        Ok::<Value, Problem>(answer)
    });
    Ok(Json(looks.await??).into_response())
}

/// Looks at some pages at a time; the answers come in the pages' order.
async fn look(
    origin: String,
    site: &SiteRow,
    pages: Vec<String>,
) -> Result<Vec<PageReport>, Problem> {
    let looks = stream::iter(pages).map(|page| {
        let (origin, site) = (origin.clone(), site.clone());
        tokio::task::spawn_blocking(move || check_page(&origin, &site, &page))
    });
    Ok(looks.buffered(PAGES_AT_A_TIME).try_collect().await?)
}
