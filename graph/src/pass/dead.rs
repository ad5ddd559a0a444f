//! Dead-code removal.

use super::Rewrite;
use crate::error::GraphError;
use crate::op::Op;
use crate::program::{Node, NodeId};
use crate::valid::ValidGraph;

/// Drops the nodes that no output depends on. Inputs stay, used or not: they
/// are the graph's signature.
///
/// # Errors
/// Passes on what validation refuses.
pub fn dead_code(graph: &ValidGraph) -> Result<ValidGraph, GraphError> {
    let mut rewrite = Rewrite::new(graph);
    for (index, node) in graph.graph().nodes.iter().enumerate() {
        if graph.is_live(NodeId(index as u32)) || matches!(node.op, Op::Input { .. }) {
            let inputs = rewrite.moved(&node.inputs);
            rewrite.keep(Node { op: node.op.clone(), inputs });
        } else {
            rewrite.map.push(None);
        }
    }
    rewrite.finish(graph)
}
