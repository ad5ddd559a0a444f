//! How passkeys cross the wire: the options that a browser is given, and what it answers, in
//! the JSON that WebAuthn level 3 has for both.

use super::challenge::{Challenges, Nonce, NotTaken, full};
use super::{App, Problem};
use crate::passkey::{ALGORITHMS, Assertion, Fault, Registration, RelyingParty, base64url};
use crate::store::{KeyId, PasskeyError, PasskeyRow};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// For a person to find the device, and to be recognised by it.
pub(super) const CHALLENGE: Duration = Duration::from_secs(300);
/// Of what a browser says of a page: a long origin and what it may add.
const CLIENT_DATA_BYTES_MAX: usize = 4 << 10;
/// An RSA key, a long id and a signature are below 4 KiB.
const ATTESTATION_BYTES_MAX: usize = 16 << 10;
const AUTHENTICATOR_DATA_BYTES_MAX: usize = 4 << 10;
/// Of an RSA key of 8,192 bits.
const SIGNATURE_BYTES_MAX: usize = 1024;
/// The two that WebAuthn bounds.
const ID_BYTES_MAX: usize = 1023;
const USER_BYTES_MAX: usize = 64;

const SUBJECT_CONTEXT: &str = "raven 2026 passkey challenge 1";

/// What a challenge is for: an answer to one is none to another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    SignUp,
    SignIn,
    Add(KeyId),
    /// Of a passkey that is there, that another one may be added.
    Confirm(KeyId),
}

impl Purpose {
    fn subject(self) -> [u8; 32] {
        let text = match self {
            Purpose::SignUp => "sign up".to_owned(),
            Purpose::SignIn => "sign in".to_owned(),
            Purpose::Add(account) => format!("add to {}", account.0),
            Purpose::Confirm(account) => format!("confirm for {}", account.0),
        };
        blake3::derive_key(SUBJECT_CONTEXT, text.as_bytes())
    }

    pub(super) fn give(self, challenges: &Challenges, now: Instant) -> Nonce {
        challenges.give_for(&self.subject(), now + CHALLENGE)
    }

    /// Takes a challenge that was given for this. It is good no more then.
    ///
    /// # Errors
    /// [`Problem`] of that status; 429.
    pub(super) fn take(
        self,
        challenges: &Challenges,
        nonce: &Nonce,
        now: Instant,
        status: StatusCode,
    ) -> Result<(), Problem> {
        challenges.take_for(&self.subject(), nonce, now).map_err(|why| match why {
            NotTaken::Bad => {
                let detail = "the challenge was not given for this, was used, or is too old: \
                     begin again";
                fault(status, "challenge", detail).with_field(CLIENT_DATA)
            }
            NotTaken::Full => full(),
        })
    }
}

/// Whom passkeys are made for here.
///
/// # Errors
/// 404 where browsers make none.
pub(super) fn party(app: &App) -> Result<RelyingParty, Problem> {
    RelyingParty::of(&app.settings.origin).ok_or_else(|| {
        let detail = "browsers make passkeys at https addresses with a name, and at localhost; \
             this coordinator has another one";
        Problem::not_found(detail).named("no-passkeys", "No passkeys here")
    })
}

/// What a browser is asked to make. `user` is 32 bytes that say nothing, `name` is what its
/// owner calls it.
pub(super) fn creation(
    party: &RelyingParty,
    challenge: &Nonce,
    user: &[u8],
    name: &str,
    others: &[PasskeyRow],
) -> Value {
    let kinds = ALGORITHMS.map(|alg| json!({ "type": "public-key", "alg": alg }));
    let known: Vec<Value> = others
        .iter()
        .map(|row| json!({ "type": "public-key", "id": base64url::encode(&row.credential) }))
        .collect();
    json!({
        "rp": { "id": party.id, "name": "Raven" },
        "user": { "id": base64url::encode(user), "name": name, "displayName": name },
        "challenge": base64url::encode(challenge),
        "pubKeyCredParams": kinds,
        "timeout": CHALLENGE.as_millis() as u64,
        "excludeCredentials": known,
        // Without a name to begin with, the browser must know whose it is.
        "authenticatorSelection": {
            "residentKey": "required", "requireResidentKey": true, "userVerification": "required",
        },
        "attestation": "none",
    })
}

/// What a browser is asked to sign, by whichever passkey its user chooses.
pub(super) fn request(party: &RelyingParty, challenge: &Nonce) -> Value {
    json!({
        "rpId": party.id,
        "challenge": base64url::encode(challenge),
        "timeout": CHALLENGE.as_millis() as u64,
        "allowCredentials": [],
        "userVerification": "required",
    })
}

const CLIENT_DATA: &str = "credential.response.clientDataJSON";

/// A new passkey. Browsers say more of it; that is not read.
#[derive(Debug, Deserialize)]
pub(super) struct NewCredential {
    id: String,
    response: NewResponse,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewResponse {
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    attestation_object: String,
}

/// A passkey's signature.
#[derive(Debug, Deserialize)]
pub(super) struct Credential {
    id: String,
    response: Response,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    authenticator_data: String,
    signature: String,
    /// Of a passkey that is found without being named it says whose it is.
    user_handle: String,
}

/// Bytes of a field. Its length is looked at before anything is made of it.
fn bytes(text: &str, field: &str, most: usize) -> Result<Vec<u8>, Problem> {
    let found = text.len() / 4 * 3 + (text.len() % 4).saturating_sub(1);
    if found > most {
        let problem = Problem::invalid(format!("{field}: is too long")).with_field(field);
        return Err(problem.with_limit(most as u64, Some(found as u64)));
    }
    base64url::decode(text).ok_or_else(|| {
        let rule = format!("{field}: must be base64url without padding");
        Problem::invalid(rule).with_field(field)
    })
}

fn id(text: &str) -> Result<Vec<u8>, Problem> {
    bytes(text, "credential.id", ID_BYTES_MAX)
}

impl NewCredential {
    /// # Errors
    /// 422 with the field.
    pub(super) fn read(&self) -> Result<Registration, Problem> {
        let said = &self.response;
        let field = "credential.response.attestationObject";
        Ok(Registration {
            id: id(&self.id)?,
            client_data: bytes(&said.client_data, CLIENT_DATA, CLIENT_DATA_BYTES_MAX)?,
            attestation: bytes(&said.attestation_object, field, ATTESTATION_BYTES_MAX)?,
        })
    }
}

impl Credential {
    /// The passkey's id, and what it has signed.
    ///
    /// # Errors
    /// 422 with the field.
    pub(super) fn read(&self) -> Result<(Vec<u8>, Assertion), Problem> {
        let said = &self.response;
        let field = |name: &str| format!("credential.response.{name}");
        let (data, signature) = (&said.authenticator_data, &said.signature);
        let assertion = Assertion {
            client_data: bytes(&said.client_data, CLIENT_DATA, CLIENT_DATA_BYTES_MAX)?,
            authenticator_data: bytes(
                data,
                &field("authenticatorData"),
                AUTHENTICATOR_DATA_BYTES_MAX,
            )?,
            signature: bytes(signature, &field("signature"), SIGNATURE_BYTES_MAX)?,
            user: bytes(&said.user_handle, &field("userHandle"), USER_BYTES_MAX)?,
        };
        Ok((id(&self.id)?, assertion))
    }
}

fn fault(status: StatusCode, kind: &str, detail: impl Into<String>) -> Problem {
    let title = "The passkey is not taken";
    Problem::new(status, &format!("passkey-{kind}"), title, detail)
}

/// What is said of an answer that does not hold; 422 where a passkey is to be added, 401
/// where one was to prove who is there.
pub(super) fn refused(status: StatusCode, why: &Fault) -> Problem {
    let in_response = |name: &str| format!("credential.response.{name}");
    let (kind, field) = match why {
        Fault::Cbor { .. } | Fault::AuthenticatorData | Fault::CredentialLength { .. } => {
            ("form", "credential.response".to_owned())
        }
        Fault::ClientData { .. } => ("form", CLIENT_DATA.to_owned()),
        Fault::CredentialId => ("id", "credential.id".to_owned()),
        Fault::Type { .. } => ("type", CLIENT_DATA.to_owned()),
        Fault::Challenge => ("challenge", CLIENT_DATA.to_owned()),
        Fault::Origin { .. } | Fault::Framed => ("origin", CLIENT_DATA.to_owned()),
        Fault::RelyingParty => ("relying-party", "credential.response".to_owned()),
        Fault::Presence | Fault::Verification => ("verification", "credential.response".to_owned()),
        Fault::Algorithm => ("algorithm", in_response("attestationObject")),
        Fault::Attestation { .. } => ("attestation", in_response("attestationObject")),
        Fault::Signature => ("signature", in_response("signature")),
        Fault::User => ("user", in_response("userHandle")),
        Fault::Backup => ("backup", in_response("authenticatorData")),
    };
    fault(status, kind, why.to_string()).with_field(field)
}

/// What is said where no passkey of that id is there.
pub(super) fn unknown() -> Problem {
    let detail = "no account has this passkey, or it was removed";
    fault(StatusCode::UNAUTHORIZED, "unknown", detail).with_field("credential.id")
}

impl From<PasskeyError> for Problem {
    fn from(error: PasskeyError) -> Self {
        let detail = error.to_string();
        match error {
            PasskeyError::Store(error) => error.into(),
            PasskeyError::Unknown => unknown(),
            PasskeyError::Taken => {
                fault(StatusCode::CONFLICT, "taken", detail).with_field("credential.id")
            }
            PasskeyError::Copied { known, found } => {
                fault(StatusCode::UNAUTHORIZED, "count", detail)
                    .with_field("credential.response.authenticatorData")
                    .with_limit(known.into(), Some(found.into()))
            }
            PasskeyError::Ends => Problem::forbidden(detail),
            PasskeyError::Unconfirmed => Problem::forbidden(detail)
                .named("passkey-unconfirmed", "A passkey must confirm it")
                .with_field("confirmation"),
            PasskeyError::LastWayIn => {
                let detail = format!(
                    "{detail}: without it nobody might come in again. Add another passkey, or \
                     make a key that lasts and remove it with that"
                );
                Problem::conflict(detail).named("last-way-in", "It is the last way in")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_serves_one_purpose_once_and_for_five_minutes() {
        let (challenges, now) = (Challenges::default(), Instant::now());
        let (ann, ben) = (Purpose::Add(KeyId(1)), Purpose::Add(KeyId(2)));
        let (of_ann, of_ben) = (Purpose::Confirm(KeyId(1)), Purpose::Confirm(KeyId(2)));
        let purposes = [Purpose::SignUp, Purpose::SignIn, ann, ben, of_ann, of_ben];
        let status = StatusCode::UNAUTHORIZED;
        for (at, purpose) in purposes.into_iter().enumerate() {
            let nonce = purpose.give(&challenges, now);
            let others = purposes.iter().enumerate().filter(|(other, _)| *other != at);
            for (_, other) in others {
                let problem = other.take(&challenges, &nonce, now, status).expect_err("another's");
                assert_eq!(problem.status(), status);
            }
            let late = now + CHALLENGE;
            assert!(purpose.take(&challenges, &nonce, late, status).is_err(), "expired");
            let soon = late - Duration::from_millis(1);
            assert_eq!(purpose.take(&challenges, &nonce, soon, status), Ok(()));
            assert!(purpose.take(&challenges, &nonce, soon, status).is_err(), "used");
        }
    }

    #[test]
    fn fields_are_measured_before_they_are_read() {
        for (length, text) in [(0, ""), (1, "AA"), (2, "AAA"), (3, "AAAA"), (4, "AAAAAA")] {
            assert_eq!(bytes(text, "x", length).map(|bytes| bytes.len()), Ok(length));
            assert!(length == 0 || bytes(text, "x", length - 1).is_err(), "{text}");
        }
    }
}
