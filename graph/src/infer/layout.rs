//! Ops that move elements without computing.

use super::{expect_axis, expect_dtype, expect_extent, expect_nonzero, operands};
use crate::dtype::{DType, Shape, TensorType};
use crate::error::OpError;

/// `(x[s]) -> x[shape]`, same number of elements.
pub(super) fn reshape(found: &[&TensorType], shape: &Shape) -> Result<TensorType, OpError> {
    let [x] = operands(found, "1")?;
    let count = |shape: &Shape, field| shape.elements().ok_or(OpError::Overflow { field });
    let expected = count(&x.shape, "elements of operand 0")?;
    let found = count(shape, "elements of shape")?;
    if expected != found {
        return Err(OpError::Extent { field: "elements of shape", expected, found });
    }
    expect_nonzero("shape", shape.dims())?;
    Ok(TensorType { dtype: x.dtype, shape: shape.clone() })
}

/// `(x[s]) -> x[s[axes[0]], s[axes[1]], ..]`.
pub(super) fn permute(found: &[&TensorType], axes: &[u32]) -> Result<TensorType, OpError> {
    let [x] = operands(found, "1")?;
    expect_length("axes", axes, x)?;
    let mut seen = vec![false; axes.len()];
    for &axis in axes {
        let axis = expect_axis("axes", axis, &x.shape)?;
        if std::mem::replace(&mut seen[axis], true) {
            let rule = "each axis once";
            return Err(OpError::Axes { field: "axes", rule, found: axes.to_vec() });
        }
    }
    let dims = axes.iter().map(|&axis| x.shape.dims()[axis as usize]).collect();
    Ok(TensorType { dtype: x.dtype, shape: Shape(dims) })
}

/// Refuses a list that does not hold one entry per axis.
fn expect_length(field: &'static str, list: &[u32], x: &TensorType) -> Result<(), OpError> {
    if list.len() == x.shape.rank() {
        Ok(())
    } else {
        Err(OpError::Length { field, expected: x.shape.rank(), found: list.len() })
    }
}

/// `(x[s]) -> x[ends - starts]`.
pub(super) fn slice(
    found: &[&TensorType],
    starts: &[u32],
    ends: &[u32],
) -> Result<TensorType, OpError> {
    let [x] = operands(found, "1")?;
    expect_length("starts", starts, x)?;
    expect_length("ends", ends, x)?;
    let mut dims = Vec::with_capacity(starts.len());
    for (axis, ((&start, &end), &extent)) in starts.iter().zip(ends).zip(x.shape.dims()).enumerate()
    {
        if start >= end || end > extent {
            return Err(OpError::Range { field: "starts..ends", axis, start, end, extent });
        }
        dims.push(end - start);
    }
    Ok(TensorType { dtype: x.dtype, shape: Shape(dims) })
}

/// `(x f32[s]) -> f32[low + s + high]`.
pub(super) fn pad(
    found: &[&TensorType],
    low: &[u32],
    high: &[u32],
    value: f32,
) -> Result<TensorType, OpError> {
    let [x] = operands(found, "1")?;
    expect_dtype(0, x, DType::F32)?;
    expect_length("low", low, x)?;
    expect_length("high", high, x)?;
    if !value.is_finite() {
        return Err(OpError::Number { field: "value", rule: "finite", found: value });
    }
    let mut dims = Vec::with_capacity(low.len());
    for ((&low, &high), &extent) in low.iter().zip(high).zip(x.shape.dims()) {
        let padded = extent.checked_add(low).and_then(|sum| sum.checked_add(high));
        dims.push(padded.ok_or(OpError::Overflow { field: "padded extent" })?);
    }
    Ok(TensorType { dtype: DType::F32, shape: Shape(dims) })
}

/// `(x0, x1, ..)` joined along `axis`.
pub(super) fn concat(found: &[&TensorType], axis: u32) -> Result<TensorType, OpError> {
    let [first, rest @ ..] = found else {
        return Err(OpError::OperandCount { expected: "1 or more", found: 0 });
    };
    let axis = expect_axis("axis", axis, &first.shape)?;
    let mut dims = first.shape.0.clone();
    for (index, part) in rest.iter().enumerate() {
        expect_dtype(index + 1, part, first.dtype)?;
        expect_extent("rank of an operand", dims.len() as u32, part.shape.rank() as u32)?;
        for (other, (&expected, &found)) in
            first.shape.dims().iter().zip(part.shape.dims()).enumerate()
        {
            if other != axis {
                expect_extent("extent beside the joined axis", expected, found)?;
            }
        }
        dims[axis] = dims[axis]
            .checked_add(part.shape.dims()[axis])
            .ok_or(OpError::Overflow { field: "joined extent" })?;
    }
    Ok(TensorType { dtype: first.dtype, shape: Shape(dims) })
}
