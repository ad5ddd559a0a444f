//! `/v1/account/links`: contributors whose earnings go to an account as they mature. The
//! contributor says so by a statement, the account by its key; either ends it.

use super::account::parse_book;
use super::auth::{Caller, Owner};
use super::body::JsonBody;
use super::challenge::{Contributor, parse_key};
use super::contributors::own;
use super::extract::Path;
use super::{App, Problem};
use crate::earnings::LinkStatement;
use crate::runtime::session::hex;
use crate::store::{AccountLink, LINKS_MAX, LinkError, NewLink, requester};
use crate::time::UnixMs;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

/// Contributors of one list, the newest ones.
const LISTED_MAX: u32 = 200;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/account/links", get(list).post(create))
        .route("/v1/account/links/{key}", delete(end))
        .route("/v1/contributors/{key}/links/{book}", delete(end_own))
}

impl From<LinkError> for Problem {
    fn from(error: LinkError) -> Self {
        let detail = error.to_string();
        let at = "statement.contributor";
        match error {
            LinkError::Linked => Problem::conflict(detail)
                .named("linked", "The contributor has an account")
                .with_field(at),
            LinkError::Collected => Problem::conflict(detail)
                .named("collected", "A wallet collects for this key")
                .with_field(at),
            LinkError::Given => Problem::conflict(detail)
                .named("given", "The earnings are given away")
                .with_field(at),
            LinkError::Unknown => Problem::conflict(detail).with_field(at),
            LinkError::Used => Problem::conflict(detail)
                .named("statement-used", "The statement is used")
                .with_field("statement"),
            LinkError::Full => Problem::quota("new contributors of a month", LINKS_MAX, LINKS_MAX),
            LinkError::Books(error) => error.into(),
        }
    }
}

fn shown(link: &AccountLink) -> Value {
    json!({
        "contributor": hex(&link.contributor.0), "account": requester(link.account).to_string(),
        "book": link.book.as_str(), "linked_at": link.linked.rfc3339(),
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    /// JSON, as it was signed.
    statement: String,
    signature: String,
}

async fn create(
    State(app): State<App>,
    Caller(caller): Caller,
    JsonBody(signed, _): JsonBody<Signed>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (origin, now, account) = (&app.settings.origin, UnixMs::now(), caller.account);
    let said = LinkStatement::read(&signed.statement, &signed.signature, origin, now)?;
    if said.account != requester(account) {
        let detail = "statement.account: it is for another account than the key's";
        return Err(Problem::forbidden(detail).with_field("statement.account"));
    }
    let (Signed { statement, signature }, contributor) = (signed, said.contributor);
    let (nonce, end) = (said.nonce, said.end);
    let link = NewLink { contributor, account, nonce, end, statement, signature };
    let link = app.store.link_account_for(caller.into(), &link, now).await?;
    // It has signed this just now: a statement's end is near, and it serves once.
    app.store.contributor_seen(contributor, now).await?;
    Ok((StatusCode::CREATED, Json(shown(&link))))
}

async fn list(State(app): State<App>, owner: Owner) -> Result<Json<Value>, Problem> {
    let links = app.store.account_links(owner.0, LISTED_MAX).await?;
    Ok(Json(json!({ "links": links.iter().map(shown).collect::<Vec<_>>() })))
}

async fn end(
    State(app): State<App>,
    owner: Owner,
    Path(key): Path<String>,
) -> Result<StatusCode, Problem> {
    let key = parse_key(&key, "key")?;
    let book = app.store.book_of(owner.0).await?;
    let ended = app.store.unlink_account(key, book, Some(owner.0), UnixMs::now()).await?;
    let unknown = || Problem::not_found("no contributor of that key is linked to this account");
    if ended { Ok(StatusCode::NO_CONTENT) } else { Err(unknown()) }
}

async fn end_own(
    State(app): State<App>,
    contributor: Contributor,
    Path((key, book)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (key, now) = (own(&key, contributor)?, UnixMs::now());
    app.store.contributor_seen(key, now).await?;
    let book = parse_book(&book)?;
    let ended = app.store.unlink_account(key, book, None, now).await?;
    let unknown = || Problem::not_found("this key is linked to no account of that book");
    if ended { Ok(StatusCode::NO_CONTENT) } else { Err(unknown()) }
}
