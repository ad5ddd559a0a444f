//! Writes the frames of a training task for measurements: a `Scan` of plain
//! gradient-descent steps at batch 64 on random images.
//!
//! `cargo run --release -p raven-worker --example train_frames -- OUT_DIR [STEPS]`
//! writes `OUT_DIR/{mlp,cnn}.{graph,task}.frame` and `OUT_DIR/frames.json`.

use raven_graph::model::{ModelSpec, lower};
use raven_graph::philox::{key, philox4x32, unit_f32};
use raven_graph::{BinaryFn, DType, GraphBuilder, Limits, TensorType, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, Carry, Encoding, GraphText, JobId, LeaseId, Numerics, OutputSpec, Program, ReduceRule,
    Seed, TaskId, TaskMessage, TaskSpec, TensorPart, ToContributor,
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

/// The gradient graph with `p - lr / batch * gradient` added for every parameter.
fn step_graph(data: &str, model: &str) -> Result<(ValidGraph, Vec<String>), Box<dyn Error>> {
    let limits = Limits::default();
    let model: ModelSpec = serde_json::from_str(model)?;
    let lowered = lower(&model, &serde_json::from_str(data)?, BATCH, &limits)?;
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

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let out = Path::new(arguments.first().ok_or("usage: train_frames OUT_DIR [STEPS]")?);
    let steps: u32 = arguments.get(1).map_or(Ok(20), |text| text.parse())?;
    std::fs::create_dir_all(out)?;
    let mut index = serde_json::Map::new();
    for (name, data, model) in MODELS {
        let (graph, params) = step_graph(data, model)?;
        let id = graph.id();
        let tensors: Vec<(String, TensorType, Vec<u8>)> = graph
            .inputs()
            .iter()
            .enumerate()
            .map(|(i, input)| {
                let bytes = contents(&input.name, &input.ty, i as u32);
                (input.name.clone(), input.ty.clone(), bytes)
            })
            .collect();
        let attached =
            |name: &String| Binding::Attached { input: name.clone(), tensor: name.clone() };
        let output =
            |name: String| OutputSpec { name, encoding: Encoding::Raw, reduce: ReduceRule::Sum };
        let carry = params
            .iter()
            .map(|param| Carry { input: param.clone(), output: format!("next.{param}") });
        let mut outputs = vec![output("loss".into())];
        outputs.extend(params.iter().map(|param| output(format!("next.{param}"))));
        let spec = TaskSpec {
            program: Program::Scan { graph: id, steps, carry: carry.collect() },
            seed: Seed(1),
            bindings: tensors.iter().map(|(name, ..)| attached(name)).collect(),
            shards: Vec::new(),
            outputs,
            numerics: Numerics::Strict,
        };
        let flops = graph.cost().flops * u64::from(steps);
        let task = ToContributor::Task(Box::new(TaskMessage {
            lease: LeaseId(1),
            task: TaskId { job: JobId(1), round: 0, stage: 0, part: 0 },
            lease_ms: 60_000,
            flops,
            spec,
        }));
        let parts: Vec<TensorPart<'_>> = tensors
            .iter()
            .map(|(name, ty, data)| TensorPart { name: name.clone(), ty: ty.clone(), data })
            .collect();
        std::fs::write(out.join(format!("{name}.task.frame")), encode(&task, &parts))?;
        let message = ToContributor::Graph { id, graph: GraphText::of(&graph) };
        std::fs::write(out.join(format!("{name}.graph.frame")), encode(&message, &[]))?;
        index.insert(
            name.into(),
            serde_json::json!({
                "graph": format!("{name}.graph.frame"),
                "task": format!("{name}.task.frame"),
                "steps": steps,
                "batch": BATCH,
                "flops": flops,
                "nodes": graph.graph().nodes.len(),
            }),
        );
    }
    std::fs::write(out.join("frames.json"), serde_json::Value::Object(index).to_string())?;
    Ok(())
}
