//! A coordinator from start to end.

use crate::blobs::{BlobError, Blobs};
use crate::config::Serve;
use crate::dataset::UploadLimits;
use crate::embed::{Embed, EmbedError};
use crate::front::Front;
use crate::http::{
    AccountSettings, App, Challenges, Incoming, Settings, Streams, Turns, router, upkeep,
};
use crate::job::{JobContext, resume};
use crate::mail::{FolderMailer, Mailer, Outbox, Pace};
use crate::passkey::RelyingParty;
use crate::process::raise_open_files;
use crate::runtime::{self, RuntimeConfig, RuntimeError, RuntimeHandle};
use crate::settlement::Manual;
use crate::signing::SigningError;
use crate::sites::check_origin;
use crate::store::{BooksError, Store, StoreError};
use crate::sweep::{SweepError, sweep, sweep_for_ever};
use crate::ticket::Tickets;
use crate::www::Www;
use raven_engine::{Cause, ResumePoint};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// Open jobs of one key: enough for a sweep over settings.
const OPEN_JOBS_MAX: u64 = 50;
/// Bytes of one key's data sets: some dozens of usual ones.
const DATASET_BYTES_MAX: u64 = 16 << 30;
/// Sites of one key.
const SITES_MAX: u64 = 100;
/// Uploads that are received at a time: each may take a gibibyte of disk.
const UPLOADS_MAX: usize = 4;
/// Event streams that are open at a time.
const STREAMS_MAX: usize = 512;
/// Of those, streams of one key: a few readers of each of a sweep's jobs.
const STREAMS_OF_KEY_MAX: usize = 64;
/// For requests that are being answered when the process is asked to end.
const DRAIN: Duration = Duration::from_secs(10);
/// For goodbyes, records in hand and an operation that the executor has begun.
/// What is not done by then is done again by the next process.
const SHUTDOWN: Duration = Duration::from_secs(12);
/// For statements that run.
const CLOSE: Duration = Duration::from_secs(3);
/// Files beside connections: the store, blobs, uploads, the log.
const OTHER_FILES: u64 = 256;

/// Why a coordinator does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{}: {error}", path.display())]
    Folder { path: PathBuf, error: io::Error },
    #[error("--listen {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("--origin: {rule}")]
    Origin { rule: &'static str },
    #[error("--smtp: {0}")]
    Mail(String),
    #[error("--www: {0}")]
    Www(io::Error),
    #[error("{}: another coordinator uses this folder", path.display())]
    InUse { path: PathBuf },
    #[error(transparent)]
    Embed(#[from] EmbedError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Books(#[from] BooksError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error(transparent)]
    Sweep(#[from] SweepError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("serving: {0}")]
    Serving(io::Error),
}

/// Folder of the evidence of false results in a data folder.
const EVIDENCE_FOLDER: &str = "evidence";

/// Folder of letters that no relay has taken yet in a data folder.
const LETTERS_FOLDER: &str = "letters";

/// The store's file in a data folder.
pub fn store_file(data: &Path) -> PathBuf {
    data.join("raven.sqlite")
}

/// Makes the data folder where it is missing, readable by its owner only: it
/// holds the secrets that tickets are made with.
///
/// # Errors
/// [`ServeError::Folder`].
pub fn data_folder(path: &Path) -> Result<(), ServeError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |error| ServeError::Folder { path: path.to_owned(), error };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

/// Holds the data folder for one process; the system lets go of it with the process.
fn lock(data: &Path) -> Result<std::fs::File, ServeError> {
    let path = data.join("lock");
    let failed = |error| ServeError::Folder { path: path.clone(), error };
    let file = std::fs::File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(ServeError::InUse { path: data.to_owned() }),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Serves until `stop` ends. `ready` is told the address once it is bound.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    config: Serve,
    stop: impl Future<Output = ()> + Send + 'static,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    data_folder(&config.data)?;
    let _lock = lock(&config.data)?;
    let store = Store::open(&store_file(&config.data)).await?;
    store.begin_process().await?;
    store.grant_trials().await?;
    store.set_site_caps(config.site_caps);
    let blobs = Blobs::open(&config.data.join("blobs"))?;
    sweep(&store, &blobs).await?;
    let uploads = empty_folder(&config.data.join("uploads"))?;
    let incoming = config.data.join("incoming");
    std::fs::create_dir_all(&incoming)
        .map_err(|error| ServeError::Folder { path: incoming.clone(), error })?;
    let mut embed = Embed::read(config.embed.as_deref(), &config.kernel)?;
    embed.set_visit_mb(config.visit_mb);
    embed.set_unclaimed_days(config.unclaimed_after_days);
    embed.set_gpu(config.gpu);
    embed.keep_loaders(&config.data.join("loaders")).map_err(EmbedError::Io)?;
    let www = Www::read(config.www.as_deref()).map_err(ServeError::Www)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| ServeError::Listen { address: config.listen, error })?;
    let address = listener.local_addr().map_err(ServeError::Serving)?;
    let origin = origin(&config, address)?;
    let tickets = Tickets::new(store.clone()).await?;
    let handle = start_runtime(&config, &origin, &embed, &store, &blobs, &tickets).await?;
    go_on(&store, &handle).await?;
    let (stopping_out, stopping) = watch::channel(false);
    let app = App {
        store: store.clone(),
        blobs: blobs.clone(),
        tickets,
        settlement: Arc::new(Manual::new(store.clone(), config.withdrawal_least)),
        network: Arc::new(handle.clone()),
        settings: Arc::new(Settings {
            origin,
            upload_folder: uploads,
            incoming_folder: incoming,
            upload_limits: UploadLimits::default(),
            open_jobs_max: OPEN_JOBS_MAX,
            dataset_bytes_max: DATASET_BYTES_MAX,
            sites_max: SITES_MAX,
            admin_token: config.admin_token.clone(),
            blob_bytes_max: config.blob_bytes_max,
            disk_free_bytes_min: config.disk_free_bytes_min,
            operator: config.operator,
            private_pool: config.private_pool,
            rates: config.rates,
            evidence_folder: config.data.join(EVIDENCE_FOLDER),
            unclaimed_after_days: config.unclaimed_after_days,
            accounts: account_settings(&config, &stopping)?,
        }),
        embed: Arc::new(embed),
        www: Arc::new(www),
        verifier: Arc::default(),
        ingestion: Arc::default(),
        uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
        incoming: Incoming::default(),
        streams: Streams::new(STREAMS_MAX, STREAMS_OF_KEY_MAX),
        turns: Turns::default(),
        stats: Arc::default(),
        challenges: Challenges::default(),
        stopping: stopping.clone(),
    };
    // The log has the cause of a failure; strays cost room and nothing else.
    let _ = upkeep::remove_strays(&app).await;
    tokio::spawn(upkeep::run(app.clone()));
    let mut front = config.front.clone();
    let files = usize::try_from(raise_open_files().saturating_sub(OTHER_FILES));
    front.connections.all_max = front.connections.all_max.min(files.unwrap_or(usize::MAX)).max(1);
    let front = Front::new(front, stopping);
    let routes = front.before(router(app).merge(handle.router()));
    let sweeping = tokio::spawn(sweep_for_ever(store.clone(), blobs));
    ready(address);
    let failing = handle.clone();
    let end = async move {
        tokio::select! {
            () = stop => tracing::info!("stopping"),
            // Nothing moves any more; the next process goes on from the last records.
            error = handle.failed() => tracing::error!(%error, "stopping"),
        }
        // Event streams end, contributors hear goodbye, and what was accepted is stored.
        stopping_out.send_replace(true);
        if timeout(SHUTDOWN, handle.shutdown()).await.is_err() {
            tracing::warn!(
                "the runtime did not stop in time; the next process goes on from its last records"
            );
        }
    };
    front.serve(listener, routes, end, DRAIN).await;
    sweeping.abort();
    if timeout(CLOSE, store.close()).await.is_err() {
        tracing::warn!("the store was not closed in time");
    }
    match failing.failure() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn account_settings(
    config: &Serve,
    stopping: &watch::Receiver<bool>,
) -> Result<AccountSettings, ServeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| ServeError::Folder { path, error }
    };
    let mailer = match (&config.mail_relay, &config.mail_folder) {
        (Some(mail), folder) => {
            let folder = folder.clone().unwrap_or_else(|| config.data.join(LETTERS_FOLDER));
            let outbox = Outbox::open(&folder).map_err(failed(&folder))?;
            let (relay, login, pace) = (&mail.relay, mail.login.as_ref(), Pace::default());
            let post =
                outbox.run(relay, &mail.authorities, login, &mail.from, pace, stopping.clone());
            tokio::spawn(post.map_err(ServeError::Mail)?);
            Some(Arc::new(outbox) as Arc<dyn Mailer>)
        }
        (None, Some(folder)) => {
            let opened = FolderMailer::open(folder).map_err(failed(folder))?;
            Some(Arc::new(opened) as Arc<dyn Mailer>)
        }
        (None, None) => None,
    };
    let (children_max, passkeys) = (config.sub_accounts_max, config.passkey_sign_up);
    Ok(AccountSettings { mailer, children_max, passkeys })
}

async fn start_runtime(
    config: &Serve,
    origin: &str,
    embed: &Embed,
    store: &Store,
    blobs: &Blobs,
    tickets: &Tickets,
) -> Result<RuntimeHandle, ServeError> {
    let text = embed.consent_text_version().to_owned();
    let mut runtime_config =
        RuntimeConfig::new(config.kernel.clone(), vec![origin.to_owned()], text);
    runtime_config.cache_dir = Some(config.data.join("cache"));
    if let Some(limit) = config.sessions_max {
        runtime_config.sessions_max = limit;
    }
    if let Some(limit) = config.sessions_per_network_max {
        runtime_config.sessions_per_network_max = limit;
    }
    runtime_config.operator = config.operator;
    runtime_config.certificate_bytes = config.certificate_bytes;
    runtime_config.evidence_dir = Some(config.data.join(EVIDENCE_FOLDER));
    runtime_config.gpu_kernel = embed.gpu_kernel();
    runtime_config.card = embed.card_view();
    let handle =
        runtime::start(runtime_config, store.clone(), blobs.clone(), tickets.clone()).await?;
    Ok(handle)
}

/// How browsers reach this coordinator: sockets from other origins are refused.
fn origin(config: &Serve, address: SocketAddr) -> Result<String, ServeError> {
    let origin = match &config.origin {
        Some(origin) => origin.clone(),
        None if address.ip().is_unspecified() => {
            let rule = "is needed where the listen address is every address";
            return Err(ServeError::Origin { rule });
        }
        None if address.port() == 80 => format!("http://{}", host(address)),
        None => format!("http://{address}"),
    };
    check_origin(&origin).map_err(|rule| ServeError::Origin { rule })?;
    if config.passkey_sign_up && RelyingParty::of(&origin).is_none() {
        let rule = "must be https and have a name, or be localhost, where passkeys make accounts";
        return Err(ServeError::Origin { rule });
    }
    Ok(origin)
}

/// An address as it stands in an origin, without its port.
fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

/// Goes on with every job that has not ended, from its last checkpoint, or
/// ends it with the reason why it cannot go on.
async fn go_on(store: &Store, handle: &RuntimeHandle) -> Result<(), ServeError> {
    for row in store.open_jobs().await? {
        let job = row.id;
        let outcome = match resume(store, &row, handle.kernel()).await {
            Ok((context, point)) => go_on_from(store, handle, Arc::new(context), point).await?,
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = outcome {
            tracing::error!(%job, %reason, "a job cannot go on");
            // Other jobs go on all the same.
            if let Err(error) = store.end_job(job, Cause::Coordinator, Some(&reason)).await {
                tracing::error!(%job, %error, "a job was not ended");
            }
        }
    }
    Ok(())
}

/// Goes on with a job from its last checkpoint, or from the one before where
/// the last one is damaged: rounds between them are computed again, to the same
/// bits, and nobody is charged twice. Otherwise the reason why it cannot go on.
async fn go_on_from(
    store: &Store,
    handle: &RuntimeHandle,
    context: Arc<JobContext>,
    mut point: Option<ResumePoint>,
) -> Result<Result<(), String>, ServeError> {
    let job = context.job();
    let mut first = None;
    loop {
        let step = point.as_ref().map_or(0, |point| point.step);
        tracing::info!(%job, step, "going on with a job");
        let Err(error) = handle.add_job(context.clone(), point).await else { return Ok(Ok(())) };
        let is_damage = error.is_damage();
        let reason = first.get_or_insert_with(|| error.to_string()).clone();
        point = match is_damage {
            true => store.resume_point(job, Some(step)).await?,
            false => None,
        };
        if point.is_none() {
            return Ok(Err(reason));
        }
        tracing::warn!(%job, step, %error, "a checkpoint is damaged; the one before is tried");
    }
}

fn empty_folder(path: &Path) -> Result<PathBuf, ServeError> {
    let failed = |error| ServeError::Folder { path: path.to_owned(), error };
    if path.exists() {
        std::fs::remove_dir_all(path).map_err(failed)?;
    }
    std::fs::create_dir_all(path).map_err(failed)?;
    Ok(path.to_owned())
}
