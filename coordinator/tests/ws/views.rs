//! What a page's card has shown, as receipts name it: over a real WebSocket into a real store.

use crate::support::socket::{Socket, consent, hello, raise, receipt};
use crate::support::{CONSENT_TEXT, Coordinator, SITE_KEY, card, card_view};
use ed25519_dalek::SigningKey;
use raven_coordinator::store::{AllocationFault, Book};
use raven_coordinator::time::UnixMs;
use raven_coordinator::view::{CardView, Queue, VIEW_MS_MAX, view_id};
use raven_engine::{CategorySet, ContributorId};
use raven_protocol::{
    FromContributor, GoodbyeReason, Hello, Receipt, SessionId, ToContributor, ViewId,
};
use std::time::Duration;

/// Longer than it takes until it is noted that a view was given once more.
const HOUR_MS: i64 = 3_600_000;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

/// Answers the welcome of a session through the site with what `change` makes of a true receipt.
async fn consented(
    coordinator: &Coordinator,
    change: impl FnOnce(&mut Receipt),
) -> (Socket, SessionId, Receipt) {
    let ticket = Some(coordinator.ticket());
    let hello = Hello { ticket, share: 0.2, ..hello(&key(), coordinator.runtime.kernel()) };
    let mut socket = Socket::connect(coordinator.address).await;
    socket.send(&FromContributor::Hello(hello.clone())).await;
    let (session, nonce) = socket.welcome().await;
    let mut receipt = receipt(&hello, &nonce, Some(SITE_KEY));
    change(&mut receipt);
    socket.send(&consent(&receipt, &key())).await;
    (socket, session, receipt)
}

async fn opened(coordinator: &Coordinator) -> (Socket, SessionId, Receipt) {
    let (mut socket, session, receipt) = consented(coordinator, |_| {}).await;
    let ready = socket.receive().await.0;
    assert!(matches!(ready, ToContributor::Ready { .. }), "{ready:?}");
    (socket, session, receipt)
}

/// A coordinator whose own node has begun its session.
async fn start() -> Coordinator {
    let coordinator = Coordinator::start(|_| {}).await;
    while coordinator.rows("SELECT id FROM sessions").await.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    coordinator
}

/// Of the sessions, the lines of allocations and the entries of both books.
async fn recorded(coordinator: &Coordinator) -> [u64; 4] {
    let store = &coordinator.store;
    let sessions = coordinator.rows("SELECT id FROM sessions").await.len() as u64;
    let lines = store.audit_allocations().await.expect("the auditor agrees").lines;
    let mut entries = [0; 2];
    for (count, book) in entries.iter_mut().zip(Book::ALL) {
        *count = store.audit(book).await.expect("the auditor agrees").entries;
    }
    [sessions, lines, entries[0], entries[1]]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_must_name_a_view_that_was_given_and_is_not_too_old() {
    let coordinator = start().await;
    let before = recorded(&coordinator).await;
    let (socket, ..) = consented(&coordinator, |receipt| receipt.view = None).await;
    socket.refused(GoodbyeReason::NoConsent, "receipt.view: missing").await;
    let unknown = |receipt: &mut Receipt| receipt.view = Some(ViewId([9; 32]));
    let (socket, ..) = consented(&coordinator, unknown).await;
    socket.refused(GoodbyeReason::StaleView, "receipt.view").await;
    // Whoever comes through no page names none, or one that was given.
    let hello = hello(&key(), coordinator.runtime.kernel());
    let mut socket = Socket::connect(coordinator.address).await;
    socket.send(&FromContributor::Hello(hello.clone())).await;
    let (_, nonce) = socket.welcome().await;
    let mut first = receipt(&hello, &nonce, None);
    first.view = Some(ViewId([9; 32]));
    socket.send(&consent(&first, &key())).await;
    socket.refused(GoodbyeReason::StaleView, "receipt.view").await;

    // As long ago as a view may be named, and a minute more.
    let give = async |ago_ms: i64| {
        let given = UnixMs(UnixMs::now().0 - ago_ms);
        coordinator.sql("DELETE FROM card_views").await;
        coordinator.store.give_view(&card_view(), None, given).await.expect("kept");
    };
    give(VIEW_MS_MAX + HOUR_MS + 60_000).await;
    let (socket, ..) = consented(&coordinator, |_| {}).await;
    socket.refused(GoodbyeReason::StaleView, "receipt.view").await;
    assert_eq!(recorded(&coordinator).await, before, "nothing came of any of them");
    give(VIEW_MS_MAX - 60_000).await;
    opened(&coordinator).await;
    assert_eq!(recorded(&coordinator).await[0], before[0] + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_to_other_terms_than_hold_now_is_asked_for_again() {
    let coordinator = start().await;
    let before = recorded(&coordinator).await;
    let cards = [
        ("text_version", CardView::new("2", "25", "no")),
        ("visit_mb", CardView::new(CONSENT_TEXT, "26", "no")),
        ("gpu", CardView::new(CONSENT_TEXT, "25", "any")),
    ];
    let queue = || Queue { categories: CategorySet::EMPTY, work: Vec::new(), more: 0 };
    for (field, card) in cards {
        for view in [card.named(), card.with_queue(queue()).named()] {
            coordinator
                .store
                .give_view(&view, Some(coordinator.site), UnixMs::now())
                .await
                .expect("kept");
            let (socket, ..) = consented(&coordinator, |it| it.view = Some(view.id)).await;
            socket.refused(GoodbyeReason::StaleView, field).await;
        }
    }
    assert_eq!(recorded(&coordinator).await, before, "nothing came of any of them");
    // Whatever waits by now is no other term.
    let view = card().with_queue(queue()).named();
    coordinator.store.give_view(&view, Some(coordinator.site), UnixMs::now()).await.expect("kept");
    let (mut socket, ..) = consented(&coordinator, |it| it.view = Some(view.id)).await;
    assert!(matches!(socket.receive().await.0, ToContributor::Ready { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_receipt_is_over_the_same_view() {
    let coordinator = start().await;
    for view in [None, Some(ViewId([9; 32]))] {
        let (mut socket, _, first) = opened(&coordinator).await;
        let half = Receipt { share: 0.5, counter: 1, view, ..first };
        socket.send(&raise(&half, &key())).await;
        socket.refused(GoodbyeReason::NoConsent, "receipt.view").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_has_named_is_kept_and_others_go() {
    let coordinator = start().await;
    let (store, now) = (&coordinator.store, UnixMs::now());
    let (_socket, session, _) = opened(&coordinator).await;
    let other = CardView::new("2", "25", "no");
    store.give_view(&other.named(), None, now).await.expect("kept");
    let later = |hours: i64| UnixMs(now.0 + hours * HOUR_MS);
    assert_eq!(store.forget_card_views(later(71)).await.expect("swept"), 0, "it may be named");
    assert_eq!(store.forget_card_views(later(73)).await.expect("swept"), 1);
    let contributor = ContributorId(key().verifying_key().to_bytes());
    let consent = store.own_consent(contributor, session).await.expect("read").expect("there");
    let (id, document) = consent.view.expect("what was shown");
    assert_eq!((id, &document), (card_view().id, &card_view().document));
    assert_eq!(view_id(&document), id);
    let stranger = store.own_consent(ContributorId([5; 32]), session).await.expect("read");
    assert_eq!(stranger, None, "it is nobody else's to read");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_auditor_finds_a_view_that_was_changed_or_lost() {
    let coordinator = start().await;
    opened(&coordinator).await;
    coordinator.store.audit_allocations().await.expect("the auditor agrees");
    for sql in ["UPDATE card_views SET document = document || ' '", "DELETE FROM card_views"] {
        coordinator.sql(sql).await;
        let fault = coordinator.store.audit_allocations().await.expect_err(sql);
        assert!(matches!(fault, AllocationFault::View { .. }), "{sql}: {fault}");
    }
}

/// Whatever was said in an earlier session is of no use in another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_consent_is_refused_and_changes_nothing() {
    let coordinator = start().await;
    let (mut socket, _, first) = opened(&coordinator).await;
    let higher = Receipt { share: 0.5, counter: 1, ..first.clone() };
    socket.send(&raise(&higher, &key())).await;
    socket.send(&FromContributor::Goodbye { reason: GoodbyeReason::Stopped }).await;
    socket.ended().await;
    let before = loop {
        let recorded = recorded(&coordinator).await;
        // The operator's own node, and this session's beginning, raise and end.
        if recorded[1] == 4 {
            break recorded;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // Word for word, and the raise in the place of a first one.
    for receipt in [&first, &higher] {
        let (socket, ..) = consented(&coordinator, |it| it.clone_from(receipt)).await;
        let field = if receipt.counter == 0 { "receipt.nonce" } else { "receipt.share" };
        socket.refused(GoodbyeReason::NoConsent, field).await;
    }
    assert_eq!(recorded(&coordinator).await, before, "neither session, line nor entry");
    let (mut socket, ..) = opened(&coordinator).await;
    socket.send(&raise(&higher, &key())).await;
    socket.refused(GoodbyeReason::NoConsent, "receipt.nonce").await;
    let after = recorded(&coordinator).await;
    assert_eq!([after[2], after[3]], [before[2], before[3]], "the books are as they were");
}
