//! Operands of every kind, and faults of a stated size in a product. The example
//! `gpu_products` of the GPU kernels has them too.

use raven_graph::philox::{key, philox4x32, unit_f32};

/// What operands look like.
#[derive(Clone, Copy, Debug)]
pub enum Numbers {
    /// Around zero.
    Centred,
    /// Of one sign, so that sums grow and roundings do not cancel.
    Positive,
    /// One number everywhere: roundings are as systematic as they get.
    Constant,
    /// Over thirty orders of magnitude.
    Wide,
    /// Half of them zero, as behind a ReLU.
    Sparse,
    /// Around the smallest normal number.
    Tiny,
}

pub const NUMBERS: [Numbers; 6] = [
    Numbers::Centred,
    Numbers::Positive,
    Numbers::Constant,
    Numbers::Wide,
    Numbers::Sparse,
    Numbers::Tiny,
];

pub fn numbers(kind: Numbers, count: usize, seed: u64, stream: u32) -> Vec<f32> {
    let number = |i: u32| {
        let words = philox4x32([i, stream, 0, 0], key(seed));
        let (x, y) = (unit_f32(words[0]), unit_f32(words[1]));
        match kind {
            Numbers::Centred => x - 0.5,
            Numbers::Positive => x,
            Numbers::Constant => 0.1 + (seed % 10_000) as f32 * 1e-3,
            Numbers::Wide => (x - 0.5) * 10f32.powf(30.0 * y - 15.0),
            Numbers::Sparse => (x - 0.5).max(0.0),
            Numbers::Tiny => (x - 0.5) * 3e-19 * 10f32.powf(-2.0 * y),
        }
    };
    (0..count as u32).map(number).collect()
}

/// What an element becomes that is off by `fault` at least, upwards or downwards: rounding to
/// f32 does not make the fault smaller than it is said to be.
pub fn off_by(honest: f32, fault: f64, upwards: bool) -> f32 {
    let sign = if upwards { 1.0 } else { -1.0 };
    let mut faulty = (f64::from(honest) + sign * fault) as f32;
    while (f64::from(faulty) - f64::from(honest)).abs() < fault {
        faulty = if upwards { faulty.next_up() } else { faulty.next_down() };
    }
    faulty
}
