//! Links: first in, first out, with a rate and a latency each way.

use crate::faults::{MS, Micros};

/// The coordinator's link, shared by everybody.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    /// Bytes per second out of the coordinator.
    pub out_bytes_per_s: u64,
    /// Bytes per second into the coordinator.
    pub in_bytes_per_s: u64,
}

impl Network {
    /// 10 Gbit/s each way.
    pub const TEN_GIGABIT: Network =
        Network { out_bytes_per_s: 1_250_000_000, in_bytes_per_s: 1_250_000_000 };
    /// 1 Gbit/s each way.
    pub const GIGABIT: Network =
        Network { out_bytes_per_s: 125_000_000, in_bytes_per_s: 125_000_000 };
}

/// One contributor's link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkSpec {
    /// One way.
    pub latency_us: Micros,
    pub down_bytes_per_s: u64,
    pub up_bytes_per_s: u64,
}

impl LinkSpec {
    /// A household: 25 ms one way, 100 Mbit/s down, 40 Mbit/s up.
    pub const HOUSEHOLD: LinkSpec =
        LinkSpec { latency_us: 25 * MS, down_bytes_per_s: 12_500_000, up_bytes_per_s: 5_000_000 };
}

/// One direction of a link: when it is free again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lane {
    free_at: Micros,
}

impl Lane {
    /// Puts `bytes` on the lane; when the last of them has left it.
    pub fn send(&mut self, now: Micros, bytes: u64, bytes_per_s: u64) -> Micros {
        let time = u128::from(bytes) * 1_000_000 / u128::from(bytes_per_s.max(1));
        self.free_at = self.free_at.max(now) + time as u64;
        self.free_at
    }
}
