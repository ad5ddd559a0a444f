//! Data sets: uploads of several formats, cut into shards of whole rows.
//!
//! Files are read once, from front to back, a shard's worth at a time: neither
//! a large file nor one that unpacks to far more than it seems takes memory.

mod element;
mod error;
mod idx;
mod images;
mod ingest;
mod npy;
mod npz;
mod rows;
mod safetensors;
mod shards;
mod table;
mod unpack;
mod zip;

pub use error::DatasetError;
pub use images::{ImageSpec, Resize};
pub use ingest::{Ingested, Upload, ingest};
pub use table::{ColumnSpec, MissingRule, TableFacts};

use raven_graph::DType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

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
    Parquet,
    Safetensors,
    /// A zip archive of folders of images.
    Images,
}

impl Format {
    /// Whether it is rows of named columns.
    pub const fn is_table(self) -> bool {
        matches!(self, Format::Csv | Format::Parquet)
    }

    /// Whether classes may be words, which are counted.
    const fn may_name_classes(self) -> bool {
        self.is_table() || matches!(self, Format::Images)
    }

    /// The name in specs.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Idx => "idx",
            Format::Npy => "npy",
            Format::Npz => "npz",
            Format::Csv => "csv",
            Format::Parquet => "parquet",
            Format::Safetensors => "safetensors",
            Format::Images => "images",
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
    /// Labels are `0..classes`. Needed for classes, unless labels are words;
    /// refused for values.
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
    /// csv: whether the first line names the columns; seen from it if absent.
    #[serde(default)]
    pub header: Option<bool>,
    /// csv: what is said of single columns, by name or position.
    #[serde(default)]
    pub columns: BTreeMap<String, ColumnSpec>,
    /// csv: whether number columns get mean 0 and deviation 1.
    #[serde(default)]
    pub standardize: bool,
    /// csv: what is done about values that are not there.
    #[serde(default)]
    pub missing: MissingRule,
    /// images: how they become samples.
    #[serde(default)]
    pub image: Option<ImageSpec>,
    /// Days until it is deleted, where no open job uses it then; kept if absent.
    #[serde(default)]
    pub retain_days: Option<u32>,
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
    /// What became of a table's columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableFacts>,
    /// Names of the classes, by number, where they have some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// When it is deleted, where it is not kept; RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
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
    /// Bytes of one file that arrives in pieces.
    pub file_bytes_max: u64,
    /// Bytes of the spec part.
    pub spec_bytes_max: usize,
    /// Elements of one sample: a 1024 x 1024 image of three channels and a little.
    pub sample_elements_max: u64,
    /// A body that brings nothing for so long has broken off.
    pub silence_max: Duration,
    /// What a body must bring on average, so that nobody trickles for ever: less
    /// than the slowest line of a mobile phone.
    pub bytes_per_s_min: u64,
    /// Bytes of a line of text: a row of the widest sample, generously written.
    pub line_bytes_max: u64,
}

impl Default for UploadLimits {
    fn default() -> Self {
        UploadLimits {
            body_bytes_max: 1 << 30,
            unpacked_bytes_max: 4 << 30,
            file_bytes_max: 4 << 30,
            spec_bytes_max: 64 << 10,
            sample_elements_max: 1 << 22,
            silence_max: Duration::from_secs(30),
            bytes_per_s_min: 4 << 10,
            line_bytes_max: 4 << 20,
        }
    }
}

/// Bytes of a name; it is shown on pages.
const NAME_BYTES_MAX: usize = 100;
/// Bytes of a licence or source note.
const NOTE_BYTES_MAX: usize = 500;
/// Ten years; who wants longer leaves the field out.
const RETAIN_DAYS_MAX: u32 = 3650;
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
        if let Some(days) = self.retain_days
            && !(1..=RETAIN_DAYS_MAX).contains(&days)
        {
            return refuse("retain_days", "1 to 3650, or absent", days.to_string());
        }
        match (self.target, self.classes) {
            (TargetKind::Classes, Some(classes)) if (2..=CLASSES_MAX).contains(&classes) => Ok(()),
            // Labels that are words are counted.
            (TargetKind::Classes, None) if self.format.may_name_classes() => Ok(()),
            (TargetKind::Classes, classes) => {
                let found = classes.map_or("nothing".into(), |classes| classes.to_string());
                refuse("classes", "2 to 65536 where target is classes", found)
            }
            (TargetKind::Values, None) => Ok(()),
            (TargetKind::Values, Some(classes)) => {
                refuse("classes", "absent where target is values", classes.to_string())
            }
        }?;
        if self.format == Format::Images {
            images::check(self)?;
        } else if self.image.is_some() {
            return refuse("image", "absent: it is for images", "a value".into());
        }
        if self.format != Format::Csv && self.header.is_some() {
            return refuse("header", "absent: it is for csv", "a value".into());
        }
        if !self.format.is_table() {
            for (field, given) in [
                ("target_column", self.target_column.is_some()),
                ("sample_shape", self.sample_shape.is_some()),
                ("columns", !self.columns.is_empty()),
                ("standardize", self.standardize),
                ("missing", self.missing != MissingRule::default()),
            ] {
                if given {
                    return refuse(field, "absent: it is for csv and parquet", "a value".into());
                }
            }
        }
        Ok(())
    }
}
