//! Derivatives by central finite differences.

use super::{Bindings, Data, Draw, Tensor, run, samples};
use raven_graph::{GraphBuilder, GraphError, Limits, NodeId, ValidGraph, grad};

/// Step of the differences: the error of a central difference in f64 is about
/// `step^2` times the third derivative plus `1e-16 / step`.
const STEP: f64 = 1e-5;

/// A graph with outputs `loss` and `grad.<name>` for each f32 input in `wrt`.
/// The loss weighs every element of the result differently, so that no error
/// cancels out.
pub fn with_gradients(
    wrt: &[&str],
    build: impl FnOnce(&mut GraphBuilder) -> Result<NodeId, GraphError>,
) -> ValidGraph {
    let mut b = GraphBuilder::new(&Limits::default());
    let y = build(&mut b).expect("the graph under test");
    let weights = b.input("loss.weights", raven_graph::DType::F32, b.shape(y).clone());
    let weighted = b.mul(y, weights.expect("an input")).expect("a product");
    let loss = b.sum_all(weighted).expect("a sum");
    finish(b, loss, wrt)
}

/// Adds gradients to a graph with a scalar loss.
pub fn finish(mut b: GraphBuilder, loss: NodeId, wrt: &[&str]) -> ValidGraph {
    let probe = {
        let mut probe = b.clone();
        probe.output("loss", loss);
        probe.finish().expect("the graph under test")
    };
    let nodes: Vec<NodeId> =
        wrt.iter().map(|name| probe.input(name).expect("an input of that name").node).collect();
    let gradients = grad(&mut b, loss, &nodes).expect("a gradient");
    b.output("loss", loss);
    for (name, gradient) in wrt.iter().zip(gradients) {
        b.output(format!("grad.{name}"), gradient);
    }
    b.finish().expect("a gradient graph")
}

/// Checks every gradient output against finite differences; returns the
/// largest difference. `every` skips elements of large tensors.
pub fn check(graph: &ValidGraph, bindings: &Bindings, every: usize) -> f64 {
    let draw = Draw { seed: 11, micro_batch: 3 };
    let outputs = run(graph, bindings, draw);
    let loss = |bindings: &Bindings| run(graph, bindings, draw)["loss"].floats()[0];
    let mut worst: f64 = 0.0;
    for (name, analytic) in &outputs {
        let Some(name) = name.strip_prefix("grad.") else { continue };
        for element in (0..analytic.len()).step_by(every) {
            let moved = |by: f64| {
                let mut moved = bindings.clone();
                let tensor = moved.get_mut(name).expect("an input of that name");
                let Data::F(data) = &mut tensor.data else { panic!("not floats") };
                data[element] += by;
                loss(&moved)
            };
            let numeric = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let analytic = analytic.floats()[element];
            let scale = numeric.abs().max(analytic.abs()).max(1.0);
            let error = (numeric - analytic).abs() / scale;
            assert!(error < 1e-6, "{name}[{element}]: analytic {analytic}, numeric {numeric}");
            worst = worst.max(error);
        }
    }
    worst
}

/// [`with_gradients`] and [`check`] with operands from [`samples::bindings`].
pub fn check_op(
    wrt: &[&str],
    build: impl FnOnce(&mut GraphBuilder) -> Result<NodeId, GraphError>,
) -> (ValidGraph, Bindings) {
    let graph = with_gradients(wrt, build);
    let bindings = samples::bindings(&graph, 5);
    check(&graph, &bindings, 1);
    (graph, bindings)
}

/// Replaces one binding.
pub fn rebind(mut bindings: Bindings, name: &str, tensor: Tensor) -> Bindings {
    bindings.insert(name.to_owned(), tensor);
    bindings
}
