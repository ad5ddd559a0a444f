//! A whole coordinator without its HTTP API, and contributors that speak to it
//! over real sockets.

#![allow(dead_code, reason = "each test file uses its own part of this")]

pub mod contributor;
pub mod data;
pub mod killed;
pub mod process;
pub mod socket;
pub mod tls;

use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::serve::ListenerExt;
use raven_coordinator::blobs::Blobs;
use raven_coordinator::job::{JobContext, JobSpec, Lowering, lower_job};
use raven_coordinator::keys::{ApiKey, KeyMode};
use raven_coordinator::runtime::session::network_prefix;
use raven_coordinator::runtime::{self, RuntimeConfig, RuntimeHandle, Timeouts};
use raven_coordinator::store::{DatasetId, DatasetRow, KeyId, NewJob, SiteRow, Store, StoredShard};
use raven_coordinator::ticket::{Seat, Tickets};
use raven_coordinator::time::UnixMs;
use raven_coordinator::view::{CardView, NamedView};
use raven_engine::{ContributorId, SiteId};
use raven_protocol::{BlobId, JobId, Seed};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The consent text that sessions agree to here.
pub const CONSENT_TEXT: &str = "2026-11-01";
/// The coordinator's own origin, as a browser would send it.
pub const OWN_ORIGIN: &str = "http://coordinator.test";
/// Publishable key of the registered site.
pub const SITE_KEY: &str = "pk_test_site";

/// The kernel module that `scripts/build` makes.
pub fn kernel_file() -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/kernel/raven_kernel.wasm");
    assert!(file.is_file(), "{} is missing: run scripts/build first", file.display());
    file
}

/// What the cards of its pages show.
pub fn card_view() -> NamedView {
    card().named()
}

/// The same, before it has a name.
pub fn card() -> CardView {
    CardView::new(CONSENT_TEXT, "25", "no")
}

/// Where the compiled module is kept between tests.
pub fn cache_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-cache")
}

/// A running coordinator on a free port, its store in a folder of its own.
pub struct Coordinator {
    pub address: SocketAddr,
    pub runtime: RuntimeHandle,
    pub store: Store,
    pub blobs: Blobs,
    pub tickets: Tickets,
    pub site: SiteId,
    pub owner: KeyId,
    pub folder: Arc<tempfile::TempDir>,
    server: tokio::task::JoinHandle<()>,
}

/// Short waits, so that a test of one takes no longer than it must.
pub fn short_timeouts() -> Timeouts {
    Timeouts {
        hello: Duration::from_millis(600),
        consent: Duration::from_millis(600),
        ping: Duration::from_millis(400),
        idle: Duration::from_millis(1500),
        drain: Duration::from_secs(2),
        close: Duration::from_millis(500),
    }
}

impl Coordinator {
    pub async fn start(configure: impl FnOnce(&mut RuntimeConfig)) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::open(folder, None, configure).await
    }

    /// The next process on the same folder.
    pub async fn restart(self, configure: impl FnOnce(&mut RuntimeConfig)) -> Self {
        let folder = self.folder.clone();
        self.runtime.shutdown().await;
        self.server.abort();
        self.store.close().await;
        Self::open(folder, Some(self.owner), configure).await
    }

    async fn open(
        folder: Arc<tempfile::TempDir>,
        owner: Option<KeyId>,
        configure: impl FnOnce(&mut RuntimeConfig),
    ) -> Self {
        let mut config =
            RuntimeConfig::new(kernel_file(), vec![OWN_ORIGIN.to_owned()], CONSENT_TEXT.to_owned());
        config.cache_dir = Some(cache_dir());
        config.card = card();
        configure(&mut config);
        let store = Store::open(&folder.path().join("raven.db")).await.expect("a store");
        store.begin_process().await.expect("a process");
        let blobs = Blobs::open(&folder.path().join("blobs")).expect("a blob folder");
        let tickets = Tickets::new(store.clone()).await.expect("tickets");
        let owner = match owner {
            Some(owner) => owner,
            None => store.add_key(&ApiKey::generate(KeyMode::Test)).await.expect("a key"),
        };
        let site = site(&store, owner).await;
        store.give_view(&card_view(), None, UnixMs::now()).await.expect("a view");
        let runtime = runtime::start(config, store.clone(), blobs.clone(), tickets.clone());
        let runtime = runtime.await.expect("the runtime starts");
        let shards = axum::Router::new()
            .route("/v1/blobs/{id}", axum::routing::get(shard))
            .with_state((runtime.clone(), blobs.clone()));
        let app = runtime.router().merge(shards);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let listener = listener.tap_io(|socket| socket.set_nodelay(true).expect("no delay"));
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move {
            axum::serve(listener, service).await.expect("serves");
        });
        Coordinator { address, runtime, store, blobs, tickets, site, owner, folder, server }
    }

    /// A ticket for the registered site's frame.
    pub fn ticket(&self) -> String {
        let seat = Seat {
            prefix: network_prefix([127, 0, 0, 1].into()),
            origin: Some("http://news.test"),
        };
        self.tickets.issue(self.site, &seat, UnixMs::now())
    }

    /// Stores a data set and a job on it, and hands the job to the runtime.
    pub async fn add_job(&self, job: JobId, data: &data::Rows, spec: &JobSpec) -> Arc<JobContext> {
        let context = self.store_job(job, data, spec).await;
        self.runtime.add_job(context.clone(), None).await.expect("the job is taken");
        context
    }

    /// Lowers a job as the HTTP side does; stores it where it is not stored yet.
    pub async fn store_job(
        &self,
        job: JobId,
        data: &data::Rows,
        spec: &JobSpec,
    ) -> Arc<JobContext> {
        let stored = data.store(&self.blobs);
        let dataset = DatasetId(job.0 + 1000);
        let facts = data.facts();
        let of = |test: bool| -> Vec<_> {
            stored.iter().filter(|s| s.test == test).map(|s: &StoredShard| s.shard).collect()
        };
        let lowering = Lowering {
            job,
            seed: Seed(spec.seed.expect("a seed").0),
            kernel: self.runtime.kernel(),
            dataset: &facts,
            train_shards: of(false),
            test_shards: of(true),
        };
        let (context, job_facts) = lower_job(spec, lowering).expect("a good job");
        if self.store.job(self.owner, job).await.expect("read").is_none() {
            let row = DatasetRow { id: dataset, facts };
            self.store
                .add_dataset(self.owner, &row, &stored, u64::MAX, None)
                .await
                .expect("stored");
            let new = NewJob {
                id: job,
                owner: self.owner,
                dataset,
                spec: spec.clone(),
                facts: job_facts,
                kernel: self.runtime.kernel(),
                created: UnixMs::now(),
            };
            self.store.add_job(&new, 100, None).await.expect("stored");
        }
        Arc::new(context)
    }

    /// Waits for the job's last record; answers its row.
    pub async fn finished(&self, job: JobId, within: Duration) -> raven_coordinator::store::JobRow {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let row = self.row(job).await;
            if row.phase.is_end() {
                return row;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{job} is not done: {:?} at step {}, {:?}; {:?}",
                row.phase,
                row.step,
                row.reason,
                self.runtime.snapshot()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn row(&self, job: JobId) -> raven_coordinator::store::JobRow {
        self.store.job(self.owner, job).await.expect("read").expect("the job")
    }

    /// Runs a statement on the store's file, beside the store.
    pub async fn sql(&self, statement: &'static str) {
        use sqlx::Executor;
        self.connection().await.execute(statement).await.expect("runs");
    }

    /// The store's file, beside the store.
    pub async fn connection(&self) -> sqlx::SqliteConnection {
        use sqlx::ConnectOptions;
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.folder.path().join("raven.db"))
            .busy_timeout(Duration::from_secs(10));
        options.connect().await.expect("connects")
    }

    /// Who was credited how many flops for a job.
    pub async fn flops_of(&self, job: JobId) -> Vec<(ContributorId, i64)> {
        use sqlx::ConnectOptions;
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.folder.path().join("raven.db"))
            .read_only(true);
        let mut connection = options.connect().await.expect("connects");
        let rows: Vec<(Vec<u8>, i64)> =
            sqlx::query_as("SELECT contributor, flops FROM job_contributors WHERE job = ?1")
                .bind(i64::from_le_bytes(job.0.to_le_bytes()))
                .fetch_all(&mut connection)
                .await
                .expect("reads");
        let id = |bytes: Vec<u8>| ContributorId(bytes.try_into().expect("32 bytes"));
        rows.into_iter().map(|(contributor, flops)| (id(contributor), flops)).collect()
    }

    /// What a query on the store's file answers.
    pub async fn rows(&self, query: &'static str) -> Vec<sqlx::sqlite::SqliteRow> {
        use sqlx::ConnectOptions;
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.folder.path().join("raven.db"))
            .busy_timeout(Duration::from_secs(10));
        let mut connection = options.connect().await.expect("connects");
        sqlx::query(query).fetch_all(&mut connection).await.expect("answers")
    }

    /// The state of the last checkpoint.
    pub async fn last_state(&self, job: JobId) -> BlobId {
        let rows = self.store.checkpoints(job).await.expect("read");
        rows.iter().max_by_key(|row| row.step).expect("a checkpoint").weights
    }
}

async fn site(store: &Store, owner: KeyId) -> SiteId {
    if let Some(row) = store.site_by_key(SITE_KEY).await.expect("read") {
        return row.id;
    }
    let row = SiteRow {
        id: SiteId(7),
        name: "a site".into(),
        site_key: SITE_KEY.into(),
        origins: vec!["http://news.test".into()],
        revoked: false,
        paused: false,
        refuses: raven_engine::CategorySet::EMPTY,
        allows: None,
    };
    store.add_site(owner, &row, 10, None).await.expect("a site");
    row.id
}

async fn shard(
    State((runtime, blobs)): State<(RuntimeHandle, Blobs)>,
    UrlPath(id): UrlPath<BlobId>,
    headers: HeaderMap,
) -> Result<Vec<u8>, StatusCode> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if !runtime.grant_allows(token, id) {
        return Err(StatusCode::FORBIDDEN);
    }
    blobs.get(id).map(|bytes| bytes.to_vec()).map_err(|_| StatusCode::NOT_FOUND)
}
