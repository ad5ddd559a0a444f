//! Property tests: whatever bytes or attributes arrive, the answer is a valid
//! graph or a typed error.

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use raven_graph::canonical::{decode, encode};
use raven_graph::pass::{cse, dead_code, optimize, simplify};
use raven_graph::{
    BinaryFn, CompareFn, Conv2dAttrs, DType, Distribution, Graph, GraphError, Limits, Node, NodeId,
    Op, Output, Pool2dAttrs, ReduceFn, Shape, UnaryFn, ValidGraph, cut_layers, cut_master,
};

/// Extents and counts: mostly small, sometimes at the edges of 32 bits.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => 0u32..6,
        1 => prop_oneof![Just(u32::MAX), Just(u32::MAX - 1), Just(1 << 31), Just(1 << 16)],
        1 => any::<u32>(),
    ]
}

fn numbers() -> impl Strategy<Value = Vec<u32>> {
    vec(number(), 0..6)
}

fn shape() -> impl Strategy<Value = Shape> {
    numbers().prop_map(Shape)
}

fn dtype() -> impl Strategy<Value = DType> {
    prop_oneof![6 => Just(DType::F32), 2 => Just(DType::I32), 1 => Just(DType::U8), 1 => Just(DType::Bool)]
}

fn pair() -> impl Strategy<Value = [u32; 2]> {
    [number(), number()]
}

fn four() -> impl Strategy<Value = [u32; 4]> {
    [number(), number(), number(), number()]
}

fn conv() -> impl Strategy<Value = Conv2dAttrs> {
    (pair(), four(), pair(), number()).prop_map(|(stride, padding, dilation, groups)| Conv2dAttrs {
        stride,
        padding,
        dilation,
        groups,
    })
}

fn pool() -> impl Strategy<Value = Pool2dAttrs> {
    (pair(), pair(), four()).prop_map(|(kernel, stride, padding)| Pool2dAttrs {
        kernel,
        stride,
        padding,
    })
}

fn unary() -> impl Strategy<Value = UnaryFn> {
    use UnaryFn::*;
    prop::sample::select(vec![Neg, Abs, Sign, Exp, Log, Sqrt, Recip, Tanh, Sigmoid, Relu, Floor])
}

fn binary() -> impl Strategy<Value = BinaryFn> {
    use BinaryFn::*;
    prop::sample::select(vec![Add, Sub, Mul, Div, Max, Min, Pow])
}

fn compare() -> impl Strategy<Value = CompareFn> {
    use CompareFn::*;
    prop::sample::select(vec![Eq, Lt, Le, Gt, Ge])
}

fn reduction() -> impl Strategy<Value = ReduceFn> {
    use ReduceFn::*;
    prop::sample::select(vec![Sum, Mean, Max, Min])
}

fn plain_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        ("[a-d]{0,2}", dtype(), shape()).prop_map(|(name, dtype, shape)| Op::Input {
            name,
            dtype,
            shape
        }),
        (dtype(), shape(), any::<f32>()).prop_map(|(dtype, shape, value)| Op::Constant {
            dtype,
            shape,
            value
        }),
        (dtype(), shape(), 0u8..2).prop_map(|(dtype, shape, value)| {
            Op::Constant { dtype, shape, value: value.into() }
        }),
        unary().prop_map(|function| Op::Unary { function }),
        binary().prop_map(|function| Op::Binary { function }),
        compare().prop_map(|function| Op::Compare { function }),
        Just(Op::Select),
        dtype().prop_map(|dtype| Op::Cast { dtype }),
        shape().prop_map(|shape| Op::Broadcast { shape }),
        (reduction(), numbers(), any::<bool>())
            .prop_map(|(function, axes, keep_dims)| Op::Reduce { function, axes, keep_dims }),
        number().prop_map(|axis| Op::ArgMax { axis }),
        (any::<bool>(), any::<bool>())
            .prop_map(|(transpose_lhs, transpose_rhs)| Op::MatMul { transpose_lhs, transpose_rhs }),
        (any::<bool>(), shape(), any::<u32>()).prop_map(|(uniform, shape, stream)| Op::Random {
            distribution: if uniform { Distribution::Uniform } else { Distribution::Normal },
            shape,
            stream
        }),
    ]
}

fn moving_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        conv().prop_map(Op::Conv2d),
        (conv(), pair()).prop_map(|(attrs, input)| Op::Conv2dInputGrad { attrs, input }),
        (conv(), pair()).prop_map(|(attrs, kernel)| Op::Conv2dWeightGrad { attrs, kernel }),
        pool().prop_map(Op::MaxPool2d),
        pool().prop_map(Op::MaxPool2dGrad),
        pool().prop_map(Op::AvgPool2d),
        (pool(), pair()).prop_map(|(attrs, input)| Op::AvgPool2dGrad { attrs, input }),
        shape().prop_map(|shape| Op::Reshape { shape }),
        numbers().prop_map(|axes| Op::Permute { axes }),
        (numbers(), numbers()).prop_map(|(starts, ends)| Op::Slice { starts, ends }),
        (numbers(), numbers(), any::<f32>()).prop_map(|(low, high, value)| Op::Pad {
            low,
            high,
            value
        }),
        number().prop_map(|axis| Op::Concat { axis }),
        number().prop_map(|axis| Op::Gather { axis }),
        (number(), number()).prop_map(|(axis, size)| Op::ScatterAdd { axis, size }),
        number().prop_map(|depth| Op::OneHot { depth }),
        number().prop_map(|axis| Op::Softmax { axis }),
        number().prop_map(|axis| Op::LogSoftmax { axis }),
        Just(Op::CrossEntropy),
        Just(Op::CrossEntropyGrad),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![plain_op(), moving_op()]
}

fn node() -> impl Strategy<Value = Node> {
    (op(), vec((0u32..12).prop_map(NodeId), 0..4)).prop_map(|(op, inputs)| Node { op, inputs })
}

/// Any graph, hardly ever valid.
fn graph() -> impl Strategy<Value = Graph> {
    let output = ("[a-d]{0,2}", 0u32..12);
    let output = output.prop_map(|(name, node)| Output { name, node: NodeId(node) });
    (vec(node(), 0..10), vec(output, 0..3)).prop_map(|(nodes, outputs)| Graph {
        version: 1,
        nodes,
        outputs,
    })
}

/// A valid graph: three inputs, then the nodes of a random list that fit,
/// each reading earlier ones, all of them outputs.
fn valid() -> impl Strategy<Value = ValidGraph> {
    vec((op(), vec(any::<u32>(), 1..4)), 1..40).prop_map(|list| {
        let limits = Limits { elements_max: 200, ..Limits::default() };
        let mut b = raven_graph::GraphBuilder::new(&limits);
        b.input("x", DType::F32, [2, 3]).expect("an input");
        b.input("w", DType::F32, [3, 3]).expect("an input");
        b.input("i", DType::I32, [3]).expect("an input");
        b.input("image", DType::F32, [1, 2, 4, 4]).expect("an input");
        for (op, reads) in list.into_iter().filter(|(op, _)| !matches!(op, Op::Input { .. })) {
            let nodes = b.nodes().len() as u32;
            let reads: Vec<NodeId> = reads.iter().map(|read| NodeId(read % nodes)).collect();
            // Most do not fit; those that take fewer operands get another try.
            let _ = b.push(op.clone(), &reads).or_else(|_| b.push(op, &reads[..1]));
        }
        for node in (3..b.nodes().len() as u32).step_by(2) {
            b.output(format!("y{node}"), NodeId(node));
        }
        b.finish().expect("only nodes that fit were kept")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn inference_never_panics(graph in graph()) {
        let _ = graph.validate(&Limits::default());
    }

    #[test]
    fn inference_never_panics_without_limits(graph in graph()) {
        let wide = Limits { elements_max: u64::MAX, bytes_max: u64::MAX, flops_max: u64::MAX, ..Limits::default() };
        let _ = graph.validate(&wide);
    }

    #[test]
    fn every_op_has_a_row_in_the_table(op in op()) {
        let row = format!("| `{}`", op.name());
        let softmax = "| `softmax`, `log_softmax`";
        let table = include_str!("../OPS.md");
        prop_assert!(table.contains(&row) || op.name() == "log_softmax" && table.contains(softmax));
    }

    #[test]
    fn the_canonical_form_round_trips(graph in graph()) {
        let bytes = encode(&graph);
        let decoded = decode(&bytes, &Limits::default()).expect("its own form");
        // Not `==` on graphs: an attribute may be a NaN.
        prop_assert_eq!(encode(&decoded), bytes);
    }

    #[test]
    fn truncated_canonical_bytes_are_refused(graph in graph(), cut in any::<prop::sample::Index>()) {
        let bytes = encode(&graph);
        let cut = cut.index(bytes.len());
        prop_assert!(decode(&bytes[..cut], &Limits::default()).is_err());
    }

    #[test]
    fn damaged_canonical_bytes_decode_to_themselves_or_not_at_all(
        graph in graph(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(&graph);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        // One graph has one form: what decodes must encode to the same bytes.
        if let Ok(decoded) = decode(&bytes, &Limits::default()) {
            prop_assert_eq!(encode(&decoded), bytes);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let headed = [b"RVNG\x01\0\0\0".as_slice(), &bytes].concat();
        for bytes in [bytes, headed] {
            let _ = ValidGraph::from_canonical(&bytes, &Limits::default());
            let _ = ValidGraph::from_json(&bytes, &Limits::default());
        }
    }

    #[test]
    fn damaged_json_never_panics(
        graph in valid(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut json = graph.to_json();
        for (at, byte) in edits {
            let at = at.index(json.len());
            json[at] = byte;
        }
        let _ = ValidGraph::from_json(&json, &Limits::default());
        json.truncate(cut.index(json.len()));
        prop_assert!(ValidGraph::from_json(&json, &Limits::default()).is_err());
    }

    #[test]
    fn valid_graphs_survive_both_forms(graph in valid()) {
        let limits = Limits::default();
        let json = ValidGraph::from_json(&graph.to_json(), &limits);
        prop_assert_eq!(json.as_ref(), Ok(&graph));
        let canonical = ValidGraph::from_canonical(&graph.to_canonical(), &limits);
        prop_assert_eq!(canonical.as_ref(), Ok(&graph));
    }

    #[test]
    fn passes_and_cuts_keep_every_result(graph in valid(), at in any::<prop::sample::Index>()) {
        let bindings = support::samples::bindings(&graph, 1);
        let draw = support::Draw { seed: 2, micro_batch: 0 };
        // NaN and infinity are compared by their text.
        let show = |outputs: &support::Bindings| format!("{outputs:?}");
        let whole = show(&support::run(&graph, &bindings, draw));
        for pass in [simplify, cse, dead_code, optimize] {
            let smaller = pass(&graph).expect("a pass");
            prop_assert!(smaller.graph().nodes.len() <= graph.graph().nodes.len());
            prop_assert!(smaller.cost().flops <= graph.cost().flops);
            prop_assert_eq!(&show(&support::run(&smaller, &bindings, draw)), &whole);
        }
        let boundary = NodeId(at.index(graph.graph().nodes.len()) as u32);
        prop_assert!(cut_layers(&graph, &[boundary]).is_ok());
        prop_assert!(cut_master(&graph, &["w".into()], 2).is_ok());
    }
}

/// Cases per property; the environment may ask for more.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    asked.unwrap_or(512)
}

#[test]
fn lengths_are_checked_before_memory_is_taken() {
    let limits = Limits::default();
    // A header that claims four billion nodes, operands, characters, outputs.
    let head = b"RVNG\x01\0\0\0".to_vec();
    let nodes = [head.as_slice(), &[0xff; 4]].concat();
    assert!(matches!(decode(&nodes, &limits), Err(GraphError::Nodes { found: 0xffff_ffff, .. })));
    let claim = [head.as_slice(), &[1, 0, 0, 0, 5], &[0xff; 4], &[0; 64]].concat();
    assert!(matches!(decode(&claim, &limits), Err(GraphError::Operands { node: 0, .. })));
    let name = [head.as_slice(), &[1, 0, 0, 0, 0], &[0xff; 4], &[0; 64]].concat();
    assert!(matches!(decode(&name, &limits), Err(GraphError::Name { .. })));
    let list = [head.as_slice(), &[1, 0, 0, 0, 18], &[0xff; 4], &[0; 64]].concat();
    assert!(matches!(decode(&list, &limits), Err(GraphError::Rank { node: 0, .. })));
    let outputs = [head.as_slice(), &[0, 0, 0, 0], &[0xff; 4]].concat();
    assert!(matches!(decode(&outputs, &limits), Err(GraphError::Outputs { .. })));
    let short = [head.as_slice(), &[0, 0x20, 0, 0]].concat();
    assert!(matches!(decode(&short, &limits), Err(GraphError::Canonical { .. })));
    let long = vec![0; 9 << 20];
    assert!(matches!(decode(&long, &limits), Err(GraphError::DocumentBytes { .. })));
}
