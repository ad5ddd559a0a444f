//! What a job's durable records say that it owes, summed up as they come: at its end the
//! engine's own account must say the same.

use crate::ids::IdMap;
use raven_engine::money::{Charge, Flops};
use raven_engine::{ContributorId, Payer, Record, Spent, Void};
use raven_protocol::{JobId, TaskId};

/// Credits of a job's records without what they void, and their sums.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    credits: IdMap<(TaskId, u32, ContributorId), (Payer, u64, i128)>,
    flops: u64,
    charge: i128,
    operator: i128,
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
            }
        }
        for Void { task, attempt, contributor } in &record.voids {
            if let Some(line) = self.credits.remove(&(*task, *attempt, *contributor)) {
                self.add(line, -1);
            }
        }
        self.is_closed = record.phase.is_end();
    }

    /// What an earlier coordinator's records say.
    pub(crate) fn resumed(&mut self, spent: &Spent) {
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
