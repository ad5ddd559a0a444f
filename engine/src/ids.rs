//! Tables by what nobody outside chooses: leases, whose ids are drawn from a secret
//! seed, and numbers that are counted. So a few multiplications tell their keys apart.
//! Tables by what outsiders choose take std's keyed hash: so do those by blobs, since
//! whoever uploads them can look for content whose hashes collide. Nothing may depend on
//! the order of either.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A table by such an id.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;
/// A set of such ids.
pub(crate) type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// Mixes what it is given, eight bytes at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_u128(&mut self, n: u128) {
        self.write_u64(n as u64 ^ (n >> 64) as u64);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    /// A product's upper bits are the mixed ones, and tables look at the lower too.
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn counted_numbers_fall_into_places_of_their_own() {
        let hash = |n: u64| BuildHasherDefault::<IdHasher>::default().hash_one(n);
        let places: IdSet<u64> = (0..4_096).map(|n| hash(n) % 4_096).collect();
        // As many as of numbers that are drawn: 1 - 1/e of them.
        assert!(places.len() > 2_400, "{} places", places.len());
        let tags: IdSet<u64> = (0..4_096).map(|n| hash(n) >> 57).collect();
        assert_eq!(tags.len(), 128);
    }
}
