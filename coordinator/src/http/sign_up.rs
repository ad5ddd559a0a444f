//! `/v1/sign-up`: accounts for people, by a link that is sent to their address.

use super::account::parse_book;
use super::body::JsonBody;
use super::extract::Path;
use super::keys::secret;
use super::{App, Problem};
use crate::mail::{EmailAddress, Mail, Mailer};
use crate::secret::{Secret, SecretKind};
use crate::store::{Book, SignUp, requester};
use crate::time::UnixMs;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Seconds after which the oldest of too many links are over.
const CROWDED_S: u64 = 300;

/// The page that people sign up on, where it was built.
const WWW_PAGE: &str = "sign-up";
/// What a link shows where it was not: programs that look into mail follow links, so that
/// only the button makes the account. The address is the page's own.
const PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
    <meta name=\"viewport\" content=\"width=device-width\">\
    <meta name=\"color-scheme\" content=\"light dark\"><title>Sign up</title>\
    <main><h1>Sign up</h1><p>The button makes your account. What it answers is shown once: \
    an API key, and a code that gives the account back to you should you lose the key. \
    Keep both.</p><form method=\"post\"><button>Make my account</button></form></main></html>";
const PAGE_POLICY: &str = "default-src 'none'; form-action 'self'; frame-ancestors 'none'";

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/sign-up", get(terms).post(begin))
        .route("/v1/sign-up/{token}", get(page).post(finish))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    email: String,
    book: Option<String>,
}

fn mailer(app: &App) -> Result<&Arc<dyn Mailer>, Problem> {
    let off = || Problem::not_found("this coordinator makes accounts on its command line only");
    app.settings.accounts.mailer.as_ref().ok_or_else(off)
}

/// Whether people may sign up here, for pages that offer it.
async fn terms(State(app): State<App>) -> Json<Value> {
    Json(json!({ "open": app.settings.accounts.mailer.is_some() }))
}

/// Answers the same whether or not the address has an account.
async fn begin(
    State(app): State<App>,
    JsonBody(wish, _): JsonBody<Wish>,
) -> Result<Response, Problem> {
    let mailer = mailer(&app)?;
    let to: EmailAddress = wish
        .email
        .parse()
        .map_err(|error| Problem::invalid(format!("email: {error}")).with_field("email"))?;
    let book = wish.book.as_deref().map_or(Ok(Book::Test), parse_book)?;
    let token = Secret::generate(SecretKind::SignUp);
    let origin = &app.settings.origin;
    let mail = match app.store.begin_sign_up(&to, book, &token, UnixMs::now()).await? {
        SignUp::Link => Some(Mail {
            to,
            subject: "Your account",
            text: format!(
                "Somebody asked for an account at {origin} with this address.\r\n\
                 If it was you, follow this link within 15 minutes:\r\n\r\n\
                 {origin}/v1/sign-up/{}\r\n\r\nIf it was not, there is nothing to do.\r\n",
                token.reveal()
            ),
        }),
        SignUp::Known => Some(Mail {
            to,
            subject: "You have an account",
            text: format!(
                "Somebody asked for an account at {origin} with this address, which has one.\r\n\
                 If it was you and your keys are lost, the recovery code that you were shown\r\n\
                 gives you the account back. If it was not, there is nothing to do.\r\n"
            ),
        }),
        SignUp::Enough => None,
        SignUp::Crowded => {
            let problem = Problem::unavailable("too many people ask for accounts; come back later");
            return Err(problem.with_retry_after(CROWDED_S));
        }
    };
    if let Some(mail) = mail {
        mailer.send(mail).await.map_err(|error| Problem::disk(&error.0))?;
    }
    let answer = json!({ "detail": "a message is on its way to that address" });
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

fn token_of(text: &str) -> Result<Secret, Problem> {
    Secret::parse(SecretKind::SignUp, text)
        .map_err(|error| Problem::invalid(format!("token: {error}")).with_field("token"))
}

async fn page(State(app): State<App>, Path(token): Path<String>) -> Result<Response, Problem> {
    mailer(&app)?;
    token_of(&token)?;
    if app.www.file(WWW_PAGE).is_some() {
        // What follows the # stays in the browser: no log and no other page has it.
        let place = format!("/{WWW_PAGE}#{token}");
        return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response());
    }
    Ok(([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(PAGE)).into_response())
}

async fn finish(State(app): State<App>, Path(token): Path<String>) -> Result<Response, Problem> {
    mailer(&app)?;
    let token = token_of(&token)?;
    let recovery = Secret::generate(SecretKind::Recovery);
    let made = app.store.finish_sign_up(&token, &recovery, UnixMs::now()).await?;
    let (owner, key) =
        made.ok_or_else(|| Problem::not_found("the link was used, or its time is over"))?;
    let answer = json!({
        "account": requester(owner).to_string(), "key": key.reveal(),
        "recovery_code": recovery.reveal(),
    });
    Ok(secret(StatusCode::CREATED, answer))
}
