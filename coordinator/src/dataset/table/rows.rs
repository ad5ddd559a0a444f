//! The last reading of a table: its rows as features and targets.

use super::columns::{ColumnFacts, Encoding};
use super::survey::{Survey, survey};
use super::{Cell, PART, Records, TableFacts};
use crate::dataset::element::{BadNumber, finite, float_label};
use crate::dataset::rows::Rows;
use crate::dataset::{DatasetError, DatasetSpec, Features, Target, UploadLimits};
use raven_graph::DType;

/// A table that was surveyed and is read row by row.
pub struct Table {
    records: Box<dyn Records>,
    rows: u64,
    rows_read: u64,
    /// What one sample is.
    pub features: Features,
    pub target: Target,
    /// What became of the columns.
    pub facts: TableFacts,
}

impl Table {
    /// Reads the table as often as its columns need.
    ///
    /// # Errors
    /// [`DatasetError`] with the place of what is wrong.
    pub fn open(
        mut records: Box<dyn Records>,
        spec: &DatasetSpec,
        limits: &UploadLimits,
    ) -> Result<Self, DatasetError> {
        let Survey { facts, rows, target } = survey(records.as_mut(), spec)?;
        let width = facts.columns.iter().map(|column| column.encoding.width()).sum();
        let features = features(spec, width, limits)?;
        records.rewind()?;
        Ok(Table { records, rows, rows_read: 0, features, target, facts })
    }

    fn read_row(&mut self, x: &mut Vec<u8>, y: &mut Vec<u8>) -> Result<(), DatasetError> {
        if !self.records.advance()? {
            // The file was counted a moment ago; only a failing disk comes here.
            let reason = "the file became shorter while it was read".into();
            return Err(DatasetError::Unreadable { part: PART, reason });
        }
        for (column, facts) in self.facts.columns.iter().enumerate() {
            let cell = self.records.cell(column);
            let written = match &facts.encoding {
                Encoding::Target { labels } => target(cell, self.target, labels.as_deref(), y),
                encoding => feature(cell, encoding, x),
            };
            written.map_err(|bad| at(bad, self.rows_read, column, facts))?;
        }
        self.rows_read += 1;
        Ok(())
    }
}

/// The error for a value in that place.
pub fn at(bad: BadNumber, row: u64, column: usize, facts: &ColumnFacts) -> DatasetError {
    DatasetError::Value {
        part: PART,
        row,
        column: column as u64,
        name: facts.name.clone(),
        rule: bad.rule,
        found: bad.found,
    }
}

/// A number that is no more and no less than an f32 can hold.
pub fn number(cell: Cell<'_>) -> Result<f64, BadNumber> {
    let value = cell.number().ok_or_else(|| BadNumber {
        rule: match cell {
            Cell::Missing => "a number: missing values are refused".into(),
            _ => "a number; words belong in a column of kind category".into(),
        },
        found: cell.shown(),
    })?;
    finite(value as f32)?;
    Ok(value)
}

/// The text of a category or label.
pub fn word(cell: Cell<'_>) -> Result<std::borrow::Cow<'_, str>, BadNumber> {
    let bad = |rule: &str| BadNumber { rule: rule.into(), found: cell.shown() };
    let text = cell.text().ok_or_else(|| match cell {
        Cell::Missing => bad("a category: missing values are refused"),
        _ => bad("text in UTF-8"),
    })?;
    if text.len() > WORD_BYTES_MAX { Err(bad("at most 200 bytes of text")) } else { Ok(text) }
}

/// Bytes of a category or label: it is reported with the data set.
const WORD_BYTES_MAX: usize = 200;

fn feature(cell: Cell<'_>, encoding: &Encoding, x: &mut Vec<u8>) -> Result<(), BadNumber> {
    match encoding {
        Encoding::Number { imputed, standard, .. } => {
            let value = match (cell, imputed) {
                (Cell::Missing, Some(value)) => *value,
                _ => number(cell)?,
            };
            let value = match standard {
                Some(standard) => (value - standard.mean) / standard.deviation,
                None => value,
            };
            x.extend_from_slice(&finite(value as f32)?.to_le_bytes());
        }
        Encoding::Category { categories, imputed, .. } => {
            let found = match (cell, imputed) {
                (Cell::Missing, Some(value)) => value.as_str().into(),
                _ => word(cell)?,
            };
            let place = categories.binary_search_by(|category| category.as_str().cmp(&found)).ok();
            for index in 0..categories.len() {
                let value = f32::from(u8::from(place == Some(index)));
                x.extend_from_slice(&value.to_le_bytes());
            }
        }
        Encoding::Ignored | Encoding::Target { .. } => {}
    }
    Ok(())
}

fn target(
    cell: Cell<'_>,
    target: Target,
    labels: Option<&[String]>,
    y: &mut Vec<u8>,
) -> Result<(), BadNumber> {
    if cell == Cell::Missing {
        let rule = "a target: nothing can be learned from a row without one".into();
        return Err(BadNumber { rule, found: cell.shown() });
    }
    match (target, labels) {
        (Target::Classes { classes }, None) => {
            let label = float_label(number(cell)?, classes)?;
            y.extend_from_slice(&label.to_le_bytes());
        }
        (Target::Classes { .. }, Some(labels)) => {
            let found = word(cell)?;
            let place = labels.binary_search_by(|label| label.as_str().cmp(&found));
            // All rows were surveyed, so every word is among the labels.
            let place = place.map_err(|_| BadNumber {
                rule: "a label that was there a moment ago".into(),
                found: cell.shown(),
            })?;
            y.extend_from_slice(&(place as i32).to_le_bytes());
        }
        (Target::Values { .. }, _) => {
            y.extend_from_slice(&finite(number(cell)? as f32)?.to_le_bytes());
        }
    }
    Ok(())
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

fn features(
    spec: &DatasetSpec,
    width: usize,
    limits: &UploadLimits,
) -> Result<Features, DatasetError> {
    let (limit, found) = (limits.sample_elements_max, width as u64);
    if found > limit {
        return Err(DatasetError::Limit { part: PART, field: "sample_elements", limit, found });
    }
    if width == 0 {
        let (rule, found) = ("at least one feature".into(), vec![0]);
        return Err(DatasetError::Shape { part: PART, rule, found });
    }
    let shape = spec.sample_shape.clone().unwrap_or_else(|| vec![width as u32]);
    let elements = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d.into()));
    let rank_max = raven_protocol::limits::RANK_MAX - 1;
    if elements != Some(width as u64) || shape.is_empty() || shape.len() > rank_max {
        let rule = format!("1 to {rank_max} extents whose product is {width}, the features");
        let found = format!("{shape:?}");
        return Err(DatasetError::Spec { field: "sample_shape", rule, found });
    }
    Ok(Features { dtype: DType::F32, shape })
}
