//! Identities that hold bit for bit.

use super::Rewrite;
use crate::error::GraphError;
use crate::infer::broadcast_shapes;
use crate::op::{BinaryFn, Op};
use crate::program::{Node, NodeId};
use crate::valid::ValidGraph;

/// Removes work that does nothing: casts, reshapes, broadcasts and
/// permutations to what is there already, factors of one, and broadcasts
/// that an element-wise op does by itself.
///
/// `x + 0` stays, since it turns `-0` into `+0`.
///
/// # Errors
/// Passes on what validation refuses.
pub fn simplify(graph: &ValidGraph) -> Result<ValidGraph, GraphError> {
    let mut rewrite = Rewrite::new(graph);
    // What each old node stands for, as an old node; chains are followed.
    let mut same: Vec<NodeId> = Vec::with_capacity(graph.graph().nodes.len());
    for (index, node) in graph.graph().nodes.iter().enumerate() {
        let id = NodeId(index as u32);
        let mut inputs: Vec<NodeId> = node.inputs.iter().map(|input| same[input.index()]).collect();
        if matches!(node.op, Op::Reshape { .. }) {
            inputs[0] = unshaped(graph, &same, inputs[0]);
        }
        let view = View { graph, id, op: &node.op, inputs: &inputs };
        if let Some(target) = view.stands_for() {
            same.push(target);
            rewrite.map.push(rewrite.map[target.index()]);
            continue;
        }
        let (op, inputs) = view.reduced();
        let inputs = rewrite.moved(&inputs);
        same.push(id);
        rewrite.keep(Node { op, inputs });
    }
    rewrite.finish(graph)
}

/// What a chain of reshapes starts from: only the last one matters.
fn unshaped(graph: &ValidGraph, same: &[NodeId], mut node: NodeId) -> NodeId {
    while let Op::Reshape { .. } = graph.graph().nodes[node.index()].op {
        node = same[graph.graph().nodes[node.index()].inputs[0].index()];
    }
    node
}

/// A node whose operands have been simplified.
struct View<'a> {
    graph: &'a ValidGraph,
    id: NodeId,
    op: &'a Op,
    inputs: &'a [NodeId],
}

impl View<'_> {
    fn op_of(&self, node: NodeId) -> &Op {
        &self.graph.graph().nodes[node.index()].op
    }

    /// The operand that the node equals, if any.
    fn stands_for(&self) -> Option<NodeId> {
        let ty = self.graph.ty(self.id);
        let unchanged = |node: NodeId| self.graph.ty(node) == ty;
        match (self.op, self.inputs) {
            (Op::Cast { .. } | Op::Reshape { .. } | Op::Broadcast { .. }, &[x]) => {
                unchanged(x).then_some(x)
            }
            (Op::Permute { axes }, &[x]) => axes.is_sorted().then_some(x),
            (Op::Binary { function: BinaryFn::Mul }, &[lhs, rhs]) => {
                if self.is_one(rhs) && unchanged(lhs) {
                    Some(lhs)
                } else if self.is_one(lhs) && unchanged(rhs) {
                    Some(rhs)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    /// Whether a node is the constant 1, perhaps broadcast.
    fn is_one(&self, node: NodeId) -> bool {
        match self.op_of(node) {
            Op::Constant { value, .. } => *value == 1.0,
            Op::Broadcast { .. } | Op::Reshape { .. } => {
                self.is_one(self.graph.graph().nodes[node.index()].inputs[0])
            }
            _ => false,
        }
    }

    /// The node with cheaper operands or as a cheaper op.
    fn reduced(&self) -> (Op, Vec<NodeId>) {
        let ty = self.graph.ty(self.id);
        match self.op {
            Op::Broadcast { .. } | Op::Reshape { .. } => {
                if let Op::Constant { value, .. } = self.op_of(self.inputs[0]) {
                    let (dtype, shape) = (ty.dtype, ty.shape.clone());
                    return (Op::Constant { dtype, shape, value: *value }, Vec::new());
                }
                (self.op.clone(), self.inputs.to_vec())
            }
            Op::Binary { .. } | Op::Compare { .. } | Op::Select => {
                (self.op.clone(), self.without_broadcasts())
            }
            _ => (self.op.clone(), self.inputs.to_vec()),
        }
    }

    /// Operands of a broadcasting op, each replaced by what it broadcasts
    /// where the result keeps its shape.
    fn without_broadcasts(&self) -> Vec<NodeId> {
        let mut inputs = self.inputs.to_vec();
        for place in 0..inputs.len() {
            let node = &self.graph.graph().nodes[inputs[place].index()];
            if !matches!(node.op, Op::Broadcast { .. }) {
                continue;
            }
            let kept = std::mem::replace(&mut inputs[place], node.inputs[0]);
            if !self.has_shape(&inputs) {
                inputs[place] = kept;
            }
        }
        inputs
    }

    fn has_shape(&self, inputs: &[NodeId]) -> bool {
        let first = self.graph.ty(inputs[0]).shape.clone();
        let shape = inputs[1..]
            .iter()
            .try_fold(first, |shape, &input| broadcast_shapes(&shape, &self.graph.ty(input).shape));
        shape.as_ref() == Ok(&self.graph.ty(self.id).shape)
    }
}
