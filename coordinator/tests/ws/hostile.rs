//! Peers that misbehave: each is told why with a typed goodbye and the matching
//! close code, and the coordinator goes on serving everyone else.

use crate::support::contributor::{Contributor, Habits};
use crate::support::data::{Rows, job};
use crate::support::socket::{Socket, consent, hello, pace, raise, receipt};
use crate::support::{Coordinator, OWN_ORIGIN, SITE_KEY, short_timeouts};
use ed25519_dalek::SigningKey;
use raven_coordinator::job::JobSpec;
use raven_coordinator::runtime::RuntimeConfig;
use raven_engine::{JobPhase, Verification};
use raven_graph::philox::philox4x32;
use raven_graph::{DType, TensorType};
use raven_protocol::frame::{TensorPart, encode};
use raven_protocol::{
    Backend, FromContributor, GoodbyeReason, JobId, KernelId, LeaseId, NumericClass, Receipt,
    ResultDigest, ToContributor,
};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::{Error, Message};

pub const ROWS: Rows = Rows { train: 200, test: 50 };
pub const PATIENCE: Duration = Duration::from_secs(60);

fn hurried(config: &mut RuntimeConfig) {
    config.timeouts = short_timeouts();
}

pub fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub async fn start() -> Coordinator {
    Coordinator::start(|_| {}).await
}

/// The proof that a coordinator is unharmed: it trains a job to its end.
pub async fn still_trains(coordinator: &Coordinator) {
    let id = JobId(99);
    coordinator.add_job(id, &ROWS, &unchecked("replica", 1, 64, 16)).await;
    let contributor = Contributor::start(coordinator.address, 200, Habits::default());
    let row = coordinator.finished(id, PATIENCE).await;
    assert_eq!(row.phase, JobPhase::Completed, "{:?}", row.reason);
    drop(contributor);
}

fn hello_frame(coordinator: &Coordinator) -> Vec<u8> {
    encode(&FromContributor::Hello(hello(&key(1), coordinator.runtime.kernel())), &[])
}

/// A job whose results are believed: what is tested here is what a socket may say.
pub fn unchecked(placement: &str, epochs: u32, batch: u32, micro_batch: u32) -> JobSpec {
    JobSpec { verification: Verification::None, ..job(placement, epochs, batch, micro_batch) }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_frames_are_named_by_field() {
    let coordinator = start().await;
    let good = hello_frame(&coordinator);
    let changed = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    let mut long = good.clone();
    long.extend_from_slice(&[0; 16]);
    let junk_header = |header: &str| {
        let mut frame = good[..16].to_vec();
        frame[8..12].copy_from_slice(&(header.len() as u32).to_le_bytes());
        frame.extend_from_slice(header.as_bytes());
        frame.resize(frame.len().next_multiple_of(16), 0);
        frame
    };
    use GoodbyeReason::{BadFrame, Incompatible};
    let cases: Vec<(Vec<u8>, GoodbyeReason, &str)> = vec![
        (Vec::new(), BadFrame, "frame: 0 bytes"),
        (good[..10].to_vec(), BadFrame, "frame: 10 bytes"),
        (good[..good.len() - 1].to_vec(), BadFrame, "frame:"),
        (long, BadFrame, "declared"),
        (changed(0, b'X'), BadFrame, "frame.magic"),
        (changed(4, 9), Incompatible, "frame.version: 9"),
        (changed(6, 1), BadFrame, "frame.reserved"),
        (changed(10, 1), BadFrame, "frame.header_bytes"),
        (changed(13, 1), BadFrame, "frame.body_bytes"),
        (junk_header("{"), BadFrame, "frame.header"),
        (junk_header("[]"), BadFrame, "message"),
        (junk_header("{\"type\":\"helo\"}"), BadFrame, "message"),
        (junk_header("{\"type\":\"hello\"}"), BadFrame, "message"),
        (
            junk_header(
                "{\"type\":\"hello\",\"tensors\":[{\"name\":\"a\",\"dtype\":\"f32\",\"shape\":[4294967295,4294967295,4294967295]}]}",
            ),
            BadFrame,
            "frame.tensors: 1 exceeds the limit of 0",
        ),
    ];
    for (bytes, reason, field) in cases {
        let mut socket = Socket::connect(coordinator.address).await;
        socket.send_bytes(bytes).await;
        socket.refused(reason, field).await;
    }
    still_trains(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hellos_that_claim_nonsense_are_refused() {
    let coordinator = start().await;
    let kernel = coordinator.runtime.kernel();
    let good = hello(&key(1), kernel);
    use GoodbyeReason::{BadFrame, BadTicket, Incompatible};
    let other_kernel = NumericClass::Cpu { kernel: KernelId([9; 32]) };
    let changes: Vec<(FromContributor, GoodbyeReason, &str)> = vec![
        (change(&good, |hello| hello.share = 0.0), BadFrame, "share"),
        (change(&good, |hello| hello.share = 1.5), BadFrame, "share"),
        (change(&good, |hello| hello.workers = 0), BadFrame, "workers"),
        (change(&good, |hello| hello.workers = 1_000_000), BadFrame, "workers"),
        (change(&good, |hello| hello.session_key = "00".repeat(32)), BadFrame, "session_key"),
        (change(&good, |hello| hello.session_key = "a".repeat(65)), BadFrame, "session_key"),
        // The hub of an older page, and one of a page to come.
        (change(&good, |hello| hello.protocol = 3), Incompatible, "hello.protocol"),
        (change(&good, |hello| hello.protocol = 5), Incompatible, "hello.protocol"),
        (change(&good, |hello| hello.numeric = other_kernel), Incompatible, "hello.numeric.kernel"),
        (change(&good, |hello| hello.ticket = Some("forged".into())), BadTicket, "hello.ticket"),
        (change(&good, |hello| hello.ticket = Some("t".repeat(600))), BadFrame, "ticket"),
    ];
    for (message, reason, field) in changes {
        let mut socket = Socket::connect(coordinator.address).await;
        socket.send(&message).await;
        socket.refused(reason, field).await;
    }
    still_trains(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_any_size_about_a_machine_disturb_nobody() {
    let coordinator = start().await;
    let mut liars = Vec::new();
    for (number, claim) in [0, 1, u64::MAX].into_iter().enumerate() {
        let key = key(number as u8 + 1);
        let mut hello = hello(&key, coordinator.runtime.kernel());
        hello.device.memory_bytes = claim;
        hello.device.flops_per_s = claim;
        hello.device.cores = claim as u32;
        hello.share = if claim == 0 { f64::MIN_POSITIVE } else { 1.0 };
        let share = hello.share;
        let mut socket = Socket::connect(coordinator.address).await;
        socket.send(&FromContributor::Hello(hello.clone())).await;
        let (_, nonce) = socket.welcome().await;
        socket.send(&consent(&receipt(&hello, &nonce, None), &key)).await;
        while !matches!(socket.receive().await.0, ToContributor::Ready { .. }) {}
        socket.send(&pace(share, 256)).await;
        // Whatever it is sent, it never answers.
        liars.push(socket);
    }
    still_trains(&coordinator).await;
}

fn change(
    good: &raven_protocol::Hello,
    change: impl FnOnce(&mut raven_protocol::Hello),
) -> FromContributor {
    let mut hello = good.clone();
    change(&mut hello);
    FromContributor::Hello(hello)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_the_wrong_order_are_refused() {
    let coordinator = start().await;
    let kernel = coordinator.runtime.kernel();
    let lease = LeaseId(1);
    let digest = ResultDigest([0; 32]);

    let mut socket = Socket::connect(coordinator.address).await;
    socket
        .send(&FromContributor::Commit { lease, digest, elapsed_ms: 1, backend: Backend::Cpu })
        .await;
    socket.refused(GoodbyeReason::OutOfTurn, "hello").await;

    let mut socket = Socket::connect(coordinator.address).await;
    socket.send(&FromContributor::Hello(hello(&key(1), kernel))).await;
    socket.welcome().await;
    socket.send(&FromContributor::Hello(hello(&key(1), kernel))).await;
    socket.refused(GoodbyeReason::OutOfTurn, "consent").await;

    let late: [(FromContributor, &str); 4] = [
        (FromContributor::Hello(hello(&key(1), kernel)), "hello"),
        (FromContributor::Commit { lease, digest, elapsed_ms: 1, backend: Backend::Cpu }, "lease"),
        (FromContributor::Result { lease }, "lease"),
        (
            FromContributor::Refuse {
                lease,
                reason: raven_protocol::RefuseReason::Failed,
                detail: String::new(),
            },
            "lease",
        ),
    ];
    for (message, field) in late {
        let mut socket = Socket::connect(coordinator.address).await;
        socket.open(&key(1), kernel).await;
        socket.send(&message).await;
        socket.refused(GoodbyeReason::OutOfTurn, field).await;
    }

    let mut socket = Socket::connect(coordinator.address).await;
    socket.open(&key(1), kernel).await;
    let part = TensorPart { name: "x".into(), ty: TensorType::new(DType::U8, [1]), data: &[0] };
    socket.send_bytes(encode(&FromContributor::Resume, &[part])).await;
    socket.refused(GoodbyeReason::BadFrame, "tensors: a resume message").await;

    let mut socket = Socket::connect(coordinator.address).await;
    socket.open(&key(1), kernel).await;
    socket.send_raw(Message::Text("hello".into())).await;
    socket.refused(GoodbyeReason::BadFrame, "binary").await;
    still_trains(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_share_without_a_fresh_receipt_is_no_consent() {
    let coordinator = start().await;
    let kernel = coordinator.runtime.kernel();
    let (own, other) = (key(1), key(2));
    let hello = raven_protocol::Hello { share: 0.2, ..hello(&own, kernel) };
    let open = async |hello: &raven_protocol::Hello| {
        let mut socket = Socket::connect(coordinator.address).await;
        socket.send(&FromContributor::Hello(hello.clone())).await;
        let (session, nonce) = socket.welcome().await;
        let first = receipt(hello, &nonce, None);
        socket.send(&consent(&first, &own)).await;
        assert!(matches!(socket.receive().await.0, ToContributor::Ready { .. }));
        (socket, session, first)
    };
    let share_of = |session| {
        let snapshot = coordinator.runtime.snapshot();
        snapshot.nodes.iter().find(|node| node.session == session).map(|node| node.share)
    };
    use GoodbyeReason::NoConsent;

    let (mut socket, ..) = open(&hello).await;
    socket.send(&pace(0.5, 1)).await;
    socket.refused(NoConsent, "pace.receipt: missing").await;

    let (mut socket, _, first) = open(&hello).await;
    let half = Receipt { share: 0.5, counter: 1, ..first };
    socket.send(&raise(&half, &other)).await;
    socket.refused(NoConsent, "signature").await;

    let (mut socket, ..) = open(&hello).await;
    socket.send(&raise(&half, &own)).await;
    socket.refused(NoConsent, "nonce").await;

    let (mut socket, _, first) = open(&hello).await;
    let half = Receipt { share: 0.5, counter: 1, ..first };
    let whole = match raise(&half, &own) {
        FromContributor::Pace { receipt, signature, .. } => FromContributor::Pace {
            share: 1.0,
            workers: 1,
            refuses: Vec::new(),
            receipt,
            signature,
        },
        other => other,
    };
    socket.send(&whole).await;
    socket.refused(NoConsent, "receipt.share").await;

    // A true one raises the share and is kept; lowering needs none; the same one again does not serve.
    let (mut socket, session, first) = open(&hello).await;
    let half = Receipt { share: 0.5, counter: 1, ..first };
    let raising = raise(&half, &own);
    socket.send(&raising).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while share_of(session) != Some(0.5) {
        assert!(tokio::time::Instant::now() < deadline, "the share is raised");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let FromContributor::Pace { receipt: Some(text), .. } = &raising else { panic!("it has one") };
    assert_eq!(
        coordinator.store.session_receipts(session).await.expect("reads"),
        std::slice::from_ref(text)
    );
    socket.send(&pace(0.1, 1)).await;
    socket.send(&raising).await;
    socket.refused(NoConsent, "counter: 1 is not above 1").await;
    still_trains(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_replayed_receipts_are_no_consent() {
    let coordinator = start().await;
    let kernel = coordinator.runtime.kernel();
    let (own, other) = (key(1), key(2));
    let hello = hello(&own, kernel);

    // Signed by somebody else.
    let mut socket = Socket::connect(coordinator.address).await;
    socket.send(&FromContributor::Hello(hello.clone())).await;
    let (_, nonce) = socket.welcome().await;
    socket.send(&consent(&receipt(&hello, &nonce, None), &other)).await;
    socket.refused(GoodbyeReason::NoConsent, "signature").await;

    // A true receipt of an earlier session.
    let mut socket = Socket::connect(coordinator.address).await;
    let (_, _, old_nonce) = socket.open(&own, kernel).await;
    let mut socket = Socket::connect(coordinator.address).await;
    socket.send(&FromContributor::Hello(hello.clone())).await;
    socket.welcome().await;
    socket.send(&consent(&receipt(&hello, &old_nonce, None), &own)).await;
    socket.refused(GoodbyeReason::NoConsent, "receipt.nonce").await;

    // Signed, but over a site that the ticket does not name.
    let mut socket = Socket::connect(coordinator.address).await;
    socket.send(&FromContributor::Hello(hello.clone())).await;
    let (_, nonce) = socket.welcome().await;
    socket.send(&consent(&receipt(&hello, &nonce, Some(SITE_KEY)), &own)).await;
    socket.refused(GoodbyeReason::NoConsent, "receipt.site").await;

    // No receipt but bytes that look like one.
    let mut socket = Socket::connect(coordinator.address).await;
    socket.send(&FromContributor::Hello(hello)).await;
    socket.welcome().await;
    let receipt = "{}".to_owned();
    socket.send(&FromContributor::Consent { receipt, signature: "00".repeat(64) }).await;
    socket.refused(GoodbyeReason::NoConsent, "signature").await;
    still_trains(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_never_answer_are_let_go() {
    let coordinator = Coordinator::start(hurried).await;
    let kernel = coordinator.runtime.kernel();
    let silent = Socket::connect(coordinator.address).await;
    silent.refused(GoodbyeReason::TooSlow, "hello").await;

    let mut undecided = Socket::connect(coordinator.address).await;
    undecided.send(&FromContributor::Hello(hello(&key(1), kernel))).await;
    undecided.welcome().await;
    undecided.refused(GoodbyeReason::NoConsent, "consent").await;

    // A hello that comes byte by byte is late as well.
    let mut dripping = Socket::connect(coordinator.address).await;
    dripping.tcp().write_all(&[0x82, 0xfd]).await.expect("writes");
    dripping.refused(GoodbyeReason::TooSlow, "hello").await;

    // Consented, then frozen: not even a ping is answered.
    let mut frozen = Socket::connect(coordinator.address).await;
    frozen.open(&key(1), kernel).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(coordinator.runtime.metrics().sessions_opened.get(), 1);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(coordinator.runtime.snapshot().nodes, []);
    // It would answer the pings before it read the goodbye, and find the socket closed.
    assert_eq!(goodbyes(&coordinator, GoodbyeReason::TooSlow), 3);
    drop(frozen);
}

/// Sessions that the coordinator ended for `reason`.
fn goodbyes(coordinator: &Coordinator, reason: GoodbyeReason) -> u64 {
    let index = GoodbyeReason::ALL.iter().position(|&known| known == reason);
    let index = index.expect("a known reason");
    coordinator.runtime.metrics().goodbyes[index].get()
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_messages_are_refused_by_their_length_alone() {
    let coordinator = start().await;
    let kernel = coordinator.runtime.kernel();
    let mut socket = Socket::connect(coordinator.address).await;
    socket.open(&key(1), kernel).await;
    // A binary WebSocket frame that announces 2^40 bytes, and none of them.
    let mut header = vec![0x82, 0x80 | 127];
    header.extend_from_slice(&(1u64 << 40).to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    socket.tcp().write_all(&header).await.expect("writes");
    socket.refused(GoodbyeReason::BadFrame, "too long").await;

    // Before consent no more is taken than a hello has: not the 64 MiB of a result either.
    let announced = |bytes: u64| {
        let mut header = vec![0x82, 0x80 | 127];
        header.extend_from_slice(&bytes.to_be_bytes());
        header.extend_from_slice(&[0; 4]);
        header
    };
    let mut socket = Socket::connect(coordinator.address).await;
    socket.tcp().write_all(&announced(64 << 20)).await.expect("writes");
    socket.refused(GoodbyeReason::BadFrame, "67108864 bytes before consent").await;
    let mut socket = Socket::connect(coordinator.address).await;
    socket.send(&FromContributor::Hello(hello(&key(1), kernel))).await;
    socket.welcome().await;
    socket.send_bytes(vec![0; 1 << 20]).await;
    socket.refused(GoodbyeReason::BadFrame, "1048576 bytes before consent").await;
    // Nor as many short ones.
    let mut socket = Socket::connect(coordinator.address).await;
    let mut pings = Vec::new();
    for _ in 0..(80 << 10) / 6 {
        pings.extend_from_slice(&[0x89, 0x80, 0, 0, 0, 0]);
    }
    socket.tcp().write_all(&pings).await.expect("writes");
    socket.refused(GoodbyeReason::BadFrame, "65536 bytes").await;
    still_trains(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_never_harm() {
    let coordinator = start().await;
    let kernel = coordinator.runtime.kernel();
    let seed = 0x7261_7665;
    println!("seed {seed:#x}");
    for case in 0..60u32 {
        let word = |index: u32| philox4x32([case, index, 0, 0], [seed, 0])[0];
        let length = word(0) % 300;
        let mut bytes: Vec<u8> = (0..length).map(|at| word(1 + at) as u8).collect();
        if case % 2 == 0 && bytes.len() >= 16 {
            // Past the prefix, so that the header is reached.
            let body = (length - 16) & !15;
            bytes[..8].copy_from_slice(b"RAVN\x01\0\0\0");
            bytes[8..12].copy_from_slice(&body.to_le_bytes());
            bytes[12..16].fill(0);
            bytes.truncate(16 + body as usize);
        }
        let mut socket = Socket::connect(coordinator.address).await;
        if case % 3 == 0 {
            socket.open(&key(1), kernel).await;
        }
        socket.send_bytes(bytes).await;
        let ended = socket.ended().await;
        let reason = ended.reason.expect("a reason");
        assert!(
            matches!(reason, GoodbyeReason::BadFrame | GoodbyeReason::Incompatible),
            "{ended:?}"
        );
        assert_eq!(ended.code, Some(reason.close_code()), "case {case}");
    }
    still_trains(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_coordinators_own_frame_connects_from_a_browser() {
    let coordinator = start().await;
    let refused = Socket::connect_from(coordinator.address, Some("http://evil.test")).await;
    match refused {
        Err(Error::Http(response)) => {
            assert_eq!(response.status(), 403);
            let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            assert!(body.contains("origin"), "{body}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("another origin was let in"),
    }
    let kernel = coordinator.runtime.kernel();
    let own = Some(OWN_ORIGIN);
    // A browser's session needs the frame's ticket.
    let mut socket = Socket::connect_from(coordinator.address, own).await.expect("connects");
    socket.send(&FromContributor::Hello(hello(&key(1), kernel))).await;
    socket.refused(GoodbyeReason::BadTicket, "hello.ticket").await;
    // With it, the receipt must name the ticket's site.
    let mut socket = Socket::connect_from(coordinator.address, own).await.expect("connects");
    let mut hello = hello(&key(1), kernel);
    hello.ticket = Some(coordinator.ticket());
    socket.send(&FromContributor::Hello(hello.clone())).await;
    let (_, nonce) = socket.welcome().await;
    socket.send(&consent(&receipt(&hello, &nonce, Some(SITE_KEY)), &key(1))).await;
    assert!(matches!(socket.receive().await.0, ToContributor::Ready { .. }));
    // A revoked site's tickets are worth nothing.
    coordinator.store.revoke_site(coordinator.site).await.expect("revoked");
    let mut socket = Socket::connect_from(coordinator.address, own).await.expect("connects");
    socket.send(&FromContributor::Hello(hello)).await;
    socket.refused(GoodbyeReason::BadTicket, "hello.ticket").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_only_for_sessions_that_were_given_them() {
    let coordinator = start().await;
    let data = ROWS;
    let stored = data.store(&coordinator.blobs);
    let mut socket = Socket::connect(coordinator.address).await;
    let (_, grant, _) = socket.open(&key(1), coordinator.runtime.kernel()).await;
    let shard = stored[0].shard.blob;
    assert!(!coordinator.runtime.grant_allows(&grant, shard), "no task, no data");
    coordinator.add_job(JobId(1), &data, &unchecked("replica", 1, 200, 200)).await;
    while !matches!(socket.receive().await.0, ToContributor::Task(_)) {}
    assert!(coordinator.runtime.grant_allows(&grant, shard));
    let test = stored.iter().find(|shard| shard.test).expect("held-out rows").shard.blob;
    assert!(!coordinator.runtime.grant_allows(&grant, test), "held-out rows stay here");
    drop(socket);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!coordinator.runtime.grant_allows(&grant, shard), "the grant ends with its session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_goes_down_says_so() {
    let coordinator = Coordinator::start(hurried).await;
    let mut socket = Socket::connect(coordinator.address).await;
    socket.open(&key(1), coordinator.runtime.kernel()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stopping = coordinator.runtime.clone();
    let stopped = tokio::spawn(async move { stopping.shutdown().await });
    let ended = socket.ended().await;
    assert_eq!(ended.reason, Some(GoodbyeReason::Draining), "{ended:?}");
    assert!(ended.detail.contains("going down"), "{ended:?}");
    assert_eq!(ended.retry_after_ms, Some(5000));
    stopped.await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_drain_is_let_go() {
    let coordinator = Coordinator::start(hurried).await;
    let id = JobId(1);
    let mut spec = unchecked("replica", 100, 200, 50);
    // Weights of some 30 MB, more than any socket's buffers hold.
    let wide = serde_json::json!({
        "layers": [
            {"type": "flatten"},
            {"type": "dense", "units": 100_000},
            {"type": "dense", "units": 4}
        ],
        "loss": "cross_entropy"
    });
    spec.model = serde_json::from_value(wide).expect("a model");
    coordinator.add_job(id, &ROWS, &spec).await;
    let mut socket = Socket::connect(coordinator.address).await;
    socket.open(&key(1), coordinator.runtime.kernel()).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while coordinator.runtime.snapshot().nodes.is_empty() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nothing is read from here on.
    while !coordinator.runtime.snapshot().nodes.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "it was let go in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(goodbyes(&coordinator, GoodbyeReason::TooSlow), 1);
    drop(socket);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_none_is_a_plain_error() {
    let coordinator = start().await;
    let url = format!("http://{}/v1/contribute", coordinator.address);
    let asked = tokio::task::spawn_blocking(move || {
        ureq::get(url).config().http_status_as_error(false).build().call().expect("an answer")
    });
    let mut response = asked.await.expect("asked");
    assert!(response.status().is_client_error(), "{}", response.status());
    let body = response.body_mut().read_to_string().expect("a body");
    assert!(body.contains("\"field\":\"upgrade\""), "{body}");
}
