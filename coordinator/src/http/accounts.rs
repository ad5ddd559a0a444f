//! `/v1/accounts`: sub-accounts, for platforms that serve users of their own.

use super::account::amounts;
use super::auth::{Caller, Owner};
use super::body::JsonBody;
use super::extract::{Path, Query};
use super::keys::{KeySpec, Reach, check_name, end, listed, make, secret};
use super::money::{Amount, Reference};
use super::{App, Problem};
use crate::keys::ApiKey;
use crate::store::{ChildError, ChildRow, KeyId, NewKey, mode_of, requester};
use crate::time::UnixMs;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use raven_engine::ledger::{Account, Added, Reason, Transfer};
use serde::Deserialize;
use serde_json::{Value, json};

/// Sub-accounts of one list, where the request does not say, and at most.
const LISTED: u32 = 50;
const LISTED_MAX: u32 = 500;
/// Bytes of what a parent knows a sub-account by.
const EXTERNAL_ID_BYTES_MAX: usize = 200;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/accounts", get(list).post(create))
        .route("/v1/accounts/{id}", get(show).delete(close))
        .route("/v1/accounts/{id}/keys", get(list_keys).post(add_key))
        .route("/v1/accounts/{id}/keys/{key}", delete(revoke_key))
        .route("/v1/accounts/{id}/transfer", post(transfer))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChildSpec {
    name: String,
    external_id: Option<String>,
}

fn check_external_id(text: &str) -> Result<(), Problem> {
    let refuse =
        |rule: &str| Problem::invalid(format!("external_id: {rule}")).with_field("external_id");
    let bytes = text.len();
    if bytes > EXTERNAL_ID_BYTES_MAX {
        let problem = refuse("is too long");
        return Err(problem.with_limit(EXTERNAL_ID_BYTES_MAX as u64, Some(bytes as u64)));
    }
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(refuse("must have a character, and no control characters"));
    }
    Ok(())
}

impl From<ChildError> for Problem {
    fn from(error: ChildError) -> Self {
        match error {
            ChildError::Nested => Problem::forbidden(error.to_string()),
            ChildError::Known(id) => {
                let known = requester(id);
                Problem::conflict(format!("external_id: it is that of {known}"))
                    .with_field("external_id")
            }
            ChildError::Store(error) => error.into(),
        }
    }
}

/// The sub-account that a path names.
async fn find(app: &App, owner: KeyId, text: &str) -> Result<ChildRow, Problem> {
    let unknown = || Problem::not_found("no sub-account of this account has that id");
    let Ok(Account::Requester(id)) = text.parse() else { return Err(unknown()) };
    let id = KeyId(i64::from_le_bytes(id.0.to_le_bytes()));
    app.store.child(owner, id).await?.ok_or_else(unknown)
}

async fn shown(app: &App, row: &ChildRow) -> Result<Value, Problem> {
    let book = app.store.book_of(row.id).await?;
    let account = requester(row.id);
    let balance = app.store.balance(book, account).await?;
    Ok(json!({
        "account": account.to_string(), "book": book.as_str(), "name": row.name,
        "external_id": row.external_id,
        "created_at": row.created.rfc3339(), "closed_at": row.closed.map(UnixMs::rfc3339),
        "balance": amounts(&balance),
    }))
}

/// The child's first key may do what the asking key may, for as long.
async fn create(
    State(app): State<App>,
    Caller(caller): Caller,
    JsonBody(spec, _): JsonBody<ChildSpec>,
) -> Result<Response, Problem> {
    check_name(&spec.name)?;
    if let Some(text) = &spec.external_id {
        check_external_id(text)?;
    }
    let key = ApiKey::generate(mode_of(app.store.book_of(caller.account).await?));
    let (scopes, expires, made_by) = (caller.scopes, caller.expires, Some(caller.number));
    let new = NewKey { key: &key, name: "", scopes, expires, made_by };
    let (external_id, most) = (spec.external_id.as_deref(), app.settings.accounts.children_max);
    let child = app.store.add_child(caller.account, &new, &spec.name, external_id, most).await?;
    let answer = json!({
        "account": requester(child).to_string(), "name": spec.name,
        "external_id": spec.external_id, "key": key.reveal(), "scopes": scopes.names(),
        "expires_at": expires.map(UnixMs::rfc3339),
    });
    Ok(secret(StatusCode::CREATED, answer))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    /// The last account of the page before.
    after: Option<String>,
    limit: Option<u32>,
}

async fn list(
    State(app): State<App>,
    owner: Owner,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let limit = page.limit.unwrap_or(LISTED);
    if limit == 0 || limit > LISTED_MAX {
        return Err(Problem::invalid(format!("limit: must be 1 to {LISTED_MAX}"))
            .with_field("limit")
            .with_limit(LISTED_MAX.into(), Some(limit.into())));
    }
    let after = match &page.after {
        Some(text) => find(&app, owner.0, text).await?.id.0,
        None => 0,
    };
    let rows = app.store.children(owner.0, after, limit).await?;
    let next = rows.last().filter(|_| rows.len() == limit as usize);
    let next = next.map(|row| requester(row.id).to_string());
    let mut accounts = Vec::with_capacity(rows.len());
    for row in &rows {
        accounts.push(shown(&app, row).await?);
    }
    let most = app.settings.accounts.children_max;
    Ok(Json(json!({ "accounts": accounts, "next_after": next, "open_max": most })))
}

async fn show(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let row = find(&app, owner.0, &id).await?;
    Ok(Json(shown(&app, &row).await?))
}

async fn close(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let row = find(&app, owner.0, &id).await?;
    // One that is closed already is as it was asked to be.
    app.store.close_child(owner.0, row.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn add_key(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    JsonBody(spec, _): JsonBody<KeySpec>,
) -> Result<Response, Problem> {
    let row = find(&app, caller.account, &id).await?;
    let answer = make(&app, row.id, &caller, &spec).await?;
    Ok(secret(StatusCode::CREATED, answer))
}

async fn list_keys(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let row = find(&app, caller.account, &id).await?;
    listed(&app, row.id, &caller).await
}

/// Its parent may revoke a sub-account's last key too: it can make another.
async fn revoke_key(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((id, key)): Path<(String, String)>,
    Query(reach): Query<Reach>,
) -> Result<StatusCode, Problem> {
    let row = find(&app, caller.account, &id).await?;
    end(&app, row.id, &caller, &key, reach).await
}

/// Which way money goes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    /// To the sub-account.
    Fund,
    /// From it.
    TakeBack,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Movement {
    nano_usd: Amount,
    direction: Direction,
    reference: Reference,
}

async fn transfer(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    JsonBody(asked, _): JsonBody<Movement>,
) -> Result<Json<Value>, Problem> {
    let row = find(&app, caller.account, &id).await?;
    let (own, child) = (requester(caller.account), requester(row.id));
    let (debit, credit) = match asked.direction {
        Direction::Fund if row.closed.is_some() => {
            return Err(Problem::conflict("the sub-account is closed: nobody could spend it"));
        }
        Direction::Fund => (own, child),
        Direction::TakeBack => (child, own),
    };
    let Amount(amount) = asked.nano_usd;
    let transfer = Transfer { debit, credit, amount, reason: Reason::SubAccount };
    let id = asked.reference.entry("sub-account", caller.account);
    let book = app.store.book_of(caller.account).await?;
    let added = app.store.move_for(caller.into(), book, transfer, id).await?;
    Ok(Json(json!({
        "entry": id.to_string(), "entered_before": added == Added::Before,
        "account": shown(&app, &row).await?,
        "balance": amounts(&app.store.balance(book, own).await?),
    })))
}
