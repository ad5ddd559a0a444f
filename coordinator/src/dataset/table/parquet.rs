//! Tables as Apache Parquet.
//!
//! The format's own reader trusts what a file says of itself, so the pages are
//! looked through first (see [`pages`]); a few rows of every column are held at
//! a time. Nested columns and types that are neither numbers nor text can only
//! be ignored.

mod pages;

use super::{Cell, PART, Records};
use crate::dataset::{DatasetError, UploadLimits};
use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Values that are held at a time, of all columns together.
const BATCH_VALUES: usize = 1 << 20;
/// Rows of a batch: more would not be read faster.
const BATCH_ROWS_MAX: usize = 1024;

/// How a column's values are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Unsigned,
    Text,
    Refused(&'static str),
}

enum Value {
    Missing,
    Number(f64),
    Text(ByteArray),
}

/// A Parquet file that is read some rows at a time.
pub struct Parquet {
    reader: SerializedFileReader<File>,
    names: Vec<String>,
    kinds: Vec<Kind>,
    batch_rows: usize,
    /// Columns of the row group that is being read, and its rows that no batch holds.
    open: Vec<Option<ColumnReader>>,
    group_rows: usize,
    next_group: usize,
    /// The batch, column by column; a refused column has no values.
    batch: Vec<Vec<Value>>,
    rows: usize,
    /// The row that was read last, plus one.
    at: usize,
}

fn unreadable(error: impl std::fmt::Display) -> DatasetError {
    DatasetError::Unreadable { part: PART, reason: error.to_string() }
}

/// Runs the format's reader. It was not written for files that mean harm: where
/// it panics, the file is damaged.
fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DatasetError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(unreadable),
        Err(_) => Err(unreadable("the file is damaged")),
    }
}

impl Parquet {
    /// Opens the file and looks through its pages.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub fn open(file: File, limits: &UploadLimits) -> Result<Self, DatasetError> {
        pages::check_footer(&file)?;
        let pages_of = file.try_clone()?;
        let reader = guarded(|| SerializedFileReader::new(file))?;
        pages::check(&pages_of, reader.metadata(), limits)?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let names = schema.columns().iter().map(|column| column.path().string()).collect();
        let kinds: Vec<Kind> = schema.columns().iter().map(|column| kind(column)).collect();
        let batch_rows = (BATCH_VALUES / kinds.len().max(1)).clamp(1, BATCH_ROWS_MAX);
        Ok(Parquet {
            reader,
            names,
            kinds,
            batch_rows,
            open: Vec::new(),
            group_rows: 0,
            next_group: 0,
            batch: Vec::new(),
            rows: 0,
            at: 0,
        })
    }

    /// Opens the columns of the next row group; false where there is none.
    fn next_group(&mut self) -> Result<bool, DatasetError> {
        let Parquet { reader, kinds, .. } = self;
        if self.next_group >= reader.num_row_groups() {
            return Ok(false);
        }
        let group = self.next_group;
        let (open, rows) = guarded(|| {
            let group = reader.get_row_group(group)?;
            let rows = usize::try_from(group.metadata().num_rows())?;
            let open = kinds.iter().enumerate().map(|(column, kind)| match kind {
                Kind::Refused(_) => Ok(None),
                _ => group.get_column_reader(column).map(Some),
            });
            Ok((open.collect::<Result<Vec<_>, ParquetError>>()?, rows))
        })?;
        (self.open, self.group_rows) = (open, rows);
        self.next_group += 1;
        Ok(true)
    }

    /// Reads the next rows; false after the last.
    fn next_batch(&mut self) -> Result<bool, DatasetError> {
        while self.group_rows == 0 {
            if !self.next_group()? {
                return Ok(false);
            }
        }
        let rows = self.batch_rows.min(self.group_rows);
        let (open, kinds) = (&mut self.open, &self.kinds);
        let batch = guarded(|| {
            let columns = open.iter_mut().zip(kinds);
            columns.map(|(column, kind)| values(column.as_mut(), *kind, rows)).collect()
        })?;
        self.batch = batch;
        for (column, values) in self.batch.iter().enumerate() {
            let is_read = !matches!(self.kinds[column], Kind::Refused(_));
            if is_read && values.len() != rows {
                let name = &self.names[column];
                let reason = format!("column {name:?} ends before the others");
                return Err(DatasetError::Unreadable { part: PART, reason });
            }
        }
        self.group_rows -= rows;
        (self.rows, self.at) = (rows, 0);
        Ok(true)
    }
}

/// What is made of a column.
fn kind(column: &ColumnDescriptor) -> Kind {
    if column.max_rep_level() > 0 || column.max_def_level() > 1 {
        return Kind::Refused("a flat column, or ignored: nested ones are not taken");
    }
    let is_unsigned = match column.logical_type_ref() {
        Some(LogicalType::Integer(integer)) => !integer.is_signed,
        _ => matches!(
            column.converted_type(),
            ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64
        ),
    };
    let is_plain = match column.logical_type_ref() {
        None => !matches!(
            column.converted_type(),
            ConvertedType::DECIMAL
                | ConvertedType::DATE
                | ConvertedType::TIME_MILLIS
                | ConvertedType::TIME_MICROS
                | ConvertedType::TIMESTAMP_MILLIS
                | ConvertedType::TIMESTAMP_MICROS
                | ConvertedType::INTERVAL
                | ConvertedType::JSON
                | ConvertedType::BSON
        ),
        Some(LogicalType::Integer(_) | LogicalType::String | LogicalType::Enum) => true,
        Some(_) => false,
    };
    let is_text = matches!(column.converted_type(), ConvertedType::UTF8 | ConvertedType::ENUM)
        || matches!(column.logical_type_ref(), Some(LogicalType::String | LogicalType::Enum));
    match column.physical_type() {
        Physical::BYTE_ARRAY if is_text => Kind::Text,
        Physical::INT32 | Physical::INT64 if is_plain && is_unsigned => Kind::Unsigned,
        Physical::BOOLEAN
        | Physical::INT32
        | Physical::INT64
        | Physical::FLOAT
        | Physical::DOUBLE
            if is_plain =>
        {
            Kind::Number
        }
        _ => Kind::Refused("of numbers or text, or ignored"),
    }
}

fn number(value: f64) -> Value {
    // Libraries write NaN for a number that is not there.
    if value.is_nan() { Value::Missing } else { Value::Number(value) }
}

/// The next values of a column.
fn values(
    column: Option<&mut ColumnReader>,
    kind: Kind,
    rows: usize,
) -> Result<Vec<Value>, ParquetError> {
    let Some(column) = column else { return Ok(Vec::new()) };
    let unsigned = kind == Kind::Unsigned;
    match column {
        ColumnReader::BoolColumnReader(column) => {
            read(column, rows, |value| number(f64::from(u8::from(value))))
        }
        ColumnReader::Int32ColumnReader(column) => read(column, rows, |value| {
            number(if unsigned { f64::from(value as u32) } else { f64::from(value) })
        }),
        ColumnReader::Int64ColumnReader(column) => read(column, rows, |value| {
            number(if unsigned { value as u64 as f64 } else { value as f64 })
        }),
        ColumnReader::FloatColumnReader(column) => {
            read(column, rows, |value| number(f64::from(value)))
        }
        ColumnReader::DoubleColumnReader(column) => read(column, rows, number),
        ColumnReader::ByteArrayColumnReader(column) => read(column, rows, Value::Text),
        ColumnReader::Int96ColumnReader(_) | ColumnReader::FixedLenByteArrayColumnReader(_) => {
            Ok(Vec::new())
        }
    }
}

fn read<T: DataType>(
    column: &mut ColumnReaderImpl<T>,
    rows: usize,
    take: impl Fn(T::T) -> Value,
) -> Result<Vec<Value>, ParquetError> {
    let (mut levels, mut found, mut have) = (Vec::new(), Vec::new(), 0);
    while have < rows {
        let (records, ..) =
            column.read_records(rows - have, Some(&mut levels), None, &mut found)?;
        if records == 0 {
            break;
        }
        have += records;
    }
    if levels.is_empty() {
        return Ok(found.into_iter().map(take).collect());
    }
    let mut found = found.into_iter();
    let value = |level| match level {
        0 => Value::Missing,
        _ => found.next().map_or(Value::Missing, &take),
    };
    Ok(levels.into_iter().map(value).collect())
}

impl Records for Parquet {
    fn columns(&self) -> usize {
        self.kinds.len()
    }

    fn names(&self) -> Option<&[String]> {
        Some(&self.names)
    }

    fn refused(&self, column: usize) -> Option<&'static str> {
        match self.kinds[column] {
            Kind::Refused(rule) => Some(rule),
            _ => None,
        }
    }

    fn rewind(&mut self) -> Result<(), DatasetError> {
        self.open.clear();
        self.batch.clear();
        (self.group_rows, self.next_group, self.rows, self.at) = (0, 0, 0, 0);
        Ok(())
    }

    fn advance(&mut self) -> Result<bool, DatasetError> {
        if self.at >= self.rows && !self.next_batch()? {
            return Ok(false);
        }
        self.at += 1;
        Ok(true)
    }

    fn cell(&self, column: usize) -> Cell<'_> {
        match self.batch[column].get(self.at - 1) {
            None | Some(Value::Missing) => Cell::Missing,
            Some(Value::Number(value)) => Cell::Number(*value),
            Some(Value::Text(text)) => Cell::of_text(text.data().trim_ascii()),
        }
    }
}
