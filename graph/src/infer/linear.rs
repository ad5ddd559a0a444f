//! Matrix multiplication.

use super::{broadcast_shapes, expect_dtype, expect_extent, operands};
use crate::dtype::{DType, Shape, TensorType};
use crate::error::OpError;

/// Splits `[.., rows, columns]`, undoing a transposed storage.
fn matrix(operand: usize, ty: &TensorType, transposed: bool) -> Result<(Shape, u32, u32), OpError> {
    expect_dtype(operand, ty, DType::F32)?;
    match ty.shape.dims() {
        [lead @ .., rows, columns] if transposed => Ok((Shape::from(lead), *columns, *rows)),
        [lead @ .., rows, columns] => Ok((Shape::from(lead), *rows, *columns)),
        dims => Err(OpError::Rank { operand, expected: "2 or more", found: dims.len() }),
    }
}

/// `(a f32[.., m, k], b f32[.., k, n]) -> f32[.., m, n]`.
pub(super) fn matmul(
    found: &[&TensorType],
    transpose_lhs: bool,
    transpose_rhs: bool,
) -> Result<TensorType, OpError> {
    let [lhs, rhs] = operands(found, "2")?;
    let (lead_lhs, rows, inner_lhs) = matrix(0, lhs, transpose_lhs)?;
    let (lead_rhs, inner_rhs, columns) = matrix(1, rhs, transpose_rhs)?;
    expect_extent("inner extent of operand 1", inner_lhs, inner_rhs)?;
    let Shape(mut dims) = broadcast_shapes(&lead_lhs, &lead_rhs)?;
    dims.extend([rows, columns]);
    Ok(TensorType { dtype: DType::F32, shape: Shape(dims) })
}
