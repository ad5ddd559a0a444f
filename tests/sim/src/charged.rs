//! What a job may be charged for: of each round once as many executions as its allowance
//! says, however often the round is done. Known from its plan and its durable records.

use raven_engine::{
    Algorithm, Allowance, Credit, JobPlan, Layout, Payer, Placement, Record, StagePlan, SyncSgd,
};
use std::collections::BTreeSet;

/// The account of one job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Charged {
    quoted: Option<(SyncSgd, Layout, Allowance)>,
    /// Rounds that an earlier coordinator has paid for.
    paid: u32,
    /// Rounds of which something was credited, since the job last began again for another
    /// result.
    begun: BTreeSet<u32>,
    /// Flops of those before that.
    before: u128,
    flops: u128,
}

impl Charged {
    pub(crate) fn quoted(&mut self, plan: &JobPlan, allowance: Option<Allowance>) {
        let Algorithm::SyncSgd(sgd) = &plan.algorithm;
        let Ok(layout) = Layout::of(sgd) else { return };
        let allowance = allowance.unwrap_or(Allowance::usual(plan.verification));
        self.quoted = Some((sgd.clone(), layout, allowance));
    }

    /// An earlier coordinator has paid for rounds.
    pub(crate) fn resumed(&mut self, rounds: u32) {
        self.paid = rounds;
    }

    /// An execution that no record said before.
    pub(crate) fn add(&mut self, credit: &Credit) {
        if credit.task.round >= self.paid {
            self.begun.insert(credit.task.round);
        }
        if credit.payer == Payer::Job {
            assert!(credit.task.round >= self.paid, "{} is paid twice", credit.task);
            self.flops += u128::from(credit.flops);
        }
    }

    /// One that earns nothing after all.
    pub(crate) fn take_back(&mut self, payer: Payer, flops: u64) {
        if payer == Payer::Job {
            self.flops -= u128::from(flops);
        }
    }

    /// All of a record was added.
    pub(crate) fn recorded(&mut self, record: &Record) {
        if record.set_back.is_some() {
            let again = self.begun.split_off(&record.step);
            self.before += again.into_iter().map(|round| self.of_round(round)).sum::<u128>();
            self.paid = self.paid.min(record.step);
        }
        let Some((.., allowance)) = self.quoted else { return };
        let once = self.before + self.begun.iter().map(|&it| self.of_round(it)).sum::<u128>();
        let most = once * u128::from(allowance.0) / 1_000;
        let (job, flops) = (record.job, self.flops);
        assert!(flops <= most, "{job} is charged {flops} flops, {once} are allowed {allowance:?}");
    }

    /// Flops of a round whose tasks are done once.
    fn of_round(&self, round: u32) -> u128 {
        let Some((sgd, layout, _)) = &self.quoted else { return 0 };
        match &sgd.placement {
            Placement::Replica { flops, .. } => {
                u128::from(*flops) * u128::from(layout.micro_batches(round))
            }
            Placement::Master { stages, .. } => {
                let parts = stages.iter().flat_map(StagePlan::parts);
                parts.map(|part| u128::from(part.flops)).sum()
            }
        }
    }
}
