//! Common subexpressions.

use super::Rewrite;
use crate::canonical;
use crate::error::GraphError;
use crate::program::{Node, NodeId};
use crate::valid::ValidGraph;
use std::collections::HashMap;

/// Computes equal nodes once. Every op is a pure function of its operands and
/// attributes, random numbers with one stream and shape included.
///
/// # Errors
/// Passes on what validation refuses.
pub fn cse(graph: &ValidGraph) -> Result<ValidGraph, GraphError> {
    let mut rewrite = Rewrite::new(graph);
    // Only looked up, never walked: its order cannot reach the result.
    let mut seen: HashMap<Vec<u8>, NodeId> = HashMap::new();
    for node in &graph.graph().nodes {
        let node = Node { op: node.op.clone(), inputs: rewrite.moved(&node.inputs) };
        let next = NodeId(rewrite.nodes.len() as u32);
        let first = *seen.entry(canonical::encode_node(&node)).or_insert(next);
        if first == next {
            rewrite.keep(node);
        } else {
            rewrite.map.push(Some(first));
        }
    }
    rewrite.finish(graph)
}
