//! Entries of the books, and the chain over them.
//!
//! Entries are appended and never changed. Each names one account that gives
//! and one that takes, or the hold that it ends. Its id says what it is for, so
//! that whoever repeats it after a crash enters nothing twice.

use super::account::Account;
use crate::money::NanoUsd;
use std::fmt;

/// Milliseconds since 1970, UTC.
pub type UnixMillis = i64;

/// What an entry is for. The same purpose has the same id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub [u8; 32]);

impl EntryId {
    /// The id of a purpose: blake3 over its domain and its length-prefixed fields.
    pub fn of(domain: &str, fields: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for field in [b"raven entry 1", domain.as_bytes()].iter().chain(fields) {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        EntryId(*hasher.finalize().as_bytes())
    }
}

/// The chain's hash after an entry: over the hash before it and the entry's
/// canonical bytes. Whoever knows it knows all entries up to there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// Of books without entries.
    pub const START: ChainHash = ChainHash([0; 32]);

    /// After one more entry.
    pub fn then(self, entry: &Entry) -> ChainHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"raven books 1");
        hasher.update(&self.0);
        hasher.update(&entry.to_bytes());
        ChainHash(*hasher.finalize().as_bytes())
    }
}

macro_rules! hex {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

hex!(EntryId);
hex!(ChainHash);

/// Why money moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Money comes in from outside.
    Deposit,
    /// What a new requester may try things out with.
    Trial,
    /// A job's quote is set aside.
    Escrow,
    /// What a job did not use goes back.
    Release,
    /// Work that was verified.
    Earning,
    /// The 3 % of the site through which the work came.
    PartnerShare,
    /// The 5 % of the master node.
    MasterShare,
    /// The 2 % of the transaction fee.
    Fee,
    /// Earnings that are spent on jobs of one's own.
    Spend,
    /// Money goes out.
    Withdrawal,
    /// Earnings that nobody claimed in time.
    Unclaimed,
    /// What was paid beyond what is owed in the end goes back.
    Correction,
    /// Earnings that their contributor's wallet collects.
    Claim,
    /// Between an account and a sub-account of it.
    SubAccount,
    /// Earnings that their contributor gives to the site through which they came.
    Gift,
}

impl Reason {
    /// All reasons, by the number in their canonical form.
    pub const ALL: [Reason; 15] = [
        Reason::Deposit,
        Reason::Trial,
        Reason::Escrow,
        Reason::Release,
        Reason::Earning,
        Reason::PartnerShare,
        Reason::MasterShare,
        Reason::Fee,
        Reason::Spend,
        Reason::Withdrawal,
        Reason::Unclaimed,
        Reason::Correction,
        Reason::Claim,
        Reason::SubAccount,
        Reason::Gift,
    ];

    /// The name in stores and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Deposit => "deposit",
            Reason::Trial => "trial",
            Reason::Escrow => "escrow",
            Reason::Release => "release",
            Reason::Earning => "earning",
            Reason::PartnerShare => "partner_share",
            Reason::MasterShare => "master_share",
            Reason::Fee => "fee",
            Reason::Spend => "spend",
            Reason::Withdrawal => "withdrawal",
            Reason::Unclaimed => "unclaimed",
            Reason::Correction => "correction",
            Reason::Claim => "claim",
            Reason::SubAccount => "sub_account",
            Reason::Gift => "gift",
        }
    }
}

/// Money on its way from one account to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Who gives.
    pub debit: Account,
    /// Who takes.
    pub credit: Account,
    /// Above zero.
    pub amount: NanoUsd,
    pub reason: Reason,
}

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The money is the other's at once.
    Post(Transfer),
    /// The money is set aside until the hold is posted, voided or expires; it is
    /// nobody's to spend.
    Hold { transfer: Transfer, expires: Option<UnixMillis> },
    /// A hold's money is the other's.
    PostHold { hold: EntryId },
    /// A hold's money goes back.
    VoidHold { hold: EntryId },
    /// A hold's money goes back because its time is over.
    ExpireHold { hold: EntryId },
}

impl Action {
    /// The name in stores and JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Action::Post(_) => "post",
            Action::Hold { .. } => "hold",
            Action::PostHold { .. } => "post_hold",
            Action::VoidHold { .. } => "void_hold",
            Action::ExpireHold { .. } => "expire_hold",
        }
    }
}

/// One line of the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: EntryId,
    pub at: UnixMillis,
    pub action: Action,
}

impl Entry {
    /// What the chain hashes: fixed fields, so that no two entries have one form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(160);
        bytes.extend(self.id.0);
        bytes.extend(self.at.to_le_bytes());
        self.action_bytes(&mut bytes);
        bytes
    }

    /// What two entries of one id must have in common. When it is entered is no
    /// part of it: whoever repeats an entry after a crash does so later.
    pub fn content(&self) -> [u8; 32] {
        let mut bytes = Vec::with_capacity(128);
        self.action_bytes(&mut bytes);
        *blake3::hash(&bytes).as_bytes()
    }

    fn action_bytes(&self, bytes: &mut Vec<u8>) {
        match &self.action {
            Action::Post(transfer) => {
                bytes.push(1);
                transfer.extend(bytes);
            }
            Action::Hold { transfer, expires } => {
                bytes.push(2);
                transfer.extend(bytes);
                bytes.push(u8::from(expires.is_some()));
                bytes.extend(expires.unwrap_or_default().to_le_bytes());
            }
            Action::PostHold { hold } => {
                bytes.push(3);
                bytes.extend(hold.0);
            }
            Action::VoidHold { hold } => {
                bytes.push(4);
                bytes.extend(hold.0);
            }
            Action::ExpireHold { hold } => {
                bytes.push(5);
                bytes.extend(hold.0);
            }
        }
    }
}

impl Transfer {
    fn extend(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.debit.to_bytes());
        bytes.extend(self.credit.to_bytes());
        bytes.extend(self.amount.0.to_le_bytes());
        bytes.push(self.reason as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(amount: i64, at: UnixMillis) -> Entry {
        let transfer = Transfer {
            debit: Account::External,
            credit: Account::Reserve,
            amount: NanoUsd(amount),
            reason: Reason::Deposit,
        };
        Entry { id: EntryId::of("test", &[b"x"]), at, action: Action::Post(transfer) }
    }

    #[test]
    fn every_field_of_an_entry_is_in_the_chain() {
        let first = entry(5, 1);
        let hash = ChainHash::START.then(&first);
        assert_ne!(hash, ChainHash::START.then(&entry(6, 1)));
        assert_ne!(hash, ChainHash::START.then(&entry(5, 2)));
        assert_ne!(hash, hash.then(&first));
        let mut other = first;
        other.id = EntryId::of("test", &[b"y"]);
        assert_ne!(hash, ChainHash::START.then(&other));
        let Action::Post(transfer) = first.action else { panic!("a posting") };
        for action in [
            Action::Hold { transfer, expires: None },
            Action::Hold { transfer, expires: Some(0) },
            Action::Post(Transfer { reason: Reason::Trial, ..transfer }),
            Action::Post(Transfer { debit: Account::Operator, ..transfer }),
            Action::Post(Transfer { credit: Account::ProtocolFee, ..transfer }),
            Action::PostHold { hold: first.id },
            Action::VoidHold { hold: first.id },
            Action::ExpireHold { hold: first.id },
        ] {
            assert_ne!(hash, ChainHash::START.then(&Entry { action, ..first }), "{action:?}");
            assert_ne!(first.content(), Entry { action, ..first }.content(), "{action:?}");
        }
    }

    #[test]
    fn an_entry_that_is_repeated_later_has_the_same_content() {
        assert_eq!(entry(5, 1).content(), entry(5, 2).content());
    }

    #[test]
    fn ids_keep_fields_apart() {
        assert_ne!(EntryId::of("a", &[b"bc"]), EntryId::of("ab", &[b"c"]));
        assert_ne!(EntryId::of("a", &[b"b", b"c"]), EntryId::of("a", &[b"bc"]));
        let numbers = Reason::ALL.iter().enumerate();
        assert!(numbers.clone().all(|(at, reason)| *reason as usize == at));
    }
}
