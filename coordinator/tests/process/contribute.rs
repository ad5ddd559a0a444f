//! `coordinator contribute` as whoever lends a machine runs it, against a real coordinator.

use crate::native::{ENDING, Native, PATIENCE, computed, contributor, key_file};
use crate::support::contributor::{Contributor, GPU_KERNEL, Habits, Poison};
use crate::support::data::{Rows, job};
use crate::support::process::{Installation, Process, digits_job, free_address, program};
use crate::support::{Coordinator, cache_dir, kernel_file, tls};
use raven_coordinator::store::{Book, Store};
use raven_engine::ledger::Account;
use raven_engine::{ContributorId, JobPhase, Verification, rates};
use raven_protocol::{DeviceClass, JobId, Numerics};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

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

pub fn text_version(receipt: &str) -> String {
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
