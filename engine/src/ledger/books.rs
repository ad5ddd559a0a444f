//! What the books say, and what may be entered into them.

use super::account::Account;
use super::entry::{Action, ChainHash, Entry, EntryId, Transfer, UnixMillis};
use crate::money::NanoUsd;
use std::collections::HashMap;

/// What an account has, in nano-USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Taken less given, without what is held.
    pub posted: i64,
    /// Held of it for others: no longer its own to spend.
    pub held_out: i64,
    /// Held by others for it: not yet its own to spend.
    pub held_in: i64,
}

impl Balance {
    /// What may be spent.
    pub const fn available(&self) -> NanoUsd {
        NanoUsd(self.posted.saturating_sub(self.held_out))
    }
}

/// A hold, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    pub transfer: Transfer,
    pub expires: Option<UnixMillis>,
    pub state: HoldState,
}

/// What became of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    Open,
    Posted,
    Voided,
    Expired,
}

impl HoldState {
    /// The name in stores and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            HoldState::Open => "open",
            HoldState::Posted => "posted",
            HoldState::Voided => "voided",
            HoldState::Expired => "expired",
        }
    }
}

/// Why an entry is refused. Variants stand in the order in which they are
/// looked at; the books are as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("id {id}: it stands for another entry already")]
    IdReused { id: EntryId },
    #[error("amount: {} nano-USD, must be 1 or more", found.0)]
    Amount { found: NanoUsd },
    #[error("account {account}: gives to itself")]
    SameAccount { account: Account },
    #[error("expires: {expires} is not after {at}")]
    ExpiresBefore { expires: UnixMillis, at: UnixMillis },
    #[error("account {account}: has {available} USD to spend, {} nano-USD are needed", needed.0)]
    Funds { account: Account, available: NanoUsd, needed: NanoUsd },
    #[error("account {account}: its balance would leave the range of the books")]
    Overflow { account: Account },
    #[error("hold {hold}: there is none")]
    UnknownHold { hold: EntryId },
    #[error("hold {hold}: it is {} already", state.as_str())]
    HoldOver { hold: EntryId, state: HoldState },
    #[error("hold {hold}: its time was over at {expires}")]
    HoldExpired { hold: EntryId, expires: UnixMillis },
    #[error("hold {hold}: its time is not over")]
    HoldNotExpired { hold: EntryId },
}

/// Books as they are stored.
pub trait Books {
    /// What an account has; nothing where it is unknown.
    fn balance(&self, account: &Account) -> Balance;
    /// The [`Entry::content`] of an id that is entered.
    fn content(&self, id: &EntryId) -> Option<[u8; 32]>;
    /// The hold of that id.
    fn hold(&self, id: &EntryId) -> Option<Hold>;
    /// The chain's hash after the last entry.
    fn head(&self) -> ChainHash;
}

/// Whether an entry added something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    New,
    /// It was there already, with the same content.
    Before,
}

/// Entries that are entered together or not at all.
#[derive(Debug)]
pub struct Batch<'a, B: Books> {
    books: &'a B,
    changes: Changes,
}

/// What a batch makes of the books.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The new entries, with the chain's hash after each.
    pub entries: Vec<(Entry, ChainHash)>,
    /// Accounts that changed.
    pub balances: HashMap<Account, Balance>,
    /// Holds that are new or over.
    pub holds: HashMap<EntryId, Hold>,
    /// The chain's hash after all of them.
    pub head: ChainHash,
    contents: HashMap<EntryId, [u8; 32]>,
}

impl<'a, B: Books> Batch<'a, B> {
    /// An empty batch.
    pub fn new(books: &'a B) -> Self {
        let changes = Changes {
            entries: Vec::new(),
            balances: HashMap::new(),
            holds: HashMap::new(),
            head: books.head(),
            contents: HashMap::new(),
        };
        Batch { books, changes }
    }

    /// What an account has after what the batch holds so far.
    pub fn balance(&self, account: &Account) -> Balance {
        let changed = self.changes.balances.get(account).copied();
        changed.unwrap_or_else(|| self.books.balance(account))
    }

    /// The hold of that id after what the batch holds so far.
    pub fn hold(&self, id: &EntryId) -> Option<Hold> {
        self.changes.holds.get(id).copied().or_else(|| self.books.hold(id))
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`Refusal`]; the batch is as before.
    pub fn add(&mut self, entry: Entry) -> Result<Added, Refusal> {
        let content = entry.content();
        let known = self.changes.contents.get(&entry.id).copied();
        match known.or_else(|| self.books.content(&entry.id)) {
            Some(known) if known == content => return Ok(Added::Before),
            Some(_) => return Err(Refusal::IdReused { id: entry.id }),
            None => {}
        }
        match entry.action {
            Action::Post(transfer) => self.post(&transfer)?,
            Action::Hold { transfer, expires } => self.open(&entry, transfer, expires)?,
            Action::PostHold { hold } => self.close(hold, HoldState::Posted, entry.at)?,
            Action::VoidHold { hold } => self.close(hold, HoldState::Voided, entry.at)?,
            Action::ExpireHold { hold } => self.close(hold, HoldState::Expired, entry.at)?,
        }
        self.changes.head = self.changes.head.then(&entry);
        self.changes.entries.push((entry, self.changes.head));
        self.changes.contents.insert(entry.id, content);
        Ok(Added::New)
    }

    /// What is to be stored.
    pub fn finish(self) -> Changes {
        self.changes
    }

    /// Checks a transfer and answers both balances before it.
    fn check(&self, transfer: &Transfer) -> Result<(Balance, Balance), Refusal> {
        let Transfer { debit, credit, amount, .. } = *transfer;
        if amount.0 <= 0 {
            return Err(Refusal::Amount { found: amount });
        }
        if debit == credit {
            return Err(Refusal::SameAccount { account: debit });
        }
        let giving = self.balance(&debit);
        if !debit.may_owe() && giving.available() < amount {
            let available = giving.available();
            return Err(Refusal::Funds { account: debit, available, needed: amount });
        }
        Ok((giving, self.balance(&credit)))
    }

    fn post(&mut self, transfer: &Transfer) -> Result<(), Refusal> {
        let Transfer { debit, credit, amount, .. } = *transfer;
        let (mut giving, mut taking) = self.check(transfer)?;
        giving.posted = less(giving.posted, amount, debit)?;
        taking.posted = more(taking.posted, amount, credit)?;
        self.set(debit, giving, credit, taking)
    }

    fn open(
        &mut self,
        entry: &Entry,
        transfer: Transfer,
        expires: Option<UnixMillis>,
    ) -> Result<(), Refusal> {
        let Transfer { debit, credit, amount, .. } = transfer;
        let (mut giving, mut taking) = self.check(&transfer)?;
        if let Some(expires) = expires.filter(|&expires| expires <= entry.at) {
            return Err(Refusal::ExpiresBefore { expires, at: entry.at });
        }
        giving.held_out = more(giving.held_out, amount, debit)?;
        taking.held_in = more(taking.held_in, amount, credit)?;
        self.set(debit, giving, credit, taking)?;
        self.changes.holds.insert(entry.id, Hold { transfer, expires, state: HoldState::Open });
        Ok(())
    }

    fn close(&mut self, id: EntryId, state: HoldState, at: UnixMillis) -> Result<(), Refusal> {
        let hold = self.hold(&id).ok_or(Refusal::UnknownHold { hold: id })?;
        if hold.state != HoldState::Open {
            return Err(Refusal::HoldOver { hold: id, state: hold.state });
        }
        let over = hold.expires.filter(|&expires| expires <= at);
        match (state, over) {
            (HoldState::Posted, Some(expires)) => {
                return Err(Refusal::HoldExpired { hold: id, expires });
            }
            (HoldState::Expired, None) => return Err(Refusal::HoldNotExpired { hold: id }),
            _ => {}
        }
        let Transfer { debit, credit, amount, .. } = hold.transfer;
        let (mut giving, mut taking) = (self.balance(&debit), self.balance(&credit));
        giving.held_out = less(giving.held_out, amount, debit)?;
        taking.held_in = less(taking.held_in, amount, credit)?;
        if state == HoldState::Posted {
            giving.posted = less(giving.posted, amount, debit)?;
            taking.posted = more(taking.posted, amount, credit)?;
        }
        self.set(debit, giving, credit, taking)?;
        self.changes.holds.insert(id, Hold { state, ..hold });
        Ok(())
    }

    /// Enters both balances. What is held must fit beside what is posted, so
    /// that posting a hold can't fail for want of range.
    fn set(
        &mut self,
        debit: Account,
        giving: Balance,
        credit: Account,
        taking: Balance,
    ) -> Result<(), Refusal> {
        for (account, balance) in [(debit, giving), (credit, taking)] {
            let least = balance.posted.checked_sub(balance.held_out);
            let most = balance.posted.checked_add(balance.held_in);
            if least.is_none() || most.is_none() {
                return Err(Refusal::Overflow { account });
            }
        }
        self.changes.balances.insert(debit, giving);
        self.changes.balances.insert(credit, taking);
        Ok(())
    }
}

fn more(sum: i64, amount: NanoUsd, account: Account) -> Result<i64, Refusal> {
    sum.checked_add(amount.0).ok_or(Refusal::Overflow { account })
}

fn less(sum: i64, amount: NanoUsd, account: Account) -> Result<i64, Refusal> {
    sum.checked_sub(amount.0).ok_or(Refusal::Overflow { account })
}

/// Books in memory: all of them, or the part that a store has read.
#[derive(Clone, Debug)]
pub struct MemoryBooks {
    pub balances: HashMap<Account, Balance>,
    /// The [`Entry::content`] of each id.
    pub contents: HashMap<EntryId, [u8; 32]>,
    pub holds: HashMap<EntryId, Hold>,
    /// The chain's hash after the last entry.
    pub head: ChainHash,
}

impl Default for MemoryBooks {
    fn default() -> Self {
        MemoryBooks {
            balances: HashMap::new(),
            contents: HashMap::new(),
            holds: HashMap::new(),
            head: ChainHash::START,
        }
    }
}

impl MemoryBooks {
    /// Takes what a batch has made.
    pub fn apply(&mut self, changes: Changes) {
        self.balances.extend(changes.balances);
        self.holds.extend(changes.holds);
        self.contents.extend(changes.contents);
        self.head = changes.head;
    }

    /// Every account that was ever part of an entry.
    pub fn accounts(&self) -> impl Iterator<Item = (&Account, &Balance)> {
        self.balances.iter()
    }
}

impl Books for MemoryBooks {
    fn balance(&self, account: &Account) -> Balance {
        self.balances.get(account).copied().unwrap_or_default()
    }

    fn content(&self, id: &EntryId) -> Option<[u8; 32]> {
        self.contents.get(id).copied()
    }

    fn hold(&self, id: &EntryId) -> Option<Hold> {
        self.holds.get(id).copied()
    }

    fn head(&self) -> ChainHash {
        self.head
    }
}

#[cfg(test)]
mod tests;
