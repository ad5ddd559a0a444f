//! Passes shrink graphs and change no result.

mod support;

use raven_graph::pass::{cse, dead_code, optimize, simplify};
use raven_graph::{DType, Distribution, GraphBuilder, GraphError, Limits, NodeId, ValidGraph};
use support::{Draw, run, samples};

fn built(build: impl FnOnce(&mut GraphBuilder) -> Result<NodeId, GraphError>) -> ValidGraph {
    let mut b = GraphBuilder::new(&Limits::default());
    let y = build(&mut b).expect("a graph");
    b.output("y", y);
    b.finish().expect("a graph")
}

fn ops(graph: &ValidGraph) -> Vec<&'static str> {
    graph.graph().nodes.iter().map(|node| node.op.name()).collect()
}

/// A pass leaves these ops and the same result.
fn check(
    pass: fn(&ValidGraph) -> Result<ValidGraph, GraphError>,
    graph: &ValidGraph,
    expected: &[&str],
) {
    let after = pass(graph).expect("a smaller graph");
    assert_eq!(ops(&after), expected);
    let bindings = samples::bindings(graph, 2);
    let draw = Draw { seed: 4, micro_batch: 1 };
    assert_eq!(run(graph, &bindings, draw), run(&after, &bindings, draw));
    assert_eq!(pass(&after).as_ref().map(ValidGraph::id), Ok(after.id()), "once is enough");
    assert!(after.cost().flops <= graph.cost().flops);
}

#[test]
fn dead_nodes_go_and_inputs_stay() {
    let graph = built(|b| {
        let x = b.input("x", DType::F32, [3])?;
        b.input("unused", DType::F32, [3])?;
        b.scale(x, 5.0)?;
        b.scale(x, 2.0)
    });
    check(dead_code, &graph, &["input", "input", "constant", "binary"]);
}

#[test]
fn equal_nodes_are_computed_once() {
    let graph = built(|b| {
        let x = b.input("x", DType::F32, [3])?;
        let (noise, same) =
            (b.random(Distribution::Uniform, [3], 1)?, b.random(Distribution::Uniform, [3], 1)?);
        let other = b.random(Distribution::Uniform, [3], 2)?;
        let (p, q, r) = (b.mul(x, noise)?, b.mul(x, same)?, b.mul(x, other)?);
        let sum = b.add(p, q)?;
        b.add(sum, r)
    });
    check(cse, &graph, &["input", "random", "random", "binary", "binary", "binary", "binary"]);
}

#[test]
fn signs_of_zero_are_not_equal() {
    let graph = built(|b| {
        let (zero, minus) = (b.scalar(0.0)?, b.scalar(-0.0)?);
        b.div(zero, minus)
    });
    assert_eq!(ops(&cse(&graph).expect("a graph")).len(), 3);
}

#[test]
fn work_that_does_nothing_goes() {
    let graph = built(|b| {
        let x = b.input("x", DType::F32, [2, 3])?;
        let x = b.push(raven_graph::Op::Cast { dtype: DType::F32 }, &[x])?;
        let x = b.permute(x, &[0, 1])?;
        let one = b.scalar(1.0)?;
        let ones = b.broadcast(one, &[2, 3].into())?;
        let x = b.mul(ones, x)?;
        let row = b.input("row", DType::F32, [3])?;
        let wide = b.broadcast(row, &[2, 3].into())?;
        b.add(x, wide)
    });
    check(optimize, &graph, &["input", "input", "binary"]);
}

#[test]
fn only_the_last_of_several_reshapes_stays() {
    let graph = built(|b| {
        let x = b.input("x", DType::F32, [2, 3])?;
        let y = b.reshape(x, [6])?;
        let y = b.reshape(y, [3, 2])?;
        let back = b.reshape(y, [2, 3])?;
        let z = b.add(back, x)?;
        let z = b.reshape(z, [6, 1])?;
        b.reshape(z, [1, 6])
    });
    check(optimize, &graph, &["input", "binary", "reshape"]);
}

#[test]
fn broadcasts_that_make_the_shape_stay() {
    let graph = built(|b| {
        let x = b.input("x", DType::F32, [1, 3])?;
        let row = b.input("row", DType::F32, [3])?;
        let wide = b.broadcast(row, &[2, 3].into())?;
        let two = b.scalar(2.0)?;
        let twos = b.broadcast(two, &[4, 1, 1].into())?;
        let y = b.add(x, wide)?;
        let y = b.mul(y, twos)?;
        // A factor of one that changes the shape is not the identity.
        let one = b.constant(DType::F32, [5, 1, 1, 1], 1.0)?;
        b.mul(y, one)
    });
    let kept = [
        "input",
        "input",
        "broadcast",
        "constant",
        "constant",
        "binary",
        "binary",
        "constant",
        "binary",
    ];
    let after = simplify(&graph).expect("a graph");
    assert_eq!(ops(&after), kept);
    let bindings = samples::bindings(&graph, 2);
    assert_eq!(run(&graph, &bindings, Draw::default()), run(&after, &bindings, Draw::default()));
}
