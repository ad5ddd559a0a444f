//! Tables as comma-separated text (RFC 4180, but a field ends with its line).
//!
//! The first line may name the columns: it does where the spec says so, and
//! otherwise where any of its fields is neither a number nor missing.

use super::{Cell, PART, Records};
use crate::dataset::unpack::{self, LineBound, read_error};
use crate::dataset::{DatasetError, UploadLimits};
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A csv file that is read row by row.
pub struct Csv {
    path: PathBuf,
    limits: UploadLimits,
    lines: BufReader<LineBound<Box<dyn Read + Send>>>,
    line: Vec<u8>,
    row: Fields,
    columns: usize,
    names: Option<Vec<String>>,
    rows_read: u64,
}

/// The fields of one line.
#[derive(Debug, Default)]
struct Fields {
    text: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Fields {
    fn get(&self, index: usize) -> &[u8] {
        &self.text[self.ranges[index].clone()]
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ranges.iter().map(|range| &self.text[range.clone()])
    }

    /// Takes a line apart. Space around a field is left out. A field in quotes
    /// may hold commas, and quotes written twice; a quote that is not closed
    /// in its line is a character like any other.
    fn split(&mut self, line: &[u8]) {
        self.text.clear();
        self.ranges.clear();
        let mut rest = line;
        loop {
            let start = self.text.len();
            let after = match self.quoted(rest) {
                Some(after) => after,
                None => {
                    self.text.truncate(start);
                    let end = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
                    self.text.extend_from_slice(rest[..end].trim_ascii());
                    &rest[end..]
                }
            };
            self.ranges.push(start..self.text.len());
            match after {
                [b',', following @ ..] => rest = following,
                _ => return,
            }
        }
    }

    /// Takes a field in quotes; answers what follows it, which is a comma or nothing.
    fn quoted<'a>(&mut self, line: &'a [u8]) -> Option<&'a [u8]> {
        let start = self.text.len();
        let mut rest = line.trim_ascii_start().strip_prefix(b"\"")?;
        loop {
            let quote = rest.iter().position(|&byte| byte == b'"')?;
            self.text.extend_from_slice(&rest[..quote]);
            rest = &rest[quote + 1..];
            match rest {
                [b'"', following @ ..] => {
                    self.text.push(b'"');
                    rest = following;
                }
                _ => break,
            }
        }
        let after = rest.trim_ascii_start();
        if !after.is_empty() && after[0] != b',' {
            return None;
        }
        let inside = self.text[start..].trim_ascii().to_vec();
        self.text.truncate(start);
        self.text.extend_from_slice(&inside);
        Some(after)
    }
}

impl Csv {
    /// Opens the file and looks at its first line.
    ///
    /// # Errors
    /// [`DatasetError`] where there is none.
    pub fn open(
        path: &Path,
        header: Option<bool>,
        limits: &UploadLimits,
    ) -> Result<Self, DatasetError> {
        let mut file = Csv {
            path: path.to_owned(),
            limits: *limits,
            lines: lines(path, limits)?,
            line: Vec::new(),
            row: Fields::default(),
            columns: 0,
            names: None,
            rows_read: 0,
        };
        if !file.next_line()? {
            let (rule, found) = ("at least one row".into(), vec![0]);
            return Err(DatasetError::Shape { part: PART, rule, found });
        }
        file.columns = file.row.ranges.len();
        let is_word = |field: &[u8]| match Cell::of_text(field) {
            Cell::Missing => false,
            cell => cell.number().is_none(),
        };
        if header.unwrap_or_else(|| file.row.iter().any(is_word)) {
            let name = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
            file.names = Some(file.row.iter().map(name).collect());
        }
        file.rewind()?;
        Ok(file)
    }

    /// Reads the next line that is not empty.
    fn next_line(&mut self) -> Result<bool, DatasetError> {
        loop {
            self.line.clear();
            let read = self.lines.read_until(b'\n', &mut self.line).map_err(read_error(PART))?;
            if read == 0 {
                return Ok(false);
            }
            let line = self.line.trim_ascii_end();
            if !line.is_empty() {
                self.row.split(line);
                return Ok(true);
            }
        }
    }
}

fn lines(
    path: &Path,
    limits: &UploadLimits,
) -> Result<BufReader<LineBound<Box<dyn Read + Send>>>, DatasetError> {
    let source = unpack::open(path, limits.unpacked_bytes_max).map_err(read_error(PART))?;
    let mut lines = BufReader::new(LineBound::new(source, limits.line_bytes_max));
    let marked = lines.fill_buf().map_err(read_error(PART))?.starts_with(BYTE_ORDER_MARK);
    lines.consume(if marked { BYTE_ORDER_MARK.len() } else { 0 });
    Ok(lines)
}

impl Records for Csv {
    fn columns(&self) -> usize {
        self.columns
    }

    fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    fn rewind(&mut self) -> Result<(), DatasetError> {
        self.lines = lines(&self.path, &self.limits)?;
        self.rows_read = 0;
        if self.names.is_some() {
            self.next_line()?;
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<bool, DatasetError> {
        if !self.next_line()? {
            return Ok(false);
        }
        let (row, expected) = (self.rows_read, self.columns as u64);
        let found = self.row.ranges.len() as u64;
        if expected != found {
            return Err(DatasetError::Columns { part: PART, row, expected, found });
        }
        self.rows_read += 1;
        Ok(true)
    }

    fn cell(&self, column: usize) -> Cell<'_> {
        Cell::of_text(self.row.get(column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_apart_as_written() {
        let cases: &[(&str, &[&str])] = &[
            ("1,2,3", &["1", "2", "3"]),
            ("", &[""]),
            (",", &["", ""]),
            (" a , b\t,c ", &["a", "b", "c"]),
            (r#""Smith, J.",4"#, &["Smith, J.", "4"]),
            (r#" "a" , "b""c""d" "#, &["a", "b\"c\"d"]),
            (r#""","x""#, &["", "x"]),
            // Quotes that are no pair around a field stand for themselves.
            (r#""a,b"#, &["\"a", "b"]),
            (r#"a"b,"c"d,e"#, &["a\"b", "\"c\"d", "e"]),
            (r#"5" pipe,1"#, &["5\" pipe", "1"]),
        ];
        for (line, expected) in cases {
            let mut fields = Fields::default();
            fields.split(line.as_bytes());
            let found: Vec<_> = fields.iter().map(String::from_utf8_lossy).collect();
            assert_eq!(found, *expected, "{line}");
        }
    }
}
