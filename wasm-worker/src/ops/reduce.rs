//! Reductions. The order of additions is fixed by the shape alone.

use super::elementwise::{maximum, minimum};
use crate::axes::PerAxis;
use crate::buffer::Buffer;
use crate::tensor::Tensor;
use raven_graph::ReduceFn;

/// Independent partial sums of a run, so that four-lane registers are filled twice.
const LANES: usize = 8;
/// Longest run that is summed without halving: beyond it rounding errors grow
/// with the logarithm of the length, not with the length.
const RUN: usize = 256;

/// Parts that are added one after the other before their sum is added to the
/// whole, so that errors grow with the square root of a leading extent.
const BLOCK: usize = 32;

/// Neighbouring axes of one kind, joined.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    reduced: bool,
    extent: usize,
}

fn groups(dims: &[usize], axes: &[u32]) -> PerAxis<Group> {
    let mut groups: PerAxis<Group> = PerAxis::default();
    for (axis, &extent) in dims.iter().enumerate() {
        let reduced = axes.contains(&(axis as u32));
        match groups.last_mut() {
            Some(last) if last.reduced == reduced => last.extent *= extent,
            _ => groups.push(Group { reduced, extent }),
        }
    }
    groups
}

/// How values of one reduction combine.
trait Fold {
    const IDENTITY: f32;
    fn merge(a: f32, b: f32) -> f32;
    fn run(values: &[f32]) -> f32;
}

struct Sum;
struct Max;
struct Min;

impl Fold for Sum {
    const IDENTITY: f32 = 0.0;
    fn merge(a: f32, b: f32) -> f32 {
        a + b
    }
    fn run(values: &[f32]) -> f32 {
        sum(values)
    }
}

impl Fold for Max {
    const IDENTITY: f32 = f32::NEG_INFINITY;
    fn merge(a: f32, b: f32) -> f32 {
        maximum(a, b)
    }
    fn run(values: &[f32]) -> f32 {
        values.iter().fold(Self::IDENTITY, |a, &b| maximum(a, b))
    }
}

impl Fold for Min {
    const IDENTITY: f32 = f32::INFINITY;
    fn merge(a: f32, b: f32) -> f32 {
        minimum(a, b)
    }
    fn run(values: &[f32]) -> f32 {
        values.iter().fold(Self::IDENTITY, |a, &b| minimum(a, b))
    }
}

/// The sum of a run: halves down to short runs, those in eight interleaved lanes.
pub fn sum(values: &[f32]) -> f32 {
    if values.len() > RUN {
        let (head, tail) = values.split_at((values.len() / 2).next_multiple_of(LANES));
        return sum(head) + sum(tail);
    }
    let mut lanes = [0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    let mut total = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6]))
        + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    for &value in rest {
        total += value;
    }
    total
}

fn fold<F: Fold>(values: &[f32], groups: &[Group], out: &mut [f32]) {
    match groups {
        [] => out[0] = F::merge(out[0], values[0]),
        [Group { reduced: true, .. }] => out[0] = F::merge(out[0], F::run(values)),
        [Group { reduced: false, .. }] => {
            for (total, &value) in out.iter_mut().zip(values) {
                *total = F::merge(*total, value);
            }
        }
        [Group { reduced: true, extent }, inner @ ..] => {
            let part = values.len() / extent;
            if *extent <= BLOCK {
                values.chunks_exact(part).for_each(|part| fold::<F>(part, inner, out));
                return;
            }
            let mut sums = Buffer::filled(out.len(), F::IDENTITY);
            for block in values.chunks(part * BLOCK) {
                sums.fill(F::IDENTITY);
                block.chunks_exact(part).for_each(|part| fold::<F>(part, inner, &mut sums));
                for (total, &sum) in out.iter_mut().zip(sums.iter()) {
                    *total = F::merge(*total, sum);
                }
            }
        }
        [Group { reduced: false, extent }, inner @ ..] => {
            let parts = values.chunks_exact(values.len() / extent);
            let step = out.len() / extent;
            for (part, out) in parts.zip(out.chunks_exact_mut(step)) {
                fold::<F>(part, inner, out);
            }
        }
    }
}

/// Bytes of the partial sums that [`reduce`] holds at once beside its result, at most.
pub fn scratch_bytes(dims: &[usize], axes: &[u32]) -> u64 {
    let groups = groups(dims, axes);
    let kept = groups.iter().filter(|group| !group.reduced);
    // Elements of the result that one part of the groups so far adds to.
    let mut out: u64 = kept.map(|group| group.extent as u64).product();
    let mut elements = 0;
    for (at, Group { reduced, extent }) in groups.iter().enumerate() {
        if !reduced {
            out /= *extent as u64;
        } else if *extent > BLOCK && at + 1 < groups.len() {
            elements += out;
        }
    }
    4 * elements
}

/// `x` reduced over `axes` to extents `dims`.
pub fn reduce(function: ReduceFn, x: &Tensor, axes: &[u32], dims: &[usize]) -> Tensor {
    fn run<F: Fold>(x: &Tensor, axes: &[u32], dims: &[usize]) -> Buffer<f32> {
        let mut out = Buffer::filled(dims.iter().product(), F::IDENTITY);
        fold::<F>(x.elements(), &groups(x.dims(), axes), &mut out);
        out
    }
    let out = match function {
        ReduceFn::Sum => run::<Sum>(x, axes, dims),
        ReduceFn::Max => run::<Max>(x, axes, dims),
        ReduceFn::Min => run::<Min>(x, axes, dims),
        ReduceFn::Mean => {
            let mut sums = run::<Sum>(x, axes, dims);
            let count = (x.len() / sums.len()) as f32;
            for sum in sums.iter_mut() {
                *sum /= count;
            }
            sums
        }
    };
    Tensor::of(dims, out)
}

/// The index of the first maximum along `axis`; the first NaN counts as the maximum.
pub fn arg_max(x: &Tensor, axis: usize, dims: &[usize]) -> Tensor {
    let extent = x.dims()[axis];
    let inner: usize = x.dims()[axis + 1..].iter().product();
    let mut buffer = Buffer::empty(dims.iter().product());
    let result: &mut Vec<i32> = &mut buffer;
    for plane in x.elements::<f32>().chunks_exact(extent * inner) {
        for column in 0..inner {
            let mut best = (0, plane[column]);
            for at in 1..extent {
                let value = plane[at * inner + column];
                if value > best.1 || (value.is_nan() && !best.1.is_nan()) {
                    best = (at, value);
                }
            }
            result.push(best.0 as i32);
        }
    }
    Tensor::of(dims, buffer)
}
