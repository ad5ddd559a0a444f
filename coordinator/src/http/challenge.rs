//! Who asks: `Authorization: Raven-Key KEY.NONCE.SIGNATURE`, by the key that computes. The
//! nonce was given for that key a moment ago and serves once.

use super::{App, Problem};
use crate::random;
use crate::runtime::session::{hex, parse_hex};
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use ed25519_dalek::{Signature, VerifyingKey};
use raven_engine::ContributorId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A browser signs at once; a person's hardware key within that.
pub const CHALLENGE: Duration = Duration::from_secs(120);
/// Challenges that wait for an answer: about 100 bytes each.
const CHALLENGES_MAX: usize = 4_000;
/// Of these, for one key: a page asks for a few at once.
const OF_KEY_MAX: usize = 20;

type Nonce = [u8; 32];

/// What was given out and not used yet. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Challenges(Arc<Mutex<HashMap<Nonce, (ContributorId, Instant)>>>);

impl Challenges {
    /// A nonce for a key.
    ///
    /// # Errors
    /// A problem where too many wait already, of this key or of all.
    pub fn give(&self, key: ContributorId, now: Instant) -> Result<Nonce, Problem> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= CHALLENGES_MAX {
            waiting.retain(|_, (_, until)| *until > now);
        }
        let of_key = waiting.values().filter(|(whose, until)| *whose == key && *until > now);
        if waiting.len() >= CHALLENGES_MAX || of_key.count() >= OF_KEY_MAX {
            let seconds = CHALLENGE.as_secs();
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate",
                "Too many challenges wait",
                format!(
                    "challenges: {OF_KEY_MAX} may wait for one key, answer or wait {seconds} s"
                ),
            )
            .with_limit(OF_KEY_MAX as u64, None)
            .with_retry_after(seconds));
        }
        let nonce = random::bytes::<32>();
        waiting.insert(nonce, (key, now + CHALLENGE));
        Ok(nonce)
    }

    /// Whether a nonce was given to that key and is still good. It is not any more then.
    fn take(&self, key: ContributorId, nonce: &Nonce, now: Instant) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(nonce).is_some_and(|(whose, until)| whose == key && until > now)
    }
}

/// A contributor's key, from text.
///
/// # Errors
/// A problem naming `field`.
pub fn parse_key(text: &str, field: &str) -> Result<ContributorId, Problem> {
    let bytes = parse_hex::<32>(text)
        .filter(|bytes| VerifyingKey::from_bytes(bytes).is_ok_and(|key| !key.is_weak()));
    let rule = format!("{field}: must be an Ed25519 public key, 64 lower-case hex digits");
    bytes.map(ContributorId).ok_or_else(|| Problem::invalid(rule).with_field(field))
}

/// Whether `signature` is `key`'s over `text`.
pub fn is_signed(key: ContributorId, text: &str, signature: &str) -> bool {
    let signature = parse_hex::<64>(signature).map(|bytes| Signature::from_bytes(&bytes));
    let key = VerifyingKey::from_bytes(&key.0);
    key.ok()
        .zip(signature)
        .is_some_and(|(key, signature)| key.verify_strict(text.as_bytes(), &signature).is_ok())
}

/// What a key signs to show that it is there.
pub fn presence_text(origin: &str, key: ContributorId, nonce: &str) -> String {
    format!("raven contributor 1\n{origin}\n{}\n{nonce}", hex(&key.0))
}

/// Checks that `nonce` was given to `key`, and that it has signed `text`.
///
/// # Errors
/// `401`.
pub fn answered(
    app: &App,
    key: ContributorId,
    nonce: &str,
    text: &str,
    signature: &str,
) -> Result<(), Problem> {
    let refuse = |detail: &str| Problem::unauthorized(detail).named("challenge", "No good answer");
    // The signature first: a stranger's answer must not use up the nonce.
    if !is_signed(key, text, signature) {
        return Err(refuse("signature: not made by the key over the text of the challenge"));
    }
    let given = parse_hex::<32>(nonce)
        .is_some_and(|nonce| app.challenges.take(key, &nonce, Instant::now()));
    if !given {
        return Err(refuse("nonce: not given to this key, used before, or too old"));
    }
    Ok(())
}

/// The contributor that asks.
#[derive(Clone, Copy, Debug)]
pub struct Contributor(pub ContributorId);

impl FromRequestParts<App> for Contributor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let value = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let rest = value.and_then(|value| value.strip_prefix("Raven-Key "));
        let mut pieces = rest.unwrap_or_default().split('.');
        let (Some(key), Some(nonce), Some(signature), None) =
            (pieces.next(), pieces.next(), pieces.next(), pieces.next())
        else {
            let detail = "send Authorization: Raven-Key KEY.NONCE.SIGNATURE";
            return Err(Problem::unauthorized(detail).named("challenge", "A signature is needed"));
        };
        let key = parse_key(key, "key")?;
        let text = presence_text(&app.settings.origin, key, nonce);
        answered(app, key, nonce, &text, signature)?;
        Ok(Contributor(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_serves_its_key_once_and_for_a_while() {
        let (challenges, now) = (Challenges::default(), Instant::now());
        let (ann, ben) = (ContributorId([1; 32]), ContributorId([2; 32]));
        let nonce = challenges.give(ann, now).expect("a nonce");
        assert!(challenges.take(ann, &nonce, now));
        assert!(!challenges.take(ann, &nonce, now), "once");
        let nonce = challenges.give(ann, now).expect("a nonce");
        assert!(!challenges.take(ben, &nonce, now), "another's");
        let nonce = challenges.give(ann, now).expect("a nonce");
        assert!(!challenges.take(ann, &nonce, now + CHALLENGE), "too old");
    }

    #[test]
    fn neither_one_key_nor_many_fill_the_memory() {
        let (challenges, now) = (Challenges::default(), Instant::now());
        let key = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
            ContributorId(bytes)
        };
        for _ in 0..OF_KEY_MAX {
            challenges.give(key(0), now).expect("a nonce");
        }
        assert!(challenges.give(key(0), now).is_err());
        assert!(challenges.give(key(0), now + CHALLENGE).is_ok(), "old ones do not count");
        let given = (1..2 * CHALLENGES_MAX).filter(|it| challenges.give(key(*it), now).is_ok());
        assert!(given.count() < CHALLENGES_MAX);
        assert!(challenges.give(key(1), now + CHALLENGE).is_ok(), "old ones make room");
    }
}
