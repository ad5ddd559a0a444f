//! safetensors: a length, a JSON header, raw little-endian tensors.

use super::element::{Element, Kind};
use super::rows::Array;
use super::unpack::Section;
use super::{DatasetError, UploadLimits};
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A data set has four tensors; a long header is not one.
const HEADER_BYTES_MAX: u64 = 1 << 20;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// A file whose header has been read.
pub struct Safetensors {
    part: &'static str,
    file: Arc<File>,
    entries: HashMap<String, serde_json::Value>,
    data_start: u64,
    data_bytes: u64,
}

impl Safetensors {
    /// Reads the header.
    ///
    /// # Errors
    /// [`DatasetError`] with the field.
    pub fn open(part: &'static str, file: File) -> Result<Self, DatasetError> {
        let malformed = |field, reason: String| DatasetError::Malformed { part, field, reason };
        let file_bytes = file.metadata()?.len();
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0)
            .map_err(|_| malformed("header", "the file ends inside of it".into()))?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > HEADER_BYTES_MAX {
            let (limit, found) = (HEADER_BYTES_MAX, header_bytes);
            return Err(DatasetError::Limit { part, field: "header_bytes", limit, found });
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact_at(&mut header, 8)
            .map_err(|_| malformed("header", "the file ends inside of it".into()))?;
        let entries = serde_json::from_slice(&header)
            .map_err(|error| malformed("header", error.to_string()))?;
        let data_start = 8 + header_bytes;
        let data_bytes = file_bytes - data_start;
        Ok(Safetensors { part, file: Arc::new(file), entries, data_start, data_bytes })
    }

    /// The tensor of that name; `None` where there is none.
    ///
    /// # Errors
    /// [`DatasetError`] with the field.
    pub fn array(
        &self,
        name: &'static str,
        limits: &UploadLimits,
    ) -> Result<Option<Array>, DatasetError> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let malformed =
            |reason: String| DatasetError::Malformed { part: self.part, field: name, reason };
        let entry = Entry::deserialize(entry).map_err(|error| malformed(error.to_string()))?;
        let kind = match entry.dtype.as_str() {
            "BOOL" => Kind::Bool,
            "U8" => Kind::U8,
            "I8" => Kind::I8,
            "U16" => Kind::U16,
            "I16" => Kind::I16,
            "U32" => Kind::U32,
            "I32" => Kind::I32,
            "U64" => Kind::U64,
            "I64" => Kind::I64,
            "F32" => Kind::F32,
            "F64" => Kind::F64,
            found => {
                let (part, found) = (name, format!("{found:?}"));
                return Err(DatasetError::ElementType { part, found, hint: "" });
            }
        };
        let [start, end] = entry.data_offsets;
        if start > end || end > self.data_bytes {
            let bytes = self.data_bytes;
            return Err(malformed(format!("data_offsets {start}..{end} leave {bytes} bytes")));
        }
        let (start, end) = (self.data_start + start, self.data_start + end);
        let source = Section::new(self.file.clone(), start, end);
        let element = Element { kind, big_endian: false };
        let source = Box::new(io::BufReader::new(source));
        Array::new(name, element, entry.shape, source, limits).map(Some)
    }
}
