//! What tasks may bind, carry and hold: the limits, and what is left behind.

use crate::common::*;
use crate::kernel::{on_cpu, with};
use raven_gpu::bind::{Bindings, DataLimits, Source};
use raven_gpu::cache::{Blob, Cache};
use raven_gpu::{Plan, TaskError};
use raven_graph::{
    DType, Distribution, GraphBuilder, Limits, ReduceFn, Shape, UnaryFn, ValidGraph,
};
use raven_protocol::{
    Binding, BlobId, Carry, Frame, FrameLimits, Program, ReduceRule, RefuseReason, ShardRef,
    TaskMessage, ToContributor,
};
use std::time::{Duration, Instant};

const BUDGET: u64 = 64 << 20;

/// One output per input: its elements as they are.
fn passing(inputs: &[(&str, DType, &[u32])]) -> ValidGraph {
    let mut b = GraphBuilder::new(&Limits::default());
    for (name, dtype, dims) in inputs {
        let x = b.input(*name, *dtype, *dims).expect("valid");
        b.output(format!("next_{name}"), x);
    }
    b.finish().expect("valid")
}

fn rows_of(input: &str) -> Binding {
    Binding::Rows { input: input.into(), column: "x".into(), rows: "rows".into() }
}

#[test]
fn rows_that_no_shard_holds_are_zeros() {
    let graph = passing(&[("x", DType::F32, &[3, 2])]);
    // The column lies last in its blob, and has no rows.
    let (id, blob) = blob_frame(&[f32s("a", &[64], &[1.0; 64]), f32s("x", &[0, 2], &[])]);
    let none = ShardRef { blob: id, first_row: 0, rows: 0, bytes: 1 };
    for shards in [vec![], vec![none]] {
        let Some(kernel) = gpu(BUDGET) else { return };
        let outputs = vec![output("next_x", ReduceRule::Concat)];
        let mut spec = spec(map(graph.id(), 0, 2), vec![rows_of("x")], outputs);
        let count = shards.len();
        spec.shards = shards;
        let task = task_frame(1, spec, &[i32s("rows", &[2, 3], &[-1; 6])]);
        let mut kernel = with(kernel, &graph);
        kernel.accept(&blob).expect("a blob");
        let found = result(&kernel.execute(&task).expect("a task"));
        let expected = on_cpu(&graph, std::slice::from_ref(&blob), &task);
        expect_close(&format!("{count} shards"), &expected, &found, (0.0, 0.0));
    }
}

/// A scan that exchanges `x` and `y` and leaves `z` as it is.
fn exchange(graph: &ValidGraph, steps: u32) -> Vec<u8> {
    let carry = [("x", "next_y"), ("y", "next_x"), ("z", "next_z")]
        .map(|(input, output)| Carry { input: input.into(), output: output.into() });
    let program = Program::Scan { graph: graph.id(), steps, carry: carry.to_vec() };
    let bindings = vec![attached("x"), attached("y"), attached("z")];
    let outputs = ["x", "y", "z"].map(|name| output(&format!("next_{name}"), ReduceRule::Sum));
    let inputs = ["x", "y", "z"].map(|name| spread(name, &[3000], -1.0, 1.0));
    task_frame(1, spec(program, bindings, outputs.to_vec()), &inputs)
}

#[test]
fn a_scan_keeps_one_buffer_per_exchanged_value_however_many_steps() {
    let graph = passing(&["x", "y", "z"].map(|name| (name, DType::F32, &[3000][..])));
    let mut created = Vec::new();
    for steps in [2, 301] {
        let Some(kernel) = gpu(BUDGET) else { return };
        let mut kernel = with(kernel, &graph);
        let task = exchange(&graph, steps);
        let found = result(&kernel.execute(&task).expect("a task"));
        expect_close("exchanged", &on_cpu(&graph, &[], &task), &found, (0.0, 0.0));
        created.push(kernel.gpu().counters().buffers);
    }
    assert_eq!(created[0], created[1]);
    // Three inputs, two that are exchanged, the data, the readback, the parameters.
    assert!(created[0] <= 8, "{created:?}");
}

#[test]
fn a_task_of_more_commands_than_one_submission_is_refused_at_once() {
    let names: Vec<String> = (0..2000).map(|at| format!("x{at}")).collect();
    let inputs: Vec<_> = names.iter().map(|name| (name.as_str(), DType::F32, &[1][..])).collect();
    let graph = passing(&inputs);
    let Some(kernel) = gpu(BUDGET) else { return };
    let mut kernel = with(kernel, &graph);
    let bindings = names.iter().map(|name| rows_of(name)).collect();
    let outputs = vec![output("next_x0", ReduceRule::Concat)];
    let runs = 1 << 16;
    let rows = i32s("rows", &[runs, 1], &vec![-1; runs as usize]);
    let task = task_frame(1, spec(map(graph.id(), 0, runs), bindings, outputs), &[rows]);
    let start = Instant::now();
    let (reason, detail) = refusal(&kernel.execute(&task).expect("a task"));
    assert_eq!(reason, RefuseReason::TooLarge, "{detail}");
    assert!(detail.contains("commands"), "{detail}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// Resolves the bindings of a task frame within `limits`.
fn resolve(
    graph: ValidGraph,
    blobs: &[&[u8]],
    task: &[u8],
    limits: DataLimits,
) -> Option<Result<Bindings, TaskError>> {
    let mut kernel = gpu(BUDGET)?;
    let mut cache = Cache::default();
    for bytes in blobs {
        let frame = Frame::decode(bytes, &FrameLimits::TO_CONTRIBUTOR).expect("a frame");
        let blob = Blob::upload(kernel.gpu_mut(), &frame);
        cache.put_blob(raven_protocol::blob_id(frame.tensors()), blob);
    }
    let plan = Plan::new(graph, kernel.gpu().target()).expect("supported");
    let frame = Frame::decode(task, &FrameLimits::TO_CONTRIBUTOR).expect("a frame");
    let ToContributor::Task(message) = ToContributor::from_header(frame.header()).expect("valid")
    else {
        panic!("no task")
    };
    let TaskMessage { spec, .. } = *message;
    Some(Bindings::resolve(&spec, &plan, &frame, &mut cache, limits))
}

#[test]
fn columns_beyond_one_binding_are_too_large() {
    let graph = passing(&[("x", DType::U8, &[2, 4])]);
    let (id, blob) = blob_frame(&[u8s("x", &[200, 4], &[7; 800])]);
    let outputs = vec![output("next_x", ReduceRule::Concat)];
    let mut spec = spec(map(graph.id(), 0, 1), vec![rows_of("x")], outputs);
    spec.shards = vec![ShardRef { blob: id, first_row: 0, rows: 200, bytes: 1 }];
    let task = task_frame(1, spec, &[i32s("rows", &[1, 2], &[5, 6])]);
    for (binding_bytes_max, fits) in [(800, true), (799, false)] {
        let limits = DataLimits { bytes_max: 4096, binding_bytes_max };
        let Some(found) = resolve(graph.clone(), &[&blob], &task, limits) else { return };
        match found {
            Ok(_) => assert!(fits),
            Err(TaskError::Limit { field, found, limit }) => {
                assert!(!fits);
                assert_eq!((field, found, limit), ("spec.bindings.column", 800, 799));
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn bytes_are_widened_once_and_only_where_the_words_fit() {
    let graph = passing(&["x", "y"].map(|name| (name, DType::U8, &[1000][..])));
    let bindings = ["x", "y"]
        .map(|input| Binding::Attached { input: input.into(), tensor: "bytes".into() })
        .to_vec();
    let outputs = vec![output("next_x", ReduceRule::Sum)];
    let spec = spec(map(graph.id(), 0, 1), bindings, outputs);
    let task = task_frame(1, spec, &[u8s("bytes", &[1000], &[9; 1000])]);
    let limits = |bytes_max| DataLimits { bytes_max, binding_bytes_max: 1 << 20 };
    let Some(found) = resolve(graph.clone(), &[], &task, limits(4000)) else { return };
    let found = found.expect("both fit");
    assert_eq!(found.data.len(), 4000);
    let offsets: Vec<u64> = found
        .sources
        .iter()
        .map(|source| match source {
            Source::Attached(part) => part.offset,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(offsets, [0, 0]);
    let Some(found) = resolve(graph, &[], &task, limits(3999)) else { return };
    let error = found.expect_err("too many");
    assert!(matches!(error, TaskError::Limit { found: 4000, limit: 3999, .. }), "{error}");
}

/// `y = x w` with `w` bound to a blob.
fn weighed(blob: BlobId, graph: &ValidGraph) -> Vec<u8> {
    let weights = Binding::Blob { input: "w".into(), blob, tensor: "w".into() };
    let outputs = vec![output("y", ReduceRule::Sum)];
    let spec = spec(map(graph.id(), 0, 1), vec![attached("x"), weights], outputs);
    task_frame(1, spec, &[f32s("x", &[1, 64], &[0.5; 64])])
}

#[test]
fn dropped_blobs_leave_nothing_on_the_device() {
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::F32, [1, 64]).expect("valid");
    let w = b.input("w", DType::F32, [64, 64]).expect("valid");
    let y = b.matmul(x, w, false, false).expect("valid");
    b.output("y", y);
    let graph = b.finish().expect("valid");
    let Some(kernel) = gpu(BUDGET) else { return };
    let mut kernel = with(kernel, &graph);
    let dropping = |id| message(&ToContributor::Drop { blobs: vec![id], graphs: Vec::new() });
    let weights = |round: u32| blob_frame(&[f32s("w", &[64, 64], &vec![round as f32; 4096])]);
    let mut early = (0, 0);
    for round in 0..1000 {
        // One that no task reads before it goes, and one that a task reads.
        let (unread, frame) = weights(round + 2000);
        kernel.accept(&frame).expect("a blob");
        kernel.accept(&dropping(unread)).expect("a frame");
        let (id, frame) = weights(round);
        kernel.accept(&frame).expect("a blob");
        let found = result(&kernel.execute(&weighed(id, &graph)).expect("a task"));
        assert_eq!(floats(&found[0].2)[63], 32.0 * round as f32);
        kernel.accept(&dropping(id)).expect("a frame");
        let held = (kernel.gpu().device_bytes(), kernel.gpu().bind_groups());
        if round == 10 {
            early = held;
        }
        assert!(round < 10 || held == early, "round {round}: {held:?}, in round 10 {early:?}");
    }
}

#[test]
fn free_buffers_make_room_when_a_task_begins() {
    // Two tasks of different sizes take turns: what one leaves is no use to the other.
    let budget = 6 << 20;
    let Some(mut kernel) = gpu(budget) else { return };
    let task = |count: u32| {
        let mut b = GraphBuilder::new(&Limits::default());
        let x = b.input("x", DType::F32, [1]).expect("valid");
        let x = b.broadcast(x, &Shape(vec![4, count / 4])).expect("valid");
        let y = b.reduce(ReduceFn::Sum, x, &[0, 1], false).expect("valid");
        let wide = b.unary(UnaryFn::Exp, x).expect("valid");
        let z = b.arg_max(wide, 1).expect("valid");
        b.output("y", y);
        b.output("z", z);
        b.finish().expect("valid")
    };
    let graphs = [300_000, 500_000].map(task);
    for round in 0..6 {
        let graph = &graphs[round % 2];
        kernel.accept(&graph_frame(graph)).expect("a graph");
        let frame = whole_task(1, graph, &[f32s("x", &[1], &[0.0])]);
        assert!(kernel.begin(&frame).expect("a task").is_none());
        let held = kernel.gpu().device_bytes();
        assert!(held <= budget, "round {round}: {held} bytes on the device");
        kernel.wait().expect("running");
        kernel.finish(1).expect("done");
        assert!(kernel.gpu().device_bytes() <= budget, "round {round}");
    }
    // A blob needs most of the budget: what is free goes before it comes.
    let (_, blob) = blob_frame(&[f32s("w", &[1 << 20], &vec![1.0; 1 << 20])]);
    kernel.accept(&blob).expect("a blob");
    assert!(kernel.gpu().device_bytes() <= budget, "{}", kernel.gpu().device_bytes());
}

#[test]
fn uniform_blocks_are_counted_and_large_ones_do_not_stay() {
    // Every run has a block of its own: 8 MiB of them.
    let mut b = GraphBuilder::new(&Limits::default());
    let y = b.random(Distribution::Uniform, [4], 1).expect("valid");
    b.output("y", y);
    let graph = b.finish().expect("valid");
    let outputs = vec![output("y", ReduceRule::Sum)];
    let task = task_frame(1, spec(map(graph.id(), 0, 1 << 14), Vec::new(), outputs), &[]);
    for (budget, fits) in [(BUDGET, true), (6 << 20, false)] {
        let Some(kernel) = gpu(budget) else { return };
        let mut kernel = with(kernel, &graph);
        let found = kernel.execute(&task).expect("a task");
        if fits {
            expect_close("sum", &on_cpu(&graph, &[], &task), &result(&found), (0.0, 1e-5));
        } else {
            let (reason, detail) = refusal(&found);
            assert_eq!(reason, RefuseReason::TooLarge, "{detail}");
            assert!(detail.contains("parameters"), "{detail}");
        }
        assert!(kernel.gpu().device_bytes() < 1 << 20, "{}", kernel.gpu().device_bytes());
    }
}
