//! A step of a task that repeats takes no memory after the first ones: buffers
//! of values that died serve the next ones, and what is allocated for
//! bookkeeping is given back.

use raven_graph::model::{LoweredModel, ModelSpec, lower};
use raven_graph::{BinaryFn, DType, GraphBuilder, Limits, NodeId, Op, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, Carry, Encoding, GraphText, JobId, LeaseId, Numerics, OutputSpec, Program, ReduceRule,
    Seed, TaskId, TaskMessage, TaskSpec, TensorPart, ToContributor,
};
use raven_worker::Kernel;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts what one thread allocates.
struct Counting;

#[derive(Clone, Copy, Debug)]
struct Counts {
    allocations: u64,
    largest: usize,
    live: i64,
}

thread_local! {
    static COUNTS: Cell<Counts> =
        const { Cell::new(Counts { allocations: 0, largest: 0, live: 0 }) };
}

fn count(change: impl FnOnce(&mut Counts)) {
    // Threads that end still free what they held.
    let _ = COUNTS.try_with(|cell| {
        let mut counts = cell.get();
        change(&mut counts);
        cell.set(counts);
    });
}

// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|counts| {
            counts.allocations += 1;
            counts.largest = counts.largest.max(layout.size());
            counts.live += layout.size() as i64;
        });
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(|counts| counts.live -= layout.size() as i64);
        // SAFETY: passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BATCH: u32 = 16;
/// Steps before counting begins: the first takes its memory, the second is the
/// first that finds carried values.
const WARM: u64 = 3;
/// What a step may allocate at once for its bookkeeping; the values of the
/// networks here that are larger than this are what must come back.
const BOOKKEEPING_BYTES_MAX: usize = 2048;

const MODELS: [(&str, &str); 2] = [
    (
        r#"{"features": {"dtype": "u8", "shape": [128]}, "scale": 0.004, "target": {"kind": "classes", "count": 10}}"#,
        r#"{"loss": "cross_entropy", "layers": [
            {"type": "dense", "units": 64, "activation": "relu"}, {"type": "dropout", "rate": 0.2},
            {"type": "dense", "units": 48, "activation": "tanh"}, {"type": "dense", "units": 10}]}"#,
    ),
    (
        r#"{"features": {"dtype": "u8", "shape": [1, 8, 8]}, "scale": 0.004, "target": {"kind": "classes", "count": 10}}"#,
        r#"{"loss": "cross_entropy", "layers": [
            {"type": "conv2d", "filters": 4, "kernel": 3, "padding": "same", "activation": "relu"},
            {"type": "max_pool2d", "size": 2},
            {"type": "conv2d", "filters": 8, "kernel": 3, "padding": "same", "activation": "relu"},
            {"type": "flatten"}, {"type": "dense", "units": 10}]}"#,
    ),
];

/// One step of gradient descent, its parameters by name.
fn step_graph(data: &str, model: &str) -> (ValidGraph, Vec<String>) {
    let limits = Limits::default();
    let model: ModelSpec = serde_json::from_str(model).expect("a model");
    let data = serde_json::from_str(data).expect("data");
    let LoweredModel { train, params, .. } = lower(&model, &data, BATCH, &limits).expect("a graph");
    let gradients = train.outputs().to_vec();
    let mut b = GraphBuilder::resume(train, &limits);
    let names: Vec<String> = params.into_iter().map(|param| param.name).collect();
    for param in &names {
        let grad = format!("grad.{param}");
        let gradient = gradients.iter().find(|output| output.name == grad).expect("a gradient");
        let is_param = |op: &Op| matches!(op, Op::Input { name, .. } if name == param);
        let at = b.nodes().iter().position(|node| is_param(&node.op)).expect("an input");
        let step = b.scale(gradient.node, 0.001).expect("a step");
        let next = b.binary(BinaryFn::Sub, NodeId(at as u32), step).expect("the update");
        b.output(format!("next.{param}"), next);
    }
    let mut graph = b.finish().expect("valid").into_graph();
    graph.outputs.retain(|output| output.name.starts_with("next."));
    (graph.validate(&limits).expect("valid"), names)
}

/// A scan's frame; every operand is attached.
fn task(graph: &ValidGraph, params: &[String], steps: u32) -> Vec<u8> {
    let next = |param: &String| format!("next.{param}");
    let carry = params.iter().map(|param| Carry { input: param.clone(), output: next(param) });
    let bindings = graph
        .inputs()
        .iter()
        .map(|input| Binding::Attached { input: input.name.clone(), tensor: input.name.clone() });
    let outputs = params.iter().map(|param| OutputSpec {
        name: next(param),
        encoding: Encoding::Raw,
        reduce: ReduceRule::Sum,
    });
    let message = TaskMessage {
        lease: LeaseId(1),
        task: TaskId { job: JobId(1), round: 0, stage: 0, part: 0 },
        lease_ms: 60_000,
        flops: graph.cost().flops * u64::from(steps),
        spec: TaskSpec {
            program: Program::Scan { graph: graph.id(), steps, carry: carry.collect() },
            seed: Seed(1),
            bindings: bindings.collect(),
            shards: Vec::new(),
            outputs: outputs.collect(),
            numerics: Numerics::Strict,
        },
    };
    let contents = |dtype: DType, count: u64| -> Vec<u8> {
        (0..count as u32)
            .flat_map(|i| match dtype {
                DType::F32 => (0.1 - (i % 7) as f32 * 0.03).to_le_bytes().to_vec(),
                DType::I32 => ((i % 10) as i32).to_le_bytes().to_vec(),
                DType::U8 => vec![(i * 37) as u8],
                DType::Bool => vec![(i % 2) as u8],
            })
            .collect()
    };
    let data: Vec<Vec<u8>> = graph
        .inputs()
        .iter()
        .map(|input| contents(input.ty.dtype, input.ty.shape.elements().expect("small")))
        .collect();
    let inputs = graph.inputs().iter().zip(&data);
    let parts: Vec<TensorPart<'_>> = inputs
        .map(|(input, data)| TensorPart { name: input.name.clone(), ty: input.ty.clone(), data })
        .collect();
    encode(&ToContributor::Task(Box::new(message)), &parts)
}

/// Steps that are watched; 10,000 in a full run.
fn steps() -> u32 {
    let text = std::env::var("RAVEN_MEMORY_STEPS").unwrap_or_else(|_| "300".into());
    text.parse().expect("RAVEN_MEMORY_STEPS is a number")
}

#[test]
fn many_steps_take_no_more_memory_than_the_first() {
    let steps = steps();
    for (data, model) in MODELS {
        let (graph, params) = step_graph(data, model);
        let mut kernel = Kernel::new(64 << 20);
        let text = GraphText::of(&graph);
        let message = ToContributor::Graph { id: graph.id(), graph: text };
        kernel.accept(&encode(&message, &[])).expect("the graph");
        let refused = kernel.begin(&task(&graph, &params, steps)).expect("a task");
        assert!(refused.is_none(), "refused");
        // A finished run is gathered when the next begins, so that counting goes from the same
        // place in one step to the same in another.
        let per_step = kernel.running().expect("it runs").flops_total() / u64::from(steps);
        let done = kernel.step(WARM * per_step).expect("it runs");
        assert!(!done);
        let before = COUNTS.get();
        COUNTS.set(Counts { allocations: 0, largest: 0, ..before });
        let left = u64::from(steps) - 2 * WARM;
        assert!(!kernel.step(left * per_step).expect("it runs"));
        let after = COUNTS.get();
        println!(
            "{left} steps (RAVEN_MEMORY_STEPS): {} allocations a step, the largest of {} bytes, {} bytes more in use",
            after.allocations / left,
            after.largest,
            after.live - before.live
        );
        assert!(after.largest <= BOOKKEEPING_BYTES_MAX, "a value found no buffer");
        let grown = after.live - before.live;
        assert!(grown.unsigned_abs() <= 64 << 10, "{grown} bytes more in use");
        kernel.abort();
    }
}
