//! Graphs of training steps, and the tasks that run them.

use raven_graph::model::{LoweredModel, ModelSpec, lower};
use raven_graph::{
    BinaryFn, CompareFn, Conv2dAttrs, DType, Distribution, GraphBuilder, GraphError, Limits,
    NodeId, Op, Pool2dAttrs, ReduceFn, Shape, TensorType, UnaryFn, ValidGraph,
};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, BlobId, Carry, Encoding, GraphText, JobId, LeaseId, Numerics, OutputSpec, Program,
    ReduceRule, Seed, ShardRef, TaskId, TaskMessage, TaskSpec, TensorPart, TensorView,
    ToContributor, blob_id,
};

const BATCH: u32 = 16;

/// A multilayer perceptron and a convolutional network: their data, and their layers.
pub const MODELS: [(&str, &str); 2] = [
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

/// The gradients of a model, and the names of its parameters.
pub fn train_graph(data: &str, model: &str) -> (ValidGraph, Vec<String>) {
    let model: ModelSpec = serde_json::from_str(model).expect("a model");
    let data = serde_json::from_str(data).expect("data");
    let lowered = lower(&model, &data, BATCH, &Limits::default());
    let LoweredModel { train, params, .. } = lowered.expect("a graph");
    (train, params.into_iter().map(|param| param.name).collect())
}

/// One step of gradient descent, its parameters by name.
pub fn step_graph(data: &str, model: &str) -> (ValidGraph, Vec<String>) {
    let limits = Limits::default();
    let (train, names) = train_graph(data, model);
    let gradients = train.outputs().to_vec();
    let mut b = GraphBuilder::resume(train, &limits);
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
pub fn moving_graph() -> (ValidGraph, Vec<String>) {
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

/// A step in which every op runs, most of them by a way of their own: no group takes them in.
pub fn every_op_graph() -> (ValidGraph, Vec<String>) {
    let build = || -> Result<ValidGraph, GraphError> {
        let mut b = GraphBuilder::new(&Limits::default());
        let w = b.input("w", DType::F32, [2, 4, 8, 8])?;
        let mut parts = images(&mut b, w)?;
        let rows = b.reshape(w, [16, 32])?;
        parts.extend(numbers(&mut b, rows)?);
        parts.extend(places(&mut b, rows)?);
        let mut next = b.scale(w, 0.5)?;
        for part in parts {
            let whole =
                if b.ty(part).dtype == DType::F32 { part } else { b.cast(part, DType::F32)? };
            let sum = b.sum_all(whole)?;
            next = b.add(next, sum)?;
        }
        b.output("next.w", next);
        b.finish()
    };
    (build().expect("valid"), vec!["w".into()])
}

/// Ops of images.
fn images(b: &mut GraphBuilder, w: NodeId) -> Result<Vec<NodeId>, GraphError> {
    let mut parts = Vec::new();
    for (stride, kernel) in [([1, 1], 3), ([2, 1], 3), ([1, 1], 1)] {
        let attrs = Conv2dAttrs { stride, padding: [kernel / 2; 4], dilation: [1; 2], groups: 2 };
        let weight = b.constant(DType::F32, [6, 2, kernel, kernel], 0.5)?;
        let y = b.conv2d(w, weight, attrs)?;
        let y = b.unary(UnaryFn::Tanh, y)?;
        let input = [8, 8];
        parts.push(b.push(Op::Conv2dInputGrad { attrs, input }, &[weight, y])?);
        parts.push(b.push(Op::Conv2dWeightGrad { attrs, kernel: [kernel; 2] }, &[w, y])?);
    }
    for (kernel, stride) in [(2, 2), (3, 1)] {
        let attrs = Pool2dAttrs { kernel: [kernel; 2], stride: [stride; 2], padding: [0; 4] };
        let y = b.max_pool2d(w, attrs)?;
        parts.push(b.push(Op::MaxPool2dGrad(attrs), &[w, y])?);
        let y = b.avg_pool2d(w, attrs)?;
        parts.push(b.push(Op::AvgPool2dGrad { attrs, input: [8, 8] }, &[y])?);
    }
    Ok(parts)
}

/// Ops that compute, on `x [16, 32]`.
fn numbers(b: &mut GraphBuilder, x: NodeId) -> Result<Vec<NodeId>, GraphError> {
    use UnaryFn::{Abs, Exp, Floor, Log, Neg, Recip, Relu, Sigmoid, Sign, Sqrt, Tanh};
    let mut parts = Vec::new();
    for function in [Neg, Abs, Sign, Exp, Log, Sqrt, Recip, Tanh, Sigmoid, Relu, Floor] {
        parts.push(b.unary(function, x)?);
    }
    let column = b.reduce(ReduceFn::Max, x, &[1], true)?;
    for function in [BinaryFn::Div, BinaryFn::Max, BinaryFn::Min, BinaryFn::Pow] {
        parts.push(b.binary(function, x, column)?);
    }
    let whole = b.cast(x, DType::I32)?;
    let one = b.constant(DType::I32, [1, 32], 1.0)?;
    parts.push(b.binary(BinaryFn::Add, whole, one)?);
    let mask = b.compare(CompareFn::Ge, whole, one)?;
    parts.push(b.select(mask, whole, one)?);
    parts.push(b.cast(mask, DType::U8)?);
    for function in [ReduceFn::Sum, ReduceFn::Mean, ReduceFn::Min] {
        let cube = b.reshape(x, [64, 2, 4])?;
        parts.push(b.reduce(function, cube, &[0, 2], false)?);
    }
    for axis in [0, 1] {
        parts.push(b.softmax(x, axis)?);
        parts.push(b.log_softmax(x, axis)?);
        parts.push(b.arg_max(x, axis)?);
    }
    let labels = b.arg_max(x, 1)?;
    let losses = b.cross_entropy(x, labels)?;
    parts.push(b.push(Op::CrossEntropyGrad, &[x, labels, losses])?);
    let (stack, right) = (b.reshape(x, [4, 4, 32])?, b.reshape(x, [1, 32, 16])?);
    parts.push(b.matmul(stack, right, false, false)?);
    parts.push(b.matmul(x, x, true, false)?);
    for distribution in [Distribution::Uniform, Distribution::Normal] {
        parts.push(b.random(distribution, [7, 3], 1)?);
    }
    Ok(parts)
}

/// Ops that move elements, on `x [16, 32]`.
fn places(b: &mut GraphBuilder, x: NodeId) -> Result<Vec<NodeId>, GraphError> {
    let index = b.arg_max(x, 1)?;
    let gathered = b.gather(x, index, 1)?;
    let one_hot = b.one_hot(index, 20)?;
    let turned = b.permute(x, &[1, 0])?;
    Ok(vec![
        b.push(Op::ScatterAdd { axis: 0, size: 40 }, &[x, index])?,
        b.pad(x, &[1, 0], &[0, 2], 3.0)?,
        b.broadcast(x, &Shape(vec![3, 16, 32]))?,
        b.slice(x, &[1, 4], &[9, 30])?,
        b.concat(&[turned, turned, turned], 1)?,
        gathered,
        one_hot,
    ])
}

fn contents(dtype: DType, count: u64) -> Vec<u8> {
    (0..count as u32)
        .flat_map(|i| match dtype {
            DType::F32 => (0.1 - (i % 7) as f32 * 0.03).to_le_bytes().to_vec(),
            DType::I32 => ((i % 10) as i32).to_le_bytes().to_vec(),
            DType::U8 => vec![(i * 37) as u8],
            DType::Bool => vec![(i % 2) as u8],
        })
        .collect()
}

/// A tensor by its name, with its bytes.
type Named = (String, TensorType, Vec<u8>);

fn named(name: &str, ty: TensorType) -> Named {
    let data = contents(ty.dtype, ty.shape.elements().expect("small"));
    (name.to_owned(), ty, data)
}

fn parts(tensors: &[Named]) -> Vec<TensorPart<'_>> {
    tensors
        .iter()
        .map(|(name, ty, data)| TensorPart { name: name.clone(), ty: ty.clone(), data })
        .collect()
}

fn spec(program: Program, bindings: Vec<Binding>, outputs: Vec<OutputSpec>) -> TaskSpec {
    let (seed, numerics) = (Seed(1), Numerics::Strict);
    TaskSpec { program, seed, bindings, shards: Vec::new(), outputs, numerics }
}

fn task_frame(spec: TaskSpec, attached: &[Named]) -> Vec<u8> {
    let message = TaskMessage {
        lease: LeaseId(1),
        task: TaskId { job: JobId(1), round: 0, stage: 0, part: 0 },
        lease_ms: 60_000,
        flops: 0,
        spec,
    };
    encode(&ToContributor::Task(Box::new(message)), &parts(attached))
}

pub fn graph_frame(graph: &ValidGraph) -> Vec<u8> {
    encode(&ToContributor::Graph { id: graph.id(), graph: GraphText::of(graph) }, &[])
}

fn output(name: &str, reduce: ReduceRule) -> OutputSpec {
    OutputSpec { name: name.to_owned(), encoding: Encoding::Raw, reduce }
}

fn attached(name: &str) -> Binding {
    Binding::Attached { input: name.to_owned(), tensor: name.to_owned() }
}

/// A scan's frame; every operand is attached.
pub fn scan(graph: &ValidGraph, params: &[String], steps: u32) -> Vec<u8> {
    let next = |param: &String| format!("next.{param}");
    let carry = params.iter().map(|param| Carry { input: param.clone(), output: next(param) });
    let program = Program::Scan { graph: graph.id(), steps, carry: carry.collect() };
    let bindings = graph.inputs().iter().map(|input| attached(&input.name)).collect();
    let outputs = params.iter().map(|param| output(&next(param), ReduceRule::Sum)).collect();
    let tensors: Vec<Named> =
        graph.inputs().iter().map(|input| named(&input.name, input.ty.clone())).collect();
    task_frame(spec(program, bindings, outputs), &tensors)
}

/// The shard that micro-batches draw their rows from, and its frame: features and labels.
fn shard(graph: &ValidGraph) -> (ShardRef, Vec<u8>) {
    const ROWS: u32 = 4 * BATCH;
    let column = |name: &str| {
        let mut ty = graph.input(name).expect("an input").ty.clone();
        ty.shape.0[0] = ROWS;
        named(name, ty)
    };
    let columns = [column("x"), column("y")];
    let blob = blob_of(&columns);
    let frame = encode(&ToContributor::Blob { id: blob }, &parts(&columns));
    (ShardRef { blob, first_row: 0, rows: ROWS, bytes: frame.len() as u64 }, frame)
}

fn blob_of(tensors: &[Named]) -> BlobId {
    blob_id(tensors.iter().map(|(name, ty, data)| TensorView {
        name,
        dtype: ty.dtype,
        shape: &ty.shape,
        data,
    }))
}

/// A map over `count` micro-batches of a training graph as a coordinator sends it, and its shard's
/// frame: rows by their numbers, some of them padding, parameters attached.
pub fn map(graph: &ValidGraph, params: &[String], count: u32) -> (Vec<u8>, Vec<u8>) {
    let (shard, shard_frame) = shard(graph);
    let mut bindings: Vec<Binding> = params.iter().map(|param| attached(param)).collect();
    for input in ["x", "y"].map(str::to_owned) {
        bindings.push(Binding::Rows { column: input.clone(), input, rows: "rows".into() });
    }
    bindings.push(Binding::RowMask { input: "w".into(), rows: "rows".into() });
    let rows = (0..count * BATCH).map(|i| if i % 11 == 10 { -1 } else { (i % shard.rows) as i32 });
    let rows: Vec<u8> = rows.flat_map(i32::to_le_bytes).collect();
    let mut tensors = vec![("rows".into(), TensorType::new(DType::I32, [count, BATCH]), rows)];
    for param in params {
        tensors.push(named(param, graph.input(param).expect("an input").ty.clone()));
    }
    let rank = |name: &str| graph.output_type(name).map_or(0, |ty| ty.shape.rank());
    let outputs = graph.outputs().iter().map(|found| {
        // One output is joined, so that both ways are watched.
        let joins = found.name.ends_with(".bias");
        let reduce =
            if joins && rank(&found.name) > 0 { ReduceRule::Concat } else { ReduceRule::Sum };
        output(&found.name, reduce)
    });
    let program = Program::Map { graph: graph.id(), start: 0, count };
    let spec = TaskSpec { shards: vec![shard], ..spec(program, bindings, outputs.collect()) };
    (task_frame(spec, &tensors), shard_frame)
}

/// A task that reads a megabyte of a blob, one that is attached, and one that is attached per run:
/// its graph, the blob's frame and its own.
pub fn large_task() -> (ValidGraph, Vec<u8>, Vec<u8>) {
    const RUNS: u32 = 4;
    let build = || -> Result<ValidGraph, GraphError> {
        let mut b = GraphBuilder::new(&Limits::default());
        let mut sums = Vec::new();
        for (name, rows) in [("blob", 1 << 10), ("attached", 1 << 10), ("per_run", 1 << 8)] {
            let x = b.input(name, DType::F32, [rows, 1 << 8])?;
            sums.push(b.sum_all(x)?);
        }
        let (a, c) = (b.add(sums[0], sums[1])?, sums[2]);
        let sum = b.add(a, c)?;
        b.output("sum", sum);
        b.finish()
    };
    let graph = build().expect("valid");
    let whole = TensorType::new(DType::F32, [1 << 10, 1 << 8]);
    let held = [named("blob", whole.clone())];
    let blob = blob_of(&held);
    let blob_frame = encode(&ToContributor::Blob { id: blob }, &parts(&held));
    let per_run = TensorType::new(DType::F32, [RUNS, 1 << 8, 1 << 8]);
    let bindings = vec![
        Binding::Blob { input: "blob".into(), blob, tensor: "blob".into() },
        attached("attached"),
        Binding::PerRun { input: "per_run".into(), tensor: "per_run".into() },
    ];
    let program = Program::Map { graph: graph.id(), start: 0, count: RUNS };
    let spec = spec(program, bindings, vec![output("sum", ReduceRule::Sum)]);
    (graph, blob_frame, task_frame(spec, &[named("attached", whole), named("per_run", per_run)]))
}
