//! The fixed balanced binary tree along which a round's results combine.
//!
//! A range of micro-batches splits at the greatest power of two below its
//! length, counted from its start: `[0, 7)` is `([0, 4), ([4, 6), [6, 7)))`.
//! Every run that starts at a multiple of a power of two and has that length,
//! truncated at the batch's end, is a node of this tree. So a task may be any
//! such run and the order of additions does not depend on how a batch was cut.

/// Where `[start, start + count)` splits, for a `count` of at least 2.
pub fn split(start: u32, count: u32) -> u32 {
    start + count.next_power_of_two() / 2
}

/// Whether `[start, start + count)` is a node of the tree over `0..total`.
pub fn is_node(start: u32, count: u32, total: u32) -> bool {
    let Some(end) = start.checked_add(count) else { return false };
    let order = count.checked_next_power_of_two();
    count > 0
        && end <= total
        && order.is_some_and(|order| start.is_multiple_of(order))
        && (count.is_power_of_two() || end == total)
}

/// Combines the values of disjoint nodes that cover `0..total`, given in the
/// order of their starts as `(start, count, value)`. `None` where the nodes do
/// not cover the range or one of them is not a node of the tree.
pub fn combine<T>(
    total: u32,
    parts: impl IntoIterator<Item = (u32, u32, T)>,
    mut add: impl FnMut(T, T) -> T,
) -> Option<T> {
    let mut parts = parts.into_iter().peekable();
    if total == 0 {
        return None;
    }
    let value = fold(0, total, &mut parts, &mut add)?;
    if parts.next().is_some() { None } else { Some(value) }
}

fn fold<T, I: Iterator<Item = (u32, u32, T)>>(
    start: u32,
    count: u32,
    parts: &mut std::iter::Peekable<I>,
    add: &mut impl FnMut(T, T) -> T,
) -> Option<T> {
    let &(part_start, part_count, _) = parts.peek()?;
    if part_start != start || part_count > count {
        return None;
    }
    if part_count == count {
        return parts.next().map(|(_, _, value)| value);
    }
    if count < 2 {
        return None;
    }
    let middle = split(start, count);
    let left = fold(start, middle - start, parts, add)?;
    let right = fold(middle, start + count - middle, parts, add)?;
    Some(add(left, right))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(total: u32) -> impl Iterator<Item = (u32, u32, String)> {
        (0..total).map(|i| (i, 1, i.to_string()))
    }

    fn join(a: String, b: String) -> String {
        format!("({a} {b})")
    }

    #[test]
    fn the_tree_of_seven() {
        let tree = combine(7, leaves(7), join).expect("leaves cover");
        assert_eq!(tree, "(((0 1) (2 3)) ((4 5) 6))");
    }

    #[test]
    fn any_cut_into_nodes_gives_the_same_tree() {
        for total in 1..=40 {
            let whole = combine(total, leaves(total), join).expect("leaves cover");
            for order in 0..6u32 {
                let step = 1 << order;
                let parts = (0..total).step_by(step as usize).map(|start| {
                    let count = step.min(total - start);
                    assert!(is_node(start, count, total), "{start}+{count} of {total}");
                    let run = (0..count).map(|i| (i, 1, (start + i).to_string()));
                    (start, count, combine(count, run, join).expect("run covers"))
                });
                assert_eq!(combine(total, parts, join).as_deref(), Some(whole.as_str()));
            }
        }
    }

    #[test]
    fn gaps_overlaps_and_misaligned_runs_are_refused() {
        let add = |a: u32, b: u32| a + b;
        assert_eq!(combine(4, [(0, 2, 1), (3, 1, 1)], add), None);
        assert_eq!(combine(4, [(0, 2, 1), (1, 1, 1), (2, 2, 1)], add), None);
        assert_eq!(combine(4, [(0, 1, 1), (1, 2, 1), (3, 1, 1)], add), None);
        assert_eq!(combine(2, [(0, 2, 1), (2, 1, 1)], add), None);
        assert_eq!(combine(0, [], add), None);
        assert!(!is_node(1, 2, 4) && !is_node(0, 3, 4) && !is_node(0, 0, 4));
        assert!(is_node(4, 3, 7) && !is_node(u32::MAX, 2, 7));
    }
}
