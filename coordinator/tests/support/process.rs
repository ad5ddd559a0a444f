//! The coordinator's program as its operator runs it: started, asked over HTTP,
//! and ended in every way that there is.

use super::kernel_file;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// The program, without arguments.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    // Its contributors are the test's.
    command.env("RAVEN_PRIVATE_POOL", "yes");
    command
}

/// Runs the program to its end on a data folder.
pub fn run(data: &Path, arguments: &[&str]) -> Output {
    program().args(arguments).arg("--data").arg(data).output().expect("runs")
}

/// A new API key.
pub fn create_key(data: &Path) -> String {
    let created = run(data, &["keys", "create"]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let key = String::from_utf8(created.stdout).expect("text").trim().to_owned();
    assert!(key.starts_with("rk_test_"), "{key}");
    key
}

/// An address that was free a moment ago, for a coordinator that comes back to it.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// Puts the compiled kernel where a coordinator of this data folder looks for
/// it: compiling takes seconds that no test here is about.
pub fn warm_cache(data: &Path) {
    let cache = data.join("cache");
    std::fs::create_dir_all(&cache).expect("a folder");
    let compiled = super::cache_dir();
    let kernel =
        raven_coordinator::runtime::executor::KernelModule::load(&kernel_file(), Some(&compiled))
            .expect("the kernel");
    // The folder has those of earlier builds as well, together larger than a small disk.
    let name = format!("kernel-{}", kernel.id());
    for entry in std::fs::read_dir(compiled).expect("the cache") {
        let entry = entry.expect("an entry");
        if entry.file_name().to_string_lossy().starts_with(&name) {
            std::fs::copy(entry.path(), cache.join(entry.file_name())).expect("copied");
        }
    }
}

/// A running coordinator.
pub struct Process {
    pub child: Child,
    pub url: String,
}

impl Process {
    /// Starts one on a free port and waits until it listens.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &["--listen", "127.0.0.1:0"])
    }

    /// Starts one with these arguments beside data and kernel, and waits until it listens.
    pub fn start_with(data: &Path, arguments: &[&str]) -> Self {
        Self::launch(Self::command(data, arguments))
    }

    /// Starts this command and waits until it listens.
    pub fn launch(mut command: Command) -> Self {
        let mut child = command.spawn().expect("starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").map(str::to_owned);
        let Some(url) = url else {
            let mut log = String::new();
            let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut log));
            panic!("{line:?} names no address; {log}");
        };
        Process { child, url }
    }

    /// Starts one and does not wait for it.
    pub fn spawn(data: &Path, arguments: &[&str]) -> Child {
        Self::command(data, arguments).spawn().expect("starts")
    }

    /// The command that serves from a data folder.
    pub fn command(data: &Path, arguments: &[&str]) -> Command {
        let mut command = program();
        command.arg("serve").args(arguments).arg("--data").arg(data);
        command.arg("--kernel").arg(kernel_file());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn address(&self) -> SocketAddr {
        self.url.strip_prefix("http://").expect("http").parse().expect("an address")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let killed = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(killed.expect("kill").success());
    }

    /// `kill -9`, as a power cut would end it.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Waits for the end; kills and fails where it does not come in time.
    pub fn ended(&mut self, within: Duration) -> ExitStatus {
        let asked = Instant::now();
        loop {
            match self.child.try_wait().expect("a status") {
                Some(status) => return status,
                None if asked.elapsed() > within => {
                    self.child.kill().expect("killed");
                    panic!("the process did not end within {within:?}");
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// What it logged, once it has ended.
    pub fn log(&mut self) -> String {
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut log).expect("text");
        log
    }

    /// Asks the process to end; answers its log.
    pub fn terminate(mut self) -> String {
        self.signal("TERM");
        let status = self.ended(Duration::from_secs(30));
        let log = self.log();
        assert!(status.success(), "{status}: {log}");
        log
    }

    /// Asks the process to end, where somebody else reads its log.
    pub fn terminate_quietly(mut self) {
        self.signal("TERM");
        let status = self.ended(Duration::from_secs(30));
        assert!(status.success(), "{status}");
    }

    /// Status, headers and body of a request; `None` where nobody answers.
    pub fn try_call(&self, key: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        call(&self.url, key, path, body)
    }

    pub fn call(&self, key: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let answer = self.try_call(key, path, body).expect("answers");
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    /// Uploads the digits that the repository ships; answers the data set's id.
    pub fn upload_digits(&self, key: &str) -> String {
        let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/digits/digits.csv.gz");
        let spec = json!({
            "name": "digits", "format": "csv", "target": "classes", "classes": 10,
            "scale": 0.0625, "sample_shape": [8, 8], "test_fraction": 0.2,
        });
        let table = std::fs::read(table).expect("the digits");
        self.upload(key, &spec, &[("table", table)])
    }

    /// Uploads a data set; answers its id.
    pub fn upload(&self, key: &str, spec: &Value, files: &[(&str, Vec<u8>)]) -> String {
        let boundary = "b0undary";
        let mut body = Vec::new();
        let spec = ("spec", spec.to_string().into_bytes());
        for (name, bytes) in std::iter::once(&spec).chain(files) {
            let head =
                format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(bytes);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        let mut uploaded = ureq::post(format!("{}/v1/datasets", self.url))
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", format!("multipart/form-data; boundary={boundary}"))
            .send(&body[..])
            .expect("uploaded");
        let text = uploaded.body_mut().read_to_string().expect("text");
        let dataset: Value = serde_json::from_str(&text).expect("JSON");
        dataset["id"].as_str().expect("an id").to_owned()
    }

    /// Posts a job; answers its path.
    pub fn post_job(&self, key: &str, document: &Value) -> String {
        let (status, job) = self.call(key, "/v1/jobs", Some(document));
        assert_eq!(status, 202, "{job}");
        format!("/v1/jobs/{}", job["id"].as_str().expect("an id"))
    }

    /// Polls a job until it has ended.
    pub fn finished(&self, key: &str, path: &str, within: Duration) -> Value {
        let began = Instant::now();
        loop {
            let (_, job) = self.call(key, path, None);
            if ["completed", "failed", "cancelled"].iter().any(|end| job["state"] == *end) {
                return job;
            }
            assert!(began.elapsed() < within, "not done: {job}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A test that fails must not leave a coordinator behind.
impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is not killed again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

/// A request over a connection of its own; `None` where nobody answers.
pub fn call(url: &str, key: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
    let url = format!("{url}{path}");
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let bearer = format!("Bearer {key}");
    let answer = match body {
        None => agent.get(url).header("authorization", bearer).call(),
        Some(body) => {
            let request = agent.post(url).header("authorization", bearer);
            request.header("content-type", "application/json").send(body.to_string())
        }
    };
    let mut answer = answer.ok()?;
    let body = answer.body_mut().read_to_string().ok()?;
    Some(Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), body })
}

/// A job that trains a small model on the digits. Every task is done once.
pub fn digits_job(dataset: &str, epochs: u32) -> Value {
    json!({
        "name": "digits", "dataset": dataset, "seed": 7, "verification": "none",
        "model": {"layers": [{"type": "flatten"}, {"type": "dense", "units": 32, "activation": "relu"},
                             {"type": "dense", "units": 10}], "loss": "cross_entropy"},
        "optimizer": {"kind": "adam"},
        "training": {"epochs": epochs, "batch": 64, "micro_batch": 16,
                     "schedule": {"kind": "constant", "learning_rate": 0.002}},
    })
}

/// A coordinator's data folder, with a key and a warm cache.
pub struct Installation {
    pub key: String,
    folder: tempfile::TempDir,
}

impl Installation {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let key = create_key(&data);
        warm_cache(&data);
        Installation { key, folder }
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The files of all blobs, in the order of their names.
pub fn blob_files(data: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(data.join("blobs")).expect("blobs") {
        let folder = folder.expect("an entry").path();
        for file in std::fs::read_dir(folder).expect("a folder") {
            files.push(file.expect("an entry").path());
        }
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "blob"));
    files.sort();
    files
}

/// Rot: one bit of the last byte.
pub fn flip_a_byte(file: &Path) {
    let mut bytes = std::fs::read(file).expect("the file");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(file, bytes).expect("written");
}
