//! `/v1/passkeys`: an account, or a way into it, for whoever has a passkey; and
//! `/v1/account/passkeys`: those of an account.

use super::account::parse_book;
use super::auth::{Caller, Owner};
use super::body::JsonBody;
use super::ceremony::{
    Credential, NewCredential, Purpose, creation, party, refused, request, unknown,
};
use super::extract::Path;
use super::keys::{check_name, secret};
use super::{App, Problem};
use crate::keys::ApiKey;
use crate::passkey::{Known, NewPasskey, PublicKey, RelyingParty};
use crate::secret::{Secret, SecretKind};
use crate::store::{Book, PasskeyRow, SignIn, Signature, mode_of, requester};
use crate::time::UnixMs;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Instant;

/// How a key is called that ends by itself.
const SESSION_NAME: &str = "Signed in with a passkey";

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/passkeys/sign-up", get(sign_up_terms).post(begin_sign_up))
        .route("/v1/passkeys/sign-up/finish", post(finish_sign_up))
        .route("/v1/passkeys/sign-in", get(sign_in_terms).post(begin_sign_in))
        .route("/v1/passkeys/sign-in/finish", post(finish_sign_in))
        .route("/v1/account/passkeys", get(list).post(add))
        .route("/v1/account/passkeys/begin", post(begin))
        .route("/v1/account/passkeys/{id}", delete(remove))
}

/// What a passkey is called: by its owner, on lists and where a browser asks which one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAnswer {
    name: String,
    credential: NewCredential,
    /// Of another passkey of the account, where the key that asks has an end.
    confirmation: Option<Credential>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignUpAnswer {
    name: String,
    book: Option<String>,
    credential: NewCredential,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignInAnswer {
    credential: Credential,
    /// Of a key that has no end; without it the key ends by itself.
    key_name: Option<String>,
}

/// Whether passkeys sign people in here, for pages that offer it.
async fn sign_in_terms(State(app): State<App>) -> Json<Value> {
    Json(json!({ "open": party(&app).is_ok() }))
}

/// Whether they make accounts.
async fn sign_up_terms(State(app): State<App>) -> Json<Value> {
    Json(json!({ "open": open(&app).is_ok() }))
}

/// Whom passkeys are made for, where they make accounts.
fn open(app: &App) -> Result<RelyingParty, Problem> {
    let party = party(app)?;
    match app.settings.accounts.passkeys {
        true => Ok(party),
        false => Err(Problem::not_found("this coordinator makes no accounts of passkeys")),
    }
}

async fn begin_sign_up(
    State(app): State<App>,
    JsonBody(Wish { name }, _): JsonBody<Wish>,
) -> Result<Json<Value>, Problem> {
    let party = open(&app)?;
    check_name(&name)?;
    let challenge = Purpose::SignUp.give(&app.challenges, Instant::now());
    let user = app.challenges.number_of(&challenge);
    Ok(Json(json!({ "options": creation(&party, &challenge, &user, &name, &[]) })))
}

/// Checks a new passkey, and takes its challenge: first, so that nobody has more looked at
/// than what was asked for.
fn check_new(
    app: &App,
    party: &RelyingParty,
    purpose: Purpose,
    credential: &NewCredential,
) -> Result<NewPasskey, Problem> {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let answer = credential.read()?;
    let challenge = party.challenge_of(&answer).map_err(|why| refused(status, &why))?;
    purpose.take(&app.challenges, &challenge, Instant::now(), status)?;
    party.register(&answer).map_err(|why| refused(status, &why))
}

async fn finish_sign_up(
    State(app): State<App>,
    JsonBody(answer, _): JsonBody<SignUpAnswer>,
) -> Result<Response, Problem> {
    let party = open(&app)?;
    check_name(&answer.name)?;
    let book = answer.book.as_deref().map_or(Ok(Book::Test), parse_book)?;
    let new = check_new(&app, &party, Purpose::SignUp, &answer.credential)?;
    let user = app.challenges.number_of(&new.challenge);
    let key = ApiKey::generate(mode_of(book));
    let recovery = Secret::generate(SecretKind::Recovery);
    let made = app.store.sign_up_with_passkey(&key, &recovery, &new, &user, &answer.name);
    let (owner, passkey) = made.await?;
    let answer = json!({
        "account": requester(owner).to_string(), "key": key.reveal(),
        "recovery_code": recovery.reveal(), "passkey": passkey.to_string(),
    });
    Ok(secret(StatusCode::CREATED, answer))
}

async fn begin_sign_in(State(app): State<App>) -> Result<Json<Value>, Problem> {
    let party = party(&app)?;
    let challenge = Purpose::SignIn.give(&app.challenges, Instant::now());
    Ok(Json(json!({ "options": request(&party, &challenge) })))
}

/// Checks that a passkey that is there has answered a challenge, and takes that.
async fn signed(
    app: &App,
    party: &RelyingParty,
    purpose: Purpose,
    credential: &Credential,
) -> Result<Signature, Problem> {
    let status = StatusCode::UNAUTHORIZED;
    let (id, assertion) = credential.read()?;
    let row = app.store.known_passkey(&id).await?.ok_or_else(unknown)?;
    let public_key =
        PublicKey::parse(&row.public_key).map_err(|error| Problem::internal(&error))?;
    let known = Known { public_key, user: row.user, is_synced: row.is_synced };
    let found = party.assert(&assertion, &known).map_err(|why| refused(status, &why))?;
    // The signature first: a stranger's answer must not use up the challenge.
    purpose.take(&app.challenges, &found.challenge, Instant::now(), status)?;
    Ok(Signature { passkey: row.number, count: found.count })
}

/// Needs no key: the front counts it with all requests of its network.
async fn finish_sign_in(
    State(app): State<App>,
    JsonBody(answer, _): JsonBody<SignInAnswer>,
) -> Result<Response, Problem> {
    let party = party(&app)?;
    if let Some(name) = &answer.key_name {
        check_name(name).map_err(|problem| problem.with_field("key_name"))?;
    }
    let signed = signed(&app, &party, Purpose::SignIn, &answer.credential).await?;
    let (name, lasts) = (answer.key_name.as_deref(), answer.key_name.is_some());
    let (passkey, name) = (signed.passkey, name.unwrap_or(SESSION_NAME));
    let wish = SignIn { signed, name, lasts };
    let entered = app.store.sign_in(&wish, UnixMs::now()).await?;
    let account = requester(entered.account);
    tracing::info!(%account, %passkey, lasts, "somebody signed in with a passkey");
    let answer = json!({
        "account": account.to_string(), "id": entered.number.to_string(),
        "key": entered.key.reveal(), "expires_at": entered.expires.map(UnixMs::rfc3339),
    });
    Ok(secret(StatusCode::CREATED, answer))
}

fn shown(row: &PasskeyRow) -> Value {
    let day = row.used.map(|day| day.rfc3339().split('T').next().unwrap_or_default().to_owned());
    json!({
        "id": row.number.to_string(), "name": row.name, "synced": row.is_synced,
        "created_at": row.created.rfc3339(), "last_used": day,
        "added_by": row.added_by.map(|key| key.to_string()),
        "confirmed_by": row.confirmed_by.map(|passkey| passkey.to_string()),
    })
}

async fn list(State(app): State<App>, owner: Owner) -> Result<Json<Value>, Problem> {
    let rows = app.store.passkeys_of(owner.0).await?;
    Ok(Json(json!({ "passkeys": rows.iter().map(shown).collect::<Vec<_>>() })))
}

async fn begin(
    State(app): State<App>,
    Caller(caller): Caller,
    JsonBody(Wish { name }, _): JsonBody<Wish>,
) -> Result<Json<Value>, Problem> {
    let party = party(&app)?;
    check_name(&name)?;
    let purpose = Purpose::Add(caller.account);
    let challenge = purpose.give(&app.challenges, Instant::now());
    let fresh = app.challenges.number_of(&challenge);
    let user = app.store.passkey_user(&caller, &fresh).await?;
    // A device that has one already is not asked to make another.
    let others = app.store.passkeys_of(caller.account).await?;
    let confirm = caller.expires.map(|_| {
        let purpose = Purpose::Confirm(caller.account);
        request(&party, &purpose.give(&app.challenges, Instant::now()))
    });
    Ok(Json(json!({
        "options": creation(&party, &challenge, &user, &name, &others), "confirm": confirm,
    })))
}

async fn add(
    State(app): State<App>,
    Caller(caller): Caller,
    JsonBody(answer, _): JsonBody<NewAnswer>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let party = party(&app)?;
    check_name(&answer.name)?;
    let new = check_new(&app, &party, Purpose::Add(caller.account), &answer.credential)?;
    let confirmed = match &answer.confirmation {
        Some(credential) => {
            Some(signed(&app, &party, Purpose::Confirm(caller.account), credential).await?)
        }
        None => None,
    };
    let row = app.store.add_passkey(&caller, &new, &answer.name, confirmed).await?;
    Ok((StatusCode::CREATED, Json(shown(&row))))
}

async fn remove(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let unknown = || Problem::not_found("no passkey of this account has that id");
    let number = id.parse().map_err(|_| unknown())?;
    let removed = app.store.remove_passkey(number, &caller).await?;
    if removed { Ok(StatusCode::NO_CONTENT) } else { Err(unknown()) }
}
