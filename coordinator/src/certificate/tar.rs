//! As much of the tar format as a bundle needs: regular files, one after another.
//! `tar xf` unpacks what is written here; what is read may come from anybody.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Of a header, and what lengths are rounded up to.
pub const BLOCK: usize = 512;
/// Files of one archive: 40,000 hold the rounds of the longest job.
const FILES_MAX: usize = 65_536;
const NAME_BYTES_MAX: usize = 100;

/// Why an archive is not read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("reading: {0}")]
    Io(#[from] io::Error),
    #[error("no header of a file at byte {at}")]
    Header { at: u64 },
    #[error("it ends in the middle: it was cut, or its download broke off")]
    Cut,
    #[error("more than {FILES_MAX} files")]
    TooMany,
    #[error("{name:?} is in it twice")]
    Twice { name: String },
    #[error("{name:?} is not in it")]
    Missing { name: String },
    #[error("{name:?} has {bytes} bytes, {limit} are the most")]
    TooLong { name: String, bytes: u64, limit: u64 },
}

/// The header of a file. Names are this program's own, at most 100 bytes.
pub fn header(name: &str, bytes: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, &name.as_bytes()[..name.len().min(NAME_BYTES_MAX)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{bytes:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum = format!("{:06o}\0 ", checksum(&block));
    block[148..156].copy_from_slice(sum.as_bytes());
    block
}

/// Zeros that follow a file of so many bytes.
pub fn padding(bytes: u64) -> usize {
    (BLOCK - (bytes % BLOCK as u64) as usize) % BLOCK
}

/// What an archive ends with.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The sum of a header's bytes, its own field taken as spaces.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let own = 148..156;
    block.iter().enumerate().map(|(at, &b)| if own.contains(&at) { 32 } else { u32::from(b) }).sum()
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

/// Name and length of a file, or `None` where the block is no header of one.
fn read_header(block: &[u8; BLOCK]) -> Option<(String, u64)> {
    let sum = octal(&block[148..156])?;
    let is_file = block[156] == b'0' && block[257..262] == *b"ustar";
    if sum != u64::from(checksum(block)) || !is_file {
        return None;
    }
    let name = block[..NAME_BYTES_MAX].split(|&byte| byte == 0).next()?;
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    Some((name.to_owned(), octal(&block[124..136])?))
}

/// An archive's files by name; nothing of them is read before it is asked for.
#[derive(Debug)]
pub struct Archive {
    file: File,
    /// Where each begins, and its bytes.
    files: HashMap<String, (u64, u64)>,
}

impl Archive {
    /// Reads all headers. Blocks.
    ///
    /// # Errors
    /// [`TarError`].
    pub fn open(file: File) -> Result<Self, TarError> {
        let length = file.metadata()?.len();
        let (mut at, mut files) = (0u64, HashMap::new());
        loop {
            let mut block = [0; BLOCK];
            let begin = at.checked_add(BLOCK as u64).filter(|begin| *begin <= length);
            let begin = begin.ok_or(TarError::Cut)?;
            file.read_exact_at(&mut block, at)?;
            if block == [0; BLOCK] {
                return Ok(Archive { file, files });
            }
            let (name, bytes) = read_header(&block).ok_or(TarError::Header { at })?;
            let end = begin.checked_add(bytes).filter(|end| *end <= length);
            let end = end.ok_or(TarError::Cut)?;
            if files.len() >= FILES_MAX {
                return Err(TarError::TooMany);
            }
            if files.insert(name.clone(), (begin, bytes)).is_some() {
                return Err(TarError::Twice { name });
            }
            at = end + padding(bytes) as u64;
        }
    }

    /// Whether a file of that name is in it.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// A whole file of at most `limit` bytes. Blocks.
    ///
    /// # Errors
    /// [`TarError`].
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, TarError> {
        let missing = || TarError::Missing { name: name.to_owned() };
        let &(at, bytes) = self.files.get(name).ok_or_else(missing)?;
        if bytes > limit {
            return Err(TarError::TooLong { name: name.to_owned(), bytes, limit });
        }
        let mut content = vec![0; usize::try_from(bytes).map_err(|_| missing())?];
        self.file.read_exact_at(&mut content, at)?;
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, content) in files {
            let length = content.len() as u64;
            bytes.extend_from_slice(&header(name, length));
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len() + padding(length), 0);
        }
        bytes.extend_from_slice(&END);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<Archive, TarError> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        Archive::open(file)
    }

    #[test]
    fn files_are_read_back_within_their_limit() {
        let long = [7; 1000];
        let bytes = archive(&[("a", b"one"), ("b/c", &long), ("empty", b"")]);
        assert_eq!(bytes.len() % BLOCK, 0);
        let archive = open(&bytes).expect("opens");
        assert_eq!(archive.read("a", 3).expect("read"), b"one");
        assert_eq!(archive.read("b/c", 1000).expect("read"), long);
        assert_eq!(archive.read("empty", 0).expect("read"), b"");
        assert!(matches!(archive.read("a", 2), Err(TarError::TooLong { bytes: 3, .. })));
        assert!(matches!(archive.read("x", 9), Err(TarError::Missing { .. })));
    }

    #[test]
    fn what_is_cut_changed_or_doubled_is_refused_without_a_panic() {
        let bytes = archive(&[("a", b"one"), ("b", b"two")]);
        for cut in 0..bytes.len() - BLOCK {
            assert!(open(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..BLOCK {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            assert!(open(&changed).is_err(), "byte {at}");
        }
        assert!(matches!(open(&archive(&[("a", b"1"), ("a", b"2")])), Err(TarError::Twice { .. })));
        let mut huge = header("a", 1).to_vec();
        huge[124..135].copy_from_slice(b"77777777777");
        let mut block: [u8; BLOCK] = huge.as_slice().try_into().expect("a block");
        let sum = format!("{:06o}\0 ", checksum(&block));
        block[148..156].copy_from_slice(sum.as_bytes());
        assert!(matches!(open(&block), Err(TarError::Cut)));
    }
}
