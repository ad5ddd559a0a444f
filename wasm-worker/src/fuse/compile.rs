//! Turns a group into a program.

use super::allocate::Allocator;
use super::group::{Group, Part, part};
use super::program::{Action, Instruction, Load, MaskAction, Program, Read, TILE, TILES_MAX};
use super::scaling;
use crate::axes::Dims;
use crate::ops::broadcast;
use crate::ops::loops::{Loops, row_major};
use crate::tensor::dims_of;
use raven_graph::{DType, NodeId, Op, ValidGraph};
use std::collections::BTreeMap;

/// What a node of a group is to the nodes that read it.
#[derive(Clone, Debug)]
enum Value {
    Numbers(usize),
    Truth(usize),
    /// An operand's elements, `steps` apart along the axes of `dims`.
    View {
        operand: usize,
        dims: Dims,
        steps: Dims,
    },
    Number(f32),
}

/// A group's program with tiles without bound, each written once: the last
/// one written is the result. Where a group has a product, or an operand's
/// place is to be the result's, tile 0 holds it from the beginning.
struct Compiler<'a> {
    graph: &'a ValidGraph,
    operands: &'a [NodeId],
    values: BTreeMap<NodeId, Value>,
    code: Vec<Instruction>,
    numbers: usize,
    masks: usize,
}

/// The nodes outside of a group that its program reads, first those that are read first.
pub fn operands(graph: &ValidGraph, group: &Group) -> Vec<NodeId> {
    let mut operands = Vec::new();
    for node in &group.members {
        for operand in &graph.graph().nodes[node.index()].inputs {
            let is_number = part(graph, *operand) == Part::Number;
            let inside = is_number || group.nodes().any(|node| node == *operand);
            if !inside && !operands.contains(operand) {
                operands.push(*operand);
            }
        }
    }
    operands
}

/// The program of `group`, which reads `operands`. `home` is what the result's tile holds from
/// the beginning. `None` where that takes too many tiles, or where `home` is not read place by
/// place alone.
pub fn compile(
    graph: &ValidGraph,
    group: &Group,
    operands: &[NodeId],
    home: Option<NodeId>,
) -> Option<Program> {
    let values = BTreeMap::new();
    let mut compiler = Compiler { graph, operands, values, code: Vec::new(), numbers: 0, masks: 0 };
    if let Some(home) = home {
        let value = Value::Numbers(compiler.numbers);
        compiler.numbers += 1;
        compiler.values.insert(home, value);
    }
    for node in &group.members {
        let value = compiler.node(*node)?;
        compiler.values.insert(*node, value);
    }
    let tile = compiler.choose_tile();
    let Compiler { mut code, numbers, masks, .. } = compiler;
    scaling::join(&mut code, numbers);
    let (code, numbers, masks) = Allocator::new(code, numbers, masks, home.is_some()).run();
    (numbers - 1 + masks <= TILES_MAX).then_some(Program { code, numbers, masks, tile })
}

impl Compiler<'_> {
    /// Adds what computes `node`. `None` where a tile is asked for what needs a tensor.
    fn node(&mut self, node: NodeId) -> Option<Value> {
        let graph = self.graph;
        let found = &graph.graph().nodes[node.index()];
        let (inputs, dims) = (&found.inputs, dims_of(&graph.ty(node).shape));
        let action = match &found.op {
            Op::Constant { value, .. } => return Some(Value::Number(*value)),
            Op::Reshape { .. } => return Some(reshaped(self.value(inputs[0]), dims)),
            Op::Broadcast { .. } => return broadcast_view(self.value(inputs[0]), &dims),
            Op::Unary { function } => Action::Unary(*function, self.read(inputs[0], &dims)?),
            Op::Binary { function } => {
                let (a, b) = (self.read(inputs[0], &dims)?, self.read(inputs[1], &dims)?);
                Action::Binary(*function, a, b)
            }
            Op::Compare { function } => {
                let (a, b) = (self.read(inputs[0], &dims)?, self.read(inputs[1], &dims)?);
                return Some(self.mask(MaskAction::Compare(*function, a, b)));
            }
            Op::Select => {
                let condition = self.truth(inputs[0], &dims)?;
                let (a, b) = (self.read(inputs[1], &dims)?, self.read(inputs[2], &dims)?);
                Action::Select(condition, a, b)
            }
            Op::Cast { dtype: DType::Bool } => {
                let x = self.read(inputs[0], &dims)?;
                return Some(self.mask(MaskAction::NotZero(x)));
            }
            Op::Cast { .. } => self.cast(inputs[0], &dims)?,
            _ => return None,
        };
        Some(self.number(action))
    }

    /// A cast to f32.
    fn cast(&mut self, operand: NodeId, dims: &[usize]) -> Option<Action> {
        match self.value(operand) {
            Value::Truth(mask) => Some(Action::FromMask(mask)),
            Value::Numbers(_) | Value::Number(_) => None,
            view @ Value::View { .. } => Some(Action::Load(load(broadcast_view(view, dims)?)?)),
        }
    }

    fn number(&mut self, action: Action) -> Value {
        self.code.push(Instruction::Number(self.numbers, action));
        self.numbers += 1;
        Value::Numbers(self.numbers - 1)
    }

    fn mask(&mut self, action: MaskAction) -> Value {
        self.code.push(Instruction::Mask(self.masks, action));
        self.masks += 1;
        Value::Truth(self.masks - 1)
    }

    fn value(&self, node: NodeId) -> Value {
        if let Some(value) = self.values.get(&node) {
            return value.clone();
        }
        if let Op::Constant { value, dtype: DType::F32, .. } =
            self.graph.graph().nodes[node.index()].op
        {
            return Value::Number(value);
        }
        let operand = self.operands.iter().position(|operand| *operand == node);
        let dims = dims_of(&self.graph.ty(node).shape);
        let steps = row_major(&dims);
        Value::View { operand: operand.expect("whatever is outside is an operand"), dims, steps }
    }

    /// Where the elements of `node`, broadcast to `dims`, are read.
    fn read(&mut self, node: NodeId, dims: &[usize]) -> Option<Read> {
        let view = match self.value(node) {
            Value::Numbers(tile) => return Some(Read::Tile(tile)),
            Value::Number(number) => return Some(Read::Number(number)),
            Value::Truth(_) => return None,
            view => broadcast_view(view, dims)?,
        };
        let load = load(view)?;
        if load.loops.are_in_order() {
            return Some(Read::Same(load.operand));
        }
        if load.loops.is_single() {
            return Some(Read::Single(load.operand));
        }
        match self.number(Action::Load(load)) {
            Value::Numbers(tile) => Some(Read::Tile(tile)),
            _ => None,
        }
    }

    /// The mask of the elements of `node`, broadcast to `dims`.
    fn truth(&mut self, node: NodeId, dims: &[usize]) -> Option<usize> {
        let view = match self.value(node) {
            Value::Truth(mask) => return Some(mask),
            view => broadcast_view(view, dims)?,
        };
        match self.mask(MaskAction::Load(load(view)?)) {
            Value::Truth(mask) => Some(mask),
            _ => None,
        }
    }

    /// Elements per tile: whole periods of what repeats, which then need not be loaded again.
    fn choose_tile(&mut self) -> usize {
        // The last instruction writes the result, each tile of it.
        if let Some(load) = self.code.last_mut().and_then(Instruction::load) {
            load.period = None;
        }
        let loads = self.code.iter_mut().filter_map(Instruction::load);
        let period = loads.filter_map(|load| load.period).max();
        let tile = period.map_or(TILE, |period| TILE / period * period);
        for load in self.code.iter_mut().filter_map(Instruction::load) {
            load.period = load.period.filter(|period| tile.is_multiple_of(*period));
        }
        tile
    }
}

/// Other extents of the same elements, which a view has in order.
fn reshaped(value: Value, dims: Dims) -> Value {
    match value {
        Value::View { operand, .. } => {
            let steps = row_major(&dims);
            Value::View { operand, dims, steps }
        }
        value => value,
    }
}

/// A view repeated over extents `out`.
fn broadcast_view(value: Value, out: &[usize]) -> Option<Value> {
    match value {
        Value::View { operand, dims, steps } => {
            let steps = broadcast::repeated(&steps, &dims, out);
            Some(Value::View { operand, dims: out.into(), steps })
        }
        Value::Number(number) => Some(Value::Number(number)),
        Value::Numbers(_) | Value::Truth(_) => None,
    }
}

fn load(view: Value) -> Option<Load> {
    let Value::View { operand, dims, steps } = view else { return None };
    let loops = Loops::new(&dims, &[steps]);
    let period = Some(loops.period()).filter(|period| *period <= TILE);
    Some(Load { operand, loops: Box::new(loops), period })
}
