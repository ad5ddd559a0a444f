//! `/v1/keys`: the keys of an account.

use super::auth::Caller;
use super::body::JsonBody;
use super::extract::{Path, Query};
use super::{App, Problem};
use crate::keys::ApiKey;
use crate::scopes::{Scope, Scopes};
use crate::store::{KeyId, KeyRow, KnownKey, NewKey, Revocation, mode_of};
use crate::time::UnixMs;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

/// Characters of a name of a key or an account.
const NAME_CHARS_MAX: usize = 100;
/// Keys of one list: those that hold, and the last ones that do no longer.
const LISTED_MAX: u32 = 500;

pub fn routes() -> Router<App> {
    Router::new().route("/v1/keys", get(list).post(create)).route("/v1/keys/{id}", delete(revoke))
}

/// What a new key is to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    pub name: String,
    /// All that the asking key has, where it is absent.
    pub scopes: Option<Vec<String>>,
    pub expires_at: Option<String>,
}

/// Refuses names that nobody could tell apart on a page.
///
/// # Errors
/// [`Problem`] 422.
pub fn check_name(name: &str) -> Result<(), Problem> {
    let chars = name.chars().count();
    let refuse = |rule: &str| Problem::invalid(format!("name: {rule}")).with_field("name");
    if chars > NAME_CHARS_MAX {
        return Err(refuse("is too long").with_limit(NAME_CHARS_MAX as u64, Some(chars as u64)));
    }
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err(refuse("must have a visible character, and no control characters"));
    }
    Ok(())
}

/// Makes a key of `account`, which may do no more and no longer than the one that asks.
///
/// # Errors
/// [`Problem`]: 403 where it would, 422, 429.
pub async fn make(
    app: &App,
    account: KeyId,
    caller: &KnownKey,
    spec: &KeySpec,
) -> Result<Value, Problem> {
    check_name(&spec.name)?;
    let scopes = match &spec.scopes {
        Some(names) => scopes_of(names)?,
        None => caller.scopes,
    };
    if let Some(scope) = caller.scopes.lacks(scopes) {
        return Err(Problem::scope(scope).with_field("scopes"));
    }
    let expires = expires_of(spec, caller)?;
    let key = ApiKey::generate(mode_of(app.store.book_of(account).await?));
    let (name, made_by) = (spec.name.as_str(), Some(caller.number));
    let new = NewKey { key: &key, name, scopes, expires, made_by };
    let number = app.store.add_key_of(account, &new).await?;
    Ok(json!({
        "id": number.to_string(), "name": spec.name, "key": key.reveal(), "hint": key.hint(),
        "scopes": scopes.names(), "expires_at": expires.map(UnixMs::rfc3339),
    }))
}

fn scopes_of(names: &[String]) -> Result<Scopes, Problem> {
    let mut scopes = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let field = format!("scopes[{at}]");
        let scope: Scope = name
            .parse()
            .map_err(|rule| Problem::invalid(format!("{field}: {rule}")).with_field(&*field))?;
        scopes.push(scope);
    }
    if scopes.is_empty() {
        let detail = "scopes: a key that may do nothing is of no use";
        return Err(Problem::invalid(detail).with_field("scopes"));
    }
    Ok(scopes.into_iter().collect())
}

fn expires_of(spec: &KeySpec, caller: &KnownKey) -> Result<Option<UnixMs>, Problem> {
    let Some(text) = &spec.expires_at else {
        return match caller.expires {
            None => Ok(None),
            Some(end) => Err(longer(end)),
        };
    };
    let refuse =
        |rule: &str| Problem::invalid(format!("expires_at: {rule}")).with_field("expires_at");
    let at = UnixMs::parse(text).ok_or_else(|| refuse("must be RFC 3339 in UTC"))?;
    if at <= UnixMs::now() {
        return Err(refuse("must be in the future"));
    }
    match caller.expires.filter(|end| at > *end) {
        Some(end) => Err(longer(end)),
        None => Ok(Some(at)),
    }
}

fn longer(end: UnixMs) -> Problem {
    let detail =
        format!("expires_at: the key that asks holds until {}, its keys no longer", end.rfc3339());
    Problem::forbidden(detail).with_field("expires_at")
}

/// An answer that holds a secret is kept nowhere.
pub fn secret(status: StatusCode, answer: Value) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

/// What is shown of a key, again and again.
pub fn shown(row: &KeyRow) -> Value {
    let day = row.used.map(|day| day.rfc3339().split('T').next().unwrap_or_default().to_owned());
    json!({
        "id": row.number.to_string(), "name": row.name, "hint": row.hint,
        "scopes": row.scopes.names(), "created_at": row.created.rfc3339(),
        "expires_at": row.expires.map(UnixMs::rfc3339), "last_used": day,
        "revoked_at": row.revoked.map(UnixMs::rfc3339),
        "made_by": row.made_by.map(|maker| maker.to_string()),
        "passkey": row.passkey.map(|passkey| passkey.to_string()),
    })
}

async fn create(
    State(app): State<App>,
    Caller(caller): Caller,
    JsonBody(spec, _): JsonBody<KeySpec>,
) -> Result<Response, Problem> {
    let answer = make(&app, caller.account, &caller, &spec).await?;
    Ok(secret(StatusCode::CREATED, answer))
}

/// The keys of an account, since when it has its code of recovery, and until when the key
/// that asks holds: those that it makes hold no longer.
///
/// # Errors
/// Those of the store.
pub async fn listed(app: &App, account: KeyId, caller: &KnownKey) -> Result<Json<Value>, Problem> {
    let rows = app.store.keys_of(account, LISTED_MAX, UnixMs::now()).await?;
    let keys: Vec<Value> = rows.iter().map(shown).collect();
    let set = app.store.recovery_set(account).await?;
    Ok(Json(json!({
        "keys": keys, "recovery_set_at": set.map(UnixMs::rfc3339),
        "asked_by": caller.number.to_string(),
        "asked_until": caller.expires.map(UnixMs::rfc3339),
    })))
}

/// How far a revocation reaches.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// Whether the keys that came of it go, too.
    #[serde(default)]
    made: bool,
}

/// Revokes a key of `account` for the one that asks.
///
/// # Errors
/// [`Problem`]: 401, 403, 404, 409.
pub async fn end(
    app: &App,
    account: KeyId,
    caller: &KnownKey,
    id: &str,
    reach: Reach,
) -> Result<StatusCode, Problem> {
    let unknown = || Problem::not_found("no key of this account that holds has that id");
    let number = id.parse().map_err(|_| unknown())?;
    let revoked = if reach.made {
        app.store.revoke_key_and_made(account, number, caller).await?
    } else {
        app.store.revoke_key_of(account, number, caller).await?
    };
    match revoked {
        Revocation::Revoked => Ok(StatusCode::NO_CONTENT),
        Revocation::Unknown => Err(unknown()),
        Revocation::Stronger(scope) => Err(Problem::scope(scope)),
        Revocation::Last => Err(Problem::conflict(
            "it is the account's last key that makes keys and may do everything for ever: \
             make another one first",
        )),
    }
}

async fn list(State(app): State<App>, Caller(caller): Caller) -> Result<Json<Value>, Problem> {
    listed(&app, caller.account, &caller).await
}

async fn revoke(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    Query(reach): Query<Reach>,
) -> Result<StatusCode, Problem> {
    end(&app, caller.account, &caller, &id, reach).await
}
