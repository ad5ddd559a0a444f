//! Content-addressed blobs in a folder: `ab/abcdef….blob`, each file one frame.
//!
//! A blob is written to a temporary file, synced, renamed, and its folder
//! synced, so that a name never stands for half a file. Readers hash what they
//! read: a file that rots on disk is an error, never a wrong model.
//!
//! What nothing refers to is swept away while the coordinator serves. A blob is
//! written before the record that refers to it, so writers take a [`Hold`] until
//! that record is durable, and a sweep leaves alone whatever was put since the
//! oldest hold that was open when it began.

use crate::health::Trouble;
use axum::body::Bytes;
use raven_protocol::frame::{TensorPart, encode};
use raven_protocol::{BlobId, Frame, FrameError, FrameLimits, ToContributor, blob_id};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a blob cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("blob {id}: not stored here")]
    Missing { id: BlobId },
    #[error("blob {id}: the file is not a frame: {error}")]
    NotAFrame { id: BlobId, error: FrameError },
    #[error("blob {id}: the file's content is that of {found}")]
    Corrupt { id: BlobId, found: BlobId },
    #[error("blobs: {bytes} bytes of tensors exceed the limit of {limit} for one frame")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("blobs: {action} {}: {error}", path.display())]
    Io { action: &'static str, path: PathBuf, error: io::Error },
}

impl BlobError {
    /// Whether the disk is at fault, in a way that may pass.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            BlobError::Io { error, .. } => Trouble::of_io(error),
            _ => None,
        }
    }

    /// Whether the blob was here and is not any more, or not as it was.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            BlobError::Missing { .. } | BlobError::NotAFrame { .. } | BlobError::Corrupt { .. }
        )
    }
}

/// Damaged blobs that are remembered; beyond them the log has to do.
const DAMAGED_MAX: usize = 1000;

/// A folder of blobs. Clones share it.
#[derive(Clone, Debug)]
pub struct Blobs {
    root: Arc<PathBuf>,
    next_temporary: Arc<AtomicU64>,
    /// Bytes of all blobs.
    used: Arc<AtomicU64>,
    recent: Arc<Mutex<Recent>>,
    damaged: Arc<Mutex<BTreeSet<BlobId>>>,
}

/// Blobs that were put a short while ago, by a clock that counts events.
#[derive(Debug, Default)]
struct Recent {
    clock: u64,
    put: HashMap<BlobId, u64>,
    /// When each open hold began.
    holds: BTreeSet<u64>,
}

impl Recent {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// While it is held, no sweep takes what is put.
#[derive(Debug)]
pub struct Hold {
    began: u64,
    recent: Arc<Mutex<Recent>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        lock(&self.recent).holds.remove(&self.began);
    }
}

/// A sweep: what was put since its cutoff stays.
#[derive(Debug)]
pub struct Sweep {
    cutoff: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics half-way through a change of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const LIMITS: FrameLimits = FrameLimits::TO_CONTRIBUTOR;

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |error| BlobError::Io { action, path, error }
}

/// The content id of a frame's tensors.
fn content_id(frame: &Frame<'_>) -> BlobId {
    blob_id(frame.tensors())
}

impl Blobs {
    /// Opens the folder, making it where it is missing. Temporary files of an
    /// earlier process are removed.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        let temporary = root.join("tmp");
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(io_error("remove", &temporary))?;
        }
        fs::create_dir_all(&temporary).map_err(io_error("create", &temporary))?;
        let blobs = Blobs {
            root: Arc::new(root.to_owned()),
            next_temporary: Arc::default(),
            used: Arc::default(),
            recent: Arc::default(),
            damaged: Arc::default(),
        };
        let sizes = blobs.list()?.into_iter().map(|id| blobs.size(id)).sum();
        blobs.used.store(sizes, Ordering::Relaxed);
        Ok(blobs)
    }

    /// Bytes of all blobs.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that the disk below has left for this user.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn disk_free(&self) -> Result<u64, BlobError> {
        let found = rustix::fs::statvfs(self.root.as_path());
        let found = found.map_err(|error| io_error("look at", &self.root)(error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Keeps what is put from now on from being swept away until the hold is
    /// dropped, which comes after the record that refers to it is durable.
    #[must_use]
    pub fn hold(&self) -> Hold {
        let mut recent = lock(&self.recent);
        let began = recent.tick();
        recent.holds.insert(began);
        drop(recent);
        Hold { began, recent: self.recent.clone() }
    }

    /// Begins a sweep. References are read after this, and before any removal.
    pub fn begin_sweep(&self) -> Sweep {
        let mut recent = lock(&self.recent);
        let now = recent.tick();
        Sweep { cutoff: recent.holds.first().copied().unwrap_or(now) }
    }

    /// Removes a blob to which nothing refers, unless it was put since the
    /// sweep's cutoff; whether it was removed. Blocks.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn sweep_away(&self, sweep: &Sweep, id: BlobId) -> Result<bool, BlobError> {
        // Held over the removal: whoever puts it again waits, and then finds it gone.
        let recent = lock(&self.recent);
        if recent.put.get(&id).is_some_and(|&at| at >= sweep.cutoff) {
            return Ok(false);
        }
        self.remove(id)?;
        drop(recent);
        Ok(true)
    }

    /// Forgets what no later sweep needs to know.
    pub fn end_sweep(&self, sweep: &Sweep) {
        lock(&self.recent).put.retain(|_, at| *at >= sweep.cutoff);
    }

    /// Blobs that were found damaged or missing, and have not been put again.
    pub fn damaged(&self) -> Vec<BlobId> {
        lock(&self.damaged).iter().copied().collect()
    }

    /// Notes that a blob is not here as it should be.
    pub fn note_damage(&self, id: BlobId) {
        let mut damaged = lock(&self.damaged);
        if damaged.len() < DAMAGED_MAX && damaged.insert(id) {
            tracing::error!(blob = %id, "a blob is damaged or missing");
        }
    }

    /// Bytes of a blob's file; 0 where there is none.
    fn size(&self, id: BlobId) -> u64 {
        fs::metadata(self.path(id)).map_or(0, |metadata| metadata.len())
    }

    fn path(&self, id: BlobId) -> PathBuf {
        path_in(&self.root, id)
    }

    /// A blob of a folder that another process may use, checked. Blocks.
    ///
    /// # Errors
    /// As [`Blobs::get`].
    pub fn look(root: &Path, id: BlobId) -> Result<Bytes, BlobError> {
        read_checked(&path_in(root, id), id)
    }

    /// Stores a frame whose tensors have the id `id`. Durable on return; a blob
    /// that is there already is left as it is, unless it is damaged. Blocks.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn put(&self, id: BlobId, frame: &[u8]) -> Result<(), BlobError> {
        let mut recent = lock(&self.recent);
        let now = recent.tick();
        recent.put.insert(id, now);
        drop(recent);
        let path = self.path(id);
        let folder = path.parent().unwrap_or(&self.root);
        let replaced = self.size(id);
        // Read, so that what has rotted unnoticed is written anew.
        if read_checked(&path, id).is_ok() {
            // Another thread may have renamed it a moment ago and not yet synced its folder.
            return sync_folder(folder);
        }
        let is_new_folder = !folder.exists();
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.root.join("tmp").join(format!("{number}.part"));
        write_synced(&temporary, frame).inspect_err(|_| {
            // What is left is removed at the next start in any case.
            let _ = fs::remove_file(&temporary);
        })?;
        fs::rename(&temporary, &path).map_err(io_error("rename", &path))?;
        self.used.fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.used.fetch_sub(replaced, Ordering::Relaxed);
        lock(&self.damaged).remove(&id);
        sync_folder(folder)?;
        if is_new_folder {
            sync_folder(&self.root)?;
        }
        Ok(())
    }

    /// Writes tensors as one blob frame and answers its id and the frame's bytes. Blocks.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] where they do not fit one frame; [`BlobError::Io`].
    pub fn put_tensors(&self, tensors: &[TensorPart<'_>]) -> Result<(BlobId, u64), BlobError> {
        let bytes: u64 = tensors.iter().map(|part| part.data.len() as u64 + 16).sum();
        let limit = u64::from(LIMITS.body_bytes_max);
        if bytes > limit {
            return Err(BlobError::TooLarge { bytes, limit });
        }
        let (id, frame) = blob_frame(tensors);
        self.put(id, &frame)?;
        Ok((id, frame.len() as u64))
    }

    /// The whole frame, checked against its id. Blocks.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::NotAFrame`], [`BlobError::Corrupt`], [`BlobError::Io`].
    pub fn get(&self, id: BlobId) -> Result<Bytes, BlobError> {
        let read = read_checked(&self.path(id), id);
        if let Err(BlobError::NotAFrame { .. } | BlobError::Corrupt { .. }) = &read {
            self.note_damage(id);
        }
        read
    }

    /// The ids of all blobs, by the names of their files. Other files are left out. Blocks.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn list(&self) -> Result<Vec<BlobId>, BlobError> {
        let mut ids = Vec::new();
        for folder in fs::read_dir(&*self.root).map_err(io_error("list", &self.root))? {
            let folder = folder.map_err(io_error("list", &self.root))?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(&folder).map_err(io_error("list", &folder))? {
                let file = file.map_err(io_error("list", &folder))?.path();
                if file.extension().is_some_and(|extension| extension == "blob") {
                    let name = file.file_stem().and_then(|name| name.to_str());
                    ids.extend(name.and_then(|name| name.parse::<BlobId>().ok()));
                }
            }
        }
        Ok(ids)
    }

    /// Whether a file of this name is there.
    pub fn contains(&self, id: BlobId) -> bool {
        self.path(id).exists()
    }

    /// Removes a blob; one that is not there is removed already. Blocks.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn remove(&self, id: BlobId) -> Result<(), BlobError> {
        let path = self.path(id);
        let bytes = self.size(id);
        match fs::remove_file(&path) {
            Ok(()) => {
                self.used.fetch_sub(bytes, Ordering::Relaxed);
                lock(&self.damaged).remove(&id);
                Ok(())
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

fn path_in(root: &Path, id: BlobId) -> PathBuf {
    let name = id.to_string();
    root.join(&name[..2]).join(format!("{name}.blob"))
}

fn read_checked(path: &Path, id: BlobId) -> Result<Bytes, BlobError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BlobError::Missing { id });
        }
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let frame =
        Frame::decode(&bytes, &LIMITS).map_err(|error| BlobError::NotAFrame { id, error })?;
    let found = content_id(&frame);
    if found != id {
        return Err(BlobError::Corrupt { id, found });
    }
    drop(frame);
    Ok(Bytes::from(bytes))
}

/// The id of the tensors and their frame.
pub fn blob_frame(tensors: &[TensorPart<'_>]) -> (BlobId, Vec<u8>) {
    let id = blob_id(tensors.iter().map(|part| raven_protocol::TensorView {
        name: &part.name,
        dtype: part.ty.dtype,
        shape: &part.ty.shape,
        data: part.data,
    }));
    (id, encode(&ToContributor::Blob { id }, tensors))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), BlobError> {
    let mut file = File::create(path).map_err(io_error("create", path))?;
    file.write_all(bytes).map_err(io_error("write", path))?;
    file.sync_all().map_err(io_error("sync", path))
}

fn sync_folder(path: &Path) -> Result<(), BlobError> {
    let folder = File::open(path).map_err(io_error("open", path))?;
    folder.sync_all().map_err(io_error("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_graph::{DType, TensorType};

    fn part(data: &[u8]) -> TensorPart<'_> {
        let ty = TensorType::new(DType::U8, [data.len() as u32]);
        TensorPart { name: "x".into(), ty, data }
    }

    #[test]
    fn a_blob_survives_a_new_process_and_is_written_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("opens");
        let (id, bytes) = blobs.put_tensors(&[part(&[1, 2, 3])]).expect("stored");
        assert_eq!(blobs.put_tensors(&[part(&[1, 2, 3])]).expect("again"), (id, bytes));
        let frame = Blobs::open(folder.path()).expect("opens").get(id).expect("read");
        assert_eq!(frame.len() as u64, bytes);
        let frame = Frame::decode(&frame, &LIMITS).expect("a frame");
        assert_eq!(frame.tensor("x").expect("x").data, [1, 2, 3]);
    }

    #[test]
    fn a_sweep_takes_what_nothing_refers_to_and_leaves_what_is_on_its_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("opens");
        let put = |byte| blobs.put_tensors(&[part(&[byte; 50])]).expect("stored").0;
        let (old, again) = (put(1), put(2));
        // An upload has begun: what it finds there counts as much as what it writes.
        let hold = blobs.hold();
        assert_eq!((put(2), put(3)), (again, put(3)));
        let fresh = put(3);
        let sweep = blobs.begin_sweep();
        // Its record was stored between the references were read and now.
        drop(hold);
        assert!(blobs.sweep_away(&sweep, old).expect("swept"));
        assert!(!blobs.sweep_away(&sweep, again).expect("left"));
        assert!(!blobs.sweep_away(&sweep, fresh).expect("left"));
        // Put after the sweep has begun, by whoever.
        let late = put(4);
        assert!(!blobs.sweep_away(&sweep, late).expect("left"));
        blobs.end_sweep(&sweep);
        let next = blobs.begin_sweep();
        for id in [again, fresh, late] {
            assert!(blobs.sweep_away(&next, id).expect("swept"));
        }
        blobs.end_sweep(&next);
        assert!(lock(&blobs.recent).put.is_empty());
        assert_eq!((blobs.used(), blobs.list().expect("listed")), (0, Vec::new()));
    }

    #[test]
    fn puts_and_sweeps_at_once_lose_nothing_that_is_held() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("opens");
        std::thread::scope(|scope| {
            let sweeper = scope.spawn(|| {
                for _ in 0..300 {
                    let sweep = blobs.begin_sweep();
                    for id in blobs.list().expect("listed") {
                        blobs.sweep_away(&sweep, id).expect("swept");
                    }
                    blobs.end_sweep(&sweep);
                }
            });
            let mut round = 0u32;
            while !sweeper.is_finished() {
                let _hold = blobs.hold();
                // The same few blobs over and over: often there, often just swept.
                let byte = (round % 3) as u8;
                let (id, _) = blobs.put_tensors(&[part(&[byte; 40])]).expect("stored");
                assert!(blobs.get(id).is_ok(), "round {round}");
                round += 1;
            }
            println!("{round} puts beside 300 sweeps");
        });
    }

    #[test]
    fn a_damaged_blob_is_known_until_it_is_put_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("opens");
        let (id, bytes) = blobs.put_tensors(&[part(&[7; 100])]).expect("stored");
        fs::write(blobs.path(id), b"rot").expect("written");
        assert!(blobs.get(id).is_err());
        assert_eq!(blobs.damaged(), [id]);
        blobs.put_tensors(&[part(&[7; 100])]).expect("stored again");
        assert!(blobs.get(id).is_ok() && blobs.damaged().is_empty());
        assert_eq!(Blobs::open(folder.path()).expect("opens").used(), bytes);
    }

    #[test]
    fn a_changed_byte_and_a_short_file_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("opens");
        let (id, _) = blobs.put_tensors(&[part(&[7; 100])]).expect("stored");
        let mut bytes = fs::read(blobs.path(id)).expect("the file");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(blobs.path(id), &bytes).expect("written");
        assert!(matches!(blobs.get(id), Err(BlobError::Corrupt { .. })));
        fs::write(blobs.path(id), &bytes[..last]).expect("written");
        assert!(matches!(blobs.get(id), Err(BlobError::NotAFrame { .. })));
        blobs.remove(id).expect("removed");
        blobs.remove(id).expect("removed already");
        assert!(matches!(blobs.get(id), Err(BlobError::Missing { .. })));
    }
}
