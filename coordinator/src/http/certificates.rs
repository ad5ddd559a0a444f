//! `/v1/jobs/{id}/certificate` and the bundle that it is checked with.

use super::auth::Owner;
use super::extract::Path;
use super::{App, Problem, jobs, model};
use crate::certificate::bundle::{
    CERTIFICATE, KERNEL, ROUNDS_PER_FILE, graph_file, rounds_file, shard_file, state_file,
};
use crate::certificate::issue::{self, IssueError};
use crate::certificate::{Body, document, tar};
use crate::store::{DatasetId, JobRow};
use axum::body::{Body as HttpBody, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream::unfold;
use raven_graph::ValidGraph;
use raven_protocol::{BlobId, JobId, KernelId};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

/// Bundles on their way at a time: each reads the disk and holds some frames in memory.
static BUNDLES: Semaphore = Semaphore::const_new(2);
/// Pieces of a bundle that wait for their reader.
const PIECES_MAX: usize = 2;
/// A reader that takes nothing for so long has gone.
const STALLED: Duration = Duration::from_secs(60);
/// Certificates that are issued at one go.
const ISSUED_MAX: u32 = 20;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/jobs/{id}/certificate", get(certificate))
        .route("/v1/jobs/{id}/bundle", get(bundle))
        .route("/v1/certificate-key", get(public_key))
}

impl From<IssueError> for Problem {
    fn from(error: IssueError) -> Self {
        let none = |field: &str| {
            let problem = Problem::conflict(error.to_string()).with_field(field);
            problem.named("no-certificate", "The job has no certificate")
        };
        match error {
            IssueError::NotEnded => Problem::conflict(error.to_string()).with_field("state"),
            IssueError::Relaxed => none("numerics"),
            IssueError::NoData => none("dataset"),
            IssueError::Store(error) => error.into(),
            IssueError::Task(error) => error.into(),
            IssueError::Key(_) | IssueError::Blobs(_) => Problem::internal(&error),
            _ => none("id"),
        }
    }
}

/// The certificate's text, issued now where it is not yet.
async fn ensure(app: &App, row: &JobRow) -> Result<String, Problem> {
    issue::admit(row)?;
    if let Some(document) = app.store.certificate(row.id).await? {
        return Ok(document);
    }
    let issued = match model::certified(app, row).await? {
        Some((checkpoint, sha256)) => {
            issue::issue(&app.store, &app.blobs, row, checkpoint, sha256).await
        }
        None => Err(IssueError::NoChain),
    };
    match issued {
        Ok(document) => {
            app.store.add_certificate(row.id, &document).await?;
            Ok(document)
        }
        Err(error) => {
            if error.is_final() {
                tracing::warn!(job = %row.id, %error, "a job has no certificate");
                app.store.refuse_certificate(row.id, &error.to_string()).await?;
            }
            Err(error.into())
        }
    }
}

/// Issues what waits to be issued, of one data set or of all: once a data set
/// is deleted it is too late. What fails is in the log.
pub async fn issue_waiting(app: &App, dataset: Option<DatasetId>) -> Result<(), Problem> {
    loop {
        let waiting = app.store.uncertified_jobs(dataset, ISSUED_MAX).await?;
        let mut is_stuck = true;
        for row in &waiting {
            match ensure(app, row).await {
                Ok(_) => is_stuck = false,
                Err(problem) => {
                    tracing::warn!(job = %row.id, ?problem, "a certificate was not issued");
                }
            }
        }
        // Those that failed are tried again at the next turn, not now.
        if is_stuck {
            return Ok(());
        }
    }
}

async fn certificate(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let row = jobs::find(&app, owner, &id).await?;
    let document = ensure(&app, &row).await?;
    let name = format!("attachment; filename=\"{}.certificate.json\"", row.id);
    let answer = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((answer, document).into_response())
}

/// Who signs here. Buyers pin it by `--signer`.
async fn public_key(State(app): State<App>) -> Result<Json<Value>, Problem> {
    let store = app.store.clone();
    let key = tokio::task::spawn_blocking(move || issue::key_of(&store)).await?;
    let key = key.map_err(|error| Problem::internal(&error))?;
    Ok(Json(json!({ "algorithm": "ed25519", "public_key": key.signatory().to_string() })))
}

async fn bundle(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let row = jobs::find(&app, owner, &id).await?;
    let document = ensure(&app, &row).await?;
    let body = document::read(&document).map_err(|error| Problem::internal(&error))?.body;
    let (states, shards) = blobs_of(&body);
    if states.iter().chain(&shards).any(|id| !app.blobs.contains(*id)) {
        let detail = "rows or states are no longer here: the job's data set was deleted, or \
                      they are damaged; without them nothing can be run again";
        return Err(Problem::conflict(detail).with_field("dataset"));
    }
    let permit = BUNDLES.try_acquire();
    let permit = permit.map_err(|_| {
        let detail = "other bundles are being sent; ask again later";
        Problem::unavailable(detail).with_retry_after(STALLED.as_secs())
    })?;
    let graphs = graphs(&body).await?;
    let (out, pieces) = mpsc::channel(PIECES_MAX);
    let packing = Packing { app, job: row.id, out };
    tokio::spawn(packing.run(document, body.kernel, graphs, states, shards, permit));
    let stream = unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
    let name = format!("attachment; filename=\"{}.bundle.tar\"", row.id);
    let answer = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((answer, HttpBody::from_stream(stream)).into_response())
}

/// States and shards of a certificate, each once.
fn blobs_of(body: &Body) -> (Vec<BlobId>, Vec<BlobId>) {
    let mut seen = HashSet::new();
    let mut each_once = |ids: Vec<BlobId>| -> Vec<BlobId> {
        ids.into_iter().filter(|id| seen.insert(*id)).collect()
    };
    let states = each_once(body.snapshots.iter().map(|own| own.state).collect());
    let data = body.dataset.train.iter().chain(&body.dataset.test);
    (states, each_once(data.map(|shard| shard.blob).collect()))
}

/// The graphs' texts by name.
async fn graphs(body: &Body) -> Result<Vec<(&'static str, Vec<u8>)>, Problem> {
    let body = body.clone();
    let lowered = tokio::task::spawn_blocking(move || {
        let context = issue::lower(body.job, body.kernel, body.seed, &body.spec, &body.dataset);
        let context = context.map_err(|error| Problem::internal(&error))?;
        let text = |graph: &ValidGraph| {
            serde_json::to_vec(graph.graph()).map_err(|error| Problem::internal(&error))
        };
        Ok::<_, Problem>(vec![
            ("init", text(&context.init)?),
            ("train", text(&context.train.graph)?),
            ("evaluate", text(&context.evaluate.graph)?),
            ("optimizer", text(&context.step.graph)?),
        ])
    });
    lowered.await?
}

/// A bundle on its way to its reader.
struct Packing {
    app: App,
    job: JobId,
    out: mpsc::Sender<io::Result<Bytes>>,
}

impl Packing {
    async fn run(
        self,
        document: String,
        kernel: KernelId,
        graphs: Vec<(&'static str, Vec<u8>)>,
        states: Vec<BlobId>,
        shards: Vec<BlobId>,
        _permit: SemaphorePermit<'static>,
    ) {
        let packed = async {
            self.file(CERTIFICATE, document.into()).await?;
            if let Some(module) = self.app.embed.kernel(kernel) {
                self.file(KERNEL, module).await?;
            }
            for (name, text) in graphs {
                self.file(&graph_file(name), text.into()).await?;
            }
            self.rounds().await?;
            for id in states {
                self.blob(state_file(id), id).await?;
            }
            for id in shards {
                self.blob(shard_file(id), id).await?;
            }
            self.send(Bytes::from_static(&tar::END)).await
        };
        if let Err(error) = packed.await {
            tracing::warn!(job = %self.job, %error, "a bundle was not sent to its end");
            // The connection breaks, so that nobody takes it for whole.
            let _ = self.out.try_send(Err(error));
        }
    }

    async fn rounds(&self) -> io::Result<()> {
        let mut behind = 0;
        loop {
            let lines = self.app.store.links(self.job, behind, ROUNDS_PER_FILE).await;
            let lines = lines.map_err(io::Error::other)?;
            if lines.is_empty() {
                return Ok(());
            }
            let mut text = String::new();
            for line in &lines {
                text += &serde_json::to_string(line)?;
                text.push('\n');
            }
            self.file(&rounds_file(behind), text.into()).await?;
            behind += ROUNDS_PER_FILE;
        }
    }

    async fn blob(&self, name: String, id: BlobId) -> io::Result<()> {
        let blobs = self.app.blobs.clone();
        let frame = tokio::task::spawn_blocking(move || blobs.get(id)).await?;
        self.file(&name, frame.map_err(io::Error::other)?).await
    }

    async fn file(&self, name: &str, content: Bytes) -> io::Result<()> {
        let bytes = content.len() as u64;
        self.send(Bytes::copy_from_slice(&tar::header(name, bytes))).await?;
        self.send(content).await?;
        self.send(Bytes::from_static(&tar::END[..tar::padding(bytes)])).await
    }

    async fn send(&self, piece: Bytes) -> io::Result<()> {
        let gone = |_| io::Error::other("the reader has gone");
        tokio::time::timeout(STALLED, self.out.send(Ok(piece))).await?.map_err(gone)
    }
}
