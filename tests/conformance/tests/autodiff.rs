//! Gradients of single ops and of whole networks: ours, run on the reference
//! interpreter and on the shipped kernels, against burn's autodiff.

#[path = "../../../graph/tests/support/mod.rs"]
mod support;
mod tape;

use raven_graph::model::{DataSpec, Target, lower};
use raven_graph::pass::dead_code;
use raven_graph::{
    BinaryFn, CompareFn, Conv2dAttrs, DType, GraphBuilder, GraphError, Limits, NodeId, Op,
    Pool2dAttrs, ReduceFn, TensorType, UnaryFn, ValidGraph,
};
use raven_worker::ops::RunContext;
use raven_worker::{Plan, Run};
use support::finite::{rebind, with_gradients};
use support::{Bindings, Data, Draw, Tensor, samples};

/// Largest difference between two f32 computations of one gradient, or one of
/// them and f64: relative to the magnitude, absolute below 1. Sums here have a
/// few hundred terms, each rounded to about 6e-8.
const TOLERANCE: f64 = 1e-5;

const DRAW: Draw = Draw { seed: 17, micro_batch: 2 };

type Built = Result<NodeId, GraphError>;

/// The loss alone.
fn forward(graph: &ValidGraph) -> ValidGraph {
    let mut forward = graph.clone().into_graph();
    forward.outputs.retain(|output| output.name == "loss");
    let forward = forward.validate(&Limits::default()).expect("a loss");
    dead_code(&forward).expect("a forward graph")
}

/// What the shipped kernels make of a graph.
fn kernels(graph: &ValidGraph, bindings: &Bindings) -> Bindings {
    let plan = Plan::new(graph.clone());
    let bind = |input: &raven_graph::InputSpec| to_kernel(&bindings[&input.name]);
    let inputs = graph.inputs().iter().map(bind).collect();
    let context = RunContext { seed: DRAW.seed, run: DRAW.micro_batch };
    let mut run = Run::new(&plan, inputs, context);
    while run.step(&plan).is_some() {}
    let values = run.into_outputs(&plan);
    let outputs = graph.outputs().iter().zip(values);
    outputs
        .filter(|(output, _)| graph.ty(output.node).dtype == DType::F32)
        .map(|(output, value)| {
            let floats = value.elements::<f32>().iter().map(|&v| f64::from(v)).collect();
            (output.name.clone(), Tensor::f(value.dims(), floats))
        })
        .collect()
}

fn to_kernel(tensor: &Tensor) -> raven_worker::Tensor {
    let dims = &tensor.dims;
    match (&tensor.data, tensor.dtype) {
        (Data::F(v), _) => raven_worker::Tensor::new(dims, v.iter().map(|&v| v as f32).collect()),
        (Data::I(v), DType::U8) => {
            raven_worker::Tensor::new(dims, v.iter().map(|&v| v as u8).collect::<Vec<_>>())
        }
        (Data::I(v), DType::Bool) => {
            raven_worker::Tensor::new(dims, v.iter().map(|&v| v != 0).collect::<Vec<_>>())
        }
        (Data::I(v), _) => {
            raven_worker::Tensor::new(dims, v.iter().map(|&v| v as i32).collect::<Vec<_>>())
        }
    }
}

/// Bindings that f32 holds exactly, so that all three start from one point.
fn rounded(bindings: Bindings) -> Bindings {
    let round = |mut tensor: Tensor| {
        if let Data::F(data) = &mut tensor.data {
            data.iter_mut().for_each(|v| *v = f64::from(*v as f32));
        }
        tensor
    };
    bindings.into_iter().map(|(name, tensor)| (name, round(tensor))).collect()
}

/// Compares `loss` and each `grad.<name>` three ways; returns the largest
/// difference.
fn compare(graph: &ValidGraph, bindings: Bindings) -> f64 {
    let bindings = rounded(bindings);
    let outputs = graph.outputs().iter().map(|output| output.name.as_str());
    let wrt: Vec<&str> = outputs.filter_map(|name| name.strip_prefix("grad.")).collect();
    assert!(!wrt.is_empty());
    let burn = tape::gradients(&forward(graph), &bindings, DRAW, &wrt);
    let mut worst: f64 = 0.0;
    for (who, ours) in [
        ("reference", support::run(graph, &bindings, DRAW)),
        ("kernels", kernels(graph, &bindings)),
    ] {
        for (name, expected) in &burn {
            let found = match name.as_str() {
                "loss" => &ours["loss"],
                name => &ours[&format!("grad.{name}")],
            };
            let error = support::difference(expected, found);
            assert!(error < TOLERANCE, "{who}, {name}: {error}\n{expected:?}\n{found:?}");
            worst = worst.max(error);
        }
    }
    worst
}

fn check(wrt: &[&str], build: impl FnOnce(&mut GraphBuilder) -> Built) {
    let graph = with_gradients(wrt, build);
    compare(&graph, samples::bindings(&graph, 6));
}

fn float(b: &mut GraphBuilder, name: &str, dims: &[u32]) -> Built {
    b.input(name, DType::F32, dims)
}

fn one(b: &mut GraphBuilder, op: Op, dims: &[u32]) -> Built {
    let x = float(b, "x", dims)?;
    b.push(op, &[x])
}

fn two(b: &mut GraphBuilder, op: Op, lhs: &[u32], rhs: &[u32]) -> Built {
    let operands = [float(b, "a", lhs)?, float(b, "b", rhs)?];
    b.push(op, &operands)
}

fn usizes(dims: &[u32]) -> Vec<usize> {
    dims.iter().map(|&d| d as usize).collect()
}

#[test]
fn unary_functions() {
    use UnaryFn::*;
    for function in [Neg, Abs, Sign, Exp, Tanh, Sigmoid, Relu, Floor, Recip] {
        check(&["x"], |b| one(b, Op::Unary { function }, &[3, 4]));
    }
    for function in [Log, Sqrt] {
        let graph = with_gradients(&["x"], |b| one(b, Op::Unary { function }, &[3, 4]));
        let positive = samples::uniform(9, &[3, 4], 0.2, 3.0);
        compare(&graph, rebind(samples::bindings(&graph, 2), "x", positive));
    }
}

#[test]
fn binary_functions_with_broadcasting() {
    use BinaryFn::*;
    let shapes: [(&[u32], &[u32]); 4] =
        [(&[2, 3], &[2, 3]), (&[2, 3], &[3]), (&[2, 1, 3], &[4, 1]), (&[], &[2, 2])];
    for function in [Add, Sub, Mul, Div, Max, Min, Pow] {
        for (lhs, rhs) in shapes {
            let graph = with_gradients(&["a", "b"], |b| two(b, Op::Binary { function }, lhs, rhs));
            let bindings = samples::bindings(&graph, 3);
            let bindings = rebind(bindings, "a", samples::uniform(1, &usizes(lhs), 0.3, 2.0));
            let b = samples::uniform(2, &usizes(rhs), 0.5, 2.5);
            compare(&graph, rebind(bindings, "b", b));
        }
    }
}

#[test]
fn selection_and_broadcast() {
    check(&["a", "b"], |b| {
        let zero = b.scalar(0.0)?;
        let x = float(b, "x", &[2, 3])?;
        let condition = b.compare(CompareFn::Lt, x, zero)?;
        let sides = [float(b, "a", &[3])?, float(b, "b", &[2, 1])?];
        b.select(condition, sides[0], sides[1])
    });
    check(&["x"], |b| one(b, Op::Broadcast { shape: [2, 3, 4].into() }, &[3, 1]));
}

#[test]
fn reductions() {
    use ReduceFn::*;
    for function in [Sum, Mean, Max, Min] {
        // Burn reduces one axis at a time, which is the same for all of these.
        for axes in [vec![1], vec![0, 2], vec![0, 1, 2]] {
            let op = Op::Reduce { function, axes, keep_dims: false };
            check(&["x"], |b| one(b, op, &[2, 3, 4]));
        }
    }
}

#[test]
fn matrix_products() {
    for transpose_lhs in [false, true] {
        for transpose_rhs in [false, true] {
            let op = || Op::MatMul { transpose_lhs, transpose_rhs };
            let lhs = if transpose_lhs { [5, 7] } else { [7, 5] };
            let rhs = if transpose_rhs { [6, 5] } else { [5, 6] };
            check(&["a", "b"], |b| two(b, op(), &lhs, &rhs));
            let batched = |lead: &[u32], tail: [u32; 2]| [lead, &tail].concat();
            check(&["a", "b"], |b| two(b, op(), &batched(&[2, 1], lhs), &batched(&[3], rhs)));
        }
    }
}

#[test]
fn convolutions() {
    let attrs =
        |stride, padding, dilation, groups| Conv2dAttrs { stride, padding, dilation, groups };
    for (a, x, weight) in [
        (attrs([1, 1], [0; 4], [1, 1], 1), [2, 3, 6, 7], [4, 3, 3, 2]),
        (attrs([2, 1], [1, 0, 2, 1], [1, 2], 1), [2, 2, 6, 7], [3, 2, 3, 2]),
        (attrs([2, 2], [1; 4], [1, 1], 2), [2, 4, 6, 6], [2, 2, 3, 3]),
    ] {
        check(&["a", "b"], |b| two(b, Op::Conv2d(a), &x, &weight));
    }
    for (a, weight, dy, input) in [
        (attrs([1, 1], [1; 4], [1, 1], 1), [4, 3, 3, 3], [2, 4, 6, 7], [6, 7]),
        (attrs([2, 2], [0; 4], [1, 1], 1), [4, 3, 3, 3], [2, 4, 2, 3], [6, 7]),
    ] {
        check(&["a", "b"], |b| two(b, Op::Conv2dInputGrad { attrs: a, input }, &weight, &dy));
    }
}

#[test]
fn pooling() {
    for attrs in [
        Pool2dAttrs { kernel: [2, 2], stride: [2, 2], padding: [0; 4] },
        Pool2dAttrs { kernel: [3, 2], stride: [1, 2], padding: [1, 2, 0, 1] },
        Pool2dAttrs { kernel: [2, 3], stride: [3, 1], padding: [0; 4] },
    ] {
        check(&["x"], |b| one(b, Op::MaxPool2d(attrs), &[2, 2, 5, 6]));
        check(&["x"], |b| one(b, Op::AvgPool2d(attrs), &[2, 2, 5, 6]));
    }
}

#[test]
fn moved_elements() {
    check(&["x"], |b| one(b, Op::Reshape { shape: [3, 4].into() }, &[2, 6]));
    check(&["x"], |b| one(b, Op::Permute { axes: vec![2, 0, 1] }, &[2, 3, 4]));
    let (starts, ends) = (vec![0, 1, 2], vec![2, 3, 3]);
    check(&["x"], |b| one(b, Op::Slice { starts, ends }, &[2, 3, 4]));
    let (low, high) = (vec![1, 0], vec![0, 2]);
    check(&["x"], |b| one(b, Op::Pad { low, high, value: 1.5 }, &[2, 3]));
    check(&["a", "b"], |b| {
        let (x, y) = (float(b, "a", &[2, 3])?, float(b, "b", &[2, 1])?);
        b.concat(&[x, y, x], 1)
    });
}

#[test]
fn indexed_reads_and_writes() {
    let graph = with_gradients(&["x"], |b| {
        let x = float(b, "x", &[3, 4, 2])?;
        let index = b.input("index", DType::I32, [2, 3])?;
        b.gather(x, index, 1)
    });
    let index = Tensor::i(&[2, 3], vec![1, 3, 1, 0, 1, 2]);
    compare(&graph, rebind(samples::bindings(&graph, 4), "index", index));
    let graph = with_gradients(&["x"], |b| {
        let x = float(b, "x", &[2, 5, 3])?;
        let index = b.input("index", DType::I32, [5])?;
        b.scatter_add(x, index, 1, 4)
    });
    let index = Tensor::i(&[5], vec![3, 0, 3, 1, 0]);
    compare(&graph, rebind(samples::bindings(&graph, 4), "index", index));
}

#[test]
fn soft_maxima_and_cross_entropy() {
    for axis in [0, 1, 2] {
        check(&["x"], |b| one(b, Op::Softmax { axis }, &[2, 3, 4]));
        check(&["x"], |b| one(b, Op::LogSoftmax { axis }, &[2, 3, 4]));
    }
    let graph = with_gradients(&["x"], |b| {
        let x = float(b, "x", &[6, 4])?;
        let y = b.input("y", DType::I32, [6])?;
        b.cross_entropy(x, y)
    });
    let labels = samples::labels(3, &[6], 4);
    compare(&graph, rebind(samples::bindings(&graph, 4), "y", labels));
}

/// The train graph of a layer list with drawn weights and random pixels.
fn network(layers: &str, shape: &[u32], rows: u32, classes: u32) -> f64 {
    let json = format!(r#"{{"layers": {layers}, "loss": "cross_entropy"}}"#);
    let spec = serde_json::from_str(&json).expect("a model");
    let features = TensorType::new(DType::U8, shape);
    let data =
        DataSpec { features, scale: 1.0 / 255.0, target: Target::Classes { count: classes } };
    let model = lower(&spec, &data, rows, &Limits::default()).expect("lowered");
    let mut bindings = samples::bindings(&model.train, 3);
    bindings.extend(support::run(&model.init, &Bindings::new(), Draw { seed: 5, micro_batch: 0 }));
    let pixels = samples::labels(8, &bindings["x"].dims, 256);
    bindings.insert("x".into(), Tensor { dtype: DType::U8, ..pixels });
    bindings.insert("y".into(), samples::labels(4, &[rows as usize], classes));
    let mut weights = vec![1.0; rows as usize];
    weights[0] = 0.0;
    bindings.insert("w".into(), Tensor::f(&[rows as usize], weights));
    compare(&model.train, bindings)
}

#[test]
fn an_mlp() {
    let worst = network(
        r#"[{"type": "flatten"},
            {"type": "dense", "units": 32, "activation": "relu"},
            {"type": "dropout", "rate": 0.25},
            {"type": "dense", "units": 16, "activation": "tanh"},
            {"type": "dense", "units": 10}]"#,
        &[8, 8],
        16,
        10,
    );
    println!("mlp: largest difference {worst:.1e}");
}

#[test]
fn a_cnn() {
    let worst = network(
        r#"[{"type": "conv2d", "filters": 4, "kernel": 5, "padding": "same", "activation": "relu"},
            {"type": "max_pool2d", "size": 2},
            {"type": "conv2d", "filters": 6, "kernel": 3, "stride": 2, "activation": "sigmoid"},
            {"type": "avg_pool2d", "size": 2, "stride": 1},
            {"type": "flatten"},
            {"type": "dense", "units": 12, "activation": "relu"},
            {"type": "dense", "units": 10}]"#,
        &[14, 14],
        8,
        10,
    );
    println!("cnn: largest difference {worst:.1e}");
}
