//! `/v1/token-rate`: what a RAVEN token is worth, and was. For everyone.

use super::{App, Problem};
use crate::time::UnixMs;
use crate::token::TokenRate;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use raven_engine::ledger::Balance;
use raven_engine::money::NanoUsd;
use serde_json::{Value, json};

/// Rates of one answer.
const HISTORY_MAX: usize = 1_000;

pub fn routes() -> Router<App> {
    Router::new().route("/v1/token-rate", get(show))
}

/// A rate as the API shows it.
pub fn shown(rate: &TokenRate) -> Value {
    json!({ "nano_usd_per_token": rate.nano_usd, "from": rate.from.rfc3339() })
}

/// A balance in tokens, and the rate; `null` where there is none.
pub fn in_tokens(balance: &Balance, rate: Option<TokenRate>) -> Value {
    let Some(rate) = rate else { return Value::Null };
    json!({
        "rate": shown(&rate),
        "available_micro_tokens": rate.micro_tokens(balance.available()),
        "held_micro_tokens": rate.micro_tokens(NanoUsd(balance.held_out)),
        "pending_micro_tokens": rate.micro_tokens(NanoUsd(balance.held_in)),
    })
}

async fn show(State(app): State<App>) -> Result<Json<Value>, Problem> {
    let rates = app.store.token_rates().await?;
    let history: Vec<Value> = rates.0.iter().rev().take(HISTORY_MAX).map(shown).collect();
    let now = rates.at(UnixMs::now());
    Ok(Json(json!({ "now": now.as_ref().map(shown), "history": history })))
}
