//! A site for its owner: what it is, who is there, what came of it, and its switches.

use super::auth::Owner;
use super::body::JsonBody;
use super::extract::Path;
use super::{App, Problem};
use crate::sites::{SiteError, check_allowed, check_origins};
use crate::store::{
    Book, OriginProof, SiteChange, SiteChanged, SiteDay, SiteRow, Withheld, day_of, parse_site,
    site_text,
};
use crate::time::{DAY_MS, UnixMs};
use crate::verify::{OriginReport, PROOF_PATH, is_local_origin, prove};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{StreamExt, TryStreamExt, stream};
use raven_engine::money::FLOPS_PER_CALCULATION;
use raven_engine::{Category, CategorySet};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// Days of one site's answer.
const DAYS: i64 = 30;
/// Origins of one request that are looked at at a time.
const ORIGINS_AT_A_TIME: usize = 8;
/// Proofs are looked at again after a day.
const PROOF_MS: i64 = DAY_MS;
/// Of those, in one sweep: each takes a thread for some seconds.
const PROOFS_AT_ONCE: u32 = 16;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/sites/{id}", get(show).patch(change).delete(revoke))
        .route("/v1/sites/{id}/prove", post(prove_origins))
}

/// The owner's site of that id's text, revoked or not.
pub async fn find(app: &App, owner: Owner, text: &str) -> Result<SiteRow, Problem> {
    let unknown = || Problem::not_found("no such site of this key");
    let id = parse_site(text).ok_or_else(unknown)?;
    app.store.owned_site(owner.0, id).await?.ok_or_else(unknown)
}

/// A list or a document of a site that is refused.
pub fn refusal(error: &SiteError) -> Problem {
    let problem = Problem::invalid(error.to_string())
        .named("site", "The site is refused")
        .with_field(error.field());
    match error.limit() {
        Some((limit, found)) => problem.with_limit(limit, Some(found)),
        None => problem,
    }
}

/// The script elements that a site's pages need.
pub fn tags(app: &App, site: &SiteRow) -> Value {
    let (origin, key) = (&app.settings.origin, &site.site_key);
    let mut tags = json!({
        "snippet": format!("<script async src=\"{origin}/embed/raven.js?site={key}\"></script>"),
    });
    if let Some(loader) = app.embed.loader() {
        let (name, integrity) = (&loader.name, &loader.integrity);
        tags["snippet_pinned"] = Value::from(format!(
            "<script async src=\"{origin}/embed/{name}?site={key}\" \
             integrity=\"{integrity}\" crossorigin=\"anonymous\"></script>"
        ));
    }
    tags
}

fn state(site: &SiteRow) -> &'static str {
    match (site.revoked, site.paused) {
        (true, _) => "revoked",
        (false, true) => "paused",
        (false, false) => "live",
    }
}

fn origin(origin: &str, proofs: &[OriginProof], book: Book) -> Value {
    let proof = proofs.iter().find(|proof| proof.origin == origin);
    let is_play = book == Book::Test && is_local_origin(origin);
    let state = match proof {
        Some(proof) if proof.lapsed.is_none() => "proven",
        _ if is_play => "test",
        Some(_) => "lapsed",
        None => "unproven",
    };
    json!({
        "origin": origin,
        "state": state,
        "earns": matches!(state, "proven" | "test"),
        "by": proof.map(|proof| proof.by.as_str()),
        "proven_at": proof.map(|proof| proof.proven.rfc3339()),
        "checked_at": proof.map(|proof| proof.checked.rfc3339()),
        "failures": proof.map_or(0, |proof| proof.failures),
        "lapsed_at": proof.and_then(|proof| proof.lapsed).map(UnixMs::rfc3339),
        "file_url": format!("{origin}{PROOF_PATH}"),
    })
}

/// A day as it is written.
pub fn day_text(day: i64) -> String {
    let mut text = UnixMs(day.saturating_mul(PROOF_MS)).rfc3339();
    text.truncate(10);
    text
}

/// Whole calculations, rounded down.
fn calculations(flops: u64) -> u64 {
    flops / FLOPS_PER_CALCULATION
}

fn day(number: i64, day: &SiteDay) -> Value {
    let work: serde_json::Map<String, Value> = day
        .work
        .iter()
        .map(|(outcome, work)| {
            let shown = json!({
                "results": work.tasks, "flops": work.flops,
                "calculations": calculations(work.flops),
            });
            (outcome.clone(), shown)
        })
        .collect();
    json!({
        "day": day_text(number), "views": day.views, "blocked": day.blocked,
        "shown": day.shown, "yes": day.yes, "worked": day.worked, "work": work,
    })
}

/// What a list has of a site.
pub async fn summary(app: &App, owner: Owner, site: &SiteRow) -> Result<Value, Problem> {
    let book = app.store.book_of(owner.0).await?;
    let proofs = app.store.origin_proofs(site.id).await?;
    let origins: Vec<Value> = site.origins.iter().map(|it| origin(it, &proofs, book)).collect();
    let (contributors, sessions) = app.store.site_online(site.id).await?;
    Ok(json!({
        "id": site_text(site.id),
        "name": site.name,
        "site_key": site.site_key,
        "state": state(site),
        "paused": site.paused,
        "refused_categories": site.refuses,
        "allowed_categories": site.allows,
        "origins": origins,
        "contributors_online": contributors,
        "sessions_online": sessions,
    }))
}

async fn show(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let site = find(&app, owner, &id).await?;
    Ok(Json(whole(&app, owner, &site).await?))
}

/// A site with its tags and its last days.
async fn whole(app: &App, owner: Owner, site: &SiteRow) -> Result<Value, Problem> {
    let mut answer = summary(app, owner, site).await?;
    if let (Value::Object(answer), Value::Object(tags)) = (&mut answer, tags(app, site)) {
        answer.extend(tags);
    }
    let today = day_of(UnixMs::now());
    let days = app.store.site_days(site.id, today - DAYS + 1, today).await?;
    answer["days"] = days.iter().map(|(number, it)| day(*number, it)).collect();
    let caps = app.store.site_caps();
    answer["caps"] = json!({
        "sessions_per_network_max": caps.sessions_per_network_max,
        "new_keys_per_network_hour_max": caps.new_keys_per_network_max,
        "network_share_percent": caps.network_share_percent,
    });
    answer["withheld_reasons"] = Withheld::ALL.map(Withheld::as_str).to_vec().into();
    answer["categories"] = Category::ALL.map(Category::as_str).to_vec().into();
    Ok(answer)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeSpec {
    #[serde(default)]
    paused: Option<bool>,
    #[serde(default)]
    refused_categories: Option<CategorySet>,
    /// What is absent stays, and null takes the list away.
    #[serde(default, deserialize_with = "given")]
    allowed_categories: Option<Option<CategorySet>>,
    #[serde(default)]
    origins: Option<Vec<String>>,
}

/// Tells what is null from what is absent.
fn given<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<CategorySet>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

async fn change(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
    JsonBody(spec, _): JsonBody<ChangeSpec>,
) -> Result<Json<Value>, Problem> {
    if let Some(origins) = &spec.origins {
        check_origins(origins).map_err(|error| refusal(&error))?;
    }
    if let Some(Some(allows)) = spec.allowed_categories {
        check_allowed(allows).map_err(|error| refusal(&error))?;
    }
    let site = find(&app, owner, &id).await?;
    let ChangeSpec { paused, refused_categories: refuses, allowed_categories, origins } = spec;
    let change = SiteChange { paused, refuses, allows: allowed_categories, origins };
    match app.store.change_site(owner.0, site.id, &change).await? {
        SiteChanged::Done => {}
        SiteChanged::Unknown => {
            return Err(Problem::conflict("the site is revoked: nothing of it changes any more"));
        }
        SiteChanged::NothingLeft => {
            let field = if refuses.is_some() { "refused_categories" } else { "allowed_categories" };
            return Err(refusal(&SiteError::NothingLeft { field }));
        }
    }
    let site = find(&app, owner, &id).await?;
    Ok(Json(whole(&app, owner, &site).await?))
}

async fn revoke(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let site = find(&app, owner, &id).await?;
    // Who asks twice has what it wanted.
    app.store.revoke_site(site.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prove_origins(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let site = find(&app, owner, &id).await?;
    if site.revoked {
        return Err(Problem::conflict("the site is revoked: it earns nothing any more"));
    }
    let turn = app.verifier.begin(site.id).map_err(|busy| {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Problem::new(status, "too-soon", "Asked again too soon", busy.to_string())
    })?;
    // A client that hangs up takes its handler with it, but not the looks.
    let looks = tokio::spawn(async move {
        let reports = look(&app, &site).await?;
        drop(turn);
        for report in &reports {
            if let Some(by) = report.by {
                app.store.origin_proven(site.id, &report.origin, by, UnixMs::now()).await?;
            }
        }
        let proofs = app.store.origin_proofs(site.id).await?;
        let book = app.store.book_of(owner.0).await?;
        let origins: Vec<Value> = reports
            .iter()
            .map(|report| {
                let mut shown = origin(&report.origin, &proofs, book);
                shown["looked"] = json!(report);
                shown
            })
            .collect();
        let key = &site.site_key;
        Ok::<Value, Problem>(json!({
            "id": site_text(site.id),
            "proven": reports.iter().all(|report| report.proven),
            "file_text": key,
            "dns_text": format!("raven-site={key}"),
            "origins": origins,
        }))
    });
    Ok(Json(looks.await??))
}

/// Looks at a site's origins, some at a time; the answers come in their order.
async fn look(app: &App, site: &SiteRow) -> Result<Vec<OriginReport>, Problem> {
    let looks = stream::iter(site.origins.clone()).map(|origin| look_at(app, site, origin));
    looks.buffered(ORIGINS_AT_A_TIME).try_collect().await
}

async fn look_at(app: &App, site: &SiteRow, origin: String) -> Result<OriginReport, Problem> {
    let (coordinator, resolvers) = (app.settings.origin.clone(), app.verifier.resolvers());
    let key = site.site_key.clone();
    let look = move || prove(&coordinator, &resolvers, &key, &origin);
    Ok(tokio::task::spawn_blocking(look).await?)
}

/// Looks again at proofs that are a day old.
///
/// # Errors
/// Those of the store.
pub async fn look_again(app: &App, now: UnixMs) -> Result<(), Problem> {
    let due = app.store.proofs_due(UnixMs(now.0 - PROOF_MS), PROOFS_AT_ONCE).await?;
    let looks = stream::iter(due).map(|(id, origin)| async move {
        let Some(site) = app.store.site(id).await? else { return Ok(()) };
        // What was taken out of the list is not asked for any more.
        let report = match site.origins.contains(&origin) {
            true => Some(look_at(app, &site, origin.clone()).await?),
            false => None,
        };
        match report.and_then(|report| report.by) {
            Some(by) => app.store.origin_proven(id, &origin, by, now).await?,
            None => app.store.origin_missed(id, &origin, now).await?,
        }
        Ok::<(), Problem>(())
    });
    looks.buffer_unordered(4).try_collect().await
}
