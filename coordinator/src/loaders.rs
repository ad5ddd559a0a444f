//! The loaders that partners may have pinned, kept in the data folder: a tag
//! with `integrity` works for as long as the very bytes that it names are served.

use crate::embed::short_hash;
use crate::files::StaticFile;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Loaders that are kept: one a month for some years. All are held in memory.
const KEPT_MAX: usize = 64;
/// A loader may have 6 kB packed; a file of this size is not one.
const BYTES_MAX: u64 = 64 << 10;

/// `raven-` and 16 hex digits of the bytes' hash.
pub fn loader_name(bytes: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes);
    format!("raven-{}.js", short_hash(&hasher))
}

/// A kept file and when a coordinator last started with it as its own.
struct Kept {
    name: String,
    path: PathBuf,
    used: SystemTime,
    file: StaticFile,
}

/// Writes `present` into `folder`, which is made where it is missing, and
/// answers all loaders there by their names. The ones that were present
/// longest ago are removed where there are more than [`KEPT_MAX`].
///
/// # Errors
/// Those of reading and writing. A file whose bytes are not those of its name
/// is no error: it is not served.
pub fn keep(folder: &Path, present: Option<&StaticFile>) -> io::Result<Vec<(String, StaticFile)>> {
    fs::create_dir_all(folder)?;
    if let Some(file) = present {
        write(folder, file)?;
    }
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder)? {
        kept.extend(read(&entry?.path())?);
    }
    kept.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.name.cmp(&b.name)));
    for surplus in kept.drain(kept.len().min(KEPT_MAX)..) {
        tracing::info!(loader = surplus.name, "no longer kept");
        fs::remove_file(surplus.path)?;
    }
    Ok(kept.into_iter().map(|kept| (kept.name, kept.file)).collect())
}

/// Writes a loader whole or not at all, and notes that it is in use now.
fn write(folder: &Path, file: &StaticFile) -> io::Result<()> {
    let path = folder.join(loader_name(&file.bytes));
    let is_there = fs::read(&path).is_ok_and(|bytes| bytes == file.bytes);
    if !is_there {
        let part = path.with_extension("part");
        let mut written = File::create(&part)?;
        written.write_all(&file.bytes)?;
        written.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(folder)?.sync_all()?;
    }
    #[expect(clippy::disallowed_methods, reason = "files carry times of day")]
    let now = SystemTime::now();
    File::options().append(true).open(&path)?.set_modified(now)
}

/// The loader in that file; none where it is something else or has rotted.
fn read(path: &Path) -> io::Result<Option<Kept>> {
    let about = fs::metadata(path)?;
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or("").to_owned();
    if !about.is_file() || about.len() > BYTES_MAX {
        return Ok(None);
    }
    let file = StaticFile::read(path)?;
    if loader_name(&file.bytes) != name {
        tracing::warn!(file = %path.display(), "not a loader of that name: it is not served");
        return Ok(None);
    }
    Ok(Some(Kept { name, path: path.to_owned(), used: about.modified()?, file }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn loader(text: &str) -> StaticFile {
        StaticFile::new("text/javascript; charset=utf-8", text.into()).expect("packed")
    }

    fn names(kept: &[(String, StaticFile)]) -> Vec<&str> {
        kept.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn what_is_not_the_loader_of_its_name_is_not_served() {
        let folder = tempfile::tempdir().expect("a folder");
        let good = loader("good");
        let rotten = folder.path().join(loader_name(b"was good"));
        fs::write(&rotten, "is bad").expect("written");
        fs::write(folder.path().join("raven-0.part"), "half").expect("written");
        fs::create_dir(folder.path().join("raven-folder.js")).expect("made");
        let long = vec![b' '; BYTES_MAX as usize + 1];
        fs::write(folder.path().join(loader_name(&long)), &long).expect("written");
        let kept = keep(folder.path(), Some(&good)).expect("kept");
        assert_eq!(names(&kept), [loader_name(b"good")]);
        assert_eq!(kept[0].1.content_type, good.content_type);
        // A rotten file of the present loader's name is made good.
        let kept = keep(folder.path(), Some(&loader("was good"))).expect("kept");
        assert_eq!(kept.len(), 2);
        assert_eq!(fs::read(&rotten).expect("read"), b"was good");
    }

    #[test]
    fn those_that_were_present_longest_ago_make_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let text = |n: usize| format!("loader {n}");
        for n in 0..=KEPT_MAX {
            keep(folder.path(), Some(&loader(&text(n)))).expect("kept");
            let path = folder.path().join(loader_name(text(n).as_bytes()));
            let time = start + Duration::from_secs(n as u64);
            let file = File::options().append(true).open(path).expect("opened");
            file.set_modified(time).expect("dated");
        }
        // The first is in use again, so that the second is the oldest.
        let kept = keep(folder.path(), Some(&loader(&text(0)))).expect("kept");
        assert_eq!(kept.len(), KEPT_MAX);
        let names = names(&kept);
        let has = |n: usize| names.contains(&loader_name(text(n).as_bytes()).as_str());
        assert!(has(0) && !has(1) && has(2) && has(KEPT_MAX));
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), KEPT_MAX);
    }
}
