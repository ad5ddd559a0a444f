//! The speed test at start: a chain of matrix products that is run as a task like
//! any other, the one that visitors' workers measure with.

use super::ContributeError;
use crate::runtime::executor::{Kernel, KernelModule};
use raven_graph::{Limits, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    GraphText, JobId, LeaseId, Numerics, OutputSpec, Program, ReduceRule, Seed, TaskId,
    TaskMessage, TaskSpec, ToContributor,
};
use serde_json::json;
use std::time::{Duration, Instant};

const EXTENT: u64 = 192;
/// Products in the chain: 0.9 Gflop.
const PRODUCTS: u64 = 64;
const PRODUCT_FLOPS: u64 = 2 * EXTENT * EXTENT * EXTENT;
/// Products before the clock starts.
const WARM_UP_PRODUCTS: u64 = 4;
/// The test ends here however far it came.
const MEASURE_MAX: Duration = Duration::from_millis(150);
const MEMORY_BYTES: u64 = 64 << 20;

/// `x := x · b`, with `b` filled so that every value stays in range.
fn graph() -> serde_json::Value {
    let shape = [EXTENT, EXTENT];
    let mut nodes = vec![
        json!({"op": "constant", "dtype": "f32", "shape": shape, "value": 1.0}),
        json!({"op": "constant", "dtype": "f32", "shape": shape, "value": 1.0 / 256.0}),
    ];
    for product in 0..PRODUCTS {
        let previous = if product == 0 { 0 } else { nodes.len() - 1 };
        nodes.push(json!({
            "op": "matmul", "transpose_lhs": false, "transpose_rhs": false,
            "inputs": [previous, 1],
        }));
    }
    let last = nodes.len() - 1;
    nodes.push(json!({
        "op": "reduce", "function": "sum", "axes": [0, 1], "keep_dims": false, "inputs": [last],
    }));
    json!({"version": 1, "nodes": nodes, "outputs": [{"name": "y", "node": last + 1}]})
}

/// Flop/s of one instance at full speed.
///
/// # Errors
/// [`ContributeError::Kernel`], [`ContributeError::Speed`].
pub(super) fn measure(module: &KernelModule) -> Result<u64, ContributeError> {
    let refused = |detail: String| ContributeError::Speed { detail };
    let text = graph().to_string();
    let graph = ValidGraph::from_json(text.as_bytes(), &Limits::default())
        .map_err(|error| refused(error.to_string()))?;
    let mut kernel = Kernel::new(module, MEMORY_BYTES)?;
    let id = graph.id();
    kernel.accept(&encode(&ToContributor::Graph { id, graph: GraphText::of(&graph) }, &[]))?;
    let task = TaskMessage {
        lease: LeaseId(0),
        task: TaskId { job: JobId(0), round: 0, stage: 0, part: 0 },
        lease_ms: 60_000,
        flops: PRODUCTS * PRODUCT_FLOPS,
        spec: TaskSpec {
            program: Program::Map { graph: id, start: 0, count: 1 },
            seed: Seed(0),
            bindings: Vec::new(),
            shards: Vec::new(),
            outputs: vec![OutputSpec {
                name: "y".into(),
                encoding: raven_protocol::Encoding::Raw,
                reduce: ReduceRule::Sum,
            }],
            numerics: Numerics::Strict,
        },
    };
    let task = encode(&ToContributor::Task(Box::new(task)), &[]);
    if kernel.begin(&task)?.is_some() {
        return Err(refused("it does not fit into the kernel's memory".into()));
    }
    let mut is_done = kernel.step((WARM_UP_PRODUCTS * PRODUCT_FLOPS) as f64)?;
    let (began, mut products) = (Instant::now(), 0);
    while !is_done && began.elapsed() < MEASURE_MAX {
        // One product is a whole step.
        is_done = kernel.step(PRODUCT_FLOPS as f64)?;
        products += 1;
    }
    let flops = products * PRODUCT_FLOPS;
    Ok((flops as f64 / began.elapsed().as_secs_f64().max(1e-6)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_is_the_one_of_visitors() {
        let text = graph().to_string();
        let graph = ValidGraph::from_json(text.as_bytes(), &Limits::default()).expect("valid");
        let visitors = include_str!("../../../web-snippet/src/kernel-worker/measure.ts");
        assert!(visitors.contains(&format!("MEASURE_GRAPH_ID = '{}'", graph.id())));
    }
}
