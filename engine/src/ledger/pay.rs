//! What a job's verified work pays to whom: from exact charges to holds on the
//! job's escrow, whole nano-USD each.
//!
//! The rules stand in `engine/LEDGER.md`. Everything that an account has earned
//! in a job is summed up exactly. After each round it has been paid the whole
//! nano-USD of that sum; when the job ends, the parts of a nano-USD that are left
//! are given by largest remainder. So each account is within one nano-USD of
//! what it earned at any time, what all of them are paid is at no time more
//! than what was charged, and in the end each of the four shares is its exact
//! sum rounded down.
//!
//! A round's pay is held until it matures. Rounds mature in order, and only
//! what is held can be voided: what it was part of is then stated anew from there on.

mod share;

pub use share::{
    Exact, FEE_PERCENT, Line, MARGIN_PERCENT, MASTER_PERCENT, Owed, PARTNER_PERCENT, Work,
    cost_within, quote,
};

use super::account::Account;
use super::entry::{Action, Entry, EntryId, Reason, Transfer, UnixMillis};
use crate::effect::Payer;
use crate::event::ContributorId;
use crate::money::{Charge, NanoUsd};
use raven_protocol::JobId;
use share::{lines, price, remainders};
use std::collections::{BTreeMap, BTreeSet};

/// A round of a job: it may be done again after the job went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoundKey {
    /// How often the job had gone back.
    pub attempt: u32,
    pub round: u32,
}

/// An execution that earns nothing after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Voided {
    pub key: RoundKey,
    /// The task's stage and part within its round.
    pub task: (u32, u32),
    pub contributor: ContributorId,
}

/// Why pay is not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    #[error("round {}: its pay was entered before", key.round)]
    Repeated { key: RoundKey },
    #[error("round {}: it comes after one that was entered before", key.round)]
    Order { key: RoundKey },
    #[error("round {}: it has not matured", key.round)]
    Open { key: RoundKey },
    #[error("the job's books are closed")]
    Closed,
    #[error("the sum of charges exceeds the range of the books")]
    Overflow,
}

/// A hold of a round whose pay has not matured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub id: EntryId,
    pub line: Line,
    /// In nano-USD.
    pub amount: i64,
}

/// A round whose pay has not matured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenRound {
    pub work: Vec<Work>,
    pub holds: Vec<Held>,
}

/// The pay of one job. All of it is public, so that a store can keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPay {
    pub job: JobId,
    /// What the job holds for its work. What would cost more is the operator's to pay.
    pub escrow: NanoUsd,
    /// What the job is charged, with the margin: the sum of its own lines.
    pub charged: Exact,
    pub lines: BTreeMap<Line, Owed>,
    pub open: BTreeMap<RoundKey, OpenRound>,
    /// The last round that was entered.
    pub last: Option<RoundKey>,
    /// How often rounds were stated anew: ids of holds depend on it.
    pub statements: u32,
    /// Whether the job has ended and everything is paid.
    pub is_closed: bool,
}

/// Entries for the books, and the lines of which they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paid {
    pub entries: Vec<Entry>,
    /// Lines that changed.
    pub lines: BTreeSet<Line>,
}

impl JobPay {
    /// Of a job that holds `escrow` and of which nothing is done.
    pub fn new(job: JobId, escrow: NanoUsd) -> Self {
        JobPay {
            job,
            escrow,
            charged: Exact::default(),
            lines: BTreeMap::new(),
            open: BTreeMap::new(),
            last: None,
            statements: 0,
            is_closed: false,
        }
    }

    /// The round that matures next.
    pub fn oldest_open(&self) -> Option<RoundKey> {
        self.open.keys().next().copied()
    }

    /// What was earned of the job's own money for `reason`.
    pub fn exact(&self, reason: Reason) -> Exact {
        let of = |line: &Line| line.is_jobs && line.reason == reason;
        let lines = self.lines.iter().filter(|(line, _)| of(line));
        lines.fold(Exact::default(), |sum, (_, owed)| Exact(sum.0 + owed.exact.0))
    }

    /// Who comes to pay executions, one after the other, each with who is to and its charge:
    /// the operator where the price would exceed what the job holds.
    ///
    /// # Errors
    /// [`PayError::Overflow`].
    pub fn payers(
        &self,
        work: impl Iterator<Item = (Payer, Charge)>,
    ) -> Result<Vec<Payer>, PayError> {
        let mut charged = self.charged;
        let mut payer_of = |(payer, charge)| {
            if payer == Payer::Operator {
                return Ok(Payer::Operator);
            }
            let sum = price(charge)?.plus(charged).filter(|sum| sum.is_within(self.escrow));
            charged = sum.unwrap_or(charged);
            Ok(if sum.is_some() { Payer::Job } else { Payer::Operator })
        };
        work.map(&mut payer_of).collect()
    }

    /// Holds what a round's work earns. The price never exceeds what the job holds:
    /// an execution that would is paid by the operator.
    ///
    /// # Errors
    /// [`PayError`]; nothing is changed then.
    pub fn verified(
        &mut self,
        key: RoundKey,
        work: Vec<Work>,
        at: UnixMillis,
    ) -> Result<Paid, PayError> {
        match self.last {
            _ if self.is_closed => return Err(PayError::Closed),
            Some(last) if last == key => return Err(PayError::Repeated { key }),
            Some(last) if last > key => return Err(PayError::Order { key }),
            _ => {}
        }
        let mut work = work;
        let payers = self.payers(work.iter().map(|work| (work.payer, work.charge)))?;
        let mut charged = self.charged;
        for (work, payer) in work.iter_mut().zip(payers) {
            work.payer = payer;
            if payer == Payer::Job {
                charged = charged.plus(price(work.charge)?).ok_or(PayError::Overflow)?;
            }
        }
        let mut paid = Paid::default();
        let holds = self.state(key, &work, |_| true, at, &mut paid)?;
        self.open.insert(key, OpenRound { work, holds });
        self.charged = charged;
        self.last = Some(key);
        Ok(paid)
    }

    /// Voids executions in open rounds, since a lie of whoever did them was proven.
    /// What others earned in these rounds stays; what has matured stays too. Only the
    /// lines that the executions were part of are stated anew.
    ///
    /// # Errors
    /// [`PayError::Overflow`]; nothing is changed then.
    pub fn void(&mut self, voided: &[Voided], at: UnixMillis) -> Result<Paid, PayError> {
        let voided: BTreeSet<Voided> = voided.iter().copied().collect();
        let is_void = |key: RoundKey, work: &Work| {
            voided.contains(&Voided { key, task: work.task, contributor: work.contributor })
        };
        let mut first = None;
        let mut touched = BTreeSet::new();
        for (&key, round) in &self.open {
            for work in round.work.iter().filter(|work| is_void(key, work)) {
                first = first.or(Some(key));
                touched.extend(lines(work)?.into_iter().map(|(line, _)| line));
            }
        }
        let Some(first) = first else { return Ok(Paid::default()) };
        let mut after = self.clone();
        after.statements += 1;
        let mut paid = Paid::default();
        let mut rounds = after.open.split_off(&first);
        for round in rounds.values_mut() {
            after.take_back(round, &touched, at, &mut paid)?;
        }
        for (key, mut round) in rounds {
            for work in round.work.extract_if(.., |work| is_void(key, work)) {
                if work.payer == Payer::Job {
                    after.charged = after.charged.less(price(work.charge)?);
                }
            }
            let is_touched = |line: &Line| touched.contains(line);
            let holds = after.state(key, &round.work, is_touched, at, &mut paid)?;
            round.holds.extend(holds);
            after.open.insert(key, round);
        }
        *self = after;
        Ok(paid)
    }

    /// What the open rounds up to `last` paid is its earners' own from now on.
    pub fn mature(&mut self, last: RoundKey, at: UnixMillis) -> Paid {
        let mut paid = Paid::default();
        while let Some(oldest) = self.open.first_entry().filter(|oldest| *oldest.key() <= last) {
            paid.entries.extend(oldest.remove().holds.iter().map(|held| posted(held.id, at)));
        }
        paid
    }

    /// The job has ended: pays the parts of a nano-USD that are left, by largest
    /// remainder.
    ///
    /// # Errors
    /// [`PayError::Open`], [`PayError::Closed`]; nothing is changed then.
    pub fn close(&mut self, at: UnixMillis) -> Result<Paid, PayError> {
        match self.oldest_open() {
            Some(key) => return Err(PayError::Open { key }),
            None if self.is_closed => return Err(PayError::Closed),
            None => {}
        }
        let mut paid = Paid::default();
        for line in remainders(&self.lines) {
            let id = self.id("closing", RoundKey { attempt: 0, round: 0 }, &line);
            let action = Action::Post(self.transfer(line, 1));
            self.lines.entry(line).or_default().paid += 1;
            paid.entries.push(Entry { id, at, action });
            paid.lines.insert(line);
        }
        self.is_closed = true;
        Ok(paid)
    }

    /// Adds a round's work to some lines and holds whatever whole nano-USD are due on
    /// them. Where that is an error nothing is changed.
    fn state(
        &mut self,
        key: RoundKey,
        work: &[Work],
        is_concerned: impl Fn(&Line) -> bool,
        at: UnixMillis,
        paid: &mut Paid,
    ) -> Result<Vec<Held>, PayError> {
        let mut after: BTreeMap<Line, Owed> = BTreeMap::new();
        for work in work {
            for (line, exact) in lines(work)?.into_iter().filter(|(line, _)| is_concerned(line)) {
                let before = || self.lines.get(&line).copied().unwrap_or_default();
                let owed = after.entry(line).or_insert_with(before);
                owed.exact = owed.exact.plus(exact).ok_or(PayError::Overflow)?;
            }
        }
        let mut holds = Vec::new();
        for (&line, owed) in &mut after {
            let amount = owed.due()?;
            if amount > 0 {
                owed.paid += amount;
                holds.push(Held { id: self.id("pay", key, &line), line, amount });
            }
        }
        for held in &holds {
            let transfer = self.transfer(held.line, held.amount);
            let action = Action::Hold { transfer, expires: None };
            paid.entries.push(Entry { id: held.id, at, action });
        }
        paid.lines.extend(after.keys());
        self.lines.extend(after);
        Ok(holds)
    }

    /// Voids a round's holds on some lines and takes its work out of their sums.
    fn take_back(
        &mut self,
        round: &mut OpenRound,
        touched: &BTreeSet<Line>,
        at: UnixMillis,
        paid: &mut Paid,
    ) -> Result<(), PayError> {
        for held in round.holds.extract_if(.., |held| touched.contains(&held.line)) {
            self.lines.entry(held.line).or_default().paid -= held.amount;
            paid.entries.push(voided(held.id, at));
        }
        for work in &round.work {
            for (line, exact) in lines(work)?.into_iter().filter(|(line, _)| touched.contains(line))
            {
                let owed = self.lines.entry(line).or_default();
                owed.exact = owed.exact.less(exact);
            }
        }
        paid.lines.extend(touched);
        Ok(())
    }

    fn transfer(&self, line: Line, amount: i64) -> Transfer {
        let debit = if line.is_jobs { Account::Escrow(self.job) } else { Account::Operator };
        Transfer { debit, credit: line.account, amount: NanoUsd(amount), reason: line.reason }
    }

    fn id(&self, domain: &str, key: RoundKey, line: &Line) -> EntryId {
        EntryId::of(
            domain,
            &[
                &self.job.0.to_le_bytes(),
                &key.attempt.to_le_bytes(),
                &key.round.to_le_bytes(),
                &self.statements.to_le_bytes(),
                &[u8::from(line.is_jobs), line.reason as u8],
                &line.account.to_bytes(),
            ],
        )
    }
}

fn posted(hold: EntryId, at: UnixMillis) -> Entry {
    Entry { id: EntryId::of("mature", &[&hold.0]), at, action: Action::PostHold { hold } }
}

fn voided(hold: EntryId, at: UnixMillis) -> Entry {
    Entry { id: EntryId::of("void", &[&hold.0]), at, action: Action::VoidHold { hold } }
}

#[cfg(test)]
mod tests;
