//! `coordinator contribute` against something that is no coordinator, or one that falls
//! silent: it ends in time, and with a reason.

use crate::contribute::text_version;
use crate::native::{ENDING, Native, PATIENCE, computed};
use raven_graph::{DType, Limits, Shape, TensorType, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    BlobId, Encoding, Frame, FrameLimits, FromContributor, GoodbyeReason, GraphText, JobId,
    LeaseId, Numerics, OutputSpec, Program, ReduceRule, RefuseReason, Seed, SessionId, ShardRef,
    TaskId, TaskMessage, TaskSpec, TensorPart, ToContributor,
};
use serde_json::json;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::{self, WebSocket};

/// What a coordinator that is none sends, connection by connection, once it was greeted.
fn fake_coordinator(answers: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().expect("a connection");
            let mut socket = tungstenite::accept(stream).expect("an upgrade");
            let hello = socket.read().expect("a hello").into_data();
            let hello = Frame::decode(&hello, &FrameLimits::TO_COORDINATOR).expect("a frame");
            let hello = FromContributor::from_header(hello.header()).expect("a message");
            assert!(matches!(hello, FromContributor::Hello(_)), "{hello:?}");
            socket.send(tungstenite::Message::Binary(answer.into())).expect("sent");
            // Until it has said goodbye, or gone.
            while socket.read().is_ok() {}
        }
    });
    address
}

fn welcome_message(text: &str) -> ToContributor {
    ToContributor::Welcome {
        session: SessionId(1),
        nonce: "00".repeat(32),
        consent_text_version: text.to_owned(),
        consent_ms_max: 30_000,
        now_ms: 1_800_000_000_000,
    }
}

/// Awaits a session up to ready; answers its socket and the receipt that opened it.
fn accept_session(listener: &TcpListener) -> (WebSocket<TcpStream>, String) {
    loop {
        let (stream, _) = listener.accept().expect("a connection");
        let mut socket = tungstenite::accept(stream).expect("an upgrade");
        heard(&mut socket).expect("a hello");
        say(&mut socket, encode(&welcome_message("of the frame"), &[]));
        if let Some(FromContributor::Consent { receipt, .. }) = heard(&mut socket) {
            say(&mut socket, encode(&ToContributor::Ready { grant: "grant".into() }, &[]));
            return (socket, receipt);
        }
        // It only looked whether anybody is there.
        while socket.read().is_ok() {}
    }
}

fn say(socket: &mut WebSocket<TcpStream>, frame: Vec<u8>) {
    socket.send(tungstenite::Message::Binary(frame.into())).expect("sent");
}

/// The next message; nothing once the connection is closed.
fn heard(socket: &mut WebSocket<TcpStream>) -> Option<FromContributor> {
    loop {
        let message = socket.read().ok()?;
        let tungstenite::Message::Binary(bytes) = message else { continue };
        let frame = Frame::decode(&bytes, &FrameLimits::TO_COORDINATOR).expect("a frame");
        return Some(FromContributor::from_header(frame.header()).expect("a message"));
    }
}

/// A graph of `products` products of square matrices, and a task that runs it.
fn products(lease: u64, extent: u32, products: u64, shards: Vec<ShardRef>) -> [Vec<u8>; 2] {
    let constant = |value: f32| json!({"op": "constant", "dtype": "f32", "shape": [extent, extent], "value": value});
    let mut nodes = vec![constant(1.0), constant(1.0 / 4096.0)];
    for product in 0..products {
        let previous = if product == 0 { 0 } else { nodes.len() - 1 };
        nodes.push(json!({"op": "matmul", "transpose_lhs": false, "transpose_rhs": false, "inputs": [previous, 1]}));
    }
    let last = nodes.len() - 1;
    nodes.push(json!({"op": "reduce", "function": "sum", "axes": [0, 1], "keep_dims": false, "inputs": [last]}));
    let graph = json!({"version": 1, "nodes": nodes, "outputs": [{"name": "y", "node": last + 1}]});
    let graph = ValidGraph::from_json(graph.to_string().as_bytes(), &Limits::default());
    let graph = graph.expect("a graph");
    let id = graph.id();
    let task = TaskMessage {
        lease: LeaseId(lease.into()),
        task: TaskId { job: JobId(1), round: 0, stage: 0, part: 0 },
        lease_ms: 60_000,
        flops: products * 2 * u64::from(extent).pow(3),
        spec: TaskSpec {
            program: Program::Map { graph: id, start: 0, count: 1 },
            seed: Seed(0),
            bindings: Vec::new(),
            shards,
            outputs: vec![OutputSpec {
                name: "y".into(),
                encoding: Encoding::Raw,
                reduce: ReduceRule::Sum,
            }],
            numerics: Numerics::Strict,
        },
    };
    let graph = ToContributor::Graph { id, graph: GraphText::of(&graph) };
    [encode(&graph, &[]), encode(&ToContributor::Task(Box::new(task)), &[])]
}

/// A contributor of a listener that is no coordinator, and a folder with its key.
fn native_of(listener: &TcpListener) -> (Native, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let address = listener.local_addr().expect("an address");
    let key = folder.path().join("contributor.key");
    (Native::start(&format!("http://{address}"), &key), folder)
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port")
}

#[test]
fn what_is_signed_are_the_words_that_were_shown_whatever_the_welcome_names() {
    let listener = listener();
    let (native, _folder) = native_of(&listener);
    let (_socket, receipt) = accept_session(&listener);
    let version = text_version(&receipt);
    assert!(version.len() == 16 && version.bytes().all(|it| it.is_ascii_hexdigit()), "{version}");
    assert!(native.said(&format!("consent text {version}")) > 0, "{:?}", native.lines);
    assert_eq!(native.said("of the frame"), 0);
}

#[test]
fn asked_to_end_it_says_goodbye_and_finishes_nothing() {
    for name in ["INT", "TERM"] {
        let listener = listener();
        let (mut native, _folder) = native_of(&listener);
        let (mut socket, _) = accept_session(&listener);
        // Many seconds of work.
        for frame in products(7, 1024, 48, Vec::new()) {
            say(&mut socket, frame);
        }
        let before = computed(&native.child);
        let began = Instant::now();
        while computed(&native.child) - before < Duration::from_millis(300) {
            assert!(began.elapsed() < PATIENCE, "it never began");
            std::thread::sleep(Duration::from_millis(20));
        }
        native.signal(name);
        let mut messages = Vec::new();
        while let Some(message) = heard(&mut socket) {
            messages.push(message);
        }
        let status = native.ended(ENDING);
        assert!(status.success(), "{status}: {}", native.log());
        let [FromContributor::Goodbye { reason: GoodbyeReason::Stopped }] = messages[..] else {
            panic!("{name}: {messages:?}");
        };
        assert!(native.said("0 tasks computed") > 0, "{:?}", native.lines);
    }
}

#[test]
fn it_ends_also_where_the_coordinator_takes_nothing_any_more() {
    let listener = listener();
    let (mut native, _folder) = native_of(&listener);
    let (mut socket, _) = accept_session(&listener);
    // Each of these is answered. Once nobody reads the answers it reads no more either.
    let unread = Duration::from_secs(3);
    socket.get_ref().set_write_timeout(Some(unread)).expect("set");
    let reveal = encode(&ToContributor::Reveal { lease: LeaseId(7) }, &[]);
    let sent = (0..10_000_000u64)
        .find(|_| socket.send(tungstenite::Message::Binary(reveal.clone().into())).is_err());
    assert!(sent.is_some(), "it answers without being heard");
    native.signal("TERM");
    let status = native.ended(ENDING);
    assert!(status.success(), "{status}: {}", native.log());
}

#[test]
fn a_shard_that_does_not_come_keeps_no_order_waiting() {
    let listener = listener();
    let (native, _folder) = native_of(&listener);
    let (mut socket, _) = accept_session(&listener);
    for frame in products(1, 16, 1, Vec::new()) {
        say(&mut socket, frame);
    }
    let committed = heard(&mut socket);
    assert!(
        matches!(committed, Some(FromContributor::Commit { lease: LeaseId(1), .. })),
        "{committed:?}"
    );
    let shard = ShardRef { blob: BlobId([5; 32]), first_row: 0, rows: 1, bytes: 64 };
    for frame in products(2, 16, 1, vec![shard]) {
        say(&mut socket, frame);
    }
    // It asks for the shard, and gets no answer.
    let (mut download, _) = listener.accept().expect("a request");
    let mut head = [0; 64];
    let read = download.read(&mut head).expect("a request");
    assert!(head[..read].starts_with(b"GET /v1/blobs/0505"), "{head:?}");
    let (told, meanwhile) = mpsc::channel();
    say(&mut socket, encode(&ToContributor::Reveal { lease: LeaseId(1) }, &[]));
    std::thread::spawn(move || {
        let result = heard(&mut socket);
        told.send((result, socket)).ok();
    });
    let (result, mut socket) = meanwhile.recv_timeout(ENDING).expect("an answer meanwhile");
    assert!(
        matches!(result, Some(FromContributor::Result { lease: LeaseId(1), .. })),
        "{result:?}"
    );
    // The worker is free for another task once this one is cancelled.
    say(&mut socket, encode(&ToContributor::Cancel { lease: LeaseId(2) }, &[]));
    say(&mut socket, products(3, 16, 1, Vec::new())[1].clone());
    let committed = heard(&mut socket);
    assert!(
        matches!(committed, Some(FromContributor::Commit { lease: LeaseId(3), .. })),
        "{committed:?}"
    );
    // One whose shards are still to come is handed back upon a pause.
    say(&mut socket, products(4, 16, 1, vec![shard])[1].clone());
    std::thread::sleep(Duration::from_millis(300));
    native.signal("USR1");
    let paused = heard(&mut socket);
    assert!(matches!(paused, Some(FromContributor::Pause { .. })), "{paused:?}");
    let back = heard(&mut socket);
    assert!(
        matches!(
            back,
            Some(FromContributor::Refuse { lease: LeaseId(4), reason: RefuseReason::Stopping, .. })
        ),
        "{back:?}"
    );
}

#[test]
fn bytes_that_are_no_protocol_end_it_with_a_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("contributor.key");
    let task = encode(&ToContributor::Reveal { lease: LeaseId(7) }, &[]);
    let banner = TensorPart {
        name: "banner".into(),
        ty: TensorType::new(DType::U8, Shape::scalar()),
        data: &[7],
    };
    let laden = encode(&welcome_message("words"), &[banner]);
    let farewell = ToContributor::Goodbye {
        reason: GoodbyeReason::Excluded,
        detail: "\u{1b}[2J\u{1b}]0;owned\u{7}".into(),
        retry_after_ms: None,
    };
    let cases = [
        (laden, "BadFrame"),
        (encode(&farewell, &[]), "Excluded"),
        (vec![0; 4096], "BadFrame"),
        (b"RAVN".to_vec(), "BadFrame"),
        // A good frame whose header says nothing that is known, and one out of its turn.
        (encode(&json!({"type": "spell"}), &[]), "BadFrame"),
        (task, "OutOfTurn"),
    ];
    let ended = cases.map(|(bytes, reason)| {
        let address = fake_coordinator(vec![bytes; 3]);
        let native = Native::start(&format!("http://{address}"), &key);
        (native, reason)
    });
    for (mut native, reason) in ended {
        // It tries thrice, since a peer may be mistaken once.
        let status = native.ended(PATIENCE);
        let log = native.log();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("sends us away") && log.contains(reason), "{reason}: {log}");
        assert!(!log.contains("\u{1b}[2J"), "a terminal is given no orders");
        assert!(native.said("not connected") >= 2 || reason == "Excluded");
    }
}
