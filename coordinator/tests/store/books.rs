//! The books in SQLite: what is entered, refused, found again and found out.

use raven_coordinator::store::{AuditError, Book, BooksError, Side, Store};
use raven_engine::ledger::{
    Account, Action, Added, Entry, EntryId, Fault, HoldState, Reason, Refusal, RequesterId,
    Transfer,
};
use raven_engine::money::NanoUsd;
use raven_engine::{ContributorId, SiteId};
use raven_protocol::JobId;
use sqlx::Executor as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use std::path::Path;

const ANN: Account = Account::Requester(RequesterId(1));
const ESCROW: Account = Account::Escrow(JobId(2));
const BEN: Account = Account::Contributor(ContributorId([3; 32]));
const SITE: Account = Account::Site(SiteId(4));

fn id(name: &str) -> EntryId {
    EntryId::of("test", &[name.as_bytes()])
}

fn transfer(debit: Account, credit: Account, amount: i64) -> Transfer {
    Transfer { debit, credit, amount: NanoUsd(amount), reason: Reason::Earning }
}

fn post(name: &str, debit: Account, credit: Account, amount: i64) -> Entry {
    Entry { id: id(name), at: 5, action: Action::Post(transfer(debit, credit, amount)) }
}

fn hold(name: &str, debit: Account, credit: Account, amount: i64) -> Entry {
    let transfer = transfer(debit, credit, amount);
    Entry { id: id(name), at: 6, action: Action::Hold { transfer, expires: None } }
}

fn end(name: &str, of: &str) -> Entry {
    Entry { id: id(name), at: 7, action: Action::PostHold { hold: id(of) } }
}

fn void(name: &str, of: &str) -> Entry {
    Entry { id: id(name), at: 7, action: Action::VoidHold { hold: id(of) } }
}

async fn open(folder: &Path) -> Store {
    Store::open(&folder.join("raven.sqlite")).await.expect("a store")
}

/// A deposit, an escrow, two earnings held of it, one of them posted.
async fn filled(folder: &Path) -> Store {
    let store = open(folder).await;
    let entries = [
        post("deposit", Account::External, ANN, 1_000),
        post("escrow", ANN, ESCROW, 600),
        hold("ben", ESCROW, BEN, 160),
        hold("site", ESCROW, SITE, 5),
        end("ben matures", "ben"),
    ];
    let added = store.enter(Book::Test, &entries).await.expect("entries");
    assert_eq!(added, [Added::New; 5]);
    store
}

#[tokio::test]
async fn entries_are_found_again_and_move_what_they_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    store.close().await;
    let store = open(folder.path()).await;
    let balance = store.balance(Book::Test, ESCROW).await.expect("readable");
    assert_eq!((balance.posted, balance.held_out), (440, 5));
    assert_eq!(store.balance(Book::Test, BEN).await.expect("readable").posted, 160);
    let lines = store.statement(Book::Test, ESCROW, None, 10).await.expect("readable");
    let seen: Vec<_> = lines.iter().map(|line| (line.number, line.side, line.state)).collect();
    assert_eq!(
        seen,
        [
            (4, Side::Gave, Some(HoldState::Open)),
            (3, Side::Gave, Some(HoldState::Posted)),
            (2, Side::Took, None),
        ]
    );
    let older = store.statement(Book::Test, ESCROW, Some(4), 1).await.expect("readable");
    assert_eq!(older, lines[1..2]);
    // Play money is not real money.
    assert_eq!(store.balance(Book::Live, BEN).await.expect("readable").posted, 0);
    let audited = store.audit(Book::Test).await.expect("books");
    assert_eq!((audited.entries, audited.accounts), (5, 5));
    assert_eq!(
        audited.head,
        store.statement(Book::Test, BEN, None, 1).await.expect("readable")[0]
            .hash
            .then(&hold("site", ESCROW, SITE, 5))
            .then(&end("ben matures", "ben"))
    );
}

#[tokio::test]
async fn what_is_entered_twice_counts_once_and_what_is_refused_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let before = store.audit(Book::Test).await.expect("books");
    let again = [post("escrow", ANN, ESCROW, 600), end("ben matures", "ben")];
    assert_eq!(store.enter(Book::Test, &again).await.expect("entered"), [Added::Before; 2]);
    let refused = [
        (post("escrow", ANN, ESCROW, 601), Refusal::IdReused { id: id("escrow") }),
        (post("x", ANN, SITE, -5), Refusal::Amount { found: NanoUsd(-5) }),
        (post("x", Account::Operator, ANN, i64::MAX), Refusal::Overflow { account: ANN }),
        (
            post("x", ANN, SITE, 402),
            Refusal::Funds { account: ANN, available: NanoUsd(401), needed: NanoUsd(402) },
        ),
        (end("x", "ben"), Refusal::HoldOver { hold: id("ben"), state: HoldState::Posted }),
        (end("x", "nobody"), Refusal::UnknownHold { hold: id("nobody") }),
    ];
    for (entry, expected) in refused {
        // What stands before it in the same batch is not entered either.
        let entries = [post("good", Account::External, ANN, 1), entry];
        let error = store.enter(Book::Test, &entries).await.expect_err("refused");
        assert!(matches!(&error, BooksError::Refused(found) if *found == expected), "{error}");
    }
    assert_eq!(store.audit(Book::Test).await.expect("books"), before);
}

#[tokio::test]
async fn the_auditor_finds_every_kind_of_tampering() {
    let tampering = [
        ("UPDATE accounts SET posted = posted + 1 WHERE name LIKE 'contributor:%'", "Balance"),
        ("UPDATE accounts SET held_in = 0 WHERE name LIKE 'site:%'", "Balance"),
        ("DELETE FROM accounts WHERE name LIKE 'site:%'", "Unreadable or missing"),
        ("UPDATE entries SET amount = amount + 1 WHERE number = 2", "Chain"),
        ("UPDATE entries SET at_ms = 1 WHERE number = 1", "Chain"),
        ("UPDATE entries SET reason = 'fee' WHERE number = 3", "Chain"),
        ("UPDATE entries SET hash = zeroblob(32) WHERE number = 5", "Chain"),
        ("DELETE FROM entries WHERE number = 2", "Gap"),
        ("DELETE FROM entries WHERE number = 5", "Balance"),
        ("UPDATE holds SET state = 'open'", "Hold"),
        ("DELETE FROM holds", "Hold"),
    ];
    for (sql, kind) in tampering {
        let folder = tempfile::tempdir().expect("a folder");
        filled(folder.path()).await.close().await;
        tamper(folder.path(), sql).await;
        let store = open(folder.path()).await;
        let error = store.audit(Book::Test).await.expect_err(sql);
        let found = match &error {
            AuditError::Fault { fault: Fault::Balance { .. }, .. } => "Balance",
            AuditError::Fault { fault: Fault::Chain { .. }, .. } => "Chain",
            AuditError::Hold { .. } => "Hold",
            AuditError::Gap { .. } => "Gap",
            AuditError::Store(_)
            | AuditError::Fault { .. }
            | AuditError::Escrow { .. }
            | AuditError::Deposit { .. }
            | AuditError::DepositsGone { .. } => "Unreadable or missing",
        };
        assert_eq!(found, kind, "{sql}: {error}");
    }
}

#[tokio::test]
async fn entries_cannot_be_changed_by_accident() {
    let folder = tempfile::tempdir().expect("a folder");
    filled(folder.path()).await.close().await;
    let pool = pool(folder.path()).await;
    for sql in ["UPDATE entries SET amount = 1", "DELETE FROM entries"] {
        let error = pool.execute(sql).await.expect_err("refused");
        assert!(error.to_string().contains("appended"), "{error}");
    }
    pool.close().await;
}

#[tokio::test]
async fn a_voided_hold_gives_back_in_the_store_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    store.enter(Book::Test, &[void("v", "site")]).await.expect("open");
    let balance = store.balance(Book::Test, ESCROW).await.expect("readable");
    assert_eq!((balance.posted, balance.held_out), (440, 0));
    store.audit(Book::Test).await.expect("books");
}

async fn pool(folder: &Path) -> SqlitePool {
    let options =
        SqliteConnectOptions::new().filename(folder.join("raven.sqlite")).foreign_keys(false);
    SqlitePool::connect_with(options).await.expect("a file")
}

async fn tamper(folder: &Path, sql: &'static str) {
    let pool = pool(folder).await;
    for drop in ["entries_are_not_changed", "entries_are_not_deleted"] {
        let sql = format!("DROP TRIGGER {drop}");
        pool.execute(sqlx::query(sqlx::AssertSqlSafe(sql))).await.expect("a trigger");
    }
    pool.execute(sql).await.expect(sql);
    pool.close().await;
}
