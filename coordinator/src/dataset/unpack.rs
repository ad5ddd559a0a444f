//! Readers that stop where a bound is passed: gzip, lengths, lines.

use super::DatasetError;
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BUFFER_BYTES: usize = 256 << 10;

/// Opens a file and unpacks it where it is gzip. Reading fails with
/// [`LimitPassed`] past `bytes_max` unpacked bytes.
pub fn open(path: &Path, bytes_max: u64) -> io::Result<Box<dyn Read + Send>> {
    let mut file = File::open(path)?;
    let packed = is_gzip(&mut file)?;
    let file = BufReader::with_capacity(BUFFER_BYTES, file);
    if packed {
        Ok(Box::new(Bounded::new(MultiGzDecoder::new(file), bytes_max)))
    } else {
        Ok(Box::new(Bounded::new(file, bytes_max)))
    }
}

/// Opens a file for random access; a gzip file is first unpacked to a temporary
/// file beside it, which has no name any more when this returns.
pub fn open_seekable(path: &Path, bytes_max: u64) -> io::Result<File> {
    let mut file = File::open(path)?;
    if !is_gzip(&mut file)? {
        return Ok(file);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut source = MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, file));
    spool(&mut source, folder, bytes_max)
}

fn is_gzip(file: &mut File) -> io::Result<bool> {
    let mut magic = [0; 2];
    let have = read_up_to(file, &mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(have == 2 && magic == GZIP_MAGIC)
}

/// Fills the buffer as far as the source goes.
pub fn read_up_to(source: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match source.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// A bound that was passed while reading, inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("more than {limit} bytes of {what}")]
pub struct LimitPassed {
    pub what: &'static str,
    pub limit: u64,
}

impl LimitPassed {
    fn into_error(self) -> io::Error {
        io::Error::other(self)
    }
}

/// Turns a reader's error into one about the file.
pub fn read_error(part: &'static str) -> impl Fn(io::Error) -> DatasetError {
    move |error| {
        let passed = error.get_ref().and_then(|inner| inner.downcast_ref::<LimitPassed>());
        match passed {
            Some(LimitPassed { what, limit }) => {
                DatasetError::Limit { part, field: what, limit: *limit, found: limit + 1 }
            }
            None => DatasetError::Unreadable { part, reason: error.to_string() },
        }
    }
}

/// Reads at most so many bytes and fails, rather than ends, at one more.
struct Bounded<R> {
    source: R,
    left: u64,
    limit: u64,
}

impl<R> Bounded<R> {
    fn new(source: R, limit: u64) -> Self {
        Bounded { source, left: limit, limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => {
                self.left = left;
                Ok(read)
            }
            None => Err(LimitPassed { what: "unpacked_bytes", limit: self.limit }.into_error()),
        }
    }
}

/// Fails where a line is longer than allowed, before anyone has collected it.
pub struct LineBound<R> {
    source: BufReader<R>,
    line_bytes: u64,
    limit: u64,
}

impl<R: Read> LineBound<R> {
    pub fn new(source: R, limit: u64) -> Self {
        LineBound { source: BufReader::new(source), line_bytes: 0, limit }
    }
}

impl<R: Read> Read for LineBound<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.source.fill_buf()?;
        let count = available.len().min(buffer.len());
        for &byte in &available[..count] {
            self.line_bytes = if byte == b'\n' { 0 } else { self.line_bytes + 1 };
            if self.line_bytes > self.limit {
                return Err(LimitPassed { what: "line_bytes", limit: self.limit }.into_error());
            }
        }
        buffer[..count].copy_from_slice(&available[..count]);
        self.source.consume(count);
        Ok(count)
    }
}

/// Copies a reader into a file that has no name any more when this returns.
pub fn spool(source: &mut dyn Read, folder: &Path, bytes_max: u64) -> io::Result<File> {
    let number = u64::from_le_bytes(crate::random::bytes());
    let mut file = nameless(&folder.join(format!("{number:016x}.spool")))?;
    io::copy(&mut Bounded::new(source, bytes_max), &mut file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn nameless(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// A reader that fails with [`LimitPassed`] past so many bytes.
pub fn bounded(source: impl Read + Send, bytes_max: u64) -> impl Read + Send {
    Bounded::new(source, bytes_max)
}

/// A range of a file, read without moving the file's own position.
pub struct Section {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Section {
    /// The bytes `start..end`; `start` is not after `end`.
    pub fn new(file: Arc<File>, start: u64, end: u64) -> Self {
        Section { file, position: start, end }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..count], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}
