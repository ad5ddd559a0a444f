//! The key that certificates are signed with: one file beside the keys of
//! tickets, for its owner's eyes only. Buyers know its public half.

use crate::runtime::session::{hex, parse_hex};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Not one of the names that tickets' keys have.
const FILE: &str = "certificates.ed25519";
/// 64 digits and a line's end.
const FILE_BYTES_MAX: u64 = 66;
/// What is signed begins with it, so that no other signature of the key is one of a certificate.
const DOMAIN: &[u8] = b"raven certificate 1\n";

/// Why the key cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the certificates' key: {action} {}: {error}", path.display())]
    Io { action: &'static str, path: PathBuf, error: io::Error },
    #[error("the certificates' key: {} has mode {mode:04o}; others may read it, 0600 is needed", path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("the certificates' key: {} is not 64 lower-case hex digits", path.display())]
    Unreadable { path: PathBuf },
}

/// Who signed: an ed25519 public key, written as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signatory([u8; 32]);

impl fmt::Display for Signatory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Signatory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Signatory {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        parse_hex(text).map(Signatory).ok_or(())
    }
}

fn message(text: &str) -> Vec<u8> {
    [DOMAIN, text.as_bytes()].concat()
}

impl Signatory {
    /// Whether the text was signed by it.
    pub fn has_signed(&self, text: &str, signature: &[u8; 64]) -> bool {
        self.has_signed_bytes(&message(text), signature)
    }

    /// The same for what is signed under another domain.
    pub fn has_signed_bytes(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

/// The key with its secret half.
#[derive(Clone)]
pub struct CertificateKey(SigningKey);

impl fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateKey({})", self.signatory())
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |error| KeyError::Io { action, path, error }
}

impl CertificateKey {
    /// The key of a folder, made where it is missing. Blocks.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open(folder: &Path) -> Result<Self, KeyError> {
        let path = folder.join(FILE);
        if !path.exists() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(failed("create", folder))?;
            create(folder, &path)?;
        }
        let metadata = std::fs::metadata(&path).map_err(failed("look at", &path))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Mode { path, mode });
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(KeyError::Unreadable { path });
        }
        let text = std::fs::read_to_string(&path).map_err(failed("read", &path))?;
        let secret = parse_hex(text.trim_end()).ok_or(KeyError::Unreadable { path })?;
        Ok(CertificateKey(SigningKey::from_bytes(&secret)))
    }

    /// Whether a folder has one.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// A key from its secret half.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        CertificateKey(SigningKey::from_bytes(&secret))
    }

    /// Its public half.
    pub fn signatory(&self) -> Signatory {
        Signatory(self.0.verifying_key().to_bytes())
    }

    /// The key itself, for what is signed under another domain.
    pub fn secret(&self) -> &SigningKey {
        &self.0
    }

    /// Signs a text.
    pub fn sign(&self, text: &str) -> [u8; 64] {
        self.0.sign(&message(text)).to_bytes()
    }
}

/// Makes a key's file. It gets its name whole, and where another process was
/// sooner that one's file stays.
fn create(folder: &Path, path: &Path) -> Result<(), KeyError> {
    let partial = folder.join(format!("{FILE}.{:016x}.part", crate::random::nonzero_u64()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .map_err(failed("create", &partial))?;
    let text = hex(&crate::random::bytes::<32>()) + "\n";
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &partial))?;
    let linked = std::fs::hard_link(&partial, path);
    std::fs::remove_file(&partial).map_err(failed("remove", &partial))?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("create", path)(error));
        }
        _ => {}
    }
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("signing");
        let key = CertificateKey::open(&path).expect("made");
        let again = CertificateKey::open(&path).expect("read");
        assert_eq!(again.signatory(), key.signatory());
        assert_eq!(std::fs::read_dir(&path).expect("listed").count(), 1, "nothing is left over");
        assert_eq!(crate::signing::SigningKeys::open(&path).map(drop).map_err(drop), Ok(()));
        let file = path.join(FILE);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("changed");
        assert!(matches!(CertificateKey::open(&path), Err(KeyError::Mode { mode: 0o644, .. })));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("changed");
        std::fs::write(&file, "abc").expect("written");
        assert!(matches!(CertificateKey::open(&path), Err(KeyError::Unreadable { .. })));
    }

    #[test]
    fn a_signature_is_for_one_text_and_one_key() {
        let (key, other) =
            (CertificateKey::from_secret([1; 32]), CertificateKey::from_secret([2; 32]));
        let signature = key.sign("a text");
        assert!(key.signatory().has_signed("a text", &signature));
        assert!(!key.signatory().has_signed("a text.", &signature));
        assert!(!other.signatory().has_signed("a text", &signature));
        let text = key.signatory().to_string();
        assert_eq!(text.parse(), Ok(key.signatory()));
        assert!(text.to_uppercase().parse::<Signatory>().is_err());
    }
}
