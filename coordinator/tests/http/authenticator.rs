//! An authenticator in software, with the browser before it: makes passkeys and signs with
//! them, and says whatever a test wants it to say.

use ciborium::Value as Cbor;
use raven_coordinator::passkey::base64url::{decode, encode};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub const PRESENT: u8 = 1;
pub const VERIFIED: u8 = 4;
pub const ELIGIBLE: u8 = 8;
pub const BACKED_UP: u8 = 16;
pub const ATTESTED: u8 = 64;
pub const EXTENDED: u8 = 128;

/// One passkey, and the browser that asks for it.
pub struct Passkey {
    key: EcdsaKeyPair,
    pub id: Vec<u8>,
    pub user: Vec<u8>,
    /// Counted up with each signature, unless 0.
    pub count: u32,
    pub flags: u8,
    pub rp_id: String,
    pub origin: String,
    /// What the browser says beside what it must.
    pub client: Value,
    /// What the authenticator says beside what it must.
    pub tail: Vec<u8>,
    pub format: &'static str,
}

/// The options in an answer.
pub fn options(answer: &Value) -> &Value {
    &answer["options"]
}

fn bytes(value: &Value) -> Vec<u8> {
    decode(value.as_str().expect("text")).expect("base64url")
}

fn cbor(value: &Cbor) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).expect("written");
    out
}

fn pairs<K: Into<Cbor>>(pairs: impl IntoIterator<Item = (K, Cbor)>) -> Cbor {
    Cbor::Map(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

impl Passkey {
    /// A device that has made nothing yet, of a browser that is at `origin`.
    pub fn new(origin: &str) -> Self {
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).expect("a key");
        let host = origin.split_once("://").expect("a scheme").1;
        Passkey {
            id: Sha256::digest(key.public_key()).to_vec(),
            key,
            user: Vec::new(),
            count: 0,
            flags: PRESENT | VERIFIED,
            rp_id: host.split(':').next().expect("a host").to_owned(),
            origin: origin.to_owned(),
            client: json!({}),
            tail: Vec::new(),
            format: "none",
        }
    }

    fn client_data(&self, kind: &str, options: &Value) -> Vec<u8> {
        let mut said = json!({
            "type": kind, "challenge": options["challenge"], "origin": self.origin,
            "crossOrigin": false,
        });
        for (name, value) in self.client.as_object().expect("an object") {
            said[name] = value.clone();
        }
        said.to_string().into_bytes()
    }

    fn data(&self, flags: u8, attested: &[u8]) -> Vec<u8> {
        let hash = Sha256::digest(self.rp_id.as_bytes());
        let count = self.count.to_be_bytes();
        [&hash[..], &[self.flags | flags], &count, attested, &self.tail].concat()
    }

    fn sign(&self, data: &[u8], client_data: &[u8]) -> Vec<u8> {
        let message = [data, &Sha256::digest(client_data)[..]].concat();
        self.key.sign(&SystemRandom::new(), &message).expect("signed").as_ref().to_vec()
    }

    /// The public key in COSE's form.
    fn cose(&self) -> Vec<u8> {
        let point = self.key.public_key().as_ref();
        cbor(&pairs([
            (1, Cbor::from(2)),
            (3, Cbor::from(-7)),
            (-1, Cbor::from(1)),
            (-2, Cbor::Bytes(point[1..33].to_vec())),
            (-3, Cbor::Bytes(point[33..].to_vec())),
        ]))
    }

    /// What `navigator.credentials.create` answers.
    pub fn create(&mut self, options: &Value) -> Value {
        self.user = bytes(&options["user"]["id"]);
        let length = u16::try_from(self.id.len()).expect("short").to_be_bytes();
        let attested = [&[0; 16][..], &length, &self.id, &self.cose()].concat();
        let data = self.data(ATTESTED, &attested);
        let client_data = self.client_data("webauthn.create", options);
        let statement = match self.format {
            "packed" => {
                let signature = self.sign(&data, &client_data);
                pairs([("alg", Cbor::from(-7)), ("sig", Cbor::Bytes(signature))])
            }
            _ => pairs::<&str>([]),
        };
        let attestation = pairs([
            ("fmt", Cbor::from(self.format)),
            ("attStmt", statement),
            ("authData", Cbor::Bytes(data)),
        ]);
        json!({
            "id": encode(&self.id), "rawId": encode(&self.id), "type": "public-key",
            "authenticatorAttachment": "platform", "clientExtensionResults": {},
            "response": {
                "clientDataJSON": encode(&client_data), "transports": ["internal"],
                "attestationObject": encode(&cbor(&attestation)),
            },
        })
    }

    /// What `navigator.credentials.get` answers.
    pub fn get(&mut self, options: &Value) -> Value {
        if self.count > 0 {
            self.count += 1;
        }
        let client_data = self.client_data("webauthn.get", options);
        let data = self.data(0, &[]);
        let signature = self.sign(&data, &client_data);
        json!({
            "id": encode(&self.id), "rawId": encode(&self.id), "type": "public-key",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": encode(&client_data), "authenticatorData": encode(&data),
                "signature": encode(&signature), "userHandle": encode(&self.user),
            },
        })
    }
}
