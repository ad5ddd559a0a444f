//! Counter-based random tensors.

use super::RunContext;
use crate::buffer::Buffer;
use crate::tensor::Tensor;
use raven_graph::Distribution;
use raven_graph::philox::{key, philox4x32, unit_f32};

/// The least uniform that the normal distribution takes a logarithm of: half a
/// step below the first positive one.
const HALF_STEP: f32 = 1.0 / 33_554_432.0;

/// A tensor whose element `i` depends on seed, run, stream and `i` alone.
///
/// Normal numbers come in pairs: elements `2j` and `2j + 1` are the cosine and
/// sine branch of Box-Muller over words `2j` and `2j + 1`.
pub fn random(
    distribution: Distribution,
    dims: &[usize],
    stream: u32,
    context: RunContext,
) -> Tensor {
    let count: usize = dims.iter().product();
    let key = key(context.seed);
    // Rounded up to whole blocks of four, so that a pair is never split.
    let mut buffer = Buffer::empty(count.next_multiple_of(4));
    let elements: &mut Vec<f32> = &mut buffer;
    for block in 0..count.div_ceil(4) as u64 {
        let counter = [block as u32, stream, context.run, (block >> 32) as u32];
        let words = philox4x32(counter, key);
        match distribution {
            Distribution::Uniform => elements.extend(words.map(unit_f32)),
            Distribution::Normal => {
                elements.extend(normal_pair(words[0], words[1]));
                elements.extend(normal_pair(words[2], words[3]));
            }
        }
    }
    elements.truncate(count);
    Tensor::of(dims, buffer)
}

/// Two independent standard normal numbers. The angle is taken in f64, where
/// argument reduction costs no digits.
fn normal_pair(first: u32, second: u32) -> [f32; 2] {
    let radius = libm::sqrtf(-2.0 * libm::logf(unit_f32(first) + HALF_STEP));
    let angle = f64::from(unit_f32(second)) * std::f64::consts::TAU;
    [radius * libm::cos(angle) as f32, radius * libm::sin(angle) as f32]
}
