//! What the operating system says of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Where the system sets no bound: more than there are ever connections.
const FILES_WANTED: u64 = 65_536;

/// Memory and files in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub resident_bytes: u64,
    pub open_files: u64,
}

/// The present usage; `None` on systems without `/proc`.
pub fn usage() -> Option<Usage> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    // The listing itself is one of them.
    let open_files = (std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1);
    Some(Usage { resident_bytes: kib << 10, open_files })
}

/// Asks for as many open files as the system lets this process have: every
/// connection is one. Answers how many there may be.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(FILES_WANTED);
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays");
            limit.current.unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_files_are_counted() {
        let before = usage().expect("a system with /proc");
        assert!(before.resident_bytes > 1 << 20);
        let files: Vec<_> =
            (0..50).map(|_| std::fs::File::open("/dev/null").expect("opens")).collect();
        // Other tests open and close files as well.
        assert!(usage().expect("usage").open_files + 20 > before.open_files + files.len() as u64);
        assert!(raise_open_files() >= 256);
    }
}
