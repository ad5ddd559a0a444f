//! Writes the frames of training tasks for measurements, at batch 64 on random
//! images: a `Scan` of plain gradient-descent steps, and one micro-batch of a
//! round as a coordinator sends it, weights first.
//!
//! `cargo run --release -p raven-worker --example train_frames -- OUT_DIR [STEPS]`
//! writes `OUT_DIR/{mlp,cnn}.{graph,task}.frame`, the same with `.round` and its
//! weights, and `OUT_DIR/frames.json`.

use raven_graph::model::{LoweredModel, ModelSpec, lower};
use raven_graph::philox::{key, philox4x32, unit_f32};
use raven_graph::{BinaryFn, DType, GraphBuilder, InputSpec, Limits, TensorType, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, Carry, Encoding, GraphText, JobId, LeaseId, Numerics, OutputSpec, Program, ReduceRule,
    Seed, TaskId, TaskMessage, TaskSpec, TensorPart, TensorView, ToContributor, blob_id,
};
use std::error::Error;
use std::path::Path;

const BATCH: u32 = 64;
const MODELS: [(&str, &str, &str); 2] = [
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

fn train_graph(data: &str, model: &str) -> Result<LoweredModel, Box<dyn Error>> {
    let model: ModelSpec = serde_json::from_str(model)?;
    Ok(lower(&model, &serde_json::from_str(data)?, BATCH, &Limits::default())?)
}

/// The gradient graph with `p - lr / batch * gradient` added for every parameter.
fn step_graph(data: &str, model: &str) -> Result<(ValidGraph, Vec<String>), Box<dyn Error>> {
    let limits = Limits::default();
    let lowered = train_graph(data, model)?;
    let gradients: Vec<_> = lowered.train.outputs().to_vec();
    let mut b = GraphBuilder::resume(lowered.train, &limits);
    let mut names = Vec::new();
    for param in &lowered.params {
        let gradient =
            gradients.iter().find(|output| output.name == format!("grad.{}", param.name));
        let gradient = gradient.ok_or("every parameter has a gradient")?.node;
        let at = b.nodes().iter().position(
            |node| matches!(&node.op, raven_graph::Op::Input { name, .. } if *name == param.name),
        );
        let node = raven_graph::NodeId(at.ok_or("every parameter is an input")? as u32);
        let step = b.scale(gradient, 0.05 / BATCH as f32)?;
        let next = b.binary(BinaryFn::Sub, node, step)?;
        b.output(format!("next.{}", param.name), next);
        names.push(param.name.clone());
    }
    // Only what the scan returns or carries stays: the rest would be paid for.
    let mut graph = b.finish()?.into_graph();
    graph.outputs.retain(|output| output.name == "loss" || output.name.starts_with("next."));
    Ok((graph.validate(&limits)?, names))
}

/// Small random numbers for weights and images, classes for labels.
fn contents(name: &str, ty: &TensorType, stream: u32) -> Vec<u8> {
    let count = ty.shape.elements().unwrap_or(0) as u32;
    let word = |i: u32| philox4x32([i, stream, 0, 0], key(7))[0];
    let fan_in = ty.shape.elements().unwrap_or(1) as f32 / ty.shape.dims()[0] as f32;
    match (ty.dtype, name) {
        (DType::I32, _) => (0..count).flat_map(|i| ((word(i) % 10) as i32).to_le_bytes()).collect(),
        (_, "w") => (0..count).flat_map(|_| 1f32.to_le_bytes()).collect(),
        (DType::U8, _) => (0..count).map(|i| word(i) as u8).collect(),
        _ => (0..count)
            .flat_map(|i| ((unit_f32(word(i)) - 0.5) * 2.0 / fan_in.max(25.0).sqrt()).to_le_bytes())
            .collect(),
    }
}

/// Tensors of one frame, by name.
type Tensors = Vec<(String, TensorType, Vec<u8>)>;

fn parts(tensors: &Tensors) -> Vec<TensorPart<'_>> {
    tensors
        .iter()
        .map(|(name, ty, data)| TensorPart { name: name.clone(), ty: ty.clone(), data })
        .collect()
}

fn inputs(graph: &ValidGraph) -> Tensors {
    let input = |(i, input): (usize, &InputSpec)| {
        (input.name.clone(), input.ty.clone(), contents(&input.name, &input.ty, i as u32))
    };
    graph.inputs().iter().enumerate().map(input).collect()
}

fn task_frame(spec: TaskSpec, flops: u64, attached: &Tensors) -> Vec<u8> {
    let message = TaskMessage {
        lease: LeaseId(1),
        task: TaskId { job: JobId(1), round: 0, stage: 0, part: 0 },
        lease_ms: 60_000,
        flops,
        spec,
    };
    encode(&ToContributor::Task(Box::new(message)), &parts(attached))
}

fn output(name: String) -> OutputSpec {
    OutputSpec { name, encoding: Encoding::Raw, reduce: ReduceRule::Sum }
}

fn attached(name: &str) -> Binding {
    Binding::Attached { input: name.to_owned(), tensor: name.to_owned() }
}

/// Steps of gradient descent within one task.
fn scan(graph: &ValidGraph, params: &[String], steps: u32) -> Vec<u8> {
    let tensors = inputs(graph);
    let next = |param: &String| format!("next.{param}");
    let carry = params.iter().map(|param| Carry { input: param.clone(), output: next(param) });
    let mut outputs = vec![output("loss".into())];
    outputs.extend(params.iter().map(next).map(output));
    let spec = TaskSpec {
        program: Program::Scan { graph: graph.id(), steps, carry: carry.collect() },
        seed: Seed(1),
        bindings: tensors.iter().map(|(name, ..)| attached(name)).collect(),
        shards: Vec::new(),
        outputs,
        numerics: Numerics::Strict,
    };
    task_frame(spec, graph.cost().flops * u64::from(steps), &tensors)
}

/// One micro-batch of a round: the frame of its weights and of its task.
fn round(graph: &ValidGraph, params: &[String]) -> (Vec<u8>, Vec<u8>) {
    let (weights, data): (Tensors, Tensors) =
        inputs(graph).into_iter().partition(|(name, ..)| params.contains(name));
    let blob_parts = parts(&weights);
    let views = blob_parts.iter().map(|part| TensorView {
        name: &part.name,
        dtype: part.ty.dtype,
        shape: &part.ty.shape,
        data: part.data,
    });
    let blob = blob_id(views);
    let from_blob = |(name, ..): &(String, TensorType, Vec<u8>)| Binding::Blob {
        input: name.clone(),
        blob,
        tensor: name.clone(),
    };
    let bindings =
        weights.iter().map(from_blob).chain(data.iter().map(|(name, ..)| attached(name)));
    let spec = TaskSpec {
        program: Program::Map { graph: graph.id(), start: 0, count: 1 },
        seed: Seed(1),
        bindings: bindings.collect(),
        shards: Vec::new(),
        outputs: graph.outputs().iter().map(|out| output(out.name.clone())).collect(),
        numerics: Numerics::Strict,
    };
    let weights = encode(&ToContributor::Blob { id: blob }, &blob_parts);
    (weights, task_frame(spec, graph.cost().flops, &data))
}

fn graph_frame(graph: &ValidGraph) -> Vec<u8> {
    encode(&ToContributor::Graph { id: graph.id(), graph: GraphText::of(graph) }, &[])
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let out = Path::new(arguments.first().ok_or("usage: train_frames OUT_DIR [STEPS]")?);
    let steps: u32 = arguments.get(1).map_or(Ok(20), |text| text.parse())?;
    std::fs::create_dir_all(out)?;
    let mut index = serde_json::Map::new();
    for (name, data, model) in MODELS {
        let write = |part: &str, bytes: Vec<u8>| -> std::io::Result<String> {
            let file = format!("{name}.{part}.frame");
            std::fs::write(out.join(&file), bytes)?;
            Ok(file)
        };
        let (graph, params) = step_graph(data, model)?;
        let train = train_graph(data, model)?.train;
        let (weights, round) = round(&train, &params);
        let entry = serde_json::json!({
            "graph": write("graph", graph_frame(&graph))?,
            "task": write("task", scan(&graph, &params, steps))?,
            "steps": steps,
            "batch": BATCH,
            "flops": graph.cost().flops * u64::from(steps),
            "nodes": graph.graph().nodes.len(),
            "round": {
                "graph": write("round.graph", graph_frame(&train))?,
                "weights": write("round.weights", weights)?,
                "task": write("round.task", round)?,
                "flops": train.cost().flops,
            },
        });
        index.insert(name.into(), entry);
    }
    std::fs::write(out.join("frames.json"), serde_json::Value::Object(index).to_string())?;
    Ok(())
}
