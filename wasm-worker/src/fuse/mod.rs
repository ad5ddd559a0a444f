//! Fusion: chains of element-wise ops run as one pass over tiles that stay in
//! a cache, and what directly follows a matrix product or a convolution runs
//! on each of its blocks as soon as that is complete.
//!
//! Every element goes through the same f32 operations in the same order as it
//! would op by op, so that fusing never changes a bit. [`group`] decides what
//! runs together, [`compile`] makes a program of it, [`run`] runs that.

mod allocate;
mod compile;
mod group;
mod program;
mod run;
mod scaling;
#[cfg(test)]
mod tests;

use crate::axes::Dims;
use crate::buffer::Buffer;
use crate::ops;
use crate::tensor::{Tensor, dims_of};
pub use group::{Group, Part, groups, part};
use program::Program;
use raven_graph::{DType, NodeId, Op, TensorType, ValidGraph};
use run::Tiles;

/// A group made ready to run.
#[derive(Debug)]
pub struct Fused {
    /// What is read: the operands of the product, where there is one, then those of the program.
    operands: Vec<NodeId>,
    product: Option<Product>,
    program: Program,
    /// Which operand's place the result may take, and the program for that: it reads the others,
    /// and the product after them.
    in_place: Option<(usize, Program)>,
    dims: Dims,
}

#[derive(Debug)]
struct Product {
    node: NodeId,
    op: Op,
    ty: TensorType,
    /// How many of the group's operands are its own.
    operands: usize,
}

impl Fused {
    /// Compiles a group. `None` where it would hold too many tiles at once.
    pub fn new(graph: &ValidGraph, group: &Group) -> Option<Self> {
        let read = compile::operands(graph, group);
        let program = compile::compile(graph, group, &read, group.product)?;
        let mut operands = Vec::new();
        let product = group.product.map(|node| {
            let found = &graph.graph().nodes[node.index()];
            operands.extend(&found.inputs);
            Product {
                node,
                op: found.op.clone(),
                ty: graph.ty(node).clone(),
                operands: found.inputs.len(),
            }
        });
        operands.extend(read);
        let dims = dims_of(&graph.ty(group.root()).shape);
        Some(Fused { operands, product, program, in_place: None, dims })
    }

    /// Lets the result take the place of an operand that `dies` here, where the product, if there
    /// is one, need not be kept.
    pub fn take_place(&mut self, graph: &ValidGraph, group: &Group, dies: &[bool]) {
        let (factors, others) = self.operands.split_at(self.factors());
        let product = self.product.as_ref();
        let types: Vec<_> = factors.iter().map(|node| graph.ty(*node)).collect();
        if product.is_some_and(|product| !ops::can_pass(&product.op, &types)) {
            return;
        }
        let result = graph.ty(group.root());
        let fits = |node: NodeId| {
            let ty = graph.ty(node);
            ty.dtype == DType::F32 && ty.shape.elements() == result.shape.elements()
        };
        let places = others.iter().zip(&dies[factors.len()..]).enumerate();
        let mut places = places.filter(|(_, (node, dies))| **dies && fits(**node));
        self.in_place = places.find_map(|(at, (node, _))| {
            let kept = others.iter().filter(|other| *other != node).copied();
            let read: Vec<NodeId> = kept.chain(product.map(|product| product.node)).collect();
            let program = compile::compile(graph, group, &read, Some(*node))?;
            Some((factors.len() + at, program))
        });
    }

    /// The nodes whose values are read, in the order in which [`Fused::run`] takes them.
    pub fn operands(&self) -> &[NodeId] {
        &self.operands
    }

    /// The product that it begins with.
    pub fn product(&self) -> Option<NodeId> {
        self.product.as_ref().map(|product| product.node)
    }

    /// Bytes of the tiles beside operands and result, at most. A block of a product of which
    /// nothing is kept is not larger than the result, whose place is then an operand's.
    pub fn scratch_bytes(&self) -> u64 {
        let in_place = self.in_place.as_ref().map_or(0, |(_, program)| program.scratch_bytes());
        in_place.max(self.program.scratch_bytes())
    }

    /// The group's value; the operands are taken.
    pub fn run(&self, operands: &mut Vec<Tensor>) -> Tensor {
        let value = match &self.in_place {
            Some((at, program)) if operands[*at].is_unique() => {
                let place = operands.remove(*at);
                self.run_in(place, program, operands)
            }
            _ => self.run_apart(operands),
        };
        operands.clear();
        value
    }

    fn factors(&self) -> usize {
        self.product.as_ref().map_or(0, |product| product.operands)
    }

    /// Puts the result in an operand's place, by the program for that.
    fn run_in(&self, place: Tensor, program: &Program, operands: &[Tensor]) -> Tensor {
        let (factors, others) = operands.split_at(self.factors());
        let mut elements = place.into_elements::<f32>();
        let mut tiles = Tiles::new(program, others, elements.len());
        let Some(product) = &self.product else {
            tiles.run(0, &mut elements, &[]);
            return Tensor::of(&self.dims, elements);
        };
        let mut finish = |at: usize, part: &mut [f32]| {
            tiles.run(at, &mut elements[at..at + part.len()], part);
        };
        ops::passing_product(&product.op, factors, &mut finish);
        Tensor::of(&self.dims, elements)
    }

    fn run_apart(&self, operands: &[Tensor]) -> Tensor {
        let (factors, others) = operands.split_at(self.factors());
        let count = self.dims.iter().product();
        let mut tiles = Tiles::new(&self.program, others, count);
        if let Some(product) = &self.product {
            let mut finish = |at: usize, part: &mut [f32]| tiles.run(at, part, &[]);
            let value = ops::product(&product.op, factors, &product.ty, &mut finish);
            return value.reshaped(&self.dims);
        }
        let mut elements = Buffer::stale(count);
        tiles.run(0, &mut elements, &[]);
        Tensor::of(&self.dims, elements)
    }
}
