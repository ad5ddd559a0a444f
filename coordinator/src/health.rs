//! What keeps the coordinator from storing anything, while it does: `/readyz`
//! says so, and so do the jobs that wait for it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// A fault of the machine that passes, or that its operator can mend. Work
/// waits for that; nothing is lost and nothing is promised in the meantime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// No room on the disk, or in the quota.
    StorageFull,
    /// Another process holds the database.
    StoreBusy,
    /// The disk or the file system fails.
    StorageFails,
}

impl Trouble {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::StorageFull => "storage-full",
            Trouble::StoreBusy => "store-busy",
            Trouble::StorageFails => "storage-fails",
        }
    }

    /// A sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Trouble::StorageFull => {
                "the coordinator's disk is full; work goes on once there is room"
            }
            Trouble::StoreBusy => {
                "another process holds the coordinator's database; work goes on once it lets go"
            }
            Trouble::StorageFails => {
                "the coordinator's disk fails; work goes on once it can be written to"
            }
        }
    }

    /// What an error of the file system says of the disk.
    pub fn of_io(error: &io::Error) -> Option<Trouble> {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        /// `EIO`, for which the standard library has no name.
        const INPUT_OUTPUT: i32 = 5;
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Some(Trouble::StorageFull),
            ReadOnlyFilesystem => Some(Trouble::StorageFails),
            _ if error.raw_os_error() == Some(INPUT_OUTPUT) => Some(Trouble::StorageFails),
            _ => None,
        }
    }

    /// What an error of the database says of the disk or the file.
    pub fn of_sqlite(error: &sqlx::Error) -> Option<Trouble> {
        let sqlx::Error::Database(error) = error else { return None };
        let code: u32 = error.code()?.parse().ok()?;
        // The lowest byte is the primary code (https://www.sqlite.org/rescode.html).
        match code & 0xff {
            5 | 6 => Some(Trouble::StoreBusy),
            13 => Some(Trouble::StorageFull),
            8 | 10 | 14 => Some(Trouble::StorageFails),
            _ => None,
        }
    }
}

/// The trouble of one process, if it has one. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    trouble: Arc<Mutex<Option<Trouble>>>,
}

impl Health {
    /// What is the matter now.
    pub fn trouble(&self) -> Option<Trouble> {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is the matter, or that nothing is any more.
    pub fn set(&self, trouble: Option<Trouble>) {
        let mut current = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == trouble {
            return;
        }
        *current = trouble;
        match trouble {
            Some(trouble) => {
                tracing::error!(trouble = trouble.name(), "{}", trouble.sentence());
            }
            None => tracing::info!("records are stored again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_disk_are_told_from_others() {
        let of = |code| Trouble::of_io(&io::Error::from_raw_os_error(code));
        assert_eq!(of(28), Some(Trouble::StorageFull), "ENOSPC");
        assert_eq!(of(122), Some(Trouble::StorageFull), "EDQUOT");
        assert_eq!(of(27), Some(Trouble::StorageFull), "EFBIG");
        assert_eq!(of(5), Some(Trouble::StorageFails), "EIO");
        assert_eq!(of(30), Some(Trouble::StorageFails), "EROFS");
        assert_eq!(of(2), None, "ENOENT");
    }
}
