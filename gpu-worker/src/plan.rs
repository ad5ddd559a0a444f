//! A graph made ready for the device: its launches, and where its values lie.

use crate::error::Unsupported;
use crate::lower::role::{self, Role};
use crate::lower::{self, Lower, fuse};
use crate::shader::{Launch, ValueId, count};
use raven_graph::{Conv2dAttrs, NodeId, Op, Pool2dAttrs, ValidGraph};

/// Extents, strides and paddings of windows at most: shaders count in 32 bits with a sign.
const WINDOW_MAX: u64 = 1 << 20;

/// Launches of one run at most: two per node of the largest graph.
const LAUNCHES_MAX: u64 = 1 << 15;
/// Bytes of a plan's shaders at most: some thousand different ones.
const SOURCES_BYTES_MAX: u64 = 32 << 20;
/// Steps of one invocation at most. A dispatch cannot be cut below a workgroup;
/// at 80 ns a step, as on a slow GPU, this takes about 20 ms.
const STEPS_MAX: u64 = 1 << 18;

/// Where a value lies while a run lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Graph input number.
    Input(usize),
    /// Slot number.
    Slot(usize),
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Bytes of one binding at most.
    pub binding_bytes_max: u64,
    /// Invocations are the lanes of a CPU's vectors, as on software adapters.
    pub lanes: bool,
}

/// A validated graph with its launches.
#[derive(Debug)]
pub struct Plan {
    graph: ValidGraph,
    launches: Vec<Launch>,
    /// Per value.
    places: Vec<Option<Place>>,
    /// Bytes of each slot.
    slots: Vec<u64>,
    source_bytes: u64,
    /// Per output, where its words are.
    outputs: Vec<Place>,
}

/// Words of a value take four bytes, whatever its element type.
pub fn bytes_of(dims: &[u32]) -> u64 {
    4 * dims.iter().map(|&extent| u64::from(extent)).product::<u64>()
}

/// Whether all of a graph's values have a binding that holds them, and its ops and
/// launches keep to what a plan may hold. [`Plan::new`] knows the rest.
///
/// # Errors
/// [`Unsupported`] names the first node that does not.
pub fn supports(graph: &ValidGraph, binding_bytes_max: u64) -> Result<(), Unsupported> {
    let mut launches = 0u64;
    for (index, node) in graph.graph().nodes.iter().enumerate() {
        let id = NodeId(index as u32);
        let is_input = matches!(node.op, Op::Input { .. });
        if !graph.is_live(id) && !is_input {
            continue;
        }
        // A join takes a launch per operand.
        launches += if matches!(node.op, Op::Concat { .. }) { node.inputs.len() as u64 } else { 0 };
        let op = node.op.name();
        let bytes = bytes_of(graph.ty(id).shape.dims());
        if bytes > binding_bytes_max {
            return Err(Unsupported::Value { node: id.0, op, bytes, limit: binding_bytes_max });
        }
        let too_wide = |&(_, found): &(&'static str, u64)| found > WINDOW_MAX;
        if let Some((field, found)) =
            geometry(&node.op, graph, node.inputs.as_slice()).into_iter().find(too_wide)
        {
            return Err(Unsupported::Geometry { node: id.0, op, field, found, limit: WINDOW_MAX });
        }
    }
    within("launches", launches, LAUNCHES_MAX)
}

fn within(field: &'static str, found: u64, limit: u64) -> Result<(), Unsupported> {
    if found > limit { Err(Unsupported::Size { field, found, limit }) } else { Ok(()) }
}

/// Whether what has been lowered keeps to a plan's limits; `from` is the first
/// launch of `node`.
fn check_lowered(
    cx: &Lower,
    from: usize,
    node: NodeId,
    op: &'static str,
) -> Result<(), Unsupported> {
    let steps = cx.launches[from..].iter().map(|launch| launch.steps).max();
    let (found, limit) = (steps.unwrap_or(0), STEPS_MAX);
    if found > limit {
        return Err(Unsupported::Steps { node: node.0, op, found, limit });
    }
    within("launches", cx.launches.len() as u64, LAUNCHES_MAX)?;
    within("bytes of shaders", cx.source_bytes(), SOURCES_BYTES_MAX)
}

/// The numbers of a window that a shader calculates with.
fn geometry(op: &Op, graph: &ValidGraph, inputs: &[NodeId]) -> Vec<(&'static str, u64)> {
    let conv = |attrs: &Conv2dAttrs, kernel: &[u32]| {
        let mut found: Vec<(&'static str, u64)> = Vec::new();
        found.extend(attrs.padding.map(|pad| ("padding", u64::from(pad))));
        found.extend(attrs.stride.map(|stride| ("stride", u64::from(stride))));
        for (dilation, kernel) in attrs.dilation.iter().zip(kernel) {
            found.push(("dilation", u64::from(*dilation)));
            found.push(("dilated kernel", u64::from(*dilation) * u64::from(*kernel)));
        }
        found
    };
    let pool = |attrs: &Pool2dAttrs| {
        let mut found: Vec<(&'static str, u64)> = Vec::new();
        found.extend(attrs.padding.map(|pad| ("padding", u64::from(pad))));
        found.extend(attrs.stride.map(|stride| ("stride", u64::from(stride))));
        found.extend(attrs.kernel.map(|kernel| ("kernel", u64::from(kernel))));
        found
    };
    match op {
        Op::Conv2d(attrs) => conv(attrs, &graph.ty(inputs[1]).shape.dims()[2..]),
        Op::Conv2dInputGrad { attrs, .. } => conv(attrs, &graph.ty(inputs[0]).shape.dims()[2..]),
        Op::Conv2dWeightGrad { attrs, kernel } => conv(attrs, kernel),
        Op::MaxPool2d(attrs)
        | Op::MaxPool2dGrad(attrs)
        | Op::AvgPool2d(attrs)
        | Op::AvgPool2dGrad { attrs, .. } => pool(attrs),
        _ => Vec::new(),
    }
}

impl Plan {
    /// Lowers the nodes that an output depends on.
    ///
    /// # Errors
    /// What [`supports`] refuses, and launches that one dispatch or one shader
    /// cannot do.
    pub fn new(graph: ValidGraph, target: Target) -> Result<Self, Unsupported> {
        supports(&graph, target.binding_bytes_max)?;
        let nodes = &graph.graph().nodes;
        let mut cx = Lower::new(target.lanes);
        let mut values: Vec<Option<ValueId>> = vec![None; nodes.len()];
        let mut places = Vec::new();
        for (at, input) in graph.inputs().iter().enumerate() {
            values[input.node.index()] = Some(cx.value(count(input.ty.shape.dims())));
            places.push(Some(Place::Input(at)));
        }
        let stored = role::stored(&graph);
        for (index, node) in nodes.iter().enumerate() {
            let id = NodeId(index as u32);
            let role = role::role(&graph, id);
            let runs = match role {
                Role::Input | Role::Alias => false,
                Role::Expression => stored[index],
                Role::Kernel => true,
            };
            if !runs || !graph.is_live(id) {
                continue;
            }
            let ty = graph.ty(id);
            let out = cx.value(count(ty.shape.dims()));
            let from = cx.launches.len();
            if role == Role::Expression {
                fuse::launch(&mut cx, &graph, &stored, &values, id, out)?;
            } else {
                let args = fuse::args(&graph, &values, &node.inputs);
                let out = lower::Arg { value: out, dims: ty.shape.dims(), dtype: ty.dtype };
                lower::kernel(&mut cx, &node.op, &args, out);
            }
            check_lowered(&cx, from, id, node.op.name())?;
            values[index] = Some(out);
        }
        let kept: Vec<ValueId> = graph
            .outputs()
            .iter()
            .filter_map(|output| values[role::owner(&graph, output.node).index()])
            .collect();
        places.resize(cx.words.len(), None);
        let slots = assign(&cx, &kept, &mut places);
        let outputs = kept.iter().filter_map(|value| places[value.index()]).collect();
        let source_bytes = cx.source_bytes();
        Ok(Plan { launches: cx.launches, places, slots, source_bytes, outputs, graph })
    }

    /// The graph.
    pub fn graph(&self) -> &ValidGraph {
        &self.graph
    }

    /// One run's launches, in order.
    pub fn launches(&self) -> &[Launch] {
        &self.launches
    }

    /// Where a value lies.
    ///
    /// # Panics
    /// For a value that no launch touches.
    pub fn place(&self, value: ValueId) -> Place {
        self.places[value.index()].expect("every value of a launch has a place")
    }

    /// Bytes of each slot.
    pub fn slots(&self) -> &[u64] {
        &self.slots
    }

    /// Where the outputs lie after a run, in the graph's order.
    pub fn outputs(&self) -> &[Place] {
        &self.outputs
    }

    /// Operations of one run, as the coordinator prices them.
    pub fn flops(&self) -> u64 {
        self.graph.cost().flops
    }

    /// Bytes that the plan itself takes while it is cached, estimated from above.
    pub fn held_bytes(&self) -> u64 {
        const NODE_BYTES: u64 = 512;
        let launch_bytes = |launch: &Launch| {
            size_of::<Launch>() + size_of_val(&*launch.words) + size_of_val(&*launch.reads)
        };
        let launches: usize = self.launches.iter().map(launch_bytes).sum();
        let nodes = self.graph.graph().nodes.len() as u64;
        NODE_BYTES * nodes + self.source_bytes + launches as u64
    }
}

/// Gives every written value a slot; a slot is free again after the last launch
/// that touches its value.
fn assign(cx: &Lower, kept: &[ValueId], places: &mut [Option<Place>]) -> Vec<u64> {
    let mut last = vec![0usize; cx.words.len()];
    for (at, launch) in cx.launches.iter().enumerate() {
        for value in launch.reads.iter().chain([&launch.write]) {
            last[value.index()] = at;
        }
    }
    for value in kept {
        last[value.index()] = usize::MAX;
    }
    let mut slots: Vec<u64> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    for (at, launch) in cx.launches.iter().enumerate() {
        let write = launch.write.index();
        if places[write].is_none() {
            let bytes = 4 * u64::from(cx.words[write]);
            places[write] = Some(Place::Slot(take(&mut slots, &mut free, bytes)));
        }
        let mut touched: Vec<ValueId> = launch.reads.clone();
        touched.push(launch.write);
        touched.sort_unstable();
        touched.dedup();
        for value in touched {
            if let (true, Some(Place::Slot(slot))) =
                (last[value.index()] == at, places[value.index()])
            {
                free.push(slot);
            }
        }
    }
    slots
}

/// The smallest free slot that holds `bytes` without wasting most of it, else a new one.
fn take(slots: &mut Vec<u64>, free: &mut Vec<usize>, bytes: u64) -> usize {
    let fits = |slot: &usize| slots[*slot] >= bytes && slots[*slot] / 4 <= bytes;
    let best = free.iter().enumerate().filter(|(_, slot)| fits(slot));
    match best.min_by_key(|(_, slot)| slots[**slot]).map(|(at, _)| at) {
        Some(at) => free.swap_remove(at),
        None => {
            slots.push(bytes);
            slots.len() - 1
        }
    }
}
