use super::*;
use crate::event::SiteId;
use crate::ledger::account::RequesterId;
use crate::ledger::entry::Reason;

const ANN: Account = Account::Requester(RequesterId(1));
const SITE: Account = Account::Site(SiteId(2));

fn transfer(debit: Account, credit: Account, amount: i64) -> Transfer {
    Transfer { debit, credit, amount: NanoUsd(amount), reason: Reason::Spend }
}

fn id(name: &str) -> EntryId {
    EntryId::of("test", &[name.as_bytes()])
}

fn entry(name: &str, at: UnixMillis, action: Action) -> Entry {
    Entry { id: id(name), at, action }
}

fn post(name: &str, debit: Account, credit: Account, amount: i64) -> Entry {
    entry(name, 0, Action::Post(transfer(debit, credit, amount)))
}

/// Books in which Ann has that much.
fn funded(amount: i64) -> MemoryBooks {
    let mut books = MemoryBooks::default();
    enter(&mut books, post("deposit", Account::External, ANN, amount)).expect("a deposit");
    books
}

fn enter(books: &mut MemoryBooks, entry: Entry) -> Result<Added, Refusal> {
    let mut batch = Batch::new(books);
    let added = batch.add(entry)?;
    let changes = batch.finish();
    books.apply(changes);
    Ok(added)
}

#[test]
fn nobody_but_the_operator_and_the_world_outside_may_owe() {
    let mut books = funded(10);
    let needed = NanoUsd(11);
    let refusal = Refusal::Funds { account: ANN, available: NanoUsd(10), needed };
    assert_eq!(enter(&mut books, post("a", ANN, SITE, 11)), Err(refusal));
    assert_eq!(enter(&mut books, post("b", ANN, SITE, 10)), Ok(Added::New));
    assert_eq!(enter(&mut books, post("c", Account::Operator, SITE, 5)), Ok(Added::New));
    assert_eq!(books.balance(&SITE).posted, 15);
    assert_eq!(books.balance(&Account::Operator).posted, -5);
    assert_eq!(books.balance(&Account::External).posted, -10);
}

#[test]
fn what_is_held_is_nobodys_to_spend() {
    let mut books = funded(10);
    let hold = Action::Hold { transfer: transfer(ANN, SITE, 7), expires: None };
    enter(&mut books, entry("hold", 0, hold)).expect("funds");
    assert_eq!(books.balance(&ANN).available(), NanoUsd(3));
    assert_eq!(books.balance(&SITE).available(), NanoUsd(0));
    let refusal = enter(&mut books, post("more", ANN, SITE, 4));
    assert!(matches!(refusal, Err(Refusal::Funds { available: NanoUsd(3), .. })));
    enter(&mut books, entry("end", 1, Action::PostHold { hold: id("hold") })).expect("open");
    assert_eq!(books.balance(&SITE).available(), NanoUsd(7));
    assert_eq!(books.balance(&ANN), Balance { posted: 3, held_out: 0, held_in: 0 });
    // It is over, whatever is asked next.
    for (name, action) in [
        ("post", Action::PostHold { hold: id("hold") }),
        ("void", Action::VoidHold { hold: id("hold") }),
    ] {
        let state = HoldState::Posted;
        let refusal = Refusal::HoldOver { hold: id("hold"), state };
        assert_eq!(enter(&mut books, entry(name, 2, action)), Err(refusal));
    }
}

#[test]
fn a_voided_hold_gives_everything_back() {
    let mut books = funded(10);
    let hold = Action::Hold { transfer: transfer(ANN, SITE, 7), expires: None };
    enter(&mut books, entry("hold", 0, hold)).expect("funds");
    enter(&mut books, entry("end", 0, Action::VoidHold { hold: id("hold") })).expect("open");
    assert_eq!(books.balance(&ANN), Balance { posted: 10, held_out: 0, held_in: 0 });
    assert_eq!(books.balance(&SITE), Balance::default());
}

#[test]
fn a_hold_is_posted_before_its_time_is_over_and_expires_after() {
    let mut books = funded(10);
    let hold = |expires| Action::Hold { transfer: transfer(ANN, SITE, 2), expires };
    let refusal = Refusal::ExpiresBefore { expires: 5, at: 5 };
    assert_eq!(enter(&mut books, entry("late", 5, hold(Some(5)))), Err(refusal));
    enter(&mut books, entry("hold", 5, hold(Some(9)))).expect("funds");
    let expire = |at| entry("expire", at, Action::ExpireHold { hold: id("hold") });
    let refusal = Refusal::HoldNotExpired { hold: id("hold") };
    assert_eq!(enter(&mut books, expire(8)), Err(refusal));
    let posting = entry("post", 9, Action::PostHold { hold: id("hold") });
    let refusal = Refusal::HoldExpired { hold: id("hold"), expires: 9 };
    assert_eq!(enter(&mut books, posting), Err(refusal));
    assert_eq!(enter(&mut books, expire(9)), Ok(Added::New));
    assert_eq!(books.balance(&ANN).available(), NanoUsd(10));
}

#[test]
fn an_id_stands_for_one_entry() {
    let mut books = funded(10);
    enter(&mut books, post("a", ANN, SITE, 4)).expect("funds");
    let head = books.head();
    assert_eq!(enter(&mut books, post("a", ANN, SITE, 4)), Ok(Added::Before));
    let refusal = Refusal::IdReused { id: id("a") };
    assert_eq!(enter(&mut books, post("a", ANN, SITE, 5)), Err(refusal));
    // Also within one batch.
    let mut batch = Batch::new(&books);
    assert_eq!(batch.add(post("b", ANN, SITE, 1)), Ok(Added::New));
    assert_eq!(batch.add(post("b", ANN, SITE, 1)), Ok(Added::Before));
    let refusal = Refusal::IdReused { id: id("b") };
    assert_eq!(batch.add(post("b", ANN, SITE, 2)), Err(refusal));
    assert_eq!(books.head(), head);
    assert_eq!(books.balance(&SITE).posted, 4);
}

#[test]
fn a_batch_sees_its_own_entries_and_nobody_else_does() {
    let books = funded(10);
    let mut batch = Batch::new(&books);
    batch.add(post("a", ANN, SITE, 10)).expect("funds");
    assert!(matches!(batch.add(post("b", ANN, SITE, 1)), Err(Refusal::Funds { .. })));
    batch.add(post("c", SITE, ANN, 10)).expect("what it just took");
    drop(batch);
    assert_eq!(books.balance(&ANN).posted, 10);
}

#[test]
fn amounts_that_are_none_and_sums_beyond_the_range_are_refused() {
    let mut books = funded(i64::MAX);
    for amount in [0, -1, i64::MIN] {
        let refusal = Refusal::Amount { found: NanoUsd(amount) };
        assert_eq!(enter(&mut books, post("a", ANN, SITE, amount)), Err(refusal));
    }
    let refusal = Refusal::SameAccount { account: ANN };
    assert_eq!(enter(&mut books, post("a", ANN, ANN, 1)), Err(refusal));
    let refusal = Refusal::Overflow { account: ANN };
    assert_eq!(enter(&mut books, post("a", Account::Operator, ANN, 1)), Err(refusal));
    // What is held counts as well: it could be posted later.
    let hold = Action::Hold { transfer: transfer(Account::Operator, ANN, 1), expires: None };
    assert_eq!(enter(&mut books, entry("h", 0, hold)), Err(refusal));
    let unknown = Refusal::UnknownHold { hold: id("x") };
    let end = entry("b", 0, Action::VoidHold { hold: id("x") });
    assert_eq!(enter(&mut books, end), Err(unknown));
    assert_eq!(books.balance(&ANN).posted, i64::MAX);
}
