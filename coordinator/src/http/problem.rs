//! Errors as `application/problem+json` (RFC 9457).

use crate::health::Trouble;
use crate::scopes::Scope;
use crate::store::{BooksError, StoreError};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use raven_engine::ledger::Refusal;
use raven_engine::money::NanoUsd;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// While nothing can be stored: an operator needs a while, another process less.
const STORAGE_RETRY_S: u64 = 10;

/// What went wrong, for programs (`type`, `field`, `limit`) and people (`detail`).
#[derive(Clone, Debug, PartialEq)]
pub struct Problem(Box<Document>);

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Document {
    /// `urn:raven:problem:` and a short name that does not change.
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    #[serde(serialize_with = "status_number")]
    status: StatusCode,
    detail: String,
    /// Path of the field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<Value>,
    /// For the header `Retry-After`.
    #[serde(skip)]
    retry_after_s: Option<u64>,
}

fn status_number<S: serde::Serializer>(
    status: &StatusCode,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    /// A problem of that short name.
    pub fn new(
        status: StatusCode,
        kind: &str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Problem(Box::new(Document {
            kind: format!("urn:raven:problem:{kind}"),
            title,
            status,
            detail: detail.into(),
            field: None,
            limit: None,
            found: None,
            retry_after_s: None,
        }))
    }

    /// The body is not JSON, or not of its form's syntax.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "malformed", "The request is malformed", detail)
    }

    /// The request is well-formed and asks for something that cannot be.
    pub fn invalid(detail: impl Into<String>) -> Self {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Problem::new(status, "invalid", "A field is invalid", detail)
    }

    /// No key, or one that is not honoured.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        let status = StatusCode::UNAUTHORIZED;
        Problem::new(status, "unauthorized", "An API key is needed", detail)
    }

    /// The key held when its request came, and holds no longer.
    pub fn key_over() -> Self {
        Problem::unauthorized("the API key was revoked, or its time is over")
    }

    /// Known, and not allowed.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
    }

    /// The key is none for this.
    pub fn scope(needed: Scope) -> Self {
        let detail = format!("this needs a key with the scope {}", needed.as_str());
        Problem::forbidden(detail).named("scope", "The key may not do this").with_field("scope")
    }

    /// Nothing of that id belongs to this key.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// Not in this state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::CONFLICT, "conflict", "Not possible in this state", detail)
    }

    /// What was held is nobody's to post any more: its time was over.
    pub fn expired_hold(detail: impl Into<String>) -> Self {
        Problem::conflict(detail).named("expired-hold", "The hold has expired")
    }

    /// The body is longer than the route takes.
    pub fn too_large(limit: u64) -> Self {
        let detail = format!("the body is longer than {limit} bytes");
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Problem::new(status, "too-large", "The body is too large", detail)
            .with_field("body")
            .with_limit(limit, None)
    }

    /// The key has as much of something as it may have.
    pub fn quota(what: &str, limit: u64, found: u64) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let detail = format!("this key has {found} {what}, the limit is {limit}");
        Problem::new(status, "quota", "The key's quota is used up", detail)
            .with_limit(limit, Some(found))
    }

    /// The account has less than what is asked for needs.
    pub fn funds(available: NanoUsd, needed: NanoUsd) -> Self {
        let (has, needs) = (available.0.max(0).unsigned_abs(), needed.0.unsigned_abs());
        let detail = format!("the account has {available} USD to spend, {needed} USD are needed");
        let status = StatusCode::PAYMENT_REQUIRED;
        Problem::new(status, "funds", "Not enough money", detail).with_limit(has, Some(needs))
    }

    /// A job names a data set that its key does not have, or no longer has.
    pub fn no_dataset() -> Self {
        Problem::invalid("dataset: no data set of this key has that id").with_field("dataset")
    }

    /// More requests than are answered in a time.
    pub fn rate(what: &str, per_s: f64, wait: Duration) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let detail = format!("{what}: the limit is {per_s} a second");
        Problem::new(status, "rate", "Too many requests", detail)
            .with_limit(per_s as u64, None)
            // Whole seconds, and never too early.
            .with_retry_after(wait.as_secs() + 1)
    }

    /// More wishes for accounts than one network may have.
    pub fn sign_ups(most: f64, wait: Duration) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let detail =
            format!("accounts asked for by one network: the limit is {most} in 15 minutes");
        Problem::new(status, "rate", "Too many requests", detail)
            .with_limit(most as u64, None)
            .with_retry_after(wait.as_secs() + 1)
    }

    /// The disk, or what the coordinator may use of it, is full.
    pub fn full(what: &str) -> Self {
        let status = StatusCode::INSUFFICIENT_STORAGE;
        let detail = format!("{what}: this coordinator has no room for more");
        Problem::new(status, "storage-full", "No room", detail)
    }

    /// Nothing can be stored for now.
    pub fn storage(trouble: Trouble) -> Self {
        let status = match trouble {
            Trouble::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            Trouble::StoreBusy | Trouble::StorageFails => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, trouble.name(), "Nothing can be stored now", trouble.sentence())
            .with_retry_after(STORAGE_RETRY_S)
    }

    /// A file could not be read or written.
    pub fn disk(error: &std::io::Error) -> Self {
        match Trouble::of_io(error) {
            Some(trouble) => {
                tracing::error!(%error, "a request failed");
                Problem::storage(trouble)
            }
            None => Problem::internal(error),
        }
    }

    /// Come back later.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Problem::new(status, "unavailable", "Not available now", detail)
    }

    /// The coordinator failed. The cause goes to the log, not to the client.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let detail = "the coordinator could not do this; its log has the cause";
        Problem::new(status, "internal", "The coordinator failed", detail)
    }

    /// The status that it is answered with.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Says in how many seconds coming back may help.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// Names the field.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Names the limit that was passed, and by what.
    #[must_use]
    pub fn with_limit(mut self, limit: u64, found: Option<u64>) -> Self {
        self.0.limit = Some(limit.into());
        self.0.found = found.map(Value::from);
        self
    }

    /// Names what was sent instead.
    #[must_use]
    pub fn with_found(mut self, found: u64) -> Self {
        self.0.found = Some(found.into());
        self
    }

    /// The same about a document that is a part of a larger one.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.0.field = Some(match self.0.field {
            Some(field) => format!("{parent}.{field}"),
            None => parent.to_owned(),
        });
        self
    }

    /// The same with another short name and title.
    #[must_use]
    pub fn named(mut self, kind: &str, title: &'static str) -> Self {
        self.0.kind = format!("urn:raven:problem:{kind}");
        self.0.title = title;
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (self.0.status, body).into_response();
        let headers = response.headers_mut();
        let content_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, content_type);
        if let Some(seconds) = self.0.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Answered => {
                Problem::conflict("Idempotency-Key: a request of this name has just been answered")
                    .with_field("Idempotency-Key")
            }
            StoreError::Quota { what, limit, found } => Problem::quota(what, limit, found),
            StoreError::NoDataset { .. } => Problem::no_dataset(),
            StoreError::Closed => {
                Problem::conflict("the account is closed: it has no keys any more")
            }
            StoreError::KeyOver => Problem::key_over(),
            StoreError::OpenJobs { jobs } => Problem::conflict(format!(
                "{jobs} jobs of the account have not ended: cancel them first"
            ))
            .named("open-jobs", "Jobs have not ended"),
            StoreError::Books(Refusal::Funds { available, needed, .. }) => {
                Problem::funds(available, needed)
            }
            error => match error.trouble() {
                Some(trouble) => {
                    tracing::error!(%error, "a request failed");
                    Problem::storage(trouble)
                }
                None => Problem::internal(&error),
            },
        }
    }
}

/// What the books refuse of what a request asks for.
impl From<BooksError> for Problem {
    fn from(error: BooksError) -> Self {
        let refusal = match error {
            BooksError::Store(error) => return error.into(),
            BooksError::Refused(refusal) => refusal,
        };
        match refusal {
            Refusal::Funds { available, needed, .. } => Problem::funds(available, needed),
            Refusal::IdReused { .. } => {
                Problem::conflict("reference: it is that of another movement of money")
                    .named("reference-used", "The reference is used")
                    .with_field("reference")
            }
            Refusal::Amount { .. } | Refusal::Overflow { .. } => {
                Problem::invalid(refusal.to_string()).with_field("nano_usd")
            }
            Refusal::SameAccount { .. } => Problem::invalid(refusal.to_string()),
            Refusal::UnknownHold { .. } => Problem::not_found(refusal.to_string()),
            Refusal::HoldExpired { .. } => Problem::expired_hold(refusal.to_string()),
            Refusal::HoldOver { .. }
            | Refusal::HoldNotExpired { .. }
            | Refusal::ExpiresBefore { .. } => Problem::conflict(refusal.to_string()),
        }
    }
}

/// A blocking task that panicked or was cancelled.
impl From<tokio::task::JoinError> for Problem {
    fn from(error: tokio::task::JoinError) -> Self {
        Problem::internal(&error)
    }
}
