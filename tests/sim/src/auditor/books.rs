//! What a job's durable records say that it owes, summed up as they come: at its end the
//! engine's own account must say the same.

use crate::charged::Charged;
use crate::ids::IdMap;
use raven_engine::money::{Charge, Flops};
use raven_engine::{Allowance, ContributorId, JobPlan, Payer, Record, Spent, Void};
use raven_protocol::{JobId, TaskId};

/// Credits of a job's records without what they void, and their sums.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    credits: IdMap<(TaskId, u32, ContributorId), (Payer, u64, i128)>,
    flops: u64,
    charge: i128,
    operator: i128,
    charged: Charged,
    /// Whether a record of its end is durable, and they are not yet compared.
    is_closed: bool,
}

impl Books {
    /// A record is durable. Whoever repeats something after a failure enters nothing.
    pub(crate) fn enter(&mut self, record: &Record) {
        for credit in &record.credits {
            let key = (credit.task, credit.attempt, credit.contributor);
            let charge = Charge::of(Flops(credit.flops), credit.rate).units();
            let line = (credit.payer, credit.flops, charge);
            if self.credits.insert(key, line).is_none() {
                self.add(line, 1);
                self.charged.add(credit);
            }
        }
        for Void { task, attempt, contributor } in &record.voids {
            if let Some(line) = self.credits.remove(&(*task, *attempt, *contributor)) {
                self.add(line, -1);
                self.charged.take_back(line.0, line.1);
            }
        }
        self.charged.recorded(record);
        self.is_closed = record.phase.is_end();
    }

    /// How often each of its rounds may be charged.
    pub(crate) fn quoted(&mut self, plan: &JobPlan, allowance: Option<Allowance>) {
        self.charged.quoted(plan, allowance);
    }

    /// What an earlier coordinator's records say.
    pub(crate) fn resumed(&mut self, spent: &Spent, rounds: u32) {
        self.charged.resumed(rounds);
        self.flops = spent.flops;
        (self.charge, self.operator) = (spent.charge.units(), spent.operator.units());
    }

    fn add(&mut self, (payer, flops, charge): (Payer, u64, i128), times: i64) {
        match payer {
            Payer::Job => {
                self.flops = self.flops.wrapping_add_signed(flops as i64 * times);
                self.charge += charge * i128::from(times);
            }
            Payer::Operator => self.operator += charge * i128::from(times),
        }
    }

    /// Whether the job's end has become durable since this was last asked.
    pub(crate) fn closes(&mut self) -> bool {
        std::mem::take(&mut self.is_closed)
    }

    /// Nothing is spent that no record says, and the other way round.
    pub(crate) fn compare(&self, id: JobId, spent: &Spent) {
        let found = (spent.flops, spent.charge.units(), spent.operator.units());
        assert_eq!(found, (self.flops, self.charge, self.operator), "{id}: what it has spent");
    }
}
