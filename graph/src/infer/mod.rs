//! The shape and element-type rule of every op.
//!
//! Each rule takes untrusted attributes and already inferred operand types.
//! All arithmetic is checked, so no attribute value can make it panic. Whether
//! the result is too large is judged by [`crate::ValidGraph`].

mod elementwise;
mod image;
mod index;
mod layout;
mod linear;
mod reduce;
mod source;

pub use elementwise::broadcast_shapes;
pub use image::window_extent;

use crate::dtype::{DType, Shape, TensorType};
use crate::error::OpError;
use crate::op::Op;

/// The type of an op's result.
///
/// # Errors
/// Returns what the op refuses: number, element type or shape of an operand,
/// or an attribute outside its domain.
pub fn infer(op: &Op, operands: &[&TensorType]) -> Result<TensorType, OpError> {
    match op {
        Op::Input { dtype, shape, .. } => source::input(operands, *dtype, shape),
        Op::Constant { dtype, shape, value } => source::constant(operands, *dtype, shape, *value),
        Op::Random { shape, .. } => source::random(operands, shape),
        Op::Unary { .. } => elementwise::unary(operands),
        Op::Binary { function } => elementwise::binary(operands, *function),
        Op::Compare { .. } => elementwise::compare(operands),
        Op::Select => elementwise::select(operands),
        Op::Cast { dtype } => elementwise::cast(operands, *dtype),
        Op::Broadcast { shape } => elementwise::broadcast(operands, shape),
        Op::Reduce { axes, keep_dims, .. } => reduce::reduce(operands, axes, *keep_dims),
        Op::ArgMax { axis } => reduce::arg_max(operands, *axis),
        Op::Softmax { axis } | Op::LogSoftmax { axis } => reduce::softmax(operands, *axis),
        Op::CrossEntropy => reduce::cross_entropy(operands),
        Op::CrossEntropyGrad => reduce::cross_entropy_grad(operands),
        Op::MatMul { transpose_lhs, transpose_rhs } => {
            linear::matmul(operands, *transpose_lhs, *transpose_rhs)
        }
        Op::Conv2d(attrs) => image::conv2d(operands, attrs),
        Op::Conv2dInputGrad { attrs, input } => image::conv2d_input_grad(operands, attrs, *input),
        Op::Conv2dWeightGrad { attrs, kernel } => {
            image::conv2d_weight_grad(operands, attrs, *kernel)
        }
        Op::MaxPool2d(attrs) | Op::AvgPool2d(attrs) => image::pool2d(operands, attrs),
        Op::MaxPool2dGrad(attrs) => image::max_pool2d_grad(operands, attrs),
        Op::AvgPool2dGrad { attrs, input } => image::avg_pool2d_grad(operands, attrs, *input),
        Op::Reshape { shape } => layout::reshape(operands, shape),
        Op::Permute { axes } => layout::permute(operands, axes),
        Op::Slice { starts, ends } => layout::slice(operands, starts, ends),
        Op::Pad { low, high, value } => layout::pad(operands, low, high, *value),
        Op::Concat { axis } => layout::concat(operands, *axis),
        Op::Gather { axis } => index::gather(operands, *axis),
        Op::ScatterAdd { axis, size } => index::scatter_add(operands, *axis, *size),
        Op::OneHot { depth } => index::one_hot(operands, *depth),
    }
}

/// Takes exactly `N` operands.
fn operands<'a, const N: usize>(
    found: &[&'a TensorType],
    expected: &'static str,
) -> Result<[&'a TensorType; N], OpError> {
    found.try_into().map_err(|_| OpError::OperandCount { expected, found: found.len() })
}

/// Refuses an operand of another element type.
fn expect_dtype(operand: usize, found: &TensorType, dtype: DType) -> Result<(), OpError> {
    if found.dtype == dtype {
        Ok(())
    } else {
        Err(OpError::DType { operand, expected: dtype.name(), found: found.dtype })
    }
}

/// Refuses an operand of another rank; the text names the rank.
fn expect_rank<const N: usize>(
    operand: usize,
    found: &TensorType,
    expected: &'static str,
) -> Result<[u32; N], OpError> {
    found.shape.dims().try_into().map_err(|_| OpError::Rank {
        operand,
        expected,
        found: found.shape.rank(),
    })
}

/// Refuses two extents that differ.
fn expect_extent(field: &'static str, expected: u32, found: u32) -> Result<(), OpError> {
    if expected == found {
        Ok(())
    } else {
        Err(OpError::Extent { field, expected: expected.into(), found: found.into() })
    }
}

/// Refuses an axis that the operand lacks.
fn expect_axis(field: &'static str, axis: u32, shape: &Shape) -> Result<usize, OpError> {
    let index = axis as usize;
    if index < shape.rank() {
        Ok(index)
    } else {
        Err(OpError::Axis { field, axis, rank: shape.rank() })
    }
}

/// Refuses extents of zero: no kernel has to define what an empty maximum is.
fn expect_nonzero(field: &'static str, dims: &[u32]) -> Result<(), OpError> {
    if dims.contains(&0) { Err(OpError::Zero { field }) } else { Ok(()) }
}
