//! `/v1/account` and the accounts of sites: what somebody has, and every transfer
//! that made it so.

use super::auth::Owner;
use super::extract::{Path, Query};
use super::partner::find;
use super::token_rate::{self, in_tokens};
use super::{App, Problem};
use crate::certificate::issue;
use crate::receipt::sign;
use crate::store::{Book, Side, StatementLine, requester};
use crate::time::UnixMs;
use crate::token::{PaidTokens, TokenRates};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use raven_engine::ledger::{Account, Action, Balance};
use raven_engine::money::NanoUsd;
use serde::Deserialize;
use serde_json::{Value, json};

/// Lines of one statement, where the request does not say, and at most.
const LINES: u32 = 50;
const LINES_MAX: u32 = 500;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/account", get(show))
        .route("/v1/account/statement", get(statement))
        .route("/v1/account/receipts/{number}", get(receipt))
        .route("/v1/sites/{id}/account", get(show_site))
        .route("/v1/sites/{id}/account/statement", get(statement_of_site))
        .route("/v1/sites/{id}/account/receipts/{number}", get(receipt_of_site))
}

/// What an account has, in nano-USD.
pub fn amounts(balance: &Balance) -> Value {
    json!({
        "available_nano_usd": balance.available(),
        "held_nano_usd": balance.held_out,
        "pending_nano_usd": balance.held_in,
    })
}

/// The book that a request names.
pub(super) fn parse_book(text: &str) -> Result<Book, Problem> {
    text.parse().map_err(|rule| Problem::invalid(format!("book: {rule}")).with_field("book"))
}

/// One account of the books, for whoever may see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) book: Book,
    pub(super) account: Account,
}

async fn of_owner(app: &App, owner: Owner) -> Result<View, Problem> {
    let book = app.store.book_of(owner.0).await?;
    Ok(View { book, account: requester(owner.0) })
}

async fn of_site(app: &App, owner: Owner, id: &str) -> Result<View, Problem> {
    let site = find(app, owner, id).await?;
    let book = app.store.book_of(owner.0).await?;
    Ok(View { book, account: Account::Site(site.id) })
}

async fn show(State(app): State<App>, owner: Owner) -> Result<Json<Value>, Problem> {
    of_owner(&app, owner).await?.show(&app).await
}

async fn show_site(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let view = of_site(&app, owner, &id).await?;
    let Json(mut answer) = view.show(&app).await?;
    // A site earns from jobs of both kinds, and its owner has one kind of money.
    let other = match view.book {
        Book::Test => Book::Live,
        Book::Live => Book::Test,
    };
    let balance = app.store.balance(other, view.account).await?;
    answer["elsewhere"] = json!({ "book": other.as_str(), "balance": amounts(&balance) });
    Ok(Json(answer))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Lines with smaller numbers only.
    pub(super) before: Option<i64>,
    pub(super) limit: Option<u32>,
}

async fn statement(
    State(app): State<App>,
    owner: Owner,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    of_owner(&app, owner).await?.statement(&app, &page).await
}

async fn statement_of_site(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    of_site(&app, owner, &id).await?.statement(&app, &page).await
}

async fn receipt(
    State(app): State<App>,
    owner: Owner,
    Path(number): Path<i64>,
) -> Result<Response, Problem> {
    of_owner(&app, owner).await?.receipt(&app, number).await
}

async fn receipt_of_site(
    State(app): State<App>,
    owner: Owner,
    Path((id, number)): Path<(String, i64)>,
) -> Result<Response, Problem> {
    of_site(&app, owner, &id).await?.receipt(&app, number).await
}

impl View {
    async fn show(self, app: &App) -> Result<Json<Value>, Problem> {
        let View { book, account } = self;
        let balance = app.store.balance(book, account).await?;
        let rates = app.store.token_rates().await?;
        Ok(Json(json!({
            "account": account.to_string(), "book": book.as_str(), "balance": amounts(&balance),
            "tokens": in_tokens(&balance, rates.at(UnixMs::now())),
        })))
    }

    pub(super) async fn statement(self, app: &App, page: &Page) -> Result<Json<Value>, Problem> {
        let limit = page.limit.unwrap_or(LINES);
        if limit == 0 || limit > LINES_MAX {
            return Err(Problem::invalid(format!("limit: must be 1 to {LINES_MAX}"))
                .with_field("limit")
                .with_limit(LINES_MAX.into(), Some(limit.into())));
        }
        let View { book, account } = self;
        let lines = app.store.statement(book, account, page.before, limit).await?;
        let next = lines.last().filter(|_| lines.len() == limit as usize).map(|line| line.number);
        let rates = app.store.token_rates().await?;
        let lines: Vec<Value> = lines.iter().filter_map(|line| shown(line, &rates)).collect();
        Ok(Json(json!({ "account": account.to_string(), "lines": lines, "next_before": next })))
    }

    /// A line of the statement, signed, for whoever wants to show it later.
    pub(super) async fn receipt(self, app: &App, number: i64) -> Result<Response, Problem> {
        let View { book, account } = self;
        let unknown = || Problem::not_found("no line of this account's statement has that number");
        let (line, before) =
            app.store.transfer(book, account, number).await?.ok_or_else(unknown)?;
        let key = issue::key_of(&app.store).map_err(|error| Problem::internal(&error))?;
        let end = match line.entry.action {
            Action::Hold { .. } => app.store.hold_end(book, line.entry.id).await?,
            _ => None,
        };
        let text = sign(book, &line, before, end.as_ref(), UnixMs::now(), &key)
            .map_err(|error| Problem::internal(&error))?;
        Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
    }
}

/// A line as the API shows it. Every line of a statement is a transfer.
fn shown(line: &StatementLine, rates: &TokenRates) -> Option<Value> {
    let transfer = match line.entry.action {
        Action::Post(transfer) | Action::Hold { transfer, .. } => transfer,
        Action::PostHold { .. } | Action::VoidHold { .. } | Action::ExpireHold { .. } => {
            return None;
        }
    };
    let (other, sign) = match line.side {
        Side::Gave => (transfer.credit, -1),
        Side::Took => (transfer.debit, 1),
    };
    let (amount, at) = (NanoUsd(sign * transfer.amount.0), UnixMs(line.entry.at));
    let paid = line.paid.map(|PaidTokens { tokens, rate }| {
        json!({ "micro_tokens": tokens.0, "rate": token_rate::shown(&rate) })
    });
    // What came in tokens is so many of them, and not what its amount comes to again.
    let micro_tokens = match line.paid {
        Some(paid) => Some(paid.tokens.0),
        None => rates.micro_tokens(amount, at),
    };
    Some(json!({
        "number": line.number,
        "id": line.entry.id.to_string(),
        "at": at.rfc3339(),
        "reason": transfer.reason.as_str(),
        "other": other.to_string(),
        "nano_usd": amount.0,
        "micro_tokens": micro_tokens,
        "paid": paid,
        "state": line.state.map_or("posted", |state| state.as_str()),
        "hash": line.hash.to_string(),
    }))
}
