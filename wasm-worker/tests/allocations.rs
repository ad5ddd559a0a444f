//! A step of a task that repeats takes no memory after the first ones: buffers
//! of values that died serve the next ones, and what is allocated for
//! bookkeeping is given back. A run takes no more than its plan says, and a
//! kernel that ends leaves nothing.

use raven_graph::model::{LoweredModel, ModelSpec, lower};
use raven_graph::{
    BinaryFn, CompareFn, Conv2dAttrs, DType, GraphBuilder, GraphError, Limits, NodeId, Op,
    Pool2dAttrs, ReduceFn, UnaryFn, ValidGraph,
};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, Carry, Encoding, GraphText, JobId, LeaseId, Numerics, OutputSpec, Program, ReduceRule,
    Seed, TaskId, TaskMessage, TaskSpec, TensorPart, ToContributor,
};
use raven_worker::ops::RunContext;
use raven_worker::{Kernel, Plan, Run, Tensor, buffer};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts what one thread allocates.
struct Counting;

#[derive(Clone, Copy, Debug)]
struct Counts {
    allocations: u64,
    largest: usize,
    live: i64,
    /// The most that was live at once.
    peak: i64,
}

thread_local! {
    static COUNTS: Cell<Counts> =
        const { Cell::new(Counts { allocations: 0, largest: 0, live: 0, peak: 0 }) };
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
            counts.peak = counts.peak.max(counts.live);
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

/// A step that only moves elements, of a value that is held elsewhere and of ones that are not.
fn moving_graph() -> (ValidGraph, Vec<String>) {
    let build = || -> Result<ValidGraph, GraphError> {
        let mut b = GraphBuilder::new(&Limits::default());
        let w = b.input("w", DType::F32, [64, 48])?;
        let left = b.slice(w, &[0, 0], &[64, 20])?;
        let right = b.slice(w, &[0, 20], &[64, 48])?;
        let swapped = b.concat(&[right, left], 1)?;
        let turned = b.permute(swapped, &[1, 0])?;
        let upper = b.slice(turned, &[0, 0], &[30, 64])?;
        let lower = b.slice(turned, &[30, 0], &[48, 64])?;
        let joined = b.concat(&[lower, upper], 0)?;
        let back = b.permute(joined, &[1, 0])?;
        let sum = b.add(back, w)?;
        let next = b.scale(sum, 0.5)?;
        b.output("next.w", next);
        b.finish()
    };
    (build().expect("valid"), vec!["w".into()])
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
    let mut graphs = Vec::from(MODELS.map(|(data, model)| step_graph(data, model)));
    graphs.push(moving_graph());
    for (graph, params) in graphs {
        let mut kernel = Kernel::new(64 << 20);
        let text = GraphText::of(&graph);
        let message = ToContributor::Graph { id: graph.id(), graph: text };
        kernel.accept(&encode(&message, &[])).expect("the graph");
        let refused = kernel.begin(&task(&graph, &params, steps)).expect("a task");
        assert!(refused.is_none(), "refused");
        // A node without cost counts as one operation, so that counting may begin and end in the
        // middle of a step: its values are in use there, or kept for the next ones.
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

/// What a run may allocate for its bookkeeping beyond what its plan says.
const RUN_BYTES_MAX: i64 = 8 << 10;

/// A graph of one input, which its caller holds while it runs, so that nothing is done in place.
struct Single {
    name: &'static str,
    dims: &'static [u32],
    build: fn(&mut GraphBuilder, NodeId) -> Result<NodeId, GraphError>,
}

const SINGLES: [Single; 18] = [
    Single { name: "slice", dims: &[256, 256], build: |b, x| b.slice(x, &[9, 9], &[10, 10]) },
    Single { name: "column", dims: &[256, 256], build: |b, x| b.slice(x, &[0, 7], &[256, 8]) },
    Single { name: "whole slice", dims: &[256, 256], build: |b, x| b.slice(x, &[0; 2], &[256; 2]) },
    Single { name: "permute", dims: &[256, 256], build: |b, x| b.permute(x, &[1, 0]) },
    Single { name: "concat", dims: &[256, 256], build: |b, x| b.concat(&[x, x, x], 1) },
    Single { name: "recip", dims: &[256, 256], build: |b, x| b.unary(UnaryFn::Recip, x) },
    Single { name: "sign", dims: &[256, 256], build: |b, x| b.unary(UnaryFn::Sign, x) },
    Single { name: "abs", dims: &[256, 256], build: |b, x| b.unary(UnaryFn::Abs, x) },
    Single { name: "exp", dims: &[256, 256], build: |b, x| b.unary(UnaryFn::Exp, x) },
    Single {
        name: "chain",
        dims: &[256, 256],
        build: |b, x| {
            let y = b.unary(UnaryFn::Neg, x)?;
            let y = b.scale(y, 0.5)?;
            b.unary(UnaryFn::Relu, y)
        },
    },
    Single {
        name: "mask that is made early",
        dims: &[256, 256],
        build: |b, x| {
            let (zero, y) = (b.scalar(0.0)?, b.unary(UnaryFn::Exp, x)?);
            let mask = b.compare(CompareFn::Gt, y, zero)?;
            let z = b.unary(UnaryFn::Log, x)?;
            let z = b.concat(&[z, z, z], 0)?;
            let z = b.slice(z, &[100, 0], &[356, 256])?;
            b.select(mask, z, zero)
        },
    },
    Single {
        name: "product and what follows",
        dims: &[256, 256],
        build: |b, x| {
            let (y, row) = (b.matmul(x, x, false, true)?, b.slice(x, &[3, 0], &[4, 256])?);
            let y = b.add(y, row)?;
            b.unary(UnaryFn::Relu, y)
        },
    },
    Single {
        name: "product in the place of a value",
        dims: &[256, 256],
        build: |b, x| {
            let (y, step) = (b.unary(UnaryFn::Neg, x)?, b.matmul(x, x, true, false)?);
            let step = b.scale(step, 0.5)?;
            b.sub(y, step)
        },
    },
    Single { name: "softmax", dims: &[1 << 14, 4], build: |b, x| b.softmax(x, 0) },
    Single {
        name: "sum of many leading",
        dims: &[40, 1 << 12],
        build: |b, x| b.reduce(ReduceFn::Sum, x, &[0], false),
    },
    Single {
        name: "sum of many leading, twice",
        dims: &[40, 2, 40, 1 << 10],
        build: |b, x| b.reduce(ReduceFn::Sum, x, &[0, 2], false),
    },
    Single {
        name: "pools of one element",
        dims: &[1, 1, 1, 1 << 14],
        build: |b, x| {
            b.max_pool2d(x, Pool2dAttrs { kernel: [1, 1], stride: [1, 1], padding: [0; 4] })
        },
    },
    Single {
        name: "convolution",
        dims: &[2, 4, 32, 32],
        build: |b, x| {
            let weight = b.constant(DType::F32, [8, 4, 3, 3], 0.5)?;
            let attrs =
                Conv2dAttrs { stride: [1; 2], padding: [1; 4], dilation: [1; 2], groups: 1 };
            b.conv2d(x, weight, attrs)
        },
    },
];

#[test]
fn a_run_takes_no_more_memory_than_its_plan_says() {
    buffer::limit(0);
    let mut wrong = Vec::new();
    for Single { name, dims, build } in SINGLES {
        let mut b = GraphBuilder::new(&Limits::default());
        let x = b.input("x", DType::F32, dims).expect("valid");
        let y = build(&mut b, x).expect("valid");
        b.output("y", y);
        let plan = Plan::new(b.finish().expect("valid"));
        let dims: Vec<usize> = dims.iter().map(|&extent| extent as usize).collect();
        let held = Tensor::filled(&dims, 0.25f32);
        let planned = (plan.bytes_peak() - plan.graph().cost().bytes_in) as i64;
        let before = COUNTS.get();
        COUNTS.set(Counts { peak: before.live, ..before });
        let mut run = Run::new(&plan, vec![held.clone()], RunContext { seed: 1, run: 0 });
        while run.step(&plan).is_some() {}
        let outputs = run.take_outputs(&plan);
        let taken = COUNTS.get().peak - before.live;
        assert_eq!(outputs.len(), 1);
        if taken > planned + RUN_BYTES_MAX {
            wrong.push(format!("{name}: {taken} bytes, planned {planned}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_kernel_that_ends_leaves_nothing() {
    let before = COUNTS.get().live;
    let (data, model) = MODELS[0];
    {
        let (graph, params) = step_graph(data, model);
        let mut kernel = Kernel::new(64 << 20);
        let message = ToContributor::Graph { id: graph.id(), graph: GraphText::of(&graph) };
        kernel.accept(&encode(&message, &[])).expect("the graph");
        kernel.execute(&task(&graph, &params, 3)).expect("a task");
    }
    let left = COUNTS.get().live - before;
    // The lists in which buffers were kept stay.
    assert!(left <= 16 << 10, "{left} bytes are still in use");
}
