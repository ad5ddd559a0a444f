//! A step of a task that repeats allocates nothing after the first ones: what
//! dead values held serves the next ones, and what is known before a run lies in
//! its plan. A run takes no more than its plan says, and a kernel that ends
//! leaves nothing.

mod counting;
mod tasks;

use counting::{COUNTS, counted};
use raven_graph::{
    CompareFn, Conv2dAttrs, DType, GraphBuilder, GraphError, Limits, NodeId, Pool2dAttrs, ReduceFn,
    UnaryFn, ValidGraph,
};
use raven_worker::ops::RunContext;
use raven_worker::{Kernel, Plan, Run, Tensor, buffer};
use tasks::{
    MODELS, every_op_graph, graph_frame, large_task, map, moving_graph, scan, step_graph,
    train_graph,
};

/// Bytes that most kernels here may take: many times what they need.
const BUDGET: u64 = 64 << 20;
/// Steps before counting begins: the first takes its memory, the second is the
/// first that finds carried values.
const WARM: u64 = 3;
/// What a task may allocate whatever its steps: names and shapes in its message and its answer,
/// its bindings and its lists.
const TASK_ALLOCATIONS_MAX: u64 = 300;

/// Steps that are watched; 10,000 in a full run.
fn steps() -> u32 {
    let text = std::env::var("RAVEN_MEMORY_STEPS").unwrap_or_else(|_| "300".into());
    text.parse().expect("RAVEN_MEMORY_STEPS is a number")
}

/// A kernel that knows a graph, and the shard that its tasks read.
fn kernel_with(graph: &ValidGraph, shard: Option<&[u8]>) -> Kernel {
    let mut kernel = Kernel::new(BUDGET);
    kernel.accept(&graph_frame(graph)).expect("the graph");
    if let Some(shard) = shard {
        kernel.accept(shard).expect("the shard");
    }
    kernel
}

/// Watches a task of `steps` runs after its first ones: they allocate nothing.
fn assert_steps_allocate_nothing(kernel: &mut Kernel, task: &[u8], steps: u32, what: &str) {
    let refused = kernel.begin(task).expect("a task");
    assert!(refused.is_none(), "{what}: refused");
    // A node without cost counts as one operation, so that counting may begin and end in the
    // middle of a step: its values are in use there, or kept for the next ones.
    let per_step = kernel.running().expect("it runs").flops_total() / u64::from(steps);
    let (first, done) = counted(|| kernel.step(WARM * per_step).expect("it runs"));
    assert!(!done);
    let left = u64::from(steps) - 2 * WARM;
    let (counts, done) = counted(|| kernel.step(left * per_step).expect("it runs"));
    assert!(!done);
    println!(
        "{what}: {} allocations in {left} steps (RAVEN_MEMORY_STEPS), {} in the first {WARM}",
        counts.allocations, first.allocations
    );
    assert_eq!(counts.allocations, 0, "{what}: {counts:?}");
    kernel.abort();
}

#[test]
fn steps_of_a_scan_allocate_nothing_after_the_first() {
    let steps = steps();
    let graphs = MODELS.map(|(data, model)| step_graph(data, model));
    let graphs = graphs.into_iter().chain([moving_graph(), every_op_graph()]);
    for ((graph, params), what) in graphs.zip(["MLP", "CNN", "moves", "every op"]) {
        let mut kernel = kernel_with(&graph, None);
        assert_steps_allocate_nothing(&mut kernel, &scan(&graph, &params, steps), steps, what);
    }
}

#[test]
fn micro_batches_of_a_map_allocate_nothing_after_the_first() {
    let steps = steps();
    for ((data, model), what) in MODELS.into_iter().zip(["MLP", "CNN"]) {
        let (graph, params) = train_graph(data, model);
        let (task, shard) = map(&graph, &params, steps);
        let mut kernel = kernel_with(&graph, Some(&shard));
        assert_steps_allocate_nothing(&mut kernel, &task, steps, what);
    }
}

/// The smallest budget in which a kernel takes a task.
fn smallest_budget(graph: &ValidGraph, task: &[u8]) -> u64 {
    let fits = |budget: u64| {
        let mut kernel = Kernel::new(budget);
        let accepted = kernel.accept(&graph_frame(graph)).is_ok();
        accepted && kernel.begin(task).expect("a task").is_none()
    };
    let (mut too_small, mut enough) = (0, BUDGET);
    while enough - too_small > 1 {
        let middle = (too_small + enough) / 2;
        *(if fits(middle) { &mut enough } else { &mut too_small }) = middle;
    }
    enough
}

/// What is set aside for a task serves its steps, though the budget leaves nothing beside it.
#[test]
fn steps_in_the_smallest_budget_allocate_nothing_either() {
    let steps = steps();
    for ((data, model), what) in MODELS.into_iter().zip(["MLP", "CNN"]) {
        let (graph, params) = step_graph(data, model);
        let task = scan(&graph, &params, steps);
        let budget = smallest_budget(&graph, &task);
        let mut kernel = Kernel::new(budget);
        kernel.accept(&graph_frame(&graph)).expect("the graph");
        assert_steps_allocate_nothing(&mut kernel, &task, steps, what);
    }
}

/// Allocations of a whole task on a kernel that has run it before.
fn allocations_of(kernel: &mut Kernel, task: &[u8]) -> u64 {
    kernel.execute(task).expect("a task");
    let (counts, answer) = counted(|| kernel.execute(task));
    answer.expect("a task");
    counts.allocations
}

/// What a task allocates is for its frame, its bindings and its answer, however many steps it has.
#[test]
fn allocations_of_a_task_do_not_grow_with_its_steps() {
    for ((data, model), what) in MODELS.into_iter().zip(["MLP", "CNN"]) {
        let (graph, params) = step_graph(data, model);
        let mut kernel = kernel_with(&graph, None);
        let scans = [5, 50].map(|steps| allocations_of(&mut kernel, &scan(&graph, &params, steps)));
        let (graph, params) = train_graph(data, model);
        let maps = [5, 50].map(|count| {
            let (task, shard) = map(&graph, &params, count);
            allocations_of(&mut kernel_with(&graph, Some(&shard)), &task)
        });
        println!("{what}: {scans:?} allocations of scans of 5 and 50 steps, {maps:?} of maps");
        assert_eq!(scans[0], scans[1], "{what}");
        assert_eq!(maps[0], maps[1], "{what}");
        let most = scans[0].max(maps[0]);
        assert!(most <= TASK_ALLOCATIONS_MAX, "{what}: {most}");
    }
}

/// Names, shapes and lists of a frame's tensors.
const FRAME_BYTES_MAX: i64 = 16 << 10;

/// A page copies a frame into the module's memory. Nothing of it is copied again: neither when it
/// is taken in, nor when a run begins that reads it.
#[test]
fn what_is_handed_over_is_not_copied_again() {
    let (graph, shard, task) = large_task();
    let mut kernel = kernel_with(&graph, None);
    let bytes = shard.len() + task.len();
    let (accepted, answer) = counted(|| kernel.accept_owned(shard));
    assert!(answer.expect("the shard").is_none());
    let (begun, refused) = counted(|| kernel.begin_owned(task));
    assert!(refused.expect("a task").is_none(), "refused");
    let (run, done) = counted(|| kernel.step(u64::MAX).expect("it runs"));
    assert!(done);
    let taken = [accepted, begun, run].map(|counts| counts.peak);
    println!("{taken:?} bytes allocated to accept, begin and run with {bytes} bytes");
    assert!(taken.iter().all(|taken| *taken <= FRAME_BYTES_MAX), "{taken:?} of {bytes}");
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
    buffer::limit(0, 0);
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
        let (counts, outputs) = counted(|| {
            let mut run = Run::new(&plan, vec![held.clone()], RunContext { seed: 1, run: 0 });
            while run.step(&plan).is_some() {}
            run.take_outputs(&plan)
        });
        let taken = counts.peak;
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
        kernel.accept(&graph_frame(&graph)).expect("the graph");
        kernel.execute(&scan(&graph, &params, 3)).expect("a task");
    }
    let left = COUNTS.get().live - before;
    // The lists in which buffers were kept stay.
    assert!(left <= 16 << 10, "{left} bytes are still in use");
}
