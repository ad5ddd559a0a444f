//! Counter-based random numbers: Philox 4x32-10.
//!
//! A block of four words is a pure function of a counter and a key, so any
//! element of any random tensor can be computed alone, in any order, anywhere.
//! Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

const MULTIPLIER_0: u32 = 0xD251_1F53;
const MULTIPLIER_1: u32 = 0xCD9E_8D57;
const WEYL_0: u32 = 0x9E37_79B9;
const WEYL_1: u32 = 0xBB67_AE85;
const ROUNDS: u32 = 10;

/// Four random words for a counter under a key.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL_0), key[1].wrapping_add(WEYL_1)];
        }
        let wide_0 = u64::from(MULTIPLIER_0) * u64::from(counter[0]);
        let wide_1 = u64::from(MULTIPLIER_1) * u64::from(counter[2]);
        counter = [
            (wide_1 >> 32) as u32 ^ counter[1] ^ key[0],
            wide_1 as u32,
            (wide_0 >> 32) as u32 ^ counter[3] ^ key[1],
            wide_0 as u32,
        ];
    }
    counter
}

/// Splits a 64-bit seed into a Philox key, low word first.
pub const fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// Derives an independent seed from a parent seed and a path of numbers,
/// e.g. job seed and round.
pub fn derive_seed(seed: u64, path: [u32; 4]) -> u64 {
    let words = philox4x32(path, key(seed));
    u64::from(words[0]) | (u64::from(words[1]) << 32)
}

/// Maps a word to [0, 1) with 24 bits of resolution, exactly representable in f32.
pub fn unit_f32(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// The word at `element` of a random tensor: counter
/// `[element / 4 (low), stream, micro_batch, element / 4 (high)]`, lane `element % 4`.
pub fn word_at(seed: u64, micro_batch: u32, stream: u32, element: u64) -> u32 {
    let block = element / 4;
    let counter = [block as u32, stream, micro_batch, (block >> 32) as u32];
    philox4x32(counter, key(seed))[(element % 4) as usize]
}

/// A permutation of `0..len` by Fisher-Yates, drawn without modulo bias that
/// would matter (64-bit multiply-shift).
pub fn permutation(seed: u64, stream: u32, len: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len).collect();
    for i in (1..len).rev() {
        let words = philox4x32([i, stream, 0x5045_524d, 0], key(seed));
        let wide = u64::from(words[0]) | (u64::from(words[1]) << 32);
        let j = ((u128::from(wide) * u128::from(i + 1)) >> 64) as u32;
        order.swap(i as usize, j as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    // Known-answer vectors published with the Random123 library (kat_vectors).
    #[test]
    fn matches_the_published_vectors() {
        let ones = u32::MAX;
        assert_eq!(
            philox4x32([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32([ones; 4], [ones; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut seen = permutation(7, 3, 1000);
        assert_ne!(seen, (0..1000).collect::<Vec<_>>());
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    }
}
