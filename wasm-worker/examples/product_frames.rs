//! Writes tasks that multiply matrices, for `scripts/bench kernels`.
//!
//! `cargo run --release -p raven-worker --example product_frames -- OUT_DIR`
//! writes, per shape and layout, the frames of a graph with one product and of
//! a task that runs it many times, and `OUT_DIR/products.json`.

use raven_graph::philox::{key, philox4x32, unit_f32};
use raven_graph::{DType, GraphBuilder, Limits, TensorType, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, Encoding, GraphText, JobId, LeaseId, Numerics, OutputSpec, Program, ReduceRule, Seed,
    TaskId, TaskMessage, TaskSpec, TensorPart, ToContributor,
};
use std::error::Error;
use std::path::Path;

/// The shapes of `bench/kernels/cases.js`.
const SHAPES: [[u32; 3]; 5] =
    [[64, 784, 256], [128, 128, 128], [256, 256, 256], [512, 512, 512], [1024, 1024, 1024]];
/// Runs of one task: enough for a second of the smallest product.
const RUNS: u32 = 1 << 14;

/// One product; its output is one element, so that summing up costs nothing.
fn graph([m, k, n]: [u32; 3], turned: [bool; 2]) -> Result<ValidGraph, Box<dyn Error>> {
    let limits = Limits::default();
    let mut b = GraphBuilder::new(&limits);
    let lay = |rows, columns, turned| if turned { [columns, rows] } else { [rows, columns] };
    let lhs = b.input("a", DType::F32, lay(m, k, turned[0]))?;
    let rhs = b.input("b", DType::F32, lay(k, n, turned[1]))?;
    let product = b.matmul(lhs, rhs, turned[0], turned[1])?;
    let one = b.slice(product, &[0, 0], &[1, 1])?;
    b.output("one", one);
    Ok(b.finish()?)
}

fn numbers(ty: &TensorType, stream: u32) -> Vec<u8> {
    let count = ty.shape.elements().unwrap_or(0) as u32;
    let number = |i| unit_f32(philox4x32([i, stream, 0, 0], key(7))[0]) - 0.5;
    (0..count).flat_map(|i| number(i).to_le_bytes()).collect()
}

fn task(graph: &ValidGraph) -> Vec<u8> {
    let inputs = graph.inputs();
    let bindings = inputs
        .iter()
        .map(|input| Binding::Attached { input: input.name.clone(), tensor: input.name.clone() });
    let spec = TaskSpec {
        program: Program::Map { graph: graph.id(), start: 0, count: RUNS },
        seed: Seed(1),
        bindings: bindings.collect(),
        shards: Vec::new(),
        outputs: vec![OutputSpec {
            name: "one".into(),
            encoding: Encoding::Raw,
            reduce: ReduceRule::Sum,
        }],
        numerics: Numerics::Strict,
    };
    let contents: Vec<Vec<u8>> =
        inputs.iter().zip(0..).map(|(input, i)| numbers(&input.ty, i)).collect();
    let parts: Vec<TensorPart<'_>> = inputs
        .iter()
        .zip(&contents)
        .map(|(input, data)| TensorPart { name: input.name.clone(), ty: input.ty.clone(), data })
        .collect();
    let message = TaskMessage {
        lease: LeaseId(1),
        task: TaskId { job: JobId(1), round: 0, stage: 0, part: 0 },
        lease_ms: 60_000,
        flops: graph.cost().flops * u64::from(RUNS),
        spec,
    };
    encode(&ToContributor::Task(Box::new(message)), &parts)
}

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).ok_or("usage: product_frames OUT_DIR")?;
    let out = Path::new(&out);
    std::fs::create_dir_all(out)?;
    let mut index = serde_json::Map::new();
    for shape in SHAPES {
        for (layout, turned) in
            [("ab", [false, false]), ("atb", [true, false]), ("abt", [false, true])]
        {
            let [m, k, n] = shape;
            let name = format!("{m}x{k}x{n}");
            let graph = graph(shape, turned)?;
            let message = ToContributor::Graph { id: graph.id(), graph: GraphText::of(&graph) };
            let files = [format!("{name}-{layout}-graph"), format!("{name}-{layout}-task")];
            std::fs::write(out.join(&files[0]), encode(&message, &[]))?;
            std::fs::write(out.join(&files[1]), task(&graph))?;
            let [graph_file, task_file] = files;
            let entry = serde_json::json!({
                "graph": graph_file,
                "task": task_file,
                "flops": graph.cost().flops,
            });
            index.insert(format!("{name} {layout}"), entry);
        }
    }
    std::fs::write(out.join("products.json"), serde_json::Value::Object(index).to_string())?;
    Ok(())
}
