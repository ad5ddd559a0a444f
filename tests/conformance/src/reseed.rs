//! Tasks on other operands: what `run.mjs` does in JavaScript, number for number.

use raven_graph::DType;
use raven_protocol::{Frame, FrameLimits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the elements of an operand are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Draw {
    /// f32 from -4 to 4, and among them words taken as they are: infinities, NaN of all kinds,
    /// numbers next to nothing.
    Any,
    /// f32 from -1/4 to 1/4: what training stays finite with.
    Small,
    /// i32: row numbers of a data set, or -1 for padding.
    Rows {
        /// Rows that there are.
        count: u32,
    },
}

impl Draw {
    fn element(self, seed: u32, number: u32) -> u32 {
        let x = word(seed, number);
        // Exact: a number of 24 bits times a power of two.
        let even = |unit: f32| (((x >> 8) as i32 - (1 << 23)) as f32 * unit).to_bits();
        match self {
            Draw::Any if x.is_multiple_of(61) => word(seed ^ 0x5bd1_e995, number + 1),
            Draw::Any => even(1.0 / 2_097_152.0),
            Draw::Small => even(1.0 / 33_554_432.0),
            Draw::Rows { count } => (x % (count + 1)).wrapping_sub(1),
        }
    }
}

/// The `i`-th random word of a seed.
fn word(seed: u32, i: u32) -> u32 {
    let mut x = i.wrapping_mul(0x9e37_79b9).wrapping_add(seed.wrapping_mul(0x85eb_ca6b));
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

/// A task's frame with other operands: those that `draws` names, or any f32.
///
/// # Panics
/// On bytes that are no frame.
pub fn reseeded(task: &[u8], seed: u32, draws: Option<&BTreeMap<String, Draw>>) -> Vec<u8> {
    let frame = Frame::decode(task, &FrameLimits::TO_CONTRIBUTOR).expect("a frame");
    let start = task.as_ptr() as usize;
    let (mut bytes, mut count) = (task.to_vec(), 0u32);
    for tensor in frame.tensors() {
        let draw = match draws {
            Some(draws) => draws.get(tensor.name).copied(),
            None => (tensor.dtype == DType::F32).then_some(Draw::Any),
        };
        let Some(draw) = draw else { continue };
        let at = tensor.data.as_ptr() as usize - start;
        for element in bytes[at..at + tensor.data.len()].as_chunks_mut::<4>().0 {
            *element = draw.element(seed, count).to_le_bytes();
            count += 1;
        }
    }
    bytes
}
