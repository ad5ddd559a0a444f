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
/// Nonces that were used and have not expired: about 100 bytes each. Each took a signed request.
const USED_MAX: usize = 200_000;
const EXPIRY_BYTES: usize = 8;
const SALT_BYTES: usize = 8;

/// When it expires, a salt, and a keyed hash of both and the key that it is for: what is
/// given out need not be remembered, whoever asks for it and however often.
pub(super) type Nonce = [u8; 32];

/// Gives out nonces and knows them again. Clones share what was used.
#[derive(Clone)]
pub struct Challenges(Arc<Shared>);

struct Shared {
    /// This process's: another one does not know what was used.
    secret: [u8; 32],
    begun: Instant,
    /// With the millisecond since `begun` at which they expire.
    used: Mutex<HashMap<Nonce, u64>>,
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Challenges")
    }
}

impl Default for Challenges {
    fn default() -> Self {
        let (secret, begun) = (random::bytes(), Instant::now());
        Challenges(Arc::new(Shared { secret, begun, used: Mutex::default() }))
    }
}

/// Why an answer's nonce is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// Not given to that key, used before, or too old.
    Bad,
    /// Too many were used of late.
    Full,
}

impl Challenges {
    /// A nonce for a key.
    pub fn give(&self, key: ContributorId, now: Instant) -> Nonce {
        self.give_for(&key.0, now + CHALLENGE)
    }

    /// A nonce for one use that `subject` is a hash of.
    pub(super) fn give_for(&self, subject: &[u8; 32], until: Instant) -> Nonce {
        let mut nonce = [0; 32];
        let expires = self.ms(until).to_be_bytes();
        nonce[..EXPIRY_BYTES].copy_from_slice(&expires);
        nonce[EXPIRY_BYTES..][..SALT_BYTES].copy_from_slice(&random::bytes::<SALT_BYTES>());
        let mac = self.mac(subject, &nonce);
        nonce[EXPIRY_BYTES + SALT_BYTES..].copy_from_slice(&mac);
        nonce
    }

    /// Milliseconds since this process began to give nonces.
    fn ms(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.0.begun).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// A number that goes with a nonce and that nobody else can compute.
    pub(super) fn number_of(&self, nonce: &Nonce) -> [u8; 32] {
        *blake3::keyed_hash(&self.0.secret, nonce).as_bytes()
    }

    fn mac(&self, subject: &[u8; 32], nonce: &Nonce) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0.secret);
        hasher.update(subject);
        hasher.update(&nonce[..EXPIRY_BYTES + SALT_BYTES]);
        let mut mac = [0; 16];
        mac.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        mac
    }

    /// Takes a nonce that was given to that key and is still good. It is not any more then.
    fn take(&self, key: ContributorId, nonce: &Nonce, now: Instant) -> Result<(), NotTaken> {
        self.take_for(&key.0, nonce, now)
    }

    /// The same of a nonce that was given for that use.
    pub(super) fn take_for(
        &self,
        subject: &[u8; 32],
        nonce: &Nonce,
        now: Instant,
    ) -> Result<(), NotTaken> {
        let mac = &nonce[EXPIRY_BYTES + SALT_BYTES..];
        if !random::same_bytes(&self.mac(subject, nonce), mac) {
            return Err(NotTaken::Bad);
        }
        let mut expires = [0; EXPIRY_BYTES];
        expires.copy_from_slice(&nonce[..EXPIRY_BYTES]);
        let (expires, now) = (u64::from_be_bytes(expires), self.ms(now));
        if expires <= now {
            return Err(NotTaken::Bad);
        }
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.contains_key(nonce) {
            return Err(NotTaken::Bad);
        }
        // Looked through where it would grow, so that it is not done for every answer.
        if used.len() == used.capacity() || used.len() >= USED_MAX {
            used.retain(|_, until| *until > now);
        }
        if used.len() >= USED_MAX {
            return Err(NotTaken::Full);
        }
        used.insert(*nonce, expires);
        Ok(())
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
    let nonce = parse_hex::<32>(nonce).ok_or(NotTaken::Bad);
    let taken = nonce.and_then(|nonce| app.challenges.take(key, &nonce, Instant::now()));
    taken.map_err(|why| match why {
        NotTaken::Bad => refuse("nonce: not given to this key, used before, or too old"),
        NotTaken::Full => full(),
    })
}

/// What is said where [`NotTaken::Full`].
pub(super) fn full() -> Problem {
    let detail = format!("challenges: {USED_MAX} were answered of late, come back later");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate", "Too many answers", detail)
        .with_limit(USED_MAX as u64, None)
        .with_retry_after(CHALLENGE.as_secs())
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
        let nonce = challenges.give(ann, now);
        assert_eq!(challenges.take(ann, &nonce, now), Ok(()));
        assert_eq!(challenges.take(ann, &nonce, now), Err(NotTaken::Bad), "once");
        let nonce = challenges.give(ann, now);
        assert_eq!(challenges.take(ben, &nonce, now), Err(NotTaken::Bad), "another's");
        assert_eq!(challenges.take(ann, &nonce, now + CHALLENGE), Err(NotTaken::Bad), "too old");
        for at in 0..nonce.len() {
            let mut changed = nonce;
            changed[at] ^= 1;
            assert_eq!(challenges.take(ann, &changed, now), Err(NotTaken::Bad), "byte {at}");
        }
        let next_process = Challenges::default();
        assert_eq!(next_process.take(ann, &nonce, now), Err(NotTaken::Bad), "another process's");
        assert_eq!(challenges.take(ann, &nonce, now), Ok(()), "it is good all the same");
    }

    #[test]
    fn asking_locks_nobody_out_and_what_was_used_is_forgotten_when_it_expires() {
        let (challenges, now) = (Challenges::default(), Instant::now());
        let (ann, ben) = (ContributorId([1; 32]), ContributorId([2; 32]));
        for _ in 0..100_000 {
            challenges.give(ann, now);
        }
        let size = || challenges.0.used.lock().expect("a lock").len();
        assert_eq!(size(), 0, "nothing is kept of what was only given");
        let nonces =
            |at: Instant| (0..10_000).map(|_| challenges.give(ben, at)).collect::<Vec<_>>();
        for nonce in nonces(now) {
            assert_eq!(challenges.take(ben, &nonce, now), Ok(()));
        }
        let kept = size();
        let later = now + CHALLENGE;
        for nonce in nonces(later) {
            assert_eq!(challenges.take(ben, &nonce, later), Ok(()));
        }
        assert!(size() < 2 * kept, "{} of {kept}", size());
    }
}
