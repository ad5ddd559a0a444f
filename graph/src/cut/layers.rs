//! The cut into consecutive pieces.

use super::subgraph::{Place, Placement};
use super::{Cut, CutError, Stage, check_names, cut_outputs};
use crate::program::NodeId;
use crate::valid::ValidGraph;

/// Cuts after each boundary: piece `i` holds the nodes after boundary `i - 1`
/// up to boundary `i`, and a last piece the rest. All stages are local; since
/// nodes are in topological order, any ascending list of nodes is a cut.
///
/// # Errors
/// [`CutError::Boundary`] for a list that is not ascending or leaves the
/// graph, [`CutError::ReservedName`].
pub fn cut_layers(graph: &ValidGraph, boundaries: &[NodeId]) -> Result<Cut, CutError> {
    check_names(graph)?;
    let nodes = graph.graph().nodes.len();
    let ascending = boundaries.windows(2).find(|pair| pair[0] > pair[1]).map(|pair| pair[1]);
    let outside = boundaries.iter().find(|node| node.index() >= nodes).copied();
    if let Some(node) = ascending.or(outside) {
        return Err(CutError::Boundary { node: node.0 });
    }
    let placement = Placement::new(graph, |node| {
        Place::Local(boundaries.partition_point(|&boundary| boundary < node))
    });
    let mut stages = Vec::new();
    for stage in 0..=boundaries.len() {
        stages.extend(placement.local(stage)?.map(Stage::Local));
    }
    Ok(Cut { stages, outputs: cut_outputs(graph) })
}
