//! Derivatives of reductions, soft-max and the classification loss.

use super::{Contributions, Step, when};
use crate::builder::GraphBuilder;
use crate::dtype::Shape;
use crate::error::GraphError;
use crate::op::{CompareFn, Op, ReduceFn, UnaryFn};
use crate::program::NodeId;

/// The operand's shape with extent 1 at the reduced axes.
fn kept(shape: &Shape, axes: &[u32]) -> Shape {
    let dims = shape.dims().iter().enumerate();
    Shape(dims.map(|(axis, &d)| if axes.contains(&(axis as u32)) { 1 } else { d }).collect())
}

pub(super) fn reduce(
    b: &mut GraphBuilder,
    step: &Step,
    function: ReduceFn,
    axes: &[u32],
) -> Result<Contributions, GraphError> {
    if !step.needs[0] {
        return Ok(vec![None]);
    }
    let x = step.operands[0];
    let shape = b.shape(x).clone();
    let narrow = kept(&shape, axes);
    let dy = b.reshape(step.dy, narrow.clone())?;
    let dx = match function {
        ReduceFn::Sum => b.broadcast(dy, &shape)?,
        ReduceFn::Mean => {
            let merged: f64 =
                axes.iter().map(|&axis| f64::from(shape.dims()[axis as usize])).product();
            let count = b.scalar(merged as f32)?;
            let share = b.div(dy, count)?;
            b.broadcast(share, &shape)?
        }
        ReduceFn::Max | ReduceFn::Min => {
            let y = b.reshape(step.y, narrow)?;
            let extreme = b.compare(CompareFn::Eq, x, y)?;
            let (one, zero) = (b.scalar(1.0)?, b.scalar(0.0)?);
            let ones = b.select(extreme, one, zero)?;
            let ties = b.reduce(ReduceFn::Sum, ones, axes, true)?;
            let share = b.div(dy, ties)?;
            b.select(extreme, share, zero)?
        }
    };
    Ok(vec![Some(dx)])
}

/// `sum(x)` along one axis, kept as extent 1.
fn sum_kept(b: &mut GraphBuilder, x: NodeId, axis: u32) -> Result<NodeId, GraphError> {
    b.reduce(ReduceFn::Sum, x, &[axis], true)
}

/// `y * (dy - sum(dy * y))`, the product with a soft-max's Jacobian.
fn softmax_product(
    b: &mut GraphBuilder,
    y: NodeId,
    dy: NodeId,
    axis: u32,
) -> Result<NodeId, GraphError> {
    let product = b.mul(dy, y)?;
    let sum = sum_kept(b, product, axis)?;
    let centred = b.sub(dy, sum)?;
    b.mul(y, centred)
}

pub(super) fn softmax(
    b: &mut GraphBuilder,
    step: &Step,
    axis: u32,
) -> Result<Contributions, GraphError> {
    Ok(vec![when(step.needs[0], || softmax_product(b, step.y, step.dy, axis))?])
}

/// `dy - exp(y) * sum(dy)`.
pub(super) fn log_softmax(
    b: &mut GraphBuilder,
    step: &Step,
    axis: u32,
) -> Result<Contributions, GraphError> {
    let dx = when(step.needs[0], || {
        let sum = sum_kept(b, step.dy, axis)?;
        let probability = b.unary(UnaryFn::Exp, step.y)?;
        let share = b.mul(probability, sum)?;
        b.sub(step.dy, share)
    })?;
    Ok(vec![dx])
}

pub(super) fn cross_entropy(
    b: &mut GraphBuilder,
    step: &Step,
) -> Result<Contributions, GraphError> {
    let (logits, labels) = (step.operands[0], step.operands[1]);
    let d_logits =
        when(step.needs[0], || b.push(Op::CrossEntropyGrad, &[logits, labels, step.dy]))?;
    Ok(vec![d_logits, None])
}

/// With `p = softmax(logits)` and rows of labels out of range masked away,
/// the op is `dloss * (p - one_hot)`.
pub(super) fn cross_entropy_grad(
    b: &mut GraphBuilder,
    step: &Step,
) -> Result<Contributions, GraphError> {
    let (logits, labels, dloss) = (step.operands[0], step.operands[1], step.operands[2]);
    let [rows, classes] = [b.shape(logits).dims()[0], b.shape(logits).dims()[1]];
    let probability = b.softmax(logits, 1)?;
    let one_hot = b.one_hot(labels, classes)?;
    let in_range = sum_kept(b, one_hot, 1)?;
    let masked = b.mul(step.dy, in_range)?;
    let d_logits = when(step.needs[0], || {
        let weight = b.reshape(dloss, [rows, 1])?;
        let weighted = b.mul(masked, weight)?;
        softmax_product(b, probability, weighted, 1)
    })?;
    let d_dloss = when(step.needs[2], || {
        let slope = b.sub(probability, one_hot)?;
        let product = b.mul(masked, slope)?;
        b.reduce(ReduceFn::Sum, product, &[1], false)
    })?;
    Ok(vec![d_logits, None, d_dloss])
}
