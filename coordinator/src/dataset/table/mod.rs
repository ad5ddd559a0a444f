//! Tables of named columns, whatever file they come in.
//!
//! A table is read two or three times: once to count its rows and to see what
//! its columns hold, once for means and categories where a column needs them,
//! and once to write its rows. What is learned of a column is learned from the
//! training rows alone and reported, so that new rows can be treated alike.

pub mod columns;
pub mod csv;
pub mod parquet;
pub mod rows;
mod survey;

pub use columns::{ColumnSpec, MissingRule, TableFacts};
pub use rows::Table;

use super::DatasetError;
use std::borrow::Cow;

/// The part that tables come in.
pub const PART: &str = "table";

/// Words that stand for a value that is not there, in any case.
const MISSING_WORDS: [&str; 6] = ["na", "n/a", "nan", "null", "none", "?"];

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    Missing,
    Number(f64),
    /// Text that may be a number, e.g. a field of a csv.
    Text(&'a [u8]),
}

impl<'a> Cell<'a> {
    /// A field of text; empty fields and the words for nothing are missing.
    pub fn of_text(text: &'a [u8]) -> Self {
        let is = |word: &&str| text.eq_ignore_ascii_case(word.as_bytes());
        if text.is_empty() || MISSING_WORDS.iter().any(is) {
            Cell::Missing
        } else {
            Cell::Text(text)
        }
    }

    /// The number, where it is one.
    pub fn number(self) -> Option<f64> {
        match self {
            Cell::Missing => None,
            Cell::Number(value) => Some(value),
            Cell::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        }
    }

    /// The text of a category or label; `None` where it is not UTF-8 or missing.
    pub fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Cell::Missing => None,
            Cell::Number(value) => Some(Cow::Owned(value.to_string())),
            Cell::Text(text) => std::str::from_utf8(text).ok().map(Cow::Borrowed),
        }
    }

    /// What errors show of it.
    pub fn shown(self) -> String {
        match self {
            Cell::Missing => "nothing".into(),
            Cell::Number(value) => value.to_string(),
            Cell::Text(text) => {
                format!("{:?}", String::from_utf8_lossy(&text[..text.len().min(40)]))
            }
        }
    }
}

/// A file of rows that can be read again from its start.
pub trait Records: Send {
    /// Columns of every row.
    fn columns(&self) -> usize;

    /// Names of the columns, where the file has some.
    fn names(&self) -> Option<&[String]>;

    /// What a column would have to be, where it can only be ignored.
    fn refused(&self, column: usize) -> Option<&'static str> {
        let _ = column;
        None
    }

    /// Goes back before the first row.
    ///
    /// # Errors
    /// Those of opening the file.
    fn rewind(&mut self) -> Result<(), DatasetError>;

    /// Reads the next row; false after the last.
    ///
    /// # Errors
    /// [`DatasetError`] with the row.
    fn advance(&mut self) -> Result<bool, DatasetError>;

    /// A value of the row that was read last.
    fn cell(&self, column: usize) -> Cell<'_>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_several_spellings_and_numbers_have_none_of_them() {
        for text in ["", "NA", "n/a", "NaN", "null", "NULL", "None", "?"] {
            assert_eq!(Cell::of_text(text.as_bytes()), Cell::Missing, "{text}");
        }
        for text in ["0", "-1e3", "nano", "x", "nonexistent", "inf"] {
            assert_eq!(Cell::of_text(text.as_bytes()), Cell::Text(text.as_bytes()), "{text}");
        }
        assert_eq!(Cell::Text(b"1e2").number(), Some(100.0));
        assert_eq!(Cell::Text(b"one").number(), None);
        assert_eq!(Cell::Text(b"\xff").text(), None);
        assert_eq!(Cell::Number(3.0).text().as_deref(), Some("3"));
    }
}
