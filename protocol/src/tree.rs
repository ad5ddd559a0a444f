//! The fixed balanced binary tree along which results combine.
//!
//! The tree depends on the number of micro-batches alone: a run of `count`
//! leaves splits at the greatest power of two below `count`. Every aligned
//! power-of-two run (and every run that reaches the end) is a subtree, so the
//! bits of a sum do not depend on how a batch was cut into tasks.

/// Leaves of the left half of a run of `count >= 2` leaves.
pub const fn split(count: u32) -> u32 {
    debug_assert!(count >= 2);
    1 << (31 - (count - 1).leading_zeros())
}

/// Parts that do not tile a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tree: leaves {start}..{end} are not covered by exactly one subtree")]
pub struct TilingError {
    /// First leaf of the run that is not covered.
    pub start: u32,
    /// Its end.
    pub end: u32,
}

/// Combines parts `(start, count, value)` in leaf order into the value of the whole run `0..leaves`.
///
/// # Errors
/// [`TilingError`] where the parts are not subtrees that cover `0..leaves` once.
pub fn combine<T>(
    parts: Vec<(u32, u32, T)>,
    leaves: u32,
    mut join: impl FnMut(T, T) -> T,
) -> Result<T, TilingError> {
    let mut parts = parts;
    parts.sort_by_key(|&(start, _, _)| start);
    let mut parts = parts.into_iter().peekable();
    let value = subtree(&mut parts, 0, leaves, &mut join)?;
    match parts.next() {
        None => Ok(value),
        Some((start, count, _)) => Err(TilingError { start, end: start.saturating_add(count) }),
    }
}

fn subtree<T, I: Iterator<Item = (u32, u32, T)>>(
    parts: &mut std::iter::Peekable<I>,
    start: u32,
    count: u32,
    join: &mut impl FnMut(T, T) -> T,
) -> Result<T, TilingError> {
    if let Some((_, _, value)) = parts.next_if(|&(s, c, _)| (s, c) == (start, count)) {
        return Ok(value);
    }
    if count < 2 {
        return Err(TilingError { start, end: start + count });
    }
    let left_count = split(count);
    let left = subtree(parts, start, left_count, join)?;
    let right = subtree(parts, start + left_count, count - left_count, join)?;
    Ok(join(left, right))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(parts: &[(u32, u32)], leaves: u32) -> Result<String, TilingError> {
        let parts = parts
            .iter()
            .map(|&(start, count)| {
                let singles = (start..start + count).map(|i| (i - start, 1, i.to_string()));
                let value = combine(singles.collect(), count, |a, b| format!("({a}{b})"));
                (start, count, value.expect("singles tile"))
            })
            .collect();
        combine(parts, leaves, |a, b| format!("({a}{b})"))
    }

    #[test]
    fn the_cut_does_not_show() {
        let whole = text(&[(0, 7)], 7).expect("one part");
        assert_eq!(whole, "(((01)(23))((45)6))");
        for cut in [&[(0, 4), (4, 3)][..], &[(4, 2), (6, 1), (0, 2), (2, 2)]] {
            assert_eq!(text(cut, 7).as_ref(), Ok(&whole));
        }
    }

    #[test]
    fn gaps_overlaps_and_misaligned_parts_are_refused() {
        assert!(text(&[(0, 4)], 7).is_err());
        assert!(text(&[(0, 4), (4, 3), (6, 1)], 7).is_err());
        assert!(text(&[(0, 1), (1, 2), (3, 4)], 7).is_err());
    }
}
