//! The chain of what contributors gave of their machines: over a real WebSocket into a
//! real store, and what the auditor makes of it.

mod support;

use ed25519_dalek::SigningKey;
use raven_coordinator::allocation::{Allocation, AllocationKind};
use raven_coordinator::store::{AllocationFault, Store};
use raven_engine::ContributorId;
use raven_protocol::{FromContributor, GoodbyeReason, Hello, Receipt, SessionId, ToContributor};
use sqlx::Executor as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use support::Coordinator;
use support::socket::{Socket, consent, hello, pace, raise, receipt};

const PATIENCE: Duration = Duration::from_secs(20);

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn contributor() -> ContributorId {
    ContributorId(key(1).verifying_key().to_bytes())
}

async fn lines(store: &Store) -> Vec<Allocation> {
    let newest = store.allocations(contributor(), None, 100).await.expect("readable");
    newest.into_iter().rev().map(|(_, line, _)| line).collect()
}

/// Waits until there are so many lines.
async fn wait_for(store: &Store, count: usize) -> Vec<Allocation> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let lines = lines(store).await;
        if lines.len() >= count {
            return lines;
        }
        assert!(tokio::time::Instant::now() < deadline, "{count} lines wanted: {lines:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An open session at a share of a fifth.
async fn open(coordinator: &Coordinator) -> (Socket, SessionId, Receipt) {
    let hello = Hello { share: 0.2, ..hello(&key(1), coordinator.runtime.kernel()) };
    let mut socket = Socket::connect(coordinator.address).await;
    socket.send(&FromContributor::Hello(hello.clone())).await;
    let (session, nonce) = socket.welcome().await;
    let first = receipt(&hello, &nonce, None);
    socket.send(&consent(&first, &key(1))).await;
    assert!(matches!(socket.receive().await.0, ToContributor::Ready { .. }));
    (socket, session, first)
}

/// A session that raised its share, lowered it, and was taken back.
async fn history(coordinator: &Coordinator) -> SessionId {
    let (mut socket, session, first) = open(coordinator).await;
    let half = Receipt { share: 0.5, counter: 1, ..first };
    socket.send(&raise(&half, &key(1))).await;
    wait_for(&coordinator.store, 2).await;
    socket.send(&pace(0.1, 1)).await;
    wait_for(&coordinator.store, 3).await;
    socket.send(&FromContributor::Goodbye { reason: GoodbyeReason::Stopped }).await;
    wait_for(&coordinator.store, 4).await;
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_in_the_chain_in_its_order() {
    let coordinator = Coordinator::start(|_| {}).await;
    let session = history(&coordinator).await;
    let lines = lines(&coordinator.store).await;
    let seen: Vec<_> =
        lines.iter().map(|line| (line.kind, line.share_ppm, line.cpu, line.gpu)).collect();
    assert_eq!(
        seen,
        [
            (AllocationKind::Consent, 200_000, true, false),
            (AllocationKind::Raise, 500_000, true, false),
            (AllocationKind::Change, 100_000, true, false),
            (AllocationKind::Revoke, 0, false, false),
        ]
    );
    assert!(lines.iter().all(|line| line.session == session));
    assert!(lines.iter().all(|line| line.receipt.is_some() == line.kind.is_signed()));
    let end = coordinator.store.session_end(session).await.expect("read").expect("it has ended");
    assert_eq!(end.1.as_deref(), Some("stopped"), "a revocation ends the session at once");
    let audited = coordinator.store.audit_allocations().await.expect("the auditor agrees");
    // One is of the operator's own node.
    assert_eq!(audited.lines, 5);

    // One that is only gone was not taken back.
    let (socket, ..) = open(&coordinator).await;
    drop(socket);
    let lines = wait_for(&coordinator.store, 6).await;
    assert_eq!(lines.last().map(|line| line.kind), Some(AllocationKind::End));
    coordinator.store.audit_allocations().await.expect("the auditor agrees");
}

/// What the engine has of the first key's session: its share in millionths, and its state.
fn has(coordinator: &Coordinator) -> Option<(u32, &'static str)> {
    let snapshot = coordinator.runtime.snapshot();
    let node = snapshot.nodes.iter().find(|node| node.contributor == contributor())?;
    Some(((node.share * 1e6).round() as u32, node.state))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_slider_that_never_rests_what_takes_effect_is_what_is_chained() {
    let coordinator = Coordinator::start(|_| {}).await;
    let (mut socket, ..) = open(&coordinator).await;
    let mut seen = BTreeSet::new();
    for step in 0..200_u32 {
        socket.send(&pace(0.2 - f64::from(step) / 1_001.0, 1)).await;
        seen.extend(has(&coordinator).map(|(share, _)| share));
    }
    let last = ((0.2 - 199.0 / 1_001.0) * 1e6_f64).round() as u32;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut has_rested = false;
    // The last of them has a line within ten seconds. Until then the session gets nothing.
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = has(&coordinator);
        seen.extend(now.map(|(share, _)| share));
        has_rested |= now.is_some_and(|(_, state)| state == "paused");
        if now.is_some_and(|(share, state)| share == last && state != "paused") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{now:?}");
    }
    assert!(has_rested, "less was held back, and nothing was used meanwhile");
    let chained: BTreeSet<u32> =
        lines(&coordinator.store).await.iter().map(|line| line.share_ppm).collect();
    assert!(seen.is_subset(&chained), "{seen:?} took effect, {chained:?} are in the chain");
    assert_eq!(chained.first(), Some(&last));
    // The burst of twenty, and one in ten seconds; the session's first and last line.
    assert!((4..26).contains(&chained.len()), "{chained:?} of 200 wishes");
    coordinator.store.audit_allocations().await.expect("the auditor agrees");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_open_is_ended_in_the_chain() {
    let coordinator = Coordinator::start(|_| {}).await;
    let (_socket, session, _) = open(&coordinator).await;
    // The next process finds the file as a crash would leave it.
    let path = coordinator.folder.path().join("raven.db");
    let next = Store::open(&path).await.expect("a store");
    next.begin_process().await.expect("a process");
    let lines = lines(&next).await;
    assert_eq!(
        lines.last().map(|line| (line.session, line.kind)),
        Some((session, AllocationKind::End))
    );
    next.audit_allocations().await.expect("the auditor agrees");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_auditor_finds_every_kind_of_tampering() {
    let coordinator = Coordinator::start(|_| {}).await;
    history(&coordinator).await;
    // The first line is of the operator's own node.
    let tampering = [
        ("UPDATE allocations SET share_ppm = 1 WHERE number = 3", "Chain"),
        ("UPDATE allocations SET gpu = 1 WHERE number = 2", "Chain"),
        ("UPDATE allocations SET at_ms = 0 WHERE number = 4", "Chain"),
        ("UPDATE allocations SET contributor = zeroblob(32) WHERE number = 2", "Chain"),
        ("UPDATE allocations SET hash = zeroblob(32) WHERE number = 5", "Chain"),
        ("UPDATE allocations SET receipt = NULL WHERE number = 3", "Chain"),
        ("DELETE FROM allocations WHERE number = 3", "Gap"),
        ("DELETE FROM allocations WHERE number = 5", "Last"),
        ("UPDATE sessions SET receipt = '{}'", "Receipt"),
        ("UPDATE session_receipts SET receipt = '{}'", "Receipt"),
        ("DELETE FROM session_receipts", "Receipt"),
        // Receipts that nobody has signed, or somebody something else.
        ("UPDATE sessions SET signature = '' WHERE receipt <> ''", "Signature"),
        ("UPDATE sessions SET signature = (SELECT signature FROM session_receipts)", "Signature"),
        ("UPDATE session_receipts SET signature = substr(signature, 2) || '0'", "Signature"),
        ("UPDATE identities SET value = zeroblob(32) WHERE name = 'operator'", "Signature"),
    ];
    for (sql, kind) in tampering {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = folder.path().join("raven.db");
        coordinator.sql("PRAGMA wal_checkpoint(TRUNCATE)").await;
        std::fs::copy(coordinator.folder.path().join("raven.db"), &copy).expect("a copy");
        tamper(&copy, sql).await;
        let store = Store::open(&copy).await.expect("a store");
        let found = match store.audit_allocations().await.expect_err(sql) {
            AllocationFault::Gap { .. } => "Gap",
            AllocationFault::Chain { .. } => "Chain",
            AllocationFault::Receipt { .. } => "Receipt",
            AllocationFault::View { .. } => "View",
            AllocationFault::Signature { .. } => "Signature",
            AllocationFault::Last { .. } => "Last",
            AllocationFault::Store(error) => panic!("{sql}: {error}"),
        };
        assert_eq!(found, kind, "{sql}");
    }
    // By accident nothing is changed.
    let pool = pool(&coordinator.folder.path().join("raven.db")).await;
    for sql in ["UPDATE allocations SET cpu = 0", "DELETE FROM allocations"] {
        let error = pool.execute(sql).await.expect_err("refused");
        assert!(error.to_string().contains("appended"), "{error}");
    }
}

/// Answers the welcome with what `change` makes of a true receipt; must be refused for `field`.
async fn refused(coordinator: &Coordinator, change: impl FnOnce(&mut Receipt), field: &str) {
    let hello = Hello { share: 0.2, ..hello(&key(1), coordinator.runtime.kernel()) };
    let mut socket = Socket::connect(coordinator.address).await;
    socket.send(&FromContributor::Hello(hello.clone())).await;
    let (_, nonce) = socket.welcome().await;
    let mut receipt = receipt(&hello, &nonce, None);
    change(&mut receipt);
    socket.send(&consent(&receipt, &key(1))).await;
    socket.refused(GoodbyeReason::NoConsent, field).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consents_that_are_not_this_sessions_are_refused_and_leave_no_line() {
    let coordinator = Coordinator::start(|_| {}).await;
    let (mut socket, _, first) = open(&coordinator).await;
    let nonce = first.nonce.clone();
    refused(&coordinator, |receipt| receipt.nonce = nonce, "receipt.nonce").await;
    refused(&coordinator, |receipt| *receipt = first.clone(), "receipt.nonce").await;
    let other = raven_coordinator::runtime::session::hex(key(2).verifying_key().as_bytes());
    refused(&coordinator, |receipt| receipt.session_key = other, "receipt.session_key").await;
    let outdated = |receipt: &mut Receipt| receipt.text_version = "0".into();
    refused(&coordinator, outdated, "receipt.text_version").await;
    refused(&coordinator, |receipt| receipt.counter = 1, "receipt.counter").await;
    refused(&coordinator, |receipt| receipt.cpu = false, "receipt.cpu").await;
    refused(&coordinator, |receipt| receipt.share = 0.9, "receipt.share").await;
    assert_eq!(lines(&coordinator.store).await.len(), 1, "only the first one has consented");

    // A receipt for a higher share serves once.
    let half = Receipt { share: 0.5, counter: 1, ..first };
    socket.send(&raise(&half, &key(1))).await;
    wait_for(&coordinator.store, 2).await;
    socket.send(&pace(0.1, 1)).await;
    wait_for(&coordinator.store, 3).await;
    socket.send(&raise(&half, &key(1))).await;
    socket.refused(GoodbyeReason::NoConsent, "receipt.counter: 1 is not above 1").await;
    let lines = wait_for(&coordinator.store, 4).await;
    assert_eq!(lines.last().map(|line| line.kind), Some(AllocationKind::End));
    coordinator.store.audit_allocations().await.expect("the auditor agrees");
}

async fn pool(file: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(file).foreign_keys(false);
    SqlitePool::connect_with(options).await.expect("a file")
}

async fn tamper(file: &Path, sql: &'static str) {
    let pool = pool(file).await;
    for sql in [
        "DROP TRIGGER allocations_are_not_changed",
        "DROP TRIGGER allocations_are_not_deleted",
        sql,
    ] {
        pool.execute(sql).await.expect(sql);
    }
    pool.close().await;
}
