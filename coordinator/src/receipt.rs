//! Receipts: one entry of the books, signed by the coordinator, so that whoever
//! holds it can show later what was entered, and where in the chain.

use crate::certificate::{CertificateKey, Signatory};
use crate::runtime::session::{hex, parse_hex};
use crate::store::{Book, StatementLine};
use crate::time::UnixMs;
use crate::token::{MicroTokens, PaidTokens, TokenRate};
use ed25519_dalek::Signer;
use raven_engine::ledger::{
    Account, Action, ChainHash, Entry, EntryId, Reason, Transfer, UnixMillis,
};
use raven_engine::money::NanoUsd;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::path::{Path, PathBuf};

/// What is signed begins with it, so that no other signature of the key is one of a receipt.
/// The first ones did not say when they were signed.
const DOMAIN: &str = "raven receipt 2\n";
const DOMAIN_WITHOUT_TIME: &str = "raven receipt 1\n";
/// Bytes of a receipt: it has a dozen short fields.
pub const RECEIPT_BYTES_MAX: u64 = 16 << 10;

/// What the coordinator says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    book: String,
    number: i64,
    id: String,
    at_ms: UnixMillis,
    action: String,
    debit: String,
    credit: String,
    nano_usd: i64,
    reason: String,
    expires_ms: Option<UnixMillis>,
    /// The chain's hash before the entry, and after it.
    before: String,
    hash: String,
    /// When it was signed, which is not before it was entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed_ms: Option<UnixMillis>,
    /// Of a deposit that was paid in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paid: Option<Paid>,
}

/// What came in, and the rate by which the amount came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paid {
    micro_tokens: i64,
    nano_usd_per_token: i64,
    /// Since when the rate was in force, by which it is known.
    rate_from_ms: UnixMillis,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    /// Signed as it stands, byte by byte.
    #[serde(borrow)]
    receipt: &'a RawValue,
    key: String,
    signature: String,
}

/// A receipt that is what its coordinator signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub book: Book,
    pub number: i64,
    pub entry: Entry,
    pub transfer: Transfer,
    pub hash: ChainHash,
    /// When the coordinator said so; the first receipts do not tell.
    pub signed: Option<UnixMs>,
    /// Of a deposit that was paid in tokens.
    pub paid: Option<PaidTokens>,
    pub key: Signatory,
}

/// Why a receipt is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("the receipt has {found} bytes, at most {RECEIPT_BYTES_MAX} are read")]
    TooLong { found: u64 },
    #[error("the receipt cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("{field}: {rule}")]
    Field { field: &'static str, rule: &'static str },
    #[error("key: another coordinator's, {found}")]
    OtherKey { found: Signatory },
    #[error("signature: the key did not sign this receipt")]
    Signature,
    #[error("hash: it is not that of the entry after the one before it")]
    Chain,
    #[error("the entry moves nothing: only transfers have receipts")]
    NoTransfer,
}

fn message(domain: &str, text: &str) -> Vec<u8> {
    [domain.as_bytes(), text.as_bytes()].concat()
}

/// Signs a line of a statement at `now`; `before` is the chain's hash before it.
///
/// # Errors
/// [`ReceiptError::NoTransfer`], [`ReceiptError::Unreadable`].
pub fn sign(
    book: Book,
    line: &StatementLine,
    before: ChainHash,
    now: UnixMs,
    key: &CertificateKey,
) -> Result<String, ReceiptError> {
    let (transfer, expires_ms) = match line.entry.action {
        Action::Post(transfer) => (transfer, None),
        Action::Hold { transfer, expires } => (transfer, expires),
        Action::PostHold { .. } | Action::VoidHold { .. } | Action::ExpireHold { .. } => {
            return Err(ReceiptError::NoTransfer);
        }
    };
    let body = Body {
        book: book.to_string(),
        number: line.number,
        id: line.entry.id.to_string(),
        at_ms: line.entry.at,
        action: line.entry.action.as_str().to_owned(),
        debit: transfer.debit.to_string(),
        credit: transfer.credit.to_string(),
        nano_usd: transfer.amount.0,
        reason: transfer.reason.as_str().to_owned(),
        expires_ms,
        before: before.to_string(),
        hash: line.hash.to_string(),
        // A clock that was set back since has not undone the entry.
        signed_ms: Some(now.0.max(line.entry.at)),
        paid: line.paid.map(|paid| Paid {
            micro_tokens: paid.tokens.0,
            nano_usd_per_token: paid.rate.nano_usd,
            rate_from_ms: paid.rate.from.0,
        }),
    };
    let text = serde_json::to_string(&body)?;
    let signature = key.secret().sign(&message(DOMAIN, &text)).to_bytes();
    let receipt = RawValue::from_string(text)?;
    let document = Document {
        receipt: &receipt,
        key: key.signatory().to_string(),
        signature: hex(&signature),
    };
    Ok(serde_json::to_string(&document)?)
}

/// Checks a receipt, of the coordinator with that key where one is expected.
///
/// # Errors
/// [`ReceiptError`] says what is wrong with it.
pub fn verify(text: &str, expected: Option<Signatory>) -> Result<Receipt, ReceiptError> {
    let found = text.len() as u64;
    if found > RECEIPT_BYTES_MAX {
        return Err(ReceiptError::TooLong { found });
    }
    let document: Document<'_> = serde_json::from_str(text)?;
    let field = |field, rule| ReceiptError::Field { field, rule };
    let key: Signatory =
        document.key.parse().map_err(|()| field("key", "must be 64 lower-case hex digits"))?;
    if expected.is_some_and(|expected| expected != key) {
        return Err(ReceiptError::OtherKey { found: key });
    }
    let signature = parse_hex(&document.signature)
        .ok_or(field("signature", "must be 128 lower-case hex digits"))?;
    let text = document.receipt.get();
    let has_signed = |domain| key.has_signed_bytes(&message(domain, text), &signature);
    let is_timed = has_signed(DOMAIN);
    if !is_timed && !has_signed(DOMAIN_WITHOUT_TIME) {
        return Err(ReceiptError::Signature);
    }
    let body: Body = serde_json::from_str(text)?;
    match body.signed_ms {
        None if is_timed => return Err(field("signed_ms", "is missing")),
        Some(_) if !is_timed => return Err(field("signed_ms", "this form of receipt has none")),
        Some(signed) if signed < body.at_ms => {
            return Err(field("signed_ms", "it was signed before it was entered"));
        }
        _ => {}
    }
    read(&body, key)
}

fn read(body: &Body, key: Signatory) -> Result<Receipt, ReceiptError> {
    let field = |field, rule| ReceiptError::Field { field, rule };
    let account = |name, text: &str| {
        text.parse::<Account>().map_err(|_| field(name, "must be the name of an account"))
    };
    let hash = |name, text: &str| {
        parse_hex::<32>(text).ok_or(field(name, "must be 64 lower-case hex digits"))
    };
    let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == body.reason);
    let transfer = Transfer {
        debit: account("debit", &body.debit)?,
        credit: account("credit", &body.credit)?,
        amount: NanoUsd(body.nano_usd),
        reason: reason.ok_or(field("reason", "must be a reason of the books"))?,
    };
    let action = match (body.action.as_str(), body.expires_ms) {
        ("post", None) => Action::Post(transfer),
        ("hold", expires) => Action::Hold { transfer, expires },
        _ => return Err(field("action", "must be post, or hold")),
    };
    let entry = Entry { id: EntryId(hash("id", &body.id)?), at: body.at_ms, action };
    let (before, after) =
        (ChainHash(hash("before", &body.before)?), ChainHash(hash("hash", &body.hash)?));
    if before.then(&entry) != after {
        return Err(ReceiptError::Chain);
    }
    let book = body.book.parse().map_err(|rule| field("book", rule))?;
    let signed = body.signed_ms.map(UnixMs);
    let paid = body.paid.as_ref().map(|paid| read_paid(paid, &entry, &transfer)).transpose()?;
    Ok(Receipt { book, number: body.number, entry, transfer, hash: after, signed, paid, key })
}

/// The amount must be what the tokens were worth at the rate that it names.
fn read_paid(paid: &Paid, entry: &Entry, transfer: &Transfer) -> Result<PaidTokens, ReceiptError> {
    let refuse = |rule| ReceiptError::Field { field: "paid", rule };
    if transfer.reason != Reason::Deposit {
        return Err(refuse("only a deposit is paid in tokens"));
    }
    if paid.rate_from_ms > entry.at {
        return Err(refuse("its rate was not in force yet"));
    }
    let rate = TokenRate { from: UnixMs(paid.rate_from_ms), nano_usd: paid.nano_usd_per_token };
    let tokens = MicroTokens(paid.micro_tokens);
    if rate.worth(tokens) != Some(transfer.amount) {
        return Err(refuse("the amount is not what the tokens were worth"));
    }
    Ok(PaidTokens { tokens, rate })
}

/// `coordinator verify-receipt FILE [--key KEY]`: prints what the receipt says, or what
/// is wrong with it; the exit code.
pub fn run(path: &Path, expected: Option<Signatory>) -> u8 {
    match read_file(path).and_then(|text| verify(&text, expected)) {
        Ok(receipt) => {
            let Receipt { book, number, entry, transfer, hash, signed, paid, key } = receipt;
            let Transfer { debit, credit, amount, reason } = transfer;
            println!("{amount} USD of {debit} to {credit} ({}, {book} book)", reason.as_str());
            let at = UnixMs(entry.at).rfc3339();
            println!("entry {number}, {}, entered at {at}", entry.action.as_str());
            if let Some(PaidTokens { tokens: MicroTokens(micro), rate }) = paid {
                let (rate, from) = (NanoUsd(rate.nano_usd), rate.from.rfc3339());
                println!("paid as {micro} millionths of a token, worth {rate} USD from {from}");
            }
            println!("the chain's hash after it: {hash}");
            match signed {
                Some(signed) => println!("signed by {key} at {}", signed.rfc3339()),
                None => println!("signed by {key}"),
            }
            if expected.is_none() {
                println!("--key says whose key that must be");
            }
            0
        }
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

fn read_file(path: &Path) -> Result<String, ReceiptError> {
    let failed = |error| ReceiptError::File { path: path.to_owned(), error };
    let found = std::fs::metadata(path).map_err(failed)?.len();
    if found > RECEIPT_BYTES_MAX {
        return Err(ReceiptError::TooLong { found });
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Side;
    use raven_engine::SiteId;

    const BEFORE: ChainHash = ChainHash([1; 32]);

    fn entry(reason: Reason) -> Entry {
        let transfer = Transfer {
            debit: Account::MasterNode,
            credit: Account::Site(SiteId(7)),
            amount: NanoUsd(432),
            reason,
        };
        let action = Action::Hold { transfer, expires: Some(9) };
        Entry { id: EntryId::of("test", &[]), at: 5, action }
    }

    fn receipt() -> (String, CertificateKey) {
        let entry = entry(Reason::PartnerShare);
        let (hash, side) = (BEFORE.then(&entry), Side::Took);
        let line = StatementLine { number: 3, entry, side, hash, state: None, paid: None };
        let key = CertificateKey::from_secret([2; 32]);
        (sign(Book::Live, &line, BEFORE, UnixMs(8), &key).expect("a transfer"), key)
    }

    #[test]
    fn a_receipt_says_what_was_entered() {
        let (text, key) = receipt();
        let read = verify(&text, Some(key.signatory())).expect("genuine");
        assert_eq!((read.book, read.number, read.transfer.amount.0), (Book::Live, 3, 432));
        let other = CertificateKey::from_secret([3; 32]).signatory();
        assert!(matches!(verify(&text, Some(other)), Err(ReceiptError::OtherKey { .. })));
    }

    #[test]
    fn every_changed_character_is_found_out() {
        let (text, _) = receipt();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(verify(&changed, None).is_err(), "{at}: {changed}");
        }
        assert!(verify("", None).is_err());
        let long = " ".repeat(RECEIPT_BYTES_MAX as usize + 1);
        assert!(matches!(verify(&long, None), Err(ReceiptError::TooLong { .. })));
    }

    /// The receipt with another body, which the same key has signed.
    fn signed_again(domain: &str, change: impl FnOnce(&mut Body)) -> String {
        let (text, key) = receipt();
        let document: Document<'_> = serde_json::from_str(&text).expect("JSON");
        let mut body: Body = serde_json::from_str(document.receipt.get()).expect("JSON");
        change(&mut body);
        let text = serde_json::to_string(&body).expect("JSON");
        let signature = hex(&key.secret().sign(&message(domain, &text)).to_bytes());
        let receipt = RawValue::from_string(text).expect("JSON");
        let key = key.signatory().to_string();
        let forged = Document { receipt: &receipt, key, signature };
        serde_json::to_string(&forged).expect("JSON")
    }

    #[test]
    fn a_signed_receipt_whose_hash_is_not_the_chains_is_refused() {
        let forged = signed_again(DOMAIN, |body| body.nano_usd += 1);
        assert!(matches!(verify(&forged, None), Err(ReceiptError::Chain)));
    }

    #[test]
    fn a_receipt_of_tokens_says_the_amount_that_they_were_worth() {
        let of = |reason: Reason, paid| {
            signed_again(DOMAIN, |body| {
                body.reason = reason.as_str().to_owned();
                body.hash = BEFORE.then(&entry(reason)).to_string();
                body.paid = Some(paid);
            })
        };
        let paid = |micro_tokens, nano_usd_per_token, rate_from_ms| Paid {
            micro_tokens,
            nano_usd_per_token,
            rate_from_ms,
        };
        let read = verify(&of(Reason::Deposit, paid(4_320, 100_000, 5)), None).expect("genuine");
        assert_eq!(read.paid.map(|paid| paid.tokens), Some(MicroTokens(4_320)));
        for forged in [
            of(Reason::Deposit, paid(4_330, 100_000, 5)),
            of(Reason::Deposit, paid(4_320, 100_000, 6)),
            of(Reason::PartnerShare, paid(4_320, 100_000, 5)),
            of(Reason::Deposit, paid(i64::MAX, i64::MAX, 5)),
        ] {
            let error = verify(&forged, None).expect_err("refused");
            assert!(matches!(error, ReceiptError::Field { field: "paid", .. }), "{error}");
        }
    }

    #[test]
    fn a_receipt_says_when_it_was_signed_and_the_first_ones_did_not() {
        let signed = |text: &str| verify(text, None).expect("genuine").signed;
        assert_eq!(signed(&receipt().0), Some(UnixMs(8)));
        let old = |body: &mut Body| body.signed_ms = None;
        assert_eq!(signed(&signed_again(DOMAIN_WITHOUT_TIME, old)), None);
        for forged in [
            signed_again(DOMAIN, old),
            signed_again(DOMAIN_WITHOUT_TIME, |_| {}),
            signed_again(DOMAIN, |body| body.signed_ms = Some(4)),
        ] {
            let error = verify(&forged, None).expect_err("refused");
            assert!(matches!(error, ReceiptError::Field { field: "signed_ms", .. }), "{error}");
        }
    }
}
