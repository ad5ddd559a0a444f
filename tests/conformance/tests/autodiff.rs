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
use std::collections::BTreeSet;
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
    let values = run.take_outputs(&plan);
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

/// A loss with gradients, and the point at which they are compared.
struct Case {
    graph: ValidGraph,
    bindings: Bindings,
}

/// A case at a random point.
fn case(wrt: &[&str], build: impl FnOnce(&mut GraphBuilder) -> Built) -> Case {
    let graph = with_gradients(wrt, build);
    let bindings = samples::bindings(&graph, 6);
    Case { graph, bindings }
}

impl Case {
    /// The same with an input bound to this.
    fn at(mut self, name: &str, tensor: Tensor) -> Case {
        self.bindings = rebind(self.bindings, name, tensor);
        self
    }
}

fn compare_all(cases: Vec<Case>) {
    for Case { graph, bindings } in cases {
        compare(&graph, bindings);
    }
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

fn unary_functions() -> Vec<Case> {
    use UnaryFn::*;
    let anywhere = [Neg, Abs, Sign, Exp, Tanh, Sigmoid, Relu, Floor, Recip].into_iter();
    let positive = [Log, Sqrt].into_iter();
    let unary = |function| case(&["x"], |b| one(b, Op::Unary { function }, &[3, 4]));
    let shifted = |function| unary(function).at("x", samples::uniform(9, &[3, 4], 0.2, 3.0));
    anywhere.map(unary).chain(positive.map(shifted)).collect()
}

fn binary_functions_with_broadcasting() -> Vec<Case> {
    use BinaryFn::*;
    let shapes: [(&[u32], &[u32]); 4] =
        [(&[2, 3], &[2, 3]), (&[2, 3], &[3]), (&[2, 1, 3], &[4, 1]), (&[], &[2, 2])];
    let mut cases = Vec::new();
    for function in [Add, Sub, Mul, Div, Max, Min, Pow] {
        for (lhs, rhs) in shapes {
            let binary = case(&["a", "b"], |b| two(b, Op::Binary { function }, lhs, rhs));
            let binary = binary.at("a", samples::uniform(1, &usizes(lhs), 0.3, 2.0));
            cases.push(binary.at("b", samples::uniform(2, &usizes(rhs), 0.5, 2.5)));
        }
    }
    cases
}

fn selection_broadcast_and_casts() -> Vec<Case> {
    let select = case(&["a", "b"], |b| {
        let zero = b.scalar(0.0)?;
        let x = float(b, "x", &[2, 3])?;
        let condition = b.compare(CompareFn::Lt, x, zero)?;
        let sides = [float(b, "a", &[3])?, float(b, "b", &[2, 1])?];
        b.select(condition, sides[0], sides[1])
    });
    let broadcast = case(&["x"], |b| one(b, Op::Broadcast { shape: [2, 3, 4].into() }, &[3, 1]));
    let same = case(&["x"], |b| one(b, Op::Cast { dtype: DType::F32 }, &[3, 4]));
    // Nothing comes back through integers; what goes around them does.
    let whole = case(&["x"], |b| {
        let x = float(b, "x", &[3, 4])?;
        let integer = b.cast(x, DType::I32)?;
        let rounded = b.cast(integer, DType::F32)?;
        b.mul(x, rounded)
    });
    let whole = whole.at("x", samples::uniform(4, &[3, 4], -5.0, 5.0));
    vec![select, broadcast, same, whole]
}

fn reductions() -> Vec<Case> {
    use ReduceFn::*;
    let mut cases = Vec::new();
    for function in [Sum, Mean, Max, Min] {
        // Burn reduces one axis at a time, which is the same for all of these.
        for axes in [vec![1], vec![0, 2], vec![0, 1, 2]] {
            let op = Op::Reduce { function, axes, keep_dims: false };
            cases.push(case(&["x"], |b| one(b, op, &[2, 3, 4])));
        }
    }
    cases
}

fn matrix_products() -> Vec<Case> {
    let mut cases = Vec::new();
    for transpose_lhs in [false, true] {
        for transpose_rhs in [false, true] {
            let op = || Op::MatMul { transpose_lhs, transpose_rhs };
            let lhs = if transpose_lhs { [5, 7] } else { [7, 5] };
            let rhs = if transpose_rhs { [6, 5] } else { [5, 6] };
            cases.push(case(&["a", "b"], |b| two(b, op(), &lhs, &rhs)));
            let batched = |lead: &[u32], tail: [u32; 2]| [lead, &tail].concat();
            let (lhs, rhs) = (batched(&[2, 1], lhs), batched(&[3], rhs));
            cases.push(case(&["a", "b"], |b| two(b, op(), &lhs, &rhs)));
        }
    }
    cases
}

/// A convolution's geometry, its image and its weight: plain; all attributes
/// at once; groups with rows and columns that the stride leaves unread; one
/// group for each channel.
const CONVOLUTIONS: [(Conv2dAttrs, [u32; 4], [u32; 4]); 4] = {
    const fn attrs(
        stride: [u32; 2],
        padding: [u32; 4],
        dilation: [u32; 2],
        groups: u32,
    ) -> Conv2dAttrs {
        Conv2dAttrs { stride, padding, dilation, groups }
    }
    [
        (attrs([1, 1], [0; 4], [1, 1], 1), [2, 3, 6, 7], [4, 3, 3, 2]),
        (attrs([2, 1], [1, 0, 2, 1], [1, 2], 1), [2, 2, 6, 7], [3, 2, 3, 2]),
        (attrs([2, 2], [0; 4], [1, 1], 2), [2, 4, 6, 6], [2, 2, 3, 3]),
        (attrs([1, 2], [1; 4], [2, 1], 3), [2, 3, 7, 5], [6, 1, 3, 3]),
    ]
};

/// The shape of what an op of these operands gives.
fn shape_of(op: Op, lhs: &[u32], rhs: &[u32]) -> Vec<u32> {
    let mut b = GraphBuilder::new(&Limits::default());
    let y = two(&mut b, op, lhs, rhs).expect("operands that fit");
    b.shape(y).0.clone()
}

/// The convolution and both of its gradients, each of which is differentiated
/// with the two others.
fn convolutions() -> Vec<Case> {
    let mut cases = Vec::new();
    for (attrs, x, weight) in CONVOLUTIONS {
        let dy = shape_of(Op::Conv2d(attrs), &x, &weight);
        let [input, kernel] = [[x[2], x[3]], [weight[2], weight[3]]];
        cases.push(case(&["a", "b"], |b| two(b, Op::Conv2d(attrs), &x, &weight)));
        let op = Op::Conv2dInputGrad { attrs, input };
        cases.push(case(&["a", "b"], |b| two(b, op, &weight, &dy)));
        let op = Op::Conv2dWeightGrad { attrs, kernel };
        cases.push(case(&["a", "b"], |b| two(b, op, &x, &dy)));
    }
    cases
}

fn pooling() -> Vec<Case> {
    let mut cases = Vec::new();
    for attrs in [
        Pool2dAttrs { kernel: [2, 2], stride: [2, 2], padding: [0; 4] },
        Pool2dAttrs { kernel: [3, 2], stride: [1, 2], padding: [1, 2, 0, 1] },
        Pool2dAttrs { kernel: [2, 3], stride: [3, 1], padding: [0; 4] },
    ] {
        let x = [2, 2, 5, 6];
        cases.push(case(&["x"], |b| one(b, Op::MaxPool2d(attrs), &x)));
        let average = case(&["x"], |b| one(b, Op::AvgPool2d(attrs), &x));
        let pooled = average.graph.graph().nodes.iter();
        let pooled =
            pooled.zip(average.graph.types()).find(|(node, _)| node.op.name() == "avg_pool2d");
        let dy = pooled.expect("the pooling").1.shape.clone();
        cases.push(average);
        let op = Op::AvgPool2dGrad { attrs, input: [5, 6] };
        cases.push(case(&["x"], |b| one(b, op, dy.dims())));
    }
    cases
}

fn moved_elements() -> Vec<Case> {
    let (starts, ends) = (vec![0, 1, 2], vec![2, 3, 3]);
    let (low, high) = (vec![1, 0], vec![0, 2]);
    vec![
        case(&["x"], |b| one(b, Op::Reshape { shape: [3, 4].into() }, &[2, 6])),
        case(&["x"], |b| one(b, Op::Permute { axes: vec![2, 0, 1] }, &[2, 3, 4])),
        case(&["x"], |b| one(b, Op::Slice { starts, ends }, &[2, 3, 4])),
        case(&["x"], |b| one(b, Op::Pad { low, high, value: 1.5 }, &[2, 3])),
        case(&["a", "b"], |b| {
            let (x, y) = (float(b, "a", &[2, 3])?, float(b, "b", &[2, 1])?);
            b.concat(&[x, y, x], 1)
        }),
    ]
}

fn indexed_reads_and_writes() -> Vec<Case> {
    let gather = case(&["x"], |b| {
        let x = float(b, "x", &[3, 4, 2])?;
        let index = b.input("index", DType::I32, [2, 3])?;
        b.gather(x, index, 1)
    });
    let scatter = case(&["x"], |b| {
        let x = float(b, "x", &[2, 5, 3])?;
        let index = b.input("index", DType::I32, [5])?;
        b.scatter_add(x, index, 1, 4)
    });
    vec![
        gather.at("index", Tensor::i(&[2, 3], vec![1, 3, 1, 0, 1, 2])),
        scatter.at("index", Tensor::i(&[5], vec![3, 0, 3, 1, 0])),
    ]
}

fn soft_maxima_and_cross_entropy() -> Vec<Case> {
    let mut cases = Vec::new();
    for axis in [0, 1, 2] {
        cases.push(case(&["x"], |b| one(b, Op::Softmax { axis }, &[2, 3, 4])));
        cases.push(case(&["x"], |b| one(b, Op::LogSoftmax { axis }, &[2, 3, 4])));
    }
    let labels = || samples::labels(3, &[6], 4);
    let loss = case(&["x"], |b| {
        let x = float(b, "x", &[6, 4])?;
        let y = b.input("y", DType::I32, [6])?;
        b.cross_entropy(x, y)
    });
    let gradient = case(&["x", "d"], |b| {
        let x = float(b, "x", &[6, 4])?;
        let y = b.input("y", DType::I32, [6])?;
        let d = float(b, "d", &[6])?;
        b.push(Op::CrossEntropyGrad, &[x, y, d])
    });
    cases.extend([loss.at("y", labels()), gradient.at("y", labels())]);
    cases
}

/// What stands for the check of an op's gradient here.
enum Check {
    /// A case below compares it with burn's.
    Burn,
    /// It passes no gradient on: its operands are integers, or there are none.
    Constant,
    /// Burn has no derivative for it either; another test holds it.
    Elsewhere(&'static str),
}

/// One table that is both the exhaustive match and the list of all ops: an op
/// without a line does not compile, and a line without a case fails the test.
macro_rules! checks {
    ($($pattern:pat => $name:literal $check:expr,)*) => {
        const CHECKS: &[(&str, Check)] = &[$(($name, $check)),*];

        fn name(op: &Op) -> &'static str {
            match op { $($pattern => $name),* }
        }
    };
}

checks! {
    Op::Input { .. } => "input" Check::Burn,
    Op::Constant { .. } => "constant" Check::Constant,
    Op::Unary { .. } => "unary" Check::Burn,
    Op::Binary { .. } => "binary" Check::Burn,
    Op::Compare { .. } => "compare" Check::Constant,
    Op::Select => "select" Check::Burn,
    Op::Cast { .. } => "cast" Check::Burn,
    Op::Broadcast { .. } => "broadcast" Check::Burn,
    Op::Reduce { .. } => "reduce" Check::Burn,
    Op::ArgMax { .. } => "arg_max" Check::Constant,
    Op::MatMul { .. } => "matmul" Check::Burn,
    Op::Conv2d(_) => "conv2d" Check::Burn,
    Op::Conv2dInputGrad { .. } => "conv2d_input_grad" Check::Burn,
    Op::Conv2dWeightGrad { .. } => "conv2d_weight_grad" Check::Burn,
    Op::MaxPool2d(_) => "max_pool2d" Check::Burn,
    Op::MaxPool2dGrad(_) => "max_pool2d_grad" Check::Elsewhere(
        "its value is compared as the gradient of max_pool2d; it is flat in x, which \
         graph/tests/gradient.rs checks, and refuses a derivative in dy",
    ),
    Op::AvgPool2d(_) => "avg_pool2d" Check::Burn,
    Op::AvgPool2dGrad { .. } => "avg_pool2d_grad" Check::Burn,
    Op::Reshape { .. } => "reshape" Check::Burn,
    Op::Permute { .. } => "permute" Check::Burn,
    Op::Slice { .. } => "slice" Check::Burn,
    Op::Pad { .. } => "pad" Check::Burn,
    Op::Concat { .. } => "concat" Check::Burn,
    Op::Gather { .. } => "gather" Check::Burn,
    Op::ScatterAdd { .. } => "scatter_add" Check::Burn,
    Op::OneHot { .. } => "one_hot" Check::Constant,
    Op::Softmax { .. } => "softmax" Check::Burn,
    Op::LogSoftmax { .. } => "log_softmax" Check::Burn,
    Op::CrossEntropy => "cross_entropy" Check::Burn,
    Op::CrossEntropyGrad => "cross_entropy_grad" Check::Burn,
    Op::Random { .. } => "random" Check::Constant,
}

/// Every list of cases.
const FAMILIES: [fn() -> Vec<Case>; 10] = [
    unary_functions,
    binary_functions_with_broadcasting,
    selection_broadcast_and_casts,
    reductions,
    matrix_products,
    convolutions,
    pooling,
    moved_elements,
    indexed_reads_and_writes,
    soft_maxima_and_cross_entropy,
];

#[test]
fn single_ops_agree_with_burn() {
    FAMILIES.into_iter().for_each(|family| compare_all(family()));
}

/// The ops that a case differentiates: those between a variable and the loss.
fn differentiated(case: &Case) -> BTreeSet<&'static str> {
    let graph = forward(&case.graph);
    let wrt = |name: &str| case.graph.output_type(&format!("grad.{name}")).is_some();
    let mut depends = Vec::with_capacity(graph.graph().nodes.len());
    for (index, node) in graph.graph().nodes.iter().enumerate() {
        let variable = matches!(&node.op, Op::Input { name, .. } if wrt(name));
        let follows = node.inputs.iter().any(|operand| depends[operand.index()]);
        let float = graph.ty(NodeId(index as u32)).dtype == DType::F32;
        depends.push(float && (variable || follows));
    }
    let nodes = graph.graph().nodes.iter().zip(depends);
    nodes.filter(|(_, depends)| *depends).map(|(node, _)| name(&node.op)).collect()
}

#[test]
fn every_op_is_checked_or_says_why_not() {
    let cases = FAMILIES.into_iter().flat_map(|family| family());
    let checked: BTreeSet<&str> = cases.flat_map(|case| differentiated(&case)).collect();
    for (op, check) in CHECKS {
        match check {
            Check::Burn => assert!(checked.contains(op), "no case differentiates {op}"),
            Check::Constant => assert!(!checked.contains(op), "{op} is differentiated after all"),
            Check::Elsewhere(reason) => {
                assert!(!checked.contains(op), "{op} has a case, and a reason for none: {reason}");
            }
        }
    }
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
