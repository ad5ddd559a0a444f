//! Reductions, soft-max and the classification loss.

use super::{expect_axis, expect_dtype, expect_extent, expect_rank, operands};
use crate::dtype::{DType, Shape, TensorType};
use crate::error::OpError;

/// `(x f32[s]) -> f32`, without `axes` or with extent 1 there.
pub(super) fn reduce(
    found: &[&TensorType],
    axes: &[u32],
    keep_dims: bool,
) -> Result<TensorType, OpError> {
    let [x] = operands(found, "1")?;
    expect_dtype(0, x, DType::F32)?;
    if !axes.is_sorted_by(|a, b| a < b) {
        let rule = "sorted without repeats";
        return Err(OpError::Axes { field: "axes", rule, found: axes.to_vec() });
    }
    for &axis in axes {
        expect_axis("axes", axis, &x.shape)?;
    }
    let reduced = |axis: usize| axes.binary_search(&(axis as u32)).is_ok();
    let dims = x.shape.dims().iter().enumerate();
    let dims = if keep_dims {
        dims.map(|(axis, &d)| if reduced(axis) { 1 } else { d }).collect()
    } else {
        dims.filter(|(axis, _)| !reduced(*axis)).map(|(_, &d)| d).collect()
    };
    Ok(TensorType { dtype: DType::F32, shape: Shape(dims) })
}

/// `(x f32[s]) -> i32`, without `axis`.
pub(super) fn arg_max(found: &[&TensorType], axis: u32) -> Result<TensorType, OpError> {
    let [x] = operands(found, "1")?;
    expect_dtype(0, x, DType::F32)?;
    let axis = expect_axis("axis", axis, &x.shape)?;
    let mut dims = x.shape.0.clone();
    dims.remove(axis);
    Ok(TensorType { dtype: DType::I32, shape: Shape(dims) })
}

/// `(x f32[s]) -> f32[s]` along `axis`.
pub(super) fn softmax(found: &[&TensorType], axis: u32) -> Result<TensorType, OpError> {
    let [x] = operands(found, "1")?;
    expect_dtype(0, x, DType::F32)?;
    expect_axis("axis", axis, &x.shape)?;
    Ok(x.clone())
}

/// Checks `logits f32[b, c]` and `labels i32[b]`; returns `b`.
fn classification(logits: &TensorType, labels: &TensorType) -> Result<u32, OpError> {
    expect_dtype(0, logits, DType::F32)?;
    expect_dtype(1, labels, DType::I32)?;
    let [rows, _classes] = expect_rank(0, logits, "2")?;
    let [labelled] = expect_rank(1, labels, "1")?;
    expect_extent("rows of labels", rows, labelled)?;
    Ok(rows)
}

/// `(logits f32[b, c], labels i32[b]) -> f32[b]`.
pub(super) fn cross_entropy(found: &[&TensorType]) -> Result<TensorType, OpError> {
    let [logits, labels] = operands(found, "2")?;
    let rows = classification(logits, labels)?;
    Ok(TensorType::new(DType::F32, [rows]))
}

/// `(logits f32[b, c], labels i32[b], dloss f32[b]) -> f32[b, c]`.
pub(super) fn cross_entropy_grad(found: &[&TensorType]) -> Result<TensorType, OpError> {
    let [logits, labels, dloss] = operands(found, "3")?;
    let rows = classification(logits, labels)?;
    expect_dtype(2, dloss, DType::F32)?;
    let [weighted] = expect_rank(2, dloss, "1")?;
    expect_extent("rows of dloss", rows, weighted)?;
    Ok(logits.clone())
}
