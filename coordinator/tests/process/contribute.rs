//! `coordinator contribute` as whoever lends a machine runs it, against a real coordinator.

use crate::support::contributor::{Contributor, GPU_KERNEL, Habits, Poison};
use crate::support::data::{Rows, job};
use crate::support::process::{Installation, Process, digits_job, free_address, program};
use crate::support::{Coordinator, cache_dir, kernel_file, tls};
use raven_coordinator::store::{Book, Store};
use raven_engine::ledger::Account;
use raven_engine::{ContributorId, JobPhase, Verification, rates};
use raven_graph::{DType, Limits, Shape, TensorType, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    BlobId, DeviceClass, Encoding, Frame, FrameLimits, FromContributor, GoodbyeReason, GraphText,
    JobId, LeaseId, Numerics, OutputSpec, Program, ReduceRule, RefuseReason, Seed, SessionId,
    ShardRef, TaskId, TaskMessage, TaskSpec, TensorPart, ToContributor,
};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::{self, WebSocket};

const PATIENCE: Duration = Duration::from_secs(120);
/// Whoever is asked to end does so in this time.
const ENDING: Duration = Duration::from_secs(5);

/// A running contributor, and what it says.
struct Native {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// Until all that it says has been heard.
    reader: Option<JoinHandle<()>>,
}

impl Native {
    fn command(url: &str, key: &Path, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(["contribute", "--to", url, "--workers", "1", "--share", "1"]);
        command.args(arguments).arg("--key").arg(key).arg("--cache").arg(cache_dir());
        if !arguments.contains(&"--kernel") {
            command.arg("--kernel").arg(kernel_file());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts one that has said yes.
    fn start(url: &str, key: &Path) -> Self {
        Self::launch(Self::command(url, key, &["--yes"]))
    }

    fn launch(mut command: Command) -> Self {
        let mut child = command.spawn().expect("starts");
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (heard, stdout) = (lines.clone(), child.stdout.take().expect("piped"));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                heard.lock().expect("nobody panics").push(line);
            }
        });
        Native { child, lines, reader: Some(reader) }
    }

    fn said(&self, words: &str) -> usize {
        let lines = self.lines.lock().expect("nobody panics");
        lines.iter().filter(|line| line.contains(words)).count()
    }

    /// Waits until it has said so for the `count`th time.
    fn says(&self, words: &str, count: usize) {
        let began = Instant::now();
        while self.said(words) < count {
            let lines = self.lines.lock().expect("nobody panics").clone();
            assert!(began.elapsed() < PATIENCE, "{words:?} was not said in {lines:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(killed.expect("kill").success());
    }

    fn ended(&mut self, within: Duration) -> ExitStatus {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                if let Some(reader) = self.reader.take() {
                    reader.join().expect("it heard all");
                }
                return status;
            }
            assert!(asked.elapsed() < within, "it did not end within {within:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it wrote to its log, once it has ended.
    fn log(&mut self) -> String {
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut log).expect("text");
        log
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // One that has ended already is not killed again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn key_file(installation: &Installation, number: u8) -> PathBuf {
    installation.path().join(format!("contributor-{number}.key"))
}

/// The public half of the key in a file, as the books name it.
fn contributor(key: &Path) -> ContributorId {
    let text = std::fs::read_to_string(key).expect("a key");
    let secret = raven_coordinator::runtime::session::parse_hex(text.trim()).expect("hex");
    ContributorId(ed25519_dalek::SigningKey::from_bytes(&secret).verifying_key().to_bytes())
}

fn contributors(process: &Process) -> u64 {
    let (_, stats) = process.call("", "/v1/stats", None);
    stats["contributors"].as_u64().expect("counted")
}

fn counts(process: &Process, wanted: u64) {
    let began = Instant::now();
    while contributors(process) != wanted {
        assert!(began.elapsed() < ENDING, "{} of {wanted} counted", contributors(process));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until a job has done so many rounds.
fn at_step(process: &Process, key: &str, path: &str, step: u64) {
    let began = Instant::now();
    loop {
        let (_, job) = process.call(key, path, None);
        if job["round"].as_u64().is_some_and(|now| now >= step) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "not at step {step}: {job}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn model(job: &Value) -> String {
    assert_eq!(job["state"], "completed", "{job}");
    job["model_sha256"].as_str().expect("a model").to_owned()
}

/// The model that whoever contributes must come to.
fn expected(epochs: u32) -> String {
    let installation = Installation::new();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(&installation.key);
    let _contributor = Contributor::start(process.address(), 1, Habits::default());
    let path = process.post_job(&installation.key, &digits_job(&dataset, epochs));
    model(&process.finished(&installation.key, &path, PATIENCE))
}

#[test]
fn native_contributors_come_to_the_same_model_and_one_may_be_killed() {
    let installation = Installation::new();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(&installation.key);
    let mut natives: Vec<Native> =
        (1..=2).map(|n| Native::start(&process.url, &key_file(&installation, n))).collect();
    natives.iter().for_each(|native| native.says("at work", 1));
    let path = process.post_job(&installation.key, &digits_job(&dataset, 6));
    at_step(&process, &installation.key, &path, 10);
    natives[0].child.kill().expect("killed");
    let job = process.finished(&installation.key, &path, PATIENCE);
    assert_eq!(model(&job), expected(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_earns_what_its_credits_say_at_the_rate_of_servers() {
    let installation = Installation::new();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(&installation.key);
    let keys = [key_file(&installation, 1), key_file(&installation, 2)];
    let natives = keys.each_ref().map(|key| Native::start(&process.url, key));
    natives.iter().for_each(|native| native.says("at work", 1));
    // Much to compute for each task, so that both earn many nano-USD.
    let mut job = digits_job(&dataset, 4);
    job["model"]["layers"][1]["units"] = 1024.into();
    let path = process.post_job(&installation.key, &job);
    model(&process.finished(&installation.key, &path, PATIENCE));
    process.terminate();
    let file = installation.data().join("raven.sqlite");
    let store = Store::open(&file).await.expect("a store");
    let mut whole = 0;
    for key in &keys {
        let id = contributor(key);
        let (flops, rate) = credited(&file, id).await;
        assert!(rate as u64 >= rates::rate(DeviceClass::Server).0, "it is a server: {rate}");
        // Flops are counted, a calculation is 50 Mflop and 1,000 pico-USD are a nano-USD.
        let pico = i128::from(flops) * i128::from(rate) / 50_000_000;
        let account = Account::Contributor(id);
        let balance = store.balance(Book::Test, account).await.expect("readable");
        let exact = pico / 1_000;
        let paid = i128::from(balance.posted);
        assert!((paid - exact).abs() <= 1, "{paid} nano-USD were paid, {exact} earned");
        assert!(paid > 0);
        whole += paid;
    }
    let reserve = store.balance(Book::Test, Account::Reserve).await.expect("readable").posted;
    assert!((i128::from(reserve) - whole * 3 / 100).abs() <= 1, "{reserve}: it came by no site");
    store.audit(Book::Test).await.expect("the auditor agrees");
}

/// Flops that a contributor is credited with, and what a calculation of them is worth.
async fn credited(store: &Path, contributor: ContributorId) -> (i64, i64) {
    use sqlx::ConnectOptions;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(store);
    let mut connection = options.connect().await.expect("connects");
    let query = "SELECT SUM(flops), MIN(rate) FROM credits WHERE contributor = ?1";
    let read = sqlx::query_as(query).bind(contributor.0.to_vec());
    read.fetch_one(&mut connection).await.expect("credited")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_projections_where_gpus_take_part() {
    let coordinator = Coordinator::start(|config| config.gpu_kernel = Some(GPU_KERNEL)).await;
    let gpu = |factor| {
        let poison = Some(Poison { below: u32::MAX, factor, after: 0 });
        Habits { gpu: true, poison, ..Habits::default() }
    };
    let _gpus = [(1, gpu(1.0)), (2, gpu(1.000_001))]
        .map(|(number, habits)| Contributor::start(coordinator.address, number, habits));
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("contributor.key");
    let native = Native::start(&format!("http://{}", coordinator.address), &key);
    native.says("at work", 1);
    while coordinator.runtime.snapshot().nodes.len() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Each task is done by all three, whose results are compared by their projections.
    let mut spec = job("replica", 3, 96, 16);
    (spec.numerics, spec.verification) = (Numerics::Relaxed, Verification::Triple);
    coordinator.add_job(JobId(1), &Rows { train: 600, test: 150 }, &spec).await;
    let row = coordinator.finished(JobId(1), PATIENCE).await;
    assert_eq!((row.phase, row.reason), (JobPhase::Completed, None));
    let credited = coordinator.store.job_contributors(JobId(1)).await.expect("read");
    let ours = credited.iter().find(|(by, _)| *by == contributor(&key));
    assert!(ours.is_some_and(|(_, tasks)| *tasks > 10), "{credited:?}");
    coordinator.runtime.shutdown().await;
}

#[test]
fn it_comes_back_after_a_restart_of_the_coordinator() {
    let installation = Installation::new();
    let listen = free_address().to_string();
    let serve = || Process::start_with(&installation.data(), &["--listen", &listen]);
    let process = serve();
    let dataset = process.upload_digits(&installation.key);
    let native = Native::start(&process.url, &key_file(&installation, 1));
    native.says("at work", 1);
    let path = process.post_job(&installation.key, &digits_job(&dataset, 12));
    at_step(&process, &installation.key, &path, 5);
    process.kill();
    native.says("not connected", 1);
    let process = serve();
    native.says("at work", 2);
    // One that ends in order says when to come back.
    at_step(&process, &installation.key, &path, 10);
    process.terminate();
    native.says("not connected", 2);
    let process = serve();
    native.says("at work", 3);
    let job = process.finished(&installation.key, &path, PATIENCE);
    assert_eq!(model(&job), expected(12));
    assert_eq!(native.said("Agree?"), 0, "a yes holds for the whole run");
}

#[test]
fn without_a_yes_nothing_runs() {
    let installation = Installation::new();
    let process = Process::start(&installation.data());
    for answer in ["no\n", "maybe\n", ""] {
        let key = key_file(&installation, 1);
        let mut native = Native::launch(Native::command(&process.url, &key, &[]));
        native.child.stdin.take().expect("piped").write_all(answer.as_bytes()).expect("written");
        let status = native.ended(PATIENCE);
        assert!(!status.success(), "{answer:?}");
        assert!(native.log().contains("nothing was agreed to"), "{answer:?}");
        assert!(native.said("asks to compute on this machine") > 0, "it is said what would run");
        assert_eq!(native.said("at work"), 0);
    }
    assert_eq!(contributors(&process), 0);
    process.terminate();
    let store = installation.data().join("raven.sqlite");
    let by = contributor(&key_file(&installation, 1));
    assert_eq!(sessions(&store, by), 0, "no session was opened");
}

/// Sessions of a contributor that consented, as they are stored.
fn sessions(store: &Path, contributor: ContributorId) -> i64 {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        use sqlx::ConnectOptions;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(store);
        let mut connection = options.connect().await.expect("connects");
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM sessions WHERE contributor = ?1");
        count.bind(contributor.0.to_vec()).fetch_one(&mut connection).await.expect("counted")
    })
}

/// The receipt of a contributor that has one.
fn receipts(store: &Path, contributor: ContributorId) -> String {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        use sqlx::ConnectOptions;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(store);
        let mut connection = options.connect().await.expect("connects");
        let read = sqlx::query_scalar("SELECT receipt FROM sessions WHERE contributor = ?1");
        read.bind(contributor.0.to_vec()).fetch_one(&mut connection).await.expect("signed")
    })
}

fn text_version(receipt: &str) -> String {
    let receipt: Value = serde_json::from_str(receipt).expect("JSON");
    receipt["text_version"].as_str().expect("text").to_owned()
}

#[test]
fn a_yes_that_is_typed_counts() {
    let installation = Installation::new();
    let process = Process::start(&installation.data());
    let key = key_file(&installation, 1);
    let mut native = Native::launch(Native::command(&process.url, &key, &[]));
    native.child.stdin.take().expect("piped").write_all(b"yes\n").expect("written");
    native.says("at work", 1);
    counts(&process, 1);
    let store = installation.data().join("raven.sqlite");
    assert_eq!(sessions(&store, contributor(&key)), 1);
    // What was signed are the words that were read, which are not those of the frame.
    let receipt = receipts(&store, contributor(&key));
    let lines = native.lines.lock().expect("nobody panics").join(" ");
    assert!(lines.contains(&format!("consent text {}", text_version(&receipt))), "{lines}");
}

#[test]
fn paused_it_gives_back_what_it_has_and_gets_nothing() {
    let installation = Installation::new();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(&installation.key);
    let native = Native::start(&process.url, &key_file(&installation, 1));
    native.says("at work", 1);
    let path = process.post_job(&installation.key, &digits_job(&dataset, 12));
    at_step(&process, &installation.key, &path, 3);
    native.signal("USR1");
    native.says("paused", 1);
    let step = || {
        let (_, job) = process.call(&installation.key, &path, None);
        job["round"].as_u64().expect("a step")
    };
    // A round whose results were on their way may still be recorded.
    std::thread::sleep(Duration::from_millis(500));
    let before = step();
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(step(), before, "nobody works");
    native.signal("USR2");
    let job = process.finished(&installation.key, &path, PATIENCE);
    assert_eq!(job["state"], "completed", "{job}");
    assert!(native.said("at work again") > 0);
}

#[test]
fn another_kernel_than_the_coordinators_is_refused_for_good() {
    let installation = Installation::new();
    let process = Process::start(&installation.data());
    // One more custom section: the same code under another name.
    let mut bytes = std::fs::read(kernel_file()).expect("the kernel");
    bytes.extend([0, 2, 1, b'x']);
    let other = installation.path().join("other.wasm");
    std::fs::write(&other, bytes).expect("written");
    let other = other.to_str().expect("text").to_owned();
    let key = key_file(&installation, 1);
    let mut native =
        Native::launch(Native::command(&process.url, &key, &["--yes", "--kernel", &other]));
    assert!(!native.ended(PATIENCE).success());
    let log = native.log();
    assert!(log.contains("hello.numeric.kernel"), "{log}");
}

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

/// Processor time of a process and its threads, as the system counts it: hundredths of a second.
fn computed(child: &Child) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("counted");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

#[test]
#[cfg(target_os = "linux")]
fn it_takes_no_more_than_its_share() {
    let installation = Installation::new();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(&installation.key);
    let mut job = digits_job(&dataset, 1000);
    // Much to compute for each task, so that it hardly waits for the next.
    let wide = json!({"type": "dense", "units": 1024, "activation": "relu"});
    let last = json!({"type": "dense", "units": 10});
    job["model"]["layers"] = json!([{"type": "flatten"}, wide, wide, wide, last]);
    job["training"]["batch"] = 1024.into();
    job["training"]["micro_batch"] = 128.into();
    let key = key_file(&installation, 1);
    let cores = std::thread::available_parallelism().expect("counted").get() as f64;
    // One worker that computes for a quarter of the time.
    let share = (0.25 / cores).to_string();
    let arguments = ["--yes", "--share", &share, "--workers", "1"];
    let mut command = program();
    command.args(["contribute", "--to", &process.url, "--key"]).arg(&key).args(arguments);
    command.arg("--cache").arg(cache_dir()).arg("--kernel").arg(kernel_file());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let native = Native::launch(command);
    native.says("at work", 1);
    assert!(native.said("each 25 % of the time") > 0, "{:?}", native.lines);
    let path = process.post_job(&installation.key, &job);
    at_step(&process, &installation.key, &path, 3);
    let before = computed(&native.child);
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(6));
    let took = computed(&native.child) - before;
    let part = took.as_secs_f64() / began.elapsed().as_secs_f64();
    println!("{:.1} % of a processor", part * 100.0);
    assert!(part <= 0.25 * 1.1, "{part} of a processor, 0.25 were offered");
    // Where other programs keep the processors busy it gets less.
    assert!(part >= 0.05, "{part} of a processor: it hardly works");
}

#[test]
fn over_tls_it_works_for_whom_its_authorities_vouch_and_for_nobody_else() {
    let installation = Installation::new();
    let process = Process::start(&installation.data());
    let dataset = process.upload_digits(&installation.key);
    let port = tls::proxy("127.0.0.1", process.address());
    let key = key_file(&installation, 1);
    let url = format!("https://localhost:{port}");
    // The authorities that browsers know have never heard of it.
    let stranger = Native::start(&url, &key);
    stranger.says("not connected", 1);
    assert!(stranger.said("UnknownIssuer") > 0 && stranger.said("asks to compute") == 0);
    drop(stranger);
    let authority = tls::authority();
    let trusting = ["--yes", "--ca", authority.to_str().expect("text")];
    // Its certificate is for another name.
    let other = tls::proxy("127.0.0.2", process.address());
    let other = format!("https://127.0.0.2:{other}");
    let other = Native::launch(Native::command(&other, &key, &trusting));
    other.says("not connected", 1);
    assert!(other.said("not valid for name") > 0, "{:?}", other.lines);
    drop(other);
    let native = Native::launch(Native::command(&url, &key, &trusting));
    native.says("at work", 1);
    let path = process.post_job(&installation.key, &digits_job(&dataset, 3));
    let job = process.finished(&installation.key, &path, PATIENCE);
    assert_eq!(model(&job), expected(3));
}
