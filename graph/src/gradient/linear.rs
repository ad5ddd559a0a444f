//! Derivatives of matrix multiplication.

use super::{Contributions, Step, when};
use crate::builder::GraphBuilder;
use crate::error::GraphError;

/// For `y = A B`: `dA = dy B^T`, `dB = A^T dy`. An operand that is stored
/// transposed has the transposed derivative, which swaps the two factors.
pub(super) fn matmul(
    b: &mut GraphBuilder,
    step: &Step,
    transpose_lhs: bool,
    transpose_rhs: bool,
) -> Result<Contributions, GraphError> {
    let (lhs, rhs, dy) = (step.operands[0], step.operands[1], step.dy);
    let d_lhs = when(step.needs[0], || {
        let full = if transpose_lhs {
            b.matmul(rhs, dy, transpose_rhs, true)?
        } else {
            b.matmul(dy, rhs, false, !transpose_rhs)?
        };
        let shape = b.shape(lhs).clone();
        b.sum_to(full, &shape)
    })?;
    let d_rhs = when(step.needs[1], || {
        let full = if transpose_rhs {
            b.matmul(dy, lhs, true, transpose_lhs)?
        } else {
            b.matmul(lhs, dy, !transpose_lhs, false)?
        };
        let shape = b.shape(rhs).clone();
        b.sum_to(full, &shape)
    })?;
    Ok(vec![d_lhs, d_rhs])
}
