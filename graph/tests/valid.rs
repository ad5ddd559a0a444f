//! The border: what a graph from outside may ask for, and what it costs.

use GraphError as E;
use raven_graph::{
    BinaryFn, Conv2dAttrs, DType, Graph, GraphBuilder, GraphError, GraphId, Limits, Node, NodeId,
    Op, Output, Shape, UnaryFn, ValidGraph,
};

/// `y = relu(x w + b)` with a dead branch.
const DOCUMENT: &str = r#"{"version": 1, "nodes": [
    {"op": "input", "name": "x", "dtype": "f32", "shape": [2, 3]},
    {"op": "input", "name": "w", "dtype": "f32", "shape": [3, 4]},
    {"op": "constant", "dtype": "f32", "shape": [4], "value": -0.5},
    {"op": "matmul", "transpose_lhs": false, "transpose_rhs": false, "inputs": [0, 1]},
    {"op": "unary", "function": "exp", "inputs": [3]},
    {"op": "binary", "function": "add", "inputs": [3, 2]},
    {"op": "unary", "function": "relu", "inputs": [5]}
], "outputs": [{"name": "y", "node": 6}]}"#;

fn parse(json: &str) -> Result<ValidGraph, GraphError> {
    ValidGraph::from_json(json.as_bytes(), &Limits::default())
}

fn edited(from: &str, to: &str) -> Result<ValidGraph, GraphError> {
    assert!(DOCUMENT.contains(from), "{from}");
    parse(&DOCUMENT.replace(from, to))
}

fn document() -> ValidGraph {
    parse(DOCUMENT).expect("the document is valid")
}

#[test]
fn a_document_becomes_a_graph() {
    let graph = document();
    let names: Vec<&str> = graph.inputs().iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["x", "w"]);
    assert_eq!(graph.output_type("y").map(ToString::to_string), Some("f32[2, 4]".into()));
    assert_eq!(graph.output_type("z"), None);
    assert!(graph.is_live(NodeId(6)) && !graph.is_live(NodeId(4)));
    let again = ValidGraph::from_json(&graph.to_json(), &Limits::default());
    assert_eq!(again.as_ref(), Ok(&graph));
    let again = ValidGraph::from_canonical(&graph.to_canonical(), &Limits::default());
    assert_eq!(again.as_ref(), Ok(&graph));
}

/// If this fails, every stored graph id has changed: make a new version.
#[test]
fn the_content_id_is_pinned() {
    let id = document().id();
    assert_eq!(id.to_string(), "67cad3b7683266277de0e9a8d9eb24ef03b099a0d69aa3fd99bafa21068d04f4");
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!(serde_json::to_string(&id).ok(), Some(format!("\"{id}\"")));
    assert_eq!(serde_json::from_str::<GraphId>(&format!("\"{id}\"")).ok(), Some(id));
    for bad in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
        assert_eq!(bad.parse::<GraphId>(), Err(E::Id { found: bad.len() }));
    }
}

#[test]
fn the_id_depends_on_content_and_not_on_text() {
    let id = document().id();
    let spaced = parse(&DOCUMENT.replace(": ", " :\n")).expect("valid");
    assert_eq!(spaced.id(), id);
    for (from, to) in [
        ("-0.5", "-0.25"),
        ("\"relu\"", "\"abs\""),
        ("\"name\": \"x\"", "\"name\": \"v\""),
        ("\"y\"", "\"z\""),
        ("[3, 2]}", "[2, 3]}"),
    ] {
        assert_ne!(edited(from, to).expect(to).id(), id, "{from} to {to}");
    }
    let positive = edited("-0.5", "0.0").expect("valid").id();
    assert_ne!(edited("-0.5", "-0.0").expect("valid").id(), positive);
}

#[test]
fn documents_are_refused_by_field() {
    type Check = fn(&GraphError) -> bool;
    let table: [(&str, &str, Check); 16] = [
        ("\"version\": 1", "\"version\": 2", |e| matches!(e, E::Version { expected: 1, found: 2 })),
        ("\"version\": 1", "\"version\": 1, \"code\": 1", |e| matches!(e, E::Json { .. })),
        ("\"op\": \"matmul\"", "\"op\": \"eval\"", |e| matches!(e, E::Json { .. })),
        ("\"function\": \"exp\"", "\"function\": \"eval\"", |e| matches!(e, E::Json { .. })),
        ("[2, 3]}", "[2, -3]}", |e| matches!(e, E::Json { .. })),
        ("\"name\": \"w\"", "\"name\": \"x\"", |e| matches!(e, E::DuplicateInput { node: 1, .. })),
        ("\"name\": \"w\"", "\"name\": \"\"", |e| matches!(e, E::Name { field: "input", .. })),
        ("\"name\": \"w\"", "\"name\": \"a\\u0000\"", |e| matches!(e, E::Name { .. })),
        ("[3, 2]}", "[3, 5]}", |e| matches!(e, E::OperandOrder { node: 5, operand: 5 })),
        ("[3, 2]}", "[3, 4000000000]}", |e| matches!(e, E::OperandOrder { node: 5, .. })),
        ("[3, 2]}", "[3]}", |e| matches!(e, E::Op { node: 5, op: "binary", .. })),
        ("[0, 1]}", "[1, 0]}", |e| matches!(e, E::Op { node: 3, op: "matmul", .. })),
        ("\"node\": 6", "\"node\": 7", |e| matches!(e, E::OutputNode { node: 7, nodes: 7, .. })),
        ("{\"name\": \"y\", \"node\": 6}", "", |e| *e == E::NoOutputs),
        ("-0.5", "1e39", |e| matches!(e, E::Op { node: 2, .. })),
        (
            "{\"name\": \"y\", \"node\": 6}",
            "{\"name\": \"y\", \"node\": 6}, {\"name\": \"y\", \"node\": 3}",
            |e| matches!(e, E::DuplicateOutput { .. }),
        ),
    ];
    for (from, to, check) in table {
        let error = edited(from, to).expect_err(to);
        assert!(check(&error), "{from} to {to}: {error:?}");
    }
}

/// A graph of a million nodes, of rank 40, of 10^12 elements.
#[test]
fn oversized_graphs_name_their_limit() {
    let million = format!(
        "{{\"version\":1,\"nodes\":[{}{{}}],\"outputs\":[]}}",
        "{\"op\":\"select\"},".repeat(1_000_000)
    );
    let error = parse(&million).expect_err("too long");
    assert_eq!(error, E::DocumentBytes { limit: 8 << 20, found: million.len() as u64 });
    let wide = Limits { json_bytes_max: 1 << 30, ..Limits::default() };
    let error = ValidGraph::from_json(million.as_bytes(), &wide).expect_err("too many nodes");
    assert_eq!(error, E::Nodes { limit: 16_384, found: 16_385 });

    let rank_40 = edited("[2, 3]}", &format!("{:?}}}", [1u32; 40])).expect_err("rank");
    assert_eq!(rank_40, E::Rank { node: 0, limit: 8, found: 9 });
    let shape = Shape(vec![1; 40]);
    let op = Op::Input { name: "x".into(), dtype: DType::F32, shape };
    assert_eq!(single(op).expect_err("rank"), E::Rank { node: 0, limit: 8, found: 40 });

    let elements = edited("[2, 3]}", "[1000000, 1000000]}").expect_err("elements");
    assert_eq!(elements, E::Elements { node: 0, limit: 1 << 28, found: 1_000_000_000_000 });
    let overflow = edited("[2, 3]}", "[4000000000, 4000000000, 4000000000]}").expect_err("2^96");
    assert_eq!(overflow, E::Elements { node: 0, limit: 1 << 28, found: u64::MAX });
    assert!(edited("\"name\": \"w\"", &format!("\"name\": {:?}", "n".repeat(129))).is_err());
}

fn single(op: Op) -> Result<ValidGraph, GraphError> {
    let nodes = vec![Node { op, inputs: vec![] }];
    let outputs = vec![Output { name: "y".into(), node: NodeId(0) }];
    Graph { version: 1, nodes, outputs }.validate(&Limits::default())
}

#[test]
fn memory_and_work_are_bounded_over_live_nodes() {
    let chain = |limits: &Limits, used: bool| {
        let mut b = GraphBuilder::new(limits);
        let x = b.input("x", DType::F32, [1 << 10, 1 << 10])?;
        let mut y = x;
        for _ in 0..10 {
            y = b.matmul(y, x, false, false)?;
        }
        b.output("y", if used { y } else { x });
        b.finish()
    };
    let mib = 4 << 20;
    let flops = 10 * (2 << 30);
    let fits = Limits { bytes_max: 11 * mib, flops_max: flops, ..Limits::default() };
    let cost = chain(&fits, true).expect("within the limits").cost();
    assert_eq!((cost.flops, cost.bytes_in, cost.bytes_out), (flops, mib, mib));
    // The input and two generations of the product.
    assert_eq!(cost.bytes_peak, 3 * mib);
    let less = Limits { bytes_max: 11 * mib - 1, ..fits.clone() };
    assert_eq!(chain(&less, true), Err(E::Bytes { limit: less.bytes_max, found: 11 * mib }));
    let less = Limits { flops_max: flops - 1, ..fits.clone() };
    assert_eq!(chain(&less, true), Err(E::Flops { limit: flops - 1, found: flops }));
    let free = Limits { bytes_max: mib, flops_max: 0, ..fits };
    assert_eq!(chain(&free, false).map(|graph| graph.cost().flops), Ok(0));
}

#[test]
fn costs_by_op() {
    let flops = |op: Op, operands: &[&[u32]]| {
        let mut b = GraphBuilder::new(&Limits::default());
        let inputs: Vec<NodeId> = operands
            .iter()
            .enumerate()
            .map(|(i, dims)| b.input(format!("{i}"), DType::F32, *dims).expect("an input"))
            .collect();
        let y = b.push(op, &inputs).expect("an op");
        b.output("y", y);
        b.finish().expect("a graph").cost().flops
    };
    let matmul = |transpose_lhs| Op::MatMul { transpose_lhs, transpose_rhs: false };
    assert_eq!(flops(matmul(false), &[&[7, 2, 3], &[3, 5]]), 7 * 2 * 2 * 3 * 5);
    assert_eq!(flops(matmul(true), &[&[3, 2], &[3, 5]]), 2 * 2 * 3 * 5);
    let attrs = Conv2dAttrs { stride: [1, 1], padding: [1; 4], dilation: [1, 1], groups: 2 };
    let conv = 2 * (2 * 6 * 8 * 8) * (2 * 3 * 3);
    assert_eq!(flops(Op::Conv2d(attrs), &[&[2, 4, 8, 8], &[6, 2, 3, 3]]), conv);
    let input_grad = Op::Conv2dInputGrad { attrs, input: [8, 8] };
    assert_eq!(flops(input_grad, &[&[6, 2, 3, 3], &[2, 6, 8, 8]]), conv);
    let weight_grad = Op::Conv2dWeightGrad { attrs, kernel: [3, 3] };
    assert_eq!(flops(weight_grad, &[&[2, 4, 8, 8], &[2, 6, 8, 8]]), conv);
    assert_eq!(flops(Op::Binary { function: BinaryFn::Add }, &[&[4, 1], &[5]]), 20);
    assert_eq!(flops(Op::Unary { function: UnaryFn::Tanh }, &[&[4]]), 64);
    assert_eq!(flops(Op::Reshape { shape: [4].into() }, &[&[2, 2]]), 0);
}

#[test]
fn builders_report_where_they_fail() {
    let limits = Limits { nodes_max: 2, ..Limits::default() };
    let mut b = GraphBuilder::new(&limits);
    let x = b.input("x", DType::F32, [2]).expect("an input");
    let y = b.input("y", DType::I32, [2]).expect("an input");
    assert_eq!(b.input("z", DType::F32, [2]), Err(E::Nodes { limit: 2, found: 3 }));
    let mut b = GraphBuilder::resume(
        {
            b.output("x", x);
            b.finish().expect("a graph")
        },
        &Limits::default(),
    );
    assert!(matches!(b.add(x, y), Err(E::Op { node: 2, op: "binary", .. })));
    assert!(matches!(b.add(x, NodeId(9)), Err(E::OperandOrder { node: 2, operand: 9 })));
    assert!(matches!(b.slice_axis(x, 3, 0, 1), Err(E::Op { op: "slice", .. })));
    assert!(matches!(b.dropout(x, 1.0, 0), Err(E::Parameter { field: "rate", .. })));
    assert!(matches!(b.scalar(f32::NAN), Err(E::Op { op: "constant", .. })));
    let sum = b.add(x, x).expect("a refusal leaves no node behind");
    assert_eq!(sum, NodeId(2));
}
