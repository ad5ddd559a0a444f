//! How much memory all this may take: a part of what the machine has, said before
//! anybody agrees.

use super::pace::Pace;

const MIB: u64 = 1 << 20;
/// Part of the machine's memory that all instances may have together, one in so many.
const INSTANCES_OF_ALL: u64 = 4;
/// Below this an instance holds no task worth having; the coordinator plans with as much
/// for a visitor's worker at most.
const INSTANCE_BYTES: (u64, u64) = (128 * MIB, 512 * MIB);
/// Part of the machine's memory for frames that are kept, one in so many.
const KEPT_OF_ALL: u64 = 16;
/// One frame of the longest fits; more than a few jobs' worth is of no use.
const KEPT_BYTES: (u64, u64) = (256 * MIB, 1024 * MIB);
/// Where a system does not say what it has.
const UNKNOWN: u64 = 2048 * MIB;

/// Bounds of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// Of graphs, blobs and values that one worker's instance may hold.
    pub(super) instance_bytes: u64,
    /// Of frames that are kept for all workers.
    pub(super) kept_bytes: u64,
    workers: u32,
}

impl Memory {
    /// Bounds for this machine. Blocks.
    pub(super) fn of(pace: Pace) -> Self {
        let told = std::fs::read_to_string("/proc/meminfo").ok();
        Self::within(told.as_deref().and_then(total).unwrap_or(UNKNOWN), pace.workers)
    }

    fn within(all_bytes: u64, workers: u32) -> Self {
        let instance = all_bytes / INSTANCES_OF_ALL / u64::from(workers.max(1));
        Memory {
            instance_bytes: instance.clamp(INSTANCE_BYTES.0, INSTANCE_BYTES.1),
            kept_bytes: (all_bytes / KEPT_OF_ALL).clamp(KEPT_BYTES.0, KEPT_BYTES.1),
            workers,
        }
    }

    /// All that may be taken: instances, kept frames, and tasks that wait.
    pub(super) fn total_bytes(self) -> u64 {
        let queue = super::pool::QUEUE_BYTES_MAX as u64;
        self.instance_bytes * u64::from(self.workers) + self.kept_bytes + queue
    }
}

/// The machine's memory, as `/proc/meminfo` has it.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_gives_a_part_of_its_memory() {
        let of = |gib: u64, workers| {
            let memory = Memory::within(gib << 30, workers);
            (memory.instance_bytes / MIB, memory.kept_bytes / MIB, memory.total_bytes() / MIB)
        };
        assert_eq!(of(4, 4), (256, 256, 4 * 256 + 256 + 256));
        assert_eq!(of(64, 2), (512, 1024, 2 * 512 + 1024 + 256));
        assert_eq!(of(1, 8), (128, 256, 8 * 128 + 256 + 256));
    }

    #[test]
    fn the_system_says_what_it_has() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 * MIB));
        for bad in ["", "MemTotal: x kB", "MemTotal: 18446744073709551615 kB"] {
            assert_eq!(total(bad), None, "{bad}");
        }
    }
}
