//! Convolution and pooling over NCHW images.

use super::{expect_dtype, expect_extent, expect_nonzero, expect_rank, operands};
use crate::dtype::{DType, TensorType};
use crate::error::OpError;
use crate::op::{Conv2dAttrs, Pool2dAttrs};

/// How many positions a window takes along one axis:
/// `(input + low + high - dilation * (kernel - 1) - 1) / stride + 1`.
///
/// # Errors
/// A zero kernel, stride, dilation or input, a window larger than the padded
/// input, or a result above 32 bits.
pub fn window_extent(
    input: u32,
    kernel: u32,
    stride: u32,
    dilation: u32,
    padding: [u32; 2],
) -> Result<u32, OpError> {
    expect_nonzero("input", &[input])?;
    expect_nonzero("kernel", &[kernel])?;
    expect_nonzero("stride", &[stride])?;
    expect_nonzero("dilation", &[dilation])?;
    // Three numbers of 32 bits, and a product of two plus one, fit 64 bits.
    let padded = u64::from(input) + u64::from(padding[0]) + u64::from(padding[1]);
    let window = u64::from(dilation) * u64::from(kernel - 1) + 1;
    if window > padded {
        return Err(OpError::Window { field: "kernel", window, padded });
    }
    let extent = (padded - window) / u64::from(stride) + 1;
    u32::try_from(extent).map_err(|_| OpError::Overflow { field: "output extent" })
}

/// Output rows and columns of a convolution over `[h, w]`.
fn conv_extents(
    attrs: &Conv2dAttrs,
    image: [u32; 2],
    kernel: [u32; 2],
) -> Result<[u32; 2], OpError> {
    let [top, bottom, left, right] = attrs.padding;
    let side = |i: usize, padding| {
        window_extent(image[i], kernel[i], attrs.stride[i], attrs.dilation[i], padding)
    };
    Ok([side(0, [top, bottom])?, side(1, [left, right])?])
}

/// Output rows and columns of pooling over `[h, w]`.
fn pool_extents(attrs: &Pool2dAttrs, image: [u32; 2]) -> Result<[u32; 2], OpError> {
    let [top, bottom, left, right] = attrs.padding;
    // Then every window holds at least one element of the image.
    for (pad, kernel) in [(top, 0), (bottom, 0), (left, 1), (right, 1)] {
        let kernel = attrs.kernel[kernel];
        if pad >= kernel && pad > 0 {
            let (window, padded) = (kernel.into(), pad.into());
            return Err(OpError::Window { field: "padding", window, padded });
        }
    }
    let side =
        |i: usize, padding| window_extent(image[i], attrs.kernel[i], attrs.stride[i], 1, padding);
    Ok([side(0, [top, bottom])?, side(1, [left, right])?])
}

/// An f32 operand `[n, c, h, w]` (or `[o, i, kh, kw]`).
fn image(operand: usize, ty: &TensorType) -> Result<[u32; 4], OpError> {
    expect_dtype(operand, ty, DType::F32)?;
    expect_rank(operand, ty, "4")
}

/// Checks that `groups` divides both channel counts; returns input channels per group.
fn grouped(attrs: &Conv2dAttrs, channels: u32, filters: u32) -> Result<u32, OpError> {
    expect_nonzero("groups", &[attrs.groups])?;
    for (field, count) in [("channels modulo groups", channels), ("filters modulo groups", filters)]
    {
        expect_extent(field, 0, count % attrs.groups)?;
    }
    Ok(channels / attrs.groups)
}

/// `(x f32[n, c, h, w], weight f32[o, c / groups, kh, kw]) -> f32[n, o, oh, ow]`.
pub(super) fn conv2d(found: &[&TensorType], attrs: &Conv2dAttrs) -> Result<TensorType, OpError> {
    let [x, weight] = operands(found, "2")?;
    let [n, c, h, w] = image(0, x)?;
    let [o, i, kh, kw] = image(1, weight)?;
    expect_extent("input channels of weight", grouped(attrs, c, o)?, i)?;
    let [oh, ow] = conv_extents(attrs, [h, w], [kh, kw])?;
    Ok(TensorType::new(DType::F32, [n, o, oh, ow]))
}

/// `(weight f32[o, c / groups, kh, kw], dy f32[n, o, oh, ow]) -> f32[n, c, h, w]`.
pub(super) fn conv2d_input_grad(
    found: &[&TensorType],
    attrs: &Conv2dAttrs,
    input: [u32; 2],
) -> Result<TensorType, OpError> {
    let [weight, dy] = operands(found, "2")?;
    let [o, i, kh, kw] = image(0, weight)?;
    let [n, filters, oh, ow] = image(1, dy)?;
    expect_extent("channels of dy", o, filters)?;
    let c = i.checked_mul(attrs.groups).ok_or(OpError::Overflow { field: "channels" })?;
    grouped(attrs, c, o)?;
    let [rows, columns] = conv_extents(attrs, input, [kh, kw])?;
    expect_extent("rows of dy", rows, oh)?;
    expect_extent("columns of dy", columns, ow)?;
    Ok(TensorType::new(DType::F32, [n, c, input[0], input[1]]))
}

/// `(x f32[n, c, h, w], dy f32[n, o, oh, ow]) -> f32[o, c / groups, kh, kw]`.
pub(super) fn conv2d_weight_grad(
    found: &[&TensorType],
    attrs: &Conv2dAttrs,
    kernel: [u32; 2],
) -> Result<TensorType, OpError> {
    let [x, dy] = operands(found, "2")?;
    let [n, c, h, w] = image(0, x)?;
    let [batch, o, oh, ow] = image(1, dy)?;
    expect_extent("batch of dy", n, batch)?;
    let i = grouped(attrs, c, o)?;
    let [rows, columns] = conv_extents(attrs, [h, w], kernel)?;
    expect_extent("rows of dy", rows, oh)?;
    expect_extent("columns of dy", columns, ow)?;
    Ok(TensorType::new(DType::F32, [o, i, kernel[0], kernel[1]]))
}

/// `(x f32[n, c, h, w]) -> f32[n, c, oh, ow]`.
pub(super) fn pool2d(found: &[&TensorType], attrs: &Pool2dAttrs) -> Result<TensorType, OpError> {
    let [x] = operands(found, "1")?;
    let [n, c, h, w] = image(0, x)?;
    let [oh, ow] = pool_extents(attrs, [h, w])?;
    Ok(TensorType::new(DType::F32, [n, c, oh, ow]))
}

/// Checks that `dy` has the extents of pooling over `image`.
fn expect_pooled(attrs: &Pool2dAttrs, image: [u32; 2], [oh, ow]: [u32; 2]) -> Result<(), OpError> {
    let [rows, columns] = pool_extents(attrs, image)?;
    expect_extent("rows of dy", rows, oh)?;
    expect_extent("columns of dy", columns, ow)
}

/// `(x f32[n, c, h, w], dy f32[n, c, oh, ow]) -> f32[n, c, h, w]`.
pub(super) fn max_pool2d_grad(
    found: &[&TensorType],
    attrs: &Pool2dAttrs,
) -> Result<TensorType, OpError> {
    let [x, dy] = operands(found, "2")?;
    let [n, c, h, w] = image(0, x)?;
    let [batch, channels, oh, ow] = image(1, dy)?;
    expect_extent("batch of dy", n, batch)?;
    expect_extent("channels of dy", c, channels)?;
    expect_pooled(attrs, [h, w], [oh, ow])?;
    Ok(x.clone())
}

/// `(dy f32[n, c, oh, ow]) -> f32[n, c, h, w]`.
pub(super) fn avg_pool2d_grad(
    found: &[&TensorType],
    attrs: &Pool2dAttrs,
    input: [u32; 2],
) -> Result<TensorType, OpError> {
    let [dy] = operands(found, "1")?;
    let [n, c, oh, ow] = image(0, dy)?;
    expect_pooled(attrs, input, [oh, ow])?;
    Ok(TensorType::new(DType::F32, [n, c, input[0], input[1]]))
}
