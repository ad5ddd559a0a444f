//! `/v1/jobs/{id}/top-up`: more money for a job that has not ended.

use super::auth::{Caller, Owner};
use super::body::JsonBody;
use super::extract::Path;
use super::idempotency::{Claim, Once, Turn};
use super::money::Reference;
use super::{App, Problem, jobs};
use crate::store::{BooksError, KnownKey, StoreError};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use raven_engine::ledger::{Added, PayError, Refusal};
use raven_engine::money::NanoUsd;
use raven_protocol::JobId;
use serde::Deserialize;
use serde_json::{Number, Value, json};

const FIELD: &str = "amount_nano_usd";

pub fn routes() -> Router<App> {
    Router::new().route("/v1/jobs/{id}/top-up", post(top_up))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopUp {
    /// Of any size, so that one beyond the books is refused as such.
    amount_nano_usd: Number,
    /// What the owner knows it by: it is entered once, at any time.
    reference: Option<Reference>,
}

/// An amount of 1 or more that a job which holds `escrow` can take.
fn amount(found: &Number, escrow: NanoUsd) -> Result<NanoUsd, Problem> {
    let limit = i64::MAX.abs_diff(escrow.0.max(0));
    let refused = |detail: String| Problem::malformed(detail).with_field(FIELD);
    match found.as_i64() {
        Some(amount) if amount < 1 => {
            let detail = format!("{FIELD}: {amount}, must be 1 or more");
            Err(refused(detail).with_limit(1, None))
        }
        Some(amount) if amount.unsigned_abs() <= limit => Ok(NanoUsd(amount)),
        _ => {
            let detail = format!("{FIELD}: {found}, must be a whole number of at most {limit}");
            Err(refused(detail).with_limit(limit, found.as_u64()))
        }
    }
}

async fn top_up(
    State(app): State<App>,
    Caller(caller): Caller,
    once: Once,
    Path(id): Path<String>,
    JsonBody(wish, digest): JsonBody<TopUp>,
) -> Result<Response, Problem> {
    let owner = Owner(caller.account);
    let row = jobs::find(&app, owner, &id).await?;
    let claim = match once.begin(&app, owner, digest).await? {
        Turn::Answered(answer) => return Ok(answer),
        Turn::Mine(claim) => claim,
    };
    let amount = amount(&wish.amount_nano_usd, row.escrow)?;
    // A client that hangs up takes its handler with it, but not this: what is paid
    // is told to the job.
    let answer = tokio::spawn(pay(app, caller, row.id, amount, wish.reference, claim)).await??;
    Ok((StatusCode::OK, Json(answer)).into_response())
}

async fn pay(
    app: App,
    caller: KnownKey,
    job: JobId,
    amount: NanoUsd,
    reference: Option<Reference>,
    claim: Claim,
) -> Result<Value, Problem> {
    let answer = |escrow: NanoUsd, added| {
        json!({
            "id": job, "amount_nano_usd": amount, "escrow_nano_usd": escrow,
            "entered_before": added == Added::Before,
        })
    };
    let remembered = |escrow, added| claim.remember(StatusCode::OK, &answer(escrow, added));
    let paid = match reference {
        Some(reference) => {
            let id = reference.entry("top-up", caller.account);
            app.store.top_up_once(caller.into(), job, amount, id, remembered).await
        }
        None => {
            let remembered = |escrow| remembered(escrow, Added::New);
            let paid = app.store.top_up(caller, job, amount, remembered).await;
            paid.map(|escrow| (escrow, Added::New))
        }
    };
    let (escrow, added) = paid.map_err(refused)?;
    drop(claim);
    if added == Added::New
        && let Err(error) = app.network.top_up(job, escrow).await
    {
        // It is paid, and the next process reads it from the store.
        tracing::warn!(%job, %error, "a job was not told that it was topped up");
    }
    Ok(answer(escrow, added))
}

fn refused(error: StoreError) -> Problem {
    match error {
        StoreError::Ended { phase, .. } => {
            let detail = format!("the job has ended already: {phase}");
            Problem::conflict(detail).with_field("state")
        }
        StoreError::Pay(PayError::Overflow) => {
            let detail = format!("{FIELD}: the job would hold more than the books can say");
            Problem::malformed(detail).with_field(FIELD)
        }
        StoreError::Books(refusal @ Refusal::IdReused { .. }) => {
            BooksError::Refused(refusal).into()
        }
        error => error.into(),
    }
}
