//! What sites and contributors have earned, spent on jobs of one's own.

use super::account::amounts;
use super::auth::{Caller, Owner};
use super::body::JsonBody;
use super::extract::Path;
use super::money::{Amount, Reference};
use super::partner::find;
use super::{App, Problem};
use crate::earnings::{LINK_MS_MAX, Statement, StatementError};
use crate::store::{KnownKey, requester};
use crate::time::UnixMs;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use raven_engine::ledger::{Account, Added, EntryId};
use raven_engine::money::NanoUsd;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/sites/{id}/spend", post(of_site))
        .route("/v1/account/earnings", post(of_contributor))
}

impl From<StatementError> for Problem {
    fn from(error: StatementError) -> Self {
        let problem = match &error {
            StatementError::Signature | StatementError::Elsewhere { .. } => {
                Problem::forbidden(error.to_string())
            }
            StatementError::Over { .. } => Problem::conflict(error.to_string()),
            StatementError::TooLate { found_ms } => Problem::invalid(error.to_string())
                .with_limit(LINK_MS_MAX.unsigned_abs(), Some(found_ms.unsigned_abs())),
            _ => Problem::invalid(error.to_string()),
        };
        problem.with_field(error.field())
    }
}

async fn spend(
    app: &App,
    from: Account,
    caller: KnownKey,
    amount: NanoUsd,
    id: EntryId,
) -> Result<Json<Value>, Problem> {
    let added = app.store.spend(from, caller, amount, id).await?;
    if let (Account::Contributor(key), Added::New) = (from, added) {
        // It said so itself; that its word is sent again says nothing of it.
        app.store.contributor_seen(key, UnixMs::now()).await?;
    }
    let book = app.store.book_of(caller.account).await?;
    Ok(Json(json!({
        "entry": id.to_string(), "entered_before": added == Added::Before,
        "from": from.to_string(), "left": amounts(&app.store.balance(book, from).await?),
        "balance": amounts(&app.store.balance(book, requester(caller.account)).await?),
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spending {
    nano_usd: Amount,
    reference: Reference,
}

async fn of_site(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    JsonBody(asked, _): JsonBody<Spending>,
) -> Result<Json<Value>, Problem> {
    let site = Account::Site(find(&app, Owner(caller.account), &id).await?.id);
    let fields = [&site.to_bytes()[..], asked.reference.as_str().as_bytes()];
    let Amount(amount) = asked.nano_usd;
    spend(&app, site, caller, amount, EntryId::of("spend", &fields)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    /// JSON, as it was signed.
    statement: String,
    signature: String,
}

async fn of_contributor(
    State(app): State<App>,
    Caller(caller): Caller,
    JsonBody(signed, _): JsonBody<Signed>,
) -> Result<Json<Value>, Problem> {
    let (text, signature, origin) = (&signed.statement, &signed.signature, &app.settings.origin);
    let statement = Statement::read(text, signature, origin, UnixMs::now())?;
    if statement.account != requester(caller.account) {
        let detail = "statement.account: it is for another account than the key's";
        return Err(Problem::forbidden(detail).with_field("statement.account"));
    }
    let from = Account::Contributor(statement.contributor);
    spend(&app, from, caller, statement.amount, statement.entry()).await
}
