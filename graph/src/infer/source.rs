//! Ops without operands.

use super::{expect_nonzero, operands};
use crate::dtype::{DType, Shape, TensorType};
use crate::error::OpError;

/// `() -> dtype[shape]`, bound by the task.
pub(super) fn input(
    found: &[&TensorType],
    dtype: DType,
    shape: &Shape,
) -> Result<TensorType, OpError> {
    let [] = operands(found, "0")?;
    expect_nonzero("shape", shape.dims())?;
    Ok(TensorType { dtype, shape: shape.clone() })
}

/// `() -> dtype[shape]`, filled with one number that the type can hold.
pub(super) fn constant(
    found: &[&TensorType],
    dtype: DType,
    shape: &Shape,
    value: f32,
) -> Result<TensorType, OpError> {
    let [] = operands(found, "0")?;
    expect_nonzero("shape", shape.dims())?;
    let whole = value.fract() == 0.0;
    // 2^31 is exact in f32, and every whole f32 below it fits an i32.
    let (fits, rule) = match dtype {
        DType::F32 => (value.is_finite(), "finite"),
        DType::I32 => (
            whole && (-2_147_483_648.0..2_147_483_648.0).contains(&value),
            "a whole number of 32 bits",
        ),
        DType::U8 => (whole && (0.0..=255.0).contains(&value), "a whole number from 0 to 255"),
        DType::Bool => (value == 0.0 || value == 1.0, "0 or 1"),
    };
    if !fits {
        return Err(OpError::Number { field: "value", rule, found: value });
    }
    Ok(TensorType { dtype, shape: shape.clone() })
}

/// `() -> f32[shape]`.
pub(super) fn random(found: &[&TensorType], shape: &Shape) -> Result<TensorType, OpError> {
    let [] = operands(found, "0")?;
    expect_nonzero("shape", shape.dims())?;
    Ok(TensorType { dtype: DType::F32, shape: shape.clone() })
}
