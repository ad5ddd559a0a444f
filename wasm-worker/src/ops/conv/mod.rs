//! Two-dimensional convolution and its gradients.
//!
//! Two ways, chosen by extents alone so that the same shapes give the same
//! bits: [`framed`] reads patches where they lie in a framed copy of the image;
//! [`unrolled`] copies them, for input gradients of strided convolutions and
//! where a frame would be nearly all zeros, and multiplies pointwise ones as
//! they are.

mod framed;
mod geometry;
mod unrolled;

use crate::buffer::Buffer;
use crate::gemm::{self, Finish};
use crate::tensor::{Tensor, dims_of};
use framed::{Correlation, WeightGradient};
use geometry::Geometry;
use raven_graph::{Conv2dAttrs, Op, TensorType};

/// `x [n, c, h, w]`, `weight [o, c / groups, kh, kw]` to `dims = [n, o, oh, ow]`; `finish` is
/// told of each image.
pub fn forward(
    attrs: &Conv2dAttrs,
    x: &Tensor,
    weight: &Tensor,
    dims: &[usize],
    finish: &mut Finish<'_>,
) -> Tensor {
    let geometry = Geometry::new(attrs, x.dims(), weight.dims(), dims);
    let (images, weights) = (x.elements::<f32>(), weight.elements::<f32>());
    let mut result = Buffer::stale(dims.iter().product());
    let Some(extents) = geometry.framed() else {
        unrolled::forward(&geometry, images, weights, &mut result);
        finish(0, &mut result);
        return Tensor::of(dims, result);
    };
    for group in 0..geometry.groups {
        let weights = &weights[geometry.weight_range(group)];
        let mut correlation = Correlation::new(extents, geometry.filters, weights);
        for image in 0..geometry.images {
            let range = geometry.out_range(image, group);
            let (at, out) = (range.start, &mut result[range]);
            correlation.run(&images[geometry.image_range(image, group)], out);
            finish(at, out);
        }
    }
    Tensor::of(dims, result)
}

/// `weight [o, c / groups, kh, kw]`, `dy [n, o, oh, ow]` to `dims = [n, c, h, w]`.
pub fn input_grad(attrs: &Conv2dAttrs, weight: &Tensor, dy: &Tensor, dims: &[usize]) -> Tensor {
    let geometry = Geometry::new(attrs, dims, weight.dims(), dy.dims());
    let (weights, grads) = (weight.elements::<f32>(), dy.elements::<f32>());
    let mut result = Buffer::filled(dims.iter().product(), 0f32);
    let Some(extents) = geometry.framed_input_grad() else {
        unrolled::input_grad(&geometry, weights, grads, &mut result);
        return Tensor::of(dims, result);
    };
    for group in 0..geometry.groups {
        let turned = turned(&geometry, &weights[geometry.weight_range(group)]);
        let mut correlation = Correlation::new(extents, geometry.channels, &turned);
        for image in 0..geometry.images {
            let dx = &mut result[geometry.image_range(image, group)];
            correlation.run(&grads[geometry.out_range(image, group)], dx);
        }
    }
    Tensor::of(dims, result)
}

/// Kernels `[filters, channels, taps]` turned by half a circle, as `[channels, filters, taps]`:
/// the input gradient is a correlation of `dy` with them.
fn turned(geometry: &Geometry, weights: &[f32]) -> Buffer<f32> {
    let (taps, channels) = (geometry.taps(), geometry.channels);
    let mut turned = Buffer::empty(weights.len());
    for channel in 0..channels {
        for kernels in weights.chunks_exact(channels * taps) {
            turned.extend(kernels[channel * taps..][..taps].iter().rev());
        }
    }
    turned
}

/// `x [n, c, h, w]`, `dy [n, o, oh, ow]` to `dims = [o, c / groups, kh, kw]`,
/// added image by image.
pub fn weight_grad(attrs: &Conv2dAttrs, x: &Tensor, dy: &Tensor, dims: &[usize]) -> Tensor {
    let geometry = Geometry::new(attrs, x.dims(), dims, dy.dims());
    let (images, grads) = (x.elements::<f32>(), dy.elements::<f32>());
    let mut result = Buffer::filled(dims.iter().product(), 0f32);
    let Some(extents) = geometry.framed() else {
        unrolled::weight_grad(&geometry, images, grads, &mut result);
        return Tensor::of(dims, result);
    };
    for group in 0..geometry.groups {
        let mut gradient = WeightGradient::new(extents, geometry.filters);
        let dw = &mut result[geometry.weight_range(group)];
        for image in 0..geometry.images {
            let dy = &grads[geometry.out_range(image, group)];
            gradient.add(&images[geometry.image_range(image, group)], dy, dw);
        }
    }
    Tensor::of(dims, result)
}

/// Bytes that a convolution needs beyond its operands and its result; 0 for other ops.
pub fn scratch_bytes(op: &Op, operands: &[&TensorType], out: &TensorType) -> u64 {
    let dims = |ty: &TensorType| dims_of(&ty.shape);
    let (geometry, extents, right) = match op {
        Op::Conv2d(attrs) => {
            let (x, weight, out) = (dims(operands[0]), dims(operands[1]), dims(out));
            let geometry = Geometry::new(attrs, &x, &weight, &out);
            (geometry, geometry.framed(), geometry.right_elements()[0])
        }
        Op::Conv2dInputGrad { attrs, .. } => {
            let (weight, dy, out) = (dims(operands[0]), dims(operands[1]), dims(out));
            let geometry = Geometry::new(attrs, &out, &weight, &dy);
            (geometry, geometry.framed_input_grad(), geometry.right_elements()[1])
        }
        Op::Conv2dWeightGrad { attrs, .. } => {
            let (x, dy, out) = (dims(operands[0]), dims(operands[1]), dims(out));
            let geometry = Geometry::new(attrs, &x, &out, &dy);
            (geometry, geometry.framed(), geometry.right_elements()[2])
        }
        _ => return 0,
    };
    match extents {
        Some(extents) => extents.scratch_words().saturating_add(right).saturating_mul(4),
        None => {
            let tile = unrolled::tile_elements_max(&geometry).saturating_mul(4);
            gemm::PACK_BYTES_MAX.saturating_add(tile)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_graph::philox::{key, philox4x32, unit_f32};

    fn numbers(dims: &[usize], stream: u32) -> Tensor {
        let count = dims.iter().product::<usize>() as u32;
        let number = |i| unit_f32(philox4x32([i, stream, 0, 0], key(5))[0]) - 0.5;
        Tensor::new(dims, (0..count).map(number).collect())
    }

    fn close(found: &Tensor, expected: &[f32], what: &str) {
        for (at, (x, y)) in found.elements::<f32>().iter().zip(expected).enumerate() {
            assert!((x - y).abs() < 1e-4, "{what}: {x} at {at}, expected {y}");
        }
    }

    /// Where both ways serve, they agree; the framed one must serve the common cases.
    #[test]
    fn framed_and_unrolled_agree() {
        let mut served = 0;
        // [rows, columns, kernel rows, kernel columns, top, bottom, left, right,
        // row stride, column stride, row dilation, column dilation, groups]
        let cases: [[u32; 13]; 15] = [
            [28, 28, 5, 5, 2, 2, 2, 2, 1, 1, 1, 1, 1],
            [14, 14, 5, 5, 2, 2, 2, 2, 1, 1, 1, 1, 2],
            [7, 7, 3, 3, 0, 0, 0, 0, 1, 1, 1, 1, 1],
            [9, 8, 3, 1, 0, 2, 0, 0, 2, 1, 1, 1, 1],
            [9, 20, 2, 3, 1, 0, 4, 0, 1, 1, 3, 2, 2],
            [6, 16, 1, 2, 0, 0, 0, 1, 1, 1, 1, 1, 1],
            [11, 24, 4, 4, 3, 3, 3, 3, 3, 1, 1, 1, 1],
            [5, 9, 3, 3, 5, 5, 1, 1, 1, 1, 1, 1, 1],
            [5, 6, 5, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1],
            [12, 13, 3, 3, 1, 1, 1, 1, 2, 2, 1, 1, 1],
            [15, 11, 7, 5, 3, 3, 2, 2, 2, 3, 1, 1, 2],
            [4, 3, 2, 2, 0, 0, 0, 0, 1, 1, 1, 1, 6],
            // Strides so wide that the image begins beyond what is read, or ends there.
            [4, 4, 1, 1, 0, 0, 3, 0, 1, 9, 1, 1, 1],
            [4, 4, 1, 1, 3, 0, 0, 0, 9, 1, 1, 1, 2],
            [4, 4, 2, 2, 6, 1, 6, 1, 9, 9, 1, 1, 1],
        ];
        for case in cases {
            let [h, w, kh, kw, top, bottom, left, right, stride, s_column, d_row, d_column, groups] =
                case;
            let attrs = Conv2dAttrs {
                stride: [stride, s_column],
                padding: [top, bottom, left, right],
                dilation: [d_row, d_column],
                groups,
            };
            let oh = (h + top + bottom - d_row * (kh - 1) - 1) / stride + 1;
            let ow = (w + left + right - d_column * (kw - 1) - 1) / s_column + 1;
            let [h, w, kh, kw, oh, ow] = [h, w, kh, kw, oh, ow].map(|extent| extent as usize);
            let (c, o, groups) = (6, 12, groups as usize);
            let x = numbers(&[2, c, h, w], 0);
            let weight = numbers(&[o, c / groups, kh, kw], 1);
            let dy = numbers(&[2, o, oh, ow], 2);
            let geometry = Geometry::new(&attrs, x.dims(), weight.dims(), dy.dims());
            let [images, weights, grads] = [&x, &weight, &dy].map(|t| t.elements::<f32>());

            let mut expected = vec![0f32; dy.len()];
            unrolled::forward(&geometry, images, weights, &mut expected);
            close(&forward(&attrs, &x, &weight, dy.dims(), &mut |_, _| {}), &expected, "forward");
            let mut expected = vec![0f32; x.len()];
            unrolled::input_grad(&geometry, weights, grads, &mut expected);
            close(&input_grad(&attrs, &weight, &dy, x.dims()), &expected, "input gradient");
            let mut expected = vec![0f32; weight.len()];
            unrolled::weight_grad(&geometry, images, grads, &mut expected);
            close(&weight_grad(&attrs, &x, &dy, weight.dims()), &expected, "weight gradient");

            served += usize::from(geometry.framed().is_some());
            served += usize::from(geometry.framed_input_grad().is_some());
        }
        assert!(served >= 22, "{served} of 30 took the framed way");
    }

    /// Zeros are bounded over all groups, not in each of them.
    #[test]
    fn many_groups_have_no_frames_of_zeros() {
        for (groups, serves) in [(1, true), (2, false), (4096, false)] {
            let attrs = Conv2dAttrs {
                stride: [1, 1],
                padding: [40_000, 0, 0, 0],
                dilation: [40_000, 1],
                groups: groups as u32,
            };
            let image = [1, groups, 1, 1];
            let geometry = Geometry::new(&attrs, &image, &[groups, 1, 2, 1], &image);
            assert_eq!(geometry.framed().is_some(), serves, "{groups} groups");
            assert_eq!(geometry.framed_input_grad().is_some(), serves, "{groups} groups");
        }
    }
}
