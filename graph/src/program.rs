//! The graph itself, as it arrives, before anyone has checked it.

use crate::dtype::TensorType;
use crate::op::Op;
use serde::{Deserialize, Serialize};

/// The version of the JSON and canonical forms that this crate reads and writes.
pub const GRAPH_VERSION: u32 = 1;

/// The index of a node. Operands always have smaller ids than their users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The position in [`Graph::nodes`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One operation and where its operands come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What is computed.
    #[serde(flatten)]
    pub op: Op,
    /// Operands, in the order that [`Op`] documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<NodeId>,
}

/// A result that the graph returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Unique among the outputs.
    pub name: String,
    /// The node whose value is returned.
    pub node: NodeId,
}

/// A directed acyclic graph of tensor operations in topological order.
///
/// Whoever receives one from outside turns it into a [`crate::ValidGraph`];
/// no kernel accepts anything else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// Always [`GRAPH_VERSION`].
    pub version: u32,
    /// Operations; every operand precedes its user.
    pub nodes: Vec<Node>,
    /// Results, in order.
    pub outputs: Vec<Output>,
}

/// A named operand of a graph, as [`crate::ValidGraph::inputs`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// The name that a task binds.
    pub name: String,
    /// What must be bound.
    pub ty: TensorType,
    /// The node that stands for it.
    pub node: NodeId,
}
