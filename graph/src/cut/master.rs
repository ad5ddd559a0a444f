//! The cut for models that stay with their master.

use super::split::{Split, pushed, split};
use super::subgraph::{Place, Placement};
use super::{Cut, CutError, Stage, check_names, cut_outputs};
use crate::op::Op;
use crate::program::NodeId;
use crate::valid::ValidGraph;
use std::collections::BTreeSet;

/// Cuts a graph so that matrix products and convolutions are pushed out in
/// pieces and everything else stays local.
///
/// No piece reads more than one `parts`-th (rounded up to whole columns,
/// filters or channels) of one weight, and pieces with one index read the
/// same range of a weight forward and backward, so whoever always runs index
/// `p` sees one `parts`-th of the model. Heavy nodes that do not depend on
/// each other share a stage. The result depends on the graph, `params` and
/// `parts` only; sums over pieces are added in a fixed order, so another
/// `parts` may differ in the last bits.
///
/// # Errors
/// [`CutError::NoParts`], [`CutError::UnknownParam`],
/// [`CutError::ReservedName`].
pub fn cut_master(graph: &ValidGraph, params: &[String], parts: u32) -> Result<Cut, CutError> {
    check_names(graph)?;
    if parts == 0 {
        return Err(CutError::NoParts);
    }
    let params = param_nodes(graph, params)?;
    let splits = splits(graph, &params, parts);
    let levels = levels(graph, &splits);
    let placement = Placement::new(graph, |node| match splits[node.index()] {
        Some(_) => Place::Pushed,
        None => Place::Local(levels[node.index()]),
    });
    let depth = levels.iter().max().copied().unwrap_or(0);
    let mut stages = Vec::new();
    for level in 0..=depth {
        let heavy = splits.iter().enumerate().filter(|(index, _)| levels[*index] == level);
        let heavy = heavy
            .filter_map(|(index, split)| split.as_ref().map(|split| (NodeId(index as u32), split)))
            .map(|(id, split)| pushed(graph, id, split, parts))
            .collect::<Result<Vec<_>, _>>()?;
        if !heavy.is_empty() {
            stages.push(Stage::Pushed(heavy));
        }
        stages.extend(placement.local(level)?.map(Stage::Local));
    }
    Ok(Cut { stages, outputs: cut_outputs(graph) })
}

fn param_nodes(graph: &ValidGraph, params: &[String]) -> Result<BTreeSet<NodeId>, CutError> {
    params
        .iter()
        .map(|name| match graph.input(name) {
            Some(input) => Ok(input.node),
            None => Err(CutError::UnknownParam { name: name.clone() }),
        })
        .collect()
}

/// How each live heavy node splits.
fn splits(graph: &ValidGraph, params: &BTreeSet<NodeId>, parts: u32) -> Vec<Option<Split>> {
    let nodes = &graph.graph().nodes;
    // A value made of weights alone: weights, and what is computed from them
    // and constants.
    let mut from_params = vec![false; nodes.len()];
    let mut free = vec![false; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        let id = NodeId(index as u32);
        let reads = |marks: &[bool]| node.inputs.iter().any(|operand| marks[operand.index()]);
        let closed =
            node.inputs.iter().all(|operand| from_params[operand.index()] || free[operand.index()]);
        free[index] = match node.op {
            Op::Input { .. } => false,
            _ => node.inputs.iter().all(|operand| free[operand.index()]),
        };
        from_params[index] = params.contains(&id) || (closed && reads(&from_params));
    }
    nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let live = graph.is_live(NodeId(index as u32));
            if live { split(graph, node, params, &from_params, parts) } else { None }
        })
        .collect()
}

/// How many heavy nodes lie on the longest way to each node, itself included.
fn levels(graph: &ValidGraph, splits: &[Option<Split>]) -> Vec<usize> {
    let mut levels = vec![0; splits.len()];
    for (index, node) in graph.graph().nodes.iter().enumerate() {
        let before = node.inputs.iter().map(|operand| levels[operand.index()]).max().unwrap_or(0);
        levels[index] = before + usize::from(splits[index].is_some());
    }
    levels
}
