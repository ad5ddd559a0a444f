//! Holds with a time: withdrawals that nobody begins to pay, and what the books refuse.

use crate::server::Server;
use raven_coordinator::http::Problem;
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::settlement::{Decision, Pay, Request, SettlementError, Withdrawal};
use raven_coordinator::store::{Book, BooksError, KeyId, requester};
use raven_coordinator::time::UnixMs;
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Refusal, Transfer};
use raven_engine::money::NanoUsd;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

const AMOUNT: NanoUsd = NanoUsd(50_000);

/// A live account with twice the amount.
fn start() -> (Server, KeyId) {
    let server = Server::start();
    let key = ApiKey::generate(KeyMode::Live);
    let owner = server.runtime.block_on(server.app.store.add_key(&key)).expect("stored");
    let amount = NanoUsd(2 * AMOUNT.0);
    server.runtime.block_on(server.app.store.deposit(owner, amount, "p")).expect("entered");
    (server, owner)
}

fn ask(server: &Server, owner: KeyId, now: UnixMs) -> Withdrawal {
    let (address, reference) = ("IBAN 1".to_owned(), "a".to_owned());
    let (book, account) = (Book::Live, requester(owner));
    let request = Request { book, account, amount: AMOUNT, address, reference, pay: Pay::Usd };
    server.runtime.block_on(server.app.settlement.request(request, now)).expect("held")
}

/// What became of the holds of the live book, in the order in which they were opened.
fn holds(server: &Server) -> Vec<String> {
    let sql = "SELECT h.state FROM holds h JOIN entries e ON e.book = h.book AND e.id = h.id
         WHERE h.book = 'live' ORDER BY e.number";
    let options = SqliteConnectOptions::new().filename(server.folder.path().join("raven.sqlite"));
    server.runtime.block_on(async {
        let mut connection = options.connect().await.expect("connects");
        let read = sqlx::query_scalar(sql).fetch_all(&mut connection).await;
        read.expect("answers")
    })
}

fn names(problem: &Problem, kind: &str) -> bool {
    format!("{problem:?}").contains(&format!("urn:raven:problem:{kind}\""))
}

#[test]
fn a_withdrawal_that_nobody_begins_expires_in_the_books_too() {
    let (server, owner) = start();
    let now = UnixMs::now();
    let asked = ask(&server, owner, now);
    let at = |ms: i64| UnixMs(asked.expires.0 + ms);
    let settlement = &server.app.settlement;
    server.runtime.block_on(settlement.expire(at(-1))).expect("nothing is due");
    assert_eq!(holds(&server), ["open"]);
    let late = settlement.decide(asked.id, Decision::Begin, None, at(0));
    let error = server.runtime.block_on(late).expect_err("its time is over");
    assert!(matches!(error, SettlementError::Over { .. }), "{error}");
    assert!(names(&Problem::from(error), "expired-hold"));
    server.runtime.block_on(settlement.expire(at(0))).expect("expired");
    assert_eq!(holds(&server), ["expired"]);
    let balance = server.runtime.block_on(server.app.store.balance(Book::Live, requester(owner)));
    assert_eq!(balance.expect("read").available(), NanoUsd(2 * AMOUNT.0));
    server.runtime.block_on(server.app.store.audit(Book::Live)).expect("the auditor agrees");
}

#[test]
fn what_is_being_paid_is_held_without_an_end() {
    let (server, owner) = start();
    let asked = ask(&server, owner, UnixMs::now());
    let settlement = &server.app.settlement;
    let decide = |decision, now| {
        server.runtime.block_on(settlement.decide(asked.id, decision, None, now)).expect("decided")
    };
    let available = || {
        let read = server.app.store.balance(Book::Live, requester(owner));
        server.runtime.block_on(read).expect("read").available()
    };
    decide(Decision::Begin, UnixMs::now());
    assert_eq!((holds(&server), available()), (vec!["voided".into(), "open".into()], AMOUNT));
    let much_later = UnixMs(asked.expires.0 + 90 * 86_400_000);
    server.runtime.block_on(settlement.expire(much_later)).expect("nothing is due");
    assert_eq!(available(), AMOUNT);
    decide(Decision::Approve, much_later);
    assert_eq!((holds(&server), available()), (vec!["voided".into(), "posted".into()], AMOUNT));
    let audited = server.runtime.block_on(server.app.store.audit(Book::Live));
    assert!(audited.is_ok(), "{audited:?}");
}

#[test]
fn one_that_was_asked_for_before_holds_had_a_time_ends_all_the_same() {
    let (server, owner) = start();
    let asked = ask(&server, owner, UnixMs::now());
    // As an older version has left it, but for the time in the books.
    let options = SqliteConnectOptions::new().filename(server.folder.path().join("raven.sqlite"));
    server.runtime.block_on(async {
        let mut connection = options.connect().await.expect("connects");
        let update = "UPDATE withdrawals SET hold_ends = 0";
        sqlx::query(update).execute(&mut connection).await.expect("runs");
    });
    let settlement = &server.app.settlement;
    server.runtime.block_on(settlement.expire(asked.expires)).expect("given back");
    assert_eq!(holds(&server), ["voided"]);
    server.runtime.block_on(server.app.store.audit(Book::Live)).expect("the auditor agrees");
}

#[test]
fn an_expired_hold_is_refused_and_the_books_are_as_before() {
    let (server, owner) = start();
    let store = &server.app.store;
    let hold = EntryId::of("test", &[b"hold"]);
    let (debit, reason) = (requester(owner), Reason::Withdrawal);
    let transfer = Transfer { debit, credit: Account::External, amount: AMOUNT, reason };
    let enter = |name: &str, at: i64, action: Action| {
        let id = if name == "hold" { hold } else { EntryId::of("test", &[name.as_bytes()]) };
        server.runtime.block_on(store.enter(Book::Live, &[Entry { id, at, action }]))
    };
    let refused = |result: Result<_, BooksError>| match result {
        Err(BooksError::Refused(refusal)) => (refusal, Problem::from(BooksError::Refused(refusal))),
        other => panic!("{other:?}"),
    };
    enter("hold", 10, Action::Hold { transfer, expires: Some(20) }).expect("held");
    let before = server.runtime.block_on(store.audit(Book::Live)).expect("books");
    let (refusal, _) = refused(enter("early", 19, Action::ExpireHold { hold }));
    assert_eq!(refusal, Refusal::HoldNotExpired { hold });
    let (refusal, problem) = refused(enter("late", 20, Action::PostHold { hold }));
    assert_eq!(refusal, Refusal::HoldExpired { hold, expires: 20 });
    assert!(names(&problem, "expired-hold"), "{problem:?}");
    assert_eq!(server.runtime.block_on(store.audit(Book::Live)).expect("books"), before);
    enter("end", 20, Action::ExpireHold { hold }).expect("its time is over");
    let (refusal, _) = refused(enter("again", 21, Action::PostHold { hold }));
    assert!(matches!(refusal, Refusal::HoldOver { .. }), "{refusal}");
}
