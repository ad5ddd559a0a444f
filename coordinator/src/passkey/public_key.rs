//! The public key of a passkey, in COSE's form (RFC 9053), and its signatures.

use super::{Fault, cbor};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};

/// What a key is asked to be, the preferred one first: `-7` is what most have, `-257` what
/// older computers keep in their TPM.
pub const ALGORITHMS: [i64; 3] = [-7, -8, -257];

const KTY: i64 = 1;
const ALG: i64 = 3;
/// The curve of the first two kinds of keys; an RSA key has its modulus here.
const CRV_OR_N: i64 = -1;
/// The x of the first two kinds; an RSA key has its exponent here.
const X_OR_E: i64 = -2;
const Y: i64 = -3;

/// A key that can be checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// ECDSA on P-256 with SHA-256: `0x04`, x, y.
    Es256([u8; 65]),
    /// EdDSA on Ed25519.
    Ed25519([u8; 32]),
    /// RSA PKCS#1 v1.5 with SHA-256, of 2,048 to 8,192 bits: modulus and exponent.
    Rs256 { n: Vec<u8>, e: Vec<u8> },
}

impl PublicKey {
    /// Reads the key that `bytes` begin with, and what follows it.
    ///
    /// # Errors
    /// [`Fault::Cbor`]; [`Fault::Algorithm`] where the key is of none of [`ALGORITHMS`].
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Fault> {
        let what = "the public key";
        let (map, rest) = cbor::map(bytes, what)?;
        let integer = |label: i64| map.integer(label);
        let part = |label: i64| map.bytes(label);
        let key = match (integer(KTY), integer(ALG)) {
            (Some(2), Some(-7)) if integer(CRV_OR_N) == Some(1) => {
                part(X_OR_E).zip(part(Y)).and_then(|(x, y)| uncompressed(x, y))
            }
            (Some(1), Some(-8)) if integer(CRV_OR_N) == Some(6) => {
                part(X_OR_E).and_then(|x| x.try_into().ok()).map(PublicKey::Ed25519)
            }
            (Some(3), Some(-257)) => part(CRV_OR_N)
                .zip(part(X_OR_E))
                .map(|(n, e)| PublicKey::Rs256 { n: n.to_vec(), e: e.to_vec() }),
            _ => return Err(Fault::Algorithm),
        };
        Ok((key.ok_or(Fault::Cbor { what })?, rest))
    }

    /// Reads a key that was stored.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn parse(cose: &[u8]) -> Result<Self, Fault> {
        match PublicKey::read(cose)? {
            (key, []) => Ok(key),
            _ => Err(Fault::Cbor { what: "the public key" }),
        }
    }

    /// The number of its algorithm.
    pub fn algorithm(&self) -> i64 {
        match self {
            PublicKey::Es256(_) => -7,
            PublicKey::Ed25519(_) => -8,
            PublicKey::Rs256 { .. } => -257,
        }
    }

    /// Whether `signature` is this key's over `message`.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let checked = match self {
            PublicKey::Es256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
            }
            PublicKey::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
            }
            PublicKey::Rs256 { n, e } => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
        };
        checked.is_ok()
    }
}

fn uncompressed(x: &[u8], y: &[u8]) -> Option<PublicKey> {
    let mut point = [4; 65];
    let (x, y): (&[u8; 32], &[u8; 32]) = (x.try_into().ok()?, y.try_into().ok()?);
    point[1..33].copy_from_slice(x);
    point[33..].copy_from_slice(y);
    Some(PublicKey::Es256(point))
}

#[cfg(test)]
mod tests {
    use super::super::base64url::decode;
    use super::*;
    use ciborium::Value;
    use ed25519_dalek::{Signer as _, SigningKey};

    const MESSAGE: &[u8] = b"raven passkey";
    /// Of a key of 2,048 bits that OpenSSL made, and its signature.
    const MODULUS: &str = "rhkiU75cWE5POiryqwRSz42g69FcjZ2y9yxm0nH2to-qbmGuLE3is-XfpX9X5CxgA74WsELt0hsZk9WwYuDNFcOU\
        RVWN62y2wV-ULuxt-H6gn3d6f5yJUMBQlSFDLnhqhHiBbOpDKYhR5Z014BCjzjgZJ4TRVjdD5VFjXjOobPLPV-kB\
        W3Rq7dXcMJCrxRJBjWMp78NlT7zAzu51ShDLcTbxMypOzl6M6PDaqIlTwTumq8Ls--ABSYc7YDJGdbrVSt2Yp5Os\
        Nir0ARcTxnLIaYRHsgOkNPLYj9_w-zh15hHA6ouizOG6aVpuxOcPyKliJtHVYdHU9CGFsvyQdnyleQ";
    const SIGNATURE: &str = "PSX1aXMvHYYPWT3e3V2QdrJ77bGw_RzULsON6EXpGPKVXKk2pSQnZ9-3be-10PPqzEK7ZxYTdzyp1BbvrV7wsOkc\
        I7ukyWm22zk4WK3VT81UIPBJXJ3R7hDPViU4ZAxvlc5pSHIViyYry9xnfyFtAuHes4xohXG92E7AqlmA7aYGII8o\
        qd6ohL0bzFtqgN6_WvMQXt1x5xHzBrjZS9dIwgxt2VSrjp0SXf535odPJUMc9ovlh9KAYaVUxhb5SmKQZgKOJKfV\
        o_0l6n_-0HUkdhdcyPRT7ljWNr7NOrBZrxDyYGF-DGLbD6d8VWmJDokFMxXejYKw-y8AjbXm8XTelw";

    fn cose(pairs: &[(i64, Value)]) -> Vec<u8> {
        let pairs = pairs.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect();
        let mut out = Vec::new();
        ciborium::into_writer(&Value::Map(pairs), &mut out).expect("written");
        out
    }

    fn is_only_signed(cose: &[u8], algorithm: i64, signature: &[u8]) {
        let key = PublicKey::parse(cose).expect("a key");
        assert_eq!(key.algorithm(), algorithm);
        assert!(key.has_signed(MESSAGE, signature));
        assert!(!key.has_signed(b"raven passkeys", signature));
        let mut changed = signature.to_vec();
        changed[10] ^= 1;
        assert!(!key.has_signed(MESSAGE, &changed));
        assert!(!key.has_signed(MESSAGE, &[]));
        // No part of a key is one, and nothing follows it.
        for length in 0..cose.len() {
            assert!(PublicKey::parse(&cose[..length]).is_err(), "{length}");
        }
        assert!(PublicKey::parse(&[cose, &[0]].concat()).is_err());
    }

    #[test]
    fn keys_of_ed25519_and_rsa_check_their_signatures() {
        let pair = SigningKey::from_bytes(&[7; 32]);
        let x = Value::Bytes(pair.verifying_key().to_bytes().to_vec());
        let okp = [(KTY, 1.into()), (ALG, (-8).into()), (CRV_OR_N, 6.into()), (X_OR_E, x)];
        is_only_signed(&cose(&okp), -8, &pair.sign(MESSAGE).to_bytes());
        let n = Value::Bytes(decode(MODULUS).expect("base64url"));
        let e = Value::Bytes(vec![1, 0, 1]);
        let rsa = [(KTY, 3.into()), (ALG, (-257).into()), (CRV_OR_N, n), (X_OR_E, e)];
        is_only_signed(&cose(&rsa), -257, &decode(SIGNATURE).expect("base64url"));
    }

    #[test]
    fn keys_that_were_not_asked_for_are_refused() {
        let part = || Value::Bytes(vec![1; 32]);
        for (kty, alg, curve) in [(2, -35, 2), (2, -7, 2), (1, -7, 1), (1, -8, 1), (4, 5, 1)] {
            let pairs = [(KTY, kty.into()), (ALG, alg.into()), (CRV_OR_N, curve.into())];
            let bytes = cose(&[&pairs[..], &[(X_OR_E, part()), (Y, part())]].concat());
            assert_eq!(PublicKey::parse(&bytes), Err(Fault::Algorithm), "{kty} {alg} {curve}");
        }
        let short = [(X_OR_E, part()), (Y, Value::Bytes(vec![1; 31]))];
        let pairs = [(KTY, 2.into()), (ALG, (-7).into()), (CRV_OR_N, 1.into())];
        let bytes = cose(&[&pairs[..], &short].concat());
        assert_eq!(PublicKey::parse(&bytes), Err(Fault::Cbor { what: "the public key" }));
        // On no curve: it can be read, and has signed nothing.
        let bytes = cose(&[&pairs[..], &[(X_OR_E, part()), (Y, part())]].concat());
        assert!(!PublicKey::parse(&bytes).expect("read").has_signed(MESSAGE, &[0; 70]));
    }
}
