//! Which entries of an archive are images, of which class and part.

use super::PART;
use crate::dataset::DatasetError;
use crate::dataset::zip::{Zip, ZipEntry};
use std::collections::{BTreeSet, HashSet};

/// Folders above an image: more is no folder of images.
const DEPTH_MAX: usize = 16;
/// Bytes of a class's name: it is reported with the data set.
const CLASS_BYTES_MAX: usize = 200;

/// An image in the archive.
pub struct File {
    pub path: String,
    pub entry: ZipEntry,
    /// Its class among the sorted ones.
    pub class: u32,
}

/// The images of an archive, each part in an order that mixes the classes.
pub struct Folders {
    pub train: Vec<File>,
    pub test: Option<Vec<File>>,
    pub labels: Vec<String>,
}

fn refuse(path: &str, rule: &str, found: &str) -> DatasetError {
    DatasetError::Entry {
        part: PART,
        entry: path.to_owned(),
        rule: rule.into(),
        found: found.into(),
    }
}

/// What a path says: the part, where it names one, and the class.
struct Place<'a> {
    part: Option<&'static str>,
    class: &'a str,
}

/// Reads `[..]/[train|test]/class/image`. `None` for folders and for files that
/// systems leave behind.
fn place(path: &str) -> Result<Option<Place<'_>>, DatasetError> {
    let parts: Vec<&str> = path.split('/').collect();
    let is_left_over = |part: &&str| part.starts_with('.') || *part == "__MACOSX";
    if path.ends_with('/') || parts.iter().any(is_left_over) {
        return Ok(None);
    }
    if parts.len() > DEPTH_MAX {
        return Err(refuse(path, "in at most 15 folders", &format!("{}", parts.len() - 1)));
    }
    let [.., class, _] = parts.as_slice() else {
        return Err(refuse(path, "in the folder of its class", "no folder"));
    };
    if class.len() > CLASS_BYTES_MAX {
        return Err(refuse(path, "in a folder with a name of at most 200 bytes", "more"));
    }
    let part = match parts.len().checked_sub(3).map(|above| parts[above]) {
        Some("train") => Some("train"),
        Some("test") => Some("test"),
        _ => None,
    };
    Ok(Some(Place { part, class }))
}

/// Sorts an archive's entries into classes and parts.
///
/// # Errors
/// [`DatasetError::Entry`] with the path.
pub fn sort(archive: &Zip) -> Result<Folders, DatasetError> {
    let mut found = Vec::new();
    let mut paths = HashSet::new();
    let mut labels = BTreeSet::new();
    for entry in archive.entries()? {
        let name = archive.name(&entry);
        let Ok(path) = std::str::from_utf8(name) else {
            let path = String::from_utf8_lossy(name);
            return Err(refuse(&path, "a path in UTF-8", "other bytes"));
        };
        let Some(Place { part, class }) = place(path)? else { continue };
        if !paths.insert(path.to_owned()) {
            return Err(refuse(path, "in the archive once", "twice"));
        }
        labels.insert(class.to_owned());
        found.push((path.to_owned(), entry, class.to_owned(), part));
    }
    let labels: Vec<String> = labels.into_iter().collect();
    // Files of one class lie together, and rows are shuffled near each other
    // only: the hash of its path gives each a place that is the same every time.
    found
        .sort_by_cached_key(|(path, ..)| (*blake3::hash(path.as_bytes()).as_bytes(), path.clone()));
    let is_divided = found.iter().any(|(.., part)| part.is_some());
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (path, entry, class, part) in found {
        if is_divided && part.is_none() {
            return Err(refuse(&path, "below train or test, as other images are", "elsewhere"));
        }
        // Every class was put there above.
        let class = labels.binary_search(&class).unwrap_or_default() as u32;
        let files = if part == Some("test") { &mut test } else { &mut train };
        files.push(File { path, entry, class });
    }
    for (files, part) in [(&train, "train"), (&test, "test")] {
        if files.is_empty() && (is_divided || part == "train") {
            let rule = "at least one image in every part".into();
            return Err(DatasetError::Shape { part: PART, rule, found: vec![0] });
        }
    }
    Ok(Folders { train, test: is_divided.then_some(test), labels })
}
