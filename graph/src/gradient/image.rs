//! Derivatives of convolution and pooling. The convolution, its input
//! gradient and its weight gradient are the three faces of one trilinear
//! form, so each is differentiated with the other two.

use super::{Contributions, Step, when};
use crate::builder::GraphBuilder;
use crate::error::GraphError;
use crate::op::{Conv2dAttrs, Op, Pool2dAttrs};
use crate::program::NodeId;

/// `[h, w]` of an image batch, or `[kh, kw]` of a weight.
fn plane(b: &GraphBuilder, node: NodeId) -> [u32; 2] {
    let dims = b.shape(node).dims();
    [dims[2], dims[3]]
}

fn input_grad(
    b: &mut GraphBuilder,
    attrs: Conv2dAttrs,
    [weight, dy]: [NodeId; 2],
    like: NodeId,
) -> Result<NodeId, GraphError> {
    let input = plane(b, like);
    b.push(Op::Conv2dInputGrad { attrs, input }, &[weight, dy])
}

fn weight_grad(
    b: &mut GraphBuilder,
    attrs: Conv2dAttrs,
    [x, dy]: [NodeId; 2],
    like: NodeId,
) -> Result<NodeId, GraphError> {
    let kernel = plane(b, like);
    b.push(Op::Conv2dWeightGrad { attrs, kernel }, &[x, dy])
}

pub(super) fn conv2d(
    b: &mut GraphBuilder,
    step: &Step,
    attrs: Conv2dAttrs,
) -> Result<Contributions, GraphError> {
    let (x, weight, dy) = (step.operands[0], step.operands[1], step.dy);
    let dx = when(step.needs[0], || input_grad(b, attrs, [weight, dy], x))?;
    Ok(vec![dx, when(step.needs[1], || weight_grad(b, attrs, [x, dy], weight))?])
}

/// Here `step.dy` has the shape of the image.
pub(super) fn conv2d_input_grad(
    b: &mut GraphBuilder,
    step: &Step,
    attrs: Conv2dAttrs,
) -> Result<Contributions, GraphError> {
    let (weight, dy, image) = (step.operands[0], step.operands[1], step.dy);
    let d_weight = when(step.needs[0], || weight_grad(b, attrs, [image, dy], weight))?;
    Ok(vec![d_weight, when(step.needs[1], || b.conv2d(image, weight, attrs))?])
}

/// Here `step.dy` has the shape of the weight.
pub(super) fn conv2d_weight_grad(
    b: &mut GraphBuilder,
    step: &Step,
    attrs: Conv2dAttrs,
) -> Result<Contributions, GraphError> {
    let (x, dy, weight) = (step.operands[0], step.operands[1], step.dy);
    let dx = when(step.needs[0], || input_grad(b, attrs, [weight, dy], x))?;
    Ok(vec![dx, when(step.needs[1], || b.conv2d(x, weight, attrs))?])
}

pub(super) fn max_pool2d(
    b: &mut GraphBuilder,
    step: &Step,
    attrs: Pool2dAttrs,
) -> Result<Contributions, GraphError> {
    let x = step.operands[0];
    Ok(vec![when(step.needs[0], || b.push(Op::MaxPool2dGrad(attrs), &[x, step.dy]))?])
}

/// Piecewise constant in `x`; in `dy` it would need the places of the maxima,
/// which no op returns.
pub(super) fn max_pool2d_grad(step: &Step) -> Result<Contributions, GraphError> {
    if step.needs[1] { Err(step.refuse(1)) } else { Ok(vec![None, None]) }
}

pub(super) fn avg_pool2d(
    b: &mut GraphBuilder,
    step: &Step,
    attrs: Pool2dAttrs,
) -> Result<Contributions, GraphError> {
    let input = plane(b, step.operands[0]);
    let dx = when(step.needs[0], || b.push(Op::AvgPool2dGrad { attrs, input }, &[step.dy]))?;
    Ok(vec![dx])
}

/// The adjoint's adjoint: average pooling itself.
pub(super) fn avg_pool2d_grad(
    b: &mut GraphBuilder,
    step: &Step,
    attrs: Pool2dAttrs,
) -> Result<Contributions, GraphError> {
    Ok(vec![when(step.needs[0], || b.avg_pool2d(step.dy, attrs))?])
}
