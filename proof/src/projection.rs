//! Random projections of a result's tensors: a few numbers that tell how far
//! two tensors are apart, whichever they are.
//!
//! Whoever holds a committed result is asked for these under a seed that was
//! drawn afterwards; so the answer can be compared without the payload, and a
//! payload that is revealed later must give the same.
//!
//! # The definition
//! Projection `p` of tensor `t` is the sum over elements `e`, row-major from 0,
//! of `s(e) x(e)` with a sign `s(e)` of +1 or -1:
//!
//! - `block = e / 128`; Philox 4x32-10 with the key
//!   `[seed mod 2^32, seed / 2^32]` and the counter
//!   `[block mod 2^32, t, p, block / 2^32]` gives four words.
//! - Of word `(e mod 128) / 32` it is bit `e mod 32`, counted from the least
//!   significant: 0 is +1, 1 is -1.
//!
//! Elements are widened to f64, which is exact. A block has four sums, which
//! begin with +0: element `e` goes to sum `e mod 4`, in order. The block's value is
//! `(sum 0 + sum 1) + (sum 2 + sum 3)`, and the projection is `+0` plus the
//! values of the blocks, in order. So every implementation has the same bits, NaN apart.

use raven_graph::philox::{key, philox4x32};

/// Elements that share a block of random words.
const BLOCK: usize = 128;
/// Sums of a block.
const LANES: usize = 4;

/// Bytes that are no f32 tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} bytes are not a whole number of f32 elements")]
pub struct NotF32 {
    /// Length of what was given.
    pub found: usize,
}

/// The first `probes` projections of tensor `tensor` of a result under `seed`.
///
/// A projection is not finite where an element is not.
pub fn project(seed: u64, tensor: u32, probes: u32, elements: &[f32]) -> Vec<f64> {
    project_blocks(seed, tensor, probes, elements.chunks(BLOCK), |&x| x)
}

/// As [`project`], of the little-endian bytes that a frame carries.
///
/// # Errors
/// [`NotF32`] where their number is no multiple of four.
pub fn project_bytes(
    seed: u64,
    tensor: u32,
    probes: u32,
    bytes: &[u8],
) -> Result<Vec<f64>, NotF32> {
    let (elements, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(NotF32 { found: bytes.len() });
    }
    let blocks = elements.chunks(BLOCK);
    Ok(project_blocks(seed, tensor, probes, blocks, |&x| f32::from_le_bytes(x)))
}

fn project_blocks<'a, T: 'a>(
    seed: u64,
    tensor: u32,
    probes: u32,
    blocks: impl Iterator<Item = &'a [T]>,
    read: impl Fn(&T) -> f32,
) -> Vec<f64> {
    let key = key(seed);
    let mut sums = vec![0f64; probes as usize];
    let mut values = [0f64; BLOCK];
    for (number, block) in blocks.enumerate() {
        let values = &mut values[..block.len()];
        for (value, element) in values.iter_mut().zip(block) {
            *value = f64::from(read(element));
        }
        let number = number as u64;
        for (probe, sum) in sums.iter_mut().enumerate() {
            let counter = [number as u32, tensor, probe as u32, (number >> 32) as u32];
            *sum += signed_sum(values, philox4x32(counter, key));
        }
    }
    sums
}

/// The value of a block.
fn signed_sum(values: &[f64], words: [u32; 4]) -> f64 {
    let mut sums = [0f64; LANES];
    for (values, word) in values.chunks(32).zip(words) {
        for (at, &value) in values.iter().enumerate() {
            // Turning the sign bit is a multiplication by -1, NaN apart.
            let sign = u64::from(word >> at & 1) << 63;
            sums[at % LANES] += f64::from_bits(value.to_bits() ^ sign);
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word for word.
    fn defined(seed: u64, tensor: u32, probe: u32, elements: &[f32]) -> f64 {
        let sign = |e: usize| {
            let block = (e / 128) as u64;
            let key = [(seed % (1 << 32)) as u32, (seed / (1 << 32)) as u32];
            let counter = [(block % (1 << 32)) as u32, tensor, probe, (block / (1 << 32)) as u32];
            let word = philox4x32(counter, key)[e % 128 / 32];
            if word & (1 << (e % 32)) == 0 { 1.0 } else { -1.0 }
        };
        let mut total = 0f64;
        for first in (0..elements.len()).step_by(128) {
            let mut sums = [0f64; 4];
            for e in first..elements.len().min(first + 128) {
                sums[e % 4] += sign(e) * f64::from(elements[e]);
            }
            total += (sums[0] + sums[1]) + (sums[2] + sums[3]);
        }
        total
    }

    proptest! {
        #[test]
        fn projections_are_as_defined(
            seed: u64, tensor: u32, elements in prop::collection::vec(-1e20f32..1e20, 0..400),
        ) {
            let found = project(seed, tensor, 3, &elements);
            for (probe, found) in (0..).zip(&found) {
                prop_assert_eq!(found.to_bits(), defined(seed, tensor, probe, &elements).to_bits());
            }
            let bytes: Vec<u8> = elements.iter().flat_map(|x| x.to_le_bytes()).collect();
            prop_assert_eq!(project_bytes(seed, tensor, 3, &bytes), Ok(found));
        }
    }

    /// For implementations in other languages; a Python one gave these.
    #[test]
    fn a_known_tensor_has_known_projections() {
        let elements: Vec<f32> = (0..300).map(|e| e as f32 * 0.25 - 30.0).collect();
        let found = project(0x0123_4567_89ab_cdef, 2, 4, &elements);
        assert_eq!(found, [189.5, -751.0, -410.5, -144.0]);
        assert_eq!(project(7, 0, 4, &[1.0; 8]), [0.0, 4.0, 0.0, -2.0]);
    }

    #[test]
    fn squares_of_projections_average_to_the_square_of_the_norm() {
        let elements: Vec<f32> = (0..1000).map(|e| ((e * 37) % 101) as f32 - 50.0).collect();
        let square: f64 = elements.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let found = project(3, 0, 2000, &elements);
        let mean = found.iter().map(|p| p * p).sum::<f64>() / 2000.0;
        assert!((mean / square - 1.0).abs() < 0.15, "{mean} {square}");
    }

    #[test]
    fn odd_bytes_are_refused_and_what_is_not_finite_shows() {
        assert_eq!(project_bytes(1, 0, 1, &[0; 7]), Err(NotF32 { found: 7 }));
        assert!(!project(1, 0, 1, &[1.0, f32::NAN])[0].is_finite());
        assert_eq!(project(1, 0, 2, &[]), [0.0, 0.0]);
    }
}
