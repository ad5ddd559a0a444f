//! Zipped folders of images: the folder that an image lies in is its class.
//!
//! The archive is looked through twice: once for the names and the images'
//! headers, so that size and channels of a sample are known and what does not
//! fit is refused before anything is written, and once for the pixels.

mod decode;
mod folders;

use super::rows::Rows;
use super::unpack::{LimitPassed, read_up_to};
use super::zip::{Zip, ZipLimits};
use super::{DatasetError, DatasetSpec, Features, Target, TargetKind, UploadLimits};
use decode::{Header, Pixels};
use folders::{File as ImageFile, Folders};
use raven_graph::DType;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::sync::Arc;

/// The part that the archive comes in.
pub const PART: &str = "archive";

/// A million small images with paths of 64 bytes or so.
const LIMITS: ZipLimits = ZipLimits { entries_max: 1 << 20, directory_bytes_max: 128 << 20 };
/// Bytes of one image file.
const IMAGE_BYTES_MAX: u64 = 64 << 20;

/// How images become samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageSpec {
    /// Rows and columns that every image is brought to; without it all images
    /// must have one size.
    pub size: Option<[u32; 2]>,
    /// 1 or 3; 3 where any image has colours if absent.
    pub channels: Option<u32>,
    pub resize: Resize,
}

/// How an image is brought to another size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// The nearest pixel.
    Nearest,
    /// Between the four nearest pixels.
    #[default]
    Bilinear,
}

impl ImageSpec {
    /// Checks what can be checked without the images.
    ///
    /// # Errors
    /// The field, what it must be and what it is.
    pub fn check(&self) -> Result<(), (&'static str, &'static str, String)> {
        if let Some(size) = self.size
            && size.contains(&0)
        {
            return Err(("image.size", "rows and columns of at least 1", format!("{size:?}")));
        }
        match self.channels {
            None | Some(1 | 3) => Ok(()),
            Some(channels) => Err(("image.channels", "1 or 3", channels.to_string())),
        }
    }
}

/// Images of one part, read one by one.
pub struct Images {
    source: Arc<Source>,
    files: Vec<ImageFile>,
    read: usize,
}

/// An opened archive: what its samples are, and its two parts.
pub struct Opened {
    pub train: Images,
    /// Where the archive has folders `train` and `test`.
    pub test: Option<Images>,
    pub features: Features,
    pub target: Target,
    /// The classes' names, by number.
    pub labels: Vec<String>,
}

struct Source {
    archive: Zip,
    rows: u32,
    columns: u32,
    channels: u32,
    resize: Resize,
}

/// Opens the archive and looks at every image's header.
///
/// # Errors
/// [`DatasetError`] with the path of what is wrong.
pub fn open(file: File, spec: &DatasetSpec, limits: &UploadLimits) -> Result<Opened, DatasetError> {
    let archive = Zip::open(PART, file, LIMITS)?;
    let Folders { train, test, labels } = folders::sort(&archive)?;
    let headers = headers(&archive, train.iter().chain(test.iter().flatten()), limits)?;
    let classes = labels.len() as u32;
    if classes < 2 {
        let rule = "folders of at least two classes".into();
        return Err(DatasetError::Shape { part: PART, rule, found: vec![classes.into()] });
    }
    if let Some(asked) = spec.classes
        && asked != classes
    {
        let rule = format!("{classes}, the number of folders, or absent");
        return Err(DatasetError::Spec { field: "classes", rule, found: asked.to_string() });
    }
    let ImageSpec { size, channels, resize } = spec.image.unwrap_or_default();
    let [rows, columns] = match size {
        Some(size) => size,
        None => common_size(&headers)?,
    };
    let has_colour = headers.iter().any(|(_, header)| header.has_colour);
    let channels = channels.unwrap_or(if has_colour { 3 } else { 1 });
    let found = u64::from(rows) * u64::from(columns) * u64::from(channels);
    let limit = limits.sample_elements_max;
    if found > limit {
        return Err(DatasetError::Limit { part: PART, field: "sample_elements", limit, found });
    }
    let shape = if channels == 1 { vec![rows, columns] } else { vec![channels, rows, columns] };
    let source = Arc::new(Source { archive, rows, columns, channels, resize });
    let images = |files| Images { source: source.clone(), files, read: 0 };
    Ok(Opened {
        train: images(train),
        test: test.map(images),
        features: Features { dtype: DType::U8, shape },
        target: Target::Classes { classes },
        labels,
    })
}

/// Size and colours of every image; their files are unpacked within the limits.
fn headers<'a>(
    archive: &Zip,
    files: impl Iterator<Item = &'a ImageFile>,
    limits: &UploadLimits,
) -> Result<Vec<(&'a str, Header)>, DatasetError> {
    let mut left = limits.unpacked_bytes_max;
    let mut headers = Vec::new();
    for file in files {
        let bytes = unpack(archive, file)?;
        left = left.checked_sub(bytes.len() as u64).ok_or({
            let (limit, found) = (limits.unpacked_bytes_max, limits.unpacked_bytes_max + 1);
            DatasetError::Limit { part: PART, field: "unpacked_bytes", limit, found }
        })?;
        headers.push((file.path.as_str(), decode::header(&bytes).map_err(refuse(file))?));
    }
    Ok(headers)
}

fn common_size(headers: &[(&str, Header)]) -> Result<[u32; 2], DatasetError> {
    // There are at least two classes with an image each.
    let Some((first, Header { size, .. })) = headers.first() else { return Ok([0, 0]) };
    match headers.iter().find(|(_, header)| header.size != *size) {
        None => Ok(*size),
        Some((path, other)) => Err(DatasetError::Entry {
            part: PART,
            entry: (*path).to_owned(),
            rule: format!(
                "{} x {} pixels as in {first:?}, or spec.image.size be given",
                size[0], size[1]
            ),
            found: format!("{} x {} pixels", other.size[0], other.size[1]),
        }),
    }
}

fn refuse(file: &ImageFile) -> impl FnOnce(decode::Refusal) -> DatasetError {
    let entry = file.path.clone();
    |decode::Refusal { rule, found }| DatasetError::Entry { part: PART, entry, rule, found }
}

/// The whole bytes of an image's file.
fn unpack(archive: &Zip, file: &ImageFile) -> Result<Vec<u8>, DatasetError> {
    let refuse = |rule: String, found: String| DatasetError::Entry {
        part: PART,
        entry: file.path.clone(),
        rule,
        found,
    };
    let mut source = archive
        .read(&file.entry, IMAGE_BYTES_MAX)
        .map_err(|reason| refuse("readable".into(), reason))?;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let have = read_up_to(&mut source, &mut chunk).map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<LimitPassed>()) {
                Some(passed) => DatasetError::Limit {
                    part: PART,
                    field: "image_bytes",
                    limit: passed.limit,
                    found: passed.limit + 1,
                },
                None => refuse("readable".into(), error.to_string()),
            }
        })?;
        bytes.extend_from_slice(&chunk[..have]);
        if have < chunk.len() {
            return Ok(bytes);
        }
    }
}

impl Images {
    fn read_image(&mut self, x: &mut Vec<u8>, y: &mut Vec<u8>) -> Result<(), DatasetError> {
        let file = &self.files[self.read];
        let Source { archive, rows, columns, channels, resize } = &*self.source;
        let bytes = unpack(archive, file)?;
        let pixels = decode::pixels(&bytes).map_err(refuse(file))?;
        let pixels: Pixels = pixels.with_channels(*channels).resized([*rows, *columns], *resize);
        pixels.planes(x);
        y.extend_from_slice(&(file.class as i32).to_le_bytes());
        self.read += 1;
        Ok(())
    }
}

impl Rows for Images {
    fn left(&self) -> u64 {
        (self.files.len() - self.read) as u64
    }

    fn read(&mut self, count: u64, x: &mut Vec<u8>, y: &mut Vec<u8>) -> Result<(), DatasetError> {
        (0..count).try_for_each(|_| self.read_image(x, y))
    }

    fn finish(&mut self) -> Result<(), DatasetError> {
        Ok(())
    }
}

/// What the format asks of the spec.
///
/// # Errors
/// [`DatasetError::Spec`].
pub fn check(spec: &DatasetSpec) -> Result<(), DatasetError> {
    if spec.target == TargetKind::Values {
        let rule = "classes: the folders are".into();
        return Err(DatasetError::Spec { field: "target", rule, found: "values".into() });
    }
    let image = spec.image.unwrap_or_default();
    image.check().map_err(|(field, rule, found)| DatasetError::Spec {
        field,
        rule: rule.into(),
        found,
    })
}
