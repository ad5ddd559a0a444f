//! API keys: `rk_test_` or `rk_live_`, 40 characters of secret, 7 of checksum.
//!
//! The checksum lets scanners of leaked text find real keys, and lets a typing
//! error be refused without a look at the store. Only a hash is stored: the
//! secret has 200 random bits, so the hash needs no salt and no slowness.

use crate::secret::{TextFault, check_text, random_text};
use std::fmt;

const HASH_CONTEXT: &str = "raven 2026 api key hash 1";
const CHECKSUM_CONTEXT: &str = "raven 2026 api key checksum 1";

/// Whether a key is for trying things out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMode {
    Test,
    Live,
}

impl KeyMode {
    /// What the key begins with.
    pub const fn prefix(self) -> &'static str {
        match self {
            KeyMode::Test => "rk_test_",
            KeyMode::Live => "rk_live_",
        }
    }
}

/// Why a text is not an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("an API key begins with rk_test_ or rk_live_")]
    Prefix,
    #[error("an API key has {expected} characters, found {found}")]
    Length { expected: usize, found: usize },
    #[error("the API key's checksum does not match: it was mistyped or cut")]
    Checksum,
}

/// A key whose checksum is right. It may still be unknown or revoked.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    text: String,
    mode: KeyMode,
}

impl ApiKey {
    /// A new random key.
    pub fn generate(mode: KeyMode) -> Self {
        ApiKey { text: random_text(mode.prefix(), CHECKSUM_CONTEXT), mode }
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`KeyError`]; the text is not repeated in it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mode = [KeyMode::Test, KeyMode::Live]
            .into_iter()
            .find(|mode| text.starts_with(mode.prefix()))
            .ok_or(KeyError::Prefix)?;
        match check_text(text, mode.prefix(), CHECKSUM_CONTEXT) {
            Ok(()) => Ok(ApiKey { text: text.to_owned(), mode }),
            Err(TextFault::Length { expected }) => {
                Err(KeyError::Length { expected, found: text.len() })
            }
            Err(TextFault::Checksum) => Err(KeyError::Checksum),
        }
    }

    /// The whole key, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Which kind it is.
    pub fn mode(&self) -> KeyMode {
        self.mode
    }

    /// What is stored.
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key(HASH_CONTEXT, self.text.as_bytes())
    }

    /// The first characters, by which its owner knows it again.
    pub fn hint(&self) -> &str {
        &self.text[..self.mode.prefix().len() + 6]
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}…)", self.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_every_changed_character_is_noticed() {
        let key = ApiKey::generate(KeyMode::Test);
        assert_eq!(ApiKey::parse(key.reveal()), Ok(key.clone()));
        assert!(!format!("{key:?}").contains(key.reveal()));
        for at in KeyMode::Test.prefix().len()..key.reveal().len() {
            let mut bytes = key.reveal().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            let text = String::from_utf8(bytes).expect("ASCII");
            assert_eq!(ApiKey::parse(&text), Err(KeyError::Checksum), "{at}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!(ApiKey::parse("sk_test_x"), Err(KeyError::Prefix));
        assert_eq!(ApiKey::parse("rk_live_abc"), Err(KeyError::Length { expected: 55, found: 11 }));
        let wide = format!("rk_test_{}é", "a".repeat(45));
        assert!(matches!(ApiKey::parse(&wide), Err(KeyError::Length { .. })));
    }
}
