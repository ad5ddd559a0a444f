//! Arrays and tables as streams of rows.

use super::element::{Element, Role};
use super::unpack::{read_error, read_up_to};
use super::{DatasetError, Features, Target, TargetKind, UploadLimits};
use raven_graph::DType;
use std::io::Read;

/// A source of rows: features and targets side by side.
pub trait Rows {
    /// Rows that are still to come.
    fn left(&self) -> u64;

    /// Appends the bytes of the next `count` rows; there are at least as many.
    ///
    /// # Errors
    /// [`DatasetError`] with the place of what is wrong.
    fn read(&mut self, count: u64, x: &mut Vec<u8>, y: &mut Vec<u8>) -> Result<(), DatasetError>;

    /// Checks that nothing follows the last row.
    ///
    /// # Errors
    /// [`DatasetError::TrailingBytes`].
    fn finish(&mut self) -> Result<(), DatasetError>;
}

/// An array whose header has been read: its numbers follow in `source`, in
/// C order, first axis rows.
pub struct Array {
    pub part: &'static str,
    pub element: Element,
    /// Extents, rows first.
    pub shape: Vec<u64>,
    pub source: Box<dyn Read + Send>,
    rows_read: u64,
}

impl Array {
    /// Checks what the header says.
    ///
    /// # Errors
    /// [`DatasetError::Shape`], [`DatasetError::Limit`].
    pub fn new(
        part: &'static str,
        element: Element,
        shape: Vec<u64>,
        source: Box<dyn Read + Send>,
        limits: &UploadLimits,
    ) -> Result<Self, DatasetError> {
        if shape.is_empty() || shape.contains(&0) {
            let rule = "at least one axis, none of them empty".into();
            return Err(DatasetError::Shape { part, rule, found: shape });
        }
        let limit = |field, limit, found| DatasetError::Limit { part, field, limit, found };
        let rows_max = i32::MAX as u64;
        if shape[0] > rows_max {
            return Err(limit("rows", rows_max, shape[0]));
        }
        // One axis is left to the batch.
        let rank_max = raven_protocol::limits::RANK_MAX as u64;
        if shape.len() as u64 > rank_max {
            return Err(limit("rank", rank_max, shape.len() as u64));
        }
        let elements = shape[1..].iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let elements = elements.unwrap_or(u64::MAX);
        if elements > limits.sample_elements_max {
            return Err(limit("sample_elements", limits.sample_elements_max, elements));
        }
        Ok(Array { part, element, shape, source, rows_read: 0 })
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.shape[0]
    }

    /// Elements of one row.
    fn row_elements(&self) -> u64 {
        self.shape[1..].iter().product()
    }

    fn row_bytes(&self) -> u64 {
        self.row_elements() * self.element.kind.bytes() as u64
    }

    fn bytes(&self) -> u64 {
        // Rows and a row's elements are bounded to 2^31 and 2^22 or so.
        self.rows() * self.row_bytes()
    }

    fn read(&mut self, count: u64, role: Role, out: &mut Vec<u8>) -> Result<(), DatasetError> {
        let wanted = (count * self.row_bytes()) as usize;
        let mut raw = vec![0; wanted];
        let have = read_up_to(&mut self.source, &mut raw).map_err(read_error(self.part))?;
        if have < wanted {
            let found = self.rows_read * self.row_bytes() + have as u64;
            let (part, expected) = (self.part, self.bytes());
            return Err(DatasetError::Truncated { part, expected, found });
        }
        role.convert(self.element, &raw, out).map_err(|(index, bad)| {
            let width = self.row_elements();
            let row = self.rows_read + index as u64 / width;
            bad.at(self.part, row, index as u64 % width)
        })?;
        self.rows_read += count;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DatasetError> {
        let more = read_up_to(&mut self.source, &mut [0]).map_err(read_error(self.part))?;
        if more > 0 {
            let (part, expected) = (self.part, self.bytes());
            return Err(DatasetError::TrailingBytes { part, expected });
        }
        Ok(())
    }
}

/// Features and targets in two arrays.
pub struct Pair {
    x: Array,
    y: Array,
    y_role: Role,
    /// What one sample is.
    pub features: Features,
    pub target: Target,
}

impl Pair {
    /// Checks that the arrays go together.
    ///
    /// # Errors
    /// [`DatasetError::RowCount`], [`DatasetError::Shape`].
    pub fn new(
        x: Array,
        y: Array,
        target: TargetKind,
        classes: Option<u32>,
    ) -> Result<Self, DatasetError> {
        if x.rows() != y.rows() {
            let (part, expected, found) = (y.part, x.rows(), y.rows());
            return Err(DatasetError::RowCount { part, expected, found });
        }
        let (part, found) = (y.part, y.shape.clone());
        let (y_role, target) = match (target, classes, &y.shape[1..]) {
            (TargetKind::Classes, Some(classes), [] | [1]) => {
                (Role::Labels { classes }, Target::Classes { classes })
            }
            (TargetKind::Classes, ..) => {
                let rule = "[rows] or [rows, 1] for labels".into();
                return Err(DatasetError::Shape { part, rule, found });
            }
            (TargetKind::Values, _, []) => (Role::Values, Target::Values { width: 1 }),
            (TargetKind::Values, _, &[width]) => {
                (Role::Values, Target::Values { width: width as u32 })
            }
            (TargetKind::Values, ..) => {
                let rule = "[rows] or [rows, width] for values".into();
                return Err(DatasetError::Shape { part, rule, found });
            }
        };
        let dtype = Role::Features.dtype(x.element.kind);
        // A row of one number is a sample of one feature.
        let shape = match &x.shape[1..] {
            [] => vec![1],
            extents => extents.iter().map(|&extent| extent as u32).collect(),
        };
        Ok(Pair { x, y, y_role, features: Features { dtype, shape }, target })
    }

    /// The part that features come from.
    pub fn part(&self) -> &'static str {
        self.x.part
    }
}

impl Rows for Pair {
    fn left(&self) -> u64 {
        self.x.rows() - self.x.rows_read
    }

    fn read(&mut self, count: u64, x: &mut Vec<u8>, y: &mut Vec<u8>) -> Result<(), DatasetError> {
        self.x.read(count, Role::Features, x)?;
        self.y.read(count, self.y_role, y)
    }

    fn finish(&mut self) -> Result<(), DatasetError> {
        self.x.finish()?;
        self.y.finish()
    }
}

/// Bytes of one row's features and targets in a shard.
pub fn row_bytes(features: &Features, target: Target) -> u64 {
    let elements: u64 = features.shape.iter().map(|&extent| u64::from(extent)).product();
    elements * features.dtype.bytes() + u64::from(target_width(target)) * DType::I32.bytes()
}

/// Numbers of one row's target, each four bytes wide.
pub fn target_width(target: Target) -> u32 {
    match target {
        Target::Classes { .. } => 1,
        Target::Values { width } => width,
    }
}
