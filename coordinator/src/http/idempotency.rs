//! `Idempotency-Key`: a POST that is sent again has its effect once and gets its
//! answer again.
//!
//! Requests with one key take turns. Whoever comes first has the effect, and its
//! answer is stored in the same transaction where there is one; the others, also
//! after a restart, are given that answer. Refusals are not kept: a request that
//! was refused may be sent again.

use super::auth::Owner;
use super::{App, Problem};
use crate::store::Remembered;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::OwnedMutexGuard;

const HEADER: &str = "idempotency-key";
/// Says that an answer is one that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Bytes of a key: a UUID has 36.
const KEY_BYTES_MAX: usize = 255;

type KeyHash = [u8; 32];

/// Who is at work under which key. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// At most one entry for each request that is being answered, and the ones
    /// that the next request clears away.
    locks: Arc<Mutex<HashMap<KeyHash, Weak<tokio::sync::Mutex<()>>>>>,
}

impl Turns {
    async fn take(&self, name: KeyHash) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(&name).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                locks.insert(name, Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}

/// The key that a request names itself by, if it does.
#[derive(Clone, Debug)]
pub struct Once {
    key: Option<KeyHash>,
    route: String,
}

impl FromRequestParts<App> for Once {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let route = format!("{} {}", parts.method, parts.uri.path());
        let mut values = parts.headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(Once { key: None, route }) };
        let bytes = value.as_bytes();
        let is_good = (1..=KEY_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
            && values.next().is_none();
        if !is_good {
            let detail = "Idempotency-Key: one value of 1 to 255 printable ASCII characters";
            return Err(Problem::malformed(detail)
                .with_field("Idempotency-Key")
                .with_limit(KEY_BYTES_MAX as u64, Some(bytes.len() as u64)));
        }
        Ok(Once { key: Some(*blake3::hash(bytes).as_bytes()), route })
    }
}

/// Whose turn it is.
#[derive(Debug)]
pub enum Turn {
    /// The effect was had before; this is its answer.
    Answered(Response),
    /// The effect is to be had now.
    Mine(Claim),
}

/// The right to have an effect, until it is dropped. It goes where the effect is
/// had, so that a client that hangs up does not let the next one in too early.
#[derive(Debug)]
pub struct Claim {
    named: Option<Named>,
}

#[derive(Debug)]
struct Named {
    owner: Owner,
    key_hash: KeyHash,
    route: String,
    body: [u8; 32],
    _turn: OwnedMutexGuard<()>,
}

impl Once {
    /// Whether the request names itself: then it may have been answered before.
    pub fn is_named(&self) -> bool {
        self.key.is_some()
    }

    /// Waits until no other request of this name is being answered.
    ///
    /// # Errors
    /// [`Problem`] 422 where the name was used for another request.
    pub async fn begin(self, app: &App, owner: Owner, body: [u8; 32]) -> Result<Turn, Problem> {
        let Some(key_hash) = self.key else { return Ok(Turn::Mine(Claim { named: None })) };
        let mut name = blake3::Hasher::new();
        name.update(&owner.0.0.to_le_bytes()).update(&key_hash);
        let turn = app.turns.take(*name.finalize().as_bytes()).await;
        let Some(before) = app.store.recall(owner.0, key_hash).await? else {
            let named = Named { owner, key_hash, route: self.route, body, _turn: turn };
            return Ok(Turn::Mine(Claim { named: Some(named) }));
        };
        if before.route != self.route || before.body != body {
            let detail = "Idempotency-Key: this key was used for another request";
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return Err(Problem::new(status, "idempotency-key", "The key is used", detail)
                .with_field("Idempotency-Key"));
        }
        let status = StatusCode::from_u16(before.status);
        let status = status.map_err(|error| Problem::internal(&error))?;
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (REPLAYED, HeaderValue::from_static("true")),
        ];
        Ok(Turn::Answered((status, headers, before.answer).into_response()))
    }
}

impl Claim {
    /// What is to be stored with the effect, so that its answer can be given again.
    pub fn remember(&self, status: StatusCode, answer: &Value) -> Option<Remembered> {
        self.named.as_ref().map(|named| Remembered {
            owner: named.owner.0,
            key_hash: named.key_hash,
            route: named.route.clone(),
            body: named.body,
            status: status.as_u16(),
            answer: answer.to_string(),
        })
    }

    /// Keeps the answer to an effect that is stored elsewhere, or nowhere.
    ///
    /// # Errors
    /// [`Problem`].
    pub async fn keep(&self, app: &App, status: StatusCode, answer: &Value) -> Result<(), Problem> {
        match self.remember(status, answer) {
            Some(remembered) => Ok(app.store.remember(&remembered).await?),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_name_one_turn_and_nothing_stays_behind() {
        let turns = Turns::default();
        let first = turns.take([1; 32]).await;
        let _other = turns.take([2; 32]).await;
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.take([1; 32]).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "the first one is still at work");
        drop(first);
        waiting.await.expect("its turn came");
        let _third = turns.take([3; 32]).await;
        assert_eq!(turns.locks.lock().expect("no panic").len(), 2, "ended turns are cleared away");
    }
}
