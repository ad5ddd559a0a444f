//! Data sets: uploads of several formats, cut into shards of whole rows.
//!
//! Files are read once, from front to back, a shard's worth at a time: neither
//! a large file nor one that unpacks to far more than it seems takes memory.

mod csv;
mod element;
mod error;
mod idx;
mod ingest;
mod npy;
mod npz;
mod rows;
mod safetensors;
mod shards;
mod unpack;

pub use error::DatasetError;
pub use ingest::{Ingested, Upload, ingest};

use raven_graph::DType;
use serde::{Deserialize, Serialize};

/// Column of a shard that holds the features.
pub const X_COLUMN: &str = "x";
/// Column that holds the targets.
pub const Y_COLUMN: &str = "y";

/// The form of the uploaded files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Idx,
    Npy,
    Npz,
    Csv,
    Safetensors,
}

impl Format {
    /// The name in specs.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Idx => "idx",
            Format::Npy => "npy",
            Format::Npz => "npz",
            Format::Csv => "csv",
            Format::Safetensors => "safetensors",
        }
    }
}

/// What is to be predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// Integer labels.
    Classes,
    /// Numbers.
    Values,
}

/// A column of a table, by position or by its name in the first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetColumn {
    Index(u32),
    Name(String),
}

/// The first part of an upload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetSpec {
    pub name: String,
    pub format: Format,
    pub target: TargetKind,
    /// Labels are `0..classes`. Needed for classes, refused for values.
    #[serde(default)]
    pub classes: Option<u32>,
    /// Multiplies features inside the graph.
    #[serde(default = "one")]
    pub scale: f32,
    #[serde(default)]
    pub license: String,
    #[serde(default)]
    pub source: String,
    /// Part of the rows that is held out where no test arrays come, in (0, 1).
    #[serde(default = "a_fifth")]
    pub test_fraction: f64,
    /// csv: the column with the target; the last if absent.
    #[serde(default)]
    pub target_column: Option<TargetColumn>,
    /// csv: extents of one sample; flat if absent.
    #[serde(default)]
    pub sample_shape: Option<Vec<u32>>,
}

const fn one() -> f32 {
    1.0
}

const fn a_fifth() -> f64 {
    0.2
}

/// What is known of a stored data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetFacts {
    pub name: String,
    pub format: Format,
    pub train_rows: u32,
    pub test_rows: u32,
    pub features: Features,
    pub target: Target,
    pub scale: f32,
    pub license: String,
    pub source: String,
    /// Bytes of all shards.
    pub bytes: u64,
}

/// One sample's features.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// `u8` or `f32`.
    pub dtype: DType,
    /// Extents of one sample.
    pub shape: Vec<u32>,
}

/// One sample's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Target {
    /// i32 labels `0..classes`.
    Classes { classes: u32 },
    /// f32 `[width]`.
    Values { width: u32 },
}

/// Bounds of one upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadLimits {
    /// Bytes of the whole request body.
    pub body_bytes_max: u64,
    /// Bytes that one file may unpack to: what a data folder can spare.
    pub unpacked_bytes_max: u64,
    /// Bytes of the spec part.
    pub spec_bytes_max: usize,
    /// Elements of one sample: a 1024 x 1024 image of three channels and a little.
    pub sample_elements_max: u64,
    /// Bytes of a line of text: a row of the widest sample, generously written.
    pub line_bytes_max: u64,
}

impl Default for UploadLimits {
    fn default() -> Self {
        UploadLimits {
            body_bytes_max: 1 << 30,
            unpacked_bytes_max: 4 << 30,
            spec_bytes_max: 64 << 10,
            sample_elements_max: 1 << 22,
            line_bytes_max: 4 << 20,
        }
    }
}

/// Bytes of a name; it is shown on pages.
const NAME_BYTES_MAX: usize = 100;
/// Bytes of a licence or source note.
const NOTE_BYTES_MAX: usize = 500;
/// Classes that a label may name: the width of the last layer.
const CLASSES_MAX: u32 = 1 << 16;

impl DatasetSpec {
    /// Checks what can be checked without the files.
    ///
    /// # Errors
    /// [`DatasetError::Spec`] with the field.
    pub fn check(&self) -> Result<(), DatasetError> {
        let refuse = |field, rule: &str, found: String| {
            Err(DatasetError::Spec { field, rule: rule.into(), found })
        };
        let name_bytes = self.name.len();
        if self.name.trim().is_empty() || name_bytes > NAME_BYTES_MAX {
            return refuse("name", "1 to 100 bytes", format!("{name_bytes} bytes"));
        }
        for (field, note) in [("license", &self.license), ("source", &self.source)] {
            if note.len() > NOTE_BYTES_MAX {
                return refuse(field, "at most 500 bytes", format!("{} bytes", note.len()));
            }
        }
        if !self.scale.is_finite() || self.scale == 0.0 {
            return refuse("scale", "finite and not 0", self.scale.to_string());
        }
        if !(self.test_fraction > 0.0 && self.test_fraction < 1.0) {
            return refuse("test_fraction", "above 0 and below 1", self.test_fraction.to_string());
        }
        match (self.target, self.classes) {
            (TargetKind::Classes, Some(classes)) if (2..=CLASSES_MAX).contains(&classes) => Ok(()),
            (TargetKind::Classes, classes) => {
                let found = classes.map_or("nothing".into(), |classes| classes.to_string());
                refuse("classes", "2 to 65536 where target is classes", found)
            }
            (TargetKind::Values, None) => Ok(()),
            (TargetKind::Values, Some(classes)) => {
                refuse("classes", "absent where target is values", classes.to_string())
            }
        }?;
        if self.format != Format::Csv {
            for (field, given) in [
                ("target_column", self.target_column.is_some()),
                ("sample_shape", self.sample_shape.is_some()),
            ] {
                if given {
                    return refuse(field, "absent: it is for csv", "a value".into());
                }
            }
        }
        Ok(())
    }
}
