//! A graph made ready to run: which nodes, when a value dies, what it all takes.

use crate::ops::{self, Operands, RunContext};
use crate::tensor::Tensor;
use raven_graph::{NodeId, Op, TensorType, ValidGraph, cost};

/// One node to be run.
#[derive(Debug)]
struct Step {
    node: NodeId,
    /// Operations, as the coordinator prices them.
    flops: u64,
    /// Per operand: nobody reads it afterwards, so its buffer may be reused.
    last_use: Vec<bool>,
}

/// A validated graph with the order and lifetimes of its values.
#[derive(Debug)]
pub struct Plan {
    graph: ValidGraph,
    steps: Vec<Step>,
    flops: u64,
    scratch_bytes: u64,
}

impl Plan {
    /// Lays out the nodes that an output depends on.
    pub fn new(graph: ValidGraph) -> Self {
        let nodes = &graph.graph().nodes;
        // Going backwards, the first use met is the last one; outputs never die.
        let mut used_later = vec![false; nodes.len()];
        for output in graph.outputs() {
            used_later[output.node.index()] = true;
        }
        let mut steps = Vec::with_capacity(nodes.len());
        let (mut flops, mut scratch) = (0u64, 0u64);
        for (index, node) in nodes.iter().enumerate().rev() {
            let id = NodeId(index as u32);
            if !graph.is_live(id) || matches!(node.op, Op::Input { .. }) {
                continue;
            }
            let mut last_use = vec![false; node.inputs.len()];
            for (last, operand) in last_use.iter_mut().zip(&node.inputs).rev() {
                *last = !std::mem::replace(&mut used_later[operand.index()], true);
            }
            let operands: Vec<&TensorType> = node.inputs.iter().map(|id| graph.ty(*id)).collect();
            let node_flops = cost::node_flops(&node.op, &operands, graph.ty(id)).unwrap_or(0);
            flops = flops.saturating_add(node_flops);
            scratch = scratch.max(ops::scratch_bytes(&node.op, &operands, graph.ty(id)));
            steps.push(Step { node: id, flops: node_flops, last_use });
        }
        steps.reverse();
        Plan { graph, steps, flops, scratch_bytes: scratch }
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
        self.graph.cost().bytes_peak.saturating_add(self.scratch_bytes)
    }

    /// Bytes that the plan itself takes while it is cached, estimated from above.
    pub fn held_bytes(&self) -> u64 {
        const NODE_BYTES: u64 = 512;
        NODE_BYTES * self.graph.graph().nodes.len() as u64
    }
}

/// One run of a graph, advanced node by node.
#[derive(Debug)]
pub struct Run {
    values: Vec<Option<Tensor>>,
    next: usize,
    context: RunContext,
}

impl Run {
    /// Begins a run with a value for every input, in the order of
    /// [`ValidGraph::inputs`]. The caller has checked their types.
    pub fn new(plan: &Plan, inputs: Vec<Tensor>, context: RunContext) -> Self {
        let mut run = Run { values: Vec::new(), next: 0, context };
        run.begin_again(plan, inputs, context);
        run
    }

    /// The same in the place of a run of the same plan that has ended.
    pub fn begin_again(&mut self, plan: &Plan, inputs: Vec<Tensor>, context: RunContext) {
        self.values.clear();
        self.values.resize(plan.graph.graph().nodes.len(), None);
        for (spec, tensor) in plan.graph.inputs().iter().zip(inputs) {
            self.values[spec.node.index()] = Some(tensor);
        }
        (self.next, self.context) = (0, context);
    }

    /// Runs one node and returns its operations, or `None` at the end.
    pub fn step(&mut self, plan: &Plan) -> Option<u64> {
        let step = plan.steps.get(self.next)?;
        let node = &plan.graph.graph().nodes[step.node.index()];
        let operands = node.inputs.iter().zip(&step.last_use).map(|(operand, &last)| {
            let value = &mut self.values[operand.index()];
            let value = if last { value.take() } else { value.clone() };
            value.expect("operands precede their users and live until their last use")
        });
        let operands = Operands::new(operands.collect());
        let result = ops::apply(&node.op, operands, plan.graph.ty(step.node), self.context);
        debug_assert_eq!(&result.ty(), plan.graph.ty(step.node));
        self.values[step.node.index()] = Some(result);
        self.next += 1;
        Some(step.flops)
    }

    /// Whether every node has run.
    pub fn is_complete(&self, plan: &Plan) -> bool {
        self.next == plan.steps.len()
    }

    /// The outputs of a finished run, in the order of [`ValidGraph::outputs`];
    /// whatever else it held is gone.
    pub fn take_outputs(&mut self, plan: &Plan) -> Vec<Tensor> {
        let outputs = plan.graph.outputs();
        let mut left = vec![0u32; self.values.len()];
        for output in outputs {
            left[output.node.index()] += 1;
        }
        let taken = outputs.iter().map(|output| {
            let at = output.node.index();
            left[at] -= 1;
            let value =
                if left[at] == 0 { self.values[at].take() } else { self.values[at].clone() };
            value.expect("every step has run, and outputs outlive their last use")
        });
        let taken = taken.collect();
        self.values.clear();
        taken
    }
}
