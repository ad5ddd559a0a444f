//! How one heavy operation splits.

use super::{
    AxisSlice, Combine, CutError, HeldSlice, Part, PartInput, Pushed, ValueRef, value_name,
};
use crate::builder::GraphBuilder;
use crate::limits::Limits;
use crate::op::Op;
use crate::program::{Node, NodeId};
use crate::valid::ValidGraph;
use std::collections::BTreeSet;

const PART_OUTPUT: &str = "part";

/// Which operands are sliced, along which stored axes, and how the results
/// combine. Both slices of a split cover the same logical extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// The sliced axis of operand 0 and of operand 1.
    axes: [Option<u32>; 2],
    combine: Combine,
    /// The operand that is a weight.
    weight: Option<usize>,
}

/// Decides how a node splits, or that it runs locally (`None`): it is not
/// heavy, multiplies batches of matrices, convolves in groups, or reads a
/// value that is computed from weights alone and would give them away whole.
pub(super) fn split(
    graph: &ValidGraph,
    node: &Node,
    params: &BTreeSet<NodeId>,
    from_params: &[bool],
    parts: u32,
) -> Option<Split> {
    let &[first, second] = node.inputs.as_slice() else { return None };
    let weights = [first, second].map(|operand| params.contains(&operand));
    let given_away = [first, second].map(|id| from_params[id.index()] && !params.contains(&id));
    if given_away.contains(&true) || weights == [true, true] {
        return None;
    }
    let weight = weights.iter().position(|&weight| weight);
    let extents = |operand: NodeId| graph.ty(operand).shape.dims();
    let by = |operand: usize| split_axis(extents(node.inputs[operand]), parts);
    match &node.op {
        Op::MatMul { transpose_lhs, transpose_rhs } => {
            if extents(first).len() != 2 || extents(second).len() != 2 {
                return None;
            }
            let flips = [u32::from(*transpose_lhs), u32::from(*transpose_rhs)];
            Some(split_matmul(
                flips,
                weight,
                weight.map(by),
                [extents(first), extents(second)],
                parts,
            ))
        }
        Op::Conv2d(attrs) | Op::Conv2dInputGrad { attrs, .. }
            if attrs.groups == 1 && weight.is_some() =>
        {
            let forward = matches!(node.op, Op::Conv2d(_));
            let place = usize::from(forward);
            (weight == Some(place)).then(|| split_conv(forward, by(place)))
        }
        Op::Conv2dWeightGrad { attrs, .. } if attrs.groups == 1 && weight.is_none() => {
            let combine = |axis| Combine::Concat { axis };
            let (channels, filters) = (extents(first)[1], extents(second)[1]);
            let by_filters = filters >= parts || filters >= channels;
            Some(if by_filters {
                Split { axes: [None, Some(1)], combine: combine(0), weight }
            } else {
                Split { axes: [Some(1), None], combine: combine(1), weight }
            })
        }
        _ => None,
    }
}

/// The axis along which a weight is held: the output axis (columns of a
/// matrix, filters of a convolution) unless it has fewer entries than parts
/// and the input axis has more.
fn split_axis(extents: &[u32], parts: u32) -> u32 {
    let (output, input) = if extents.len() == 2 { (1, 0) } else { (0, 1) };
    let narrow = extents[output] < parts && extents[input] > extents[output];
    (if narrow { input } else { output }) as u32
}

/// `flips[i]` is 1 where operand `i` is stored transposed. Stored axis
/// `flips[0]` of the left holds rows, `1 - flips[1]` of the right columns.
fn split_matmul(
    flips: [u32; 2],
    weight: Option<usize>,
    held: Option<u32>,
    extents: [&[u32]; 2],
    parts: u32,
) -> Split {
    let (rows, columns) = (flips[0], 1 - flips[1]);
    let inner = Split { axes: [Some(1 - rows), Some(1 - columns)], combine: Combine::Sum, weight };
    let by_rows = Split { axes: [Some(rows), None], combine: Combine::Concat { axis: 0 }, weight };
    let by_columns =
        Split { axes: [None, Some(columns)], combine: Combine::Concat { axis: 1 }, weight };
    match (weight, held) {
        (Some(0), Some(axis)) if axis == rows => by_rows,
        (Some(1), Some(axis)) if axis == columns => by_columns,
        (Some(_), Some(_)) => inner,
        _ => {
            let (height, width) = (extents[0][rows as usize], extents[1][columns as usize]);
            if width >= parts || width >= height { by_columns } else { by_rows }
        }
    }
}

/// A weight `[o, c, kh, kw]` held along axis 0 or 1. Forward, the filters are
/// the result's channels and the channels are summed over; backward, the
/// other way round.
fn split_conv(forward: bool, held: u32) -> Split {
    let summed = if forward { held == 1 } else { held == 0 };
    let other = summed.then_some(1);
    let combine = if summed { Combine::Sum } else { Combine::Concat { axis: 1 } };
    if forward {
        Split { axes: [other, Some(held)], combine, weight: Some(1) }
    } else {
        Split { axes: [Some(held), other], combine, weight: Some(0) }
    }
}

/// Splits a node into at most `parts` pieces.
pub(super) fn pushed(
    graph: &ValidGraph,
    id: NodeId,
    split: &Split,
    parts: u32,
) -> Result<Pushed, CutError> {
    let node = &graph.graph().nodes[id.index()];
    let sliced = split.axes.iter().zip(&node.inputs).find_map(|(axis, operand)| {
        axis.map(|axis| graph.ty(*operand).shape.dims()[axis as usize])
    });
    // Every split slices an operand; without one there would be one piece.
    let extent = sliced.unwrap_or(1);
    let pieces = parts.min(extent);
    let bound = |piece: u32| {
        // Below `extent`, since `piece <= pieces`.
        (u64::from(piece) * u64::from(extent) / u64::from(pieces)) as u32
    };
    let parts = (0..pieces)
        .map(|piece| part(graph, node, split, bound(piece), bound(piece + 1)))
        .collect::<Result<_, _>>()?;
    let (value, ty) = (value_name(graph, id), graph.ty(id).clone());
    Ok(Pushed { value, ty, parts, combine: split.combine })
}

/// One piece, over `start..end` of the split extent.
fn part(
    graph: &ValidGraph,
    node: &Node,
    split: &Split,
    start: u32,
    end: u32,
) -> Result<Part, CutError> {
    let mut b = GraphBuilder::new(&Limits::unbounded());
    let mut operands = Vec::with_capacity(2);
    let mut inputs: Vec<PartInput> = Vec::with_capacity(2);
    for (place, (&operand, axis)) in node.inputs.iter().zip(split.axes).enumerate() {
        let ty = graph.ty(operand);
        let mut shape = ty.shape.clone();
        let slice = axis.map(|axis| AxisSlice { axis, start, end });
        if let Some(axis) = axis {
            shape.0[axis as usize] = end - start;
        }
        let value = ValueRef { name: value_name(graph, operand), slice };
        let name = ["lhs", "rhs"][place].to_owned();
        operands.push(b.input(&name, ty.dtype, shape)?);
        inputs.push(PartInput { name, value });
    }
    let result = b.push(node.op.clone(), &operands)?;
    b.output(PART_OUTPUT, result);
    let held = split.weight.and_then(|weight| {
        let ValueRef { name, slice } = &inputs[weight].value;
        let AxisSlice { axis, start, end } = (*slice)?;
        Some(HeldSlice { param: name.clone(), axis, start, end })
    });
    Ok(Part { graph: b.finish()?, inputs, output: PART_OUTPUT.into(), held })
}
