//! How long element-wise chains may get, and where they read what is in memory.

use super::element;
use super::role::{Role, elements, is_free, owner, role};
use crate::shader::{PARAM_BYTES, RANGE_WORDS, STORAGE_BUFFERS_MAX, merged, steps};
use raven_graph::{NodeId, Op, ValidGraph};
use std::collections::BTreeSet;

/// Buffers that one chain may read: one of the eight is written.
const READS_MAX: usize = STORAGE_BUFFERS_MAX - 1;
/// Ops in one chain: beyond it shaders get slow to compile and run out of registers.
const OPS_MAX: usize = 40;
/// Parameters beside those that every chain may have: its length, run and seed.
const FIELDS_MAX: usize = PARAM_BYTES as usize / 4 - RANGE_WORDS - 4;

/// What the chain that ends at one op takes.
#[derive(Clone, Debug, Default)]
struct Chain {
    /// Owners of what it reads, each with the element type that it is bound with.
    reads: BTreeSet<(u32, &'static str)>,
    ops: usize,
    fields: usize,
}

impl Chain {
    fn fits(&self) -> bool {
        self.reads.len() <= READS_MAX && self.ops <= OPS_MAX && self.fields <= FIELDS_MAX
    }
}

/// Where the elements of `id` find those of operand `at`: extents and steps of the
/// axes, outermost first, and where they start.
pub fn reading(graph: &ValidGraph, id: NodeId, at: usize) -> (Vec<(u32, u32)>, u32) {
    let node = &graph.graph().nodes[id.index()];
    let (dims, out) = (graph.ty(node.inputs[at]).shape.dims(), graph.ty(id).shape.dims());
    let own = steps(dims);
    match &node.op {
        Op::Permute { axes } => {
            let axes = axes.iter().zip(out).map(|(axis, &extent)| (extent, own[*axis as usize]));
            (merged(axes), 0)
        }
        Op::Slice { starts, .. } => {
            let start = starts.iter().zip(&own).map(|(start, step)| start * step).sum();
            (merged(out.iter().copied().zip(own)), start)
        }
        _ => {
            let missing = out.len() - dims.len();
            let axes = out.iter().enumerate().map(|(axis, &extent)| {
                let step = match axis.checked_sub(missing) {
                    Some(axis) if dims[axis] != 1 => own[axis],
                    _ => 0,
                };
                (extent, step)
            });
            (merged(axes), 0)
        }
    }
}

/// Parameters that reading operand `at` of `id` takes.
fn reading_fields(graph: &ValidGraph, id: NodeId, at: usize) -> usize {
    match &graph.graph().nodes[id.index()].op {
        Op::Pad { .. } => 4 * graph.ty(id).shape.rank(),
        Op::OneHot { .. } => 1,
        _ => {
            let (axes, start) = reading(graph, id, at);
            let is_one = axes.iter().all(|(_, step)| *step == 0);
            let is_plain = start == 0 && axes == [(elements(graph, id), 1)];
            if is_one || is_plain { 0 } else { 2 * axes.len() }
        }
    }
}

/// The chain that ends at `id`, by those of its operands.
fn measured(graph: &ValidGraph, stored: &[bool], chains: &[Chain], id: NodeId) -> Chain {
    let node = &graph.graph().nodes[id.index()];
    let own = usize::from(matches!(node.op, Op::Random { .. }));
    let mut chain = Chain { ops: 1, fields: own, ..Chain::default() };
    let mut inlined = BTreeSet::new();
    for (at, operand) in node.inputs.iter().enumerate() {
        let from = owner(graph, *operand);
        if stored[from.index()] {
            chain.reads.insert((from.0, element(graph.ty(*operand).dtype)));
            chain.fields += reading_fields(graph, id, at);
        } else if inlined.insert(from) {
            let inner = &chains[from.index()];
            chain.reads.extend(&inner.reads);
            chain.ops += inner.ops;
            chain.fields += inner.fields;
        }
    }
    chain
}

/// Stores operands where a chain would read too many buffers, take too many
/// parameters or hold too many ops.
///
/// Only operands with one reader are stored: chains before this one that hold a
/// free operand stay as they were measured. With all others stored, an op reads
/// three values at most, by the parameters of three views.
pub fn bound(graph: &ValidGraph, stored: &mut [bool]) {
    let nodes = &graph.graph().nodes;
    let mut chains = vec![Chain::default(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        let id = NodeId(index as u32);
        if !graph.is_live(id) || role(graph, id) != Role::Expression {
            continue;
        }
        let owners: BTreeSet<NodeId> =
            node.inputs.iter().map(|operand| owner(graph, *operand)).collect();
        loop {
            chains[index] = measured(graph, stored, &chains, id);
            let can_go =
                |from: &&NodeId| !stored[from.index()] && !is_free(&nodes[from.index()].op);
            let longest = owners.iter().filter(can_go).max_by_key(|from| {
                let chain = &chains[from.index()];
                (chain.ops > 1, chain.reads.len(), chain.fields, chain.ops)
            });
            match longest {
                Some(from) if !chains[index].fits() => stored[from.index()] = true,
                _ => break,
            }
        }
    }
}
