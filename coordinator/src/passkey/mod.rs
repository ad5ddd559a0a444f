//! What a relying party checks of passkeys (WebAuthn level 3, §7.1 and §7.2). Pure: whether
//! a challenge was given, and whose a passkey is, is for whoever calls.

mod authenticator_data;
pub mod base64url;
mod cbor;
mod public_key;

pub use public_key::{ALGORITHMS, PublicKey};

use authenticator_data::AuthenticatorData;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;

/// Bytes of a challenge.
pub const CHALLENGE_BYTES: usize = 32;

/// Why an answer of an authenticator is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{what} cannot be read")]
    Cbor { what: &'static str },
    #[error("the authenticator's data cannot be read")]
    AuthenticatorData,
    #[error("the client's data cannot be read: {reason}")]
    ClientData { reason: String },
    #[error("the passkey's id has {found} bytes, 1 to 1,023 are allowed")]
    CredentialLength { found: usize },
    #[error("the passkey's id is another one than the authenticator names")]
    CredentialId,
    #[error("the answer is to another question: {found:?} instead of {expected:?}")]
    Type { expected: &'static str, found: String },
    #[error("the challenge was not given here")]
    Challenge,
    #[error("the passkey was asked for by {found:?}, which is another origin")]
    Origin { found: String },
    #[error("the passkey was asked for in a frame of another origin's page")]
    Framed,
    #[error("the passkey is another site's")]
    RelyingParty,
    #[error("the authenticator says that nobody was there")]
    Presence,
    #[error("the authenticator has not checked who was there: set up its PIN, finger or face")]
    Verification,
    #[error("the passkey's key is of no kind that was asked for")]
    Algorithm,
    #[error("no attestation was asked for, and {format:?} is none that is read")]
    Attestation { format: String },
    #[error("the signature is not the passkey's")]
    Signature,
    #[error("the passkey says it is another account's")]
    User,
    #[error("the passkey could be on several devices before and cannot now, or the reverse")]
    Backup,
}

/// Whom passkeys are made for: the coordinator, as browsers reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelyingParty {
    /// The host of the origin. Passkeys are good for it and no other.
    pub id: String,
    pub origin: String,
}

impl RelyingParty {
    /// That of an origin; `None` where browsers make no passkeys: without TLS but on
    /// `localhost`, and at addresses without a name.
    pub fn of(origin: &str) -> Option<Self> {
        let (scheme, rest) = origin.split_once("://")?;
        let id = match rest.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
            _ => rest,
        };
        let is_local = id == "localhost" || id.ends_with(".localhost");
        let is_name = !id.is_empty() && !id.starts_with('[') && id.parse::<IpAddr>().is_err();
        let is_safe = scheme == "https" || (scheme == "http" && is_local);
        (is_safe && is_name).then(|| RelyingParty { id: id.to_owned(), origin: origin.to_owned() })
    }
}

/// What an authenticator answers to a wish for a new passkey.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The id by which the browser knows it.
    pub id: Vec<u8>,
    pub client_data: Vec<u8>,
    pub attestation: Vec<u8>,
}

/// A passkey that may be stored, once its challenge is found to be good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPasskey {
    pub id: Vec<u8>,
    /// The public key in COSE's form.
    pub public_key: Vec<u8>,
    pub count: u32,
    pub is_synced: bool,
    pub challenge: [u8; CHALLENGE_BYTES],
}

/// What an authenticator answers to a challenge.
#[derive(Clone, Debug)]
pub struct Assertion {
    pub client_data: Vec<u8>,
    pub authenticator_data: Vec<u8>,
    pub signature: Vec<u8>,
    /// What the passkey says whose it is.
    pub user: Vec<u8>,
}

/// What is known of the passkey that an assertion names.
#[derive(Clone, Debug)]
pub struct Known {
    pub public_key: PublicKey,
    pub user: Vec<u8>,
    pub is_synced: bool,
}

/// What an assertion that is the passkey's says, once its challenge is found to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asserted {
    pub count: u32,
    pub challenge: [u8; CHALLENGE_BYTES],
}

/// What the browser says of the page that asked. It says more with time; that is not read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
    top_origin: Option<String>,
}

impl RelyingParty {
    /// Checks what the browser says, and finds the challenge.
    fn read_client(
        &self,
        bytes: &[u8],
        expected: &'static str,
    ) -> Result<[u8; CHALLENGE_BYTES], Fault> {
        let said: ClientData = serde_json::from_slice(bytes)
            .map_err(|error| Fault::ClientData { reason: error.to_string() })?;
        if said.r#type != expected {
            return Err(Fault::Type { expected, found: said.r#type });
        }
        if said.origin != self.origin {
            return Err(Fault::Origin { found: said.origin });
        }
        if said.cross_origin || said.top_origin.is_some() {
            return Err(Fault::Framed);
        }
        let challenge = base64url::decode(&said.challenge);
        challenge.and_then(|bytes| bytes.try_into().ok()).ok_or(Fault::Challenge)
    }

    /// The challenge that a new passkey answers, before anything else of it is looked at.
    ///
    /// # Errors
    /// [`Fault`], of what the browser says.
    pub fn challenge_of(&self, answer: &Registration) -> Result<[u8; CHALLENGE_BYTES], Fault> {
        self.read_client(&answer.client_data, "webauthn.create")
    }

    /// Checks a new passkey. Who made its authenticator is not asked for: a format other than
    /// `none` is read only where the passkey vouches for itself, as browsers may leave it.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn register(&self, answer: &Registration) -> Result<NewPasskey, Fault> {
        let challenge = self.read_client(&answer.client_data, "webauthn.create")?;
        let what = "the attestation";
        let (attestation, rest) = cbor::map(&answer.attestation, what)?;
        let fault = Fault::Cbor { what };
        let found = attestation.bytes("authData").zip(attestation.map("attStmt"));
        let (signed, statement) = found.filter(|_| rest.is_empty()).ok_or(fault.clone())?;
        let data = AuthenticatorData::read(signed, self)?;
        let made = data.attested.ok_or(Fault::AuthenticatorData)?;
        if made.id != answer.id {
            return Err(Fault::CredentialId);
        }
        let format = attestation.text("fmt").ok_or(fault.clone())?;
        match format {
            "none" if statement.is_empty() => {}
            "packed" if !statement.has("x5c") => {
                let is_own = statement.integer("alg") == Some(made.key.algorithm().into());
                let signature = statement.bytes("sig").filter(|_| is_own).ok_or(fault)?;
                if !made.key.has_signed(&message(signed, &answer.client_data), signature) {
                    return Err(Fault::Signature);
                }
            }
            format => return Err(Fault::Attestation { format: format.to_owned() }),
        }
        Ok(NewPasskey {
            id: made.id.to_vec(),
            public_key: made.cose.to_vec(),
            count: data.count,
            is_synced: data.is_synced,
            challenge,
        })
    }

    /// Checks that a known passkey has answered.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn assert(&self, answer: &Assertion, known: &Known) -> Result<Asserted, Fault> {
        let challenge = self.read_client(&answer.client_data, "webauthn.get")?;
        let data = AuthenticatorData::read(&answer.authenticator_data, self)?;
        if answer.user != known.user {
            return Err(Fault::User);
        }
        if data.is_synced != known.is_synced {
            return Err(Fault::Backup);
        }
        let message = message(&answer.authenticator_data, &answer.client_data);
        if !known.public_key.has_signed(&message, &answer.signature) {
            return Err(Fault::Signature);
        }
        Ok(Asserted { count: data.count, challenge })
    }
}

/// What passkeys sign.
fn message(authenticator_data: &[u8], client_data: &[u8]) -> Vec<u8> {
    [authenticator_data, &Sha256::digest(client_data)[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passkeys_are_made_where_browsers_make_them() {
        for (origin, id) in [
            ("https://raven.example", Some("raven.example")),
            ("https://raven.example:8443", Some("raven.example")),
            ("http://localhost:8080", Some("localhost")),
            ("http://raven.localhost", Some("raven.localhost")),
            ("http://raven.example", None),
            ("http://127.0.0.1:8080", None),
            ("https://127.0.0.1", None),
            ("https://[::1]:8443", None),
            ("https://", None),
            ("raven.example", None),
        ] {
            let found = RelyingParty::of(origin);
            assert_eq!(found.as_ref().map(|party| &*party.id), id, "{origin}");
            assert!(found.is_none_or(|party| party.origin == origin));
        }
    }

    #[test]
    fn bytes_that_are_no_answer_are_refused_and_nothing_panics() {
        let party = RelyingParty::of("https://raven.example").expect("a name");
        let client_data =
            br#"{"type":"webauthn.create","challenge":"AA","origin":"https://raven.example"}"#;
        let mut answer = Registration {
            id: vec![1],
            client_data: client_data.to_vec(),
            attestation: Vec::new(),
        };
        assert_eq!(party.register(&answer), Err(Fault::Challenge));
        let challenge = base64url::encode(&[7; 32]);
        answer.client_data =
            String::from_utf8_lossy(client_data).replace("AA", &challenge).into_bytes();
        // Nothing, no map, a map of 2^64 pairs, deep arrays, a key twice, 5,000 pairs.
        let deep = [[0x81; 300].as_slice(), &[0]].concat();
        let wide = (0..5_000_u16).flat_map(|at| [&[0x19][..], &at.to_be_bytes(), &[0]].concat());
        let wide: Vec<u8> = [0xb9, 0x13, 0x88].into_iter().chain(wide).collect();
        for bytes in [
            &[][..],
            &[0x01],
            &[0xbb, 255, 255, 255, 255, 255, 255, 255, 255],
            &deep,
            &[0xa2, 1, 1, 1, 2],
            &wide,
        ] {
            answer.attestation = bytes.to_vec();
            assert_eq!(party.register(&answer), Err(Fault::Cbor { what: "the attestation" }));
        }
        for length in 0..120 {
            let mut bytes = Sha256::digest(b"raven.example").to_vec();
            bytes.push(0xff);
            bytes.resize(length, 0);
            assert!(AuthenticatorData::read(&bytes, &party).is_err(), "{length}");
        }
    }
}
