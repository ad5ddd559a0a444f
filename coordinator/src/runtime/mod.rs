//! The moving part of the coordinator: sessions, the engine's driver and the executor.
//!
//! One task owns the engine and performs its effects ([`driver`]); each socket
//! has two of its own ([`ws`] reads, [`writer`] writes); tensor maths runs on
//! dedicated threads under wasmtime ([`executor`]); records are made durable by
//! one more task ([`persister`]). They talk by queues: sessions wait for room in
//! the driver's, the driver waits for nobody.

mod bench;
mod checks;
pub mod config;
mod door;
pub mod driver;
pub mod executor;
mod grants;
mod judge;
mod leases;
pub mod metrics;
mod open_session;
pub(crate) mod operator;
mod outbox;
mod outcomes;
mod partners;
mod persister;
mod product;
mod relaxed;
pub mod session;
mod shown;
pub mod snapshot;
mod traffic;
mod trust;
mod upgrade;
mod wishes;
mod writer;
mod ws;

pub use config::{Ahead, RuntimeConfig, Timeouts};
pub use metrics::Metrics;
pub use operator::contributor as operator_contributor;
pub use snapshot::{JobLive, NetworkSnapshot, NodeSnapshot, SessionRecord};

use crate::blobs::{BlobError, Blobs};
use crate::certificate::key::KeyError;
use crate::job::{JobContext, pseudonym};
use crate::random;
use crate::store::{Store, StoreError};
use crate::ticket::Tickets;
use checks::Checks;
use door::Door;
use driver::{Driver, Input, NewJob};
use executor::{Executor, ExecutorError, KernelError, KernelModule, RowSource, State};
use grants::Grants;
use judge::{Cabinet, Judge};
use operator::Operator;
use outcomes::store_outcomes;
use partners::{Visitors, watch_sites};
use persister::Persister;
use raven_engine::money::NanoUsd;
use raven_engine::{Engine, EngineConfig, Event, ResumePoint};
use raven_protocol::{BlobId, JobId, KernelId, SessionId};
use session::Modules;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use traffic::Visits;
use trust::store_trust;

/// Inputs that may wait for the driver; beyond it sessions are not read.
const INPUTS_MAX: usize = 1024;
/// Notices that a slow listener may miss; it then reads the store anyway.
const NOTICES_MAX: usize = 1024;

/// Why the runtime does not start, or does not take a job.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("{0}")]
    Kernel(#[from] KernelError),
    #[error("threads and folders: {0}")]
    Threads(#[from] std::io::Error),
    #[error("the job's data or checkpoint: {0}")]
    Job(#[from] ExecutorError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the coordinator is going down")]
    Stopped,
    #[error("the runtime's {task} panicked; the log says where")]
    Panicked { task: &'static str },
}

impl RuntimeError {
    /// Whether a job's blob was here and is not any more, or not as it was.
    pub fn is_damage(&self) -> bool {
        matches!(self, RuntimeError::Job(ExecutorError::Blob(error)) if error.is_damage())
    }
}

impl From<BlobError> for RuntimeError {
    fn from(error: BlobError) -> Self {
        RuntimeError::Job(error.into())
    }
}

/// What all sessions share.
#[derive(Debug)]
pub struct Shared {
    kernel: KernelId,
    config: RuntimeConfig,
    store: Store,
    tickets: Tickets,
    metrics: Arc<Metrics>,
    grants: Grants,
    visits: Visits,
    /// Who came through which site.
    visitors: Visitors,
    /// One permit per open socket.
    slots: Arc<Semaphore>,
    /// Who may open a socket, and how many may be without consent.
    door: Door,
    /// Who may look at a result now.
    checks: Checks,
    inputs: mpsc::Sender<Input>,
}

impl Shared {
    fn modules(&self) -> Modules {
        Modules { kernel: self.kernel, gpu: self.config.gpu_kernel }
    }
}

/// The running runtime. Clones share it.
#[derive(Clone, Debug)]
pub struct RuntimeHandle {
    shared: Arc<Shared>,
    blobs: Blobs,
    snapshot: watch::Receiver<Arc<NetworkSnapshot>>,
    notices: broadcast::Sender<JobId>,
    /// The task that has panicked, if one has.
    failure: watch::Receiver<Option<&'static str>>,
    stop: Arc<watch::Sender<bool>>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// Compiles the kernel and starts driver, executor and persister.
///
/// # Errors
/// [`RuntimeError::Kernel`] where the module is missing or not ours, [`RuntimeError::Threads`].
pub async fn start(
    config: RuntimeConfig,
    store: Store,
    blobs: Blobs,
    tickets: Tickets,
) -> Result<RuntimeHandle, RuntimeError> {
    let (file, cache) = (config.kernel_file.clone(), config.cache_dir.clone());
    let module = blocking(move || KernelModule::load(&file, cache.as_deref())).await??;
    let metrics = Arc::new(Metrics::default());
    let (done_out, done) = mpsc::unbounded_channel();
    let (threads, memory) = (config.executor_threads, config.executor_memory_bytes);
    let executor = Executor::start(&module, &blobs, threads, memory, &metrics, &done_out)?;
    drop(done_out);
    let (inputs_out, inputs) = mpsc::channel(INPUTS_MAX);
    let (notices, _) = broadcast::channel(NOTICES_MAX);
    let (savings_out, savings) = mpsc::unbounded_channel();
    let (snapshot_out, snapshot) = watch::channel(Arc::default());
    let (stop, stopping) = watch::channel(false);
    let persister = Persister::new(
        store.clone(),
        blobs.clone(),
        config.certificate_bytes,
        metrics.clone(),
        inputs_out.clone(),
        notices.clone(),
    );
    let engine = engine_of(&config);
    let shared = Arc::new(Shared {
        kernel: module.id(),
        slots: Arc::new(Semaphore::new(config.sessions_max)),
        door: Door::new(&config),
        config,
        store,
        tickets,
        metrics,
        grants: Grants::default(),
        visits: Visits::default(),
        visitors: Visitors::default(),
        checks: Checks::default(),
        inputs: inputs_out,
    });
    let judge = start_judge(&module, &blobs, &shared).await?;
    let (lessons_out, lessons) = mpsc::unbounded_channel();
    let driver = Driver::new(
        engine,
        shared.clone(),
        executor,
        judge,
        lessons_out,
        savings_out,
        snapshot_out,
    );
    let (failure_out, failure) = watch::channel(None);
    let counts = store_outcomes(shared.store.clone(), shared.metrics.clone(), stop.subscribe());
    let mut tasks = vec![
        tokio::spawn(guard("driver", driver.run(inputs, done, stopping), failure_out.clone())),
        tokio::spawn(guard("persister", persister.run(savings), failure_out)),
        tokio::spawn(store_trust(shared.store.clone(), lessons)),
        tokio::spawn(counts),
        tokio::spawn(watch_sites(shared.clone(), stop.subscribe())),
    ];
    if shared.config.operator {
        let node = Operator::new(shared.clone(), module, blobs.clone()).await?;
        tasks.push(tokio::spawn(node.run()));
    }
    Ok(RuntimeHandle {
        shared,
        blobs,
        snapshot,
        notices,
        failure,
        stop: Arc::new(stop),
        tasks: Arc::new(Mutex::new(tasks)),
    })
}

fn engine_of(config: &RuntimeConfig) -> Engine {
    Engine::new(EngineConfig {
        seed: random::nonzero_u64(),
        // The slots bound visitors; the coordinator's own node takes none of their places.
        sessions_max: config.sessions_max + usize::from(config.operator),
        ..EngineConfig::default()
    })
}

/// Starts the referee, on a thread of its own: it never takes the executor's time, nor more
/// than one core.
async fn start_judge(
    module: &KernelModule,
    blobs: &Blobs,
    shared: &Shared,
) -> Result<Judge, RuntimeError> {
    let (folder, signing) = (shared.config.evidence_dir.clone(), shared.store.clone());
    let cabinet = blocking(move || folder.map(|folder| open_cabinet(folder, &signing)).transpose());
    let cabinet = cabinet.await??;
    let judge = Judge::start(
        module.clone(),
        blobs.clone(),
        shared.config.executor_memory_bytes,
        cabinet,
        shared.metrics.clone(),
        shared.store.clone(),
        shared.inputs.clone(),
    )?;
    Ok(judge)
}

/// The folder of evidence, made where it is missing. Blocks.
fn open_cabinet(folder: PathBuf, store: &Store) -> Result<Cabinet, RuntimeError> {
    use std::os::unix::fs::DirBuilderExt;
    // Evidence holds rows of a job's data: it is for the operator's eyes.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let key = crate::certificate::issue::key_of(store)?;
    let mut bytes = 0;
    for entry in std::fs::read_dir(&folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(Cabinet { folder, key, bytes })
}

/// Runs a task that the runtime cannot do without, and says so where it panics.
async fn guard(
    task: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
    failure: watch::Sender<Option<&'static str>>,
) {
    if let Err(error) = tokio::spawn(work).await {
        tracing::error!(task, %error, "a task of the runtime failed");
        failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(task);
            is_first
        });
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| RuntimeError::Stopped)
}

impl RuntimeHandle {
    /// Content id of the kernel module.
    pub fn kernel(&self) -> KernelId {
        self.shared.kernel
    }

    /// `GET /v1/contribute`. Serve it with connection info
    /// (`into_make_service_with_connect_info::<SocketAddr>`).
    pub fn router(&self) -> axum::Router {
        axum::Router::new()
            .route("/v1/contribute", axum::routing::any(ws::contribute))
            .with_state(self.shared.clone())
    }

    /// Takes a job that is stored, from its beginning or from its last checkpoint.
    ///
    /// # Errors
    /// [`RuntimeError::Job`] where its checkpoint or rows cannot be read; [`RuntimeError::Stopped`].
    pub async fn add_job(
        &self,
        context: Arc<JobContext>,
        resume: Option<ResumePoint>,
    ) -> Result<(), RuntimeError> {
        let id = context.job();
        let owner = self.shared.store.job_owner(id).await?;
        let requester = pseudonym(owner);
        let blobs = self.blobs.clone();
        let weights = resume.as_ref().map(|resume| resume.weights);
        let load = move || -> Result<NewJob, RuntimeError> {
            let state = match weights {
                Some(id) => Some(State::from_frame(&context, &blobs.get(id)?)?),
                None => None,
            };
            let rows = match &context.cut {
                Some(_) => Some(RowSource::load(&blobs, &context.data.train_shards)?),
                None => None,
            };
            Ok(NewJob { context, requester, state, rows })
        };
        let job = Box::new(blocking(load).await??);
        let (taken, answer) = oneshot::channel();
        self.tell(Input::AddJob { job, resume, taken }).await?;
        answer.await.map_err(|_| RuntimeError::Stopped)?;
        // Money that came since its context was read was told to nobody who knew the job.
        match self.shared.store.topped_up(id).await? {
            Some(escrow) => self.top_up(id, escrow).await,
            None => Ok(()),
        }
    }

    /// Ends a job by its owner's wish. Its last record says when it is done.
    ///
    /// # Errors
    /// [`RuntimeError::Stopped`].
    pub async fn cancel_job(&self, job: JobId) -> Result<(), RuntimeError> {
        self.tell(Input::Event(Event::JobCancelled { job })).await
    }

    /// Tells a job what its escrow holds now; a paused one goes on if that suffices.
    ///
    /// # Errors
    /// [`RuntimeError::Stopped`].
    pub async fn top_up(&self, job: JobId, escrow: NanoUsd) -> Result<(), RuntimeError> {
        self.tell(Input::Event(Event::ToppedUp { job, escrow })).await
    }

    async fn tell(&self, input: Input) -> Result<(), RuntimeError> {
        self.shared.inputs.send(input).await.map_err(|_| RuntimeError::Stopped)
    }

    /// The network, at most half a second ago.
    pub fn snapshot(&self) -> Arc<NetworkSnapshot> {
        self.snapshot.borrow().clone()
    }

    /// A running job's progress; `None` once it has ended.
    pub fn job_live(&self, job: JobId) -> Option<JobLive> {
        self.snapshot.borrow().jobs.get(&job).cloned()
    }

    /// Jobs of which a record has just become durable.
    pub fn notices(&self) -> broadcast::Receiver<JobId> {
        self.notices.subscribe()
    }

    /// Whether the session that holds `token` may read `blob`.
    pub fn grant_allows(&self, token: &str, blob: BlobId) -> bool {
        self.shared.grants.allows(token, blob)
    }

    /// The open session that holds `token`.
    pub fn session_of(&self, token: &str) -> Option<SessionId> {
        self.shared.grants.session_of(token)
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// The counters and sizes as Prometheus' text.
    pub fn render_metrics(&self) -> String {
        let mut text = self.shared.metrics.render();
        let snapshot = self.snapshot();
        let gauges = [
            ("raven_contributors", "Contributors online.", snapshot.contributors as u64),
            ("raven_sessions", "Open sessions.", snapshot.nodes.len() as u64),
            ("raven_workers", "Workers of open sessions.", snapshot.workers),
            ("raven_jobs_open", "Jobs that have not ended.", snapshot.jobs.len() as u64),
            ("raven_leases_open", "Leases that are not answered yet.", snapshot.leases),
            ("raven_payloads_held", "Results in memory.", snapshot.payloads),
        ];
        for (name, help, value) in gauges {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
        }
        text
    }

    /// Waits until a task that the runtime cannot do without has panicked:
    /// nothing moves any more, and only another process can go on.
    pub async fn failed(&self) -> RuntimeError {
        let mut failure = self.failure.clone();
        let found = failure.wait_for(Option::is_some).await.map(|task| *task);
        match found {
            Ok(Some(task)) => RuntimeError::Panicked { task },
            // Both tasks have ended in peace, so neither will panic.
            _ => std::future::pending().await,
        }
    }

    /// The failure that [`RuntimeHandle::failed`] waits for, where it has happened.
    pub fn failure(&self) -> Option<RuntimeError> {
        (*self.failure.borrow()).map(|task| RuntimeError::Panicked { task })
    }

    /// Says goodbye to every contributor and stops; records in hand are still stored.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the runtime failed");
            }
        }
        // Sockets hold a permit until their goodbye has been read or has timed out.
        let sessions = u32::try_from(self.shared.config.sessions_max).unwrap_or(u32::MAX);
        let timeouts = self.shared.config.timeouts;
        let closed = self.shared.slots.acquire_many(sessions);
        if tokio::time::timeout(timeouts.close * 3, closed).await.is_err() {
            tracing::warn!("some sockets did not close in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_an_end_in_peace_is_not() {
        let (failure_out, mut failure) = watch::channel(None);
        guard("driver", async {}, failure_out.clone()).await;
        assert_eq!(*failure.borrow(), None);
        guard("persister", async { panic!("on purpose") }, failure_out.clone()).await;
        guard("driver", async { panic!("on purpose, later") }, failure_out).await;
        let told = failure.wait_for(Option::is_some).await.map(|task| *task);
        assert_eq!(told.expect("told"), Some("persister"), "the first one counts");
    }
}
