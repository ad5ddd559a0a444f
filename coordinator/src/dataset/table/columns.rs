//! What a column is, as asked for and as found.

use serde::{Deserialize, Serialize};

/// What a requester may say of a column; the rest is seen from its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColumnSpec {
    /// Taken from the first value that is there if absent.
    pub kind: Option<ColumnKind>,
    /// Whether mean 0 and deviation 1 are given to it; the table's choice if absent.
    pub standardize: Option<bool>,
}

/// How a column's values are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    Number,
    /// One feature for each value that the training rows hold.
    Category,
    /// Not a feature.
    Ignore,
}

/// What is done about values that are not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingRule {
    /// The mean of a number column, the most frequent value of a category
    /// column; of the training rows.
    #[default]
    Impute,
    Refuse,
}

/// How a table became features, in the order of its columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableFacts {
    /// Whether the file names its columns.
    pub header: bool,
    pub columns: Vec<ColumnFacts>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnFacts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(flatten)]
    pub encoding: Encoding,
}

/// How a column's values become numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Encoding {
    /// `(value - mean) / deviation` where those are given, else the value.
    Number {
        /// Its place among the features.
        feature: u32,
        #[serde(default, skip_serializing_if = "Missing::is_none")]
        missing: Missing,
        /// What stands for values that are not there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        imputed: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        standard: Option<Standard>,
    },
    /// A 1 in the place of the value, 0 in all others; a value that is none of
    /// the categories has zeros only.
    Category {
        /// The place of the first category among the features.
        feature: u32,
        /// In the order of their features, which is that of their bytes.
        categories: Vec<String>,
        #[serde(default, skip_serializing_if = "Missing::is_none")]
        missing: Missing,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        imputed: Option<String>,
        /// Held-out rows with a value that no training row has.
        #[serde(default, skip_serializing_if = "is_zero")]
        unknown: u64,
    },
    Ignored,
    Target {
        /// The words of the classes, by number, where they are words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        labels: Option<Vec<String>>,
    },
}

/// Values that are not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub train: u64,
    pub test: u64,
}

impl Missing {
    fn is_none(&self) -> bool {
        *self == Missing::default()
    }
}

/// Of the training rows' values; the deviation is that of the population, and
/// 1 where all values are equal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standard {
    pub mean: f64,
    pub deviation: f64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl TableFacts {
    /// The words of the classes, where they are words.
    pub fn labels(&self) -> Option<&[String]> {
        self.columns.iter().find_map(|column| match &column.encoding {
            Encoding::Target { labels } => labels.as_deref(),
            _ => None,
        })
    }
}

impl Encoding {
    /// Features that the column becomes.
    pub fn width(&self) -> usize {
        match self {
            Encoding::Number { .. } => 1,
            Encoding::Category { categories, .. } => categories.len(),
            Encoding::Ignored | Encoding::Target { .. } => 0,
        }
    }
}
