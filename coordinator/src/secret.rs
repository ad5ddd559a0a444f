//! Secrets that are shown once and stored hashed: a prefix that says what it is, 40
//! characters of secret, 7 of checksum. [`crate::keys`] has the same form.

use crate::random;
use std::fmt;

const SECRET_BYTES: usize = 25;
const SECRET_CHARS: usize = 40;
const CHECKSUM_CHARS: usize = 7;
const HASH_CONTEXT: &str = "raven 2026 secret hash 1";
const CHECKSUM_CONTEXT: &str = "raven 2026 secret checksum 1";

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// Gives an account back to whoever has lost its keys.
    Recovery,
    /// Makes an account for whoever reads an address.
    SignUp,
}

impl SecretKind {
    /// What the secret begins with.
    pub const fn prefix(self) -> &'static str {
        match self {
            SecretKind::Recovery => "rr_",
            SecretKind::SignUp => "su_",
        }
    }
}

/// Why a text is no secret of a kind. The text is not repeated in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("must begin with {prefix}")]
    Prefix { prefix: &'static str },
    #[error("must have {expected} characters, found {found}")]
    Length { expected: usize, found: usize },
    #[error("its checksum does not match: it was mistyped or cut")]
    Checksum,
}

/// A secret whose checksum is right. It may still be unknown, or used before.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
}

impl Secret {
    /// A new random secret.
    pub fn generate(kind: SecretKind) -> Self {
        Secret { text: random_text(kind.prefix(), CHECKSUM_CONTEXT) }
    }

    /// Reads a secret of that kind.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn parse(kind: SecretKind, text: &str) -> Result<Self, SecretError> {
        let prefix = kind.prefix();
        if !text.starts_with(prefix) {
            return Err(SecretError::Prefix { prefix });
        }
        match check_text(text, prefix, CHECKSUM_CONTEXT) {
            Ok(()) => Ok(Secret { text: text.to_owned() }),
            Err(TextFault::Length { expected }) => {
                Err(SecretError::Length { expected, found: text.len() })
            }
            Err(TextFault::Checksum) => Err(SecretError::Checksum),
        }
    }

    /// The whole secret, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What is stored: 200 random bits need no salt and no slowness.
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key(HASH_CONTEXT, self.text.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What is wrong with a text that begins as it should.
pub(crate) enum TextFault {
    Length { expected: usize },
    Checksum,
}

/// A new text: a prefix, a random secret, and the checksum of both under a context.
pub(crate) fn random_text(prefix: &str, context: &str) -> String {
    let body = format!("{prefix}{}", random::base32(&random::bytes::<SECRET_BYTES>()));
    let checksum = checksum(&body, context);
    body + &checksum
}

/// Whether a text that begins with `prefix` is as long as one, and its checksum right.
pub(crate) fn check_text(text: &str, prefix: &str, context: &str) -> Result<(), TextFault> {
    let body_chars = prefix.len() + SECRET_CHARS;
    let expected = body_chars + CHECKSUM_CHARS;
    if text.len() != expected || !text.is_ascii() {
        return Err(TextFault::Length { expected });
    }
    let (body, found) = text.split_at(body_chars);
    match random::same_bytes(checksum(body, context).as_bytes(), found.as_bytes()) {
        true => Ok(()),
        false => Err(TextFault::Checksum),
    }
}

fn checksum(body: &str, context: &str) -> String {
    let hash = blake3::derive_key(context, body.as_bytes());
    let mut text = random::base32(&hash[..5]);
    text.truncate(CHECKSUM_CHARS);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: SecretKind = SecretKind::Recovery;

    #[test]
    fn a_secret_reads_back_and_every_changed_character_is_noticed() {
        let secret = Secret::generate(KIND);
        assert_eq!(Secret::parse(KIND, secret.reveal()), Ok(secret.clone()));
        assert!(!format!("{secret:?}").contains(secret.reveal()));
        for at in KIND.prefix().len()..secret.reveal().len() {
            let mut bytes = secret.reveal().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            let text = String::from_utf8(bytes).expect("ASCII");
            assert_eq!(Secret::parse(KIND, &text), Err(SecretError::Checksum), "{at}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!(Secret::parse(KIND, "rk_x"), Err(SecretError::Prefix { prefix: "rr_" }));
        let short = SecretError::Length { expected: 50, found: 4 };
        assert_eq!(Secret::parse(KIND, "rr_x"), Err(short));
        let wide = format!("rr_{}é", "a".repeat(45));
        assert!(matches!(Secret::parse(KIND, &wide), Err(SecretError::Length { .. })));
    }
}
