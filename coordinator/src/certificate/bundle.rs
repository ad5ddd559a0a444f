//! A bundle: one tar archive with everything that checking a model needs.
//!
//! ```text
//! certificate.json
//! kernel.wasm              where this coordinator still has it
//! graphs/init.json  train.json  evaluate.json  optimizer.json
//! rounds/00000000.jsonl    256 rounds each, one a line
//! states/<id>.blob         published states
//! shards/<id>.blob         rows, training and held-out
//! ```

use super::chain::RoundLine;
use super::document::DOCUMENT_BYTES_MAX;
use super::tar::{Archive, TarError};
use crate::blobs::blob_frame;
use raven_protocol::limits::MICRO_BATCHES_MAX;
use raven_protocol::{BlobId, Frame, FrameLimits};
use std::fs::File;
use std::path::Path;

pub const CERTIFICATE: &str = "certificate.json";
pub const KERNEL: &str = "kernel.wasm";
/// Rounds of one file.
pub const ROUNDS_PER_FILE: u32 = 256;
/// Bytes of a kernel module, as of any file that is served from memory.
pub const KERNEL_BYTES_MAX: u64 = 64 << 20;
/// Of a line: its hashes, and a start of at most five digits for each task.
const LINE_BYTES_MAX: u64 = 1024 + 6 * MICRO_BATCHES_MAX as u64;

/// The file of a graph.
pub fn graph_file(name: &str) -> String {
    format!("graphs/{name}.json")
}

/// The file that begins behind so many rounds, a multiple of [`ROUNDS_PER_FILE`].
pub fn rounds_file(behind: u32) -> String {
    format!("rounds/{behind:08}.jsonl")
}

/// The file of a published state.
pub fn state_file(id: BlobId) -> String {
    format!("states/{id}.blob")
}

/// The file of a shard.
pub fn shard_file(id: BlobId) -> String {
    format!("shards/{id}.blob")
}

/// Why something of a bundle is not read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("the bundle: {0}")]
    Tar(#[from] TarError),
    #[error("{name}: it is not text")]
    NotText { name: String },
    #[error("{name}: line {line}: {reason}")]
    Line { name: String, line: usize, reason: String },
    #[error("{name}: not a frame: {reason}")]
    NotAFrame { name: String, reason: String },
    #[error("{name}: its content is that of {found}")]
    Content { name: String, found: BlobId },
}

/// An opened bundle.
#[derive(Debug)]
pub struct Bundle {
    archive: Archive,
}

impl Bundle {
    /// Opens a bundle; only its list of files is read. Blocks.
    ///
    /// # Errors
    /// [`BundleError::Tar`].
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let file = File::open(path).map_err(TarError::Io)?;
        Ok(Bundle { archive: Archive::open(file)? })
    }

    /// The certificate's text, unchecked.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn certificate(&self) -> Result<String, BundleError> {
        let bytes = self.archive.read(CERTIFICATE, DOCUMENT_BYTES_MAX)?;
        String::from_utf8(bytes).map_err(|_| BundleError::NotText { name: CERTIFICATE.into() })
    }

    /// The kernel module, where it is there.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn kernel(&self) -> Result<Option<Vec<u8>>, BundleError> {
        match self.archive.has(KERNEL) {
            true => Ok(Some(self.archive.read(KERNEL, KERNEL_BYTES_MAX)?)),
            false => Ok(None),
        }
    }

    /// The text of a graph, unchecked.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn graph(&self, name: &str) -> Result<Vec<u8>, BundleError> {
        let limit = u64::from(FrameLimits::TO_CONTRIBUTOR.header_bytes_max);
        Ok(self.archive.read(&graph_file(name), limit)?)
    }

    /// The rounds of one file, as they are listed.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn rounds(&self, behind: u32) -> Result<Vec<RoundLine>, BundleError> {
        let name = rounds_file(behind);
        let bytes = self.archive.read(&name, LINE_BYTES_MAX * u64::from(ROUNDS_PER_FILE))?;
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| BundleError::NotText { name: name.clone() })?;
        let mut lines = Vec::new();
        for (index, text) in text.lines().enumerate() {
            let refuse =
                |reason: String| BundleError::Line { name: name.clone(), line: index + 1, reason };
            if index >= ROUNDS_PER_FILE as usize {
                return Err(refuse("more lines than a file has".into()));
            }
            lines.push(serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?);
        }
        Ok(lines)
    }

    /// A published state's frame, checked against its id.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn state(&self, id: BlobId) -> Result<Vec<u8>, BundleError> {
        self.blob(state_file(id), id)
    }

    /// A shard's frame, checked against its id.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn shard(&self, id: BlobId) -> Result<Vec<u8>, BundleError> {
        self.blob(shard_file(id), id)
    }

    fn blob(&self, name: String, id: BlobId) -> Result<Vec<u8>, BundleError> {
        let bytes = self.archive.read(&name, FrameLimits::TO_CONTRIBUTOR.frame_bytes_max())?;
        let frame = match Frame::decode(&bytes, &FrameLimits::TO_CONTRIBUTOR) {
            Ok(frame) => frame,
            Err(error) => return Err(BundleError::NotAFrame { name, reason: error.to_string() }),
        };
        // Written anew, so that the frame's own header says nothing else than the id.
        let parts: Vec<_> = frame
            .tensors()
            .map(|view| raven_protocol::TensorPart {
                name: view.name.to_owned(),
                ty: view.ty(),
                data: view.data,
            })
            .collect();
        let (found, frame) = blob_frame(&parts);
        if found == id { Ok(frame) } else { Err(BundleError::Content { name, found }) }
    }
}
