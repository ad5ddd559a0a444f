//! Receipts: one entry of the books, signed by the coordinator, so that whoever
//! holds it can show later what was entered, and where in the chain. That of a hold says
//! what has become of it, with the entry that ended it: money that is held is not paid yet,
//! and may go back.

use crate::certificate::{CertificateKey, Signatory};
use crate::runtime::session::{hex, parse_hex};
use crate::store::{Book, HoldEnd, StatementLine};
use crate::time::UnixMs;
use crate::token::{MicroTokens, PaidTokens, TokenRate};
use ed25519_dalek::Signer;
use raven_engine::ledger::{
    Account, Action, ChainHash, Entry, EntryId, HoldState, Reason, Transfer, UnixMillis,
};
use raven_engine::money::NanoUsd;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::path::{Path, PathBuf};

/// What is signed begins with it, so that no other signature of the key is one of a receipt.
/// The first ones did not say when they were signed, nor the second what became of a hold.
const DOMAINS: [(Form, &str); 3] = [
    (Form::WithOutcome, "raven receipt 3\n"),
    (Form::WithTime, "raven receipt 2\n"),
    (Form::Bare, "raven receipt 1\n"),
];
/// Bytes of a receipt: it has a dozen short fields.
pub const RECEIPT_BYTES_MAX: u64 = 16 << 10;

/// What a receipt says beside its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Bare,
    WithTime,
    WithOutcome,
}

impl Form {
    const fn domain(self) -> &'static str {
        match self {
            Form::WithOutcome => DOMAINS[0].1,
            Form::WithTime => DOMAINS[1].1,
            Form::Bare => DOMAINS[2].1,
        }
    }
}

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
    /// Of a hold: what had become of it by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeBody>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeBody {
    /// As in a statement: `open`, `posted`, `voided`, `expired`.
    state: String,
    /// The entry that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<EndBody>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndBody {
    number: i64,
    id: String,
    at_ms: UnixMillis,
    before: String,
    hash: String,
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

/// Whether a receipt's money was the taker's when it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was moved at once.
    Moved,
    /// It was held, and nothing had become of it yet.
    Pending,
    /// The hold was posted by that entry: the money is the taker's.
    Posted(HoldEnd),
    /// A lie, a refusal or a cancellation: the money went back.
    Voided(HoldEnd),
    /// Its time was over: the money went back.
    Expired(HoldEnd),
    /// It was held; receipts of earlier forms do not say what became of it.
    Unsaid,
}

impl Outcome {
    /// Whether it shows that the taker was paid.
    pub const fn is_paid(&self) -> bool {
        matches!(self, Outcome::Moved | Outcome::Posted(_))
    }

    /// In a sentence.
    fn told(&self) -> String {
        let end = |end: &HoldEnd| {
            format!("by entry {} at {}", end.number, UnixMs(end.entry.at).rfc3339())
        };
        match self {
            Outcome::Moved => "paid: the money moved at once".into(),
            Outcome::Posted(posted) => format!("paid: the hold was posted {}", end(posted)),
            Outcome::Pending => {
                "not paid: held when this was signed, and not decided; ask for a newer receipt"
                    .into()
            }
            Outcome::Voided(void) => format!("NOT PAID: the hold was voided {}", end(void)),
            Outcome::Expired(over) => format!("NOT PAID: the hold expired {}", end(over)),
            Outcome::Unsaid => {
                "not shown to be paid: it was held, and this form of receipt does not say what \
                 became of it; ask for a newer one"
                    .into()
            }
        }
    }
}

/// A receipt that is what its coordinator signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub book: Book,
    pub number: i64,
    pub entry: Entry,
    pub transfer: Transfer,
    pub hash: ChainHash,
    pub outcome: Outcome,
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

/// Signs a line of a statement at `now`; `before` is the chain's hash before it, and `end`
/// what ended it where it is a hold that is not open.
///
/// # Errors
/// [`ReceiptError::NoTransfer`], [`ReceiptError::Unreadable`].
pub fn sign(
    book: Book,
    line: &StatementLine,
    before: ChainHash,
    end: Option<&HoldEnd>,
    now: UnixMs,
    key: &CertificateKey,
) -> Result<String, ReceiptError> {
    let (transfer, expires_ms, outcome) = match line.entry.action {
        Action::Post(transfer) => (transfer, None, None),
        Action::Hold { transfer, expires } => (transfer, expires, Some(outcome_body(end))),
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
        // A clock that was set back since has not undone the entries.
        signed_ms: Some(end.map_or(now.0, |end| now.0.max(end.entry.at)).max(line.entry.at)),
        outcome,
        paid: line.paid.map(|paid| Paid {
            micro_tokens: paid.tokens.0,
            nano_usd_per_token: paid.rate.nano_usd,
            rate_from_ms: paid.rate.from.0,
        }),
    };
    let text = serde_json::to_string(&body)?;
    let signature = key.secret().sign(&message(Form::WithOutcome.domain(), &text)).to_bytes();
    let receipt = RawValue::from_string(text)?;
    let document = Document {
        receipt: &receipt,
        key: key.signatory().to_string(),
        signature: hex(&signature),
    };
    Ok(serde_json::to_string(&document)?)
}

fn outcome_body(end: Option<&HoldEnd>) -> OutcomeBody {
    let Some(end) = end else {
        return OutcomeBody { state: HoldState::Open.as_str().to_owned(), end: None };
    };
    let state = match end.entry.action {
        Action::PostHold { .. } => HoldState::Posted,
        Action::ExpireHold { .. } => HoldState::Expired,
        // Nothing else ends a hold.
        Action::VoidHold { .. } | Action::Post(_) | Action::Hold { .. } => HoldState::Voided,
    };
    let body = EndBody {
        number: end.number,
        id: end.entry.id.to_string(),
        at_ms: end.entry.at,
        before: end.before.to_string(),
        hash: end.hash.to_string(),
    };
    OutcomeBody { state: state.as_str().to_owned(), end: Some(body) }
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
    let form = DOMAINS.into_iter().find(|(_, domain)| has_signed(domain));
    let (form, _) = form.ok_or(ReceiptError::Signature)?;
    let body: Body = serde_json::from_str(text)?;
    match body.signed_ms {
        None if form != Form::Bare => return Err(field("signed_ms", "is missing")),
        Some(_) if form == Form::Bare => {
            return Err(field("signed_ms", "this form of receipt has none"));
        }
        Some(signed) if signed < body.at_ms => {
            return Err(field("signed_ms", "it was signed before it was entered"));
        }
        _ => {}
    }
    read(&body, form, key)
}

fn hash(name: &'static str, text: &str) -> Result<[u8; 32], ReceiptError> {
    let rule = "must be 64 lower-case hex digits";
    parse_hex::<32>(text).ok_or(ReceiptError::Field { field: name, rule })
}

/// What the receipt of `entry` says became of it.
fn outcome(body: &Body, form: Form, entry: &Entry) -> Result<Outcome, ReceiptError> {
    let refuse = |rule| Err(ReceiptError::Field { field: "outcome", rule });
    let said = match (&body.outcome, form, entry.action) {
        (None, _, Action::Post(_)) => return Ok(Outcome::Moved),
        (None, Form::Bare | Form::WithTime, _) => return Ok(Outcome::Unsaid),
        (None, Form::WithOutcome, _) => return refuse("is missing"),
        (Some(_), _, Action::Post(_)) => return refuse("only holds have one"),
        (Some(said), Form::WithOutcome, _) => said,
        (Some(_), Form::Bare | Form::WithTime, _) => {
            return refuse("this form of receipt has none");
        }
    };
    let hold = entry.id;
    let action = match (said.state.as_str(), &said.end) {
        ("open", None) => return Ok(Outcome::Pending),
        ("posted", Some(_)) => Action::PostHold { hold },
        ("voided", Some(_)) => Action::VoidHold { hold },
        ("expired", Some(_)) => Action::ExpireHold { hold },
        _ => return refuse("must be open, or posted, voided or expired by an entry"),
    };
    let Some(end) = &said.end else { return Ok(Outcome::Pending) };
    let found = HoldEnd {
        number: end.number,
        entry: Entry { id: EntryId(hash("outcome.end.id", &end.id)?), at: end.at_ms, action },
        before: ChainHash(hash("outcome.end.before", &end.before)?),
        hash: ChainHash(hash("outcome.end.hash", &end.hash)?),
    };
    if end.number <= body.number {
        return refuse("it ended before it was entered");
    }
    if body.signed_ms.is_some_and(|signed| signed < end.at_ms) {
        return refuse("it was signed before it ended");
    }
    let follows = end.number > body.number + 1 || end.before == body.hash;
    if !follows || found.before.then(&found.entry) != found.hash {
        return Err(ReceiptError::Chain);
    }
    Ok(match action {
        Action::PostHold { .. } => Outcome::Posted(found),
        Action::ExpireHold { .. } => Outcome::Expired(found),
        _ => Outcome::Voided(found),
    })
}

fn read(body: &Body, form: Form, key: Signatory) -> Result<Receipt, ReceiptError> {
    let field = |field, rule| ReceiptError::Field { field, rule };
    let account = |name, text: &str| {
        text.parse::<Account>().map_err(|_| field(name, "must be the name of an account"))
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
    let outcome = outcome(body, form, &entry)?;
    let paid = body.paid.as_ref().map(|paid| read_paid(paid, &entry, &transfer)).transpose()?;
    let number = body.number;
    Ok(Receipt { book, number, entry, transfer, hash: after, outcome, signed, paid, key })
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

/// The exit code of a receipt that is genuine, and does not show that its taker was paid.
const NOT_PAID: u8 = 3;

/// `coordinator verify-receipt FILE [--key KEY]`: prints what the receipt says, or what
/// is wrong with it; the exit code.
pub fn run(path: &Path, expected: Option<Signatory>) -> u8 {
    match read_file(path).and_then(|text| verify(&text, expected)) {
        Ok(receipt) => {
            let Receipt { book, number, entry, transfer, hash, outcome, signed, paid, key } =
                receipt;
            let Transfer { debit, credit, amount, reason } = transfer;
            println!("{amount} USD of {debit} to {credit} ({}, {book} book)", reason.as_str());
            let at = UnixMs(entry.at).rfc3339();
            println!("{}", outcome.told());
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
            if outcome.is_paid() { 0 } else { NOT_PAID }
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
    const HELD_AT: UnixMillis = 5;

    fn entry(reason: Reason) -> Entry {
        let transfer = Transfer {
            debit: Account::MasterNode,
            credit: Account::Site(SiteId(7)),
            amount: NanoUsd(432),
            reason,
        };
        let action = Action::Hold { transfer, expires: Some(9) };
        Entry { id: EntryId::of("test", &[]), at: HELD_AT, action }
    }

    fn hold() -> (StatementLine, ChainHash) {
        let entry = entry(Reason::PartnerShare);
        let (hash, side) = (BEFORE.then(&entry), Side::Took);
        (StatementLine { number: 3, entry, side, hash, state: None, paid: None }, BEFORE)
    }

    /// What ended it, some entries later.
    fn ended(action: fn(EntryId) -> Action) -> HoldEnd {
        let (line, _) = hold();
        let action = action(line.entry.id);
        let entry = Entry { id: EntryId::of("end", &[]), at: 7, action };
        let before = ChainHash([4; 32]);
        HoldEnd { number: 5, entry, before, hash: before.then(&entry) }
    }

    fn posted() -> HoldEnd {
        ended(|hold| Action::PostHold { hold })
    }

    fn signed_with(end: Option<&HoldEnd>) -> (String, CertificateKey) {
        let key = CertificateKey::from_secret([2; 32]);
        let (line, before) = hold();
        (sign(Book::Live, &line, before, end, UnixMs(8), &key).expect("a transfer"), key)
    }

    fn receipt() -> (String, CertificateKey) {
        signed_with(Some(&posted()))
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
    fn signed_again(form: Form, change: impl FnOnce(&mut Body)) -> String {
        let (text, key) = receipt();
        let document: Document<'_> = serde_json::from_str(&text).expect("JSON");
        let mut body: Body = serde_json::from_str(document.receipt.get()).expect("JSON");
        change(&mut body);
        let text = serde_json::to_string(&body).expect("JSON");
        let signature = hex(&key.secret().sign(&message(form.domain(), &text)).to_bytes());
        let receipt = RawValue::from_string(text).expect("JSON");
        let key = key.signatory().to_string();
        let forged = Document { receipt: &receipt, key, signature };
        serde_json::to_string(&forged).expect("JSON")
    }

    #[test]
    fn a_signed_receipt_whose_hash_is_not_the_chains_is_refused() {
        let forged = signed_again(Form::WithOutcome, |body| body.nano_usd += 1);
        assert!(matches!(verify(&forged, None), Err(ReceiptError::Chain)));
    }

    #[test]
    fn a_receipt_of_tokens_says_the_amount_that_they_were_worth() {
        let of = |reason: Reason, paid| {
            signed_again(Form::WithOutcome, |body| {
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
        let old = |body: &mut Body| {
            body.signed_ms = None;
            body.outcome = None;
        };
        assert_eq!(signed(&signed_again(Form::Bare, old)), None);
        for forged in [
            signed_again(Form::WithTime, old),
            signed_again(Form::Bare, |body| body.outcome = None),
            signed_again(Form::WithOutcome, |body| body.signed_ms = Some(4)),
        ] {
            let error = verify(&forged, None).expect_err("refused");
            assert!(matches!(error, ReceiptError::Field { field: "signed_ms", .. }), "{error}");
        }
    }
    #[test]
    fn a_holds_receipt_says_what_became_of_it_and_only_a_posted_one_is_paid() {
        let outcome =
            |end: Option<&HoldEnd>| verify(&signed_with(end).0, None).expect("genuine").outcome;
        assert_eq!(outcome(None), Outcome::Pending);
        assert_eq!(outcome(Some(&posted())), Outcome::Posted(posted()));
        let voided = ended(|hold| Action::VoidHold { hold });
        assert_eq!(outcome(Some(&voided)), Outcome::Voided(voided));
        let expired = ended(|hold| Action::ExpireHold { hold });
        assert_eq!(outcome(Some(&expired)), Outcome::Expired(expired));
        let old = verify(&signed_again(Form::WithTime, |body| body.outcome = None), None);
        let old = old.expect("genuine").outcome;
        assert_eq!(old, Outcome::Unsaid);
        assert_eq!(
            [Outcome::Pending, outcome(Some(&posted())), old].map(|outcome| outcome.is_paid()),
            [false, true, false]
        );
    }

    #[test]
    fn an_outcome_that_the_books_cannot_have_is_refused() {
        let forged = |change: fn(&mut OutcomeBody)| {
            signed_again(Form::WithOutcome, |body| change(body.outcome.as_mut().expect("a hold's")))
        };
        fn end(said: &mut OutcomeBody) -> &mut EndBody {
            said.end.as_mut().expect("an end")
        }
        for (text, rule) in [
            (forged(|said| said.state = "open".into()), "must be open, or"),
            (forged(|said| said.state = "paid".into()), "must be open, or"),
            (forged(|said| said.end = None), "must be open, or"),
            (forged(|said| end(said).number = 3), "before it was entered"),
            (forged(|said| end(said).at_ms = 9), "before it ended"),
            (forged(|said| end(said).id = "x".into()), "64 lower-case"),
            (signed_again(Form::WithOutcome, |body| body.outcome = None), "is missing"),
            (signed_again(Form::WithTime, |_| {}), "has none"),
        ] {
            let error = verify(&text, None).expect_err(rule).to_string();
            assert!(error.contains(rule), "{rule}: {error}");
        }
        // A void that is told as a payment, and an entry of another hold.
        for text in [
            forged(|said| said.state = "voided".into()),
            forged(|said| end(said).before = "00".repeat(32)),
            // The next entry follows upon this one.
            forged(|said| end(said).number = 4),
        ] {
            assert!(matches!(verify(&text, None), Err(ReceiptError::Chain)));
        }
    }
}
