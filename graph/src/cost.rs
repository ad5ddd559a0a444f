//! What a run costs, known before it runs.
//!
//! Every op that touches memory costs at least one operation per element that
//! it writes, so no graph is free to price and slow to run. `OPS.md` holds the
//! table for readers.

use crate::dtype::TensorType;
use crate::op::{BinaryFn, Distribution, Op, Pool2dAttrs, UnaryFn};
use crate::program::{Graph, NodeId};
use serde::{Deserialize, Serialize};

/// Weight of a division or square root.
const DIVISION: u64 = 4;
/// Weight of an exponential, logarithm, power or hyperbolic tangent.
const TRANSCENDENTAL: u64 = 16;
/// Weight of one Philox word with its conversion.
const RANDOM_WORD: u64 = 16;
/// Per element of a soft-max: maximum, subtraction, exponential, sum, division.
const SOFTMAX: u64 = TRANSCENDENTAL + DIVISION + 3;

/// The price of one run of a graph, over the nodes that its outputs need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Floating-point operations; a multiplication with its addition is two.
    pub flops: u64,
    /// Most bytes held at once by an interpreter that runs nodes in order,
    /// keeps inputs and outputs, and frees any other value after its last use.
    pub bytes_peak: u64,
    /// Bytes of all inputs, used or not: they must be bound.
    pub bytes_in: u64,
    /// Bytes of all outputs.
    pub bytes_out: u64,
}

/// Operations of one node, or `None` where the count does not fit 64 bits.
pub fn node_flops(op: &Op, operands: &[&TensorType], result: &TensorType) -> Option<u64> {
    let written = result.shape.elements()?;
    let read = |operand: usize| operands.get(operand)?.shape.elements();
    match op {
        // Inputs are there already, and a reshape only renames axes.
        Op::Input { .. } | Op::Reshape { .. } => Some(0),
        Op::Unary { function } => written.checked_mul(unary_weight(*function)),
        Op::Binary { function } => written.checked_mul(binary_weight(*function)),
        Op::Reduce { .. } | Op::ArgMax { .. } => read(0),
        Op::MatMul { transpose_lhs, .. } => {
            let dims = operands.first()?.shape.dims();
            let inner = dims.iter().nth_back(usize::from(*transpose_lhs))?;
            multiply_adds(written, &[*inner])
        }
        // One multiply-add per output element and kernel tap of its group.
        Op::Conv2d(_) => multiply_adds(written, taps(operands.get(1)?)?),
        Op::Conv2dInputGrad { .. } => multiply_adds(read(1)?, taps(operands.first()?)?),
        Op::Conv2dWeightGrad { .. } => multiply_adds(read(1)?, taps(result)?),
        Op::MaxPool2d(attrs) | Op::AvgPool2d(attrs) => window(written, attrs),
        Op::MaxPool2dGrad(attrs) => window(read(1)?, attrs)?.checked_add(written),
        Op::AvgPool2dGrad { attrs, .. } => window(read(0)?, attrs)?.checked_add(written),
        Op::ScatterAdd { .. } => written.checked_add(read(0)?),
        Op::Softmax { .. } | Op::LogSoftmax { .. } => written.checked_mul(SOFTMAX),
        Op::CrossEntropy => read(0)?.checked_mul(SOFTMAX),
        Op::CrossEntropyGrad => written.checked_mul(SOFTMAX + 2),
        Op::Random { distribution: Distribution::Uniform, .. } => written.checked_mul(RANDOM_WORD),
        Op::Random { distribution: Distribution::Normal, .. } => {
            written.checked_mul(RANDOM_WORD + 2 * TRANSCENDENTAL)
        }
        Op::Constant { .. }
        | Op::Compare { .. }
        | Op::Select
        | Op::Cast { .. }
        | Op::Broadcast { .. }
        | Op::Permute { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::Gather { .. }
        | Op::OneHot { .. } => Some(written),
    }
}

const fn unary_weight(function: UnaryFn) -> u64 {
    match function {
        UnaryFn::Neg | UnaryFn::Abs | UnaryFn::Sign | UnaryFn::Relu | UnaryFn::Floor => 1,
        UnaryFn::Sqrt | UnaryFn::Recip => DIVISION,
        UnaryFn::Exp | UnaryFn::Log | UnaryFn::Tanh | UnaryFn::Sigmoid => TRANSCENDENTAL,
    }
}

const fn binary_weight(function: BinaryFn) -> u64 {
    match function {
        BinaryFn::Add | BinaryFn::Sub | BinaryFn::Mul | BinaryFn::Max | BinaryFn::Min => 1,
        BinaryFn::Div => DIVISION,
        BinaryFn::Pow => TRANSCENDENTAL,
    }
}

/// `2 * count * product(extents)`.
fn multiply_adds(count: u64, extents: &[u32]) -> Option<u64> {
    extents.iter().try_fold(count.checked_mul(2)?, |flops, &d| flops.checked_mul(d.into()))
}

/// `[c / groups, kh, kw]` of a convolution weight.
fn taps(weight: &TensorType) -> Option<&[u32]> {
    weight.shape.dims().get(1..)
}

/// One operation per window element.
fn window(windows: u64, attrs: &Pool2dAttrs) -> Option<u64> {
    let [rows, columns] = attrs.kernel;
    windows.checked_mul(rows.into())?.checked_mul(columns.into())
}

/// Marks the nodes that an output depends on. Operands must precede users.
pub(crate) fn live_nodes(graph: &Graph) -> Vec<bool> {
    let mut live = vec![false; graph.nodes.len()];
    for output in &graph.outputs {
        live[output.node.index()] = true;
    }
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if live[index] {
            for operand in &node.inputs {
                live[operand.index()] = true;
            }
        }
    }
    live
}

/// Sums over the live nodes; each part saturates at `u64::MAX`, which every
/// limit refuses. The second number is the bytes of all live values.
pub(crate) fn measure(graph: &Graph, types: &[TensorType], live: &[bool]) -> (Cost, u64) {
    let bytes = |node: NodeId| types[node.index()].bytes().unwrap_or(u64::MAX);
    let mut cost = Cost::default();
    let mut bytes_live = 0u64;
    for (index, node) in graph.nodes.iter().enumerate() {
        let id = NodeId(index as u32);
        if matches!(node.op, Op::Input { .. }) {
            cost.bytes_in = cost.bytes_in.saturating_add(bytes(id));
        }
        if live[index] {
            let operands: Vec<_> = node.inputs.iter().map(|i| &types[i.index()]).collect();
            let flops = node_flops(&node.op, &operands, &types[index]).unwrap_or(u64::MAX);
            cost.flops = cost.flops.saturating_add(flops);
            bytes_live = bytes_live.saturating_add(bytes(id));
        }
    }
    for output in &graph.outputs {
        cost.bytes_out = cost.bytes_out.saturating_add(bytes(output.node));
    }
    cost.bytes_peak = peak(graph, live, cost.bytes_in, bytes);
    (cost, bytes_live)
}

/// Simulates the interpreter that [`Cost::bytes_peak`] describes.
fn peak(graph: &Graph, live: &[bool], bytes_in: u64, bytes: impl Fn(NodeId) -> u64) -> u64 {
    let mut uses = vec![0u32; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate().filter(|(index, _)| live[*index]) {
        debug_assert!(node.inputs.iter().all(|operand| operand.index() < index));
        for operand in &node.inputs {
            uses[operand.index()] = uses[operand.index()].saturating_add(1);
        }
    }
    for output in &graph.outputs {
        uses[output.node.index()] = u32::MAX;
    }
    let (mut held, mut peak) = (bytes_in, bytes_in);
    for (index, node) in graph.nodes.iter().enumerate().filter(|(index, _)| live[*index]) {
        if matches!(node.op, Op::Input { .. }) {
            continue;
        }
        held = held.saturating_add(bytes(NodeId(index as u32)));
        peak = peak.max(held);
        for operand in &node.inputs {
            let left = &mut uses[operand.index()];
            if *left == u32::MAX {
                continue;
            }
            *left -= 1;
            if *left == 0 && !matches!(graph.nodes[operand.index()].op, Op::Input { .. }) {
                held = held.saturating_sub(bytes(*operand));
            }
        }
    }
    peak
}
