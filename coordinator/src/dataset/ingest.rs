//! From uploaded files to a stored data set's facts and shards.

use super::npz::Npz;
use super::rows::{Array, Pair, Rows};
use super::safetensors::Safetensors;
use super::shards::ShardWriter;
use super::table::csv::Csv;
use super::table::parquet::Parquet;
use super::table::{Table, TableFacts};
use super::unpack::{self, read_error};
use super::{
    DatasetError, DatasetFacts, DatasetSpec, Features, Format, Target, UploadLimits, idx, images,
    npy,
};
use crate::blobs::Blobs;
use crate::store::StoredShard;
use crate::time::UnixMs;
use raven_protocol::BlobId;
use std::path::{Path, PathBuf};

/// The file parts that a format can have, in the order in which they are asked for.
const ARRAYS: [&str; 4] = ["train_x", "train_y", "test_x", "test_y"];
const TABLE: &str = "table";

/// The files of one upload.
#[derive(Debug, Default)]
pub struct Upload {
    files: Vec<(&'static str, PathBuf)>,
}

/// What an upload came to.
#[derive(Debug)]
pub struct Ingested {
    pub facts: DatasetFacts,
    pub shards: Vec<StoredShard>,
    /// Blobs that were not there before, to be removed where the data set cannot be stored.
    pub created: Vec<BlobId>,
}

impl Upload {
    /// The part of that name as the format takes it, before its bytes are read.
    ///
    /// # Errors
    /// [`DatasetError::UnexpectedPart`] for other names and for a second file of one name.
    pub fn expect(&self, format: Format, name: &str) -> Result<&'static str, DatasetError> {
        let allowed: &[&'static str] = match format {
            Format::Idx | Format::Npy => &ARRAYS,
            Format::Npz | Format::Csv | Format::Parquet | Format::Safetensors => &[TABLE],
            Format::Images => &[images::PART],
        };
        let unexpected = |rule| {
            let part = name.chars().take(40).collect();
            Err(DatasetError::UnexpectedPart { part, rule })
        };
        match allowed.iter().find(|allowed| **allowed == name) {
            Some(part) if self.path(part).is_none() => Ok(part),
            Some(_) => unexpected("came twice"),
            None if format == Format::Images => unexpected("this format takes one file, archive"),
            None if allowed.len() == 1 => unexpected("this format takes one file, table"),
            None => unexpected("this format takes train_x, train_y, test_x and test_y"),
        }
    }

    /// Adds a file that has been received whole.
    pub fn add(&mut self, part: &'static str, path: PathBuf) {
        self.files.push((part, path));
    }

    fn path(&self, part: &str) -> Option<&Path> {
        self.files.iter().find(|(name, _)| *name == part).map(|(_, path)| path.as_path())
    }

    /// The only file of a format that takes one.
    fn only(&self, part: &'static str, format: Format) -> Result<&Path, DatasetError> {
        let missing = DatasetError::MissingPart { part, format: format.name(), takes: "one file" };
        self.path(part).ok_or(missing)
    }
}

/// Rows to train on, and rows to test on where they came apart.
struct Opened {
    train: Box<dyn Rows>,
    test: Option<Box<dyn Rows>>,
    part: &'static str,
    features: Features,
    target: Target,
    table: Option<TableFacts>,
    labels: Option<Vec<String>>,
}

/// Reads the files and writes their rows to shards. Blocks.
///
/// # Errors
/// [`DatasetError`]; blobs written before it are removed again.
pub fn ingest(
    spec: &DatasetSpec,
    upload: &Upload,
    blobs: &Blobs,
    limits: &UploadLimits,
) -> Result<Ingested, DatasetError> {
    spec.check()?;
    let mut opened = open(spec, upload, limits)?;
    let mut writer = ShardWriter::new(blobs, opened.features.clone(), opened.target);
    let rows = match write(&mut writer, spec, &mut opened) {
        Ok(rows) => rows,
        Err(error) => {
            for blob in writer.created {
                // What stays is removed at the next start.
                let _ = blobs.remove(blob);
            }
            return Err(error);
        }
    };
    let facts = DatasetFacts {
        name: spec.name.clone(),
        format: spec.format,
        train_rows: rows.train as u32,
        test_rows: rows.test as u32,
        features: opened.features,
        target: opened.target,
        scale: spec.scale,
        license: spec.license.clone(),
        source: spec.source.clone(),
        bytes: writer.shards.iter().map(|stored| stored.shard.bytes).sum(),
        table: opened.table,
        labels: opened.labels,
        expires_at: spec.retain_days.map(|days| UnixMs::now().plus_days(days).rfc3339()),
    };
    Ok(Ingested { facts, shards: writer.shards, created: writer.created })
}

pub(super) struct Counts {
    pub train: u64,
    pub test: u64,
}

fn write(
    writer: &mut ShardWriter<'_>,
    spec: &DatasetSpec,
    opened: &mut Opened,
) -> Result<Counts, DatasetError> {
    let total = opened.train.left();
    writer.check(opened.part, total)?;
    let rows = match &opened.test {
        Some(test) => Counts { train: total, test: test.left() },
        None => held_out(opened.part, total, spec.test_fraction)?,
    };
    writer.write(opened.train.as_mut(), rows.train, false)?;
    match &mut opened.test {
        Some(test) => {
            writer.check("test_x", rows.test)?;
            opened.train.finish()?;
            writer.write(test.as_mut(), rows.test, true)?;
            test.finish()?;
        }
        None => {
            writer.write(opened.train.as_mut(), rows.test, true)?;
            opened.train.finish()?;
        }
    }
    Ok(rows)
}

/// Splits off the last rows; both parts get at least one.
pub(super) fn held_out(
    part: &'static str,
    total: u64,
    fraction: f64,
) -> Result<Counts, DatasetError> {
    if total < 2 {
        let rule = "at least two rows, one of them to test on".into();
        return Err(DatasetError::Shape { part, rule, found: vec![total] });
    }
    let test = ((total as f64 * fraction).round() as u64).clamp(1, total - 1);
    Ok(Counts { train: total - test, test })
}

fn open(
    spec: &DatasetSpec,
    upload: &Upload,
    limits: &UploadLimits,
) -> Result<Opened, DatasetError> {
    let unpacked_max = limits.unpacked_bytes_max;
    match spec.format {
        Format::Idx | Format::Npy => open_pairs(spec, |name| {
            let Some(path) = upload.path(name) else { return Ok(None) };
            let source = unpack::open(path, unpacked_max).map_err(read_error(name))?;
            let open = if spec.format == Format::Idx { idx::open } else { npy::open };
            open(name, source, limits).map(Some)
        }),
        Format::Npz => {
            let path = upload.only(TABLE, spec.format)?;
            let file = unpack::open_seekable(path, unpacked_max).map_err(read_error(TABLE))?;
            let archive = Npz::open(TABLE, file)?;
            open_pairs(spec, |name| archive.array(name, limits))
        }
        Format::Safetensors => {
            let path = upload.only(TABLE, spec.format)?;
            let file = unpack::open_seekable(path, unpacked_max).map_err(read_error(TABLE))?;
            let tensors = Safetensors::open(TABLE, file)?;
            open_pairs(spec, |name| tensors.array(name, limits))
        }
        Format::Images => {
            let path = upload.only(images::PART, spec.format)?;
            let file = unpack::open_seekable(path, unpacked_max);
            let opened = images::open(file.map_err(read_error(images::PART))?, spec, limits)?;
            let images::Opened { train, test, features, target, labels } = opened;
            Ok(Opened {
                train: Box::new(train),
                test: test.map(|test| Box::new(test) as Box<dyn Rows>),
                part: images::PART,
                features,
                target,
                table: None,
                labels: Some(labels),
            })
        }
        Format::Parquet => {
            let path = upload.only(TABLE, spec.format)?;
            let file = unpack::open_seekable(path, unpacked_max).map_err(read_error(TABLE))?;
            let records = Parquet::open(file, limits)?;
            open_table(Table::open(Box::new(records), spec, limits)?)
        }
        Format::Csv => {
            let records = Csv::open(upload.only(TABLE, spec.format)?, spec.header, limits)?;
            open_table(Table::open(Box::new(records), spec, limits)?)
        }
    }
}

fn open_table(table: Table) -> Result<Opened, DatasetError> {
    let (features, target) = (table.features.clone(), table.target);
    let facts = table.facts.clone();
    let labels = facts.labels().map(<[String]>::to_vec);
    let (train, table) = (Box::new(table), Some(facts));
    Ok(Opened { train, test: None, part: TABLE, features, target, table, labels })
}

/// Opens the arrays by name and checks that they go together.
fn open_pairs(
    spec: &DatasetSpec,
    mut array: impl FnMut(&'static str) -> Result<Option<Array>, DatasetError>,
) -> Result<Opened, DatasetError> {
    let format = spec.format;
    let missing = |part: &'static str| match format {
        Format::Idx | Format::Npy => DatasetError::MissingPart {
            part,
            format: format.name(),
            takes: "train_x, train_y and, together, test_x and test_y",
        },
        _ => DatasetError::MissingArray { part: TABLE, array: part },
    };
    let [train_x, train_y, test_x, test_y] = ARRAYS;
    let x = array(train_x)?.ok_or_else(|| missing(train_x))?;
    let y = array(train_y)?.ok_or_else(|| missing(train_y))?;
    let train = Pair::new(x, y, spec.target, spec.classes)?;
    let test = match (array(test_x)?, array(test_y)?) {
        (Some(x), Some(y)) => Some(Pair::new(x, y, spec.target, spec.classes)?),
        (None, None) => None,
        (Some(_), None) => return Err(missing(test_y)),
        (None, Some(_)) => return Err(missing(test_x)),
    };
    if let Some(test) = &test {
        check_alike(&train, test)?;
    }
    let (features, target, part) = (train.features.clone(), train.target, train.part());
    let test = test.map(|test| Box::new(test) as Box<dyn Rows>);
    Ok(Opened { train: Box::new(train), test, part, features, target, table: None, labels: None })
}

fn check_alike(train: &Pair, test: &Pair) -> Result<(), DatasetError> {
    if train.features != test.features {
        let Features { dtype, shape } = &train.features;
        let rule = format!("samples of {dtype}{shape:?} as in train_x");
        let found = test.features.shape.iter().map(|&extent| extent.into()).collect();
        return Err(DatasetError::Shape { part: "test_x", rule, found });
    }
    if train.target != test.target {
        let rule = "as wide as train_y".into();
        let found = vec![super::rows::target_width(test.target).into()];
        return Err(DatasetError::Shape { part: "test_y", rule, found });
    }
    Ok(())
}
