//! Cutting one graph into pieces that run apart.
//!
//! The pieces exchange values through an *environment*: a map from names to
//! tensors that starts with the graph's inputs under their own names. Every
//! other value is called `%` and its node id.

mod layers;
mod master;
mod split;
mod subgraph;

pub use layers::cut_layers;
pub use master::cut_master;

use crate::builder::GraphBuilder;
use crate::dtype::TensorType;
use crate::error::GraphError;
use crate::limits::Limits;
use crate::op::BinaryFn;
use crate::program::NodeId;
use crate::valid::ValidGraph;
use thiserror::Error;

/// Begins the names that cutting gives to values.
const VALUE_PREFIX: char = '%';

/// Why a graph cannot be cut.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CutError {
    /// Nothing can be split into no parts.
    #[error("parts: must be at least 1")]
    NoParts,
    /// A parameter is not an input of the graph.
    #[error("params: the graph has no input {name:?}")]
    UnknownParam { name: String },
    /// An input's name could be taken for a value's.
    #[error("inputs: {name:?} begins with {VALUE_PREFIX}, which is reserved")]
    ReservedName { name: String },
    /// A boundary is not a node, or boundaries are not in ascending order.
    #[error("boundaries: node {node} is out of order or does not exist")]
    Boundary { node: u32 },
    /// A piece was refused, which a valid graph never leads to.
    #[error("piece: {0}")]
    Graph(#[from] GraphError),
}

/// A graph as stages to be run in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// Each stage reads only values of the environment that are there already.
    pub stages: Vec<Stage>,
    /// Where the graph's outputs are found at the end.
    pub outputs: Vec<CutOutput>,
}

/// One output of the graph that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOutput {
    /// The output's name in the graph.
    pub name: String,
    /// The value's name in the environment.
    pub value: String,
}

/// Stages run one after another.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Runs where the environment is kept.
    Local(Subgraph),
    /// Runs elsewhere; the entries and their parts are independent.
    Pushed(Vec<Pushed>),
}

/// A piece that reads and defines whole values. Its outputs bear the names
/// that the values get in the environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Subgraph {
    /// What to run.
    pub graph: ValidGraph,
    /// What to bind.
    pub inputs: Vec<PartInput>,
}

/// One heavy operation, split into parts that together define one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Pushed {
    /// The value's name in the environment.
    pub value: String,
    /// Its type.
    pub ty: TensorType,
    /// Pieces in the order in which they are combined.
    pub parts: Vec<Part>,
    /// How the parts' outputs become the value.
    pub combine: Combine,
}

/// A piece of one heavy operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What to run.
    pub graph: ValidGraph,
    /// What to bind.
    pub inputs: Vec<PartInput>,
    /// The graph's only output.
    pub output: String,
    /// The piece of a weight that whoever runs this gets to see.
    pub held: Option<HeldSlice>,
}

/// Binds an input of a piece to a value of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartInput {
    /// The input's name in the piece's graph.
    pub name: String,
    /// The value, or a slice of it.
    pub value: ValueRef,
}

/// A value of the environment, or one range of one of its axes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValueRef {
    /// The name in the environment.
    pub name: String,
    /// Cut out before sending; the whole value where absent.
    pub slice: Option<AxisSlice>,
}

/// The half-open range `start..end` of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AxisSlice {
    /// Which axis, from the outermost.
    pub axis: u32,
    /// The first entry.
    pub start: u32,
    /// The entry after the last.
    pub end: u32,
}

/// A piece of a weight. One part index has one range per parameter, the same
/// forward and backward.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeldSlice {
    /// The parameter's name.
    pub param: String,
    /// Which of its axes is cut.
    pub axis: u32,
    /// The first entry.
    pub start: u32,
    /// The entry after the last.
    pub end: u32,
}

/// How parts become a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Combine {
    /// Joined along an axis.
    Concat {
        /// The axis that the parts share out.
        axis: u32,
    },
    /// Added pairwise by part index: 0 with 1, 2 with 3 and so on, then those
    /// sums likewise; an odd one waits for the next round.
    Sum,
}

impl Pushed {
    /// The combination as a graph with inputs `part.0`, `part.1` .. and the
    /// value's name as its output, so that it runs on the same kernels.
    ///
    /// # Errors
    /// None for parts that come from a cut.
    pub fn combine_graph(&self) -> Result<ValidGraph, GraphError> {
        let mut b = GraphBuilder::new(&Limits::unbounded());
        let mut parts = Vec::with_capacity(self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            let node = part.graph.outputs()[0].node;
            let ty = part.graph.ty(node);
            parts.push(b.input(format!("part.{index}"), ty.dtype, ty.shape.clone())?);
        }
        let value = match self.combine {
            Combine::Concat { axis } => b.concat(&parts, axis)?,
            Combine::Sum => tree_sum(&mut b, parts)?,
        };
        b.output(&self.value, value);
        b.finish()
    }
}

/// Adds neighbours until one is left; there is at least one.
fn tree_sum(b: &mut GraphBuilder, mut row: Vec<NodeId>) -> Result<NodeId, GraphError> {
    while row.len() > 1 {
        row = row
            .chunks(2)
            .map(|pair| match *pair {
                [lhs, rhs] => b.binary(BinaryFn::Add, lhs, rhs),
                _ => Ok(pair[0]),
            })
            .collect::<Result<_, _>>()?;
    }
    Ok(row[0])
}

/// The name of a node's value in the environment.
fn value_name(graph: &ValidGraph, node: NodeId) -> String {
    match &graph.graph().nodes[node.index()].op {
        crate::op::Op::Input { name, .. } => name.clone(),
        _ => format!("{VALUE_PREFIX}{}", node.0),
    }
}

/// Where the outputs will be found.
fn cut_outputs(graph: &ValidGraph) -> Vec<CutOutput> {
    let found = graph.outputs().iter();
    found
        .map(|output| CutOutput {
            name: output.name.clone(),
            value: value_name(graph, output.node),
        })
        .collect()
}

fn check_names(graph: &ValidGraph) -> Result<(), CutError> {
    match graph.inputs().iter().find(|input| input.name.starts_with(VALUE_PREFIX)) {
        Some(input) => Err(CutError::ReservedName { name: input.name.clone() }),
        None => Ok(()),
    }
}
