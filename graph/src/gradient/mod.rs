//! Reverse-mode differentiation: one short rule per op, in files by family.
//!
//! Rules only use ops of the closed set, so a gradient graph is an ordinary
//! graph. Nothing is added for operands that do not lead to what is asked
//! for; in particular the gradient of an image batch is never computed.

mod elementwise;
mod image;
mod index;
mod layout;
mod linear;
mod reduce;

use crate::builder::GraphBuilder;
use crate::dtype::{DType, Shape};
use crate::error::GraphError;
use crate::op::Op;
use crate::program::NodeId;

/// Adds the derivative of `loss` with respect to each node of `wrt`.
///
/// Returns one node per entry of `wrt`, of its shape; where the loss does not
/// depend on it differentiably, a constant zero. Broadcasting is undone by
/// summing. At ties `max` and `min` follow the first operand, a reduction
/// shares its gradient among equal extremes, and pooling follows the first.
///
/// # Errors
/// [`GraphError::GradientOf`] where `loss` is not an f32 scalar or `wrt` not
/// f32, [`GraphError::NoGradient`] for the derivative of a max-pooling
/// gradient, and what the builder refuses.
pub fn grad(
    builder: &mut GraphBuilder,
    loss: NodeId,
    wrt: &[NodeId],
) -> Result<Vec<NodeId>, GraphError> {
    check(builder, loss, wrt)?;
    let reaches = reaches(builder, loss, wrt);
    let mut adjoints: Vec<Option<NodeId>> = vec![None; loss.index() + 1];
    if reaches[loss.index()] {
        adjoints[loss.index()] = Some(builder.scalar(1.0)?);
    }
    for index in (0..=loss.index()).rev() {
        let Some(dy) = adjoints[index] else { continue };
        let node = &builder.nodes()[index];
        let operands = node.inputs.clone();
        let needs = operands.iter().map(|operand| reaches[operand.index()]).collect();
        let step = Step { op: node.op.clone(), y: NodeId(index as u32), dy, operands, needs };
        for (operand, contribution) in step.operands.iter().zip(rule(builder, &step)?) {
            let Some(contribution) = contribution else { continue };
            let slot = &mut adjoints[operand.index()];
            *slot = Some(match *slot {
                None => contribution,
                Some(sum) => builder.add(sum, contribution)?,
            });
        }
    }
    wrt.iter()
        .map(|&node| match adjoints.get(node.index()).copied().flatten() {
            Some(adjoint) => Ok(adjoint),
            None => {
                let shape = builder.shape(node).clone();
                builder.constant(DType::F32, shape, 0.0)
            }
        })
        .collect()
}

fn check(builder: &GraphBuilder, loss: NodeId, wrt: &[NodeId]) -> Result<(), GraphError> {
    let nodes = builder.nodes().len();
    let refuse =
        |role, node: NodeId, expected| GraphError::GradientOf { role, node: node.0, expected };
    if loss.index() >= nodes
        || builder.ty(loss).dtype != DType::F32
        || *builder.shape(loss) != Shape::scalar()
    {
        return Err(refuse("loss", loss, "an f32 scalar"));
    }
    let bad = |node: &NodeId| node.index() >= nodes || builder.ty(*node).dtype != DType::F32;
    match wrt.iter().find(|node| bad(node)) {
        Some(&node) => Err(refuse("wrt", node, "f32")),
        None => Ok(()),
    }
}

/// Marks the f32 nodes up to `loss` that depend on a node of `wrt`.
fn reaches(builder: &GraphBuilder, loss: NodeId, wrt: &[NodeId]) -> Vec<bool> {
    let mut reaches = vec![false; loss.index() + 1];
    for node in wrt {
        // A node after the loss cannot be part of it.
        if let Some(reached) = reaches.get_mut(node.index()) {
            *reached = true;
        }
    }
    for (index, node) in builder.nodes()[..=loss.index()].iter().enumerate() {
        let float = builder.ty(NodeId(index as u32)).dtype == DType::F32;
        reaches[index] |= float && node.inputs.iter().any(|operand| reaches[operand.index()]);
    }
    reaches
}

/// One node on the way back: `y = op(operands)` with the loss's derivative `dy`.
struct Step {
    op: Op,
    y: NodeId,
    dy: NodeId,
    operands: Vec<NodeId>,
    /// Which operands lead to what is asked for; rules skip the others.
    needs: Vec<bool>,
}

/// The derivative per operand; absent where it is zero or not needed.
type Contributions = Vec<Option<NodeId>>;

impl Step {
    /// Refuses a derivative that the closed set cannot express.
    fn refuse(&self, operand: usize) -> GraphError {
        GraphError::NoGradient { node: self.y.0, op: self.op.name(), operand }
    }
}

fn rule(b: &mut GraphBuilder, step: &Step) -> Result<Contributions, GraphError> {
    match &step.op {
        Op::Unary { function } => elementwise::unary(b, step, *function),
        Op::Binary { function } => elementwise::binary(b, step, *function),
        Op::Select => elementwise::select(b, step),
        Op::Cast { .. } => Ok(vec![step.needs[0].then_some(step.dy)]),
        Op::Broadcast { .. } => elementwise::broadcast(b, step),
        Op::Reduce { function, axes, .. } => reduce::reduce(b, step, *function, axes),
        Op::Softmax { axis } => reduce::softmax(b, step, *axis),
        Op::LogSoftmax { axis } => reduce::log_softmax(b, step, *axis),
        Op::CrossEntropy => reduce::cross_entropy(b, step),
        Op::CrossEntropyGrad => reduce::cross_entropy_grad(b, step),
        Op::MatMul { transpose_lhs, transpose_rhs } => {
            linear::matmul(b, step, *transpose_lhs, *transpose_rhs)
        }
        Op::Conv2d(attrs) => image::conv2d(b, step, *attrs),
        Op::Conv2dInputGrad { attrs, .. } => image::conv2d_input_grad(b, step, *attrs),
        Op::Conv2dWeightGrad { attrs, .. } => image::conv2d_weight_grad(b, step, *attrs),
        Op::MaxPool2d(attrs) => image::max_pool2d(b, step, *attrs),
        Op::MaxPool2dGrad(_) => image::max_pool2d_grad(step),
        Op::AvgPool2d(attrs) => image::avg_pool2d(b, step, *attrs),
        Op::AvgPool2dGrad { attrs, .. } => image::avg_pool2d_grad(b, step, *attrs),
        Op::Reshape { .. } => layout::reshape(b, step),
        Op::Permute { axes } => layout::permute(b, step, axes),
        Op::Slice { starts, ends } => layout::slice(b, step, starts, ends),
        Op::Pad { low, .. } => layout::pad(b, step, low),
        Op::Concat { axis } => layout::concat(b, step, *axis),
        Op::Gather { axis } => index::gather(b, step, *axis),
        Op::ScatterAdd { axis, .. } => index::scatter_add(b, step, *axis),
        // No operand, an operand that is not f32, or a result that is not.
        Op::Input { .. }
        | Op::Constant { .. }
        | Op::Random { .. }
        | Op::Compare { .. }
        | Op::ArgMax { .. }
        | Op::OneHot { .. } => Ok(vec![None; step.operands.len()]),
    }
}

/// Computes a contribution where the operand needs one.
fn when(
    needed: bool,
    contribution: impl FnOnce() -> Result<NodeId, GraphError>,
) -> Result<Option<NodeId>, GraphError> {
    if needed { contribution().map(Some) } else { Ok(None) }
}
