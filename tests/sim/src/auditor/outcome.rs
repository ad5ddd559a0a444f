//! What became of each result: everybody who committed is told, and once.

use super::Auditor;
use raven_protocol::{LeaseId, ResultOutcome};
use std::collections::BTreeMap;

/// What came of a lease that was given out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Given {
    /// Whether somebody committed under it in time.
    pub(super) committed: bool,
    /// What became of its result, in the order in which it was told: there are many
    /// of these, and it comes to three things at most.
    pub(super) outcomes: [Option<ResultOutcome>; 3],
}

impl Given {
    fn outcomes(&self) -> impl DoubleEndedIterator<Item = ResultOutcome> {
        self.outcomes.into_iter().flatten()
    }
}

impl Auditor {
    /// A lease has one outcome, in the end: what was accepted may be undone, and what
    /// was paid may turn out to be false.
    pub(super) fn came_to(&mut self, lease: LeaseId, outcome: ResultOutcome) {
        use ResultOutcome::{Accepted, Late, NotNeeded, Undone, Void, Withdrawn, Wrong};
        let given = self.given.get_mut(&lease);
        let given = given.unwrap_or_else(|| panic!("{lease} was never given"));
        let in_time = given.committed;
        let may_be = match (given.outcomes().last(), outcome) {
            (None, Late | NotNeeded | Withdrawn) => true,
            (None, Undone) => false,
            (None, _) => in_time,
            (Some(Accepted), Undone) => true,
            (Some(Accepted | Undone), Wrong | Void) => true,
            (Some(_), _) => false,
        };
        let before = &given.outcomes;
        assert!(may_be, "{lease} came to {before:?}, then to {outcome:?}");
        let free = given.outcomes.iter_mut().find(|told| told.is_none());
        *free.expect("it comes to three things at most") = Some(outcome);
    }

    /// Everybody who committed was told what became of it, and those who were
    /// told that they are paid are paid.
    pub(super) fn check_outcomes(&self, executions: usize) {
        let mut last: BTreeMap<ResultOutcome, u64> = BTreeMap::new();
        for (lease, given) in &self.given {
            let outcome = given.outcomes().last();
            assert!(outcome.is_some() || !given.committed, "{lease} came to nothing that was told");
            if let Some(outcome) = outcome {
                *last.entry(outcome).or_default() += 1;
            }
        }
        assert_eq!(self.counted, last, "each result is counted once, as what it came to");
        let is_accepted = |given: &&Given| given.outcomes[0] == Some(ResultOutcome::Accepted);
        let accepted = self.given.values().filter(is_accepted);
        let is_kept = |given: &&Given| {
            let lost = [ResultOutcome::Wrong, ResultOutcome::Void];
            !given.outcomes().any(|outcome| lost.contains(&outcome))
        };
        let kept = accepted.clone().filter(is_kept).count();
        let paid = kept..=accepted.count();
        assert!(paid.contains(&executions), "{executions} executions are paid, {paid:?} were told");
    }
}
