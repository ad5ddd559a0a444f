//! The HTTP API on a free port with a real store in a folder of its own, and a
//! network that stands in for the runtime: it takes jobs and computes nothing.

#![allow(dead_code, reason = "each test file uses its own part of this")]

pub mod files;

use futures_util::future::BoxFuture;
use raven_coordinator::blobs::Blobs;
use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::embed::Embed;
use raven_coordinator::files::StaticFile;
use raven_coordinator::http::{
    AccountSettings, App, Challenges, Incoming, Settings, Streams, Turns, router,
};
use raven_coordinator::job::JobContext;
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::network::{Network, NetworkError};
use raven_coordinator::runtime::{JobLive, NetworkSnapshot, NodeSnapshot};
use raven_coordinator::settlement::Manual;
use raven_coordinator::store::{DatasetId, KeyId, Store};
use raven_coordinator::ticket::Tickets;
use raven_coordinator::www::Www;
use raven_engine::money::NanoUsd;
use raven_engine::{Cause, JobPhase, JobState, Rates, Record, ResumePoint};
use raven_protocol::{BlobId, Frame, FrameLimits, JobId, KernelId, SessionId};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, broadcast, watch};

/// What is paid out at least: a thousandth of a cent.
pub const WITHDRAWAL_LEAST: NanoUsd = NanoUsd(10_000);
pub const ORIGIN: &str = "http://coordinator.test";
pub const GRANT: &str = "a-session's-grant";
pub const FRAME: &str = "<meta name=\"raven-ticket\" content=\"{{ticket}}\"><b>{{site_name}}</b>\
    <link href=\"/embed/v/{{version}}/frame.css\"><i>{{site}} {{consent_text_version}}</i>\
    <meta name=\"raven-view\" content=\"{{view}}\"><meta name=\"raven-gpu\" content=\"{{gpu}}\">\
    <meta name=\"raven-visit-mb\" content=\"{{visit_mb}}\">";

/// Takes jobs and computes nothing.
#[derive(Debug)]
pub struct Quiet {
    store: Store,
    pub notices: broadcast::Sender<JobId>,
    pub jobs: Mutex<Vec<Arc<JobContext>>>,
    pub granted: Mutex<Vec<BlobId>>,
    /// Jobs that were told what they hold.
    pub topped_up: Mutex<Vec<(JobId, NanoUsd)>>,
    /// What the network says of running jobs.
    pub live: Mutex<HashMap<JobId, JobLive>>,
    /// Who is online.
    pub nodes: Mutex<Vec<NodeSnapshot>>,
    /// Whether it says that it has failed.
    pub failed: AtomicBool,
    /// The session that holds [`GRANT`].
    pub session: Mutex<Option<SessionId>>,
}

impl Network for Quiet {
    fn kernel(&self) -> KernelId {
        KernelId([7; 32])
    }

    fn add_job(
        &self,
        context: Arc<JobContext>,
        _: Option<ResumePoint>,
    ) -> BoxFuture<'_, Result<(), NetworkError>> {
        self.jobs.lock().expect("no panic").push(context);
        Box::pin(async { Ok(()) })
    }

    fn cancel_job(&self, job: JobId) -> BoxFuture<'_, Result<(), NetworkError>> {
        Box::pin(async move {
            let phase = JobPhase::Cancelled;
            let record = Record {
                phase,
                state: JobState::Cancelled { cause: Cause::Owner },
                ..record(job, 0)
            };
            self.store.persist(&record).await.expect("persisted");
            let _ = self.notices.send(job);
            Ok(())
        })
    }

    fn top_up(&self, job: JobId, escrow: NanoUsd) -> BoxFuture<'_, Result<(), NetworkError>> {
        self.topped_up.lock().expect("no panic").push((job, escrow));
        Box::pin(async { Ok(()) })
    }

    fn snapshot(&self) -> Arc<NetworkSnapshot> {
        let jobs = self.live.lock().expect("no panic").clone();
        let nodes = self.nodes.lock().expect("no panic").clone();
        let contributors = nodes.len();
        Arc::new(NetworkSnapshot { jobs, nodes, contributors, ..NetworkSnapshot::default() })
    }

    fn notices(&self) -> broadcast::Receiver<JobId> {
        self.notices.subscribe()
    }

    fn grant_allows(&self, token: &str, blob: BlobId) -> bool {
        token == GRANT && self.granted.lock().expect("no panic").contains(&blob)
    }

    fn session_of(&self, token: &str) -> Option<SessionId> {
        self.session.lock().expect("no panic").filter(|_| token == GRANT)
    }

    fn failure(&self) -> Option<NetworkError> {
        let failed = self.failed.load(Ordering::Relaxed);
        failed.then(|| NetworkError { reason: "on purpose".into() })
    }

    fn metrics(&self) -> String {
        "quiet 1\n".into()
    }
}

/// A running record of that step, with nothing in it.
pub fn record(job: JobId, step: u32) -> Record {
    Record {
        job,
        phase: JobPhase::Running,
        state: JobState::Running { epoch: 0, step: step + 1, steps: 100 },
        step,
        epoch: 0,
        weights: None,
        checkpoint: false,
        best: false,
        train: None,
        evaluation: None,
        learning_rate: None,
        contributors: 0,
        credits: Vec::new(),
        voids: Vec::new(),
        rolled_back: false,
        set_back: None,
        rounds_paid: 0,
        accepted: Vec::new(),
        earlier: None,
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub app: App,
    pub network: Arc<Quiet>,
    pub key: String,
    pub owner: KeyId,
    pub folder: tempfile::TempDir,
    pub stop: watch::Sender<bool>,
    pub runtime: tokio::runtime::Runtime,
    agent: ureq::Agent,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The problem, after a look at its form; `field` as it is or `null`.
    pub fn problem(&self, status: u16) -> Value {
        let problem = self.json();
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json", "{problem}");
        assert_eq!(problem["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        assert!(
            problem["type"].as_str().is_some_and(|kind| kind.starts_with("urn:raven:problem:"))
        );
        problem
    }
}

/// The id in a data set's facts.
pub fn id(facts: &Value) -> &str {
    facts["id"].as_str().expect("an id")
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(UploadLimits::default())
    }

    pub fn start_with(upload_limits: UploadLimits) -> Self {
        Self::start_at(ORIGIN, upload_limits)
    }

    /// One that browsers reach under that origin.
    pub fn start_at(origin: &str, upload_limits: UploadLimits) -> Self {
        Self::open(origin, tempfile::tempdir().expect("a folder"), None, upload_limits, |_| {})
    }

    pub fn start_with_settings(
        upload_limits: UploadLimits,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        Self::open(ORIGIN, tempfile::tempdir().expect("a folder"), None, upload_limits, change)
    }

    /// All rows of one part of a data set, as its shards hold them: features,
    /// targets, and how many there are.
    pub fn rows(&self, id: &str, test: bool) -> (Vec<u8>, Vec<u8>, u32) {
        let id: DatasetId = id.parse().expect("an id");
        let shards = self.runtime.block_on(self.app.store.shards(id, test)).expect("shards");
        let (mut x, mut y, mut next) = (Vec::new(), Vec::new(), 0);
        for shard in &shards {
            assert_eq!(shard.first_row, next, "rows are numbered without gaps");
            next += shard.rows;
            let bytes = self.app.blobs.get(shard.blob).expect("the blob");
            assert_eq!(bytes.len() as u64, shard.bytes);
            let frame = Frame::decode(&bytes, &FrameLimits::TO_CONTRIBUTOR).expect("a frame");
            assert!(frame.header().contains("\"type\":\"blob\""), "{}", frame.header());
            x.extend_from_slice(frame.tensor("x").expect("x").data);
            y.extend_from_slice(frame.tensor("y").expect("y").data);
        }
        (x, y, next)
    }

    /// The next process on the same folder.
    pub fn restart(self) -> Self {
        let Server { folder, key, owner, runtime, app, .. } = self;
        runtime.block_on(app.store.close());
        runtime.shutdown_background();
        let origin = app.settings.origin.clone();
        Self::open(&origin, folder, Some((key, owner)), UploadLimits::default(), |_| {})
    }

    fn open(
        origin: &str,
        folder: tempfile::TempDir,
        known: Option<(String, KeyId)>,
        upload_limits: UploadLimits,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (stop, stopping) = watch::channel(false);
        let (app, network, owner, key, address) = runtime.block_on(async {
            let store = Store::open(&folder.path().join("raven.sqlite")).await.expect("a store");
            let (key, owner) = match known {
                Some(known) => known,
                None => {
                    let key = ApiKey::generate(KeyMode::Test);
                    let owner = store.add_key(&key).await.expect("a key");
                    (key.reveal().to_owned(), owner)
                }
            };
            let network = Arc::new(Quiet {
                store: store.clone(),
                notices: broadcast::channel(16).0,
                jobs: Mutex::default(),
                granted: Mutex::default(),
                topped_up: Mutex::default(),
                live: Mutex::default(),
                nodes: Mutex::default(),
                failed: AtomicBool::default(),
                session: Mutex::default(),
            });
            let upload_folder = folder.path().join("uploads");
            std::fs::create_dir_all(&upload_folder).expect("a folder");
            let incoming_folder = folder.path().join("incoming");
            std::fs::create_dir_all(&incoming_folder).expect("a folder");
            let mut settings = Settings {
                evidence_folder: incoming_folder.with_file_name("evidence"),
                origin: origin.into(),
                upload_folder,
                incoming_folder,
                upload_limits,
                open_jobs_max: 3,
                dataset_bytes_max: 8 << 20,
                sites_max: 2,
                admin_token: None,
                blob_bytes_max: None,
                disk_free_bytes_min: 0,
                operator: true,
                private_pool: false,
                unclaimed_after_days: 180,
                rates: Rates::FLAT,
                accounts: AccountSettings::default(),
            };
            change(&mut settings);
            let app = App {
                blobs: Blobs::open(&folder.path().join("blobs")).expect("blobs"),
                settlement: Arc::new(Manual::new(store.clone(), WITHDRAWAL_LEAST)),
                tickets: Tickets::new(store.clone()).await.expect("tickets"),
                store,
                network: network.clone(),
                settings: Arc::new(settings),
                embed: Arc::new(embed()),
                www: Arc::new(Www::default()),
                verifier: Arc::default(),
                ingestion: Arc::default(),
                uploads: Arc::new(Semaphore::new(2)),
                incoming: Incoming::default(),
                streams: Streams::new(3, 2),
                turns: Turns::default(),
                stats: Arc::default(),
                challenges: Challenges::default(),
                stopping,
            };
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let service = router(app.clone());
            tokio::spawn(async move { axum::serve(listener, service).await });
            (app, network, owner, key, address)
        });
        // Each request has a connection of its own: one whose body was refused unread is closed
        // behind its answer, and the next request could still find it open.
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_idle_connections(0)
            .timeout_global(Some(std::time::Duration::from_secs(60)));
        let agent = ureq::Agent::new_with_config(config.build());
        Server { address, app, network, key, owner, folder, stop, runtime, agent }
    }

    /// Answers with other settings from now on, on another port.
    pub fn serve_with(&mut self, settings: Settings) {
        self.app.settings = Arc::new(settings);
        let service = router(self.app.clone());
        self.address = self.runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            tokio::spawn(async move { axum::serve(listener, service).await });
            address
        });
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn answer(answer: ureq::http::Response<ureq::Body>) -> Answer {
        let (parts, mut body) = answer.into_parts();
        let body = body.with_config().limit(1 << 30).read_to_vec().expect("a body");
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.agent.get(self.url(path));
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Self::answer(request.call().expect("answers"))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[("authorization", &format!("Bearer {}", self.key))])
    }

    pub fn post_bytes(&self, path: &str, kind: &str, body: &[u8]) -> Answer {
        self.post_named(path, kind, body, None)
    }

    /// Posts under an `Idempotency-Key`.
    pub fn post_named(&self, path: &str, kind: &str, body: &[u8], name: Option<&str>) -> Answer {
        let request = self.agent.post(self.url(path)).header("content-type", kind);
        let request = request.header("authorization", format!("Bearer {}", self.key));
        let request = match name {
            Some(name) => request.header("idempotency-key", name),
            None => request,
        };
        Self::answer(request.send(body).expect("answers"))
    }

    pub fn post_once(&self, path: &str, body: &Value, name: &str) -> Answer {
        self.post_named(path, "application/json", body.to_string().as_bytes(), Some(name))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, "application/json", body.to_string().as_bytes())
    }

    /// A request of any method with any headers.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(self.url(path))
            .header("authorization", format!("Bearer {}", self.key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_vec()).expect("a request");
        Self::answer(self.agent.run(request).expect("answers"))
    }

    /// A JSON request with another key; `null` is no body.
    pub fn ask(&self, key: &str, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(self.url(path))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {key}"))
            .body(body.into_bytes())
            .expect("a request");
        Self::answer(self.agent.run(request).expect("answers"))
    }

    /// Uploads parts by name.
    pub fn upload(&self, spec: &Value, files: &[(&str, Vec<u8>)]) -> Answer {
        let mut parts = vec![("spec", spec.to_string().into_bytes())];
        parts.extend(files.iter().map(|(name, bytes)| (*name, bytes.clone())));
        self.upload_parts(&parts)
    }

    pub fn upload_parts(&self, parts: &[(&str, Vec<u8>)]) -> Answer {
        self.upload_named(parts, "raven-test-boundary-e1f0c9", None)
    }

    pub fn upload_named(
        &self,
        parts: &[(&str, Vec<u8>)],
        boundary: &str,
        name: Option<&str>,
    ) -> Answer {
        let mut body = Vec::new();
        for (part, bytes) in parts {
            let head = format!(
                "--{boundary}\r\ncontent-disposition: form-data; name=\"{part}\"; filename=\"f\"\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(bytes);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={boundary}");
        self.post_named("/v1/datasets", &kind, &body, name)
    }

    /// Uploads 100 + 20 rows of 8 x 8 bytes in 4 classes; answers the id.
    pub fn small_dataset(&self) -> String {
        let answer = self.upload(
            &json!({"name": "small", "format": "idx", "target": "classes", "classes": 4,
                    "scale": 0.5}),
            &files::small_idx(),
        );
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// The first number that a statement answers, beside the running process.
    pub fn sql(&self, text: &'static str) -> Option<i64> {
        let file = SqliteConnectOptions::new().filename(self.folder.path().join("raven.sqlite"));
        self.runtime.block_on(async move {
            let mut connection = file.connect().await.expect("a file");
            let row = sqlx::query(text).fetch_optional(&mut connection).await.expect("SQL");
            row.map(|row| row.get(0))
        })
    }

    /// Number of blobs on disk.
    pub fn blob_count(&self) -> usize {
        self.app.blobs.list().expect("listed").len()
    }
}

/// A job document that is accepted for [`Server::small_dataset`].
pub fn job(dataset: &str) -> Value {
    json!({
        "name": "demo", "dataset": dataset, "listed": true, "seed": 7,
        "model": {"layers": [
            {"type": "conv2d", "filters": 3, "kernel": 3, "padding": "same", "activation": "relu"},
            {"type": "max_pool2d", "size": 2}, {"type": "flatten"},
            {"type": "dropout", "rate": 0.25}, {"type": "dense", "units": 4}],
            "loss": "cross_entropy"},
        "optimizer": {"kind": "adam"},
        "training": {"epochs": 2, "batch": 20, "micro_batch": 10,
                     "schedule": {"kind": "constant", "learning_rate": 0.01}},
    })
}

pub fn embed() -> Embed {
    let file = |kind, text: &str| StaticFile::new(kind, text.into()).expect("packed");
    let files = [
        ("frame.html", file("text/html", FRAME)),
        ("frame.css", file("text/css; charset=utf-8", "p { margin: 0 }")),
        ("raven.js", file("text/javascript; charset=utf-8", &"var raven;\n".repeat(500))),
        ("kernel/raven_kernel.wasm", file("application/wasm", "\0asm")),
    ];
    let files = files.map(|(path, file)| (path.to_owned(), file));
    Embed::new(files.into_iter().collect()).expect("a frame")
}
