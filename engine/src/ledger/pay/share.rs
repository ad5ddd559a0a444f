//! Shares: who gets which part of what one execution costs.

use super::PayError;
use crate::allowance::Allowance;
use crate::effect::Payer;
use crate::event::ContributorId;
use crate::ledger::account::Account;
use crate::ledger::entry::Reason;
use crate::money::{Charge, NanoUsd};
use std::collections::BTreeMap;

/// Percent of the operational cost that the customer pays on top, by account.
pub const MASTER_PERCENT: i128 = 5;
/// For the site through which the work came.
pub const PARTNER_PERCENT: i128 = 3;
/// For the transaction.
pub const FEE_PERCENT: i128 = 2;
/// The whole margin.
pub const MARGIN_PERCENT: i128 = MASTER_PERCENT + PARTNER_PERCENT + FEE_PERCENT;

/// An exact amount: hundredths of a [`Charge`]'s unit, so that percents are integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exact(pub i128);

impl Exact {
    /// How many make one nano-USD.
    pub const PER_NANO_USD: i128 = 100 * Charge::PER_NANO_USD;

    /// Percent of a charge; `None` beyond i128.
    pub fn percent_of(charge: Charge, percent: i128) -> Option<Exact> {
        charge.units().checked_mul(percent).map(Exact)
    }

    /// Both; `None` beyond i128.
    pub fn plus(self, other: Exact) -> Option<Exact> {
        self.0.checked_add(other.0).map(Exact)
    }

    /// Without a part that was added before.
    pub const fn less(self, part: Exact) -> Exact {
        Exact(self.0 - part.0)
    }

    /// In whole nano-USD, rounded up; `None` beyond the range of the books.
    pub fn rounded_up(self) -> Option<NanoUsd> {
        let up = i128::from(self.0.rem_euclid(Exact::PER_NANO_USD) > 0);
        i64::try_from(self.0.div_euclid(Exact::PER_NANO_USD) + up).ok().map(NanoUsd)
    }

    /// Whether it is at most that much.
    pub fn is_within(self, amount: NanoUsd) -> bool {
        self.0 <= i128::from(amount.0) * Exact::PER_NANO_USD
    }
}

/// A quote: what costs `charge` once, as often as the allowance says, with the margin,
/// rounded up. `None` beyond the range of the books.
pub fn quote(charge: Charge, allowance: Allowance) -> Option<NanoUsd> {
    let cost = charge.units().checked_mul(i128::from(allowance.0))?;
    let price = cost.checked_mul(100 + MARGIN_PERCENT)?;
    let unit = i128::from(Allowance::ONE.0) * Exact::PER_NANO_USD;
    let up = i128::from(price.rem_euclid(unit) > 0);
    i64::try_from(price.div_euclid(unit) + up).ok().map(NanoUsd)
}

/// The operational cost that comes to `price` with the margin, rounded down.
pub fn cost_within(price: NanoUsd) -> Charge {
    let units = Charge::nano_usd(price.0.max(0).unsigned_abs()).units() * 100;
    Charge::from_units(units / (100 + MARGIN_PERCENT))
}

/// One execution that qualified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// The task's stage and part within its round.
    pub task: (u32, u32),
    pub contributor: ContributorId,
    /// Whose the earning is: the contributor's, or that of the site it is left to.
    pub earner: Account,
    /// Whose the partner's share is: the site's, or the reserve.
    pub partner: Account,
    pub charge: Charge,
    pub payer: Payer,
}

/// What is summed up apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Whether the job pays, and not the operator.
    pub is_jobs: bool,
    pub reason: Reason,
    pub account: Account,
}

/// What a line has earned, exactly, and what of it was paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    pub exact: Exact,
    /// In nano-USD, with what is held.
    pub paid: i64,
}

impl Owed {
    /// Whole nano-USD that are due and not paid.
    pub(super) fn due(&self) -> Result<i64, PayError> {
        let whole =
            i64::try_from(self.exact.0 / Exact::PER_NANO_USD).map_err(|_| PayError::Overflow)?;
        Ok(whole - self.paid)
    }
}

/// What one execution adds to which lines. Work that the operator pays carries no
/// margin: the customer is not charged for it.
pub(super) fn lines(work: &Work) -> Result<Vec<(Line, Exact)>, PayError> {
    let is_jobs = work.payer == Payer::Job;
    let line = |reason, account| Line { is_jobs, reason, account };
    let percent = |percent| Exact::percent_of(work.charge, percent).ok_or(PayError::Overflow);
    let mut lines = vec![(line(Reason::Earning, work.earner), percent(100)?)];
    if is_jobs {
        lines.push((line(Reason::PartnerShare, work.partner), percent(PARTNER_PERCENT)?));
        lines.push((line(Reason::MasterShare, Account::MasterNode), percent(MASTER_PERCENT)?));
        lines.push((line(Reason::Fee, Account::ProtocolFee), percent(FEE_PERCENT)?));
    }
    Ok(lines)
}

/// What the customer pays for one execution that is charged so.
pub(super) fn price(charge: Charge) -> Result<Exact, PayError> {
    Exact::percent_of(charge, 100 + MARGIN_PERCENT).ok_or(PayError::Overflow)
}

/// Lines that get one more nano-USD each, so that each share comes to its exact
/// sum rounded down.
pub(super) fn remainders(lines: &BTreeMap<Line, Owed>) -> Vec<Line> {
    let mut shares: BTreeMap<(bool, Reason), Vec<(Line, Owed)>> = BTreeMap::new();
    for (&line, &owed) in lines {
        shares.entry((line.is_jobs, line.reason)).or_default().push((line, owed));
    }
    let mut chosen = Vec::new();
    for mut share in shares.into_values() {
        let exact: i128 = share.iter().map(|(_, owed)| owed.exact.0).sum();
        let paid: i128 = share.iter().map(|(_, owed)| i128::from(owed.paid)).sum();
        // Every line has its own sum rounded down, so less than one a line is left.
        let left = usize::try_from(exact / Exact::PER_NANO_USD - paid).unwrap_or(0);
        // Equal remainders are served in the order of accounts.
        share.sort_by_key(|(line, owed)| (-(owed.exact.0 % Exact::PER_NANO_USD), *line));
        chosen.extend(share.into_iter().take(left).map(|(line, _)| line));
    }
    chosen
}
