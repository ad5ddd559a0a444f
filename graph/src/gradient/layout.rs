//! Derivatives of ops that move elements: each moves them back.

use super::{Contributions, Step, when};
use crate::builder::GraphBuilder;
use crate::error::GraphError;

pub(super) fn reshape(b: &mut GraphBuilder, step: &Step) -> Result<Contributions, GraphError> {
    let shape = b.shape(step.operands[0]).clone();
    Ok(vec![when(step.needs[0], || b.reshape(step.dy, shape))?])
}

pub(super) fn permute(
    b: &mut GraphBuilder,
    step: &Step,
    axes: &[u32],
) -> Result<Contributions, GraphError> {
    let mut inverse = vec![0; axes.len()];
    for (to, &from) in axes.iter().enumerate() {
        inverse[from as usize] = to as u32;
    }
    Ok(vec![when(step.needs[0], || b.permute(step.dy, &inverse))?])
}

pub(super) fn slice(
    b: &mut GraphBuilder,
    step: &Step,
    starts: &[u32],
    ends: &[u32],
) -> Result<Contributions, GraphError> {
    let extents = b.shape(step.operands[0]).dims();
    let high: Vec<u32> = extents.iter().zip(ends).map(|(extent, end)| extent - end).collect();
    Ok(vec![when(step.needs[0], || b.pad(step.dy, starts, &high, 0.0))?])
}

pub(super) fn pad(
    b: &mut GraphBuilder,
    step: &Step,
    low: &[u32],
) -> Result<Contributions, GraphError> {
    let extents = b.shape(step.operands[0]).dims();
    let ends: Vec<u32> = extents.iter().zip(low).map(|(extent, low)| low + extent).collect();
    Ok(vec![when(step.needs[0], || b.slice(step.dy, low, &ends))?])
}

pub(super) fn concat(
    b: &mut GraphBuilder,
    step: &Step,
    axis: u32,
) -> Result<Contributions, GraphError> {
    let mut start = 0;
    let mut contributions = Vec::with_capacity(step.operands.len());
    for (&operand, &needed) in step.operands.iter().zip(&step.needs) {
        let end = start + b.shape(operand).dims()[axis as usize];
        contributions.push(when(needed, || b.slice_axis(step.dy, axis, start, end))?);
        start = end;
    }
    Ok(contributions)
}
