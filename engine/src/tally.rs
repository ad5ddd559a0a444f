//! What of a job's work its owner pays for: each round once, and of its tasks as many
//! executions as the job's allowance says.

use crate::allowance::Allowance;
use crate::effect::Payer;

/// Who pays for which execution of one job. What it holds is of one process: it allows the
/// charges of the rounds that it has counted, so that those of all processes together are
/// within the allowance of each round once.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    allowance: Allowance,
    /// Rounds that were paid for, from the first.
    rounds_paid: u32,
    /// Flops of accepted tasks of the rounds that are paid for here.
    tasks: u128,
    /// Flops of the executions of them that the job is charged for.
    charged: u128,
    /// The last round of which tasks were counted, and their flops.
    newest: (u32, u128),
}

impl Tally {
    /// Of a job whose first `rounds_paid` rounds were paid for before.
    pub fn new(allowance: Allowance, rounds_paid: u32) -> Self {
        Tally { allowance, rounds_paid, tasks: 0, charged: 0, newest: (0, 0) }
    }

    /// A task of `round` is accepted. In a round that was paid for before it allows no
    /// charge: that it is done again is nothing that the job's owner has quoted.
    pub fn accept(&mut self, round: u32, flops: u64) {
        if self.is_paid(round) {
            return;
        }
        if self.newest.0 != round {
            self.newest = (round, 0);
        }
        self.newest.1 += u128::from(flops);
        self.tasks += u128::from(flops);
    }

    /// Who pays for one execution of a task of `round` that is accepted.
    pub fn charge(&mut self, round: u32, flops: u64) -> Payer {
        let charged = self.charged + u128::from(flops);
        let allowed = self.tasks * u128::from(self.allowance.0) / 1_000;
        if self.is_paid(round) || charged > allowed {
            return Payer::Operator;
        }
        self.charged = charged;
        Payer::Job
    }

    /// An execution that was charged is void.
    pub fn take_back(&mut self, flops: u64) {
        self.charged = self.charged.saturating_sub(flops.into());
    }

    /// Whether the work of `round` was paid for once: doing it again is the operator's cost.
    pub fn is_paid(&self, round: u32) -> bool {
        round < self.rounds_paid
    }

    /// What the job was quoted with.
    pub fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// Rounds that were paid for, from the first.
    pub fn rounds_paid(&self) -> u32 {
        self.rounds_paid
    }

    /// The job goes back, and rounds below `round` are paid for. A round beyond them in
    /// which everything turned out to be void begins anew.
    pub fn paid_until(&mut self, round: u32) {
        self.rounds_paid = self.rounds_paid.max(round);
        if !self.is_paid(self.newest.0) {
            self.tasks -= std::mem::take(&mut self.newest.1);
        }
    }

    /// Rounds from `round` on are done again for another result: that is paid for.
    pub fn not_paid_from(&mut self, round: u32) {
        self.rounds_paid = self.rounds_paid.min(round);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Executions of one task of a round that the job is charged for, of three.
    fn charged(tally: &mut Tally, round: u32) -> usize {
        tally.accept(round, 10);
        (0..3).filter(|_| tally.charge(round, 10) == Payer::Job).count()
    }

    #[test]
    fn slack_of_one_round_is_charged_in_the_next() {
        let mut tally = Tally::new(Allowance(1_500), 0);
        let rounds: Vec<usize> = (0..4).map(|round| charged(&mut tally, round)).collect();
        assert_eq!(rounds, [1, 2, 1, 2]);
        tally.take_back(10);
        assert_eq!(charged(&mut tally, 4), 2, "what is void may be charged elsewhere");
    }

    #[test]
    fn rounds_that_are_done_again_allow_no_charge() {
        let mut tally = Tally::new(Allowance(1_300), 64);
        assert!((0..64).all(|round| charged(&mut tally, round) == 0));
        let rest: usize = (64..100).map(|round| charged(&mut tally, round)).sum();
        assert_eq!(rest, 46, "of 36 tasks");
        tally.paid_until(100);
        assert!((50..100).all(|round| charged(&mut tally, round) == 0));
        assert_eq!(charged(&mut tally, 100), 2);
        tally.not_paid_from(90);
        assert_eq!(charged(&mut tally, 90), 1, "another result is other work");
    }

    #[test]
    fn a_round_of_lies_alone_counts_as_begun_by_nobody() {
        let mut tally = Tally::new(Allowance(1_300), 0);
        (0..5).for_each(|round| tally.accept(round, 10));
        assert_eq!(tally.charge(4, 10), Payer::Job);
        tally.take_back(10);
        tally.paid_until(4);
        let again: usize = (0..8).map(|_| charged(&mut tally, 4)).sum();
        assert_eq!(again, 15, "of 12 tasks, four of them before");
    }

    #[test]
    fn the_largest_of_jobs_is_within_its_range() {
        let mut tally = Tally::new(Allowance::MEASURED_MAX, 0);
        for _ in 0..1_000 {
            tally.accept(0, u64::MAX);
            let payers: Vec<Payer> = (0..4).map(|_| tally.charge(0, u64::MAX)).collect();
            assert_eq!(payers, [Payer::Job, Payer::Job, Payer::Job, Payer::Operator]);
        }
    }
}
