//! Work tokens: the coordinator's word that a visitor of a site did so many verified
//! calculations there, which the site's own server checks, e.g. to unlock a page.
//! A token is text, `wt1.BODY.SIGNATURE`: hex of a JSON document and of the ed25519
//! signature of the key that certificates are signed with, over [`DOMAIN`] and the document.

use crate::certificate::key::{CertificateKey, Signatory};
use crate::runtime::session::{hex, parse_hex};
use crate::store::site_text;
use crate::time::UnixMs;
use ed25519_dalek::Signer;
use raven_engine::{ContributorId, SiteId};
use serde::{Deserialize, Serialize};

/// What is signed begins with it, so that no other signature of the key is one of a token.
const DOMAIN: &[u8] = b"raven work token 1\n";
const PREFIX: &str = "wt1";
/// How long a token is good: it goes from the visitor to the site's server at once.
pub const TOKEN_MS: i64 = 5 * 60_000;
/// Longer than any token.
const TEXT_BYTES_MAX: usize = 2_048;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// `site_…`
    pub site: String,
    /// The same for the same visitor of this site, and another one on every other site.
    pub visitor: String,
    /// Flops that were verified in this visit, and in all visits of this site.
    pub visit_flops: u64,
    pub total_flops: u64,
    /// Whole calculations of 50 Mflop, rounded down.
    pub visit_calculations: u64,
    pub total_calculations: u64,
    /// Milliseconds since 1970.
    pub issued_ms: i64,
    pub expires_ms: i64,
}

/// Why a token is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("token: it is no work token")]
    Malformed,
    #[error("token: it was not signed here, or changed since")]
    Tampered,
    #[error("token: it has expired")]
    Expired,
    #[error("token: it is of another site")]
    OtherSite,
}

impl TokenError {
    /// A short name that does not change, for programs.
    pub const fn name(self) -> &'static str {
        match self {
            TokenError::Malformed => "malformed",
            TokenError::Tampered => "tampered",
            TokenError::Expired => "expired",
            TokenError::OtherSite => "other_site",
        }
    }
}

/// The name under which a site knows a visitor: of use to nobody else.
pub fn pseudonym(secret: &[u8; 32], site: SiteId, contributor: &ContributorId) -> String {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(&site.0.to_le_bytes()).update(&contributor.0);
    let mut text = hasher.finalize().to_hex().to_string();
    text.truncate(32);
    text
}

fn message(body: &[u8]) -> Vec<u8> {
    [DOMAIN, body].concat()
}

/// Signs what a visitor did.
pub fn sign(work: &Work, key: &CertificateKey) -> Result<String, serde_json::Error> {
    let body = serde_json::to_vec(work)?;
    let signature = key.secret().sign(&message(&body)).to_bytes();
    Ok(format!("{PREFIX}.{}.{}", hex(&body), hex(&signature)))
}

/// Reads a token of a site.
///
/// # Errors
/// [`TokenError`].
pub fn check(
    token: &str,
    site: SiteId,
    signatory: &Signatory,
    now: UnixMs,
) -> Result<Work, TokenError> {
    if token.len() > TEXT_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let mut parts = token.split('.');
    let (prefix, body, signature) = (parts.next(), parts.next(), parts.next());
    let (Some(PREFIX), Some(body), Some(signature), None) = (prefix, body, signature, parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    let body = bytes(body).ok_or(TokenError::Malformed)?;
    let signature = parse_hex::<64>(signature).ok_or(TokenError::Malformed)?;
    if !signatory.has_signed_bytes(&message(&body), &signature) {
        return Err(TokenError::Tampered);
    }
    // The body is ours from here on.
    let work: Work = serde_json::from_slice(&body).map_err(|_| TokenError::Malformed)?;
    if work.site != site_text(site) {
        return Err(TokenError::OtherSite);
    }
    if now.0 >= work.expires_ms { Err(TokenError::Expired) } else { Ok(work) }
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pair = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok()?;
        parse_hex::<1>(text).map(|[byte]| byte)
    };
    digits.chunks_exact(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: SiteId = SiteId(7);

    fn work() -> Work {
        Work {
            site: site_text(SITE),
            visitor: pseudonym(&[1; 32], SITE, &ContributorId([2; 32])),
            visit_flops: 60_000_000,
            total_flops: 150_000_000,
            visit_calculations: 1,
            total_calculations: 3,
            issued_ms: 1_000,
            expires_ms: 1_000 + TOKEN_MS,
        }
    }

    #[test]
    fn a_token_is_good_for_its_site_and_its_time_as_it_was_signed() {
        let (key, other) =
            (CertificateKey::from_secret([1; 32]), CertificateKey::from_secret([2; 32]));
        let token = sign(&work(), &key).expect("signed");
        let signatory = key.signatory();
        let at = |ms| check(&token, SITE, &signatory, UnixMs(ms));
        assert_eq!(at(2_000), Ok(work()));
        assert_eq!(at(1_000 + TOKEN_MS), Err(TokenError::Expired));
        let elsewhere = check(&token, SiteId(8), &signatory, UnixMs(2_000));
        assert_eq!(elsewhere, Err(TokenError::OtherSite));
        let forged = sign(&Work { total_flops: u64::MAX, ..work() }, &other).expect("signed");
        assert_eq!(check(&forged, SITE, &signatory, UnixMs(0)), Err(TokenError::Tampered));
    }

    #[test]
    fn every_changed_digit_is_noticed() {
        let key = CertificateKey::from_secret([1; 32]);
        let token = sign(&work(), &key).expect("signed");
        for at in 0..token.len() {
            for change in ["0", "f", ".", "x", "\u{e9}"] {
                let changed = [&token[..at], change, &token[at + 1..]].concat();
                if changed != token {
                    let found = check(&changed, SITE, &key.signatory(), UnixMs(2_000));
                    assert!(
                        matches!(found, Err(TokenError::Malformed | TokenError::Tampered)),
                        "{at} {change}: {found:?}"
                    );
                }
            }
            let short = check(&token[..at], SITE, &key.signatory(), UnixMs(2_000));
            assert!(short.is_err(), "{at}");
        }
    }

    #[test]
    fn a_visitor_has_another_name_on_every_site() {
        let of = |site, who: u8| pseudonym(&[1; 32], SiteId(site), &ContributorId([who; 32]));
        assert_eq!(of(1, 1), of(1, 1));
        assert_ne!(of(1, 1), of(2, 1));
        assert_ne!(of(1, 1), of(1, 2));
        assert_ne!(of(1, 1), pseudonym(&[2; 32], SiteId(1), &ContributorId([1; 32])));
    }
}
