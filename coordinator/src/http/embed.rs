//! `/embed/…`: the tag, the frame and what they load.

use super::extract::{Path, Query};
use super::{App, Problem};
use crate::embed::FrameValues;
use crate::runtime::session::network_prefix;
use crate::store::SiteRow;
use crate::ticket::{Seat, TicketError};
use crate::time::UnixMs;
use crate::verify::origin_of;
use axum::extract::{ConnectInfo, Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use std::net::{Ipv6Addr, SocketAddr};

/// Content never changes under its name.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// Partners get a new loader within this many seconds.
const EVERGREEN: &str = "public, max-age=300";
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

pub fn routes() -> Router<App> {
    Router::new()
        .route("/embed/{file}", get(loader))
        .route("/embed/frame.html", get(frame))
        .route("/embed/check", get(check))
        .route("/embed/v/{version}/{*path}", get(file))
}

/// Partner pages of any origin load these, also with `integrity`.
fn open_to_all(response: &mut Response, cache: &'static str) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
}

async fn loader(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (file, cache) = if name == "raven.js" {
        (app.embed.loader().map(|loader| &loader.file), EVERGREEN)
    } else {
        (app.embed.pinned(&name), IMMUTABLE)
    };
    let file = file.ok_or_else(|| Problem::not_found("no such loader is kept here"))?;
    let mut response = file.response(&headers);
    open_to_all(&mut response, cache);
    Ok(response)
}

async fn file(
    State(app): State<App>,
    Path((version, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = app.embed.file(&version, &path);
    let file = file.ok_or_else(|| Problem::not_found("no such file of this version"))?;
    let mut response = file.response(&headers);
    open_to_all(&mut response, IMMUTABLE);
    // A worker's rights come with its own script, not with the page that starts it.
    let policy = content_policy(&app.settings.origin, "");
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}

#[derive(Debug, Deserialize)]
struct FrameQuery {
    #[serde(default)]
    site: String,
}

/// What frame and workers may do: run this origin's scripts and module, talk to this origin.
fn content_policy(origin: &str, ancestors: &str) -> String {
    // Not every browser counts a socket to the same host as the same origin.
    let socket = origin.replacen("http", "ws", 1);
    format!(
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; \
         style-src 'self'; connect-src 'self' {socket}; base-uri 'none'; form-action 'none'\
         {ancestors}"
    )
}

/// The ticket that a frame has had so far: it wants another one, for the same page.
const TICKET: HeaderName = HeaderName::from_static("raven-ticket");

/// The origin of the page that asks, where the browser tells it: the tag has it do so.
fn asking_origin(app: &App, headers: &HeaderMap) -> Option<String> {
    let referrer = headers.get(header::REFERER)?.to_str().ok()?;
    origin_of(referrer).filter(|origin| *origin != app.settings.origin)
}

async fn frame(
    State(app): State<App>,
    Query(query): Query<FrameQuery>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let dark = |text: &'static str| {
        let page = format!("<!doctype html><html lang=\"en\"><title>Raven</title><p>{text}");
        framed(&app, (StatusCode::NOT_FOUND, Html(page)), &["'none'".to_owned()])
    };
    let site = app.store.site_by_key(&query.site).await?.filter(SiteRow::is_open);
    let Some(site) = site else { return Ok(dark("This site is not registered.")) };
    let address = peer.map_or(Ipv6Addr::UNSPECIFIED.into(), |Extension(ConnectInfo(it))| it.ip());
    let (prefix, now) = (network_prefix(address), UnixMs::now());
    if let Some(ticket) = headers.get(TICKET) {
        let renewed = app.tickets.renew(ticket.to_str().unwrap_or_default(), &site, now).await;
        return match renewed {
            Ok(ticket) => page(&app, &site, &ticket, now).await,
            Err(TicketError::Store(error)) => Err(error.into()),
            Err(_) => Ok(dark("The ticket is not one for a page of the site's.")),
        };
    }
    let origin = asking_origin(&app, &headers);
    if origin.as_ref().is_some_and(|origin| !site.origins.contains(origin)) {
        app.store.count_blocked(site.id, now);
        return Ok(dark("This page is not one of the site's."));
    }
    if origin.is_some() {
        app.store.count_view(site.id, now);
    }
    let seat = Seat { prefix, origin: origin.as_deref() };
    let ticket = app.tickets.issue(site.id, &seat, now);
    page(&app, &site, &ticket, now).await
}

/// The frame of a site with a ticket, and the name of what its card shows in any case.
async fn page(app: &App, site: &SiteRow, ticket: &str, now: UnixMs) -> Result<Response, Problem> {
    let view = app.embed.card_view().named();
    app.store.give_view(&view, None, now).await?;
    let view = view.id.to_string();
    let values =
        FrameValues { ticket, site_key: &site.site_key, site_name: &site.name, view: &view };
    let page = app.embed.frame(&values);
    let page = page.ok_or_else(|| Problem::unavailable("no frame is deployed here"))?;
    let page = page.map_err(|error| Problem::internal(&error))?;
    Ok(framed(app, Html(page), &site.origins))
}

/// Tells a page why its frame stays dark: a browser shows neither side the
/// other's reasons. It says nothing that the frame's own headers do not say.
async fn check(
    State(app): State<App>,
    Query(query): Query<FrameQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let site = app.store.site_by_key(&query.site).await?.filter(SiteRow::is_open);
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    let is_registered =
        |site: &SiteRow| site.origins.iter().any(|known| Some(known.as_str()) == origin);
    let (site, origin) = match &site {
        None => ("unknown", "not_registered"),
        Some(site) if is_registered(site) => ("registered", "registered"),
        Some(_) => ("registered", "not_registered"),
    };
    let mut response = Json(json!({"site": site, "origin": origin})).into_response();
    open_to_all(&mut response, "no-store");
    Ok(response)
}

fn framed(app: &App, page: impl IntoResponse, ancestors: &[String]) -> Response {
    let mut response = page.into_response();
    let ancestors = format!("; frame-ancestors {}", ancestors.join(" "));
    let policy = content_policy(&app.settings.origin, &ancestors);
    let headers = response.headers_mut();
    // Origins were checked when the site was registered; a header that could
    // not be written must not leave the page open to all.
    let policy = HeaderValue::from_str(&policy)
        .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
    response
}
