//! `.npz`: a zip archive of `.npy` files.

use super::rows::Array;
use super::unpack::{read_error, spool};
use super::{DatasetError, UploadLimits, npy};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;
use zip::result::ZipError;

/// An archive whose directory has been read.
pub struct Npz {
    part: &'static str,
    archive: ZipArchive<BufReader<File>>,
}

impl Npz {
    /// Reads the archive's directory.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`].
    pub fn open(part: &'static str, file: BufReader<File>) -> Result<Self, DatasetError> {
        let archive = ZipArchive::new(file).map_err(|error| DatasetError::Malformed {
            part,
            field: "archive",
            reason: error.to_string(),
        })?;
        Ok(Npz { part, archive })
    }

    /// The array of that name, unpacked to a nameless file in `folder`;
    /// `None` where the archive has none.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub fn array(
        &mut self,
        name: &'static str,
        folder: &Path,
        limits: &UploadLimits,
    ) -> Result<Option<Array>, DatasetError> {
        let mut entry = match self.archive.by_name(&format!("{name}.npy")) {
            Ok(entry) => entry,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(error) => {
                let reason = error.to_string();
                return Err(DatasetError::Malformed { part: self.part, field: name, reason });
            }
        };
        // The declared size is not believed; what is unpacked is counted.
        let file = spool(&mut entry as &mut dyn Read, folder, limits.unpacked_bytes_max)
            .map_err(read_error(name))?;
        npy::open(name, Box::new(BufReader::new(file)), limits).map(Some)
    }
}
