//! `.npz`: a zip archive of `.npy` files, as NumPy writes it.

use super::rows::Array;
use super::zip::{Zip, ZipEntry, ZipLimits};
use super::{DatasetError, UploadLimits, npy};
use std::fs::File;

/// A data set has four arrays; an archive of many more is not one.
const LIMITS: ZipLimits = ZipLimits { entries_max: 1000, directory_bytes_max: 1 << 20 };

/// An archive whose directory has been read.
pub struct Npz {
    part: &'static str,
    archive: Zip,
    entries: Vec<ZipEntry>,
}

impl Npz {
    /// Reads the archive's directory.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`], [`DatasetError::Limit`].
    pub fn open(part: &'static str, file: File) -> Result<Self, DatasetError> {
        let archive = Zip::open(part, file, LIMITS)?;
        let entries = archive.entries()?;
        Ok(Npz { part, archive, entries })
    }

    /// The array of that name; `None` where the archive has none.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub fn array(
        &self,
        name: &'static str,
        limits: &UploadLimits,
    ) -> Result<Option<Array>, DatasetError> {
        let wanted = format!("{name}.npy");
        let mut entries = self.entries.iter();
        let entry = entries.find(|entry| self.archive.name(entry) == wanted.as_bytes());
        let Some(entry) = entry else { return Ok(None) };
        let source = self.archive.read(entry, limits.unpacked_bytes_max);
        let source = source.map_err(|reason| DatasetError::Malformed {
            part: self.part,
            field: name,
            reason,
        })?;
        npy::open(name, source, limits).map(Some)
    }
}
