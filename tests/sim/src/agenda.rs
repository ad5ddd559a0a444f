//! What is to happen, by time. Happenings are large and many, so they lie still
//! while their times are put in order.

use crate::faults::Micros;
use crate::sim::Happening;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// When something happens; of those at once, what was planned first. The last
/// is where it lies.
type Due = (Micros, u64, usize);

/// Happenings to come.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    due: BinaryHeap<Reverse<Due>>,
    happenings: Vec<Option<Happening>>,
    /// Places of `happenings` where nothing lies.
    free: Vec<usize>,
    planned: u64,
}

impl Agenda {
    /// Plans something for `at`.
    pub(crate) fn plan(&mut self, at: Micros, happening: Happening) {
        self.planned += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.happenings.push(None);
            self.happenings.len() - 1
        });
        self.happenings[place] = Some(happening);
        self.due.push(Reverse((at, self.planned, place)));
    }

    /// When the next thing happens.
    pub(crate) fn next(&self) -> Option<Micros> {
        self.due.peek().map(|&Reverse((at, ..))| at)
    }

    /// Takes the next thing, with its time.
    pub(crate) fn pop(&mut self) -> Option<(Micros, Happening)> {
        let Reverse((at, _, place)) = self.due.pop()?;
        self.free.push(place);
        let happening = self.happenings[place].take().expect("what is due lies in its place");
        Some((at, happening))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_the_order_of_time_then_of_planning() {
        let mut agenda = Agenda::default();
        let join = |node| Happening::Join { node };
        agenda.plan(20, join(0));
        agenda.plan(10, join(1));
        agenda.plan(20, join(2));
        assert_eq!(agenda.next(), Some(10));
        assert_eq!(agenda.pop(), Some((10, join(1))));
        agenda.plan(20, join(3));
        let rest: Vec<_> = std::iter::from_fn(|| agenda.pop()).collect();
        assert_eq!(rest, [(20, join(0)), (20, join(2)), (20, join(3))]);
        assert_eq!(agenda.next(), None);
    }
}
