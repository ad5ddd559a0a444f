//! An auditor: from the entries alone it says what every balance must be.
//!
//! It shares no arithmetic with [`super::books`]: sums are in i128, over every
//! entry from the first one, and what became of a hold is looked up in the list
//! of all ends.

use super::account::Account;
use super::books::Balance;
use super::entry::{Action, ChainHash, Entry, EntryId, Transfer};
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with books.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("entry {number}: the chain's hash is not that of the entries up to it")]
    Chain { number: u64 },
    #[error("entry {number}: its id was entered before")]
    Repeated { number: u64 },
    #[error("entry {number}: moves {amount} nano-USD")]
    Amount { number: u64, amount: i64 },
    #[error("entry {number}: ends a hold that is not open")]
    Hold { number: u64 },
    #[error("entry {number}: posts a hold whose time was over, or expires one whose time was not")]
    Time { number: u64 },
    #[error("entry {number}: account {account} spends {missing} nano-USD more than it has")]
    Overdrawn { number: u64, account: Account, missing: i128 },
    #[error("account {account}: stands at {found:?}, its entries come to {expected:?}")]
    Balance { account: Account, found: Balance, expected: Box<Sums> },
    #[error("account {account}: has entries and no balance")]
    Missing { account: Account },
    #[error("all accounts together hold {sum} nano-USD; money came from nowhere")]
    Sum { sum: i128 },
}

/// What the entries of one account come to, in nano-USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub taken: i128,
    pub given: i128,
    pub held_in: i128,
    pub held_out: i128,
}

impl Sums {
    fn is(&self, balance: &Balance) -> bool {
        self.taken - self.given == i128::from(balance.posted)
            && self.held_in == i128::from(balance.held_in)
            && self.held_out == i128::from(balance.held_out)
    }
}

/// Reads entries in order, then compares balances.
#[derive(Clone, Debug, Default)]
pub struct Auditor {
    entries: u64,
    head: Option<ChainHash>,
    ids: BTreeSet<EntryId>,
    open: BTreeMap<EntryId, (Transfer, Option<i64>)>,
    sums: BTreeMap<Account, Sums>,
}

impl Auditor {
    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The chain's hash so far.
    pub fn head(&self) -> ChainHash {
        self.head.unwrap_or(ChainHash::START)
    }

    /// Reads the next entry; `hash` is the chain's hash that stands beside it.
    ///
    /// # Errors
    /// The first [`Fault`].
    pub fn read(&mut self, entry: &Entry, hash: ChainHash) -> Result<(), Fault> {
        self.entries += 1;
        let number = self.entries;
        if self.head().then(entry) != hash {
            return Err(Fault::Chain { number });
        }
        self.head = Some(hash);
        if !self.ids.insert(entry.id) {
            return Err(Fault::Repeated { number });
        }
        match entry.action {
            Action::Post(transfer) => self.moved(number, &transfer),
            Action::Hold { transfer, expires } => self.held(number, entry.id, transfer, expires),
            Action::PostHold { hold } => {
                let (transfer, expires) = self.ended(number, hold)?;
                if expires.is_some_and(|expires| expires <= entry.at) {
                    return Err(Fault::Time { number });
                }
                self.moved(number, &transfer)
            }
            Action::VoidHold { hold } => self.ended(number, hold).map(|_| ()),
            Action::ExpireHold { hold } => {
                let (_, expires) = self.ended(number, hold)?;
                let is_over = expires.is_some_and(|expires| expires <= entry.at);
                if is_over { Ok(()) } else { Err(Fault::Time { number }) }
            }
        }
    }

    /// Compares what the books say of every account.
    ///
    /// # Errors
    /// The first [`Fault`].
    pub fn compare<'a>(
        &self,
        balances: impl IntoIterator<Item = (&'a Account, &'a Balance)>,
    ) -> Result<(), Fault> {
        let mut left: BTreeSet<Account> = self.sums.keys().copied().collect();
        for (&account, &found) in balances {
            let expected = self.sums.get(&account).copied().unwrap_or_default();
            if !expected.is(&found) {
                return Err(Fault::Balance { account, found, expected: Box::new(expected) });
            }
            left.remove(&account);
        }
        if let Some(account) = left.into_iter().next() {
            return Err(Fault::Missing { account });
        }
        let sum: i128 = self.sums.values().map(|sums| sums.taken - sums.given).sum();
        if sum == 0 { Ok(()) } else { Err(Fault::Sum { sum }) }
    }

    /// What an account's entries come to.
    pub fn sums(&self, account: &Account) -> Sums {
        self.sums.get(account).copied().unwrap_or_default()
    }

    fn moved(&mut self, number: u64, transfer: &Transfer) -> Result<(), Fault> {
        let amount = positive(number, transfer)?;
        self.sums.entry(transfer.debit).or_default().given += amount;
        self.sums.entry(transfer.credit).or_default().taken += amount;
        self.spends(number, transfer.debit)
    }

    fn held(
        &mut self,
        number: u64,
        id: EntryId,
        transfer: Transfer,
        expires: Option<i64>,
    ) -> Result<(), Fault> {
        let amount = positive(number, &transfer)?;
        self.sums.entry(transfer.debit).or_default().held_out += amount;
        self.sums.entry(transfer.credit).or_default().held_in += amount;
        self.open.insert(id, (transfer, expires));
        self.spends(number, transfer.debit)
    }

    fn ended(&mut self, number: u64, hold: EntryId) -> Result<(Transfer, Option<i64>), Fault> {
        let (transfer, expires) = self.open.remove(&hold).ok_or(Fault::Hold { number })?;
        let amount = i128::from(transfer.amount.0);
        self.sums.entry(transfer.debit).or_default().held_out -= amount;
        self.sums.entry(transfer.credit).or_default().held_in -= amount;
        Ok((transfer, expires))
    }

    fn spends(&self, number: u64, account: Account) -> Result<(), Fault> {
        let Sums { taken, given, held_out, .. } = self.sums(&account);
        let missing = given + held_out - taken;
        // The two that may owe: stated here a second time on purpose.
        let may_owe = matches!(account, Account::External | Account::Operator);
        if missing > 0 && !may_owe {
            return Err(Fault::Overdrawn { number, account, missing });
        }
        Ok(())
    }
}

fn positive(number: u64, transfer: &Transfer) -> Result<i128, Fault> {
    let amount = transfer.amount.0;
    if amount > 0 { Ok(amount.into()) } else { Err(Fault::Amount { number, amount }) }
}
