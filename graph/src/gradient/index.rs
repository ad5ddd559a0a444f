//! Derivatives of indexed reads and writes, which are each other's adjoint.

use super::{Contributions, Step, when};
use crate::builder::GraphBuilder;
use crate::error::GraphError;

pub(super) fn gather(
    b: &mut GraphBuilder,
    step: &Step,
    axis: u32,
) -> Result<Contributions, GraphError> {
    let (x, index) = (step.operands[0], step.operands[1]);
    let size = b.shape(x).dims()[axis as usize];
    Ok(vec![when(step.needs[0], || b.scatter_add(step.dy, index, axis, size))?, None])
}

pub(super) fn scatter_add(
    b: &mut GraphBuilder,
    step: &Step,
    axis: u32,
) -> Result<Contributions, GraphError> {
    let index = step.operands[1];
    Ok(vec![when(step.needs[0], || b.gather(step.dy, index, axis))?, None])
}
