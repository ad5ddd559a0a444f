//! `/v1/account/withdrawals` and those of sites: money that is asked to go out.

use super::auth::{Caller, Owner};
use super::body::JsonBody;
use super::extract::Path;
use super::money::{Amount, Reference};
use super::partner::find;
use super::token_rate;
use super::{App, Problem};
use crate::settlement::{
    ADDRESS_BYTES_MAX, Pay, Request, SettlementError, Withdrawal, WithdrawalId,
};
use crate::store::{Book, KnownKey, requester, site_text};
use crate::time::UnixMs;
use crate::token::TokenRates;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use raven_engine::ledger::Account;
use serde::Deserialize;
use serde_json::{Value, json};

/// Withdrawals of one list.
const LISTED_MAX: u32 = 200;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/account/withdrawals", get(list).post(create))
        .route("/v1/account/withdrawals/{id}", delete(cancel))
        .route("/v1/sites/{id}/withdrawals", get(list_of_site).post(create_of_site))
        .route("/v1/sites/{id}/withdrawals/{withdrawal}", delete(cancel_of_site))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    nano_usd: Amount,
    address: String,
    reference: Reference,
    #[serde(default)]
    pay: PayName,
}

/// The names of [`Pay`].
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PayName {
    #[default]
    Usd,
    Tokens,
}

impl From<PayName> for Pay {
    fn from(name: PayName) -> Self {
        match name {
            PayName::Usd => Pay::Usd,
            PayName::Tokens => Pay::Tokens,
        }
    }
}

impl From<SettlementError> for Problem {
    fn from(error: SettlementError) -> Self {
        let detail = error.to_string();
        match error {
            SettlementError::Books(error) => error.into(),
            SettlementError::PlayMoney => {
                Problem::conflict(detail).named("play-money", "Play money stays inside")
            }
            SettlementError::BelowLeast { found, least } => {
                let number = |amount: i64| amount.max(0).unsigned_abs();
                Problem::invalid(detail)
                    .named("below-least", "Too little to be paid out")
                    .with_field("nano_usd")
                    .with_limit(number(least.0), Some(number(found.0)))
            }
            SettlementError::Address => Problem::invalid(detail)
                .with_field("address")
                .with_limit(ADDRESS_BYTES_MAX as u64, None),
            SettlementError::ReferenceUsed => Problem::conflict(detail)
                .named("reference-used", "The reference is used")
                .with_field("reference"),
            SettlementError::NoTokenRate => Problem::conflict(format!("pay: {detail}"))
                .named("no-token-rate", "Tokens have no rate")
                .with_field("pay"),
            SettlementError::Tokens { .. }
            | SettlementError::TokensWorthNothing { .. }
            | SettlementError::TokensWorthTooMuch { .. } => {
                Problem::invalid(detail).with_field("micro_tokens")
            }
            SettlementError::Unknown(_) => Problem::not_found(detail),
            SettlementError::NotPayable { .. } => Problem::forbidden(detail),
            SettlementError::Over { .. } => Problem::expired_hold(detail),
            SettlementError::Decided { .. } | SettlementError::NotBegun { .. } => {
                Problem::conflict(detail)
            }
        }
    }
}

/// In tokens at its own rate where it is paid in them, and otherwise at that of its day.
pub(super) fn shown(withdrawal: &Withdrawal, rates: &TokenRates) -> Value {
    let Withdrawal { id, request, state, requested, expires, decided, note, rate } = withdrawal;
    let rate = rate.or_else(|| rates.at(*requested));
    json!({
        "id": id.to_string(), "account": request.account.to_string(),
        "nano_usd": request.amount.0, "address": request.address, "reference": request.reference,
        "state": state.as_str(), "requested_at": requested.rfc3339(),
        "expires_at": expires.rfc3339(), "decided_at": decided.map(UnixMs::rfc3339), "note": note,
        "pay": request.pay.as_str(), "token_rate": rate.as_ref().map(token_rate::shown),
        "micro_tokens": rate.and_then(|rate| rate.micro_tokens(request.amount)),
    })
}

async fn ask(
    app: &App,
    caller: &KnownKey,
    account: Account,
    wish: Wish,
) -> Result<Response, Problem> {
    let book = app.store.book_of(caller.account).await?;
    let Wish { nano_usd: Amount(amount), address, reference, pay } = wish;
    let reference = reference.as_str().to_owned();
    let request = Request { book, account, amount, address, pay: pay.into(), reference };
    let withdrawal = app.settlement.request(request, UnixMs::now()).await?;
    // Whoever revoked the key while its request waited has seen no such withdrawal;
    // whoever revokes it from here on sees this one.
    if !app.store.key_holds(caller.number, UnixMs::now()).await? {
        app.settlement.cancel((book, account), withdrawal.id, UnixMs::now()).await?;
        return Err(Problem::key_over());
    }
    Ok((StatusCode::CREATED, Json(shown(&withdrawal, &app.store.token_rates().await?)))
        .into_response())
}

pub(super) async fn listed(
    app: &App,
    book: Book,
    account: Account,
) -> Result<Json<Value>, Problem> {
    let rows = app.store.withdrawals(Some((book, account)), false, LISTED_MAX).await?;
    let rates = app.store.token_rates().await?;
    let withdrawals: Vec<Value> = rows.iter().map(|row| shown(row, &rates)).collect();
    Ok(Json(json!({ "withdrawals": withdrawals, "least_nano_usd": app.settlement.least() })))
}

/// What a sub-account has came from its parent, and goes out through it.
async fn create(
    State(app): State<App>,
    Caller(caller): Caller,
    JsonBody(wish, _): JsonBody<Wish>,
) -> Result<Response, Problem> {
    if app.store.is_child(caller.account).await? {
        let detail = "a sub-account's money is its parent's to take back and withdraw";
        return Err(Problem::forbidden(detail));
    }
    ask(&app, &caller, requester(caller.account), wish).await
}

async fn list(State(app): State<App>, owner: Owner) -> Result<Json<Value>, Problem> {
    listed(&app, app.store.book_of(owner.0).await?, requester(owner.0)).await
}

async fn create_of_site(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    JsonBody(wish, _): JsonBody<Wish>,
) -> Result<Response, Problem> {
    let site = find(&app, Owner(caller.account), &id).await?;
    ask(&app, &caller, Account::Site(site.id), wish).await
}

async fn list_of_site(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let site = find(&app, owner, &id).await?;
    let (book, account) = (app.store.book_of(owner.0).await?, Account::Site(site.id));
    let mut answer = listed(&app, book, account).await?;
    answer["site"] = Value::from(site_text(site.id));
    Ok(answer)
}

/// Gives back what nobody has begun to pay.
pub(super) async fn taken_back(
    app: &App,
    book: Book,
    account: Account,
    id: &str,
) -> Result<Json<Value>, Problem> {
    let unknown = || Problem::not_found("no withdrawal of this account has that id");
    let id: WithdrawalId = id.parse().map_err(|_| unknown())?;
    let cancelled = app.settlement.cancel((book, account), id, UnixMs::now()).await;
    let withdrawal = cancelled.map_err(|error| match error {
        SettlementError::Unknown(_) => unknown(),
        error => error.into(),
    })?;
    Ok(Json(shown(&withdrawal, &app.store.token_rates().await?)))
}

async fn cancel(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    taken_back(&app, app.store.book_of(owner.0).await?, requester(owner.0), &id).await
}

async fn cancel_of_site(
    State(app): State<App>,
    owner: Owner,
    Path((site, id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let site = find(&app, owner, &site).await?;
    taken_back(&app, app.store.book_of(owner.0).await?, Account::Site(site.id), &id).await
}
