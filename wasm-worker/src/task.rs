//! A task in the making: checked once, then advanced step by step.

use crate::bind::Bindings;
use crate::buffer;
use crate::cache::Cache;
use crate::error::TaskError;
use crate::ops::RunContext;
use crate::plan::{Plan, Run};
use crate::received::Received;
use crate::reduce_tree::{Joined, TreeSum};
use crate::tensor::{Tensor, dims_of};
use raven_graph::{DType, TensorType, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    Encoding, Frame, FromContributor, LeaseId, OutputSpec, Program, ReduceRule, ResultDigest,
    TaskId, TaskMessage, TaskSpec, TensorPart, TensorView, result_digest,
};
use std::rc::Rc;

/// How one output of the task comes together.
#[derive(Debug)]
enum Gathered {
    Sum(TreeSum),
    Concat(Joined),
    /// Of a `Scan`: the value of the last step.
    Last(Option<Tensor>),
}

impl Gathered {
    /// Makes room for the values of `runs` runs, so that taking them in allocates nothing. The
    /// caller has checked that they fit.
    fn reserve(&mut self, runs: u32, ty: &TensorType) {
        match self {
            Gathered::Sum(sum) => sum.reserve(runs, dims_of(&ty.shape)),
            Gathered::Concat(joined) => joined.reserve(runs),
            Gathered::Last(_) => {}
        }
    }

    /// Takes in the value of one run.
    fn push(&mut self, value: &Tensor, is_last: bool) {
        match self {
            Gathered::Sum(sum) => sum.push(value),
            Gathered::Concat(joined) => joined.push(value),
            Gathered::Last(last) if is_last => *last = Some(value.clone()),
            Gathered::Last(_) => {}
        }
    }
}

/// One output of the task and where it is among the graph's outputs.
#[derive(Debug)]
struct Slot {
    spec: OutputSpec,
    at: usize,
    gathered: Gathered,
}

/// A value that one step of a `Scan` hands to the next.
#[derive(Clone, Copy, Debug)]
struct CarrySlot {
    input: usize,
    output: usize,
}

/// A running task.
#[derive(Debug)]
pub struct Task {
    lease: LeaseId,
    id: TaskId,
    seed: u64,
    plan: Rc<Plan>,
    bindings: Bindings,
    /// First run's number, in the random counter.
    start: u32,
    runs: u32,
    /// Runs that are complete.
    done: u32,
    run: Option<Run>,
    /// The run before, for the next one to take its place.
    ended: Option<Run>,
    carry: Vec<CarrySlot>,
    /// Per graph input, the value that the next step takes instead of its binding.
    carried: Vec<Option<Tensor>>,
    slots: Vec<Slot>,
    /// Outputs of the run that ends; empty between runs.
    outputs: Vec<Option<Tensor>>,
    flops_done: u64,
    bytes: u64,
    value_bytes: u64,
}

/// What a finished task leaves: its commitment, and the payload's frame.
#[derive(Debug)]
pub struct Finished {
    /// The lease that is answered.
    pub lease: LeaseId,
    /// Commitment to the outputs.
    pub digest: ResultDigest,
    /// The encoded `result` frame.
    pub frame: Vec<u8>,
}

/// Where a graph output of that name is, and its type.
fn output<'a>(
    graph: &'a ValidGraph,
    field: &'static str,
    name: &str,
) -> Result<(usize, &'a TensorType), TaskError> {
    let at = graph.outputs().iter().position(|output| output.name == name);
    let at = at.ok_or_else(|| TaskError::Unknown { field, name: name.to_owned() })?;
    Ok((at, graph.ty(graph.outputs()[at].node)))
}

fn slots(spec: &TaskSpec, graph: &ValidGraph) -> Result<Vec<Slot>, TaskError> {
    let is_scan = matches!(spec.program, Program::Scan { .. });
    // The sum of one value is that value, whatever its type.
    let is_one = spec.program.runs() == 1;
    let mut slots = Vec::with_capacity(spec.outputs.len());
    for spec in &spec.outputs {
        let (at, ty) = output(graph, "spec.outputs.name", &spec.name)?;
        let refused = |expected: &str| TaskError::Type {
            field: "spec.outputs.reduce",
            name: spec.name.clone(),
            expected: expected.to_owned(),
            found: ty.to_string(),
        };
        let gathered = match spec.reduce {
            _ if is_scan => Gathered::Last(None),
            ReduceRule::Sum if is_one || ty.dtype == DType::F32 => {
                Gathered::Sum(TreeSum::default())
            }
            ReduceRule::Sum => return Err(refused("f32")),
            ReduceRule::Concat if ty.shape.rank() > 0 => Gathered::Concat(Joined::new(ty.clone())),
            ReduceRule::Concat => return Err(refused("a tensor with an axis")),
        };
        slots.push(Slot { spec: spec.clone(), at, gathered });
    }
    Ok(slots)
}

fn carry_slots(spec: &TaskSpec, graph: &ValidGraph) -> Result<Vec<CarrySlot>, TaskError> {
    let Program::Scan { carry, .. } = &spec.program else { return Ok(Vec::new()) };
    let mut slots: Vec<CarrySlot> = Vec::with_capacity(carry.len());
    for entry in carry {
        let input = graph.inputs().iter().position(|input| input.name == entry.input);
        let input = input.ok_or_else(|| TaskError::Unknown {
            field: "spec.program.carry.input",
            name: entry.input.clone(),
        })?;
        if slots.iter().any(|slot| slot.input == input) {
            let name = entry.input.clone();
            return Err(TaskError::Twice { field: "spec.program.carry.input", name });
        }
        let (output, found) = output(graph, "spec.program.carry.output", &entry.output)?;
        let expected = &graph.inputs()[input].ty;
        if found != expected {
            return Err(TaskError::Type {
                field: "spec.program.carry.output",
                name: entry.output.clone(),
                expected: expected.to_string(),
                found: found.to_string(),
            });
        }
        slots.push(CarrySlot { input, output });
    }
    Ok(slots)
}

/// Bytes that a task takes while it runs, beside the cache.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// Of values in buffers: one run at its peak, and the partial results of each output.
    values: u64,
    /// Of everything: the task's frame with the attachments and its answer come on top.
    whole: u64,
}

fn bytes_needed(spec: &TaskSpec, plan: &Plan, attached: u64) -> Need {
    let runs = spec.program.runs();
    let levels = TreeSum::levels(runs);
    let is_scan = matches!(spec.program, Program::Scan { .. });
    let (mut values, mut answer) = (plan.bytes_peak(), 0u64);
    for output in &spec.outputs {
        let ty = plan.graph().output_type(&output.name);
        let bytes = ty.and_then(TensorType::bytes).unwrap_or(0);
        // The encoded bytes and the frame that holds them come on top of what is gathered.
        let (sums, parts, list) = match output.reduce {
            _ if is_scan => (1, 2, 0),
            ReduceRule::Sum => (levels, 2, TreeSum::list_bytes(runs)),
            ReduceRule::Concat => (0, 3 * u64::from(runs), 0),
        };
        values = values.saturating_add(bytes.saturating_mul(sums));
        answer = answer.saturating_add(bytes.saturating_mul(parts)).saturating_add(list);
    }
    Need { values, whole: values.saturating_add(attached).saturating_add(answer) }
}

impl Task {
    /// Checks a task against its graph, its blobs, its attachments and the
    /// memory that is left beside `others`.
    ///
    /// # Errors
    /// [`TaskError`] names the first thing that is wrong.
    pub fn begin(
        message: &TaskMessage,
        (frame, received): (&Frame<'_>, &Received<'_>),
        cache: &mut Cache,
        others: u64,
        budget: u64,
    ) -> Result<Self, TaskError> {
        let spec = &message.spec;
        spec.check()?;
        let graph = spec.program.graph();
        let plan = cache.graph(graph).ok_or_else(|| TaskError::Missing {
            field: "spec.program.graph",
            id: graph.to_string(),
        })?;
        let mut slots = slots(spec, plan.graph())?;
        let carry = carry_slots(spec, plan.graph())?;
        let Need { values, whole: bytes } = bytes_needed(spec, &plan, received.held_bytes(frame));
        // A first look spares the decoding of attachments that cannot fit; the
        // second, in the cache, knows what this task holds on to.
        let available = budget.saturating_sub(others);
        if bytes > available {
            return Err(TaskError::TooLarge { needed: bytes, available, budget });
        }
        // What is kept of values that died must not stand in the task's way.
        buffer::limit(available.saturating_sub(bytes.saturating_add(cache.bytes())), values);
        let bindings = Bindings::resolve(spec, &plan, (frame, received), cache)?;
        cache.make_room("task", bytes, others, budget).map_err(|_| TaskError::TooLarge {
            needed: bytes,
            available: budget.saturating_sub(others + cache.bytes() - cache.free_bytes()),
            budget,
        })?;
        let (start, runs) = match spec.program {
            Program::Map { start, count, .. } => (start, count),
            Program::Scan { steps, .. } => (0, steps),
        };
        for slot in &mut slots {
            let output = &plan.graph().outputs()[slot.at];
            slot.gathered.reserve(runs, plan.graph().ty(output.node));
        }
        Ok(Task {
            lease: message.lease,
            id: message.task,
            seed: spec.seed.0,
            carried: vec![None; plan.graph().inputs().len()],
            plan,
            bindings,
            start,
            runs,
            done: 0,
            run: None,
            ended: None,
            carry,
            slots,
            outputs: Vec::new(),
            flops_done: 0,
            bytes,
            value_bytes: values,
        })
    }

    /// The lease that this task answers.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Bytes that are set aside for this task.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Those of them that are for values in buffers.
    pub fn value_bytes(&self) -> u64 {
        self.value_bytes
    }

    /// Operations done so far.
    pub fn flops_done(&self) -> u64 {
        self.flops_done
    }

    /// Operations of the whole task.
    pub fn flops_total(&self) -> u64 {
        self.plan.flops().saturating_mul(u64::from(self.runs))
    }

    /// Whether every run is complete.
    pub fn is_done(&self) -> bool {
        self.done == self.runs
    }

    /// Runs whole steps of the plan, each one node or a group of nodes that run as
    /// one, until `flops` operations are done or the task is finished; at least
    /// one. A step without cost counts as one operation, so that any budget ends.
    pub fn step(&mut self, flops: u64) {
        let mut spent = 0u64;
        while !self.is_done() {
            if self.run.is_none() {
                self.run = Some(self.next_run());
            }
            let Some(run) = &mut self.run else { return };
            match run.step(&self.plan) {
                Some(done) => {
                    self.flops_done = self.flops_done.saturating_add(done);
                    spent = spent.saturating_add(done.max(1));
                }
                None => self.end_run(),
            }
            if spent >= flops {
                // A finished run is gathered at once, so that "finished" is not a step late.
                self.end_run_if_complete();
                return;
            }
        }
    }

    fn next_run(&mut self) -> Run {
        let inputs = self.bindings.inputs(self.done, &mut self.carried);
        let context = RunContext { seed: self.seed, run: self.start + self.done };
        match self.ended.take() {
            Some(mut run) => {
                run.begin_again(&self.plan, inputs, context);
                run
            }
            None => Run::new(&self.plan, inputs.collect(), context),
        }
    }

    fn end_run_if_complete(&mut self) {
        if self.run.as_ref().is_some_and(|run| run.is_complete(&self.plan)) {
            self.end_run();
        }
    }

    /// Takes the outputs of a finished run.
    fn end_run(&mut self) {
        let Some(mut run) = self.run.take() else { return };
        run.move_outputs(&self.plan, &mut self.outputs);
        self.ended = Some(run);
        self.done += 1;
        let is_last = self.is_done();
        for slot in &mut self.slots {
            let value = self.outputs[slot.at].as_ref().expect("a finished run has every output");
            slot.gathered.push(value, is_last);
        }
        if !is_last {
            // One output may feed several inputs; its last taker gets the buffer alone.
            for (at, slot) in self.carry.iter().enumerate() {
                let again = self.carry[at + 1..].iter().any(|later| later.output == slot.output);
                let value = &mut self.outputs[slot.output];
                self.carried[slot.input] = if again { value.clone() } else { value.take() };
            }
        }
        self.outputs.clear();
    }

    /// Encodes the outputs of a finished task and commits to them.
    pub fn finish(self) -> Finished {
        let values: Vec<(OutputSpec, TensorType, Vec<u8>)> = self
            .slots
            .into_iter()
            .map(|slot| {
                let (ty, bytes) = match slot.gathered {
                    Gathered::Concat(joined) => joined.finish(),
                    Gathered::Sum(sum) => encoded(sum.finish()),
                    Gathered::Last(value) => encoded(value),
                };
                (slot.spec, ty, bytes)
            })
            .collect();
        let views = values.iter().map(|(spec, ty, bytes)| {
            let Encoding::Raw = spec.encoding;
            let (name, shape) = (spec.name.as_str(), &ty.shape);
            (spec.encoding, TensorView { name, dtype: ty.dtype, shape, data: bytes })
        });
        let digest = result_digest(self.id, views);
        let parts: Vec<TensorPart<'_>> = values
            .iter()
            .map(|(spec, ty, data)| TensorPart { name: spec.name.clone(), ty: ty.clone(), data })
            .collect();
        let frame = encode(&FromContributor::Result { lease: self.lease }, &parts);
        Finished { lease: self.lease, digest, frame }
    }
}

fn encoded(value: Option<Tensor>) -> (TensorType, Vec<u8>) {
    let value = value.expect("a finished task has run at least once");
    (value.ty(), value.to_le_bytes())
}
