//! Operands for tests: reproducible, spread out, and away from kinks.

use super::{Bindings, Tensor, dims};
use raven_graph::philox::{unit_f32, word_at};
use raven_graph::{DType, InputSpec, ValidGraph};

/// Numbers in `low..high`, from a seed.
pub fn uniform(seed: u64, dims: &[usize], low: f64, high: f64) -> Tensor {
    let count: usize = dims.iter().product();
    let unit = |e| f64::from(unit_f32(word_at(seed, 0, 0, e)));
    Tensor::f(dims, (0..count as u64).map(|e| low + (high - low) * unit(e)).collect())
}

/// Distinct numbers at least `1 / count` apart in about -1..1, none near 0:
/// what a derivative at ties and kinks needs to be well defined.
pub fn distinct(seed: u64, dims: &[usize]) -> Tensor {
    let count: usize = dims.iter().product();
    let order = raven_graph::philox::permutation(seed, 0, count as u32);
    let value = |&rank: &u32| (f64::from(rank) + 0.5 - count as f64 / 2.0) * 2.0 / count as f64;
    let shifted =
        order.iter().map(value).map(|v| if v.abs() < 1e-3 { 0.4 / count as f64 } else { v });
    Tensor::f(dims, shifted.collect())
}

/// Integers in `0..bound`.
pub fn labels(seed: u64, dims: &[usize], bound: u32) -> Tensor {
    let count: usize = dims.iter().product();
    let draw = |e| i64::from(word_at(seed, 0, 1, e) % bound);
    Tensor::i(dims, (0..count as u64).map(draw).collect())
}

/// Something for every input of a graph: distinct floats, small integers.
pub fn bindings(graph: &ValidGraph, seed: u64) -> Bindings {
    let bind = |(index, input): (usize, &InputSpec)| {
        let (seed, dims) = (seed + index as u64, dims(&input.ty.shape));
        let tensor = match input.ty.dtype {
            // Apart from the other inputs too, for `max` of two.
            DType::F32 => {
                let apart = 0.000_731 * index as f64;
                let floats = distinct(seed, &dims).floats().iter().map(|v| v + apart).collect();
                Tensor::f(&dims, floats)
            }
            dtype => {
                let bound = if dtype == DType::Bool { 2 } else { 3 };
                Tensor { dtype, ..labels(seed, &dims, bound) }
            }
        };
        (input.name.clone(), tensor)
    };
    graph.inputs().iter().enumerate().map(bind).collect()
}
