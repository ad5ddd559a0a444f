//! Gradients of every op against central finite differences of the reference.

mod support;

use raven_graph::{
    BinaryFn, CompareFn, Conv2dAttrs, DType, Distribution, GraphBuilder, GraphError, Limits,
    NodeId, Op, Pool2dAttrs, ReduceFn, UnaryFn, grad,
};
use support::finite::{check, check_op, rebind, with_gradients};
use support::{Tensor, samples};

type Built = Result<NodeId, GraphError>;

fn float(b: &mut GraphBuilder, name: &str, dims: &[u32]) -> Built {
    b.input(name, DType::F32, dims)
}

/// Inputs `a` and `b` of the given shapes, then an op.
fn two(b: &mut GraphBuilder, op: Op, lhs: &[u32], rhs: &[u32]) -> Built {
    let operands = [float(b, "a", lhs)?, float(b, "b", rhs)?];
    b.push(op, &operands)
}

fn one(b: &mut GraphBuilder, op: Op, dims: &[u32]) -> Built {
    let x = float(b, "x", dims)?;
    b.push(op, &[x])
}

#[test]
fn unary_functions() {
    use UnaryFn::*;
    for function in [Neg, Abs, Sign, Exp, Tanh, Sigmoid, Relu, Floor, Recip] {
        check_op(&["x"], |b| one(b, Op::Unary { function }, &[3, 4]));
    }
    for function in [Log, Sqrt] {
        let graph = with_gradients(&["x"], |b| one(b, Op::Unary { function }, &[3, 4]));
        let bindings = samples::bindings(&graph, 2);
        let positive = samples::uniform(9, &[3, 4], 0.2, 3.0);
        check(&graph, &rebind(bindings, "x", positive), 1);
    }
}

#[test]
fn binary_functions_with_broadcasting() {
    use BinaryFn::*;
    let shapes: [(&[u32], &[u32]); 6] = [
        (&[2, 3], &[2, 3]),
        (&[2, 3], &[3]),
        (&[2, 1, 3], &[4, 1]),
        (&[], &[2, 2]),
        (&[2, 2], &[1, 1]),
        (&[1], &[]),
    ];
    for function in [Add, Sub, Mul, Max, Min] {
        for (lhs, rhs) in shapes {
            check_op(&["a", "b"], |b| two(b, Op::Binary { function }, lhs, rhs));
        }
    }
    for function in [Div, Pow] {
        for (lhs, rhs) in shapes {
            let graph = with_gradients(&["a", "b"], |b| two(b, Op::Binary { function }, lhs, rhs));
            let bindings = samples::bindings(&graph, 3);
            let dims = |of: &[u32]| of.iter().map(|&d| d as usize).collect::<Vec<_>>();
            let bindings = rebind(bindings, "a", samples::uniform(1, &dims(lhs), 0.3, 2.0));
            check(&graph, &rebind(bindings, "b", samples::uniform(2, &dims(rhs), 0.5, 2.5)), 1);
        }
    }
}

#[test]
fn a_power_is_safe_at_zero() {
    let op = Op::Binary { function: BinaryFn::Pow };
    let graph = with_gradients(&["a", "b"], |b| two(b, op, &[4], &[4]));
    let mut bindings = samples::bindings(&graph, 3);
    bindings = rebind(bindings, "a", Tensor::f(&[4], vec![0.0, 0.0, -2.0, 3.0]));
    bindings = rebind(bindings, "b", Tensor::f(&[4], vec![0.0, 2.0, 3.0, 0.0]));
    bindings = rebind(bindings, "loss.weights", Tensor::f(&[4], vec![1.0; 4]));
    let outputs = support::run(&graph, &bindings, support::Draw::default());
    assert_eq!(outputs["grad.a"].floats(), [0.0, 0.0, 12.0, 0.0]);
    let base = outputs["grad.b"].floats();
    assert_eq!(&base[..3], [0.0, 0.0, 0.0]);
    assert!((base[3] - 3f64.ln()).abs() < 1e-12);
}

#[test]
fn select_passes_only_the_chosen_side() {
    check_op(&["a", "b"], |b| {
        let zero = b.scalar(0.0)?;
        let x = float(b, "x", &[2, 3])?;
        let condition = b.compare(CompareFn::Lt, x, zero)?;
        let sides = [float(b, "a", &[3])?, float(b, "b", &[2, 1])?];
        b.select(condition, sides[0], sides[1])
    });
    // The side that was not chosen may be infinite without harm.
    let (graph, _) = check_op(&["a"], |b| {
        let a = float(b, "a", &[3])?;
        let zero = b.scalar(0.0)?;
        let positive = b.compare(CompareFn::Gt, a, zero)?;
        b.select(positive, a, zero)
    });
    let bindings = rebind(
        samples::bindings(&graph, 1),
        "a",
        Tensor::f(&[3], vec![f64::NEG_INFINITY, f64::NAN, 1.0]),
    );
    let outputs = support::run(&graph, &bindings, support::Draw::default());
    assert_eq!(&outputs["grad.a"].floats()[..2], [0.0, 0.0]);
}

#[test]
fn casts_and_broadcasts() {
    check_op(&["x"], |b| one(b, Op::Cast { dtype: DType::F32 }, &[3]));
    check_op(&["x"], |b| one(b, Op::Broadcast { shape: [2, 3, 4].into() }, &[3, 1]));
    // Through an integer there is no derivative.
    let (graph, bindings) = check_op(&["x"], |b| {
        let x = float(b, "x", &[3])?;
        let whole = b.cast(x, DType::I32)?;
        b.cast(whole, DType::F32)
    });
    let outputs = support::run(&graph, &bindings, support::Draw::default());
    assert_eq!(outputs["grad.x"].floats(), [0.0; 3]);
}

#[test]
fn reductions() {
    use ReduceFn::*;
    for function in [Sum, Mean, Max, Min] {
        for axes in [vec![], vec![0], vec![1], vec![0, 2], vec![0, 1, 2]] {
            for keep_dims in [false, true] {
                let op = Op::Reduce { function, axes: axes.clone(), keep_dims };
                check_op(&["x"], |b| one(b, op, &[2, 3, 4]));
            }
        }
    }
}

#[test]
fn equal_extremes_share_the_gradient() {
    let op = Op::Reduce { function: ReduceFn::Max, axes: vec![0], keep_dims: false };
    let graph = with_gradients(&["x"], |b| one(b, op, &[4]));
    let bindings = support::bind([
        ("x", Tensor::f(&[4], vec![2.0, 1.0, 2.0, 0.0])),
        ("loss.weights", Tensor::f(&[], vec![3.0])),
    ]);
    let outputs = support::run(&graph, &bindings, support::Draw::default());
    assert_eq!(outputs["grad.x"].floats(), [1.5, 0.0, 1.5, 0.0]);
}

#[test]
fn matrix_products() {
    for transpose_lhs in [false, true] {
        for transpose_rhs in [false, true] {
            let op = || Op::MatMul { transpose_lhs, transpose_rhs };
            let lhs = if transpose_lhs { [4, 2] } else { [2, 4] };
            let rhs = if transpose_rhs { [3, 4] } else { [4, 3] };
            check_op(&["a", "b"], |b| two(b, op(), &lhs, &rhs));
            let batched = |lead: &[u32], tail: [u32; 2]| [lead, &tail].concat();
            check_op(&["a", "b"], |b| two(b, op(), &batched(&[2, 1], lhs), &batched(&[3], rhs)));
            check_op(&["a", "b"], |b| two(b, op(), &lhs, &batched(&[2], rhs)));
        }
    }
}

const CONVS: [(Conv2dAttrs, [u32; 4], [u32; 4]); 4] = [
    (
        Conv2dAttrs { stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 },
        [2, 2, 4, 5],
        [3, 2, 2, 3],
    ),
    (
        Conv2dAttrs { stride: [2, 1], padding: [1, 0, 2, 1], dilation: [1, 2], groups: 1 },
        [1, 2, 5, 4],
        [2, 2, 3, 2],
    ),
    // Stride 2 over 6 rows with a kernel of 3 leaves the last row unread.
    (
        Conv2dAttrs { stride: [2, 2], padding: [0; 4], dilation: [1, 1], groups: 2 },
        [2, 4, 6, 6],
        [2, 2, 3, 3],
    ),
    (
        Conv2dAttrs { stride: [1, 1], padding: [1; 4], dilation: [1, 1], groups: 3 },
        [1, 3, 3, 3],
        [3, 1, 3, 3],
    ),
];

#[test]
fn convolutions_and_their_gradients() {
    for (attrs, x, weight) in CONVS {
        let (graph, _) = check_op(&["a", "b"], |b| two(b, Op::Conv2d(attrs), &x, &weight));
        let y: Vec<u32> = graph
            .graph()
            .nodes
            .iter()
            .position(|node| matches!(node.op, Op::Conv2d(_)))
            .map(|index| graph.types()[index].shape.0.clone())
            .expect("the convolution");
        let input_grad = Op::Conv2dInputGrad { attrs, input: [x[2], x[3]] };
        check_op(&["a", "b"], |b| two(b, input_grad, &weight, &y));
        let weight_grad = Op::Conv2dWeightGrad { attrs, kernel: [weight[2], weight[3]] };
        check_op(&["a", "b"], |b| two(b, weight_grad, &x, &y));
    }
}

const POOLS: [Pool2dAttrs; 3] = [
    Pool2dAttrs { kernel: [2, 2], stride: [2, 2], padding: [0; 4] },
    Pool2dAttrs { kernel: [3, 2], stride: [1, 2], padding: [1, 2, 0, 1] },
    Pool2dAttrs { kernel: [2, 3], stride: [3, 1], padding: [0; 4] },
];

#[test]
fn pooling() {
    for attrs in POOLS {
        check_op(&["x"], |b| one(b, Op::MaxPool2d(attrs), &[2, 2, 5, 6]));
        let (graph, _) = check_op(&["x"], |b| one(b, Op::AvgPool2d(attrs), &[2, 2, 5, 6]));
        let pool = graph.graph().nodes.iter().position(|n| matches!(n.op, Op::AvgPool2d(_)));
        let y = graph.types()[pool.expect("the pool")].shape.0.clone();
        let op = Op::AvgPool2dGrad { attrs, input: [5, 6] };
        check_op(&["x"], |b| one(b, op, &y));
        // The pooling gradient is linear in `dy` and flat in `x`.
        let (graph, bindings) =
            check_op(&["a"], |b| two(b, Op::MaxPool2dGrad(attrs), &[2, 2, 5, 6], &y));
        let outputs = support::run(&graph, &bindings, support::Draw::default());
        assert!(outputs["grad.a"].floats().iter().all(|&g| g == 0.0));
    }
}

#[test]
fn moved_elements_move_back() {
    check_op(&["x"], |b| one(b, Op::Reshape { shape: [3, 4].into() }, &[2, 6]));
    check_op(&["x"], |b| one(b, Op::Permute { axes: vec![2, 0, 1] }, &[2, 3, 4]));
    let (starts, ends) = (vec![0, 1, 2], vec![2, 3, 3]);
    check_op(&["x"], |b| one(b, Op::Slice { starts, ends }, &[2, 3, 4]));
    let (low, high) = (vec![1, 0], vec![0, 2]);
    check_op(&["x"], |b| one(b, Op::Pad { low, high, value: 1.5 }, &[2, 3]));
    check_op(&["a", "b"], |b| {
        let (x, y) = (float(b, "a", &[2, 3])?, float(b, "b", &[2, 1])?);
        b.concat(&[x, y, x], 1)
    });
}

#[test]
fn indexed_reads_and_writes() {
    for (x, index, axis) in [([4, 3], vec![2, 2], 0), ([3, 4], vec![5], 1), ([3, 2], vec![], 0)] {
        let at = index.clone();
        let graph = with_gradients(&["x"], |b| {
            let x = float(b, "x", &x)?;
            let index = b.input("index", DType::I32, at.as_slice())?;
            b.gather(x, index, axis)
        });
        let count: usize = index.iter().map(|&d| d as usize).product();
        // Repeated entries, and one out of range at either end.
        let places = [1, -1, 1, 9, 0][..count].to_vec();
        let dims: Vec<usize> = index.iter().map(|&d| d as usize).collect();
        let bindings = rebind(samples::bindings(&graph, 4), "index", Tensor::i(&dims, places));
        check(&graph, &bindings, 1);
    }
    let graph = with_gradients(&["x"], |b| {
        let x = float(b, "x", &[2, 5, 3])?;
        let index = b.input("index", DType::I32, [5])?;
        b.scatter_add(x, index, 1, 4)
    });
    let index = Tensor::i(&[5], vec![3, 0, 3, -2, 4]);
    check(&graph, &rebind(samples::bindings(&graph, 4), "index", index), 1);
}

#[test]
fn soft_maxima() {
    for axis in [0, 1, 2] {
        check_op(&["x"], |b| one(b, Op::Softmax { axis }, &[2, 3, 4]));
        check_op(&["x"], |b| one(b, Op::LogSoftmax { axis }, &[2, 3, 4]));
    }
}

#[test]
fn cross_entropy_and_its_gradient() {
    let labels = Tensor::i(&[4], vec![2, 0, 7, -1]);
    let graph = with_gradients(&["x"], |b| {
        let x = float(b, "x", &[4, 3])?;
        let y = b.input("y", DType::I32, [4])?;
        b.cross_entropy(x, y)
    });
    check(&graph, &rebind(samples::bindings(&graph, 4), "y", labels.clone()), 1);
    let graph = with_gradients(&["x", "d"], |b| {
        let x = float(b, "x", &[4, 3])?;
        let y = b.input("y", DType::I32, [4])?;
        let d = float(b, "d", &[4])?;
        b.push(Op::CrossEntropyGrad, &[x, y, d])
    });
    check(&graph, &rebind(samples::bindings(&graph, 4), "y", labels), 1);
}

#[test]
fn helpers() {
    check_op(&["a", "b"], |b| {
        let (x, y) = (float(b, "a", &[3, 2])?, float(b, "b", &[3, 2])?);
        b.mean_squared_error(x, y)
    });
    let (graph, bindings) = check_op(&["x"], |b| {
        let x = float(b, "x", &[40])?;
        b.dropout(x, 0.25, 7)
    });
    // The derivative is the mask, scaled: 0 or 1 / 0.75.
    let ones = Tensor::f(&[40], vec![1.0; 40]);
    let bindings = rebind(bindings, "loss.weights", ones);
    let outputs = support::run(&graph, &bindings, support::Draw { seed: 1, micro_batch: 2 });
    let mask = outputs["grad.x"].floats();
    let dropped = mask.iter().filter(|&&m| m == 0.0).count();
    assert!((3..18).contains(&dropped), "{dropped} of 40 dropped at rate 0.25");
    assert!(mask.iter().all(|&m| m == 0.0 || (m - 1.0 / 0.75).abs() < 1e-6));
    // A random operand and everything that feeds no f32 contribute nothing.
    check_op(&["x"], |b| {
        let x = float(b, "x", &[3, 4])?;
        let noise = b.random(Distribution::Normal, [3, 4], 1)?;
        let noisy = b.mul(x, noise)?;
        let best = b.arg_max(x, 1)?;
        let hot = b.one_hot(best, 4)?;
        b.add(noisy, hot)
    });
}

#[test]
fn second_derivatives_compose() {
    let mut b = GraphBuilder::new(&Limits::default());
    let build = |b: &mut GraphBuilder| -> Built {
        let x = float(b, "x", &[2, 1, 4, 4])?;
        let weight = float(b, "w", &[2, 1, 3, 3])?;
        let y = b.conv2d(x, weight, CONVS[0].0)?;
        let y = b.unary(UnaryFn::Tanh, y)?;
        let y = b.mul(y, y)?;
        b.sum_all(y)
    };
    let loss = build(&mut b).expect("a loss");
    let weight = NodeId(1);
    let first = grad(&mut b, loss, &[weight]).expect("a gradient")[0];
    let square = b.mul(first, first).expect("a product");
    let penalty = b.sum_all(square).expect("a sum");
    let graph = support::finite::finish(b, penalty, &["w", "x"]);
    check(&graph, &samples::bindings(&graph, 8), 1);
}

#[test]
fn refusals() {
    let mut b = GraphBuilder::new(&Limits::default());
    let build = |b: &mut GraphBuilder| -> Result<[NodeId; 3], GraphError> {
        let x = float(b, "x", &[1, 1, 4, 4])?;
        let pooled = b.max_pool2d(x, POOLS[0])?;
        let dx = b.push(Op::MaxPool2dGrad(POOLS[0]), &[x, pooled])?;
        Ok([x, pooled, b.sum_all(dx)?])
    };
    let [x, pooled, loss] = build(&mut b).expect("a graph");
    let refused = grad(&mut b, loss, &[x]);
    assert!(matches!(
        refused,
        Err(GraphError::NoGradient { op: "max_pool2d_grad", operand: 1, .. })
    ));
    assert!(matches!(grad(&mut b, pooled, &[x]), Err(GraphError::GradientOf { role: "loss", .. })));
    assert!(matches!(
        grad(&mut b, NodeId(99), &[x]),
        Err(GraphError::GradientOf { role: "loss", .. })
    ));
    let index = b.input("i", DType::I32, [1]).expect("an input");
    assert!(matches!(
        grad(&mut b, loss, &[index]),
        Err(GraphError::GradientOf { role: "wrt", .. })
    ));
}

#[test]
fn nothing_is_computed_for_operands_that_lead_nowhere() {
    let graph = with_gradients(&["w"], |b| {
        let x = float(b, "x", &[2, 1, 5, 5])?;
        let w = float(b, "w", &[3, 1, 2, 2])?;
        b.conv2d(x, w, CONVS[0].0)
    });
    let ops = graph.graph().nodes.iter().map(|node| node.op.name()).collect::<Vec<_>>();
    assert!(ops.contains(&"conv2d_weight_grad"));
    assert!(!ops.contains(&"conv2d_input_grad"));
    // What the loss does not depend on has a zero gradient of its shape.
    let (graph, bindings) = check_op(&["a", "b"], |b| {
        let a = float(b, "a", &[2])?;
        float(b, "b", &[3])?;
        b.scale(a, 2.0)
    });
    let outputs = support::run(&graph, &bindings, support::Draw::default());
    assert_eq!(outputs["grad.b"].floats(), [0.0; 3]);
}
