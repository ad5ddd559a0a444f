//! The kernel's frames: what it takes, keeps, refuses and answers.

use crate::common::*;
use raven_graph::{Conv2dAttrs, DType, GraphBuilder, GraphError, GraphId, Limits};
use raven_protocol::{
    Backend, Binding, BlobId, Carry, FrameError, FromContributor, GraphText, LeaseId, Program,
    ReduceRule, RefuseReason, Seed, ShardRef, ToContributor,
};
use raven_worker::{Kernel, KernelError};

#[test]
fn a_task_commits_and_reveals_its_payload_once() {
    let mut kernel = kernel_with(&small_graph());
    assert!(kernel.begin(&small_task(9, 0, 2)).expect("a task").is_none());
    while !kernel.step(1).expect("running") {}
    let (commit, tensors) = read(&kernel.finish(77).expect("finished"));
    assert!(tensors.is_empty());
    let FromContributor::Commit {
        lease: LeaseId(9),
        digest,
        elapsed_ms: 77,
        backend: Backend::Cpu,
    } = commit
    else {
        panic!("{commit:?}")
    };
    let reveal = message(&ToContributor::Reveal { lease: LeaseId(9) });
    let payload = kernel.accept(&reveal).expect("a frame").expect("an answer");
    let (result, tensors) = read(&payload);
    assert_eq!(result, FromContributor::Result { lease: LeaseId(9) });
    assert_eq!(tensors[0].1.shape.dims(), [2]);
    assert_eq!(tensors[1].1.shape.dims(), [8, 2]);
    // The commitment is to these bytes.
    let views = tensors.iter().map(|(name, ty, data)| {
        let view = raven_protocol::TensorView { name, dtype: ty.dtype, shape: &ty.shape, data };
        (raven_protocol::Encoding::Raw, view)
    });
    let task =
        raven_protocol::TaskId { job: raven_protocol::JobId(1), round: 0, stage: 0, part: 0 };
    assert_eq!(raven_protocol::result_digest(task, views), digest);
    let again = kernel.accept(&reveal).expect("a frame").expect("an answer");
    assert_eq!(refusal(&again).0, RefuseReason::Missing);
}

#[test]
fn projections_of_a_kept_result_are_those_of_the_definition_and_leave_it() {
    let mut kernel = kernel_with(&small_graph());
    let lease = LeaseId(9);
    let (key, probes) = (Seed(0x0123_4567_89ab_cdef), 5);
    let project = message(&ToContributor::Project { lease, key, probes });
    let before = kernel.accept(&project).expect("a frame").expect("an answer");
    assert_eq!(refusal(&before).0, RefuseReason::Missing);
    kernel.begin(&small_task(9, 0, 2)).expect("a task");
    kernel.step(u64::MAX).expect("running");
    kernel.finish(1).expect("finished");
    let first = kernel.accept(&project).expect("a frame").expect("an answer");
    assert_eq!(kernel.accept(&project).expect("a frame"), Some(first.clone()));
    let reveal = message(&ToContributor::Reveal { lease });
    let (_, outputs) = read(&kernel.accept(&reveal).expect("a frame").expect("an answer"));
    let (answer, projections) = read(&first);
    assert_eq!(answer, FromContributor::Projected { lease });
    assert_eq!(projections.len(), outputs.len());
    for (number, ((name, ty, data), (output, _, payload))) in
        (0..).zip(projections.iter().zip(&outputs))
    {
        assert_eq!((name, ty.dtype, ty.shape.dims()), (output, DType::U8, &[probes, 8][..]));
        let defined = raven_proof::project(key.0, number, probes, &floats(payload));
        assert_eq!(raven_proof::projection::from_bytes(data), Ok(defined));
    }
    let after = kernel.accept(&project).expect("a frame").expect("an answer");
    assert_eq!(refusal(&after).0, RefuseReason::Missing);
}

#[test]
fn parts_of_a_batch_combine_to_the_whole_whatever_the_cut() {
    let mut kernel = kernel_with(&small_graph());
    let mut run = |start, count| {
        let (_, tensors) = read(&kernel.execute(&small_task(1, start, count)).expect("a task"));
        (floats(&tensors[0].2), tensors[1].2.clone())
    };
    let add = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f32>>();
    let (whole, rows) = run(0, 13);
    // 13 = 8 + (4 + 1), the tree of the protocol.
    let [eight, four, one] = [run(0, 8), run(8, 4), run(12, 1)];
    assert_eq!(add(&eight.0, &add(&four.0, &one.0)), whole);
    assert_eq!([eight.1, four.1, one.1].concat(), rows);
    let quarters: Vec<_> = [0, 2, 4, 6].map(|start| run(start, 2).0).to_vec();
    let halves = [add(&quarters[0], &quarters[1]), add(&quarters[2], &quarters[3])];
    assert_eq!(add(&halves[0], &halves[1]), eight.0);
}

#[test]
fn steps_count_operations_up_to_the_total() {
    let mut kernel = kernel_with(&small_graph());
    kernel.begin(&small_task(1, 0, 4)).expect("a task");
    let total = kernel.running().expect("running").flops_total();
    let mut before = 0;
    let mut calls = 0;
    while !kernel.step(1).expect("running") {
        let done = kernel.running().expect("running").flops_done();
        assert!(done > before && done < total);
        before = done;
        calls += 1;
    }
    assert_eq!(kernel.running().expect("running").flops_done(), total);
    // Three nodes a run, of which the first two are one step: the last one ends the task.
    assert_eq!(calls, 4 * 2 - 1);
}

#[test]
fn calls_out_of_turn_are_errors_and_change_nothing() {
    let mut kernel = kernel_with(&small_graph());
    assert!(matches!(kernel.step(1), Err(KernelError::Idle)));
    assert!(matches!(kernel.finish(0), Err(KernelError::Idle)));
    assert!(kernel.abort().is_none());
    kernel.begin(&small_task(5, 0, 2)).expect("a task");
    assert!(matches!(
        kernel.begin(&small_task(6, 0, 2)),
        Err(KernelError::Busy { running: LeaseId(5) })
    ));
    assert!(matches!(kernel.finish(0), Err(KernelError::Unfinished { running: LeaseId(5) })));
    assert!(kernel.step(u64::MAX).expect("running"));
    kernel.finish(0).expect("finished");
}

#[test]
fn cancelling_stops_the_task_and_drops_its_payload() {
    let mut kernel = kernel_with(&small_graph());
    let cancel = message(&ToContributor::Cancel { lease: LeaseId(5) });
    assert!(kernel.accept(&cancel).expect("a frame").is_none());
    kernel.begin(&small_task(5, 0, 2)).expect("a task");
    let refused = kernel.accept(&cancel).expect("a frame").expect("an answer");
    assert_eq!(refusal(&refused).0, RefuseReason::Stopping);
    kernel.execute(&small_task(5, 0, 2)).expect("idle again");
    kernel.begin(&small_task(5, 0, 2)).expect("a task");
    kernel.step(u64::MAX).expect("running");
    kernel.finish(0).expect("finished");
    assert!(kernel.accept(&cancel).expect("a frame").is_none());
    let reveal = message(&ToContributor::Reveal { lease: LeaseId(5) });
    let answer = kernel.accept(&reveal).expect("a frame").expect("an answer");
    assert_eq!(refusal(&answer).0, RefuseReason::Missing);
}

#[test]
fn content_that_is_not_what_its_id_says_is_refused() {
    let mut kernel = Kernel::new(1 << 20);
    let graph = GraphText::unchecked(&small_graph());
    let wrong = ToContributor::Graph { id: GraphId([7; 32]), graph };
    assert!(matches!(
        kernel.accept(&message(&wrong)),
        Err(KernelError::WrongId { kind: "graph", .. })
    ));
    let (_, mut frame) = blob_frame(&[f32s("x", &[2], &[1.0, 2.0])]);
    *frame.last_mut().expect("not empty") ^= 1;
    assert!(matches!(kernel.accept(&frame), Err(KernelError::WrongId { kind: "blob", .. })));
    assert_eq!(kernel.held_bytes(), 0);
}

/// A `graph` frame around any text.
fn graph_text_frame(graph: &str) -> Vec<u8> {
    let header = format!(r#"{{"type":"graph","id":"{}","graph":{graph}}}"#, GraphId([0; 32]));
    header_frame(&header)
}

fn graph_refusal(graph: &str) -> GraphError {
    let mut kernel = Kernel::new(8 << 20);
    match kernel.accept(&graph_text_frame(graph)) {
        Err(KernelError::Graph(error)) => error,
        other => panic!("expected a refused graph, found {other:?}"),
    }
}

#[test]
fn graphs_beyond_the_limits_are_refused_before_they_are_built() {
    let document = |nodes: &str| {
        format!(r#"{{"version":1,"nodes":[{nodes}],"outputs":[{{"name":"y","node":0}}]}}"#)
    };
    let input = |shape: &str| {
        document(&format!(r#"{{"op":"input","name":"x","dtype":"f32","shape":{shape}}}"#))
    };
    // The count ends with the first node too many: what follows was not read.
    let many = document(&vec![r#"{"op":0}"#; 900_000].join(","));
    assert_eq!(graph_refusal(&many), GraphError::Nodes { limit: 16_384, found: 16_385 });
    // A million nodes that could be nodes do not even fit a header.
    let million = document(&vec![r#"{"op":"select"}"#; 1_000_000].join(","));
    assert!(matches!(
        Kernel::new(8 << 20).accept(&graph_text_frame(&million)),
        Err(KernelError::Frame(FrameError::HeaderTooLarge { limit: 8_388_608, .. }))
    ));
    let deep = input(&format!("{:?}", [1u32; 40]));
    assert_eq!(graph_refusal(&deep), GraphError::Rank { node: 0, limit: 8, found: 9 });
    assert_eq!(
        graph_refusal(&input("[1000000,1000000]")),
        GraphError::Elements { node: 0, limit: 1 << 28, found: 1_000_000_000_000 }
    );
}

#[test]
fn what_a_task_lacks_is_named() {
    let mut kernel = Kernel::new(8 << 20);
    let refused = kernel.begin(&small_task(1, 0, 1)).expect("a task").expect("refused");
    let (reason, detail) = refusal(&refused);
    assert_eq!(reason, RefuseReason::Missing);
    assert!(detail.starts_with("spec.program.graph"), "{detail}");

    let (blob, frame) = blob_frame(&[f32s("w", &[3, 2], &[0.5; 6])]);
    let graph = GraphId::of(&small_graph());
    let bindings =
        vec![attached("x"), Binding::Blob { input: "w".into(), blob, tensor: "w".into() }];
    let spec = spec(
        Program::Map { graph, start: 0, count: 1 },
        bindings,
        vec![output("sum", ReduceRule::Sum)],
    );
    let task = task_frame(2, spec, &[f32s("x", &[4, 3], &[1.0; 12])]);
    kernel.accept(&graph_frame(&small_graph())).expect("a graph");
    assert_eq!(kernel.missing(&task).expect("a task"), [blob]);
    let refused = kernel.begin(&task).expect("a task").expect("refused");
    assert_eq!(refusal(&refused).0, RefuseReason::Missing);
    kernel.accept(&frame).expect("a blob");
    assert!(kernel.missing(&task).expect("a task").is_empty());
    let (_, tensors) = read(&kernel.execute(&task).expect("a task"));
    assert_eq!(floats(&tensors[0].2), [6.0, 6.0]);
    kernel
        .accept(&message(&ToContributor::Drop { blobs: vec![blob], graphs: vec![graph] }))
        .expect("a frame");
    assert_eq!(kernel.held_bytes(), 0);
    assert_eq!(kernel.missing(&task).expect("a task"), [blob]);
}

#[test]
fn tasks_that_do_not_fit_their_graph_are_refused_with_the_field() {
    let graph = small_graph();
    let id = GraphId::of(&graph);
    let map = Program::Map { graph: id, start: 0, count: 1 };
    let sum = || vec![output("sum", ReduceRule::Sum)];
    let both = || vec![attached("x"), attached("w")];
    let good = [f32s("x", &[4, 3], &[1.0; 12]), f32s("w", &[3, 2], &[1.0; 6])];
    let cases = [
        (spec(map.clone(), vec![attached("x")], sum()), "spec.bindings: input \"w\" is not bound"),
        (spec(map.clone(), [both(), vec![attached("z")]].concat(), sum()), "spec.bindings.input"),
        (spec(map.clone(), both(), vec![output("none", ReduceRule::Sum)]), "spec.outputs.name"),
        (
            spec(
                map.clone(),
                vec![attached("x"), Binding::PerRun { input: "w".into(), tensor: "w".into() }],
                sum(),
            ),
            "task.tensors: \"w\" is f32[3, 2], expected f32[1, 3, 2]",
        ),
        (
            spec(
                map.clone(),
                vec![attached("x"), Binding::Attached { input: "w".into(), tensor: "v".into() }],
                sum(),
            ),
            "task.tensors: there is no \"v\"",
        ),
        (
            spec(
                Program::Scan {
                    graph: id,
                    steps: 2,
                    carry: vec![Carry { input: "w".into(), output: "sum".into() }],
                },
                both(),
                sum(),
            ),
            "spec.program.carry.output",
        ),
        (
            spec(
                map,
                vec![
                    attached("w"),
                    Binding::Rows { input: "x".into(), column: "x".into(), rows: "w".into() },
                ],
                sum(),
            ),
            "task.tensors: \"w\" is f32[3, 2], expected i32[1, 4]",
        ),
    ];
    let mut kernel = kernel_with(&graph);
    for (spec, expected) in cases {
        let refused = kernel.begin(&task_frame(1, spec, &good)).expect("a task").expect("refused");
        let (reason, detail) = refusal(&refused);
        assert_eq!(reason, RefuseReason::Invalid, "{detail}");
        assert!(detail.starts_with(expected), "{detail:?} does not start with {expected:?}");
    }
}

#[test]
fn rows_outside_of_the_shards_are_refused() {
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::I32, [2]).expect("valid");
    b.output("x", x);
    let graph = b.finish().expect("valid").into_graph();
    let mut kernel = kernel_with(&graph);
    let (blob, frame) = blob_frame(&[i32s("c", &[3], &[5, 6, 7])]);
    kernel.accept(&frame).expect("a blob");
    let mut run = |first_row, rows, numbers: [i32; 2]| {
        let mut spec = spec(
            Program::Map { graph: GraphId::of(&graph), start: 0, count: 1 },
            vec![Binding::Rows { input: "x".into(), column: "c".into(), rows: "rows".into() }],
            vec![output("x", ReduceRule::Concat)],
        );
        spec.shards = vec![ShardRef { blob, first_row, rows, bytes: 0 }];
        let task = task_frame(1, spec, &[i32s("rows", &[1, 2], &numbers)]);
        kernel.execute(&task).expect("a task")
    };
    let (_, tensors) = read(&run(10, 3, [12, -1]));
    assert_eq!(tensors[0].2, [7, 0, 0, 0, 0, 0, 0, 0]);
    for numbers in [[9, 10], [10, 13], [i32::MAX, 10]] {
        let (reason, detail) = refusal(&run(10, 3, numbers));
        assert_eq!(reason, RefuseReason::Invalid);
        assert!(detail.contains("is in none of the task's shards"), "{detail}");
    }
    // A shard of another length than its reference says.
    assert_eq!(refusal(&run(10, 4, [10, 11])).0, RefuseReason::Invalid);
}

#[test]
fn only_numbers_are_summed_but_one_value_is_its_own_sum() {
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::I32, [2]).expect("valid");
    b.output("x", x);
    let graph = b.finish().expect("valid").into_graph();
    let mut kernel = kernel_with(&graph);
    let mut run = |count| {
        let spec = spec(
            Program::Map { graph: GraphId::of(&graph), start: 0, count },
            vec![attached("x")],
            vec![output("x", ReduceRule::Sum)],
        );
        kernel.execute(&task_frame(1, spec, &[i32s("x", &[2], &[3, -4])])).expect("a task")
    };
    assert_eq!(read(&run(1)).1[0].2, i32s("x", &[2], &[3, -4]).2);
    let (reason, detail) = refusal(&run(2));
    assert_eq!(reason, RefuseReason::Invalid);
    assert_eq!(detail, "spec.outputs.reduce: \"x\" is i32[2], expected f32");
}

#[test]
fn the_budget_is_kept_before_anything_is_computed() {
    // Two squares of 4 MB each, of which the graph needs three at once.
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.constant(DType::F32, [1024, 1024], 1.0).expect("valid");
    let y = b.matmul(x, x, false, false).expect("valid");
    let z = b.add(x, y).expect("valid");
    let sum = b.sum_all(z).expect("valid");
    b.output("sum", sum);
    let graph = b.finish().expect("valid").into_graph();
    let spec = spec(
        Program::Map { graph: GraphId::of(&graph), start: 0, count: 1 },
        Vec::new(),
        vec![output("sum", ReduceRule::Sum)],
    );
    let task = task_frame(1, spec, &[]);
    let mut kernel = Kernel::new(10 << 20);
    kernel.accept(&graph_frame(&graph)).expect("a graph");
    let (reason, detail) = refusal(&kernel.begin(&task).expect("a task").expect("refused"));
    assert_eq!(reason, RefuseReason::TooLarge);
    assert!(detail.contains("budget of 10485760"), "{detail}");
    let mut kernel = Kernel::new(32 << 20);
    kernel.accept(&graph_frame(&graph)).expect("a graph");
    let (_, tensors) = read(&kernel.execute(&task).expect("a task"));
    assert_eq!(floats(&tensors[0].2), [1025.0 * 1024.0 * 1024.0]);
}

/// A blob of `kib` KiB that differs from others by its first element.
fn filler(first: f32, kib: u32) -> (BlobId, Vec<u8>) {
    let mut values = vec![0f32; 256 * kib as usize];
    values[0] = first;
    blob_frame(&[f32s("x", &[256 * kib], &values)])
}

#[test]
fn the_least_recently_used_entry_goes_first() {
    let mut kernel = Kernel::new(100 << 10);
    let blobs: Vec<_> = (0..4).map(|i| filler(i as f32, 30)).collect();
    for (_, frame) in &blobs[..3] {
        kernel.accept(frame).expect("a blob");
    }
    // Sent again, the first is the last used; the second must go.
    kernel.accept(&blobs[0].1).expect("a blob");
    kernel.accept(&blobs[3].1).expect("a blob");
    // Blobs stay in their frames.
    let held = 3 * blobs[0].1.len() as u64;
    assert_eq!(kernel.held_bytes(), held);
    let graph = GraphId::of(&small_graph());
    let bindings = blobs
        .iter()
        .zip(["a", "b", "c", "d"])
        .map(|((blob, _), input)| Binding::Blob {
            input: input.into(),
            blob: *blob,
            tensor: "x".into(),
        })
        .collect();
    let spec = spec(
        Program::Map { graph, start: 0, count: 1 },
        bindings,
        vec![output("sum", ReduceRule::Sum)],
    );
    assert_eq!(kernel.missing(&task_frame(1, spec, &[])).expect("a task"), [blobs[1].0]);
    let (_, huge) = filler(9.0, 101);
    let KernelError::TooLarge { field: "blob", needed, .. } =
        kernel.accept(&huge).expect_err("it is too large")
    else {
        panic!("another error")
    };
    assert_eq!(needed, huge.len() as u64);
    assert_eq!(kernel.held_bytes(), held, "nothing is forgotten for what cannot fit");
}

#[test]
fn messages_of_another_kind_are_named() {
    let mut kernel = Kernel::new(1 << 20);
    let ready = message(&ToContributor::Ready { grant: "g".into() });
    let error = kernel.accept(&ready).expect_err("not for the kernel").to_string();
    assert_eq!(
        error,
        "type: ready is not accepted here, graph, blob, drop, cancel, project or reveal is"
    );
    let error = kernel.begin(&ready).expect_err("not a task").to_string();
    assert_eq!(error, "type: ready is not accepted here, task is");
}

#[test]
fn a_convolution_beyond_the_address_space_is_too_large_not_a_panic() {
    let mut b = GraphBuilder::new(&Limits::default());
    let attrs = Conv2dAttrs { stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 };
    // A patch of 2^13 elements at 2^21 positions of one row: 64 GiB unrolled.
    let x = b.constant(DType::F32, [1, 1 << 12, 1, 1 << 12], 1.0).expect("valid");
    let weight = b.constant(DType::F32, [1, 1 << 12, 1, 2], 1.0).expect("valid");
    let wide = Conv2dAttrs { stride: [1, 2], padding: [0, 0, 0, 1 << 22], ..attrs };
    let y = b.conv2d(x, weight, wide).expect("valid");
    let sum = b.sum_all(y).expect("valid");
    b.output("sum", sum);
    let graph = b.finish().expect("valid").into_graph();
    let mut kernel = kernel_with(&graph);
    let spec = spec(
        Program::Map { graph: GraphId::of(&graph), start: 0, count: 1 },
        Vec::new(),
        vec![output("sum", ReduceRule::Sum)],
    );
    let refused = kernel.begin(&task_frame(1, spec, &[])).expect("a task").expect("refused");
    assert_eq!(refusal(&refused).0, RefuseReason::TooLarge);
}
