//! Taking the nodes of one stage out of a graph.

use super::{CutError, PartInput, Subgraph, ValueRef, value_name};
use crate::error::GraphError;
use crate::limits::Limits;
use crate::op::Op;
use crate::program::{Graph, Node, NodeId, Output};
use crate::valid::ValidGraph;
use std::collections::BTreeMap;

/// Which stage runs each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Dead, or an input: nothing runs it.
    Nowhere,
    /// A constant: made again wherever it is read.
    Everywhere,
    /// A node of the numbered local stage.
    Local(usize),
    /// A pushed node.
    Pushed,
}

/// A graph with every node placed.
pub(super) struct Placement<'a> {
    graph: &'a ValidGraph,
    places: Vec<Place>,
    /// Values that another stage, or the end, reads from the environment.
    exported: Vec<bool>,
}

impl<'a> Placement<'a> {
    /// Places nodes by a rule for those that run; constants that must be in
    /// the environment go to local stage 0.
    pub fn new(graph: &'a ValidGraph, place: impl Fn(NodeId) -> Place) -> Self {
        let nodes = &graph.graph().nodes;
        let mut places: Vec<Place> = (0..nodes.len() as u32)
            .map(NodeId)
            .map(|id| match nodes[id.index()].op {
                Op::Input { .. } => Place::Nowhere,
                _ if !graph.is_live(id) => Place::Nowhere,
                Op::Constant { .. } => Place::Everywhere,
                _ => place(id),
            })
            .collect();
        let mut exported = vec![false; nodes.len()];
        for output in graph.outputs() {
            exported[output.node.index()] = true;
        }
        for (index, node) in nodes.iter().enumerate() {
            let user = places[index];
            for operand in node.inputs.iter().filter(|_| user != Place::Nowhere) {
                let made = places[operand.index()];
                let here = made == user && user != Place::Pushed;
                let again = made == Place::Everywhere && user != Place::Pushed;
                exported[operand.index()] |= !here && !again;
            }
        }
        for (place, &exported) in places.iter_mut().zip(&exported) {
            if *place == Place::Everywhere && exported {
                *place = Place::Local(0);
            }
        }
        Placement { graph, places, exported }
    }

    /// The local stage of that number, or `None` where nothing is in it.
    pub fn local(&self, stage: usize) -> Result<Option<Subgraph>, CutError> {
        let mut piece = Piece {
            source: self.graph,
            nodes: Vec::new(),
            map: BTreeMap::new(),
            inputs: Vec::new(),
        };
        let mut outputs = Vec::new();
        for (index, node) in self.graph.graph().nodes.iter().enumerate() {
            if self.places[index] != Place::Local(stage) {
                continue;
            }
            let id = NodeId(index as u32);
            let inputs = node.inputs.iter().map(|&operand| self.operand(&mut piece, operand));
            let inputs = inputs.collect();
            let copy = piece.push(id, Node { op: node.op.clone(), inputs });
            if self.exported[index] {
                outputs.push(Output { name: value_name(self.graph, id), node: copy });
            }
        }
        if outputs.is_empty() { Ok(None) } else { Ok(Some(piece.finish(outputs)?)) }
    }

    /// The operand's copy in a piece: made there, made again, or bound.
    fn operand(&self, piece: &mut Piece<'_>, operand: NodeId) -> NodeId {
        if let Some(&copy) = piece.map.get(&operand) {
            return copy;
        }
        let op = &self.graph.graph().nodes[operand.index()].op;
        if matches!(op, Op::Constant { .. }) {
            return piece.push(operand, Node { op: op.clone(), inputs: Vec::new() });
        }
        piece.bind(operand)
    }
}

/// A subgraph under construction.
struct Piece<'a> {
    source: &'a ValidGraph,
    nodes: Vec<Node>,
    map: BTreeMap<NodeId, NodeId>,
    inputs: Vec<PartInput>,
}

impl Piece<'_> {
    fn push(&mut self, original: NodeId, node: Node) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        self.map.insert(original, id);
        id
    }

    /// Reads a value of the environment under its name there.
    fn bind(&mut self, original: NodeId) -> NodeId {
        let name = value_name(self.source, original);
        let value = ValueRef { name: name.clone(), slice: None };
        self.inputs.push(PartInput { name: name.clone(), value });
        let ty = self.source.ty(original);
        let op = Op::Input { name, dtype: ty.dtype, shape: ty.shape.clone() };
        self.push(original, Node { op, inputs: Vec::new() })
    }

    fn finish(self, outputs: Vec<Output>) -> Result<Subgraph, GraphError> {
        let version = self.source.graph().version;
        let graph = Graph { version, nodes: self.nodes, outputs };
        Ok(Subgraph { graph: graph.validate(&Limits::unbounded())?, inputs: self.inputs })
    }
}
