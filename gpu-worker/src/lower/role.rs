//! Which values are written to memory, and which stay in registers.
//!
//! An op that computes each element from elements at known places is an
//! expression. It is written to memory only where somebody needs it there: an
//! output, a kernel of another family, several readers, a reader that visits its
//! elements in another order. All others live in registers of their one reader.

use super::chain;
use crate::shader::count;
use raven_graph::{DType, NodeId, Op, ValidGraph};
use std::collections::BTreeSet;

/// Where a node's elements come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Bound by the task.
    Input,
    /// The operand's words as they are.
    Alias,
    /// Computed per element; may live in registers.
    Expression,
    /// Written by a kernel of its own.
    Kernel,
}

/// The role of a node.
pub fn role(graph: &ValidGraph, id: NodeId) -> Role {
    let node = &graph.graph().nodes[id.index()];
    let dtype = |at: usize| graph.ty(node.inputs[at]).dtype;
    match &node.op {
        Op::Input { .. } => Role::Input,
        Op::Reshape { .. } => Role::Alias,
        // Bytes and bools are words, so these change nothing.
        Op::Cast { dtype: to } => match (dtype(0), *to) {
            (from, to) if from == to => Role::Alias,
            (DType::Bool, DType::U8 | DType::I32) | (DType::U8, DType::I32) => Role::Alias,
            _ => Role::Expression,
        },
        Op::Broadcast { .. } if elements(graph, node.inputs[0]) == elements(graph, id) => {
            Role::Alias
        }
        Op::Constant { .. }
        | Op::Random { .. }
        | Op::Unary { .. }
        | Op::Binary { .. }
        | Op::Compare { .. }
        | Op::Select
        | Op::Broadcast { .. }
        | Op::Permute { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::OneHot { .. } => Role::Expression,
        Op::Reduce { .. }
        | Op::ArgMax { .. }
        | Op::MatMul { .. }
        | Op::Conv2d(_)
        | Op::Conv2dInputGrad { .. }
        | Op::Conv2dWeightGrad { .. }
        | Op::MaxPool2d(_)
        | Op::MaxPool2dGrad(_)
        | Op::AvgPool2d(_)
        | Op::AvgPool2dGrad { .. }
        | Op::Concat { .. }
        | Op::Gather { .. }
        | Op::ScatterAdd { .. }
        | Op::Softmax { .. }
        | Op::LogSoftmax { .. }
        | Op::CrossEntropy
        | Op::CrossEntropyGrad => Role::Kernel,
    }
}

/// Number of elements of a node's value.
pub fn elements(graph: &ValidGraph, id: NodeId) -> u32 {
    count(graph.ty(id).shape.dims())
}

/// Follows aliases to the node that owns the words.
pub fn owner(graph: &ValidGraph, mut id: NodeId) -> NodeId {
    while role(graph, id) == Role::Alias {
        id = graph.graph().nodes[id.index()].inputs[0];
    }
    id
}

/// Ops that read their operand in another order than they write.
fn is_view(op: &Op) -> bool {
    matches!(
        op,
        Op::Broadcast { .. }
            | Op::Permute { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::OneHot { .. }
    )
}

/// What several readers may each compute anew: it costs no more than reading it.
pub fn is_free(op: &Op) -> bool {
    matches!(op, Op::Constant { .. } | Op::Broadcast { .. } | Op::Permute { .. } | Op::Slice { .. })
}

/// Which expressions are written to memory, by node.
pub fn stored(graph: &ValidGraph) -> Vec<bool> {
    let nodes = &graph.graph().nodes;
    let mut stored = vec![false; nodes.len()];
    let mut readers: Vec<BTreeSet<u32>> = vec![BTreeSet::new(); nodes.len()];
    for output in graph.outputs() {
        stored[owner(graph, output.node).index()] = true;
    }
    for (index, node) in nodes.iter().enumerate() {
        let id = NodeId(index as u32);
        let own = role(graph, id);
        if !graph.is_live(id) || matches!(own, Role::Input | Role::Alias) {
            continue;
        }
        for operand in &node.inputs {
            let from = owner(graph, *operand);
            let op = &nodes[from.index()].op;
            readers[from.index()].insert(id.0);
            let in_order = !is_view(&node.op) && elements(graph, from) == elements(graph, id);
            let is_literal = matches!(op, Op::Constant { .. })
                && !matches!(node.op, Op::Pad { .. } | Op::OneHot { .. });
            stored[from.index()] |= own == Role::Kernel || !(in_order || is_literal);
        }
    }
    for (index, node) in nodes.iter().enumerate() {
        let id = NodeId(index as u32);
        if role(graph, id) == Role::Expression {
            stored[index] |= readers[index].len() > 1 && !is_free(&node.op);
        } else {
            stored[index] = true;
        }
    }
    chain::bound(graph, &mut stored);
    stored
}
