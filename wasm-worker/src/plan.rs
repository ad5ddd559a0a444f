//! A graph made ready to run: which nodes, which of them together, when a value
//! dies, what it all takes.

use crate::fuse::{self, Fused, Group, Part};
use crate::ops::{self, Operands, RunContext};
use crate::tensor::Tensor;
use raven_graph::{NodeId, Op, TensorType, ValidGraph, cost};

/// What a step does.
#[derive(Debug)]
enum Action {
    /// Runs one node.
    Node,
    /// Runs a group of nodes.
    Fused(Box<Fused>),
    /// Nothing: the node is a number, which whoever reads it knows.
    Known,
}

/// One node to be run, or several as one.
#[derive(Debug)]
struct Step {
    action: Action,
    /// Whose value it yields.
    node: NodeId,
    operands: Vec<NodeId>,
    /// Per operand: nobody reads it afterwards, so its buffer may be reused.
    last_use: Vec<bool>,
    /// Operations, as the coordinator prices them.
    flops: u64,
}

/// A validated graph with the order and lifetimes of its values.
#[derive(Debug)]
pub struct Plan {
    graph: ValidGraph,
    steps: Vec<Step>,
    /// Per output: no later one is of the same node, so its value may be taken.
    last_output: Vec<bool>,
    flops: u64,
    bytes_peak: u64,
}

/// How often groups are given up for the memory that they take, before all are.
const RETREATS_MAX: usize = 8;

impl Plan {
    /// Lays out the nodes that an output depends on. Nodes run together only where that takes no
    /// more memory than the graph's price says.
    pub fn new(graph: ValidGraph) -> Self {
        let mut groups = fuse::groups(&graph);
        for _ in 0..RETREATS_MAX {
            let steps = steps(&graph, &groups);
            let (bytes, at) = peak(&graph, &steps);
            if bytes <= graph.cost().bytes_peak {
                return Plan::of(graph, steps);
            }
            let before = groups.len();
            groups.retain(|group| !spans(group, steps[at].node));
            if groups.len() == before {
                break;
            }
        }
        Plan::unfused(graph)
    }

    /// The same with a step for each node.
    pub(crate) fn unfused(graph: ValidGraph) -> Self {
        let steps = steps(&graph, &[]);
        Plan::of(graph, steps)
    }

    fn of(graph: ValidGraph, steps: Vec<Step>) -> Self {
        let flops = steps.iter().fold(0u64, |sum, step| sum.saturating_add(step.flops));
        let scratch = steps.iter().map(|step| step.scratch_bytes(&graph)).max().unwrap_or(0);
        let (values, _) = peak(&graph, &steps);
        // Never less than the price says, which is what others reckon with.
        let values = values.max(graph.cost().bytes_peak);
        let last_output = last_outputs(&graph);
        Plan { graph, steps, last_output, flops, bytes_peak: values.saturating_add(scratch) }
    }

    /// The graph.
    pub fn graph(&self) -> &ValidGraph {
        &self.graph
    }

    /// Operations of one run.
    pub fn flops(&self) -> u64 {
        self.flops
    }

    /// Most bytes that one run holds at once, inputs and scratch included.
    pub fn bytes_peak(&self) -> u64 {
        self.bytes_peak
    }

    /// Bytes that the plan itself takes while it is cached, estimated from above.
    pub fn held_bytes(&self) -> u64 {
        const NODE_BYTES: u64 = 2048;
        // Named by the graph and by a step, with a mark for its last use: joins have thousands.
        const OPERAND_BYTES: u64 = 9;
        let nodes = &self.graph.graph().nodes;
        let operands: usize = nodes.iter().map(|node| node.inputs.len()).sum();
        NODE_BYTES * nodes.len() as u64 + OPERAND_BYTES * operands as u64
    }
}

impl Step {
    fn scratch_bytes(&self, graph: &ValidGraph) -> u64 {
        let one = |node: NodeId| {
            let node_of = &graph.graph().nodes[node.index()];
            let operands: Vec<_> = node_of.inputs.iter().map(|id| graph.ty(*id)).collect();
            ops::scratch_bytes(&node_of.op, &operands, graph.ty(node))
        };
        match &self.action {
            Action::Node => one(self.node),
            Action::Fused(fused) => {
                fused.product().map_or(0, one).saturating_add(fused.scratch_bytes())
            }
            Action::Known => 0,
        }
    }
}

/// Operations of one node.
fn flops(graph: &ValidGraph, node: NodeId) -> u64 {
    let found = &graph.graph().nodes[node.index()];
    let operands: Vec<&TensorType> = found.inputs.iter().map(|id| graph.ty(*id)).collect();
    cost::node_flops(&found.op, &operands, graph.ty(node)).unwrap_or(0)
}

/// The steps of a run in which `groups` are one step each, in the order of the graph.
fn steps(graph: &ValidGraph, groups: &[Group]) -> Vec<Step> {
    let nodes = &graph.graph().nodes;
    let mut group_of: Vec<Option<&Group>> = vec![None; nodes.len()];
    let mut compiled: Vec<Option<Fused>> = Vec::new();
    compiled.resize_with(nodes.len(), || None);
    for group in groups {
        let Some(fused) = Fused::new(graph, group) else { continue };
        group.nodes().for_each(|node| group_of[node.index()] = Some(group));
        compiled[group.place().index()] = Some(fused);
    }
    let mut steps = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let id = NodeId(index as u32);
        if !graph.is_live(id) || matches!(node.op, Op::Input { .. }) {
            continue;
        }
        let (action, result, operands, flops) = match (group_of[index], compiled[index].take()) {
            (Some(group), Some(fused)) => {
                let flops = group.nodes().map(|node| flops(graph, node));
                let flops = flops.fold(0, u64::saturating_add);
                let operands = fused.operands().to_vec();
                (Action::Fused(Box::new(fused)), group.root(), operands, flops)
            }
            (Some(_), None) => continue,
            (None, _) => (Action::Node, id, node.inputs.clone(), flops(graph, id)),
        };
        steps.push(Step { action, node: result, operands, last_use: Vec::new(), flops });
    }
    find_last_uses(graph, &mut steps);
    for step in &mut steps {
        if let (Action::Fused(fused), Some(group)) = (&mut step.action, group_of[step.node.index()])
        {
            fused.take_place(graph, group, &step.last_use);
        }
    }
    steps
}

/// Finds which step is the last to read each operand, and the numbers that no step reads.
fn find_last_uses(graph: &ValidGraph, steps: &mut [Step]) {
    // Going backwards, the first use met is the last one; outputs never die.
    let mut used_later = vec![false; graph.graph().nodes.len()];
    for output in graph.outputs() {
        used_later[output.node.index()] = true;
    }
    for step in steps.iter_mut().rev() {
        if !used_later[step.node.index()] && fuse::part(graph, step.node) == Part::Number {
            step.action = Action::Known;
        }
        step.last_use = vec![false; step.operands.len()];
        for (last, operand) in step.last_use.iter_mut().zip(&step.operands).rev() {
            *last = !std::mem::replace(&mut used_later[operand.index()], true);
        }
    }
}

/// Per output, whether no later one is of the same node.
fn last_outputs(graph: &ValidGraph) -> Vec<bool> {
    let mut met = vec![false; graph.graph().nodes.len()];
    let backwards = graph.outputs().iter().rev();
    let mut last: Vec<bool> =
        backwards.map(|output| !std::mem::replace(&mut met[output.node.index()], true)).collect();
    last.reverse();
    last
}

/// Most bytes of values that are held at once, as the graph's price counts them, and in which
/// step.
fn peak(graph: &ValidGraph, steps: &[Step]) -> (u64, usize) {
    let bytes = |node: NodeId| graph.ty(node).bytes().unwrap_or(u64::MAX);
    let is_input = |node: NodeId| matches!(graph.graph().nodes[node.index()].op, Op::Input { .. });
    let mut held = graph.cost().bytes_in;
    let mut peak = (held, 0);
    for (at, step) in steps.iter().enumerate() {
        if matches!(step.action, Action::Known) {
            continue;
        }
        held = held.saturating_add(bytes(step.node));
        peak = if held > peak.0 { (held, at) } else { peak };
        for (operand, _) in step.operands.iter().zip(&step.last_use).filter(|(_, last)| **last) {
            held = held.saturating_sub(if is_input(*operand) { 0 } else { bytes(*operand) });
        }
    }
    peak
}

/// Whether a group keeps operands, or its own value, at hand while `node` runs.
fn spans(group: &Group, node: NodeId) -> bool {
    let first = group.nodes().min().unwrap_or(group.root());
    (first..=group.root()).contains(&node)
}

/// One run of a graph, advanced step by step. Its lists serve the run that begins in its place.
#[derive(Debug)]
pub struct Run {
    values: Vec<Option<Tensor>>,
    /// Operands of the step that is running; empty between steps.
    operands: Vec<Tensor>,
    next: usize,
    context: RunContext,
}

impl Run {
    /// Begins a run with a value for every input, in the order of
    /// [`ValidGraph::inputs`]. The caller has checked their types.
    pub fn new(plan: &Plan, inputs: Vec<Tensor>, context: RunContext) -> Self {
        let mut run = Run { values: Vec::new(), operands: Vec::new(), next: 0, context };
        run.begin_again(plan, inputs, context);
        run
    }

    /// The same in the place of a run of the same plan that has ended.
    pub fn begin_again(
        &mut self,
        plan: &Plan,
        inputs: impl IntoIterator<Item = Tensor>,
        context: RunContext,
    ) {
        self.values.clear();
        self.values.resize(plan.graph.graph().nodes.len(), None);
        for (spec, tensor) in plan.graph.inputs().iter().zip(inputs) {
            self.values[spec.node.index()] = Some(tensor);
        }
        (self.next, self.context) = (0, context);
    }

    /// Runs one node, or a group of nodes that run as one, and returns its operations, or `None`
    /// at the end.
    pub fn step(&mut self, plan: &Plan) -> Option<u64> {
        let step = plan.steps.get(self.next)?;
        self.next += 1;
        let operands = step.operands.iter().zip(&step.last_use).map(|(operand, &last)| {
            let value = &mut self.values[operand.index()];
            let value = if last { value.take() } else { value.clone() };
            value.expect("operands precede their users and live until their last use")
        });
        self.operands.extend(operands);
        let ty = plan.graph.ty(step.node);
        let result = match &step.action {
            Action::Known => return Some(step.flops),
            Action::Fused(fused) => fused.run(&mut self.operands),
            Action::Node => {
                let op = &plan.graph.graph().nodes[step.node.index()].op;
                ops::apply(op, Operands::new(&mut self.operands), ty, self.context)
            }
        };
        debug_assert!(result.has_type(ty), "{result:?} should be {ty}");
        self.values[step.node.index()] = Some(result);
        Some(step.flops)
    }

    /// Whether every step has run.
    pub fn is_complete(&self, plan: &Plan) -> bool {
        self.next == plan.steps.len()
    }

    /// The outputs of a finished run, in the order of [`ValidGraph::outputs`];
    /// whatever else it held is gone.
    pub fn take_outputs(&mut self, plan: &Plan) -> Vec<Tensor> {
        let mut outputs = Vec::new();
        self.move_outputs(plan, &mut outputs);
        outputs.into_iter().flatten().collect()
    }

    /// The same into a list, in the place of what it held.
    pub fn move_outputs(&mut self, plan: &Plan, to: &mut Vec<Option<Tensor>>) {
        let outputs = plan.graph.outputs().iter().zip(&plan.last_output);
        let taken = outputs.map(|(output, &last)| {
            let value = &mut self.values[output.node.index()];
            let value = if last { value.take() } else { value.clone() };
            assert!(value.is_some(), "every step has run, and outputs outlive their last use");
            value
        });
        to.clear();
        to.extend(taken);
        self.values.clear();
    }
}
