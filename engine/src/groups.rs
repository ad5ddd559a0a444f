//! Groups of micro-batches whose sums are combined by another rule than addition.
//!
//! A job that names `groups`, a power of two, has its batches cut into the
//! nodes of the reduction tree at that depth. They depend on the batch alone,
//! so that a rule over them comes to the same bits whoever computed what; a
//! task never crosses from one into the next.

/// Groups that a job may name: each is one operand of what combines them.
pub const GROUPS_MAX: u32 = 64;

/// Micro-batches of a group of a batch of `total`: a power of two, at least 1.
/// Each group begins at a multiple of it, and the last is cut off at `total`.
pub fn span(total: u32, groups: u32) -> u32 {
    (total.max(1).next_power_of_two() / groups.max(1)).max(1)
}

/// Groups that a batch of `total` comes to: as many as were named where `total`
/// is a power of two, otherwise more than half as many.
pub fn count(total: u32, groups: u32) -> u32 {
    total.div_ceil(span(total, groups))
}

/// The groups of a batch of `total` as `(start, count)`.
pub fn runs(total: u32, groups: u32) -> impl Iterator<Item = (u32, u32)> {
    let span = span(total, groups);
    (0..total).step_by(span as usize).map(move |start| (start, span.min(total - start)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{combine, is_node};

    #[test]
    fn groups_are_nodes_of_the_tree_and_more_than_half_of_those_named() {
        for total in 1..=130u32 {
            for order in 0..=6 {
                let groups = 1 << order;
                if groups > total {
                    continue;
                }
                let cut: Vec<(u32, u32)> = runs(total, groups).collect();
                assert!(cut.iter().all(|&(start, count)| is_node(start, count, total)));
                assert!(cut.len() as u32 == count(total, groups));
                assert!(cut.len() as u32 <= groups && 2 * cut.len() as u32 > groups);
                let parts = cut.iter().map(|&(start, count)| (start, count, count));
                assert_eq!(combine(total, parts, |a, b| a + b), Some(total));
            }
        }
        assert_eq!(count(16, 8), 8);
        assert_eq!(runs(5, 4).collect::<Vec<_>>(), [(0, 2), (2, 2), (4, 1)]);
    }

    #[test]
    fn the_tree_over_groups_is_that_over_their_micro_batches() {
        let join = |a: String, b: String| format!("({a} {b})");
        for total in 1..=70u32 {
            for groups in [1, 2, 4, 8].into_iter().filter(|&groups| groups <= total) {
                let named = |(start, count): (u32, u32)| (start, count, start.to_string());
                let of_batch = combine(total, runs(total, groups).map(named), join);
                let span = span(total, groups);
                let leaf = |at: u32| (at, 1, (at * span).to_string());
                let number = count(total, groups);
                assert_eq!(combine(number, (0..number).map(leaf), join), of_batch);
            }
        }
    }
}
