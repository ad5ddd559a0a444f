//! Tables of numbers as comma-separated text.
//!
//! The first line may name the columns: it does where any of its fields is not
//! a number. The file is read twice, once to count its rows, so that the last
//! rows can be held out without keeping the table in memory.

use super::element::{BadNumber, finite, float_label};
use super::rows::Rows;
use super::unpack::{self, LineBound, read_error};
use super::{DatasetError, DatasetSpec, Features, Target, TargetColumn, TargetKind, UploadLimits};
use csv::{ByteRecord, Reader, ReaderBuilder};
use raven_graph::DType;
use std::io::Read;
use std::path::Path;

const PART: &str = "table";

type Lines = Reader<LineBound<Box<dyn Read + Send>>>;

/// A table that is read row by row.
pub struct Table {
    lines: Lines,
    record: ByteRecord,
    columns: usize,
    target_index: usize,
    rows: u64,
    rows_read: u64,
    /// What one sample is.
    pub features: Features,
    pub target: Target,
}

fn reader(path: &Path, limits: &UploadLimits) -> Result<Lines, DatasetError> {
    let source = unpack::open(path, limits.unpacked_bytes_max).map_err(read_error(PART))?;
    Ok(ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        // A quoted field could go on over lines, past every bound; numbers need
        // no quotes, and a pair around a field is taken off below.
        .quoting(false)
        .from_reader(LineBound::new(source, limits.line_bytes_max)))
}

fn csv_error(error: csv::Error) -> DatasetError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => read_error(PART)(error),
        kind => DatasetError::Unreadable { part: PART, reason: format!("{kind:?}") },
    }
}

/// A field without the space and the one pair of quotes around it.
fn bare(field: &[u8]) -> &[u8] {
    let field = field.trim_ascii();
    let inside = field.strip_prefix(b"\"").and_then(|field| field.strip_suffix(b"\""));
    inside.unwrap_or(field)
}

fn number(field: &[u8]) -> Option<f64> {
    std::str::from_utf8(bare(field)).ok()?.trim().parse().ok()
}

impl Table {
    /// Opens the table and counts its rows.
    ///
    /// # Errors
    /// [`DatasetError`] with the place of what is wrong.
    pub fn open(
        path: &Path,
        spec: &DatasetSpec,
        limits: &UploadLimits,
    ) -> Result<Self, DatasetError> {
        let mut lines = reader(path, limits)?;
        let mut first = ByteRecord::new();
        if !lines.read_byte_record(&mut first).map_err(csv_error)? {
            let (rule, found) = ("at least one row".into(), vec![0]);
            return Err(DatasetError::Shape { part: PART, rule, found });
        }
        let named = first.iter().any(|field| number(field).is_none());
        let columns = first.len();
        let target_index = target_index(spec, &first, named)?;
        let features = features(spec, columns - 1, limits)?;
        let mut rows = u64::from(!named);
        let mut record = ByteRecord::new();
        while lines.read_byte_record(&mut record).map_err(csv_error)? {
            rows += 1;
        }
        let limit = i32::MAX as u64;
        if rows > limit {
            return Err(DatasetError::Limit { part: PART, field: "rows", limit, found: rows });
        }
        let mut lines = reader(path, limits)?;
        if named {
            lines.read_byte_record(&mut record).map_err(csv_error)?;
        }
        let target = match (spec.target, spec.classes) {
            (TargetKind::Classes, Some(classes)) => Target::Classes { classes },
            _ => Target::Values { width: 1 },
        };
        let rows_read = 0;
        Ok(Table { lines, record, columns, target_index, rows, rows_read, features, target })
    }

    fn read_row(&mut self, x: &mut Vec<u8>, y: &mut Vec<u8>) -> Result<(), DatasetError> {
        let row = self.rows_read;
        if !self.lines.read_byte_record(&mut self.record).map_err(csv_error)? {
            // The file was counted a moment ago; only a failing disk comes here.
            let reason = "the file became shorter while it was read".into();
            return Err(DatasetError::Unreadable { part: PART, reason });
        }
        let (expected, found) = (self.columns as u64, self.record.len() as u64);
        if expected != found {
            return Err(DatasetError::Columns { part: PART, row, expected, found });
        }
        for (column, field) in self.record.iter().enumerate() {
            let at = |bad: BadNumber| bad.at(PART, row, column as u64);
            let value = number(field).ok_or_else(|| {
                let found = String::from_utf8_lossy(&field[..field.len().min(40)]).into_owned();
                at(BadNumber { rule: "a number".into(), found: format!("{found:?}") })
            })?;
            match self.target {
                Target::Classes { classes } if column == self.target_index => {
                    let label = float_label(value, classes).map_err(at)?;
                    y.extend_from_slice(&label.to_le_bytes());
                }
                _ => {
                    let value = finite(value as f32).map_err(at)?;
                    let out = if column == self.target_index { &mut *y } else { &mut *x };
                    out.extend_from_slice(&value.to_le_bytes());
                }
            }
        }
        self.rows_read += 1;
        Ok(())
    }
}

impl Rows for Table {
    fn left(&self) -> u64 {
        self.rows - self.rows_read
    }

    fn read(&mut self, count: u64, x: &mut Vec<u8>, y: &mut Vec<u8>) -> Result<(), DatasetError> {
        (0..count).try_for_each(|_| self.read_row(x, y))
    }

    fn finish(&mut self) -> Result<(), DatasetError> {
        Ok(())
    }
}

fn target_index(
    spec: &DatasetSpec,
    first: &ByteRecord,
    named: bool,
) -> Result<usize, DatasetError> {
    let refuse = |rule: String, found: String| {
        Err(DatasetError::Spec { field: "target_column", rule, found })
    };
    let columns = first.len();
    if columns < 2 {
        let (rule, found) = ("at least two columns".into(), vec![columns as u64]);
        return Err(DatasetError::Shape { part: PART, rule, found });
    }
    match &spec.target_column {
        None => Ok(columns - 1),
        Some(TargetColumn::Index(index)) if (*index as usize) < columns => Ok(*index as usize),
        Some(TargetColumn::Index(index)) => {
            refuse(format!("below {columns}, the number of columns"), index.to_string())
        }
        Some(TargetColumn::Name(name)) if named => {
            let found = first.iter().position(|field| bare(field) == name.as_bytes());
            found.map_or_else(|| refuse("a name in the first line".into(), name.clone()), Ok)
        }
        Some(TargetColumn::Name(name)) => {
            refuse("an index: the first line holds numbers, no names".into(), name.clone())
        }
    }
}

fn features(
    spec: &DatasetSpec,
    width: usize,
    limits: &UploadLimits,
) -> Result<Features, DatasetError> {
    let (limit, found) = (limits.sample_elements_max, width as u64);
    if found > limit {
        return Err(DatasetError::Limit { part: PART, field: "sample_elements", limit, found });
    }
    let shape = spec.sample_shape.clone().unwrap_or_else(|| vec![width as u32]);
    let elements = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d.into()));
    let rank_max = raven_protocol::limits::RANK_MAX - 1;
    if elements != Some(width as u64) || shape.is_empty() || shape.len() > rank_max {
        let rule = format!("1 to {rank_max} extents whose product is {width}, the feature columns");
        let found = format!("{shape:?}");
        return Err(DatasetError::Spec { field: "sample_shape", rule, found });
    }
    Ok(Features { dtype: DType::F32, shape })
}
