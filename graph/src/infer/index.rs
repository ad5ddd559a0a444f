//! Ops that read or write by index.

use super::{expect_axis, expect_dtype, expect_extent, expect_nonzero, operands};
use crate::dtype::{DType, Shape, TensorType};
use crate::error::OpError;

/// `(x[s], index i32[t]) -> x[s[..axis], t.., s[axis + 1..]]`.
pub(super) fn gather(found: &[&TensorType], axis: u32) -> Result<TensorType, OpError> {
    let [x, index] = operands(found, "2")?;
    expect_dtype(1, index, DType::I32)?;
    let axis = expect_axis("axis", axis, &x.shape)?;
    let (before, after) = x.shape.dims().split_at(axis);
    let dims = [before, index.shape.dims(), &after[1..]].concat();
    Ok(TensorType { dtype: x.dtype, shape: Shape(dims) })
}

/// `(updates f32[a.., t.., b..], index i32[t]) -> f32[a.., size, b..]`.
pub(super) fn scatter_add(
    found: &[&TensorType],
    axis: u32,
    size: u32,
) -> Result<TensorType, OpError> {
    let [updates, index] = operands(found, "2")?;
    expect_dtype(0, updates, DType::F32)?;
    expect_dtype(1, index, DType::I32)?;
    expect_nonzero("size", &[size])?;
    let dims = updates.shape.dims();
    let first = axis as usize;
    // Both ranks are lengths of vectors in memory, and `axis` has 32 bits.
    let Some(last) = first.checked_add(index.shape.rank()).filter(|&last| last <= dims.len())
    else {
        return Err(OpError::Axis { field: "axis", axis, rank: dims.len() });
    };
    for (&expected, &found) in index.shape.dims().iter().zip(&dims[first..last]) {
        expect_extent("indexed extent of updates", expected, found)?;
    }
    let dims = [&dims[..first], &[size], &dims[last..]].concat();
    Ok(TensorType { dtype: DType::F32, shape: Shape(dims) })
}

/// `(index i32[s]) -> f32[s.., depth]`.
pub(super) fn one_hot(found: &[&TensorType], depth: u32) -> Result<TensorType, OpError> {
    let [index] = operands(found, "1")?;
    expect_dtype(0, index, DType::I32)?;
    expect_nonzero("depth", &[depth])?;
    let dims = [index.shape.dims(), &[depth]].concat();
    Ok(TensorType { dtype: DType::F32, shape: Shape(dims) })
}
