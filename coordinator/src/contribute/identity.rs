//! The key that earns: one file, for its owner's eyes only.

use super::ContributeError;
use crate::random;
use crate::runtime::session::{hex, parse_hex};
use ed25519_dalek::{Signer, SigningKey};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// 64 digits and a line's end.
const FILE_BYTES_MAX: u64 = 66;

/// Whose the work is, and who signs for it.
pub(super) struct KeyPair(SigningKey);

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyPair({})", self.public())
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ContributeError {
    let path = path.to_owned();
    move |error| ContributeError::Key { action, path, error }
}

impl KeyPair {
    /// Reads the key, or makes one where there is no file. Blocks.
    ///
    /// # Errors
    /// [`ContributeError`] of the key.
    pub(super) fn open(path: &Path) -> Result<Self, ContributeError> {
        if !path.exists() {
            create(path)?;
        }
        let metadata = std::fs::metadata(path).map_err(failed("look at", path))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(ContributeError::KeyMode { path: path.to_owned(), mode });
        }
        let unreadable = || ContributeError::KeyUnreadable { path: path.to_owned() };
        if metadata.len() > FILE_BYTES_MAX {
            return Err(unreadable());
        }
        let text = std::fs::read_to_string(path).map_err(failed("read", path))?;
        let secret = parse_hex(text.trim_end()).ok_or_else(unreadable)?;
        Ok(KeyPair(SigningKey::from_bytes(&secret)))
    }

    /// The public half, as it is written on the wire.
    pub(super) fn public(&self) -> String {
        hex(self.0.verifying_key().as_bytes())
    }

    /// The signature of a text, in hex.
    pub(super) fn sign(&self, text: &str) -> String {
        hex(&self.0.sign(text.as_bytes()).to_bytes())
    }
}

/// Writes a new key. Of two that do so at once one wins, and both read that one.
fn create(path: &Path) -> Result<(), ContributeError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder).map_err(failed("create", folder))?;
    }
    // A file that is there has its whole key, so it is written under another name first.
    let partial = path.with_extension(format!("{:016x}.part", random::nonzero_u64()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .map_err(failed("create", &partial))?;
    let text = format!("{}\n", hex(&random::bytes::<32>()));
    file.write_all(text.as_bytes()).map_err(failed("write", &partial))?;
    file.sync_all().map_err(failed("write", &partial))?;
    let linked = std::fs::hard_link(&partial, path);
    std::fs::remove_file(&partial).map_err(failed("remove", &partial))?;
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked.map_err(failed("create", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/contributor.key");
        let key = KeyPair::open(&path).expect("made");
        assert_eq!(KeyPair::open(&path).expect("kept").public(), key.public());
        let mode = std::fs::metadata(&path).expect("there").permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600);
        let beside = std::fs::read_dir(path.parent().expect("a folder")).expect("read").count();
        assert_eq!(beside, 1, "nothing is left beside it");
    }

    #[test]
    fn keys_that_others_may_read_or_that_are_none_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("contributor.key");
        KeyPair::open(&path).expect("made");
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&path, open).expect("set");
        let error = KeyPair::open(&path).expect_err("open to all");
        assert!(matches!(error, ContributeError::KeyMode { mode: 0o644, .. }), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        for bad in ["", "zz", &"0".repeat(63), &"0".repeat(1000)] {
            std::fs::write(&path, bad).expect("written");
            let error = KeyPair::open(&path).expect_err(bad);
            assert!(matches!(error, ContributeError::KeyUnreadable { .. }), "{error}");
        }
    }
}
