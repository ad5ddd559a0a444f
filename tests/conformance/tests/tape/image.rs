//! Convolution and pooling on burn.

use super::{B, F};
use burn_backend::ops::{FloatTensorOps, ModuleOps};
use burn_std::ops::{ConvOptions, ConvTransposeOptions, PadMode};
use raven_graph::{Conv2dAttrs, Op};

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
        Op::Conv2dInputGrad { attrs, .. } => transposed(attrs, operands, result),
        // Lower than any sample, so that padding never is the maximum.
        Op::MaxPool2d(a) => {
            let x = padded(x, a.padding, -1e30);
            B::max_pool2d(x, wide(a.kernel), wide(a.stride), [0, 0], [1, 1], false)
        }
        Op::AvgPool2d(a) => {
            let x = padded(x, a.padding, 0.0);
            B::avg_pool2d(x, wide(a.kernel), wide(a.stride), [0, 0], true, false)
        }
        other => panic!("{other:?} is not an image op"),
    }
}

/// A convolution's input gradient is a transposed convolution, padded where
/// the stride left rows or columns unread. Padding is symmetric here.
fn transposed(a: &Conv2dAttrs, operands: &[(F, Vec<usize>)], result: &[usize]) -> F {
    let (kernel, dy) = (&operands[0].1[2..], &operands[1].1[2..]);
    let padding = [a.padding[0] as usize, a.padding[2] as usize];
    let (stride, dilation) = (wide(a.stride), wide(a.dilation));
    let unread = [0, 1].map(|side: usize| {
        let covered = (dy[side] - 1) * stride[side] + dilation[side] * (kernel[side] - 1) + 1;
        result[2 + side] + 2 * padding[side] - covered
    });
    let options = ConvTransposeOptions::new(stride, padding, unread, dilation, a.groups as usize);
    B::conv_transpose2d(operands[1].0.clone(), operands[0].0.clone(), None, options)
}
