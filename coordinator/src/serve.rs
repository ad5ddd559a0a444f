//! A coordinator from start to end.

use crate::blobs::{BlobError, Blobs};
use crate::cli::Serve;
use crate::dataset::UploadLimits;
use crate::embed::{Embed, EmbedError};
use crate::http::{App, Settings, router};
use crate::job::resume;
use crate::network::Network;
use crate::runtime::{self, RuntimeConfig, RuntimeError, RuntimeHandle};
use crate::store::{Store, StoreError};
use crate::ticket::Tickets;
use crate::www::Www;
use axum::Router;
use axum::serve::ListenerExt;
use raven_engine::JobPhase;
use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

/// Open jobs of one key: enough for a sweep over settings.
const OPEN_JOBS_MAX: u64 = 50;
/// Requests that are being answered when the process is asked to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Why a coordinator does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{}: {error}", path.display())]
    Folder { path: PathBuf, error: io::Error },
    #[error("--listen {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("--www: {0}")]
    Www(io::Error),
    #[error("{}: another coordinator uses this folder", path.display())]
    InUse { path: PathBuf },
    #[error(transparent)]
    Embed(#[from] EmbedError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("serving: {0}")]
    Serving(io::Error),
}

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
    let blobs = Blobs::open(&config.data.join("blobs"))?;
    sweep(&store, &blobs).await?;
    let uploads = empty_folder(&config.data.join("uploads"))?;
    let embed = Embed::read(config.embed.as_deref(), &config.kernel)?;
    let www = Www::read(config.www.as_deref()).map_err(ServeError::Www)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| ServeError::Listen { address: config.listen, error })?;
    let address = listener.local_addr().map_err(ServeError::Serving)?;
    let origin = config.origin.clone().unwrap_or_else(|| format!("http://{address}"));
    let tickets = Tickets::new(store.clone()).await?;
    let handle = start_runtime(&config, &origin, &embed, &store, &blobs, &tickets).await?;
    go_on(&store, &handle).await?;
    let (stopping_out, stopping) = watch::channel(false);
    let app = App {
        store: store.clone(),
        blobs,
        tickets,
        network: Arc::new(handle.clone()),
        settings: Arc::new(Settings {
            origin,
            upload_folder: uploads,
            upload_limits: UploadLimits::default(),
            open_jobs_max: OPEN_JOBS_MAX,
        }),
        embed: Arc::new(embed),
        www: Arc::new(www),
        ingestion: Arc::default(),
        stopping,
    };
    ready(address);
    let routes = router(app).merge(handle.router());
    let end = async move {
        stop.await;
        tracing::info!("stopping");
        // Event streams end, contributors hear goodbye, and what was accepted is stored.
        stopping_out.send_replace(true);
        handle.shutdown().await;
    };
    let served = answer(listener, routes, end).await;
    store.close().await;
    served
}

/// Answers requests until `end` has ended, then those in hand, for no longer than [`DRAIN`].
async fn answer(
    listener: TcpListener,
    routes: Router,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let (ended_out, ended) = oneshot::channel();
    let end = async move {
        end.await;
        // Nobody listens where serving has failed first.
        let _ = ended_out.send(());
    };
    // Leases, commitments and reveals are small and follow each other: waiting
    // to fill a packet would cost every round an acknowledgement's delay.
    let listener = listener.tap_io(|socket| {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a socket keeps its delay");
        }
    });
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(end);
    let overdue = async move {
        match ended.await {
            Ok(()) => tokio::time::sleep(DRAIN).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = serving => served.map_err(ServeError::Serving),
        () = overdue => Ok(()),
    }
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
    let handle =
        runtime::start(runtime_config, store.clone(), blobs.clone(), tickets.clone()).await?;
    Ok(handle)
}

/// Goes on with every job that has not ended, from its last checkpoint, or
/// ends it with the reason why it cannot go on.
async fn go_on(store: &Store, handle: &RuntimeHandle) -> Result<(), ServeError> {
    for row in store.open_jobs().await? {
        let job = row.id;
        let outcome = match resume(store, &row, handle.kernel()).await {
            Ok((context, point)) => {
                let step = point.as_ref().map_or(0, |point| point.step);
                tracing::info!(%job, step, "going on with a job");
                Network::add_job(handle, Arc::new(context), point)
                    .await
                    .map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = outcome {
            tracing::error!(%job, %reason, "a job cannot go on");
            store.end_job(job, JobPhase::Failed, Some(&reason)).await?;
        }
    }
    Ok(())
}

/// Removes blobs that nothing refers to: states and shards whose owners were
/// not stored before the last process ended.
async fn sweep(store: &Store, blobs: &Blobs) -> Result<(), ServeError> {
    let kept: HashSet<_> = store.referenced_blobs().await?.into_iter().collect();
    let mut removed = 0u32;
    for id in blobs.list()? {
        if !kept.contains(&id) {
            blobs.remove(id)?;
            removed += 1;
        }
    }
    if removed > 0 {
        tracing::info!(removed, "blobs that nothing refers to");
    }
    Ok(())
}

fn empty_folder(path: &Path) -> Result<PathBuf, ServeError> {
    let failed = |error| ServeError::Folder { path: path.to_owned(), error };
    if path.exists() {
        std::fs::remove_dir_all(path).map_err(failed)?;
    }
    std::fs::create_dir_all(path).map_err(failed)?;
    Ok(path.to_owned())
}
