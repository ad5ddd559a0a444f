//! `/v1/contributors/{key}/withdrawals`: what a contributor, or the wallet that collects
//! for several, wants to have outside. It goes to the address that its key has named before.

use super::body::JsonBody;
use super::challenge::Contributor;
use super::contributors::own;
use super::extract::Path;
use super::money::{Amount, Reference};
use super::withdrawals::{PayName, listed, shown, taken_back};
use super::{App, Problem};
use crate::settlement::{Request, SettlementError};
use crate::store::Book;
use crate::time::UnixMs;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Json, Router};
use raven_engine::ledger::Account;
use raven_engine::money::NanoUsd;
use serde::Deserialize;
use serde_json::Value;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/contributors/{key}/withdrawals", get(list).post(create))
        .route("/v1/contributors/{key}/withdrawals/{id}", delete(cancel))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    nano_usd: Amount,
    reference: Reference,
    #[serde(default)]
    pay: PayName,
}

/// Holds real money; there is no other that goes out.
async fn create(
    State(app): State<App>,
    contributor: Contributor,
    Path(key): Path<String>,
    JsonBody(wish, _): JsonBody<Wish>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (key, now) = (own(&key, contributor)?, UnixMs::now());
    app.store.contributor_seen(key, now).await?;
    if app.store.wallet_of(key).await?.is_some() {
        let detail = "key: what it earns goes to its wallet, which withdraws it";
        return Err(Problem::conflict(detail)
            .named("collected", "A wallet collects for this key")
            .with_field("key"));
    }
    let accounts = app.store.accounts_of(key).await?;
    if accounts.iter().any(|link| link.book == Book::Live) {
        let detail = "key: what it earns goes to its account, which withdraws it";
        return Err(Problem::conflict(detail)
            .named("collected", "An account has what this key earns")
            .with_field("key"));
    }
    let payout = app.store.payout(key).await?;
    let Some(address) = payout.address else {
        let detail = "payout.address: there is none yet: put /v1/contributors/KEY/payout first";
        return Err(Problem::conflict(detail)
            .named("no-payout-address", "There is nowhere to pay to")
            .with_field("payout.address"));
    };
    let Wish { nano_usd: Amount(amount), reference, pay } = wish;
    // Its owner's own rule, so that nothing goes out for which a payment is too dear.
    let least = NanoUsd(payout.threshold_nano_usd.unwrap_or(0));
    if amount < least {
        return Err(SettlementError::BelowLeast { found: amount, least }.into());
    }
    let (account, reference) = (Account::Contributor(key), reference.as_str().to_owned());
    let request =
        Request { book: Book::Live, account, amount, address, pay: pay.into(), reference };
    let withdrawal = app.settlement.request(request, now).await?;
    Ok((StatusCode::CREATED, Json(shown(&withdrawal, &app.store.token_rates().await?))))
}

async fn list(
    State(app): State<App>,
    contributor: Contributor,
    Path(key): Path<String>,
) -> Result<Json<Value>, Problem> {
    let key = own(&key, contributor)?;
    app.store.contributor_seen(key, UnixMs::now()).await?;
    listed(&app, Book::Live, Account::Contributor(key)).await
}

/// The money is the key's again, also where it has been linked or claimed since.
async fn cancel(
    State(app): State<App>,
    contributor: Contributor,
    Path((key, id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let key = own(&key, contributor)?;
    app.store.contributor_seen(key, UnixMs::now()).await?;
    taken_back(&app, Book::Live, Account::Contributor(key), &id).await
}
