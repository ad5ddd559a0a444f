//! Passes that make a graph smaller without changing one bit of its outputs.
//!
//! Each keeps the order of nodes, so equal graphs stay equal and ids that
//! survive only move down.

mod common;
mod dead;
mod simplify;

pub use common::cse;
pub use dead::dead_code;
pub use simplify::simplify;

use crate::error::GraphError;
use crate::limits::Limits;
use crate::program::{Graph, Node, NodeId, Output};
use crate::valid::ValidGraph;

/// All passes, in the order in which each profits from the one before.
///
/// # Errors
/// None in practice, since no pass adds nodes or bytes; validation runs again
/// and its refusals are passed on.
pub fn optimize(graph: &ValidGraph) -> Result<ValidGraph, GraphError> {
    dead_code(&cse(&simplify(graph)?)?)
}

/// A graph being copied node by node, with the place that each node went to.
struct Rewrite {
    nodes: Vec<Node>,
    map: Vec<Option<NodeId>>,
}

impl Rewrite {
    fn new(graph: &ValidGraph) -> Self {
        Rewrite { nodes: Vec::new(), map: Vec::with_capacity(graph.graph().nodes.len()) }
    }

    /// Operands at their new places; all are mapped, being nodes before this.
    fn moved(&self, inputs: &[NodeId]) -> Vec<NodeId> {
        inputs
            .iter()
            .map(|input| self.map[input.index()].expect("operands are kept with their users"))
            .collect()
    }

    fn keep(&mut self, node: Node) {
        self.map.push(Some(NodeId(self.nodes.len() as u32)));
        self.nodes.push(node);
    }

    fn finish(self, graph: &ValidGraph) -> Result<ValidGraph, GraphError> {
        let outputs = graph
            .outputs()
            .iter()
            .map(|output| Output {
                name: output.name.clone(),
                node: self.map[output.node.index()].expect("outputs are kept"),
            })
            .collect();
        Graph { version: graph.graph().version, nodes: self.nodes, outputs }
            .validate(&Limits::unbounded())
    }
}
