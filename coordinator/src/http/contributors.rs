//! `/v1/contributors`: what whoever computes has done and earned, and the wallet that
//! collects it. A key shows by a signature that it is there.

use super::body::JsonBody;
use super::challenge::{CHALLENGE, Contributor, answered, is_signed, parse_key};
use super::extract::Path;
use super::{App, Problem};
use crate::runtime::session::hex;
use crate::store::{Book, Claim, ClaimError, OwnSession, Payout, requester, site_text};
use crate::time::{DAY_MS, UnixMs};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use raven_engine::ContributorId;
use raven_engine::money::FLOPS_PER_CALCULATION;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Sessions, lines of allocations that one answer has.
const SESSIONS_MAX: u32 = 50;
const ALLOCATIONS_MAX: u32 = 50;
/// Contributors of a wallet that are listed, the newest ones; sums are of all.
const LINKS_SHOWN: u32 = 100;
/// A claim's statement: a link that was lost is of no use for long.
const STATEMENT_MS_MAX: i64 = 15 * 60 * 1000;
const STATEMENT_BYTES_MAX: usize = 1024;
/// Bytes of a payout address: the longest of the usual ones are shorter.
const ADDRESS_BYTES_MAX: usize = 128;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/contributors/challenge", post(challenge))
        .route("/v1/contributors/claims", post(claim))
        .route("/v1/contributors/{key}", get(show))
        .route("/v1/contributors/{key}/payout", put(set_payout))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    key: String,
}

async fn challenge(
    State(app): State<App>,
    JsonBody(asked, _): JsonBody<Asked>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let key = parse_key(&asked.key, "key")?;
    let nonce = app.challenges.give(key, Instant::now());
    let answer = json!({
        "nonce": hex(&nonce),
        "origin": app.settings.origin,
        "expires_in_s": CHALLENGE.as_secs(),
        // What is signed next may have an end, and a device's clock may be wrong.
        "now_ms": UnixMs::now().0,
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

/// The key of the path, which must be the one that asks.
pub(super) fn own(path: &str, contributor: Contributor) -> Result<ContributorId, Problem> {
    let key = parse_key(path, "key")?;
    if key == contributor.0 {
        Ok(key)
    } else {
        Err(Problem::forbidden("key: only the contributor itself may see this").with_field("key"))
    }
}

async fn show(
    State(app): State<App>,
    contributor: Contributor,
    Path(key): Path<String>,
) -> Result<Json<Value>, Problem> {
    let (key, now, store) = (own(&key, contributor)?, UnixMs::now(), &app.store);
    store.contributor_seen(key, now).await?;
    let links = store.wallet_links(key, LINKS_SHOWN).await?;
    let (tasks, flops) = store.own_work(key).await?;
    let outcomes = store.own_outcomes(key).await?;
    let results: Map<String, Value> = outcomes
        .into_iter()
        .map(|(outcome, count)| (outcome.as_str().to_owned(), count.into()))
        .collect();
    let sessions = store.own_sessions(key, SESSIONS_MAX).await?;
    let wallet = store.wallet_of(key).await?;
    let payout = store.payout(key).await?;
    let given = store.given_to(key).await?;
    let is_claimed = wallet.is_some() || given.is_some() || !links.is_empty();
    let accounts = store.accounts_of(key).await?;
    let has_account = |book: Book| accounts.iter().any(|link| link.book == book);
    Ok(Json(json!({
        "key": hex(&key.0),
        "wallet": wallet.map(|wallet| hex(&wallet.0)),
        "given": given.map(site_text),
        "accounts": accounts.iter().map(|link| json!({
            "book": link.book.as_str(), "account": requester(link.account).to_string(),
            "at": link.linked.rfc3339(),
        })).collect::<Vec<_>>(),
        "linked": links.iter().map(|link| json!({
            "key": hex(&link.contributor.0), "at": link.linked.rfc3339(),
        })).collect::<Vec<_>>(),
        "sessions": sessions.iter().map(session).collect::<Vec<_>>(),
        "work": { "tasks": tasks, "calculations": flops / FLOPS_PER_CALCULATION as f64 },
        "results": results,
        "earnings": earnings(&app, key, |book| is_claimed || has_account(book), now).await?,
        "earned": earned(&app, key, now).await?,
        "payout": shown(&payout),
        "allocations": allocations(&app, key).await?,
    })))
}

fn session(session: &OwnSession) -> Value {
    let numeric: Value = serde_json::from_str(&session.numeric).unwrap_or_default();
    json!({
        "session": session.session,
        "key": hex(&session.contributor.0),
        "device": session.device,
        "backend": numeric["class"],
        "share": session.share,
        "workers": session.workers,
        "opened": session.opened.rfc3339(),
        "closed": session.closed.map(UnixMs::rfc3339),
        "reason": session.reason,
    })
}

/// By book: what there is to spend, what waits, and when it ends if nobody comes for it.
async fn earnings(
    app: &App,
    key: ContributorId,
    is_claimed: impl Fn(Book) -> bool,
    now: UnixMs,
) -> Result<Value, Problem> {
    let seen = app.store.last_seen(key, now).await?.unwrap_or(now);
    let expires = seen.plus_days(app.settings.unclaimed_after_days).rfc3339();
    let mut books = Map::new();
    for book in Book::ALL {
        let balance = app.store.own_balance(book, key).await?;
        let amounts = json!({
            "available_nano_usd": balance.available(),
            "pending_nano_usd": balance.held_in,
            "expires": (!is_claimed(book) && balance.available().0 > 0).then_some(&expires),
        });
        books.insert(book.as_str().to_owned(), amounts);
    }
    Ok(Value::Object(books))
}

async fn earned(app: &App, key: ContributorId, now: UnixMs) -> Result<Value, Problem> {
    let days = app.store.own_days(key, now).await?;
    let day = |day: i64| UnixMs(day.saturating_mul(DAY_MS)).rfc3339();
    Ok(days
        .iter()
        .map(|one| json!({ "day": day(one.day), "book": one.book.as_str(), "nano_usd": one.nano_usd }))
        .collect())
}

async fn allocations(app: &App, key: ContributorId) -> Result<Vec<Value>, Problem> {
    let lines = app.store.own_allocations(key, ALLOCATIONS_MAX).await?;
    Ok(lines
        .iter()
        .map(|(number, line, hash)| {
            json!({
                "number": number,
                "at": UnixMs(line.at_ms).rfc3339(),
                "key": hex(&line.contributor.0),
                "session": line.session,
                "kind": line.kind.as_str(),
                "share_ppm": line.share_ppm,
                "cpu": line.cpu,
                "gpu": line.gpu,
                "workers": line.workers,
                "refuses": line.refuses,
                "receipt": line.receipt.map(|receipt| hex(&receipt)),
                "hash": hex(&hash.0),
            })
        })
        .collect())
}

fn shown(payout: &Payout) -> Value {
    json!({ "address": payout.address, "threshold_nano_usd": payout.threshold_nano_usd })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PayoutAsked {
    address: Option<String>,
    threshold_nano_usd: Option<i64>,
}

async fn set_payout(
    State(app): State<App>,
    contributor: Contributor,
    Path(key): Path<String>,
    JsonBody(asked, _): JsonBody<PayoutAsked>,
) -> Result<Json<Value>, Problem> {
    let (key, now) = (own(&key, contributor)?, UnixMs::now());
    if let Some(address) = &asked.address {
        check_address(address)?;
    }
    if let Some(found) = asked.threshold_nano_usd.filter(|found| *found < 0) {
        let detail = format!("threshold_nano_usd: {found} is below 0");
        return Err(Problem::invalid(detail).with_field("threshold_nano_usd"));
    }
    let PayoutAsked { address, threshold_nano_usd } = asked;
    let payout = Payout { address, threshold_nano_usd };
    if !app.store.set_payout(key, &payout, now).await? {
        let detail = "key: has neither computed nor collected anything here yet";
        return Err(Problem::conflict(detail).with_field("key"));
    }
    Ok(Json(shown(&payout)))
}

/// An account of any bank, chain or mail: plain characters, no spaces.
fn check_address(address: &str) -> Result<(), Problem> {
    if address.is_empty() || address.len() > ADDRESS_BYTES_MAX {
        let detail = format!("address: must have 1 to {ADDRESS_BYTES_MAX} characters");
        return Err(Problem::invalid(detail)
            .with_field("address")
            .with_limit(ADDRESS_BYTES_MAX as u64, Some(address.len() as u64)));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@.:_+-/".contains(&byte);
    if !address.bytes().all(is_plain) {
        let detail = "address: letters, digits and @ . : _ + - / only";
        return Err(Problem::invalid(detail).with_field("address"));
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimAsked {
    statement: String,
    signature: String,
    wallet: String,
    nonce: String,
    wallet_signature: String,
}

/// What a contributor's key signs so that a wallet may collect for it, or its site has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    /// `claim`, or `give`.
    purpose: String,
    /// The origin of this coordinator.
    coordinator: String,
    from: String,
    expires_ms: i64,
    /// Makes each statement another one.
    nonce: String,
    /// To whom it is given: a site's publishable key.
    site: Option<String>,
}

/// What a wallet's key signs over a statement.
fn wallet_text(origin: &str, nonce: &str, statement: &str) -> String {
    format!("raven wallet 1\n{origin}\n{nonce}\n{statement}")
}

async fn claim(
    State(app): State<App>,
    JsonBody(asked, _): JsonBody<ClaimAsked>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let now = UnixMs::now();
    let Said { from: contributor, site } =
        read_statement(&app, &asked.statement, &asked.signature, "claim", now)?;
    if site.is_some() {
        let detail = "statement.site: a claim names none";
        return Err(Problem::invalid(detail).with_field("statement.site"));
    }
    let wallet = parse_key(&asked.wallet, "wallet")?;
    let text = wallet_text(&app.settings.origin, &asked.nonce, &asked.statement);
    answered(&app, wallet, &asked.nonce, &text, &asked.wallet_signature)?;
    let ClaimAsked { statement, signature, .. } = asked;
    let claim = Claim { contributor, wallet, statement, signature };
    app.store.claim(&claim, now).await.map_err(|error| match error {
        ClaimError::Given => Problem::conflict(error.to_string())
            .named("given", "The earnings are given away")
            .with_field("statement.from"),
        ClaimError::Claimed | ClaimError::Linked | ClaimError::Chained | ClaimError::Unknown => {
            Problem::conflict(error.to_string()).with_field("statement.from")
        }
        ClaimError::Full => Problem::full("contributors of this wallet"),
        ClaimError::Books(error) => Problem::internal(&error),
    })?;
    // It is known from here on.
    app.store.contributor_seen(wallet, now).await?;
    let answer = json!({ "from": hex(&contributor.0), "wallet": hex(&wallet.0) });
    Ok((StatusCode::CREATED, Json(answer)))
}

/// What a statement says that holds here and now.
pub(super) struct Said {
    /// Who signed it.
    pub from: ContributorId,
    pub site: Option<String>,
}

/// Reads a statement that was signed for one purpose.
pub(super) fn read_statement(
    app: &App,
    text: &str,
    signature: &str,
    purpose: &str,
    now: UnixMs,
) -> Result<Said, Problem> {
    let refuse = |field: &str, rule: &str| {
        Problem::invalid(format!("statement.{field}: {rule}"))
            .with_field(format!("statement.{field}"))
    };
    if text.len() > STATEMENT_BYTES_MAX {
        let found = text.len() as u64;
        return Err(Problem::invalid("statement: too long")
            .with_field("statement")
            .with_limit(STATEMENT_BYTES_MAX as u64, Some(found)));
    }
    let statement: Statement = serde_json::from_str(text)
        .map_err(|error| Problem::invalid(format!("statement: {error}")).with_field("statement"))?;
    let from = parse_key(&statement.from, "statement.from")?;
    if !is_signed(from, text, signature) {
        let detail = "signature: not made by statement.from over the statement";
        return Err(Problem::invalid(detail).with_field("signature"));
    }
    if statement.purpose != purpose {
        return Err(refuse("purpose", &format!("must be {purpose}")));
    }
    if statement.coordinator != app.settings.origin {
        return Err(refuse("coordinator", "is another one"));
    }
    if statement.nonce.len() < 16 {
        return Err(refuse("nonce", "must have 16 characters or more"));
    }
    let left = statement.expires_ms.saturating_sub(now.0);
    if left <= 0 {
        return Err(refuse("expires_ms", "has passed; ask for another link"));
    }
    if left > STATEMENT_MS_MAX {
        return Err(refuse("expires_ms", "is more than 15 minutes away"));
    }
    Ok(Said { from, site: statement.site })
}
