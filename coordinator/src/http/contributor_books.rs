//! `/v1/contributors/{key}/statement` and receipts: every transfer of what a contributor has,
//! for the key that shows it is there, and for the wallet that collects for others.

use super::account::{Page, View, parse_book};
use super::challenge::{Contributor, parse_key};
use super::contributors::own;
use super::extract::{Path, Query};
use super::{App, Problem};
use crate::store::Book;
use crate::time::UnixMs;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use raven_engine::ledger::Account;
use serde::Deserialize;
use serde_json::Value;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/contributors/{key}/statement", get(statement))
        .route("/v1/contributors/{key}/receipts/{number}", get(receipt))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Real money, where the request does not say.
    book: Option<String>,
    /// One of those for whom the key collects.
    of: Option<String>,
    before: Option<i64>,
    limit: Option<u32>,
}

impl Asked {
    /// The account that is asked for, if the key may see it.
    async fn view(&self, app: &App, key: &str, who: Contributor) -> Result<View, Problem> {
        let key = own(key, who)?;
        app.store.contributor_seen(key, UnixMs::now()).await?;
        let book = self.book.as_deref().map_or(Ok(Book::Live), parse_book)?;
        let of = match &self.of {
            Some(text) => parse_key(text, "of")?,
            None => key,
        };
        if of != key && app.store.wallet_of(of).await? != Some(key) {
            let detail = "of: this key collects for no contributor of that key";
            return Err(Problem::not_found(detail).with_field("of"));
        }
        Ok(View { book, account: Account::Contributor(of) })
    }
}

async fn statement(
    State(app): State<App>,
    contributor: Contributor,
    Path(key): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Problem> {
    let page = Page { before: asked.before, limit: asked.limit };
    asked.view(&app, &key, contributor).await?.statement(&app, &page).await
}

async fn receipt(
    State(app): State<App>,
    contributor: Contributor,
    Path((key, number)): Path<(String, i64)>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    asked.view(&app, &key, contributor).await?.receipt(&app, number).await
}
