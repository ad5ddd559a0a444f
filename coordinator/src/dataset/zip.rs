//! Zip archives, as far as data sets need them.
//!
//! Only stored and deflated entries are read, of an archive without encryption
//! or parts. The directory is bounded before it is read, and an entry is
//! unpacked while it is converted. (APPNOTE.TXT of PKWARE describes the format.)

use super::DatasetError;
use super::unpack::{Section, bounded};
use flate2::Crc;
use flate2::read::DeflateDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The record at the end, without its comment.
const END_BYTES: usize = 22;
const COMMENT_BYTES_MAX: usize = 0xffff;
const END_MAGIC: [u8; 4] = *b"PK\x05\x06";
/// Where the wide record at the end is, right before the plain one.
const LOCATOR_BYTES: u64 = 20;
const LOCATOR_MAGIC: [u8; 4] = *b"PK\x06\x07";
/// The wide record, for archives of more entries than 16 bits count.
const WIDE_END_BYTES: usize = 56;
const WIDE_END_MAGIC: [u8; 4] = *b"PK\x06\x06";
const ENTRY_MAGIC: [u8; 4] = *b"PK\x01\x02";
const LOCAL_MAGIC: [u8; 4] = *b"PK\x03\x04";
const ENTRY_BYTES: usize = 46;
const LOCAL_BYTES: u64 = 30;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Bounds of an archive's directory.
#[derive(Clone, Copy, Debug)]
pub struct ZipLimits {
    pub entries_max: u64,
    pub directory_bytes_max: u64,
}

/// An archive whose directory has been read.
pub struct Zip {
    part: &'static str,
    file: Arc<File>,
    file_bytes: u64,
    directory: Vec<u8>,
    entries_max: u64,
}

/// What the directory says of a file.
#[derive(Clone, Debug)]
pub struct ZipEntry {
    name: Range<usize>,
    encrypted: bool,
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

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Where the directory is and how many entries it has.
struct End {
    entries: u64,
    bytes: u64,
    offset: u64,
}

impl Zip {
    /// Reads the archive's directory.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`], [`DatasetError::Limit`].
    pub fn open(part: &'static str, file: File, limits: ZipLimits) -> Result<Self, DatasetError> {
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
        let at = (0..last).rev().find(is_end).ok_or_else(|| malformed("not a zip archive"))?;
        let plain = &tail[at..];
        let wide = wide_end(&file, file_bytes - tail_bytes + at as u64)?;
        let end = wide.unwrap_or_else(|| End {
            entries: u16_at(plain, 10).into(),
            bytes: u32_at(plain, 12).into(),
            offset: u32_at(plain, 16).into(),
        });
        for (field, limit, found) in [
            ("entries", limits.entries_max, end.entries),
            ("directory_bytes", limits.directory_bytes_max, end.bytes),
        ] {
            if found > limit {
                return Err(DatasetError::Limit { part, field, limit, found });
            }
        }
        if end.offset.saturating_add(end.bytes) > file_bytes {
            return Err(malformed("the directory leaves the file"));
        }
        let mut directory = vec![0; end.bytes as usize];
        file.read_exact_at(&mut directory, end.offset)?;
        let entries_max = limits.entries_max;
        Ok(Zip { part, file: Arc::new(file), file_bytes, directory, entries_max })
    }

    /// All entries, in the directory's order.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`], [`DatasetError::Limit`].
    pub fn entries(&self) -> Result<Vec<ZipEntry>, DatasetError> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < self.directory.len() {
            let rest = &self.directory[at..];
            let damaged = || DatasetError::Malformed {
                part: self.part,
                field: "archive",
                reason: "the directory is damaged".into(),
            };
            if rest.len() < ENTRY_BYTES || rest[..4] != ENTRY_MAGIC {
                return Err(damaged());
            }
            let name_bytes = usize::from(u16_at(rest, 28));
            let after = usize::from(u16_at(rest, 30)) + usize::from(u16_at(rest, 32));
            let entry_bytes = ENTRY_BYTES + name_bytes + after;
            if rest.len() < entry_bytes {
                return Err(damaged());
            }
            // The record at the end may have said less.
            let (limit, found) = (self.entries_max, entries.len() as u64 + 1);
            if found > limit {
                let (part, field) = (self.part, "entries");
                return Err(DatasetError::Limit { part, field, limit, found });
            }
            entries.push(ZipEntry {
                name: at + ENTRY_BYTES..at + ENTRY_BYTES + name_bytes,
                encrypted: u16_at(rest, 8) & 1 != 0,
                method: u16_at(rest, 10),
                crc: u32_at(rest, 16),
                packed_bytes: u32_at(rest, 20).into(),
                local_offset: u32_at(rest, 42).into(),
            });
            at += entry_bytes;
        }
        Ok(entries)
    }

    /// The path of an entry within the archive.
    pub fn name(&self, entry: &ZipEntry) -> &[u8] {
        &self.directory[entry.name.clone()]
    }

    /// The bytes of an entry; reading fails past `bytes_max` unpacked ones and
    /// where the checksum is wrong.
    ///
    /// # Errors
    /// The reason why the entry cannot be read.
    pub fn read(&self, entry: &ZipEntry, bytes_max: u64) -> Result<Box<dyn Read + Send>, String> {
        if entry.encrypted {
            return Err("it is encrypted".into());
        }
        // These stand for numbers of the zip64 extension.
        let wide = u64::from(u32::MAX);
        if entry.packed_bytes == wide || entry.local_offset == wide {
            return Err("entries of 4 GiB are not taken".into());
        }
        let mut local = [0; LOCAL_BYTES as usize];
        let is_local = self.file.read_exact_at(&mut local, entry.local_offset).is_ok()
            && local[..4] == LOCAL_MAGIC;
        let names = u64::from(u16_at(&local, 26)) + u64::from(u16_at(&local, 28));
        let start = entry.local_offset + LOCAL_BYTES + names;
        let end = start + entry.packed_bytes;
        if !is_local || end > self.file_bytes {
            return Err("its bytes are not where the directory says".into());
        }
        let packed = BufReader::new(Section::new(self.file.clone(), start, end));
        let plain: Box<dyn Read + Send> = match entry.method {
            STORED => Box::new(packed),
            DEFLATED => Box::new(DeflateDecoder::new(packed)),
            method => return Err(format!("compression method {method} is not taken")),
        };
        let source = bounded(plain, bytes_max);
        Ok(Box::new(Checked { source, sum: Crc::new(), expected: entry.crc }))
    }
}

/// The wide record before the plain one at `end`, where there is one.
fn wide_end(file: &File, end: u64) -> io::Result<Option<End>> {
    let Some(at) = end.checked_sub(LOCATOR_BYTES) else { return Ok(None) };
    let mut locator = [0; LOCATOR_BYTES as usize];
    file.read_exact_at(&mut locator, at)?;
    if locator[..4] != LOCATOR_MAGIC {
        return Ok(None);
    }
    let mut record = [0; WIDE_END_BYTES];
    let is_there = file.read_exact_at(&mut record, u64_at(&locator, 8)).is_ok();
    Ok((is_there && record[..4] == WIDE_END_MAGIC).then(|| End {
        entries: u64_at(&record, 32),
        bytes: u64_at(&record, 40),
        offset: u64_at(&record, 48),
    }))
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
