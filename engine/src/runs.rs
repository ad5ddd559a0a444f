//! The micro-batches of a round that nobody has in hand, as aligned runs.

use std::collections::BTreeMap;

/// Free runs over `0..total`: each starts at a multiple of its size, a power
/// of two of at most `span`, and is cut off at `total`. They split and merge
/// like buddies, so that whatever is taken is a node of the reduction tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunPool {
    total: u32,
    /// The longest run, a power of two.
    span: u32,
    /// Start to log2 of the size.
    free: BTreeMap<u32, u32>,
    micro_batches: u32,
}

impl RunPool {
    /// All of `0..total` is free. No run crosses a multiple of `span`, a power of two.
    pub(crate) fn new(total: u32, span: u32) -> Self {
        let order = span.trailing_zeros();
        let free = (0..total).step_by(span as usize).map(|start| (start, order)).collect();
        RunPool { total, span, free, micro_batches: total }
    }

    /// All micro-batches of the round.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// The longest run that is given out.
    pub(crate) fn span(&self) -> u32 {
        self.span
    }

    /// Free micro-batches.
    pub(crate) fn len(&self) -> u32 {
        self.micro_batches
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.micro_batches == 0
    }

    /// Where a run of at most `size`, a power of two, would be taken: at a
    /// start within one of the `preferred` ranges if any is free, else from
    /// the greatest free run, which spreads takers over the batch and so over
    /// its shards. `None` where nothing is free.
    pub(crate) fn find(&self, size: u32, preferred: &[(u32, u32)]) -> Option<(u32, u32)> {
        for &(from, to) in preferred {
            if let Some(found) = self.find_within(size, from, to) {
                return Some(found);
            }
        }
        let (&start, &order) =
            self.free.iter().max_by_key(|&(&start, &order)| (order, std::cmp::Reverse(start)))?;
        let size = size.min(1 << order);
        Some((start, size.min(self.total - start)))
    }

    /// A free run whose start lies in `from..to`.
    pub(crate) fn find_within(&self, size: u32, from: u32, to: u32) -> Option<(u32, u32)> {
        let before = self.free.range(..=from).next_back();
        let after = self.free.range(from..to).next();
        for (&start, &order) in before.into_iter().chain(after) {
            let end = start + (1 << order).min(self.total - start);
            if end <= from || start >= to {
                continue;
            }
            let size = size.min(1 << order);
            // The first aligned start at or after `from`, still within the free run.
            let at = start.max(from.next_multiple_of(size));
            if at < to.min(end) {
                return Some((at, size.min(self.total - at)));
            }
        }
        None
    }

    /// Takes the run that [`RunPool::find`] returned.
    pub(crate) fn take(&mut self, start: u32, count: u32) {
        let wanted = count.next_power_of_two().trailing_zeros();
        let (&block, &order) = self.free.range(..=start).next_back().expect("the run is free");
        assert!(start - block < 1 << order && wanted <= order, "the run is free");
        self.free.remove(&block);
        let (mut at, mut order) = (block, order);
        while order > wanted {
            order -= 1;
            let middle = at + (1 << order);
            if start >= middle {
                self.free.insert(at, order);
                at = middle;
            } else if middle < self.total {
                self.free.insert(middle, order);
            }
        }
        self.micro_batches -= count;
    }

    /// Gives back a run that was taken.
    pub(crate) fn put(&mut self, start: u32, count: u32) {
        self.micro_batches += count;
        let (mut start, mut order) = (start, count.next_power_of_two().trailing_zeros());
        let root = self.span.trailing_zeros();
        while order < root {
            let buddy = start ^ (1 << order);
            // A buddy that lies beyond the end is empty, hence free.
            if buddy < self.total {
                if self.free.get(&buddy) != Some(&order) {
                    break;
                }
                self.free.remove(&buddy);
            }
            start = start.min(buddy);
            order += 1;
        }
        self.free.insert(start, order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::is_node;
    use raven_graph::philox::word_at;

    #[test]
    fn what_is_taken_are_disjoint_nodes_whatever_the_order() {
        for total in 1..=70u32 {
            for span in [total.next_power_of_two(), 4, 1] {
                take_and_put(total, span.min(total.next_power_of_two()));
            }
        }
    }

    fn take_and_put(total: u32, span: u32) {
        let mut pool = RunPool::new(total, span);
        let mut taken: Vec<(u32, u32)> = Vec::new();
        for step in 0..200u64 {
            let word = word_at(u64::from(total), span, 0, step);
            let give_back = word & 3 == 0 && !taken.is_empty();
            if give_back {
                let (start, count) = taken.swap_remove(word as usize / 4 % taken.len());
                pool.put(start, count);
            } else {
                let from = word / 64 % total;
                let preferred = [(from, (from + 5).min(total))];
                let size = 1 << (word / 4 % 5);
                let Some((start, count)) = pool.find(size, &preferred) else { continue };
                assert!(is_node(start, count, total), "{start}+{count} of {total}");
                assert!(count <= size);
                assert_eq!(start / span, (start + count - 1) / span, "it crosses a group");
                pool.take(start, count);
                taken.push((start, count));
            }
            let mut covered: Vec<u32> =
                taken.iter().flat_map(|&(start, count)| start..start + count).collect();
            covered.sort_unstable();
            assert!(covered.windows(2).all(|pair| pair[0] < pair[1]), "taken twice");
            assert_eq!(covered.len() as u32 + pool.len(), total);
        }
        for (start, count) in taken {
            pool.put(start, count);
        }
        assert_eq!(pool.free, RunPool::new(total, span).free, "buddies merge back");
    }

    #[test]
    fn preferred_ranges_come_first_and_others_are_spread() {
        let mut pool = RunPool::new(16, 16);
        assert_eq!(pool.find(2, &[(5, 9)]), Some((6, 2)));
        assert_eq!(pool.find(2, &[]), Some((0, 2)));
        pool.take(0, 2);
        assert_eq!(pool.find(2, &[]), Some((8, 2)));
        assert_eq!(pool.find(2, &[(0, 2)]), Some((8, 2)));
    }
}
