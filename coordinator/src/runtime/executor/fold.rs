//! Results are summed while others are still computed, so that a round's end
//! waits for the last few of them only.
//!
//! Whatever is summed here is a node of the reduction tree and its value is
//! the tree's: a step that finds nothing here comes to the same bits, later.

use super::operations::Part;
use raven_protocol::JobId;
use std::collections::BTreeMap;
use std::collections::HashMap;

/// Nodes that are summed in one run. A run has a cost of its own, so that
/// pairs would cost more than they save; more would leave more to the end.
const GROUP: usize = 8;

/// A node of the tree: parts that are there in full, not all of them summed.
#[derive(Debug)]
struct Node {
    count: u32,
    /// In the order of their starts.
    parts: Vec<Part>,
}

/// One job's round.
#[derive(Debug)]
struct Round {
    round: u32,
    /// Micro-batches of the round.
    total: u32,
    /// Of a group: nothing that crosses two of them is summed.
    span: u32,
    /// Disjoint nodes by their starts.
    nodes: BTreeMap<u32, Node>,
}

/// What was handed over of the rounds that are going on, one for each job.
#[derive(Debug, Default)]
pub struct Folds {
    rounds: HashMap<JobId, Round>,
}

impl Folds {
    /// Takes a part in. Returns the parts of a node that are to be summed now,
    /// for [`Folds::summed`].
    pub fn add(
        &mut self,
        job: JobId,
        round: u32,
        total: u32,
        span: u32,
        part: Part,
    ) -> Option<Vec<Part>> {
        let fresh = || Round { round, total, span, nodes: BTreeMap::new() };
        let entry = self.rounds.entry(job).or_insert_with(fresh);
        if entry.round != round || entry.total != total {
            *entry = fresh();
        }
        entry.insert(part)
    }

    /// The sum of what [`Folds::add`] or this returned last; there may be more to sum then.
    pub fn summed(&mut self, job: JobId, round: u32, sum: Part) -> Option<Vec<Part>> {
        self.rounds.get_mut(&job).filter(|entry| entry.round == round)?.insert(sum)
    }

    /// The round's parts, those that were summed replaced by their sums; the
    /// job's next parts are another round's.
    pub fn take(&mut self, job: JobId, round: u32, parts: Vec<Part>) -> Vec<Part> {
        let folded = self.rounds.remove(&job).filter(|entry| entry.round == round);
        let Some(folded) = folded else { return parts };
        let sums: BTreeMap<u32, Part> = folded
            .nodes
            .into_values()
            .flat_map(|node| node.parts)
            .map(|part| (part.start, part))
            .collect();
        let mut taken: Vec<Part> = Vec::with_capacity(parts.len());
        let mut covered = 0;
        for part in parts {
            if part.start < covered {
                continue;
            }
            let sum = sums.get(&part.start).filter(|sum| sum.count >= part.count);
            let part = sum.cloned().unwrap_or(part);
            covered = part.start + part.count;
            taken.push(part);
        }
        taken
    }

    /// Lets go of a job's parts.
    pub fn forget(&mut self, job: JobId) {
        self.rounds.remove(&job);
    }
}

impl Round {
    /// Puts a part in and joins nodes whose sibling is there, up to the first
    /// that is large enough to be summed; that one is taken out.
    fn insert(&mut self, part: Part) -> Option<Vec<Part>> {
        let (mut start, mut node) = (part.start, Node { count: part.count, parts: vec![part] });
        while let Some((other, count)) = sibling(start, node.count, self.total)
            .filter(|&(other, _)| other / self.span == start / self.span)
        {
            let Some(mut found) = self.nodes.remove(&other) else { break };
            if found.count != count {
                self.nodes.insert(other, found);
                break;
            }
            if other < start {
                found.parts.append(&mut node.parts);
                (start, node) = (other, Node { count: found.count + node.count, ..found });
            } else {
                node.parts.append(&mut found.parts);
                node.count += found.count;
            }
            if node.parts.len() >= GROUP {
                return Some(node.parts);
            }
        }
        self.nodes.insert(start, node);
        None
    }
}

/// The node that adds up with `[start, start + count)` to their common parent
/// in the tree over `0..total`; `None` for the whole.
fn sibling(start: u32, count: u32, total: u32) -> Option<(u32, u32)> {
    let mut order = count.checked_next_power_of_two()?;
    while order < total {
        if start & order != 0 {
            return Some((start - order, order));
        }
        if let Some(other) = start.checked_add(order).filter(|&other| other < total) {
            return Some((other, order.min(total - other)));
        }
        // The batch ends before a sibling would begin: the parent is this same node.
        order = order.checked_mul(2)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_engine::tree;

    const JOB: JobId = JobId(1);

    fn part(start: u32, count: u32) -> Part {
        Part { start, count, values: HashMap::new() }
    }

    #[test]
    fn siblings_are_those_of_the_tree() {
        for total in 1..40 {
            let mut whole = vec![(0, total)];
            while let Some((start, count)) = whole.pop() {
                if count < 2 {
                    continue;
                }
                let middle = tree::split(start, count);
                let (left, right) = ((start, middle - start), (middle, start + count - middle));
                assert_eq!(sibling(left.0, left.1, total), Some(right), "of {total}");
                assert_eq!(sibling(right.0, right.1, total), Some(left), "of {total}");
                whole.extend([left, right]);
            }
            assert_eq!(sibling(0, total, total), None);
        }
    }

    /// In any order of arrival only nodes are summed, everything is covered
    /// once, and little is left for the end.
    #[test]
    fn what_is_taken_covers_the_round_with_few_nodes() {
        for (total, seed) in [(1, 0), (7, 1), (8, 2), (64, 3), (100, 4), (256, 5), (256, 6)] {
            let mut folds = Folds::default();
            let parts: Vec<Part> = (0..total).map(|start| part(start, 1)).collect();
            let mut order: Vec<u32> = (0..total).collect();
            order.sort_by_key(|&at| raven_graph::philox::philox4x32([at, seed, 0, 0], [1, 2]));
            for at in order {
                let mut due = folds.add(JOB, 3, total, total.next_power_of_two(), part(at, 1));
                while let Some(group) = due {
                    let (start, count) = (group[0].start, group.iter().map(|p| p.count).sum());
                    assert!(group.len() >= GROUP && tree::is_node(start, count, total));
                    due = folds.summed(JOB, 3, part(start, count));
                }
            }
            let taken = folds.take(JOB, 3, parts);
            let runs = taken.iter().map(|part| (part.start, part.count, ()));
            assert!(tree::combine(total, runs, |(), ()| ()).is_some(), "{taken:?}");
            assert!(taken.len() <= 2 * GROUP, "{} of {total} are left", taken.len());
        }
    }

    #[test]
    fn nothing_that_crosses_two_groups_is_summed() {
        let (total, span) = (60, 16);
        let mut folds = Folds::default();
        for at in (0..total).rev() {
            let mut due = folds.add(JOB, 3, total, span, part(at, 1));
            while let Some(group) = due {
                let (start, count) = (group[0].start, group.iter().map(|p| p.count).sum());
                assert_eq!(start / span, (start + count - 1) / span, "{start}+{count}");
                due = folds.summed(JOB, 3, part(start, count));
            }
        }
        let taken = folds.take(JOB, 3, (0..total).map(|start| part(start, 1)).collect());
        assert!(taken.len() >= 4 && taken.len() < 16, "{} are left", taken.len());
        assert!(taken.iter().all(|p| p.start / span == (p.start + p.count - 1) / span));
    }

    #[test]
    fn another_round_starts_anew() {
        let mut folds = Folds::default();
        for at in 0..7 {
            assert!(folds.add(JOB, 1, 8, 8, part(at, 1)).is_none());
        }
        assert!(folds.add(JOB, 2, 8, 8, part(7, 1)).is_none());
        let parts: Vec<Part> = (0..8).map(|start| part(start, 1)).collect();
        assert_eq!(folds.take(JOB, 1, parts.clone()).len(), 8);
        folds.forget(JOB);
        assert_eq!(folds.take(JOB, 2, parts).len(), 8);
    }
}
