//! The kernel's frames on a device: what it takes, keeps, refuses and answers.

use crate::common::*;
use raven_gpu::{Kernel, KernelError, Unsupported};
use raven_graph::{
    Conv2dAttrs, DType, Distribution, GraphBuilder, GraphId, Limits, ReduceFn, UnaryFn, ValidGraph,
};
use raven_protocol::{
    Backend, Binding, BlobId, Carry, Encoding, FromContributor, LeaseId, Numerics, Program,
    ReduceRule, RefuseReason, Seed, ShardRef, TaskId, TensorView, ToContributor, result_digest,
};

const BUDGET: u64 = 64 << 20;

/// `y = sum over rows of relu(x w) + noise`: x [4, 3] per run, w [3, 2].
fn small_graph() -> ValidGraph {
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::F32, [4, 3]).expect("valid");
    let w = b.input("w", DType::F32, [3, 2]).expect("valid");
    let y = b.matmul(x, w, false, false).expect("valid");
    let y = b.unary(UnaryFn::Relu, y).expect("valid");
    let noise = b.random(Distribution::Uniform, [4, 2], 1).expect("valid");
    let y = b.add(y, noise).expect("valid");
    let sum = b.reduce(ReduceFn::Sum, y, &[0], false).expect("valid");
    b.output("rows", y);
    b.output("sum", sum);
    b.finish().expect("valid")
}

/// A task of [`small_graph`] over `count` micro-batches from `start`.
fn small_task(lease: u128, start: u32, count: u32) -> Vec<u8> {
    let xs: Vec<f32> = (start * 12..(start + count) * 12).map(|i| noise(i) - 0.5).collect();
    let ws: Vec<f32> = (0..6).map(|i| noise(7000 + i)).collect();
    let bindings = vec![Binding::PerRun { input: "x".into(), tensor: "xs".into() }, attached("w")];
    let outputs = vec![output("sum", ReduceRule::Sum), output("rows", ReduceRule::Concat)];
    let spec = spec(map(small_graph().id(), start, count), bindings, outputs);
    task_frame(lease, spec, &[f32s("xs", &[count, 4, 3], &xs), f32s("w", &[3, 2], &ws)])
}

pub fn with(mut kernel: Kernel, graph: &ValidGraph) -> Kernel {
    assert!(kernel.accept(&graph_frame(graph)).expect("a graph").is_none());
    kernel
}

/// The same task on the CPU.
pub fn on_cpu(graph: &ValidGraph, blobs: &[Vec<u8>], task: &[u8]) -> Vec<Named> {
    let mut cpu = cpu(BUDGET);
    cpu.accept(&graph_frame(graph)).expect("a graph");
    for blob in blobs {
        cpu.accept(blob).expect("a blob");
    }
    result(&cpu.execute(task).expect("a task"))
}

#[test]
fn a_task_commits_and_reveals_its_payload_once() {
    let Some(kernel) = gpu(BUDGET) else { return };
    let mut kernel = with(kernel, &small_graph());
    assert!(kernel.begin(&small_task(9, 0, 2)).expect("a task").is_none());
    assert!(matches!(
        kernel.begin(&small_task(6, 0, 2)),
        Err(KernelError::Busy { running: LeaseId(9) })
    ));
    kernel.wait().expect("running");
    let (commit, tensors) = read(&kernel.finish(77).expect("finished"));
    assert!(tensors.is_empty());
    let FromContributor::Commit {
        lease: LeaseId(9),
        digest,
        elapsed_ms: 77,
        backend: Backend::Gpu,
    } = commit
    else {
        panic!("{commit:?}")
    };
    let (key, probes) = (Seed(0x0123_4567_89ab_cdef), 5);
    let project = message(&ToContributor::Project { lease: LeaseId(9), key, probes });
    let projected = kernel.accept(&project).expect("a frame").expect("an answer");
    let reveal = message(&ToContributor::Reveal { lease: LeaseId(9) });
    let payload = kernel.accept(&reveal).expect("a frame").expect("an answer");
    let tensors = result(&payload);
    // The projections are those of the definition, and asking for them left the payload there.
    let (answer, projections) = read(&projected);
    assert_eq!(answer, FromContributor::Projected { lease: LeaseId(9) });
    for (number, ((name, ty, data), (output, _, values))) in
        (0..).zip(projections.iter().zip(&tensors))
    {
        assert_eq!((name, ty.shape.dims()), (output, &[probes, 8][..]));
        let defined = raven_proof::project(key.0, number, probes, &floats(values));
        assert_eq!(raven_proof::projection::from_bytes(data), Ok(defined));
    }
    // The commitment is to these bytes.
    let views = tensors.iter().map(|(name, ty, data)| {
        (Encoding::Raw, TensorView { name, dtype: ty.dtype, shape: &ty.shape, data })
    });
    let task = TaskId { job: raven_protocol::JobId(1), round: 0, stage: 0, part: 0 };
    assert_eq!(result_digest(task, views), digest);
    let again = kernel.accept(&reveal).expect("a frame").expect("an answer");
    assert_eq!(refusal(&again).0, RefuseReason::Missing);
    assert!(matches!(kernel.finish(0), Err(KernelError::Idle)));
}

#[test]
fn micro_batches_combine_as_on_the_cpu_in_one_submission() {
    let Some(kernel) = gpu(BUDGET) else { return };
    let graph = small_graph();
    let mut kernel = with(kernel, &graph);
    for (start, count) in [(0, 1), (0, 2), (4, 4), (8, 5), (0, 13)] {
        let task = small_task(1, start, count);
        let before = kernel.gpu().counters();
        let found = result(&kernel.execute(&task).expect("a task"));
        let after = kernel.gpu().counters();
        assert_eq!(after.submits - before.submits, 1, "{count} runs");
        assert_eq!(after.readbacks - before.readbacks, 1, "{count} runs");
        expect_close(
            &format!("{start}+{count}"),
            &on_cpu(&graph, &[], &task),
            &found,
            (1e-5, 1e-5),
        );
    }
}

/// Rows of two shards, bytes and floats, with padding, and a mask.
fn rows_case() -> (ValidGraph, Vec<Vec<u8>>, Vec<u8>) {
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::U8, [5, 3]).expect("valid");
    let t = b.input("t", DType::F32, [5]).expect("valid");
    let mask = b.input("mask", DType::F32, [5]).expect("valid");
    let bytes = b.input("bytes", DType::U8, [7]).expect("valid");
    let x = b.cast(x, DType::F32).expect("valid");
    let rows = b.reduce(ReduceFn::Sum, x, &[1], false).expect("valid");
    let y = b.mul(rows, t).expect("valid");
    let y = b.add(y, mask).expect("valid");
    let bytes = b.cast(bytes, DType::F32).expect("valid");
    b.output("y", y);
    b.output("bytes", bytes);
    let graph = b.finish().expect("valid");
    let shard = |first: u8, rows: u32| {
        let pixels: Vec<u8> = (0..3 * rows as u8).map(|i| first + i).collect();
        let target: Vec<f32> = (0..rows).map(|i| f32::from(first) + i as f32 * 0.5).collect();
        blob_frame(&[u8s("pixels", &[rows, 3], &pixels), f32s("target", &[rows], &target)])
    };
    let ((one, one_frame), (two, two_frame)) = (shard(0, 3), shard(100, 4));
    let (extra, extra_frame) = blob_frame(&[u8s("e", &[7], &[1, 2, 3, 4, 5, 250, 7])]);
    let rows = |column: &str, input: &str| Binding::Rows {
        input: input.into(),
        column: column.into(),
        rows: "rows".into(),
    };
    let bindings = vec![
        rows("pixels", "x"),
        rows("target", "t"),
        Binding::RowMask { input: "mask".into(), rows: "rows".into() },
        Binding::Blob { input: "bytes".into(), blob: extra, tensor: "e".into() },
    ];
    let outputs = vec![output("y", ReduceRule::Concat), output("bytes", ReduceRule::Sum)];
    let mut spec = spec(map(graph.id(), 0, 2), bindings, outputs);
    let bytes = |blob: BlobId, first_row, rows| ShardRef { blob, first_row, rows, bytes: 1 };
    spec.shards = vec![bytes(one, 10, 3), bytes(two, 20, 4)];
    let numbers = i32s("rows", &[2, 5], &[12, 20, -1, 10, 23, -1, -1, 21, 22, -1]);
    let task = task_frame(4, spec, &[numbers]);
    (graph, vec![one_frame, two_frame, extra_frame], task)
}

#[test]
fn rows_of_shards_are_read_on_the_device() {
    let Some(kernel) = gpu(BUDGET) else { return };
    let (graph, blobs, task) = rows_case();
    let mut kernel = with(kernel, &graph);
    assert_eq!(kernel.missing(&task).expect("a task").len(), 3);
    let refused = kernel.begin(&task).expect("a task").expect("refused");
    assert_eq!(refusal(&refused).0, RefuseReason::Missing);
    for blob in &blobs {
        kernel.accept(blob).expect("a blob");
    }
    assert!(kernel.missing(&task).expect("a task").is_empty());
    let uploaded = kernel.gpu().counters().blob_bytes;
    let expected = on_cpu(&graph, &blobs, &task);
    for _ in 0..2 {
        let found = result(&kernel.execute(&task).expect("a task"));
        expect_close("rows", &expected, &found, (1e-4, 1e-6));
    }
    // A blob that is here already is not uploaded again.
    for blob in &blobs {
        kernel.accept(blob).expect("a blob");
    }
    assert_eq!(kernel.gpu().counters().blob_bytes, uploaded);
}

#[test]
fn a_scan_hands_values_over_even_crosswise() {
    let Some(kernel) = gpu(BUDGET) else { return };
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::F32, [3]).expect("valid");
    let y = b.input("y", DType::F32, [3]).expect("valid");
    let z = b.input("z", DType::F32, [3]).expect("valid");
    let sum = b.add(x, z).expect("valid");
    // x and y change places; z takes a computed value.
    b.output("next_x", y);
    b.output("next_y", x);
    b.output("next_z", sum);
    let graph = b.finish().expect("valid");
    let carry = ["x", "y", "z"]
        .map(|name| Carry { input: name.into(), output: format!("next_{name}") })
        .to_vec();
    let program = Program::Scan { graph: graph.id(), steps: 5, carry };
    let bindings = vec![attached("x"), attached("y"), attached("z")];
    let outputs = ["next_x", "next_y", "next_z"].map(|name| output(name, ReduceRule::Sum)).to_vec();
    let inputs = [
        f32s("x", &[3], &[1.0, 2.0, 3.0]),
        f32s("y", &[3], &[10.0, 20.0, 30.0]),
        f32s("z", &[3], &[100.0, 200.0, 300.0]),
    ];
    let task = task_frame(1, spec(program, bindings, outputs), &inputs);
    let mut kernel = with(kernel, &graph);
    let found = result(&kernel.execute(&task).expect("a task"));
    expect_close("scan", &on_cpu(&graph, &[], &task), &found, (0.0, 0.0));
    assert_eq!(kernel.gpu().counters().submits, 1);
}

#[test]
fn strict_tasks_are_refused() {
    let Some(kernel) = gpu(BUDGET) else { return };
    let mut kernel = with(kernel, &small_graph());
    let bindings = vec![attached("x"), attached("w")];
    let mut spec =
        spec(map(small_graph().id(), 0, 1), bindings, vec![output("sum", ReduceRule::Sum)]);
    spec.numerics = Numerics::Strict;
    let refused = kernel.begin(&task_frame(1, spec, &[])).expect("a task").expect("refused");
    let (reason, detail) = refusal(&refused);
    assert_eq!(reason, RefuseReason::Invalid);
    assert!(detail.starts_with("spec.numerics"), "{detail}");
}

#[test]
fn a_lost_device_hands_the_lease_back() {
    let Some(kernel) = gpu(BUDGET) else { return };
    let mut kernel = with(kernel, &small_graph());
    kernel.begin(&small_task(5, 0, 4)).expect("a task");
    kernel.gpu().device().destroy();
    kernel.wait().expect("running");
    let answer = kernel.finish(1).expect("answered");
    match read(&answer).0 {
        // The device may have been done before it went.
        FromContributor::Commit { lease: LeaseId(5), .. } => {}
        FromContributor::Refuse { lease: LeaseId(5), reason: RefuseReason::Failed, detail } => {
            assert!(detail.starts_with("device: "), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    // From now on every lease goes back at once.
    let refused = kernel.begin(&small_task(6, 0, 4)).expect("a task").expect("refused");
    let (reason, detail) = refusal(&refused);
    assert_eq!(reason, RefuseReason::Failed);
    assert!(detail.starts_with("device: lost"), "{detail}");
    let (_, blob) = blob_frame(&[f32s("w", &[1], &[1.0])]);
    assert!(matches!(kernel.accept(&blob), Err(KernelError::Lost { .. })));
}

#[test]
fn a_device_lost_before_a_task_computes_nothing() {
    let Some(kernel) = gpu(BUDGET) else { return };
    let mut kernel = with(kernel, &small_graph());
    kernel.gpu().device().destroy();
    let answer = kernel.execute(&small_task(5, 0, 4)).expect("a task");
    let (reason, detail) = refusal(&answer);
    assert_eq!(reason, RefuseReason::Failed, "{detail}");
}

#[test]
fn an_aborted_task_leaves_the_kernel_usable() {
    let Some(kernel) = gpu(BUDGET) else { return };
    let graph = small_graph();
    let mut kernel = with(kernel, &graph);
    kernel.begin(&small_task(5, 0, 4)).expect("a task");
    let cancel = message(&ToContributor::Cancel { lease: LeaseId(5) });
    let refused = kernel.accept(&cancel).expect("a frame").expect("an answer");
    assert_eq!(refusal(&refused).0, RefuseReason::Stopping);
    let task = small_task(6, 0, 2);
    let found = result(&kernel.execute(&task).expect("a task"));
    expect_close("after", &on_cpu(&graph, &[], &task), &found, (1e-5, 1e-5));
}

#[test]
fn the_budget_is_kept_before_anything_is_uploaded() {
    let filler = |first: f32, kib: u32| {
        blob_frame(&[f32s("x", &[kib * 256], &vec![first; kib as usize * 256])])
    };
    let Some(mut kernel) = gpu(1 << 20) else { return };
    let (_, large) = filler(0.0, 2048);
    assert!(matches!(kernel.accept(&large), Err(KernelError::TooLarge { field: "blob", .. })));
    assert_eq!((kernel.held_bytes(), kernel.gpu().counters().buffers), (0, 0));
    // The least recently used blob goes first.
    let blobs: Vec<_> = (0..5).map(|i| filler(i as f32, 256)).collect();
    for (_, frame) in &blobs {
        kernel.accept(frame).expect("a blob");
        assert!(kernel.held_bytes() <= 1 << 20);
    }
    kernel.accept(&graph_frame(&small_graph())).expect("a graph");
    let held = |kernel: &Kernel, id: BlobId| {
        let binding = Binding::Blob { input: "w".into(), blob: id, tensor: "x".into() };
        let outputs = vec![output("sum", ReduceRule::Sum)];
        let spec = spec(map(small_graph().id(), 0, 1), vec![attached("x"), binding], outputs);
        kernel.missing(&task_frame(1, spec, &[])).expect("a task").is_empty()
    };
    assert!(!held(&kernel, blobs[0].0) && held(&kernel, blobs[4].0));
    // A task that cannot fit is refused before its values are made.
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::F32, [1]).expect("valid");
    let x = b.broadcast(x, &raven_graph::Shape(vec![1 << 20])).expect("valid");
    b.output("y", x);
    let graph = b.finish().expect("valid");
    kernel.accept(&graph_frame(&graph)).expect("a graph");
    let task = whole_task(3, &graph, &[f32s("x", &[1], &[1.0])]);
    let (reason, detail) = refusal(&kernel.execute(&task).expect("a task"));
    assert_eq!(reason, RefuseReason::TooLarge, "{detail}");
}

#[test]
fn graphs_that_no_binding_holds_are_unsupported() {
    let Some(mut kernel) = gpu(BUDGET) else { return };
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::F32, [1]).expect("valid");
    let x = b.broadcast(x, &raven_graph::Shape(vec![1 << 26])).expect("valid");
    b.output("y", x);
    let large = b.finish().expect("valid");
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::F32, [1, 1, 2, 2]).expect("valid");
    let w = b.input("w", DType::F32, [1, 1, 1, 1]).expect("valid");
    let attrs = Conv2dAttrs { stride: [1 << 24, 1], padding: [0; 4], dilation: [1, 1], groups: 1 };
    let y = b.conv2d(x, w, attrs).expect("valid");
    b.output("y", y);
    let wide = b.finish().expect("valid");
    for graph in [large, wide] {
        let frame = graph_frame(&graph);
        assert!(kernel.unsupported(&frame).expect("a graph").is_some());
        assert!(matches!(kernel.accept(&frame), Err(KernelError::Unsupported(_))));
    }
    assert!(kernel.unsupported(&graph_frame(&small_graph())).expect("a graph").is_none());
}

#[test]
fn bytes_that_are_no_frame_are_errors() {
    let Some(mut kernel) = gpu(BUDGET) else { return };
    for bytes in [&[][..], b"RAVN", &[0xff; 64]] {
        assert!(kernel.accept(bytes).is_err());
        assert!(kernel.begin(bytes).is_err());
        assert!(kernel.missing(bytes).is_err());
    }
    // A frame cut short, and one with a byte changed, at every place.
    let frame = graph_frame(&small_graph());
    for at in 0..frame.len() {
        let mut changed = frame.clone();
        changed[at] ^= 0x15;
        let _ = kernel.accept(&changed);
        assert!(kernel.accept(&frame[..at]).is_err());
    }
    let task = small_task(1, 0, 2);
    let header = 16..1200.min(task.len());
    kernel.accept(&frame).expect("a graph");
    for at in header {
        let mut changed = task.clone();
        changed[at] ^= 0x02;
        if let Ok(None) = kernel.begin(&changed) {
            kernel.wait().expect("running");
            let _ = kernel.finish(0).expect("answered");
        }
    }
}

#[test]
fn long_launches_are_cut() {
    let Some(kernel) = gpu(256 << 20) else { return };
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::F32, [300, 200]).expect("valid");
    let y = b.matmul(x, x, false, true).expect("valid");
    b.output("y", y);
    let graph = b.finish().expect("valid");
    let task = whole_task(1, &graph, &[spread("x", &[300, 200], -1.0, 1.0)]);
    let expected = on_cpu(&graph, &[], &task);
    let mut kernel = with(kernel, &graph);
    let mut dispatches = Vec::new();
    // A device of 10 Gflop/s does this in one go, one of 10 Mflop/s does not.
    for rate in [10_000_000_000, 10_000_000] {
        kernel.gpu_mut().set_flops_per_s(rate);
        let before = kernel.gpu().counters().dispatches;
        let found = result(&kernel.execute(&task).expect("a task"));
        expect_close("cut", &expected, &found, (1e-4, 1e-4));
        dispatches.push(kernel.gpu().counters().dispatches - before);
    }
    assert_eq!(dispatches[0], 1);
    // 24 Mflop at 2 Mflop each, as far as there are workgroups.
    assert!(dispatches[1] >= 10, "{dispatches:?}");
}

#[test]
fn a_measurement_says_how_fast_the_device_is() {
    let Some(mut kernel) = gpu(BUDGET) else { return };
    let start = std::time::Instant::now();
    let rate = raven_gpu::doors::native::measure(&mut kernel).expect("a working device");
    let spent = start.elapsed();
    println!("{}: {:.2} Gflop/s, found in {spent:?}", kernel.gpu().name(), rate as f64 / 1e9);
    assert!(rate > 1_000_000);
    assert_eq!(kernel.gpu().flops_per_s(), rate);
}

#[test]
fn ids_that_are_not_the_contents_are_refused() {
    let Some(mut kernel) = gpu(BUDGET) else { return };
    let graph = raven_protocol::GraphText::of(&small_graph());
    let wrong = message(&ToContributor::Graph { id: GraphId([7; 32]), graph });
    assert!(matches!(kernel.accept(&wrong), Err(KernelError::WrongId { kind: "graph", .. })));
    let (_, mut frame) = blob_frame(&[f32s("x", &[2], &[1.0, 2.0])]);
    *frame.last_mut().expect("not empty") ^= 1;
    assert!(matches!(kernel.accept(&frame), Err(KernelError::WrongId { kind: "blob", .. })));
    let unsupported = Unsupported::Value { node: 0, op: "input", bytes: 2, limit: 1 };
    assert_eq!(unsupported.to_string(), "graph.nodes[0] (input): 2 bytes, a binding holds 1");
}
