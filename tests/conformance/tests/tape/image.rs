//! Convolution and pooling on burn.

use super::{B, F};
use burn_backend::TensorMetadata;
use burn_backend::backend::AutodiffBackend;
use burn_backend::ops::{FloatTensorOps, ModuleOps};
use burn_std::Slice;
use burn_std::ops::{ConvOptions, ConvTransposeOptions, PadMode};
use raven_graph::{Conv2dAttrs, Op};
use std::ops::Range;

fn wide(pair: [u32; 2]) -> [usize; 2] {
    pair.map(|side| side as usize)
}

/// Pads rows and columns; burn's own padding is taken to be symmetric.
fn padded(x: F, [top, bottom, left, right]: [u32; 4], value: f32) -> F {
    let sides = [(top, bottom), (left, right)].map(|(a, b)| (a as usize, b as usize));
    B::float_pad(x, &[(0, 0), (0, 0), sides[0], sides[1]], PadMode::Constant(value))
}

/// `result` is the shape that the op must give.
pub fn apply(op: &Op, operands: &[(F, Vec<usize>)], result: &[usize]) -> F {
    let x = operands[0].0.clone();
    match op {
        Op::Conv2d(a) => {
            let options =
                ConvOptions::new(wide(a.stride), [0, 0], wide(a.dilation), a.groups as usize);
            B::conv2d(padded(x, a.padding, 0.0), operands[1].0.clone(), None, options)
        }
        Op::Conv2dInputGrad { attrs, .. } => {
            transposed(attrs, x, operands[1].0.clone(), &operands[1].1, result)
        }
        Op::Conv2dWeightGrad { attrs, .. } => correlated(attrs, operands, result),
        // Lower than any sample, so that padding never is the maximum.
        Op::MaxPool2d(a) => {
            let x = padded(x, a.padding, -1e30);
            B::max_pool2d(x, wide(a.kernel), wide(a.stride), [0, 0], [1, 1], false)
        }
        Op::AvgPool2d(a) => {
            let x = padded(x, a.padding, 0.0);
            B::avg_pool2d(x, wide(a.kernel), wide(a.stride), [0, 0], true, false)
        }
        // The mean's adjoint is a transposed convolution of each channel with
        // a window of equal weights.
        Op::AvgPool2dGrad { attrs, .. } => {
            let [rows, columns] = wide(attrs.kernel);
            let dims = [result[1], 1, rows, columns];
            let weights = vec![1.0 / (rows * columns) as f32; result[1] * rows * columns];
            let window = B::from_inner(raven_worker::Tensor::new(&dims, weights).into_burn());
            let geometry = Conv2dAttrs {
                stride: attrs.stride,
                padding: attrs.padding,
                dilation: [1, 1],
                groups: result[1] as u32,
            };
            transposed(&geometry, window, x, &operands[0].1, result)
        }
        other => panic!("{other:?} is not an image op"),
    }
}

/// A convolution's input gradient is a transposed convolution, cut out of the
/// padded image; rows and columns that the stride left unread get zeros.
fn transposed(a: &Conv2dAttrs, weight: F, dy: F, dy_dims: &[usize], image: &[usize]) -> F {
    let options = ConvTransposeOptions::new(
        wide(a.stride),
        [0; 2],
        [0; 2],
        wide(a.dilation),
        a.groups as usize,
    );
    let mut ranges = vec![0..image[0], 0..image[1]];
    let mut unread = [0u32; 4];
    let kernel = weight.shape();
    for side in 0..2 {
        let [before, after] = [a.padding[2 * side], a.padding[2 * side + 1]].map(|p| p as usize);
        let steps = (dy_dims[2 + side] - 1) * a.stride[side] as usize;
        let covered = steps + a.dilation[side] as usize * (kernel[2 + side] - 1) + 1;
        let extent = image[2 + side];
        unread[2 * side + 1] = (before + extent + after - covered) as u32;
        ranges.push(before..before + extent);
    }
    let whole = padded(B::conv_transpose2d(dy, weight, None, options), unread, 0.0);
    slice(whole, &ranges)
}

/// A convolution's weight gradient: each group's images, with samples and
/// channels exchanged, under their result gradients as the kernel, where
/// stride and dilation have changed places.
fn correlated(a: &Conv2dAttrs, operands: &[(F, Vec<usize>)], weight: &[usize]) -> F {
    let x = padded(operands[0].0.clone(), a.padding, 0.0);
    let (dims, dy) = (x.shape(), &operands[1]);
    let options = ConvOptions::new(wide(a.dilation), [0, 0], wide(a.stride), 1);
    let filters = weight[0] / a.groups as usize;
    let group = |g: usize| {
        let channels = g * weight[1]..(g + 1) * weight[1];
        let x = slice(x.clone(), &[0..dims[0], channels, 0..dims[2], 0..dims[3]]);
        let (rows, columns) = (0..dy.1[2], 0..dy.1[3]);
        let dy = slice(dy.0.clone(), &[0..dy.1[0], g * filters..(g + 1) * filters, rows, columns]);
        let (x, dy) = (B::float_swap_dims(x, 0, 1), B::float_swap_dims(dy, 0, 1));
        let taps = B::float_swap_dims(B::conv2d(x, dy, None, options.clone()), 0, 1);
        // Rows that the stride left unread would be taps beyond the kernel's.
        slice(taps, &[0..filters, 0..weight[1], 0..weight[2], 0..weight[3]])
    };
    B::float_cat((0..a.groups as usize).map(group).collect(), 0)
}

fn slice(x: F, ranges: &[Range<usize>]) -> F {
    let ranges: Vec<Slice> = ranges.iter().cloned().map(Into::into).collect();
    B::float_slice(x, &ranges)
}
