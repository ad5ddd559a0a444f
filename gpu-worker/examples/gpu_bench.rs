//! How fast a device runs a large matrix product and whole training steps.
//!
//! `cargo run --release -p raven-gpu --example gpu_bench -- [SIZE] [STEPS]` opens the
//! best Vulkan adapter (a software one too) and prints one JSON object: fp32 products
//! of SIZE cubed (4096) and images per second of STEPS (20) training steps of two
//! networks at batch 64, once with the shaders for lanes and once with those for
//! vectors. `--frames OUT_DIR [STEPS]` writes the frames of those steps
//! for measurements elsewhere, as relaxed tasks, and needs no device.

use raven_gpu::{Kernel, OpenOptions};
use raven_graph::model::{ModelSpec, lower};
use raven_graph::philox::{key, philox4x32, unit_f32};
use raven_graph::{BinaryFn, DType, GraphBuilder, Limits, NodeId, Op, TensorType, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, Carry, Encoding, Frame, FrameLimits, FromContributor, GraphText, JobId, LeaseId,
    Numerics, OutputSpec, Program, ReduceRule, Seed, TaskId, TaskMessage, TaskSpec, TensorPart,
    ToContributor,
};
use std::error::Error;
use std::path::Path;
use std::time::Instant;

const BATCH: u32 = 64;
/// Timed runs of each case; the best one counts.
const RUNS: u32 = 5;
const BUDGET: u64 = 4 << 30;
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

type Failed = Box<dyn Error>;

/// The gradient graph with `p - lr / batch * gradient` added for every parameter.
fn step_graph(data: &str, model: &str) -> Result<(ValidGraph, Vec<String>), Failed> {
    let limits = Limits::default();
    let model: ModelSpec = serde_json::from_str(model)?;
    let lowered = lower(&model, &serde_json::from_str(data)?, BATCH, &limits)?;
    let gradients: Vec<_> = lowered.train.outputs().to_vec();
    let mut b = GraphBuilder::resume(lowered.train, &limits);
    let mut names = Vec::new();
    for param in &lowered.params {
        let name = format!("grad.{}", param.name);
        let gradient = gradients.iter().find(|output| output.name == name);
        let gradient = gradient.ok_or("every parameter has a gradient")?.node;
        let is_param = |op: &Op| matches!(op, Op::Input { name, .. } if *name == param.name);
        let at = b.nodes().iter().position(|node| is_param(&node.op));
        let node = NodeId(at.ok_or("every parameter is an input")? as u32);
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
    let fan_in = count as f32 / ty.shape.dims().first().copied().unwrap_or(1) as f32;
    match (ty.dtype, name) {
        (DType::I32, _) => (0..count).flat_map(|i| ((word(i) % 10) as i32).to_le_bytes()).collect(),
        (_, "w") => (0..count).flat_map(|_| 1f32.to_le_bytes()).collect(),
        (DType::U8, _) => (0..count).map(|i| word(i) as u8).collect(),
        _ => (0..count)
            .flat_map(|i| ((unit_f32(word(i)) - 0.5) * 2.0 / fan_in.max(25.0).sqrt()).to_le_bytes())
            .collect(),
    }
}

/// The frames of `steps` training steps as one task, and its operations.
fn frames(data: &str, model: &str, steps: u32) -> Result<([Vec<u8>; 2], u64), Failed> {
    let (graph, params) = step_graph(data, model)?;
    let id = graph.id();
    let inputs: Vec<(String, TensorType, Vec<u8>)> = graph
        .inputs()
        .iter()
        .enumerate()
        .map(|(i, input)| {
            (input.name.clone(), input.ty.clone(), contents(&input.name, &input.ty, i as u32))
        })
        .collect();
    let attached = |name: &String| Binding::Attached { input: name.clone(), tensor: name.clone() };
    let output =
        |name: String| OutputSpec { name, encoding: Encoding::Raw, reduce: ReduceRule::Sum };
    let carry =
        params.iter().map(|param| Carry { input: param.clone(), output: format!("next.{param}") });
    let mut outputs = vec![output("loss".into())];
    outputs.extend(params.iter().map(|param| output(format!("next.{param}"))));
    let spec = TaskSpec {
        program: Program::Scan { graph: id, steps, carry: carry.collect() },
        seed: Seed(1),
        bindings: inputs.iter().map(|(name, ..)| attached(name)).collect(),
        shards: Vec::new(),
        outputs,
        numerics: Numerics::Relaxed,
    };
    let flops = graph.cost().flops * u64::from(steps);
    let task = ToContributor::Task(Box::new(TaskMessage {
        lease: LeaseId(1),
        task: TaskId { job: JobId(1), round: 0, stage: 0, part: 0 },
        lease_ms: 60_000,
        flops,
        spec,
    }));
    let parts: Vec<TensorPart<'_>> = inputs
        .iter()
        .map(|(name, ty, data)| TensorPart { name: name.clone(), ty: ty.clone(), data })
        .collect();
    let graph = ToContributor::Graph { id, graph: GraphText::of(&graph) };
    Ok(([encode(&graph, &[]), encode(&task, &parts)], flops))
}

/// One product of `size` cubed whose result is only looked at in one row, so that
/// the way back is no part of the figure.
fn product_frames(size: u32, steps: u32) -> Result<[Vec<u8>; 2], Failed> {
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::F32, [size, size])?;
    let w = b.input("w", DType::F32, [size, size])?;
    let y = b.matmul(x, w, false, false)?;
    b.output("y", y);
    let row = b.slice(y, &[0, 0], &[1, 8])?;
    b.output("row", row);
    let graph = b.finish()?;
    let tensors = ["x", "w"].map(|name| {
        let ty = TensorType::new(DType::F32, [size, size]);
        let data = contents(name, &ty, 1);
        (name.to_owned(), ty, data)
    });
    let attached =
        |name: &str| Binding::Attached { input: name.to_owned(), tensor: name.to_owned() };
    let spec = TaskSpec {
        program: Program::Scan {
            graph: graph.id(),
            steps,
            carry: vec![Carry { input: "x".into(), output: "y".into() }],
        },
        seed: Seed(1),
        bindings: vec![attached("x"), attached("w")],
        shards: Vec::new(),
        outputs: vec![OutputSpec {
            name: "row".into(),
            encoding: Encoding::Raw,
            reduce: ReduceRule::Sum,
        }],
        numerics: Numerics::Relaxed,
    };
    let task = ToContributor::Task(Box::new(TaskMessage {
        lease: LeaseId(1),
        task: TaskId { job: JobId(1), round: 0, stage: 0, part: 0 },
        lease_ms: 60_000,
        flops: 0,
        spec,
    }));
    let parts: Vec<TensorPart<'_>> = tensors
        .iter()
        .map(|(name, ty, data)| TensorPart { name: name.clone(), ty: ty.clone(), data })
        .collect();
    let message = ToContributor::Graph { id: graph.id(), graph: GraphText::of(&graph) };
    Ok([encode(&message, &[]), encode(&task, &parts)])
}

/// The best of some runs in seconds, after one that compiles.
fn best_s(kernel: &mut Kernel, [graph, task]: &[Vec<u8>; 2]) -> Result<f64, Failed> {
    kernel.accept(graph)?;
    let mut best = f64::INFINITY;
    for _ in 0..=RUNS {
        let start = Instant::now();
        let answer = kernel.execute(task)?;
        let frame = Frame::decode(&answer, &FrameLimits::TO_CONTRIBUTOR)?;
        if let FromContributor::Refuse { detail, .. } =
            FromContributor::from_header(frame.header())?
        {
            return Err(detail.into());
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn write_frames(out: &Path, steps: u32) -> Result<(), Failed> {
    std::fs::create_dir_all(out)?;
    let mut index = serde_json::Map::new();
    for (name, data, model) in MODELS {
        let ([graph, task], flops) = frames(data, model, steps)?;
        std::fs::write(out.join(format!("{name}.graph.frame")), graph)?;
        std::fs::write(out.join(format!("{name}.task.frame")), task)?;
        index.insert(
            name.into(),
            serde_json::json!({"steps": steps, "batch": BATCH, "flops": flops}),
        );
    }
    let [graph, task] = product_frames(512, steps)?;
    std::fs::write(out.join("matmul.graph.frame"), graph)?;
    std::fs::write(out.join("matmul.task.frame"), task)?;
    let flops = 2 * 512u64.pow(3) * u64::from(steps);
    index.insert("matmul".into(), serde_json::json!({"steps": steps, "size": 512, "flops": flops}));
    std::fs::write(out.join("frames.json"), serde_json::Value::Object(index).to_string())?;
    Ok(())
}

/// All figures with one kind of shaders.
fn measured(size: u32, steps: u32, lanes: bool) -> Result<serde_json::Value, Failed> {
    let mut gpu = raven_gpu::doors::native::open(OpenOptions { software: true })?;
    let adapter = gpu.name().to_owned();
    // One dispatch each: what is measured is the shader, not how it is cut.
    gpu.set_flops_per_s(u64::MAX);
    gpu.set_lanes(lanes);
    let mut kernel = Kernel::new(gpu, BUDGET);
    let products = if size > 2048 { 8 } else { 4 };
    let seconds = best_s(&mut kernel, &product_frames(size, products)?)? / f64::from(products);
    let tflops = 2.0 * f64::from(size).powi(3) / seconds / 1e12;
    let mut report = serde_json::json!({
        "adapter": adapter,
        "matmul": {"size": size, "ms": seconds * 1e3, "tflop_per_s": tflops},
    });
    for (name, data, model) in MODELS {
        let (task, flops) = frames(data, model, steps)?;
        let seconds = best_s(&mut kernel, &task)?;
        report[name] = serde_json::json!({
            "images_per_s": f64::from(BATCH * steps) / seconds,
            "gflop_per_s": flops as f64 / seconds / 1e9,
        });
    }
    Ok(report)
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, out, rest @ ..] = arguments.as_slice()
        && flag == "--frames"
    {
        return write_frames(Path::new(out), rest.first().map_or(Ok(5), |text| text.parse())?);
    }
    let size: u32 = arguments.first().map_or(Ok(4096), |text| text.parse())?;
    let steps: u32 = arguments.get(1).map_or(Ok(20), |text| text.parse())?;
    let mut report = serde_json::json!({});
    for (label, lanes) in [("vectors", false), ("lanes", true)] {
        report[label] = measured(size, steps, lanes)?;
    }
    println!("{report:#}");
    Ok(())
}
