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
//! Elements are widened to f64, which is exact for every element type; a bool is 0
//! or 1. A block has four sums, which begin with +0: element `e` goes to sum
//! `e mod 4`, in order. The block's value is `(sum 0 + sum 1) + (sum 2 + sum 3)`, and
//! the projection is `+0` plus the values of the blocks, in order. So every
//! implementation has the same bits, NaN apart, which is written as
//! `0x7ff8000000000000` ([`to_bytes`]).

use raven_graph::DType;
use raven_graph::philox::{key, philox4x32};

/// Bytes of a projection where it is written down: a little-endian f64.
pub const PROJECTION_BYTES: usize = 8;

/// Elements that share a block of random words.
const BLOCK: usize = 128;
/// Sums of a block.
const LANES: usize = 4;

/// Bytes that are no whole number of elements.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} bytes are not a whole number of elements of {size}")]
pub struct NotWhole {
    /// Length of what was given.
    pub found: usize,
    /// Bytes of an element.
    pub size: usize,
}

/// The first `probes` projections of tensor `tensor` of a result under `seed`.
///
/// A projection is not finite where an element is not.
pub fn project(seed: u64, tensor: u32, probes: u32, elements: &[f32]) -> Vec<f64> {
    project_blocks(seed, tensor, probes, elements.chunks(BLOCK), |&x| x.into())
}

/// As [`project`], of the little-endian bytes of elements of `dtype` that a frame carries.
///
/// # Errors
/// [`NotWhole`].
pub fn project_bytes(
    seed: u64,
    tensor: u32,
    probes: u32,
    dtype: DType,
    bytes: &[u8],
) -> Result<Vec<f64>, NotWhole> {
    let words = || {
        let (elements, rest) = bytes.as_chunks::<4>();
        let whole = NotWhole { found: bytes.len(), size: 4 };
        if rest.is_empty() { Ok(elements.chunks(BLOCK)) } else { Err(whole) }
    };
    Ok(match dtype {
        DType::F32 => {
            project_blocks(seed, tensor, probes, words()?, |&x| f32::from_le_bytes(x).into())
        }
        DType::I32 => {
            project_blocks(seed, tensor, probes, words()?, |&x| i32::from_le_bytes(x).into())
        }
        DType::U8 | DType::Bool => {
            project_blocks(seed, tensor, probes, bytes.chunks(BLOCK), |&x| x.into())
        }
    })
}

/// Projections as they are written down: [`PROJECTION_BYTES`] each.
pub fn to_bytes(projections: &[f64]) -> Vec<u8> {
    let canonical = |&x: &f64| if x.is_nan() { 0x7ff8_0000_0000_0000 } else { x.to_bits() };
    projections.iter().flat_map(|x| canonical(x).to_le_bytes()).collect()
}

/// Reads what [`to_bytes`] writes.
///
/// # Errors
/// [`NotWhole`].
pub fn from_bytes(bytes: &[u8]) -> Result<Vec<f64>, NotWhole> {
    let (numbers, rest) = bytes.as_chunks::<PROJECTION_BYTES>();
    let whole = NotWhole { found: bytes.len(), size: PROJECTION_BYTES };
    let read = || numbers.iter().map(|&x| f64::from_le_bytes(x)).collect();
    if rest.is_empty() { Ok(read()) } else { Err(whole) }
}

fn project_blocks<'a, T: 'a>(
    seed: u64,
    tensor: u32,
    probes: u32,
    blocks: impl Iterator<Item = &'a [T]>,
    read: impl Fn(&T) -> f64,
) -> Vec<f64> {
    let key = key(seed);
    let mut sums = vec![0f64; probes as usize];
    let mut values = [0f64; BLOCK];
    for (number, block) in blocks.enumerate() {
        let values = &mut values[..block.len()];
        for (value, element) in values.iter_mut().zip(block) {
            *value = read(element);
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
            let of_bytes = project_bytes(seed, tensor, 3, DType::F32, &bytes);
            prop_assert_eq!(of_bytes, Ok(found.clone()));
            prop_assert_eq!(from_bytes(&to_bytes(&found)), Ok(found));
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
        let odd = NotWhole { found: 7, size: 4 };
        assert_eq!(project_bytes(1, 0, 1, DType::F32, &[0; 7]), Err(odd));
        assert_eq!(from_bytes(&[0; 7]), Err(NotWhole { found: 7, size: 8 }));
        assert!(!project(1, 0, 1, &[1.0, f32::NAN])[0].is_finite());
        assert_eq!(project(1, 0, 2, &[]), [0.0, 0.0]);
        let negative = f64::from_bits(0xfff8_0000_0000_0001);
        assert_eq!(to_bytes(&[negative]), 0x7ff8_0000_0000_0000u64.to_le_bytes());
    }

    #[test]
    fn elements_of_every_type_are_projected_by_value() {
        let numbers: Vec<i32> = (0..300).map(|e| (e * 7919) % 251 - 125).collect();
        let floats: Vec<f32> = numbers.iter().map(|&x| x as f32).collect();
        let words: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(project_bytes(5, 1, 4, DType::I32, &words), Ok(project(5, 1, 4, &floats)));
        let bits: Vec<u8> = (0..200).map(|e| u8::from(e % 3 == 0)).collect();
        let floats: Vec<f32> = bits.iter().map(|&x| x.into()).collect();
        for dtype in [DType::U8, DType::Bool] {
            assert_eq!(project_bytes(5, 1, 4, dtype, &bits), Ok(project(5, 1, 4, &floats)));
        }
    }
}
