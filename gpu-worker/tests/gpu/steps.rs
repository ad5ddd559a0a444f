//! Whole training steps against the CPU kernels.

use crate::common::*;
use raven_graph::model::{ModelSpec, lower};
use raven_graph::{BinaryFn, DType, GraphBuilder, Limits, NodeId, Op, TensorType, ValidGraph};
use raven_protocol::{Carry, Program, ReduceRule};

const BUDGET: u64 = 512 << 20;

/// Name, data and model, as the API takes them.
pub const MODELS: [(&str, &str, &str); 2] = [
    (
        "mlp",
        r#"{"features": {"dtype": "u8", "shape": [784]}, "scale": 0.003921569, "target": {"kind": "classes", "count": 10}}"#,
        r#"{"loss": "cross_entropy", "layers": [
            {"type": "dense", "units": 256, "activation": "relu"},
            {"type": "dense", "units": 128, "activation": "relu"},
            {"type": "dense", "units": 10}]}"#,
    ),
    (
        "cnn",
        r#"{"features": {"dtype": "u8", "shape": [1, 28, 28]}, "scale": 0.003921569, "target": {"kind": "classes", "count": 10}}"#,
        r#"{"loss": "cross_entropy", "layers": [
            {"type": "conv2d", "filters": 16, "kernel": 5, "padding": "same", "activation": "relu"},
            {"type": "max_pool2d", "size": 2},
            {"type": "conv2d", "filters": 32, "kernel": 5, "padding": "same", "activation": "relu"},
            {"type": "max_pool2d", "size": 2},
            {"type": "flatten"},
            {"type": "dense", "units": 128, "activation": "relu"},
            {"type": "dense", "units": 10}]}"#,
    ),
];

/// Forward, backward and a plain gradient-descent update, with the parameters' names.
pub fn step_graph(data: &str, model: &str, batch: u32) -> (ValidGraph, Vec<String>) {
    let limits = Limits::default();
    let model: ModelSpec = serde_json::from_str(model).expect("a model");
    let data = serde_json::from_str(data).expect("data");
    let lowered = lower(&model, &data, batch, &limits).expect("a graph");
    let gradients: Vec<_> = lowered.train.outputs().to_vec();
    let mut b = GraphBuilder::resume(lowered.train, &limits);
    let mut names = Vec::new();
    for param in &lowered.params {
        let name = format!("grad.{}", param.name);
        let gradient =
            gradients.iter().find(|output| output.name == name).expect("a gradient").node;
        let is_param = |op: &Op| matches!(op, Op::Input { name, .. } if *name == param.name);
        let at = b.nodes().iter().position(|node| is_param(&node.op)).expect("an input");
        let step = b.scale(gradient, 0.05 / batch as f32).expect("valid");
        let next = b.binary(BinaryFn::Sub, NodeId(at as u32), step).expect("valid");
        b.output(format!("next.{}", param.name), next);
        names.push(param.name.clone());
    }
    (b.finish().expect("a graph"), names)
}

/// Small random numbers for weights and images, classes for labels.
fn contents(name: &str, ty: &TensorType) -> Named {
    let dims = ty.shape.dims();
    let count: u32 = dims.iter().product();
    let salt = name.len() as u32 * 7919;
    match (ty.dtype, name) {
        (DType::I32, _) => i32s(
            name,
            dims,
            &(0..count).map(|i| (noise(i + salt) * 10.0) as i32).collect::<Vec<_>>(),
        ),
        (DType::U8, _) => u8s(
            name,
            dims,
            &(0..count).map(|i| (noise(i + salt) * 256.0) as u8).collect::<Vec<_>>(),
        ),
        (_, "w") => f32s(name, dims, &vec![1.0; count as usize]),
        _ => {
            let fan_in = (count as f32 / dims[0] as f32).max(25.0);
            let limit = 1.0 / fan_in.sqrt();
            spread(name, dims, -limit, limit)
        }
    }
}

#[test]
fn a_training_step_agrees_with_the_cpu() {
    let Some(mut gpu) = gpu(BUDGET) else { return };
    for (name, data, model) in MODELS {
        let (graph, _) = step_graph(data, model, 4);
        let inputs: Vec<Named> =
            graph.inputs().iter().map(|input| contents(&input.name, &input.ty)).collect();
        let mut cpu = cpu(BUDGET);
        let frame = graph_frame(&graph);
        cpu.accept(&frame).expect("the CPU takes the graph");
        gpu.accept(&frame).expect("the GPU takes the graph");
        let task = whole_task(1, &graph, &inputs);
        let expected = result(&cpu.execute(&task).expect("a task"));
        let before = gpu.gpu().counters();
        let found = result(&gpu.execute(&task).expect("a task"));
        let after = gpu.gpu().counters();
        expect_close(name, &expected, &found, (2e-4, 1e-3));
        assert_eq!(after.submits - before.submits, 1, "{name}: one submission");
        assert_eq!(after.readbacks - before.readbacks, 1, "{name}: one readback");
        println!("{name}: {} dispatches", after.dispatches - before.dispatches);
        // The second time nothing is compiled or allocated.
        let again = result(&gpu.execute(&task).expect("a task"));
        assert_eq!(found, again, "{name}: the same bits on one device");
        let last = gpu.gpu().counters();
        assert_eq!(last.pipelines, after.pipelines, "{name}: pipelines are cached");
        assert_eq!(last.buffers, after.buffers, "{name}: buffers are pooled");
    }
}

#[test]
fn several_steps_in_one_scan_agree_with_the_cpu() {
    let Some(mut gpu) = gpu(BUDGET) else { return };
    let (_, data, model) = MODELS[0];
    let (graph, params) = step_graph(data, model, 4);
    let inputs: Vec<Named> =
        graph.inputs().iter().map(|input| contents(&input.name, &input.ty)).collect();
    let carry = params
        .iter()
        .map(|param| Carry { input: param.clone(), output: format!("next.{param}") })
        .collect();
    let program = Program::Scan { graph: graph.id(), steps: 3, carry };
    let bindings = graph.inputs().iter().map(|input| attached(&input.name)).collect();
    let outputs = graph.outputs().iter().map(|o| output(&o.name, ReduceRule::Sum)).collect();
    let task = task_frame(1, spec(program, bindings, outputs), &inputs);
    let mut cpu = cpu(BUDGET);
    cpu.accept(&graph_frame(&graph)).expect("a graph");
    gpu.accept(&graph_frame(&graph)).expect("a graph");
    let expected = result(&cpu.execute(&task).expect("a task"));
    let found = result(&gpu.execute(&task).expect("a task"));
    expect_close("scan", &expected, &found, (5e-4, 2e-3));
    assert_eq!(gpu.gpu().counters().submits, 1);
}
