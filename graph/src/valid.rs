//! The border: a graph from outside becomes a [`ValidGraph`] here, once.

use crate::canonical::{self, GraphId};
use crate::cost::{self, Cost};
use crate::dtype::TensorType;
use crate::error::GraphError;
use crate::infer::infer;
use crate::limits::Limits;
use crate::op::Op;
use crate::program::{GRAPH_VERSION, Graph, InputSpec, Node, NodeId, Output};
use crate::scan;
use std::collections::HashSet;

/// A graph whose every node has a known type and which keeps to its limits.
///
/// It can only be made by validation, so whoever holds one may index nodes,
/// types and outputs without checking again.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidGraph {
    graph: Graph,
    types: Vec<TensorType>,
    inputs: Vec<InputSpec>,
    live: Vec<bool>,
    cost: Cost,
    id: GraphId,
}

impl Graph {
    /// Checks everything that a kernel relies on.
    ///
    /// # Errors
    /// The first refusal in this order: version, counts, each node in order
    /// (name, operands, shapes, rank, elements), outputs, bytes, flops.
    pub fn validate(self, limits: &Limits) -> Result<ValidGraph, GraphError> {
        check_counts(&self, limits)?;
        let mut types: Vec<TensorType> = Vec::with_capacity(self.nodes.len());
        let mut inputs: Vec<InputSpec> = Vec::new();
        let mut names = HashSet::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let id = NodeId(index as u32);
            let ty = node_type(id, node, &types, limits)?;
            if let Op::Input { name, .. } = &node.op {
                check_name("input", name, limits)?;
                if !names.insert(name.as_str()) {
                    return Err(GraphError::DuplicateInput { node: id.0, name: name.clone() });
                }
                inputs.push(InputSpec { name: name.clone(), ty: ty.clone(), node: id });
            }
            types.push(ty);
        }
        check_outputs(&self, limits)?;
        let live = cost::live_nodes(&self);
        let (cost, bytes_live) = cost::measure(&self, &types, &live);
        if bytes_live > limits.bytes_max {
            return Err(GraphError::Bytes { limit: limits.bytes_max, found: bytes_live });
        }
        if cost.flops > limits.flops_max {
            return Err(GraphError::Flops { limit: limits.flops_max, found: cost.flops });
        }
        let id = GraphId::of(&self);
        Ok(ValidGraph { graph: self, types, inputs, live, cost, id })
    }
}

fn check_counts(graph: &Graph, limits: &Limits) -> Result<(), GraphError> {
    if graph.version != GRAPH_VERSION {
        return Err(GraphError::Version { expected: GRAPH_VERSION, found: graph.version });
    }
    let found = graph.nodes.len() as u64;
    if found > limits.nodes_max.into() {
        return Err(GraphError::Nodes { limit: limits.nodes_max, found });
    }
    let found = graph.outputs.len() as u64;
    if found > limits.outputs_max.into() {
        return Err(GraphError::Outputs { limit: limits.outputs_max, found });
    }
    Ok(())
}

pub(crate) fn check_name(
    field: &'static str,
    name: &str,
    limits: &Limits,
) -> Result<(), GraphError> {
    let (limit, found) = (limits.name_bytes_max, name.len() as u64);
    if name.is_empty() || found > limit.into() || name.chars().any(char::is_control) {
        return Err(GraphError::Name { field, limit, found });
    }
    Ok(())
}

/// The type of a node, given the types of all nodes before it.
pub(crate) fn node_type(
    id: NodeId,
    node: &Node,
    types: &[TensorType],
    limits: &Limits,
) -> Result<TensorType, GraphError> {
    let found = node.inputs.len() as u64;
    if found > limits.operands_max.into() {
        return Err(GraphError::Operands { node: id.0, limit: limits.operands_max, found });
    }
    let operands = node
        .inputs
        .iter()
        .map(|operand| {
            let ty = types.get(operand.index());
            ty.ok_or(GraphError::OperandOrder { node: id.0, operand: operand.0 })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let ty = infer(&node.op, &operands).map_err(|error| GraphError::Op {
        node: id.0,
        op: node.op.name(),
        error,
    })?;
    let found = ty.shape.rank() as u64;
    if found > limits.rank_max.into() {
        return Err(GraphError::Rank { node: id.0, limit: limits.rank_max, found });
    }
    let found = ty.shape.elements().unwrap_or(u64::MAX);
    if found > limits.elements_max {
        return Err(GraphError::Elements { node: id.0, limit: limits.elements_max, found });
    }
    Ok(ty)
}

fn check_outputs(graph: &Graph, limits: &Limits) -> Result<(), GraphError> {
    if graph.outputs.is_empty() {
        return Err(GraphError::NoOutputs);
    }
    let mut names = HashSet::new();
    for Output { name, node } in &graph.outputs {
        check_name("output", name, limits)?;
        if !names.insert(name.as_str()) {
            return Err(GraphError::DuplicateOutput { name: name.clone() });
        }
        if node.index() >= graph.nodes.len() {
            let nodes = graph.nodes.len() as u32;
            return Err(GraphError::OutputNode { name: name.clone(), node: node.0, nodes });
        }
    }
    Ok(())
}

impl ValidGraph {
    /// Parses and validates the documented JSON form.
    ///
    /// # Errors
    /// The length and the entry counts are refused before anything is built;
    /// then [`GraphError::Json`], then what [`Graph::validate`] refuses.
    pub fn from_json(json: &[u8], limits: &Limits) -> Result<Self, GraphError> {
        scan::scan(json, limits)?;
        let graph: Graph = serde_json::from_slice(json)
            .map_err(|error| GraphError::Json { reason: error.to_string() })?;
        graph.validate(limits)
    }

    /// Decodes and validates the canonical form.
    ///
    /// # Errors
    /// What [`canonical::decode`] and [`Graph::validate`] refuse.
    pub fn from_canonical(bytes: &[u8], limits: &Limits) -> Result<Self, GraphError> {
        canonical::decode(bytes, limits)?.validate(limits)
    }

    /// The nodes and outputs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The type of a node's value.
    ///
    /// # Panics
    /// Where the id is not one of this graph's.
    pub fn ty(&self, node: NodeId) -> &TensorType {
        &self.types[node.index()]
    }

    /// The types of all nodes, in order.
    pub fn types(&self) -> &[TensorType] {
        &self.types
    }

    /// What a task must bind, in node order, used or not; names are unique.
    pub fn inputs(&self) -> &[InputSpec] {
        &self.inputs
    }

    /// The input of that name.
    pub fn input(&self, name: &str) -> Option<&InputSpec> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// What a task returns, in order; names are unique.
    pub fn outputs(&self) -> &[Output] {
        &self.graph.outputs
    }

    /// The type of the output of that name.
    pub fn output_type(&self, name: &str) -> Option<&TensorType> {
        let output = self.graph.outputs.iter().find(|output| output.name == name)?;
        Some(self.ty(output.node))
    }

    /// Whether an output depends on the node. Dead nodes need not be run.
    pub fn is_live(&self, node: NodeId) -> bool {
        self.live[node.index()]
    }

    /// The content id.
    pub fn id(&self) -> GraphId {
        self.id
    }

    /// What a run costs.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The JSON form.
    pub fn to_json(&self) -> Vec<u8> {
        // Attributes are finite and keys are strings, the two things that
        // this serializer could refuse.
        serde_json::to_vec(&self.graph).expect("a valid graph has a JSON form")
    }

    /// The canonical form.
    pub fn to_canonical(&self) -> Vec<u8> {
        canonical::encode(&self.graph)
    }

    /// Gives the graph back, e.g. to change it and validate again.
    pub fn into_graph(self) -> Graph {
        self.graph
    }
}
