//! The program itself: its command line, its end, and its next start.

mod server;

use serde_json::{Value, json};
use server::files::{TRAIN, images, labels};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The kernel module that `scripts/build` makes.
fn kernel_file() -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/kernel/raven_kernel.wasm");
    assert!(file.is_file(), "{} is missing: run scripts/build first", file.display());
    file
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_coordinator"))
}

fn run(data: &Path, arguments: &[&str]) -> Output {
    program().args(arguments).arg("--data").arg(data).output().expect("runs")
}

struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(data: &Path) -> Self {
        let mut child = program()
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .arg("--kernel")
            .arg(kernel_file())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").map(str::to_owned);
        let url = url.unwrap_or_else(|| panic!("{line:?} names no address"));
        Process { child, url }
    }

    /// Asks the process to end; answers its log.
    fn terminate(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let asked = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a status") {
                Some(status) => break status,
                None if asked.elapsed() > Duration::from_secs(20) => {
                    self.child.kill().expect("killed");
                    panic!("the process did not end");
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        assert!(status.success(), "{status}");
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut log).expect("text");
        log
    }

    fn call(&self, key: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let agent = ureq::Agent::new_with_config(config);
        let bearer = format!("Bearer {key}");
        let answer = match body {
            None => agent.get(url).header("authorization", bearer).call(),
            Some(body) => {
                let request = agent.post(url).header("authorization", bearer);
                request.send(body.to_string())
            }
        };
        let mut answer = answer.expect("answers");
        let text = answer.body_mut().read_to_string().expect("text");
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

#[test]
fn a_job_outlives_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let created = run(&data, &["keys", "create"]);
    assert!(created.status.success());
    let key = String::from_utf8(created.stdout).expect("text").trim().to_owned();
    assert!(key.starts_with("rk_test_"), "{key}");

    let first = Process::start(&data);
    let boundary = "b0undary";
    let mut body = Vec::new();
    let spec = json!({"name": "d", "format": "idx", "target": "classes", "classes": 4}).to_string();
    let y = server::files::idx(8, &[TRAIN as u32], &labels(0, TRAIN));
    let parts = [("spec", spec.into_bytes()), ("train_x", images(0, TRAIN)), ("train_y", y)];
    for (name, bytes) in parts {
        let head =
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let mut uploaded = ureq::post(format!("{}/v1/datasets", first.url))
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", format!("multipart/form-data; boundary={boundary}"))
        .send(&body[..])
        .expect("uploaded");
    let text = uploaded.body_mut().read_to_string().expect("text");
    let dataset: Value = serde_json::from_str(&text).expect("JSON");
    let document = server::job(dataset["id"].as_str().expect("an id"));
    let (status, job) = first.call(&key, "/v1/jobs", Some(&document));
    assert_eq!(status, 202, "{job}");
    let path = format!("/v1/jobs/{}", job["id"].as_str().expect("an id"));
    // Its first weights are a checkpoint; then it waits for someone to come.
    let waiting = |process: &Process| {
        let began = Instant::now();
        loop {
            let (_, job) = process.call(&key, &path, None);
            if job["state"] == "waiting_for_contributors" {
                return job;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{job}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    waiting(&first);

    // The folder belongs to one process at a time.
    let kernel = kernel_file();
    let second = run(
        &data,
        &["serve", "--listen", "127.0.0.1:0", "--kernel", kernel.to_str().expect("text")],
    );
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another coordinator"));
    let log = first.terminate();
    assert!(log.contains("stopping"), "{log}");

    let next = Process::start(&data);
    let again = waiting(&next);
    assert_eq!((&again["id"], &again["seed"]), (&job["id"], &job["seed"]));
    let (status, _) = next.call(&key, &format!("{path}/cancel"), Some(&Value::Null));
    assert_eq!(status, 202);
    let began = Instant::now();
    while next.call(&key, &path, None).1["state"] != "cancelled" {
        assert!(began.elapsed() < Duration::from_secs(10), "not cancelled");
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = next.terminate();
    assert!(log.contains("going on with a job"), "{log}");

    // An ended job stays ended, and a revoked key opens nothing.
    assert!(run(&data, &["keys", "revoke", &key]).status.success());
    let last = Process::start(&data);
    assert_eq!(last.call(&key, &path, None).0, 401);
    let log = last.terminate();
    assert!(!log.contains("going on with a job"), "{log}");
}

#[test]
fn an_upload_goes_on_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let created = run(&data, &["keys", "create"]);
    let key = String::from_utf8(created.stdout).expect("text").trim().to_owned();
    let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 253) as u8).collect();
    let patch = |process: &Process, path: &str, offset: usize, piece: &[u8]| -> Value {
        let mut answer = ureq::patch(format!("{}{path}", process.url))
            .header("authorization", format!("Bearer {key}"))
            .header("upload-offset", offset.to_string())
            .send(piece)
            .expect("taken");
        let text = answer.body_mut().read_to_string().expect("text");
        serde_json::from_str(&text).expect("JSON")
    };
    let mut first = Process::start(&data);
    let (status, upload) = first.call(&key, "/v1/uploads", Some(&json!({"bytes": bytes.len()})));
    assert_eq!(status, 201, "{upload}");
    let path = format!("/v1/uploads/{}", upload["id"].as_str().expect("an id"));
    assert_eq!(patch(&first, &path, 0, &bytes[..70_000])["offset"], 70_000);
    first.child.kill().expect("killed");
    first.child.wait().expect("gone");
    let next = Process::start(&data);
    let (_, shown) = next.call(&key, &path, None);
    assert_eq!((&shown["offset"], &shown["complete"]), (&json!(70_000), &json!(false)));
    assert_eq!(patch(&next, &path, 70_000, &bytes[70_000..])["complete"], true);
    let stored = std::fs::read_dir(data.join("incoming")).expect("a folder").flatten().next();
    assert_eq!(std::fs::read(stored.expect("the file").path()).expect("read"), bytes);
    next.terminate();
}

#[test]
fn mistakes_on_the_command_line_are_told() {
    let wrong = program().args(["serve", "--port", "1"]).output().expect("runs");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("unknown argument: --port"));
    let help = program().arg("--help").output().expect("runs");
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("coordinator serve --data DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    for (arguments, told) in [
        (["serve", "--listen", "0.0.0.0:0"].as_slice(), "--origin: is needed"),
        (&["serve", "--listen", "127.0.0.1:0", "--origin", "https://x.example/"], "--origin: "),
    ] {
        let refused = run(data, arguments);
        assert!(!refused.status.success());
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(stderr.contains(told), "{stderr}");
    }
    let missing = run(data, &["serve", "--listen", "127.0.0.1:0", "--kernel", "/nonexistent.wasm"]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nonexistent.wasm"));
}
