//! What is done to whole gradients when groups are combined, as graphs over flat
//! vectors: the work per number is the kernel's, like all tensor maths here.

use crate::runtime::executor::ExecutorError;
use raven_engine::tree;
use raven_graph::{BinaryFn, DType, GraphBuilder, GraphError, Limits, NodeId, ValidGraph};

/// Numbers of a run. Sums of squares are added run by run, so that it is part of
/// the bits of what goes by norms.
pub const CHUNK: usize = 1 << 18;

/// Outputs: a vector, and a sum of squares.
pub const VECTOR: &str = "vector";
pub const SQUARES: &str = "squares";
/// Inputs besides those that are numbered: what a sum is divided by, and what is
/// the middle of the others.
pub const DIVISOR: &str = "divisor";
pub const CENTER: &str = "center";

/// The vector of group `index`.
pub fn vector(index: usize) -> String {
    format!("vector {index}")
}

/// The factor of group `index`.
pub fn factor(index: usize) -> String {
    format!("factor {index}")
}

/// A graph over vectors of `len` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupGraph {
    /// `vector 0 / divisor`, and its sum of squares.
    Mean { len: u32 },
    /// The sum of squares of `vector 0 - center`.
    Distance { len: u32 },
    /// The sum of `factor i * vector i`.
    Weighted { groups: u32, len: u32 },
    /// `center` and the sum of `factor i * (vector i - center)`.
    Shifted { groups: u32, len: u32 },
    /// The mean of what is left of each coordinate without its `trim` smallest
    /// and greatest values.
    Trimmed { groups: u32, trim: u32, len: u32 },
}

impl GroupGraph {
    /// The graph.
    ///
    /// # Errors
    /// [`ExecutorError::TreeShape`] without groups, [`ExecutorError::Graph`].
    pub fn build(self) -> Result<ValidGraph, ExecutorError> {
        let mut builder = GraphBuilder::new(&Limits::default());
        let b = &mut builder;
        match self {
            GroupGraph::Mean { len } => {
                let (sum, divisor) = (flat(b, vector(0), len)?, number(b, DIVISOR)?);
                let mean = b.div(sum, divisor)?;
                squares(b, mean)?;
                b.output(VECTOR, mean);
            }
            GroupGraph::Distance { len } => {
                let (x, center) = (flat(b, vector(0), len)?, flat(b, CENTER, len)?);
                let difference = b.sub(x, center)?;
                squares(b, difference)?;
            }
            GroupGraph::Weighted { groups, len } => {
                let products = factors(b, groups, len, None)?;
                let sum = tree_sum(b, &products)?;
                b.output(VECTOR, sum);
            }
            GroupGraph::Shifted { groups, len } => {
                let center = flat(b, CENTER, len)?;
                let products = factors(b, groups, len, Some(center))?;
                let sum = tree_sum(b, &products)?;
                let moved = b.add(center, sum)?;
                b.output(VECTOR, moved);
            }
            GroupGraph::Trimmed { groups, trim, len } => {
                let mean = trimmed(b, groups as usize, trim as usize, len)?;
                b.output(VECTOR, mean);
            }
        }
        Ok(builder.finish()?)
    }
}

fn flat(b: &mut GraphBuilder, name: impl Into<String>, len: u32) -> Result<NodeId, GraphError> {
    b.input(name, DType::F32, [len])
}

fn number(b: &mut GraphBuilder, name: impl Into<String>) -> Result<NodeId, GraphError> {
    b.input(name, DType::F32, [])
}

fn squares(b: &mut GraphBuilder, x: NodeId) -> Result<(), GraphError> {
    let square = b.mul(x, x)?;
    let sum = b.sum_all(square)?;
    b.output(SQUARES, sum);
    Ok(())
}

/// `factor i * vector i`, or `factor i * (vector i - center)`.
fn factors(
    b: &mut GraphBuilder,
    groups: u32,
    len: u32,
    center: Option<NodeId>,
) -> Result<Vec<NodeId>, GraphError> {
    let product = |index: usize| {
        let mut x = flat(b, vector(index), len)?;
        if let Some(center) = center {
            x = b.sub(x, center)?;
        }
        let by = number(b, factor(index))?;
        b.mul(x, by)
    };
    (0..groups as usize).map(product).collect()
}

/// Added along the tree, as the groups' micro-batches would be.
fn tree_sum(b: &mut GraphBuilder, values: &[NodeId]) -> Result<NodeId, ExecutorError> {
    let leaves = values.iter().enumerate().map(|(at, &value)| (at as u32, 1, Ok(value)));
    let sum = tree::combine(values.len() as u32, leaves, |left, right| b.add(left?, right?));
    Ok(sum.ok_or(ExecutorError::TreeShape)??)
}

/// Each coordinate is sorted by a network of minima and maxima. Equal values stay
/// as many as they are, and the order of additions is that of the values.
fn trimmed(
    b: &mut GraphBuilder,
    groups: usize,
    trim: usize,
    len: u32,
) -> Result<NodeId, ExecutorError> {
    let inputs = (0..groups).map(|index| flat(b, vector(index), len));
    let mut sorted = inputs.collect::<Result<Vec<NodeId>, _>>()?;
    for (low, high) in sorting_network(groups) {
        let (x, y) = (sorted[low], sorted[high]);
        sorted[low] = b.binary(BinaryFn::Min, x, y)?;
        sorted[high] = b.binary(BinaryFn::Max, x, y)?;
    }
    let kept = sorted.get(trim..groups.saturating_sub(trim)).unwrap_or_default();
    let (&first, others) = kept.split_first().ok_or(ExecutorError::TreeShape)?;
    let sum = others.iter().try_fold(first, |sum, &value| b.add(sum, value))?;
    let divisor = b.scalar(kept.len() as f32)?;
    Ok(b.div(sum, divisor)?)
}

/// Pairs to be put in order, one after another, until everything is: Batcher's
/// merge exchange, Knuth's algorithm 5.2.2M.
fn sorting_network(count: usize) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let top = count.next_power_of_two() / 2;
    let mut p = top;
    while p > 0 {
        let (mut q, mut r, mut d) = (top, 0, p);
        loop {
            pairs.extend((0..count - d).filter(|i| i & p == r).map(|i| (i, i + d)));
            if q == p {
                break;
            }
            (d, r) = (q - p, p);
            q /= 2;
        }
        p /= 2;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_engine::groups::GROUPS_MAX;

    #[test]
    fn the_network_sorts_everything() {
        // What sorts all rows of zeros and ones sorts everything.
        for count in 1..=14usize {
            let network = sorting_network(count);
            for bits in 0..1u32 << count {
                let mut row: Vec<bool> = (0..count).map(|at| bits >> at & 1 == 1).collect();
                for &(low, high) in &network {
                    (row[low], row[high]) = (row[low] & row[high], row[low] | row[high]);
                }
                assert!(row.is_sorted(), "{count}: {bits:b}");
            }
        }
        assert_eq!(sorting_network(8).len(), 19, "Batcher's count");
    }

    #[test]
    fn the_largest_graphs_are_within_the_limits() {
        let (groups, len) = (GROUPS_MAX, CHUNK as u32);
        for graph in [
            GroupGraph::Trimmed { groups, trim: 31, len },
            GroupGraph::Shifted { groups, len },
            GroupGraph::Weighted { groups, len },
        ] {
            let cost = graph.build().expect("builds").cost();
            assert!(cost.bytes_peak + cost.bytes_in < 512 << 20, "{graph:?}: {cost:?}");
        }
        assert!(
            GroupGraph::Trimmed { groups: 4, trim: 2, len }.build().is_err(),
            "nothing is left"
        );
    }
}
