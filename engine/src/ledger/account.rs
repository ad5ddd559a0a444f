//! Whose money it is.

use crate::event::{ContributorId, SiteId};
use raven_protocol::JobId;
use std::fmt;
use std::str::FromStr;

/// A requester: whoever deposits and posts jobs, with any number of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequesterId(pub u64);

/// An account of the books. What one holds is owed to whom it is named after;
/// [`Account::External`] is the world outside, so that the sum over all
/// accounts is zero at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// Deposits that no job holds.
    Requester(RequesterId),
    /// What a job holds for its work.
    Escrow(JobId),
    /// What work has earned.
    Contributor(ContributorId),
    /// What a partner site has earned: its 3 %, and what visitors left to it.
    Site(SiteId),
    /// The 5 % of whoever runs the coordinator.
    MasterNode,
    /// The 2 % of the transaction fee.
    ProtocolFee,
    /// The 3 % of work that came through no site, and earnings that nobody claimed.
    Reserve,
    /// What the operator spends: work beyond a quote's allowance, trial balances.
    Operator,
    /// Money outside of the books: deposits come from it, withdrawals go to it.
    External,
}

impl Account {
    /// Whether it may owe: the world outside owes what was deposited, and the
    /// operator what it spends before it pays in.
    pub const fn may_owe(&self) -> bool {
        matches!(self, Account::Operator | Account::External)
    }

    /// Bytes of the canonical form.
    pub const BYTES: usize = 33;

    /// The canonical form: one byte for the kind, the id, zeros.
    pub fn to_bytes(self) -> [u8; Account::BYTES] {
        let mut bytes = [0; Account::BYTES];
        let number = |bytes: &mut [u8; Account::BYTES], id: u64| {
            bytes[1..9].copy_from_slice(&id.to_le_bytes());
        };
        bytes[0] = match self {
            Account::Requester(id) => {
                number(&mut bytes, id.0);
                1
            }
            Account::Escrow(id) => {
                number(&mut bytes, id.0);
                2
            }
            Account::Contributor(id) => {
                bytes[1..].copy_from_slice(&id.0);
                3
            }
            Account::Site(id) => {
                number(&mut bytes, id.0);
                4
            }
            Account::MasterNode => 5,
            Account::ProtocolFee => 6,
            Account::Reserve => 7,
            Account::Operator => 8,
            Account::External => 9,
        };
        bytes
    }
}

impl fmt::Display for Account {
    /// E.g. `escrow:job_00000000000000ff` or `master_node`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Account::Requester(id) => write!(f, "requester:{:016x}", id.0),
            Account::Escrow(id) => write!(f, "escrow:{id}"),
            Account::Contributor(id) => {
                f.write_str("contributor:")?;
                id.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Account::Site(id) => write!(f, "site:{:016x}", id.0),
            Account::MasterNode => f.write_str("master_node"),
            Account::ProtocolFee => f.write_str("protocol_fee"),
            Account::Reserve => f.write_str("reserve"),
            Account::Operator => f.write_str("operator"),
            Account::External => f.write_str("external"),
        }
    }
}

/// A text that names no account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an account, e.g. master_node, site: and 16 hex digits")]
pub struct ParseAccountError;

impl FromStr for Account {
    type Err = ParseAccountError;

    fn from_str(text: &str) -> Result<Self, ParseAccountError> {
        let named = match text {
            "master_node" => Some(Account::MasterNode),
            "protocol_fee" => Some(Account::ProtocolFee),
            "reserve" => Some(Account::Reserve),
            "operator" => Some(Account::Operator),
            "external" => Some(Account::External),
            _ => None,
        };
        if let Some(account) = named {
            return Ok(account);
        }
        let (kind, id) = text.split_once(':').ok_or(ParseAccountError)?;
        match kind {
            "requester" => hex_number(id).map(|id| Account::Requester(RequesterId(id))),
            "escrow" => id.parse().map(Account::Escrow).map_err(|_| ParseAccountError),
            "contributor" => hex_bytes(id).map(|id| Account::Contributor(ContributorId(id))),
            "site" => hex_number(id).map(|id| Account::Site(SiteId(id))),
            _ => Err(ParseAccountError),
        }
    }
}

/// Lower-case hex only: one account has one spelling.
fn hex_bytes<const N: usize>(text: &str) -> Result<[u8; N], ParseAccountError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(ParseAccountError),
    };
    if text.len() != 2 * N {
        return Err(ParseAccountError);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

fn hex_number(text: &str) -> Result<u64, ParseAccountError> {
    hex_bytes::<8>(text).map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn all() -> Vec<Account> {
        vec![
            Account::Requester(RequesterId(0xabc)),
            Account::Escrow(JobId(0xabc)),
            Account::Contributor(ContributorId([0xab; 32])),
            Account::Site(SiteId(0xabc)),
            Account::MasterNode,
            Account::ProtocolFee,
            Account::Reserve,
            Account::Operator,
            Account::External,
        ]
    }

    #[test]
    fn names_read_back_and_are_spelled_in_one_way() {
        for account in all() {
            assert_eq!(account.to_string().parse(), Ok(account));
        }
        for text in ["", "site:", "site:ABC", "site:0000000000000ABC", "reserve ", "escrow:7"] {
            assert_eq!(text.parse::<Account>(), Err(ParseAccountError), "{text:?}");
        }
    }

    #[test]
    fn no_two_accounts_have_one_canonical_form() {
        let forms: BTreeSet<_> = all().into_iter().map(Account::to_bytes).collect();
        assert_eq!(forms.len(), all().len());
    }
}
