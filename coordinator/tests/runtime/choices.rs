//! What a visitor chooses, over real sockets: kinds of jobs that it refuses, the GPU, and
//! when it signed.

use crate::support::contributor::GPU_KERNEL;
use crate::support::data::{Rows, job};
use crate::support::socket::{Socket, consent, hello, raise, receipt};
use crate::support::{Coordinator, SITE_KEY, card};
use ed25519_dalek::SigningKey;
use raven_coordinator::allocation::{Allocation, AllocationKind};
use raven_coordinator::store::{SiteChange, SiteChanged, Store};
use raven_coordinator::time::UnixMs;
use raven_coordinator::view::Queue;
use raven_engine::{Category, CategorySet, ContributorId, Verification};
use raven_protocol::{
    FromContributor, GoodbyeReason, Hello, JobCategory, JobId, NumericClass, Receipt, SessionId,
    ToContributor,
};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const ROWS: Rows = Rows { train: 600, test: 150 };
const ID: JobId = JobId(1);

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

/// The lines of the first key's sessions, oldest first, once there are so many.
async fn lines(store: &Store, count: usize) -> Vec<Allocation> {
    let contributor = ContributorId(key(1).verifying_key().to_bytes());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let newest = store.allocations(contributor, None, 100).await.expect("readable");
        if newest.len() >= count {
            return newest.into_iter().rev().map(|(_, line, _)| line).collect();
        }
        assert!(tokio::time::Instant::now() < deadline, "{count} lines wanted: {newest:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A session whose receipt is what `change` makes of a plain one.
async fn open(
    coordinator: &Coordinator,
    hello: Hello,
    change: impl FnOnce(&mut Receipt),
) -> (Socket, SessionId, Receipt) {
    let mut socket = Socket::connect(coordinator.address).await;
    let site = hello.ticket.as_ref().map(|_| SITE_KEY);
    socket.send(&FromContributor::Hello(hello.clone())).await;
    let (session, nonce) = socket.welcome().await;
    let mut first = receipt(&hello, &nonce, site);
    change(&mut first);
    socket.send(&consent(&first, &key(1))).await;
    assert!(matches!(socket.receive().await.0, ToContributor::Ready { .. }));
    (socket, session, first)
}

fn plain(coordinator: &Coordinator) -> Hello {
    Hello { share: 0.2, ..hello(&key(1), coordinator.runtime.kernel()) }
}

/// A change of what is refused, unsigned.
fn refuse(refuses: &[JobCategory]) -> FromContributor {
    let refuses = refuses.to_vec();
    FromContributor::Pace { share: 0.2, workers: 1, refuses, receipt: None, signature: None }
}

/// Whether a task comes within a moment.
async fn gets_a_task(socket: &mut Socket) -> bool {
    let task = async { while !matches!(socket.receive().await.0, ToContributor::Task(_)) {} };
    tokio::time::timeout(Duration::from_secs(2), task).await.is_ok()
}

async fn add_vision_job(coordinator: &Coordinator) {
    let mut spec = job("replica", 40, 96, 16);
    (spec.verification, spec.category) = (Verification::None, Category::Vision);
    coordinator.add_job(ID, &ROWS, &spec).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_visitor_refuses_is_signed_chained_and_obeyed() {
    let coordinator = Coordinator::start(|_| {}).await;
    let hello = plain(&coordinator);
    let (mut socket, session, first) =
        open(&coordinator, hello, |receipt| receipt.refuses = vec![JobCategory::Vision]).await;
    add_vision_job(&coordinator).await;
    assert!(!gets_a_task(&mut socket).await, "the only job is of a kind that is refused");
    // To refuse more needs no receipt.
    socket.send(&refuse(&[JobCategory::Vision, JobCategory::Finance])).await;
    lines(&coordinator.store, 2).await;
    // To take back some of it does.
    let finance = vec![JobCategory::Finance];
    let fewer = Receipt { refuses: finance.clone(), counter: 1, ..first };
    socket.send(&raise(&fewer, &key(1))).await;
    assert!(gets_a_task(&mut socket).await, "the job is not refused any more");
    let lines = lines(&coordinator.store, 3).await;
    let set = |refuses: &[JobCategory]| refuses.iter().copied().collect::<CategorySet>();
    let seen: Vec<_> = lines.iter().map(|line| (line.kind, line.refuses)).collect();
    assert_eq!(
        seen,
        [
            (AllocationKind::Consent, set(&[JobCategory::Vision])),
            (AllocationKind::Change, set(&[JobCategory::Vision, JobCategory::Finance])),
            (AllocationKind::Raise, set(&finance)),
        ]
    );
    let stored = coordinator.store.session_receipts(session).await.expect("read");
    assert_eq!(Receipt::from_text(&stored[0]).expect("a receipt").refuses, finance);
    coordinator.store.audit_allocations().await.expect("the auditor agrees");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_ends_open_work_at_once() {
    let coordinator = Coordinator::start(|_| {}).await;
    let (mut socket, ..) = open(&coordinator, plain(&coordinator), |_| {}).await;
    add_vision_job(&coordinator).await;
    assert!(gets_a_task(&mut socket).await);
    socket.send(&refuse(&[JobCategory::Vision])).await;
    lines(&coordinator.store, 2).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let reason = coordinator.runtime.job_live(ID).and_then(|live| live.reason);
        if reason.as_ref().is_some_and(|it| it.contains("refuses jobs of category vision")) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the engine was not told: {reason:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the network says this of the session: its share, and whether it takes tasks.
async fn stands(coordinator: &Coordinator, session: SessionId, expected: (f64, bool)) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        let snapshot = coordinator.runtime.snapshot();
        let node = snapshot.nodes.iter().find(|node| node.session == session);
        let stands = node.map(|node| (node.share, node.takes_tasks));
        if stands == Some(expected) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{expected:?} wanted: {stands:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_wishes_less_rests_until_its_line_is_durable_however_long_others_write() {
    use sqlx::Executor;
    let coordinator = Coordinator::start(|_| {}).await;
    let (mut socket, session, _) = open(&coordinator, plain(&coordinator), |_| {}).await;
    stands(&coordinator, session, (0.2, true)).await;
    for (share, refuses) in [(0.1, Vec::new()), (0.1, vec![JobCategory::Finance])] {
        let had = coordinator
            .runtime
            .snapshot()
            .nodes
            .iter()
            .find(|it| it.session == session)
            .map(|it| it.share);
        let mut other = coordinator.connection().await;
        other.execute("BEGIN IMMEDIATE").await.expect("begins");
        let (receipt, signature) = (None, None);
        socket
            .send(&FromContributor::Pace { share, workers: 1, refuses, receipt, signature })
            .await;
        stands(&coordinator, session, (had.expect("online"), false)).await;
        other.execute("COMMIT").await.expect("commits");
        stands(&coordinator, session, (share, true)).await;
    }
    assert_eq!(lines(&coordinator.store, 3).await.len(), 3);
}

/// What the site refuses from now on.
async fn site_refuses(coordinator: &Coordinator, refuses: CategorySet) {
    let change = SiteChange { refuses: Some(refuses), ..SiteChange::default() };
    let (owner, site) = (coordinator.owner, coordinator.site);
    let changed = coordinator.store.change_site(owner, site, &change).await.expect("done");
    assert_eq!(changed, SiteChanged::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_is_to_the_kinds_that_its_card_offered_whatever_the_site_takes_later() {
    let coordinator =
        Coordinator::start(|config| config.site_look = Duration::from_millis(50)).await;
    let narrow = CategorySet::EMPTY.with(Category::Tabular).with(Category::Science);
    site_refuses(&coordinator, narrow.complement()).await;
    let queue = Queue { categories: narrow, work: Vec::new(), more: 0 };
    let seen = card().with_queue(queue).named();
    coordinator.store.give_view(&seen, Some(coordinator.site), UnixMs::now()).await.expect("kept");
    let through = || Hello { ticket: Some(coordinator.ticket()), ..plain(&coordinator) };
    let (mut before, ..) = open(&coordinator, through(), |it| it.view = Some(seen.id)).await;
    add_vision_job(&coordinator).await;
    site_refuses(&coordinator, CategorySet::EMPTY).await;
    assert!(!gets_a_task(&mut before).await, "its card had no such box to leave ticked");
    // The same yes on the site's next page.
    let (mut after, _, first) = open(&coordinator, through(), |it| it.view = Some(seen.id)).await;
    assert!(!gets_a_task(&mut after).await, "nobody was asked again");
    // Nor is it lifted by a receipt, which is over the same card.
    let raised = Receipt { share: 0.5, counter: 1, ..first };
    after.send(&raise(&raised, &key(1))).await;
    assert!(!gets_a_task(&mut after).await, "a share is no kind of work");
    let (mut anew, ..) = open(&coordinator, through(), |_| {}).await;
    assert!(gets_a_task(&mut anew).await, "a card that offered it");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_refused_is_allowed_without_a_receipt_that_says_so() {
    let coordinator = Coordinator::start(|_| {}).await;
    let refuses = |receipt: &mut Receipt| receipt.refuses = vec![JobCategory::Vision];
    let (mut socket, ..) = open(&coordinator, plain(&coordinator), refuses).await;
    socket.send(&refuse(&[])).await;
    socket.refused(GoodbyeReason::NoConsent, "pace.receipt: missing").await;
    // Less of the one and more of the other is more.
    let (mut socket, ..) = open(&coordinator, plain(&coordinator), refuses).await;
    socket.send(&refuse(&[JobCategory::Other])).await;
    socket.refused(GoodbyeReason::NoConsent, "pace.receipt: missing").await;
    let (mut socket, _, first) = open(&coordinator, plain(&coordinator), refuses).await;
    let same = Receipt { counter: 1, ..first };
    let FromContributor::Pace { receipt, signature, .. } = raise(&same, &key(1)) else {
        unreachable!("a pace is made");
    };
    let refuses = Vec::new();
    socket
        .send(&FromContributor::Pace { share: 0.2, workers: 1, refuses, receipt, signature })
        .await;
    socket.refused(GoodbyeReason::NoConsent, "receipt.refuses").await;
    coordinator.store.audit_allocations().await.expect("the auditor agrees");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_session_has_lines_of_its_own_and_its_switch_ends_it_alone() {
    let coordinator = Coordinator::start(|config| config.gpu_kernel = Some(GPU_KERNEL)).await;
    let both = |receipt: &mut Receipt| receipt.gpu = true;
    let (_processor, cpu, _) = open(&coordinator, plain(&coordinator), both).await;
    let numeric = NumericClass::Gpu { kernel: GPU_KERNEL };
    let (mut graphics, gpu, first) =
        open(&coordinator, Hello { numeric, ..plain(&coordinator) }, both).await;
    let half = Receipt { share: 0.5, counter: 1, ..first };
    graphics.send(&raise(&half, &key(1))).await;
    lines(&coordinator.store, 3).await;
    // The visitor switches the GPU off: its session is taken back, the processor's is not.
    graphics.send(&FromContributor::Goodbye { reason: GoodbyeReason::Stopped }).await;
    let seen: Vec<_> = lines(&coordinator.store, 4)
        .await
        .iter()
        .map(|line| (line.session, line.kind, line.share_ppm, line.cpu, line.gpu))
        .collect();
    assert_eq!(
        seen,
        [
            (cpu, AllocationKind::Consent, 200_000, true, false),
            (gpu, AllocationKind::Consent, 200_000, false, true),
            (gpu, AllocationKind::Raise, 500_000, false, true),
            (gpu, AllocationKind::Revoke, 0, false, false),
        ]
    );
    let store = &coordinator.store;
    assert!(store.session_end(gpu).await.expect("read").is_some());
    assert_eq!(store.session_end(cpu).await.expect("read"), None, "the processor goes on");
    // Switched on again it is another session, with a line of its own.
    let (_graphics, again, _) =
        open(&coordinator, Hello { numeric, ..plain(&coordinator) }, both).await;
    let lines = lines(&coordinator.store, 5).await;
    let last = lines.last().expect("a line");
    assert_eq!((last.session, last.gpu, last.kind), (again, true, AllocationKind::Consent));
    assert!(again != gpu);
    store.audit_allocations().await.expect("the auditor agrees");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_is_not_of_now_is_no_consent() {
    let coordinator = Coordinator::start(|_| {}).await;
    for off_ms in [-300_001_i64, 310_000] {
        let hello = plain(&coordinator);
        let mut socket = Socket::connect(coordinator.address).await;
        socket.send(&FromContributor::Hello(hello.clone())).await;
        let (_, nonce) = socket.welcome().await;
        let mut first = receipt(&hello, &nonce, None);
        first.time_ms = first.time_ms.saturating_add_signed(off_ms);
        socket.send(&consent(&first, &key(1))).await;
        socket.refused(GoodbyeReason::NoConsent, "receipt.time_ms").await;
    }
    let (mut socket, _, first) = open(&coordinator, plain(&coordinator), |_| {}).await;
    let old = Receipt { share: 0.5, counter: 1, time_ms: first.time_ms - 300_001, ..first };
    socket.send(&raise(&old, &key(1))).await;
    socket.refused(GoodbyeReason::NoConsent, "receipt.time_ms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_names_what_it_takes_gets_nothing_else() {
    let coordinator =
        Coordinator::start(|config| config.site_look = Duration::from_millis(50)).await;
    let (owner, site) = (coordinator.owner, coordinator.site);
    let allow = async |allows: Option<CategorySet>| {
        let change = SiteChange { allows: Some(allows), ..SiteChange::default() };
        assert_eq!(
            coordinator.store.change_site(owner, site, &change).await.expect("done"),
            SiteChanged::Done
        );
    };
    allow(Some(CategorySet::EMPTY.with(Category::Science))).await;
    add_vision_job(&coordinator).await;
    // It is known of a session from its start.
    let hello = Hello { ticket: Some(coordinator.ticket()), ..plain(&coordinator) };
    let (mut socket, ..) = open(&coordinator, hello, |_| {}).await;
    assert!(!gets_a_task(&mut socket).await, "the job is not on the list");
    // And reaches one that is open.
    allow(Some(CategorySet::EMPTY.with(Category::Science).with(Category::Vision))).await;
    assert!(gets_a_task(&mut socket).await);
    // What is refused is not allowed by being on the list; without a list all else is.
    let row = coordinator.store.site(site).await.expect("read").expect("the site");
    let refuses = CategorySet::EMPTY.with(Category::Vision);
    let both = raven_coordinator::store::SiteRow { refuses, ..row };
    assert!(
        both.refused().contains(Category::Vision) && !both.refused().contains(Category::Science)
    );
    allow(None).await;
    let row = coordinator.store.site(site).await.expect("read").expect("the site");
    assert_eq!((row.allows, row.refused()), (None, CategorySet::EMPTY));
}
