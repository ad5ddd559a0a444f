//! `.npz`: a zip archive of `.npy` files.
//!
//! Only what NumPy writes is read: stored and deflated entries of an archive
//! without zip64 directory, encryption or parts. The directory is bounded before
//! it is read, and an entry is unpacked while it is converted.
//! (APPNOTE.TXT of PKWARE describes the format.)

use super::rows::Array;
use super::unpack::{Section, bounded};
use super::{DatasetError, UploadLimits, npy};
use flate2::Crc;
use flate2::read::DeflateDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A data set has four arrays; an archive of many more is not one.
const ENTRIES_MAX: u64 = 1000;
const DIRECTORY_BYTES_MAX: u64 = 1 << 20;
/// The record at the end, without its comment.
const END_BYTES: usize = 22;
const COMMENT_BYTES_MAX: usize = 0xffff;
const END_MAGIC: [u8; 4] = *b"PK\x05\x06";
const ENTRY_MAGIC: [u8; 4] = *b"PK\x01\x02";
const LOCAL_MAGIC: [u8; 4] = *b"PK\x03\x04";
const ENTRY_BYTES: usize = 46;
const LOCAL_BYTES: u64 = 30;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// An archive whose directory has been read.
pub struct Npz {
    part: &'static str,
    file: Arc<File>,
    file_bytes: u64,
    directory: Vec<u8>,
}

/// What the directory says of a file.
struct Entry {
    method: u16,
    crc: u32,
    packed_bytes: u64,
    local_offset: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Npz {
    /// Reads the archive's directory.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`], [`DatasetError::Limit`].
    pub fn open(part: &'static str, file: File) -> Result<Self, DatasetError> {
        let malformed = |reason: &str| DatasetError::Malformed {
            part,
            field: "archive",
            reason: reason.into(),
        };
        let file_bytes = file.metadata()?.len();
        let tail_bytes = file_bytes.min((END_BYTES + COMMENT_BYTES_MAX) as u64);
        let mut tail = vec![0; tail_bytes as usize];
        file.read_exact_at(&mut tail, file_bytes - tail_bytes)?;
        // The record whose comment reaches exactly to the end of the file.
        let is_end = |at: &usize| {
            tail[*at..*at + 4] == END_MAGIC
                && at + END_BYTES + usize::from(u16_at(&tail, at + 20)) == tail.len()
        };
        let last = (tail.len() + 1).saturating_sub(END_BYTES);
        let end = (0..last).rev().find(is_end);
        let end = &tail[end.ok_or_else(|| malformed("not a zip archive"))?..];
        let entries = u64::from(u16_at(end, 10));
        let (bytes, offset) = (u64::from(u32_at(end, 12)), u64::from(u32_at(end, 16)));
        for (field, limit, found) in
            [("entries", ENTRIES_MAX, entries), ("directory_bytes", DIRECTORY_BYTES_MAX, bytes)]
        {
            if found > limit {
                return Err(DatasetError::Limit { part, field, limit, found });
            }
        }
        if offset + bytes > file_bytes {
            return Err(malformed("the directory leaves the file"));
        }
        let mut directory = vec![0; bytes as usize];
        file.read_exact_at(&mut directory, offset)?;
        Ok(Npz { part, file: Arc::new(file), file_bytes, directory })
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
        let Some(entry) = self.find(name)? else { return Ok(None) };
        let mut local = [0; LOCAL_BYTES as usize];
        let is_local = self.file.read_exact_at(&mut local, entry.local_offset).is_ok()
            && local[..4] == LOCAL_MAGIC;
        let names = u64::from(u16_at(&local, 26)) + u64::from(u16_at(&local, 28));
        let start = entry.local_offset + LOCAL_BYTES + names;
        let end = start + entry.packed_bytes;
        if !is_local || end > self.file_bytes {
            return Err(self.malformed(name, "its bytes are not where the directory says"));
        }
        let packed = BufReader::new(Section::new(self.file.clone(), start, end));
        let plain: Box<dyn Read + Send> = match entry.method {
            STORED => Box::new(packed),
            DEFLATED => Box::new(DeflateDecoder::new(packed)),
            method => {
                let reason = format!("compression method {method} is not taken");
                return Err(self.malformed(name, &reason));
            }
        };
        let plain = bounded(plain, limits.unpacked_bytes_max);
        let checked = Checked { source: plain, sum: Crc::new(), expected: entry.crc };
        npy::open(name, Box::new(checked), limits).map(Some)
    }

    fn malformed(&self, field: &'static str, reason: &str) -> DatasetError {
        DatasetError::Malformed { part: self.part, field, reason: reason.into() }
    }

    fn find(&self, name: &'static str) -> Result<Option<Entry>, DatasetError> {
        let wanted = format!("{name}.npy");
        let mut rest = self.directory.as_slice();
        while !rest.is_empty() {
            if rest.len() < ENTRY_BYTES || rest[..4] != ENTRY_MAGIC {
                return Err(self.malformed("archive", "the directory is damaged"));
            }
            let name_bytes = usize::from(u16_at(rest, 28));
            let after = usize::from(u16_at(rest, 30)) + usize::from(u16_at(rest, 32));
            let entry_bytes = ENTRY_BYTES + name_bytes + after;
            if rest.len() < entry_bytes {
                return Err(self.malformed("archive", "the directory is damaged"));
            }
            if &rest[ENTRY_BYTES..ENTRY_BYTES + name_bytes] == wanted.as_bytes() {
                return self.entry(name, rest).map(Some);
            }
            rest = &rest[entry_bytes..];
        }
        Ok(None)
    }

    fn entry(&self, name: &'static str, bytes: &[u8]) -> Result<Entry, DatasetError> {
        if u16_at(bytes, 8) & 1 != 0 {
            return Err(self.malformed(name, "it is encrypted"));
        }
        let (packed, offset) = (u32_at(bytes, 20), u32_at(bytes, 42));
        // These stand for numbers of the zip64 extension.
        if packed == u32::MAX || offset == u32::MAX {
            return Err(self.malformed(name, "entries of 4 GiB are not taken"));
        }
        Ok(Entry {
            method: u16_at(bytes, 10),
            crc: u32_at(bytes, 16),
            packed_bytes: packed.into(),
            local_offset: offset.into(),
        })
    }
}

/// Fails at the end of a file whose checksum is wrong.
struct Checked<R> {
    source: R,
    sum: Crc,
    expected: u32,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.sum.update(&buffer[..read]);
        if read == 0 && !buffer.is_empty() && self.sum.sum() != self.expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum is wrong"));
        }
        Ok(read)
    }
}
