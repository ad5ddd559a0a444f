//! Which nodes run as one: chains of element-wise ops, with the product before them.
//!
//! A group has one result, that of its last node. Everything else that it
//! computes is read by its own members alone, so nobody misses it.

use raven_graph::{DType, NodeId, Op, TensorType, UnaryFn, ValidGraph};
use std::collections::BTreeMap;

/// Nodes of one group at most, which bounds what a plan takes.
const MEMBERS_MAX: usize = 32;

/// Nodes that run as one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// In the graph's order; the last one is the result. The product is not among them.
    pub members: Vec<NodeId>,
    /// The matrix product or convolution whose result the group reads while it is in a cache.
    pub product: Option<NodeId>,
}

impl Group {
    /// The node whose value the group yields.
    pub fn root(&self) -> NodeId {
        *self.members.last().expect("a group has members")
    }

    /// The node in whose place it runs: its product, since everything else that it reads is
    /// there by then, or its last member.
    pub fn place(&self) -> NodeId {
        self.product.unwrap_or_else(|| self.root())
    }

    /// All nodes of the group.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.product.into_iter().chain(self.members.iter().copied())
    }
}

/// How a node takes part in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Computes each element from the elements at the same place.
    Compute,
    /// Every element is the same known number.
    Number,
    /// Other extents of the same elements.
    Reshape,
    /// Elements repeated over further extents.
    Broadcast,
    /// Computed in blocks that are still in a cache when they are complete.
    Product,
    /// Runs alone.
    None,
}

/// How `node` can take part.
pub fn part(graph: &ValidGraph, node: NodeId) -> Part {
    let found = &graph.graph().nodes[node.index()];
    let dtype = graph.ty(node).dtype;
    let operand = |at: usize| graph.ty(found.inputs[at]).dtype;
    let computes = match &found.op {
        // These are another library's, whose loops are not ours to cut into tiles.
        Op::Unary { function: UnaryFn::Exp | UnaryFn::Log | UnaryFn::Tanh } => false,
        Op::Unary { .. } => true,
        Op::Binary { .. } | Op::Select => dtype == DType::F32,
        Op::Compare { .. } => operand(0) == DType::F32,
        // A cast to what it is already is left alone: nothing is to be computed.
        Op::Cast { .. } => match (operand(0), dtype) {
            (DType::F32, to) => to == DType::Bool,
            (_, to) => to == DType::F32,
        },
        Op::Constant { .. } if dtype == DType::F32 => return Part::Number,
        Op::Reshape { .. } => return Part::Reshape,
        Op::Broadcast { .. } => return Part::Broadcast,
        Op::MatMul { .. } | Op::Conv2d(_) => return Part::Product,
        _ => false,
    };
    if computes { Part::Compute } else { Part::None }
}

/// How often each node is read by nodes that run; outputs are read once more.
pub fn uses(graph: &ValidGraph) -> Vec<u32> {
    let nodes = &graph.graph().nodes;
    let mut uses = vec![0u32; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        if graph.is_live(NodeId(index as u32)) {
            node.inputs.iter().for_each(|operand| uses[operand.index()] += 1);
        }
    }
    for output in graph.outputs() {
        uses[output.node.index()] += 1;
    }
    uses
}

/// The groups of a graph, in the order in which they run.
pub fn groups(graph: &ValidGraph) -> Vec<Group> {
    let uses = uses(graph);
    let mut taken = vec![false; uses.len()];
    let mut groups = Vec::new();
    // From the end, so that a chain is taken by its last node, whole.
    for index in (0..uses.len()).rev() {
        let root = NodeId(index as u32);
        let may_be_root = graph.is_live(root)
            && !taken[index]
            && part(graph, root) == Part::Compute
            && graph.ty(root).dtype == DType::F32;
        if !may_be_root {
            continue;
        }
        if let Some(group) = Growth::new(graph, &uses, &taken, root).grow() {
            group.nodes().for_each(|node| taken[node.index()] = true);
            groups.push(group);
        }
    }
    groups.sort_by_key(Group::place);
    groups
}

/// How members met so far read a node.
#[derive(Clone, Copy, Debug, Default)]
struct Reads {
    count: u32,
    /// By a broadcast or a reshape of it, so that it must lie in memory as a whole.
    whole: bool,
    /// By a reshape, which cannot tell elements that repeat from others.
    reshaped: bool,
}

/// A group that takes in operands as long as nobody else reads them.
struct Growth<'a> {
    graph: &'a ValidGraph,
    uses: &'a [u32],
    taken: &'a [bool],
    elements: Option<u64>,
    /// Latest first, so that whoever reads a node has been met before it.
    candidates: BTreeMap<NodeId, Reads>,
    members: Vec<NodeId>,
    outside: Vec<(NodeId, Reads)>,
}

fn elements(ty: &TensorType) -> Option<u64> {
    ty.shape.elements()
}

impl<'a> Growth<'a> {
    fn new(graph: &'a ValidGraph, uses: &'a [u32], taken: &'a [bool], root: NodeId) -> Self {
        let mut growth = Growth {
            graph,
            uses,
            taken,
            elements: elements(graph.ty(root)),
            candidates: BTreeMap::new(),
            members: Vec::new(),
            outside: Vec::new(),
        };
        growth.take(root, Reads::default());
        growth
    }

    fn take(&mut self, node: NodeId, by: Reads) {
        self.members.push(node);
        let part = part(self.graph, node);
        let is_whole = elements(self.graph.ty(node)) == self.elements;
        for operand in &self.graph.graph().nodes[node.index()].inputs {
            let reads = self.candidates.entry(*operand).or_default();
            reads.count += 1;
            match part {
                Part::Broadcast => reads.whole = true,
                Part::Reshape => {
                    reads.reshaped = true;
                    reads.whole |= by.whole || !is_whole;
                }
                _ => {}
            }
        }
    }

    fn joins(&self, node: NodeId, reads: Reads) -> bool {
        if self.is_shared(node, reads) || self.members.len() >= MEMBERS_MAX {
            return false;
        }
        match part(self.graph, node) {
            Part::Compute => !reads.whole && elements(self.graph.ty(node)) == self.elements,
            Part::Broadcast => !reads.whole && !reads.reshaped,
            Part::Reshape | Part::Number => true,
            Part::Product | Part::None => false,
        }
    }

    /// Whether somebody outside reads the node too.
    fn is_shared(&self, node: NodeId, reads: Reads) -> bool {
        self.taken[node.index()] || self.uses[node.index()] != reads.count
    }

    fn grow(mut self) -> Option<Group> {
        while let Some((node, reads)) = self.candidates.pop_last() {
            if self.joins(node, reads) {
                self.take(node, reads);
            } else if part(self.graph, node) != Part::Number {
                self.outside.push((node, reads));
            }
        }
        let product = self.product();
        let count =
            |wanted| self.members.iter().filter(|node| part(self.graph, **node) == wanted).count();
        let pays = product.is_some() || count(Part::Compute) + count(Part::Broadcast) > 1;
        self.members.reverse();
        pays.then_some(Group { members: self.members, product })
    }

    /// The product that the group can follow block by block: nobody else reads
    /// it, and whatever else the group reads is there when it runs.
    fn product(&self) -> Option<NodeId> {
        let bound =
            |node: NodeId| matches!(self.graph.graph().nodes[node.index()].op, Op::Input { .. });
        // The latest of all that is computed: `outside` falls.
        let (node, reads) = *self.outside.iter().find(|(node, _)| !bound(*node))?;
        let fits = part(self.graph, node) == Part::Product
            && !reads.whole
            && !self.is_shared(node, reads)
            && elements(self.graph.ty(node)) == self.elements;
        fits.then_some(node)
    }
}
