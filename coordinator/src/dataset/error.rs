//! Why an upload is refused. Each variant names the file, row, column or rule at fault.

use crate::blobs::BlobError;

/// Why an upload is refused.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A field of the spec is outside its domain.
    #[error("spec.{field}: {found} must be {rule}")]
    Spec { field: &'static str, rule: String, found: String },
    /// A file that the format needs did not come.
    #[error("{part}: this file is missing; {format} takes {takes}")]
    MissingPart { part: &'static str, format: &'static str, takes: &'static str },
    /// A file that the format does not take, or one that came twice.
    #[error("{part}: {rule}")]
    UnexpectedPart { part: String, rule: &'static str },
    /// An archive has no array of that name.
    #[error("{part}: no array {array:?} in it")]
    MissingArray { part: &'static str, array: &'static str },
    /// The bytes are not of the format.
    #[error("{part}.{field}: {reason}")]
    Malformed { part: &'static str, field: &'static str, reason: String },
    /// Fewer bytes than the header declares.
    #[error("{part}: ends after {found} bytes of values, {expected} are declared")]
    Truncated { part: &'static str, expected: u64, found: u64 },
    /// More bytes than the header declares.
    #[error("{part}: goes on after the {expected} bytes that are declared")]
    TrailingBytes { part: &'static str, expected: u64 },
    /// An element type that has no place here.
    #[error("{part}.dtype: {found} is not supported{hint}")]
    ElementType { part: &'static str, found: String, hint: &'static str },
    /// Something is larger than allowed.
    #[error("{part}.{field}: {found} exceeds the limit of {limit}")]
    Limit { part: &'static str, field: &'static str, limit: u64, found: u64 },
    /// An array has another shape than its role needs.
    #[error("{part}.shape: {found:?} must be {rule}")]
    Shape { part: &'static str, rule: String, found: Vec<u64> },
    /// Features and targets disagree in rows.
    #[error("{part}: {found} rows, its features have {expected}")]
    RowCount { part: &'static str, expected: u64, found: u64 },
    /// A value is outside its domain.
    #[error("{part}: row {row}, column {column}{}: {found} must be {rule}", named(name))]
    Value {
        part: &'static str,
        row: u64,
        column: u64,
        /// The column's name in a table that has some.
        name: Option<String>,
        rule: String,
        found: String,
    },
    /// A file in an archive has no place there.
    #[error("{part}: {entry:?}: {found}; it must be {rule}")]
    Entry { part: &'static str, entry: String, rule: String, found: String },
    /// A whole column has no use.
    #[error("{part}: column {column}{} must be {rule}", named(name))]
    Column { part: &'static str, column: u64, name: Option<String>, rule: &'static str },
    /// A row has another number of fields than the first.
    #[error("{part}: row {row} has {found} columns, the first has {expected}")]
    Columns { part: &'static str, row: u64, expected: u64, found: u64 },
    /// Compressed bytes cannot be unpacked.
    #[error("{part}: cannot be read: {reason}")]
    Unreadable { part: &'static str, reason: String },
    /// The coordinator's disk failed.
    #[error("the upload could not be kept: {error}")]
    Io {
        #[from]
        error: std::io::Error,
    },
    /// The blob store failed.
    #[error("the upload could not be kept: {error}")]
    Blobs {
        #[from]
        error: BlobError,
    },
}

/// A column's name beside its number.
fn named(name: &Option<String>) -> String {
    name.as_ref().map_or_else(String::new, |name| format!(" ({name:?})"))
}

impl DatasetError {
    /// The field of the problem document, where one is at fault.
    pub fn field(&self) -> Option<String> {
        match self {
            DatasetError::Spec { field, .. } => Some(format!("spec.{field}")),
            DatasetError::MissingPart { part, .. }
            | DatasetError::Truncated { part, .. }
            | DatasetError::TrailingBytes { part, .. }
            | DatasetError::RowCount { part, .. }
            | DatasetError::Unreadable { part, .. } => Some((*part).into()),
            DatasetError::UnexpectedPart { part, .. } => Some(part.clone()),
            DatasetError::MissingArray { part, array } => Some(format!("{part}.{array}")),
            DatasetError::Malformed { part, field, .. }
            | DatasetError::Limit { part, field, .. } => Some(format!("{part}.{field}")),
            DatasetError::ElementType { part, .. } => Some(format!("{part}.dtype")),
            DatasetError::Shape { part, .. } => Some(format!("{part}.shape")),
            DatasetError::Value { part, row, column, .. } => {
                Some(format!("{part}[{row}][{column}]"))
            }
            DatasetError::Entry { part, entry, .. } => Some(format!("{part}[{entry:?}]")),
            DatasetError::Column { part, column, .. } => Some(format!("{part}[][{column}]")),
            DatasetError::Columns { part, row, .. } => Some(format!("{part}[{row}]")),
            DatasetError::Io { .. } | DatasetError::Blobs { .. } => None,
        }
    }

    /// The limit that was passed and what was found, where it is one.
    pub fn limit(&self) -> Option<(u64, u64)> {
        match self {
            DatasetError::Limit { limit, found, .. } => Some((*limit, *found)),
            _ => None,
        }
    }

    /// Whether the uploader is at fault, not the coordinator's disk.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, DatasetError::Io { .. } | DatasetError::Blobs { .. })
    }
}
