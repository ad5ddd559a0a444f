//! Graphs that the master builds for itself: sums along the reduction tree,
//! alone or in front of the optimizer.
//!
//! The additions are nodes of one graph, so that they run on the kernel that
//! everything else runs on and a round's parts enter it once.

use super::ExecutorError;
use crate::job::StepGraph;
use raven_engine::tree;
use raven_graph::{GraphBuilder, Limits, NodeId, Op, TensorType, ValidGraph};
use std::collections::HashMap;

/// Runs of micro-batches relative to the first, in order: what a sum graph depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TreeShape {
    /// Micro-batches of the whole range.
    pub total: u32,
    /// `(start, count)` of each part; together they tile `0..total`.
    pub runs: Vec<(u32, u32)>,
}

/// Name of the input that takes output `name` of part `index`.
pub fn part_input(index: usize, name: &str) -> String {
    format!("part {index}: {name}")
}

/// Name of the output with the whole range's sum of `name`.
pub fn sum_output(name: &str) -> String {
    format!("sum: {name}")
}

/// Sums each of `outputs` over the parts.
///
/// # Errors
/// [`ExecutorError::TreeShape`], [`ExecutorError::Graph`].
pub fn sum_graph(
    shape: &TreeShape,
    outputs: &[(String, TensorType)],
) -> Result<ValidGraph, ExecutorError> {
    let mut builder = GraphBuilder::new(&Limits::default());
    for (name, sum) in sums(&mut builder, shape, outputs)? {
        builder.output(sum_output(&name), sum);
    }
    Ok(builder.finish()?)
}

/// The optimizer, fed by the sums over the parts. Its outputs keep their names;
/// the sums listed in `kept` are returned beside them.
///
/// # Errors
/// As [`sum_graph`].
pub fn step_graph(
    shape: &TreeShape,
    outputs: &[(String, TensorType)],
    step: &StepGraph,
    feeds: &HashMap<String, String>,
    kept: &[String],
) -> Result<ValidGraph, ExecutorError> {
    let mut builder = GraphBuilder::new(&Limits::default());
    let sums: HashMap<String, NodeId> = sums(&mut builder, shape, outputs)?.into_iter().collect();
    let graph = step.graph.graph();
    let mut moved: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let fed = match &node.op {
            Op::Input { name, .. } => feeds.get(name).and_then(|output| sums.get(output)),
            _ => None,
        };
        let id = match fed {
            Some(&sum) => sum,
            None => {
                let operands: Vec<NodeId> =
                    node.inputs.iter().map(|operand| moved[operand.index()]).collect();
                builder.push(node.op.clone(), &operands)?
            }
        };
        moved.push(id);
    }
    for output in &graph.outputs {
        builder.output(output.name.clone(), moved[output.node.index()]);
    }
    for name in kept {
        let sum = sums.get(name).ok_or_else(|| ExecutorError::Missing { name: name.clone() })?;
        builder.output(sum_output(name), *sum);
    }
    Ok(builder.finish()?)
}

fn sums(
    builder: &mut GraphBuilder,
    shape: &TreeShape,
    outputs: &[(String, TensorType)],
) -> Result<Vec<(String, NodeId)>, ExecutorError> {
    let mut sums = Vec::with_capacity(outputs.len());
    for (name, ty) in outputs {
        let mut parts = Vec::with_capacity(shape.runs.len());
        for (index, &(start, count)) in shape.runs.iter().enumerate() {
            let input = builder.push(
                Op::Input {
                    name: part_input(index, name),
                    dtype: ty.dtype,
                    shape: ty.shape.clone(),
                },
                &[],
            )?;
            parts.push((start, count, Ok(input)));
        }
        let sum = tree::combine(shape.total, parts, |left, right| builder.add(left?, right?));
        sums.push((name.clone(), sum.ok_or(ExecutorError::TreeShape)??));
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_graph::DType;

    #[test]
    fn a_sum_graph_adds_along_the_tree() {
        let ty = TensorType::new(DType::F32, [2]);
        let shape = TreeShape { total: 5, runs: vec![(0, 2), (2, 2), (4, 1)] };
        let graph = sum_graph(&shape, &[("g".into(), ty)]).expect("composes");
        let inputs: Vec<_> = graph.inputs().iter().map(|input| input.node.0).collect();
        assert_eq!(inputs, [0, 1, 2]);
        let adds: Vec<_> = graph.graph().nodes[3..].iter().map(|n| n.inputs.clone()).collect();
        assert_eq!(adds, [vec![NodeId(0), NodeId(1)], vec![NodeId(3), NodeId(2)]]);
    }

    #[test]
    fn parts_that_do_not_tile_the_range_are_refused() {
        let ty = TensorType::new(DType::F32, [2]);
        let shape = TreeShape { total: 4, runs: vec![(0, 2), (3, 1)] };
        let refused = sum_graph(&shape, &[("g".into(), ty)]);
        assert!(matches!(refused, Err(ExecutorError::TreeShape)), "{refused:?}");
    }
}
