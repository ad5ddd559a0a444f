//! Keys that this coordinator signs its own tickets with: one file each, for its
//! owner's eyes only, named so that the newest comes last. A new one may be
//! made at any time; tickets of the older ones are honoured until they expire.

use crate::random;
use crate::time::UnixMs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Far more than an operator makes within the life of a ticket.
const KEYS_MAX: usize = 64;
const SECRET_BYTES: usize = 32;
/// 40 random bits: an id only tells keys of one folder apart.
const ID_BYTES: usize = 5;

/// Why signing keys cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("signing keys: {action} {}: {error}", path.display())]
    Io { action: &'static str, path: PathBuf, error: io::Error },
    #[error("signing keys: {} has mode {mode:04o}; others may read it, 0600 is needed", path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("signing keys: {} is not a key file: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: &'static str },
    #[error("signing keys: {} has {found}, the limit is {KEYS_MAX}", path.display())]
    TooMany { path: PathBuf, found: usize },
}

/// One key.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Stands in what is signed with it.
    pub id: String,
    secret: [u8; SECRET_BYTES],
    created: UnixMs,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl SigningKey {
    /// A keyed hash, in hex.
    pub fn mac(&self, body: &str) -> String {
        blake3::keyed_hash(&self.secret, body.as_bytes()).to_hex().to_string()
    }
}

/// The keys of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeys {
    /// Oldest first.
    older: Vec<SigningKey>,
    newest: SigningKey,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SigningError {
    let path = path.to_owned();
    move |error| SigningError::Io { action, path, error }
}

impl SigningKeys {
    /// Reads the folder's keys; makes folder and first key where they are missing.
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn open(folder: &Path) -> Result<Self, SigningError> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder).map_err(failed("create", folder))?;
        let mut older = read(folder)?;
        let newest = match older.pop() {
            Some(newest) => newest,
            None => create(folder, UnixMs::now())?,
        };
        Ok(SigningKeys { older, newest })
    }

    /// Makes a new key, which signs from now on, and removes those whose
    /// successor is older than `life_ms`: nothing that they signed is still good.
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn rotate(folder: &Path, now: UnixMs, life_ms: i64) -> Result<SigningKey, SigningError> {
        let SigningKeys { mut older, newest } = Self::open(folder)?;
        older.push(newest);
        let made = create(folder, now)?;
        for pair in older.windows(2) {
            let [old, next] = pair else { continue };
            if next.created.0 + life_ms < now.0 {
                let path = folder.join(file_name(old));
                std::fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(made)
    }

    /// The one to sign with.
    pub fn newest(&self) -> &SigningKey {
        &self.newest
    }

    /// The key of that id.
    pub fn find(&self, id: &str) -> Option<&SigningKey> {
        self.older.iter().chain([&self.newest]).find(|key| key.id == id)
    }
}

/// `tickets.00001795336200125.abcdefgh.key`: sorted by name is sorted by time.
fn file_name(key: &SigningKey) -> String {
    format!("tickets.{:017}.{}.key", key.created.0, key.id)
}

fn create(folder: &Path, now: UnixMs) -> Result<SigningKey, SigningError> {
    let id = random::base32(&random::bytes::<ID_BYTES>());
    let key = SigningKey { id, secret: random::bytes(), created: now };
    let path = folder.join(file_name(&key));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("create", &path))?;
    let text = crate::runtime::session::hex(&key.secret) + "\n";
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &path))?;
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("sync", folder))?;
    Ok(key)
}

fn read(folder: &Path) -> Result<Vec<SigningKey>, SigningError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed("list", folder))? {
        let path = entry.map_err(failed("list", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "key") {
            paths.push(path);
        }
    }
    if paths.len() > KEYS_MAX {
        return Err(SigningError::TooMany { path: folder.to_owned(), found: paths.len() });
    }
    paths.sort();
    paths.iter().map(|path| read_key(path)).collect()
}

fn read_key(path: &Path) -> Result<SigningKey, SigningError> {
    let unreadable = |reason| SigningError::Unreadable { path: path.to_owned(), reason };
    let metadata = std::fs::metadata(path).map_err(failed("look at", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SigningError::Mode { path: path.to_owned(), mode });
    }
    if metadata.len() > 1024 {
        return Err(unreadable("it is far too long"));
    }
    let name = path.file_name().and_then(|name| name.to_str());
    let parts: Vec<&str> = name.unwrap_or_default().split('.').collect();
    let ["tickets", created, id, "key"] = parts[..] else {
        return Err(unreadable("its name is tickets.TIME.ID.key"));
    };
    let created = created.parse().map_err(|_| unreadable("its name has no time"))?;
    let text = std::fs::read_to_string(path).map_err(failed("read", path))?;
    let secret = crate::runtime::session::parse_hex(text.trim_end())
        .ok_or_else(|| unreadable("64 lower-case hex digits are expected"))?;
    Ok(SigningKey { id: id.to_owned(), secret, created: UnixMs(created) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_signs_and_the_older_are_kept_for_a_life() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("signing");
        let keys = SigningKeys::open(&path).expect("made");
        let first = keys.newest().clone();
        assert_eq!(SigningKeys::open(&path).expect("read"), keys);
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(file_name(&first))), 0o600);
        let at = |ms| UnixMs(first.created.0 + ms);
        let second = SigningKeys::rotate(&path, at(1000), 5000).expect("rotated");
        let keys = SigningKeys::open(&path).expect("read");
        assert_eq!((keys.newest(), keys.find(&first.id)), (&second, Some(&first)));
        // The second came within a life, so what the first signed may still be good.
        let third = SigningKeys::rotate(&path, at(6000), 5000).expect("rotated");
        assert!(SigningKeys::open(&path).expect("read").find(&first.id).is_some());
        let fourth = SigningKeys::rotate(&path, at(6001), 5000).expect("rotated");
        let keys = SigningKeys::open(&path).expect("read");
        assert_eq!(keys.find(&first.id), None);
        assert_eq!((keys.older, keys.newest), (vec![second, third], fourth));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = SigningKeys::open(folder.path()).expect("made");
        let path = folder.path().join(file_name(keys.newest()));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("changed");
        let error = SigningKeys::open(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("0640"), "{error}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("changed");
        std::fs::write(&path, "abc").expect("written");
        let error = SigningKeys::open(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("hex"), "{error}");
    }
}
