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
//! what is held can be voided: the rounds from there on are then stated anew.

use super::account::Account;
use super::entry::{Action, Entry, EntryId, Reason, Transfer, UnixMillis};
use crate::effect::Payer;
use crate::event::ContributorId;
use crate::money::{Charge, NanoUsd};
use raven_protocol::JobId;
use std::collections::BTreeMap;

/// Percent of the operational cost that the customer pays on top, by account.
pub const MASTER_PERCENT: i128 = 5;
/// For the site through which the work came.
pub const PARTNER_PERCENT: i128 = 3;
/// For the transaction.
pub const FEE_PERCENT: i128 = 2;
/// The whole margin.
pub const MARGIN_PERCENT: i128 = MASTER_PERCENT + PARTNER_PERCENT + FEE_PERCENT;

/// Exact amounts are hundredths of a [`Charge`]'s unit, so that percents are integers.
const PER_NANO_USD: i128 = 100 * Charge::PER_NANO_USD;

/// A quote: `flops` at `rate`, `allowance_percent` executions per hundred tasks,
/// and the margin, rounded up. `None` beyond the range of the books.
pub fn quote(charge: Charge, allowance_percent: u64) -> Option<NanoUsd> {
    let cost = charge.units().checked_mul(i128::from(allowance_percent))?;
    let price = cost.checked_mul(100 + MARGIN_PERCENT)?;
    let unit = 100 * 100 * Charge::PER_NANO_USD;
    let up = i128::from(price.rem_euclid(unit) > 0);
    i64::try_from(price.div_euclid(unit) + up).ok().map(NanoUsd)
}

/// One execution that qualified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub contributor: ContributorId,
    /// Whose the earning is: the contributor's, or that of the site it is left to.
    pub earner: Account,
    /// Whose the partner's share is: the site's, or the reserve.
    pub partner: Account,
    pub charge: Charge,
    pub payer: Payer,
}

/// A round of a job: it may be done again after the job went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoundKey {
    /// How often the job had gone back.
    pub attempt: u32,
    pub round: u32,
}

/// Why pay is not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    #[error("round {}: its pay was entered before", key.round)]
    Repeated { key: RoundKey },
    #[error("round {}: it comes after one that was entered before", key.round)]
    Order { key: RoundKey },
    #[error("round {}: it is not open, or one before it is", key.round)]
    NotNext { key: RoundKey },
    #[error("the job's books are closed")]
    Closed,
    #[error("the sum of charges exceeds the range of the books")]
    Overflow,
}

/// What is summed up apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    is_jobs: bool,
    reason: Reason,
    account: Account,
}

/// What a line has earned, exactly, and what of it was paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Owed {
    exact: i128,
    paid: i64,
}

impl Owed {
    /// Whole nano-USD that are due and not paid.
    fn due(&self) -> Result<i64, PayError> {
        let whole = i64::try_from(self.exact / PER_NANO_USD).map_err(|_| PayError::Overflow)?;
        Ok(whole - self.paid)
    }
}

/// A round whose pay has not matured.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OpenRound {
    /// How often it was stated.
    version: u32,
    work: Vec<Work>,
    holds: Vec<(EntryId, Line, i64)>,
}

/// The pay of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPay {
    job: JobId,
    lines: BTreeMap<Line, Owed>,
    open: BTreeMap<RoundKey, OpenRound>,
    last: Option<RoundKey>,
    /// Holds of the parts of a nano-USD that were left, once the job has ended.
    closing: Option<Closing>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Closing {
    version: u32,
    holds: Vec<(EntryId, Line, i64)>,
}

impl JobPay {
    /// Of a job of which nothing is done.
    pub fn new(job: JobId) -> Self {
        JobPay { job, lines: BTreeMap::new(), open: BTreeMap::new(), last: None, closing: None }
    }

    /// Rounds whose pay has not matured, oldest first.
    pub fn open_rounds(&self) -> impl Iterator<Item = RoundKey> + '_ {
        self.open.keys().copied()
    }

    /// The round that matures next.
    pub fn oldest_open(&self) -> Option<RoundKey> {
        self.open.keys().next().copied()
    }

    /// Whether everything that was earned is paid and matured.
    pub fn is_done(&self) -> bool {
        self.open.is_empty() && self.closing.as_ref().is_some_and(|c| c.holds.is_empty())
    }

    /// What was earned of the job's own money for `reason`, exactly, in hundredths
    /// of a charge's unit.
    pub fn exact(&self, reason: Reason) -> i128 {
        let of = |line: &Line| line.is_jobs && line.reason == reason;
        self.lines.iter().filter(|(line, _)| of(line)).map(|(_, owed)| owed.exact).sum()
    }

    /// Holds what a round's work earns.
    ///
    /// # Errors
    /// [`PayError`]; nothing is changed then.
    pub fn verified(
        &mut self,
        key: RoundKey,
        work: Vec<Work>,
        at: UnixMillis,
    ) -> Result<Vec<Entry>, PayError> {
        if self.closing.is_some() {
            return Err(PayError::Closed);
        }
        match self.last {
            Some(last) if last == key => return Err(PayError::Repeated { key }),
            Some(last) if last > key => return Err(PayError::Order { key }),
            _ => {}
        }
        let mut entries = Vec::new();
        self.state(key, 0, work, at, &mut entries)?;
        self.last = Some(key);
        Ok(entries)
    }

    /// Voids what `contributor` earned in the open rounds from `key` on, since a
    /// lie of its own was proven. What others earned in them stays.
    ///
    /// # Errors
    /// [`PayError::Overflow`]; nothing is changed then.
    pub fn void(
        &mut self,
        key: RoundKey,
        contributor: ContributorId,
        at: UnixMillis,
    ) -> Result<Vec<Entry>, PayError> {
        let is_theirs = |work: &Work| work.contributor == contributor;
        let concerned = |round: &OpenRound| round.work.iter().any(is_theirs);
        let first = self.open.range(key..).find(|(_, round)| concerned(round));
        let Some((&first, _)) = first else { return Ok(Vec::new()) };
        let before = self.clone();
        let result = self.state_anew(first, contributor, at);
        if result.is_err() {
            *self = before;
        }
        result
    }

    /// What a round paid is its earners' own from now on.
    ///
    /// # Errors
    /// [`PayError::NotNext`] unless it is the oldest open round.
    pub fn mature(&mut self, key: RoundKey, at: UnixMillis) -> Result<Vec<Entry>, PayError> {
        let oldest = self.open.first_entry().filter(|entry| *entry.key() == key);
        let round = oldest.ok_or(PayError::NotNext { key })?.remove();
        Ok(round.holds.iter().map(|(hold, ..)| posted(*hold, at)).collect())
    }

    /// The job has ended: holds the parts of a nano-USD that are left, by largest
    /// remainder. To be repeated after a void.
    ///
    /// # Errors
    /// [`PayError::Overflow`]; nothing is changed then.
    pub fn close(&mut self, at: UnixMillis) -> Result<Vec<Entry>, PayError> {
        let mut after = self.clone();
        let mut entries = Vec::new();
        let version = after.reopen(at, &mut entries);
        let left = after.remainders()?;
        let mut holds = Vec::new();
        for line in left {
            let id = after.id("closing", RoundKey { attempt: 0, round: 0 }, version, &line);
            after.hold(id, line, 1, at, &mut entries);
            holds.push((id, line, 1));
        }
        after.closing = Some(Closing { version: version + 1, holds });
        *self = after;
        Ok(entries)
    }

    /// Nothing of the job can be voided any more.
    ///
    /// # Errors
    /// [`PayError::NotNext`] while a round is open.
    pub fn mature_closing(&mut self, at: UnixMillis) -> Result<Vec<Entry>, PayError> {
        if let Some(key) = self.oldest_open() {
            return Err(PayError::NotNext { key });
        }
        let holds = self.closing.as_mut().map(|closing| std::mem::take(&mut closing.holds));
        Ok(holds.unwrap_or_default().iter().map(|(hold, ..)| posted(*hold, at)).collect())
    }

    /// Takes a closing back, so that rounds can be stated anew; the next one's version.
    fn reopen(&mut self, at: UnixMillis, entries: &mut Vec<Entry>) -> u32 {
        let Some(closing) = self.closing.take() else { return 0 };
        for (hold, line, amount) in closing.holds {
            self.take_back(line, amount);
            entries.push(voided(hold, at));
        }
        closing.version
    }

    /// Adds a round's work and holds whatever whole nano-USD are due. Where that
    /// is an error nothing is changed.
    fn state(
        &mut self,
        key: RoundKey,
        version: u32,
        work: Vec<Work>,
        at: UnixMillis,
        entries: &mut Vec<Entry>,
    ) -> Result<(), PayError> {
        let mut after: BTreeMap<Line, Owed> = BTreeMap::new();
        for work in &work {
            for (line, exact) in lines(work)? {
                let before = || self.lines.get(&line).copied().unwrap_or_default();
                let owed = after.entry(line).or_insert_with(before);
                owed.exact = owed.exact.checked_add(exact).ok_or(PayError::Overflow)?;
            }
        }
        let dues: Vec<(Line, i64)> =
            after.iter().map(|(line, owed)| Ok((*line, owed.due()?))).collect::<Result<_, _>>()?;
        self.lines.extend(after);
        let mut holds = Vec::new();
        for (line, due) in dues {
            if due > 0 {
                let id = self.id("pay", key, version, &line);
                self.hold(id, line, due, at, entries);
                holds.push((id, line, due));
            }
        }
        self.open.insert(key, OpenRound { version, work, holds });
        Ok(())
    }

    /// States the open rounds from `first` on without what `liar` did.
    fn state_anew(
        &mut self,
        first: RoundKey,
        liar: ContributorId,
        at: UnixMillis,
    ) -> Result<Vec<Entry>, PayError> {
        let mut entries = Vec::new();
        let closing = self.closing.is_some().then(|| self.reopen(at, &mut entries));
        let rounds = self.open.split_off(&first);
        for round in rounds.values() {
            for &(hold, line, amount) in &round.holds {
                self.take_back(line, amount);
                entries.push(voided(hold, at));
            }
            for work in &round.work {
                for (line, exact) in lines(work)? {
                    if let Some(owed) = self.lines.get_mut(&line) {
                        owed.exact -= exact;
                    }
                }
            }
        }
        for (key, mut round) in rounds {
            round.work.retain(|work| work.contributor != liar);
            self.state(key, round.version + 1, round.work, at, &mut entries)?;
        }
        if let Some(version) = closing {
            self.closing = Some(Closing { version, holds: Vec::new() });
        }
        Ok(entries)
    }

    /// Lines that get one more nano-USD each, so that each share comes to its
    /// exact sum rounded down.
    fn remainders(&self) -> Result<Vec<Line>, PayError> {
        let mut shares: BTreeMap<(bool, Reason), Vec<(Line, Owed)>> = BTreeMap::new();
        for (&line, &owed) in &self.lines {
            shares.entry((line.is_jobs, line.reason)).or_default().push((line, owed));
        }
        let mut chosen = Vec::new();
        for mut share in shares.into_values() {
            let exact: i128 = share.iter().map(|(_, owed)| owed.exact).sum();
            let paid: i128 = share.iter().map(|(_, owed)| i128::from(owed.paid)).sum();
            let left = usize::try_from(exact / PER_NANO_USD - paid).unwrap_or(0);
            // Equal remainders are served in the order of accounts.
            share.sort_by_key(|(line, owed)| (-(owed.exact % PER_NANO_USD), *line));
            chosen.extend(share.into_iter().take(left).map(|(line, _)| line));
        }
        Ok(chosen)
    }

    fn take_back(&mut self, line: Line, amount: i64) {
        if let Some(owed) = self.lines.get_mut(&line) {
            owed.paid -= amount;
        }
    }

    fn hold(
        &mut self,
        id: EntryId,
        line: Line,
        amount: i64,
        at: UnixMillis,
        entries: &mut Vec<Entry>,
    ) {
        self.lines.entry(line).or_default().paid += amount;
        let debit = if line.is_jobs { Account::Escrow(self.job) } else { Account::Operator };
        let amount = NanoUsd(amount);
        let transfer = Transfer { debit, credit: line.account, amount, reason: line.reason };
        entries.push(Entry { id, at, action: Action::Hold { transfer, expires: None } });
    }

    fn id(&self, domain: &str, key: RoundKey, version: u32, line: &Line) -> EntryId {
        EntryId::of(
            domain,
            &[
                &self.job.0.to_le_bytes(),
                &key.attempt.to_le_bytes(),
                &key.round.to_le_bytes(),
                &version.to_le_bytes(),
                &[u8::from(line.is_jobs), line.reason as u8],
                &line.account.to_bytes(),
            ],
        )
    }
}

/// What one execution adds to which lines. Work that the operator pays carries no
/// margin: the customer is not charged for it.
fn lines(work: &Work) -> Result<Vec<(Line, i128)>, PayError> {
    let is_jobs = work.payer == Payer::Job;
    let line = |reason, account| Line { is_jobs, reason, account };
    let percent = |percent| work.charge.units().checked_mul(percent).ok_or(PayError::Overflow);
    let mut lines = vec![(line(Reason::Earning, work.earner), percent(100)?)];
    if is_jobs {
        lines.push((line(Reason::PartnerShare, work.partner), percent(PARTNER_PERCENT)?));
        lines.push((line(Reason::MasterShare, Account::MasterNode), percent(MASTER_PERCENT)?));
        lines.push((line(Reason::Fee, Account::ProtocolFee), percent(FEE_PERCENT)?));
    }
    Ok(lines)
}

fn posted(hold: EntryId, at: UnixMillis) -> Entry {
    Entry { id: EntryId::of("mature", &[&hold.0]), at, action: Action::PostHold { hold } }
}

fn voided(hold: EntryId, at: UnixMillis) -> Entry {
    Entry { id: EntryId::of("void", &[&hold.0]), at, action: Action::VoidHold { hold } }
}

#[cfg(test)]
mod tests;
