//! A look at every page's header before any page is unpacked.
//!
//! A page says how large it unpacks and how many values its dictionary has,
//! and the format's reader allocates what it says. The headers are Thrift
//! structs in compact form; only the numbers that matter are kept.

use super::PART;
use crate::dataset::{DatasetError, UploadLimits};
use parquet::file::metadata::ParquetMetaData;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of the file's own description: that of some thousand columns and row groups.
const METADATA_BYTES_MAX: u64 = 16 << 20;
/// Bytes of one unpacked page; writers make them of a mebibyte or so.
const PAGE_BYTES_MAX: u64 = 64 << 20;
/// Values of one dictionary: a mebibyte of short words has fewer.
const DICTIONARY_VALUES_MAX: u64 = 1 << 20;
/// What a dictionary's value takes in memory beside its bytes.
const VALUE_BYTES: u64 = 48;
/// Bytes of pages and dictionaries that all columns of a row group hold at a time.
const OPEN_BYTES_MAX: u64 = 512 << 20;
/// Bytes of one page's header; statistics may make it longer than some dozens.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Structs within structs; a page header has three.
const DEPTH_MAX: u32 = 8;
const MAGIC: &[u8] = b"PAR1";
/// PLAIN, PLAIN_DICTIONARY, RLE and RLE_DICTIONARY. The others hold counts that
/// are trusted when they are unpacked.
const ENCODINGS: [i64; 4] = [0, 2, 3, 8];

fn malformed(reason: impl Into<String>) -> DatasetError {
    DatasetError::Malformed { part: PART, field: "pages", reason: reason.into() }
}

fn limit(field: &'static str, limit: u64, found: u64) -> DatasetError {
    DatasetError::Limit { part: PART, field, limit, found }
}

/// Checks the end of the file, where the length of its description is.
///
/// # Errors
/// [`DatasetError`].
pub fn check_footer(file: &File) -> Result<(), DatasetError> {
    let bytes = file.metadata()?.len();
    let mut footer = [0; 8];
    let is_there = bytes >= 12 && file.read_exact_at(&mut footer, bytes - 8).is_ok();
    if !is_there || &footer[4..] != MAGIC {
        let reason = "not a Parquet file".into();
        return Err(DatasetError::Malformed { part: PART, field: "magic", reason });
    }
    let found = u64::from(u32::from_le_bytes([footer[0], footer[1], footer[2], footer[3]]));
    if found > METADATA_BYTES_MAX {
        return Err(limit("metadata_bytes", METADATA_BYTES_MAX, found));
    }
    Ok(())
}

/// Checks all pages of all columns.
///
/// # Errors
/// [`DatasetError`].
pub fn check(
    file: &File,
    metadata: &ParquetMetaData,
    limits: &UploadLimits,
) -> Result<(), DatasetError> {
    let file_bytes = file.metadata()?.len();
    let mut unpacked = 0u64;
    for group in metadata.row_groups() {
        let mut open = 0u64;
        for column in group.columns() {
            let first = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let first = first.min(column.data_page_offset());
            let (start, bytes) = (u64::try_from(first), u64::try_from(column.compressed_size()));
            let (Ok(start), Ok(bytes)) = (start, bytes) else {
                return Err(malformed("a column has a negative place or length"));
            };
            let end = start.saturating_add(bytes);
            if end > file_bytes {
                return Err(malformed("a column leaves the file"));
            }
            let held = check_column(file, start, end, &mut unpacked, limits)?;
            open = open.saturating_add(held);
        }
        if open > OPEN_BYTES_MAX {
            return Err(limit("row_group_bytes", OPEN_BYTES_MAX, open));
        }
    }
    Ok(())
}

/// Walks over a column's pages. Answers how many bytes of it are held at a time.
fn check_column(
    file: &File,
    mut at: u64,
    end: u64,
    unpacked: &mut u64,
    limits: &UploadLimits,
) -> Result<u64, DatasetError> {
    let (mut largest, mut dictionary) = (0, 0);
    while at < end {
        let mut bytes = vec![0; HEADER_BYTES_MAX.min((end - at) as usize)];
        file.read_exact_at(&mut bytes, at)?;
        let mut reader = Compact { bytes: &bytes, at: 0 };
        let page = reader.page().ok_or_else(|| malformed("a page's header is damaged"))?;
        let (size, packed) = (page.unpacked_bytes, page.packed_bytes);
        if size > PAGE_BYTES_MAX {
            return Err(limit("page_bytes", PAGE_BYTES_MAX, size));
        }
        *unpacked += size;
        if *unpacked > limits.unpacked_bytes_max {
            return Err(limit("unpacked_bytes", limits.unpacked_bytes_max, *unpacked));
        }
        if let Some(values) = page.dictionary_values {
            if values > DICTIONARY_VALUES_MAX {
                return Err(limit("dictionary_values", DICTIONARY_VALUES_MAX, values));
            }
            if values > size {
                return Err(malformed("a dictionary has more values than bytes"));
            }
            dictionary = size + values * VALUE_BYTES;
        } else {
            largest = largest.max(size);
        }
        if let Some(encoding) = page.encoding
            && !ENCODINGS.contains(&encoding)
        {
            let reason = format!("encoding {encoding} is not taken; PLAIN and dictionaries are");
            return Err(malformed(reason));
        }
        at += reader.at as u64 + packed;
        if at > end {
            return Err(malformed("a page leaves its column"));
        }
    }
    Ok(largest + dictionary)
}

/// What matters of a page's header.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    unpacked_bytes: u64,
    packed_bytes: u64,
    encoding: Option<i64>,
    dictionary_values: Option<u64>,
}

/// Thrift's compact form. Every method answers `None` where the bytes end early
/// or are of no such form.
struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A field's type in compact form.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

impl Compact<'_> {
    fn page(&mut self) -> Option<Page> {
        let mut page = Page::default();
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (2, 5) => page.unpacked_bytes = u64::try_from(self.integer()?).ok()?,
                (3, 5) => page.packed_bytes = u64::try_from(self.integer()?).ok()?,
                // Data pages of the first and second form.
                (5, STRUCT) => page.encoding = Some(self.number_in(2)?),
                (8, STRUCT) => page.encoding = Some(self.number_in(4)?),
                (7, STRUCT) => {
                    page.dictionary_values = Some(u64::try_from(self.number_in(1)?).ok()?);
                }
                _ => self.skip(kind, 1)?,
            }
        }
        Some(page)
    }

    /// The number in a field of the struct that begins here.
    fn number_in(&mut self, wanted: i64) -> Option<i64> {
        let (mut id, mut found) = (0, None);
        while let Some(kind) = self.field(&mut id)? {
            if id == wanted && (4..=6).contains(&kind) {
                found = Some(self.integer()?);
            } else {
                self.skip(kind, 2)?;
            }
        }
        found
    }

    /// The type of the next field, whose number is put in `id`; `Some(None)` at the end.
    fn field(&mut self, id: &mut i64) -> Option<Option<u8>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        let step = i64::from(head >> 4);
        *id = if step == 0 { self.integer()? } else { id.checked_add(step)? };
        Some(Some(head & 0x0f))
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn pass(&mut self, bytes: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(bytes).ok()?)?;
        if end > self.bytes.len() {
            return None;
        }
        self.at = end;
        Some(())
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match kind {
            TRUE | FALSE => {}
            BYTE => self.pass(1)?,
            4..=6 => drop(self.varint()?),
            DOUBLE => self.pass(8)?,
            BINARY => {
                let bytes = self.varint()?;
                self.pass(bytes)?;
            }
            LIST | SET => {
                let head = self.byte()?;
                let short = u64::from(head >> 4);
                let count = if short == 15 { self.varint()? } else { short };
                for _ in 0..count {
                    self.element(head & 0x0f, depth)?;
                }
            }
            MAP => {
                let count = self.varint()?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                for _ in 0..count {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 0x0f, depth)?;
                }
            }
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// In a list, unlike in a struct, a truth value takes a byte; so every
    /// element takes one and a list is no longer than the header.
    fn element(&mut self, kind: u8, depth: u32) -> Option<()> {
        if matches!(kind, TRUE | FALSE) { self.pass(1) } else { self.skip(kind, depth + 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_damaged_ones_are_not() {
        // type DICTIONARY, 100 bytes unpacked, 80 packed, 7 values, PLAIN.
        let dictionary = [0x15, 4, 0x15, 0xc8, 1, 0x15, 0xa0, 1, 0x4c, 0x15, 14, 0x15, 0, 0, 0];
        let mut reader = Compact { bytes: &dictionary, at: 0 };
        let expected = Page {
            unpacked_bytes: 100,
            packed_bytes: 80,
            encoding: None,
            dictionary_values: Some(7),
        };
        assert_eq!(reader.page(), Some(expected));
        assert_eq!(reader.at, dictionary.len());
        for cut in 0..dictionary.len() {
            assert_eq!(Compact { bytes: &dictionary[..cut], at: 0 }.page(), None, "cut at {cut}");
        }
        // A list of 2^60 elements, structs without end, a number without end.
        let long = [0x19, 0xf5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(Compact { bytes: &long, at: 0 }.page(), None);
        assert_eq!(Compact { bytes: &[0x1c; 1000], at: 0 }.page(), None);
        assert_eq!(Compact { bytes: &[0xff; 100], at: 0 }.page(), None);
    }
}
