//! Element-wise ops and NumPy broadcasting.

use super::{expect_dtype, expect_nonzero, operands};
use crate::dtype::{DType, Shape, TensorType};
use crate::error::OpError;
use crate::op::BinaryFn;

/// The shape that two shapes broadcast to: aligned at the last axis, extents
/// equal or one of them 1.
///
/// # Errors
/// [`OpError::Broadcast`] with both shapes.
pub fn broadcast_shapes(lhs: &Shape, rhs: &Shape) -> Result<Shape, OpError> {
    let rank = lhs.rank().max(rhs.rank());
    let extent = |shape: &Shape, axis: usize| {
        let missing = rank - shape.rank();
        if axis < missing { 1 } else { shape.dims()[axis - missing] }
    };
    let mut dims = Vec::with_capacity(rank);
    for axis in 0..rank {
        match (extent(lhs, axis), extent(rhs, axis)) {
            (a, b) if a == b => dims.push(a),
            (1, b) => dims.push(b),
            (a, 1) => dims.push(a),
            _ => return Err(OpError::Broadcast { lhs: lhs.clone(), rhs: rhs.clone() }),
        }
    }
    Ok(Shape(dims))
}

/// `(x f32[s]) -> f32[s]`.
pub(super) fn unary(found: &[&TensorType]) -> Result<TensorType, OpError> {
    let [x] = operands(found, "1")?;
    expect_dtype(0, x, DType::F32)?;
    Ok(x.clone())
}

/// Two numbers of one type, f32 or i32.
fn numeric_pair(lhs: &TensorType, rhs: &TensorType) -> Result<(), OpError> {
    if !matches!(lhs.dtype, DType::F32 | DType::I32) {
        return Err(OpError::DType { operand: 0, expected: "f32 or i32", found: lhs.dtype });
    }
    expect_dtype(1, rhs, lhs.dtype)
}

/// `(a, b) -> broadcast(a, b)`.
pub(super) fn binary(found: &[&TensorType], function: BinaryFn) -> Result<TensorType, OpError> {
    let [lhs, rhs] = operands(found, "2")?;
    numeric_pair(lhs, rhs)?;
    if lhs.dtype == DType::I32 {
        let float_only = match function {
            BinaryFn::Div => Some("div"),
            BinaryFn::Pow => Some("pow"),
            _ => None,
        };
        if let Some(function) = float_only {
            return Err(OpError::Function { function, expected: "f32", found: lhs.dtype });
        }
    }
    Ok(TensorType { dtype: lhs.dtype, shape: broadcast_shapes(&lhs.shape, &rhs.shape)? })
}

/// `(a, b) -> bool[broadcast(a, b)]`.
pub(super) fn compare(found: &[&TensorType]) -> Result<TensorType, OpError> {
    let [lhs, rhs] = operands(found, "2")?;
    numeric_pair(lhs, rhs)?;
    Ok(TensorType { dtype: DType::Bool, shape: broadcast_shapes(&lhs.shape, &rhs.shape)? })
}

/// `(condition bool, a, b) -> broadcast(condition, a, b)`.
pub(super) fn select(found: &[&TensorType]) -> Result<TensorType, OpError> {
    let [condition, a, b] = operands(found, "3")?;
    expect_dtype(0, condition, DType::Bool)?;
    expect_dtype(2, b, a.dtype)?;
    let branches = broadcast_shapes(&a.shape, &b.shape)?;
    Ok(TensorType { dtype: a.dtype, shape: broadcast_shapes(&condition.shape, &branches)? })
}

/// `(x[s]) -> dtype[s]`.
pub(super) fn cast(found: &[&TensorType], dtype: DType) -> Result<TensorType, OpError> {
    let [x] = operands(found, "1")?;
    Ok(TensorType { dtype, shape: x.shape.clone() })
}

/// `(x[s]) -> x[shape]`, where `s` broadcasts to exactly `shape`.
pub(super) fn broadcast(found: &[&TensorType], shape: &Shape) -> Result<TensorType, OpError> {
    let [x] = operands(found, "1")?;
    expect_nonzero("shape", shape.dims())?;
    if broadcast_shapes(&x.shape, shape)? != *shape {
        return Err(OpError::Broadcast { lhs: x.shape.clone(), rhs: shape.clone() });
    }
    Ok(TensorType { dtype: x.dtype, shape: shape.clone() })
}
