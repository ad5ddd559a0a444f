//! What an authenticator says of itself and signs (WebAuthn §6.1).

use super::{Fault, PublicKey, RelyingParty, cbor};
use sha2::{Digest as _, Sha256};

const HASH_BYTES: usize = 32;
/// The hash, the flags, and the count.
const HEAD_BYTES: usize = HASH_BYTES + 1 + 4;
const AAGUID_BYTES: usize = 16;
/// WebAuthn allows no longer ones.
const CREDENTIAL_BYTES_MAX: usize = 1023;

const USER_PRESENT: u8 = 1 << 0;
const USER_VERIFIED: u8 = 1 << 2;
const BACKUP_ELIGIBLE: u8 = 1 << 3;
const BACKED_UP: u8 = 1 << 4;
const ATTESTED: u8 = 1 << 6;
const EXTENDED: u8 = 1 << 7;

/// What both ceremonies look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AuthenticatorData<'a> {
    /// How often the passkey has signed; always 0 of those that do not count.
    pub(super) count: u32,
    /// Whether it may be on several devices. That does not change.
    pub(super) is_synced: bool,
    pub(super) attested: Option<Attested<'a>>,
}

/// The passkey that was made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attested<'a> {
    pub(super) id: &'a [u8],
    /// As it is stored.
    pub(super) cose: &'a [u8],
    pub(super) key: PublicKey,
}

impl<'a> AuthenticatorData<'a> {
    /// Reads it whole, and checks what holds in both ceremonies: that it was made for
    /// `party`, and that a person was there and was recognised.
    ///
    /// # Errors
    /// [`Fault`].
    pub(super) fn read(bytes: &'a [u8], party: &RelyingParty) -> Result<Self, Fault> {
        let fault = Fault::AuthenticatorData;
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(fault.clone())?;
        let (hash, head) = head.split_at(HASH_BYTES);
        let [flags, count @ ..] = head else { return Err(fault) };
        let count = u32::from_be_bytes(count.try_into().map_err(|_| fault.clone())?);
        if hash != &Sha256::digest(party.id.as_bytes())[..] {
            return Err(Fault::RelyingParty);
        }
        let has = |flag: u8| flags & flag != 0;
        if !has(USER_PRESENT) {
            return Err(Fault::Presence);
        }
        if !has(USER_VERIFIED) {
            return Err(Fault::Verification);
        }
        if has(BACKED_UP) && !has(BACKUP_ELIGIBLE) {
            return Err(fault);
        }
        let (attested, rest) = match has(ATTESTED) {
            true => read_attested(rest).map(|(attested, rest)| (Some(attested), rest))?,
            false => (None, rest),
        };
        // Nothing was asked for there; some say something all the same.
        let rest = match has(EXTENDED) {
            true => cbor::map(rest, "the extensions")?.1,
            false => rest,
        };
        let is_synced = has(BACKUP_ELIGIBLE);
        if rest.is_empty() { Ok(Self { count, is_synced, attested }) } else { Err(fault) }
    }
}

fn read_attested(bytes: &[u8]) -> Result<(Attested<'_>, &[u8]), Fault> {
    let fault = Fault::AuthenticatorData;
    let (_, rest) = bytes.split_at_checked(AAGUID_BYTES).ok_or(fault.clone())?;
    let (length, rest) = rest.split_first_chunk().ok_or(fault.clone())?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0 || length > CREDENTIAL_BYTES_MAX {
        return Err(Fault::CredentialLength { found: length });
    }
    let (id, cose) = rest.split_at_checked(length).ok_or(fault)?;
    let (key, rest) = PublicKey::read(cose)?;
    let cose = &cose[..cose.len() - rest.len()];
    Ok((Attested { id, cose, key }, rest))
}
