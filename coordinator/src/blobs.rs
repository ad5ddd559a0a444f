//! Content-addressed blobs in a folder: `ab/abcdef….blob`, each file one frame.
//!
//! A blob is written to a temporary file, synced, renamed, and its folder
//! synced, so that a name never stands for half a file. Readers hash what they
//! read: a file that rots on disk is an error, never a wrong model.

use axum::body::Bytes;
use raven_protocol::frame::{TensorPart, encode};
use raven_protocol::{BlobId, Frame, FrameError, FrameLimits, ToContributor, blob_id};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// A folder of blobs. Clones share it.
#[derive(Clone, Debug)]
pub struct Blobs {
    root: Arc<PathBuf>,
    next_temporary: Arc<AtomicU64>,
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
        Ok(Blobs { root: Arc::new(root.to_owned()), next_temporary: Arc::default() })
    }

    fn path(&self, id: BlobId) -> PathBuf {
        let name = id.to_string();
        self.root.join(&name[..2]).join(format!("{name}.blob"))
    }

    /// Stores a frame whose tensors have the id `id`. Durable on return; a blob
    /// that is there already is left as it is. Blocks.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn put(&self, id: BlobId, frame: &[u8]) -> Result<(), BlobError> {
        let path = self.path(id);
        let folder = path.parent().unwrap_or(&self.root);
        if path.exists() {
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
        let path = self.path(id);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing { id });
            }
            Err(error) => return Err(io_error("read", &path)(error)),
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
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
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
