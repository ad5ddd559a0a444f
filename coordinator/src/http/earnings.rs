//! What a site has earned, and what it could.

use super::auth::Owner;
use super::body::JsonBody;
use super::extract::{Path, Query};
use super::partner::{day_text, find};
use super::{App, Problem, account};
use crate::store::{Book, EarningsDay, SiteRow, day_of, site_text};
use crate::time::UnixMs;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use raven_engine::ledger::Account;
use raven_protocol::DeviceClass;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Days of one answer.
const DAYS_MAX: i64 = 366;
/// Days where the request does not say.
const DAYS: i64 = 30;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/sites/{id}/earnings", get(earnings))
        .route("/v1/sites/{id}/earnings.csv", get(csv))
        .route("/v1/estimate", post(estimate))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    /// The first and the last day, `YYYY-MM-DD` in UTC.
    from: Option<String>,
    to: Option<String>,
}

impl Span {
    fn days(&self) -> Result<(i64, i64), Problem> {
        let to = read_day("to", self.to.as_deref())?.unwrap_or_else(|| day_of(UnixMs::now()));
        let from = read_day("from", self.from.as_deref())?.unwrap_or(to - DAYS + 1);
        let days = to - from + 1;
        if days < 1 {
            return Err(Problem::invalid("from: must not be after to").with_field("from"));
        }
        if days > DAYS_MAX {
            return Err(Problem::invalid(format!("from: {days} days, the limit is {DAYS_MAX}"))
                .with_field("from")
                .with_limit(DAYS_MAX.unsigned_abs(), Some(days.unsigned_abs())));
        }
        Ok((from, to))
    }
}

fn read_day(field: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let time = UnixMs::parse(&format!("{text}T00:00:00Z")).filter(|_| text.len() == 10);
    let time = time.ok_or_else(|| {
        Problem::invalid(format!("{field}: must be a day, YYYY-MM-DD")).with_field(field)
    })?;
    Ok(Some(day_of(time)))
}

type Days = BTreeMap<i64, EarningsDay>;

async fn read(
    app: &App,
    owner: Owner,
    id: &str,
    span: &Span,
) -> Result<(SiteRow, Book, (i64, i64), Days), Problem> {
    let (from, to) = span.days()?;
    let site = find(app, owner, id).await?;
    let book = app.store.book_of(owner.0).await?;
    let days = app.store.earnings(book, Account::Site(site.id), from, to).await?;
    Ok((site, book, (from, to), days))
}

async fn earnings(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
    Query(span): Query<Span>,
) -> Result<Json<Value>, Problem> {
    let (site, book, (from, to), days) = read(&app, owner, &id, &span).await?;
    let account = Account::Site(site.id);
    let balance = app.store.balance(book, account).await?;
    let shown: Vec<Value> = days
        .iter()
        .map(|(day, it)| {
            json!({
                "day": day_text(*day), "available_nano_usd": it.available,
                "pending_nano_usd": it.pending, "paid_out_nano_usd": it.paid_out,
            })
        })
        .collect();
    Ok(Json(json!({
        "id": site_text(site.id), "account": account.to_string(), "book": book.as_str(),
        "from": day_text(from), "to": day_text(to),
        "balance": account::amounts(&balance), "days": shown,
    })))
}

/// One line a day, for spreadsheets. Nothing in it needs quotes.
async fn csv(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
    Query(span): Query<Span>,
) -> Result<Response, Problem> {
    let (site, book, (from, to), days) = read(&app, owner, &id, &span).await?;
    let mut text = String::from("day,book,available_nano_usd,pending_nano_usd,paid_out_nano_usd,");
    text.push_str("views,blocked,shown,yes,worked\r\n");
    let funnel = app.store.site_days(site.id, from, to).await?;
    for day in from..=to {
        let it = days.get(&day).copied().unwrap_or_default();
        let (available, pending, out) = (it.available, it.pending, it.paid_out);
        let seen = funnel.get(&day).cloned().unwrap_or_default();
        let (views, blocked, shown) = (seen.views, seen.blocked, seen.shown);
        let (yes, worked) = (seen.yes, seen.worked);
        let day = day_text(day);
        text.push_str(&format!("{day},{book},{available},{pending},{out},"));
        text.push_str(&format!("{views},{blocked},{shown},{yes},{worked}\r\n"));
    }
    let name = format!("attachment; filename=\"raven-{}.csv\"", site_text(site.id));
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, name),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, text).into_response())
}

const PPM: u64 = 1_000_000;
/// Views of one estimate: more than any site has in a year.
const VIEWS_MAX: u64 = 1_000_000_000_000;
/// A visit of a day.
const SECONDS_MAX: u64 = 86_400;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EstimateSpec {
    page_views: u64,
    /// How long a visitor who said yes stays on a page.
    seconds: u64,
    /// Of a million views, those whose visitor lends something.
    yes_rate_ppm: u64,
    /// The share of the device that is lent, in millionths.
    share_ppm: u64,
    /// Of a million visitors, those with each class of device.
    devices_ppm: BTreeMap<DeviceClass, u64>,
}

/// What a device of a class does, as estimates have it: whole Mflop a second of one
/// visitor's device. Measurements differ by a factor of three either way.
const fn mflops(device: DeviceClass) -> u64 {
    match device {
        DeviceClass::Phone => 4_000,
        DeviceClass::Desktop => 10_000,
        DeviceClass::Server => 40_000,
    }
}

fn bounded(field: &str, found: u64, limit: u64) -> Result<i128, Problem> {
    if found > limit {
        return Err(Problem::invalid(format!("{field}: {found}, the limit is {limit}"))
            .with_field(field)
            .with_limit(limit, Some(found)));
    }
    Ok(found.into())
}

/// Visitors, calculations and whole nano-USD, each rounded down once.
async fn estimate(
    State(app): State<App>,
    JsonBody(spec, _): JsonBody<EstimateSpec>,
) -> Result<Json<Value>, Problem> {
    let paid = &app.settings.rates;
    let views = bounded("page_views", spec.page_views, VIEWS_MAX)?;
    let seconds = bounded("seconds", spec.seconds, SECONDS_MAX)?;
    let yes = bounded("yes_rate_ppm", spec.yes_rate_ppm, PPM)?;
    let share = bounded("share_ppm", spec.share_ppm, PPM)?;
    let sum: u64 = spec.devices_ppm.values().fold(0, |sum, ppm| sum.saturating_add(*ppm));
    if sum != PPM {
        return Err(Problem::invalid(format!("devices_ppm: must sum up to {PPM}, not {sum}"))
            .with_field("devices_ppm")
            .with_limit(PPM, Some(sum)));
    }
    // Whatever a visitor's device is, it is paid as a desktop at most.
    if spec.devices_ppm.contains_key(&DeviceClass::Server) {
        let detail = "devices_ppm.server: visitors of a page are phones and desktops";
        return Err(Problem::invalid(detail).with_field("devices_ppm.server"));
    }
    let visitors = views * yes / i128::from(PPM);
    // Mflop of one visitor of each class, times two millionths: 1e5 x 1e6 x 1e6 x 1e5.
    let work = |device: DeviceClass, ppm: u64| {
        seconds * share * i128::from(ppm) * i128::from(mflops(device))
    };
    let scale = i128::from(PPM) * i128::from(PPM) * 50;
    let (mut calculations, mut pico) = (0i128, 0i128);
    for (device, ppm) in &spec.devices_ppm {
        let of_class = visitors.saturating_mul(work(*device, *ppm));
        calculations = calculations.saturating_add(of_class / scale);
        let rate = i128::from(paid.of(*device).0);
        pico = pico.saturating_add((of_class / scale).saturating_mul(rate));
    }
    let nano = |value: i128| i64::try_from(value).unwrap_or(i64::MAX);
    let rates: BTreeMap<DeviceClass, Value> = [DeviceClass::Phone, DeviceClass::Desktop]
        .into_iter()
        .map(|device| {
            let rate = paid.of(device).0;
            (device, json!({"pico_usd_per_calculation": rate, "mflop_per_s": mflops(device)}))
        })
        .collect();
    Ok(Json(json!({
        "visitors": nano(visitors),
        "calculations": nano(calculations),
        "contributors_nano_usd": nano(pico / 1_000),
        "site_nano_usd": nano(pico * 3 / 100_000),
        "assumed": rates,
    })))
}
