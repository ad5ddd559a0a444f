//! `/v1/datasets`: streamed uploads.

use super::auth::Owner;
use super::extract::Path;
use super::idempotency::{Claim, Once, Turn};
use super::pace::Pace;
use super::{App, Problem, body, certificates, proof, uploads};
use crate::dataset::{DatasetError, DatasetFacts, DatasetSpec, Upload, UploadLimits, ingest};
use crate::random;
use crate::store::{DatasetId, DatasetRow, Removal, UploadId};
use axum::body::Bytes;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use raven_protocol::BlobId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use tokio::io::AsyncWriteExt;

/// Entries of one answer.
const LIST_MAX: u32 = 100;

pub fn routes(limits: &UploadLimits) -> Router<App> {
    let limit = usize::try_from(limits.body_bytes_max).unwrap_or(usize::MAX);
    let upload = post(upload).layer(DefaultBodyLimit::max(limit));
    Router::new()
        .route("/v1/datasets", upload.get(list))
        .route("/v1/datasets/{id}", get(show).delete(remove))
}

/// A data set as the API shows it.
#[derive(Debug, Serialize)]
struct DatasetAnswer {
    id: String,
    #[serde(flatten)]
    facts: DatasetFacts,
}

#[derive(Debug, Serialize)]
struct DatasetList {
    datasets: Vec<DatasetAnswer>,
}

fn answer(DatasetRow { id, facts }: DatasetRow) -> DatasetAnswer {
    DatasetAnswer { id: id.to_string(), facts }
}

/// An entry of the list: a table of many columns would make it long.
fn entry(row: DatasetRow) -> DatasetAnswer {
    let mut entry = answer(row);
    entry.facts.table = None;
    entry
}

/// Finds an owner's data set by the text of its id.
pub async fn find(app: &App, owner: Owner, text: &str) -> Result<Option<DatasetRow>, Problem> {
    let Ok(id) = text.parse::<DatasetId>() else { return Ok(None) };
    Ok(app.store.dataset(owner.0, id).await?)
}

async fn list(State(app): State<App>, owner: Owner) -> Result<Json<DatasetList>, Problem> {
    let rows = app.store.datasets(owner.0, LIST_MAX).await?;
    Ok(Json(DatasetList { datasets: rows.into_iter().map(entry).collect() }))
}

async fn show(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json<DatasetAnswer>, Problem> {
    let row = find(&app, owner, &id).await?;
    let row = row.ok_or_else(|| Problem::not_found("no data set of this key has that id"))?;
    Ok(Json(answer(row)))
}

async fn remove(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let unknown = || Problem::not_found("no data set of this key has that id");
    let id = find(&app, owner, &id).await?.ok_or_else(unknown)?.id;
    match delete(&app, id).await? {
        Removal::Removed { .. } => Ok(StatusCode::NO_CONTENT),
        Removal::Unknown => Err(unknown()),
        Removal::InUse { jobs } => {
            let detail = format!("{jobs} jobs that have not ended use this data set");
            Err(Problem::conflict(detail).with_found(jobs))
        }
    }
}

/// Deletes a data set with the blobs that are its own. It goes on where the
/// client gives up waiting.
pub async fn delete(app: &App, id: DatasetId) -> Result<Removal, Problem> {
    let app = app.clone();
    let work = async move {
        // An upload of the same rows must not find blobs that go a moment later.
        let _turn = app.ingestion.clone().lock_owned().await;
        // Afterwards it would be too late to say what its models are made of.
        certificates::issue_waiting(&app, Some(id)).await?;
        let removal = app.store.remove_dataset(id).await?;
        if let Removal::Removed { blobs } = &removal {
            remove_blobs(&app, blobs.clone()).await?;
            proof::remove_evidence(&app).await?;
        }
        Ok(removal)
    };
    tokio::spawn(work).await?
}

async fn remove_blobs(app: &App, ids: Vec<BlobId>) -> Result<(), Problem> {
    let blobs = app.blobs.clone();
    let work = move || {
        for id in ids {
            // What stays is removed at the next start.
            let _ = blobs.remove(id);
        }
    };
    Ok(tokio::task::spawn_blocking(work).await?)
}

/// A folder for one upload's files, removed with everything in it at the end.
struct Folder(PathBuf);

impl Folder {
    async fn create(parent: &FilePath) -> Result<Self, Problem> {
        let name = format!("{:016x}", random::nonzero_u64());
        let folder = Folder(parent.join(name));
        tokio::fs::create_dir_all(&folder.0).await.map_err(|error| Problem::disk(&error))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is removed at the next start.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn upload(
    State(app): State<App>,
    owner: Owner,
    once: Once,
    request: Request,
) -> Result<Response, Problem> {
    let limits = app.settings.upload_limits;
    // Measured again where the data set is stored; here it saves the upload.
    let held = app.store.dataset_bytes(owner.0).await?;
    if !once.is_named() && held >= app.settings.dataset_bytes_max {
        return Err(Problem::quota("bytes of data sets", app.settings.dataset_bytes_max, held));
    }
    app.room()?;
    let _permit = app.uploads.clone().try_acquire_owned().map_err(|_| {
        Problem::unavailable("as many uploads as this coordinator takes are going on")
    })?;
    // Only now, with a known key, is any of the body read.
    let kind = request.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
        return from_uploads(&app, owner, once, request).await;
    }
    let multipart = Multipart::from_request(request, &app)
        .await
        .map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let (pace, digest) = (Pace::new(&limits), blake3::Hasher::new());
    let mut form = Form { multipart, limits, pace, digest };
    let spec = form.spec().await?;
    spec.check().map_err(refusal)?;
    let folder = Folder::create(&app.settings.upload_folder).await?;
    let files = form.files(&spec, &folder.0).await?;
    // Boundaries differ from one attempt to the next; what they hold does not.
    let digest = *form.digest.finalize().as_bytes();
    let claim = match once.begin(&app, owner, digest).await? {
        Turn::Answered(answer) => return Ok(answer),
        Turn::Mine(claim) => claim,
    };
    let answer = store(&app, owner, spec, files, folder, claim).await?;
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// A data set whose files came before, in pieces.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UploadedSpec {
    spec: DatasetSpec,
    /// Ids of uploads by the names of the parts.
    files: BTreeMap<String, String>,
}

async fn from_uploads(
    app: &App,
    owner: Owner,
    once: Once,
    request: Request,
) -> Result<Response, Problem> {
    let limits = &app.settings.upload_limits;
    let limit = limits.spec_bytes_max;
    let bytes = axum::body::to_bytes(request.into_body(), limit);
    let bytes: Bytes = Pace::new(limits).wait(bytes).await?.map_err(|error| {
        // Either it is longer than that, or it broke off.
        Problem::malformed(format!("a body of at most {limit} bytes is needed: {error}"))
    })?;
    let UploadedSpec { spec, files } = body::parse(&bytes)?;
    // Before the uploads are looked for: where this was answered, they are used up.
    let claim = match once.begin(app, owner, *blake3::hash(&bytes).as_bytes()).await? {
        Turn::Answered(answer) => return Ok(answer),
        Turn::Mine(claim) => claim,
    };
    spec.check().map_err(refusal)?;
    let folder = Folder::create(&app.settings.upload_folder).await?;
    let mut upload = Upload::default();
    let mut taken: Vec<UploadId> = Vec::new();
    for (name, id) in &files {
        let part = upload.expect(spec.format, name).map_err(refusal)?;
        let field = format!("files.{part}");
        let row = uploads::find(app, owner, id).await.map_err(|problem| {
            if problem.status() == StatusCode::NOT_FOUND {
                Problem::invalid(format!("{field}: no upload of this key has that id"))
                    .with_field(field.as_str())
            } else {
                problem
            }
        })?;
        if !row.complete {
            let detail = format!("{field}: {} of {} bytes are here", row.received, row.bytes);
            return Err(Problem::conflict(detail).with_field(field));
        }
        // A name of its own: the bytes stay while they are read, whatever becomes of the upload.
        let path = folder.0.join(part);
        let linked = tokio::fs::hard_link(uploads::file(app, row.id), &path).await;
        linked.map_err(|error| Problem::internal(&error))?;
        upload.add(part, path);
        taken.push(row.id);
    }
    let answer = store(app, owner, spec, upload, folder, claim).await?;
    for id in taken {
        uploads::discard(app, id).await?;
    }
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// An upload that is being received.
struct Form {
    multipart: Multipart,
    limits: UploadLimits,
    pace: Pace,
    /// Of names and contents of the parts.
    digest: blake3::Hasher,
}

impl Form {
    async fn spec(&mut self) -> Result<DatasetSpec, Problem> {
        let Form { multipart, limits, pace, digest } = self;
        let first = next_part(multipart, limits, pace).await?;
        let mut part = first
            .filter(|part| part.name() == Some("spec"))
            .ok_or_else(|| Problem::invalid("the first part must be spec").with_field("spec"))?;
        let mut text = Vec::new();
        while let Some(chunk) = next_chunk(&mut part, limits, pace).await? {
            if text.len() + chunk.len() > limits.spec_bytes_max {
                let limit = limits.spec_bytes_max as u64;
                return Err(Problem::invalid(format!("spec: more than {limit} bytes"))
                    .with_field("spec")
                    .with_limit(limit, None));
            }
            text.extend_from_slice(&chunk);
        }
        part_digest(digest, "spec", blake3::hash(&text));
        body::parse(&text).map_err(|problem| problem.within("spec"))
    }

    async fn files(&mut self, spec: &DatasetSpec, folder: &FilePath) -> Result<Upload, Problem> {
        let Form { multipart, limits, pace, digest } = self;
        let mut files = Upload::default();
        while let Some(part) = next_part(multipart, limits, pace).await? {
            let name = files.expect(spec.format, part.name().unwrap_or("")).map_err(refusal)?;
            let path = folder.join(name);
            part_digest(digest, name, save(part, &path, limits, pace).await?);
            files.add(name, path);
        }
        Ok(files)
    }
}

/// Adds a part to the digest of an upload.
fn part_digest(digest: &mut blake3::Hasher, name: &str, part: blake3::Hash) {
    digest.update(blake3::hash(name.as_bytes()).as_bytes()).update(part.as_bytes());
}

/// Writes a part to a file; answers its digest.
async fn save(
    mut part: Field<'_>,
    path: &FilePath,
    limits: &UploadLimits,
    pace: &mut Pace,
) -> Result<blake3::Hash, Problem> {
    let mut digest = blake3::Hasher::new();
    let failed = |error: std::io::Error| Problem::disk(&error);
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    while let Some(chunk) = next_chunk(&mut part, limits, pace).await? {
        digest.update(&chunk);
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    Ok(digest.finalize())
}

async fn next_part<'a>(
    multipart: &'a mut Multipart,
    limits: &UploadLimits,
    pace: &mut Pace,
) -> Result<Option<Field<'a>>, Problem> {
    pace.wait(multipart.next_field()).await?.map_err(|error| interrupted(&error, limits))
}

async fn next_chunk(
    part: &mut Field<'_>,
    limits: &UploadLimits,
    pace: &mut Pace,
) -> Result<Option<Bytes>, Problem> {
    let chunk = pace.wait(part.chunk()).await?.map_err(|error| interrupted(&error, limits))?;
    pace.received(chunk.as_ref().map_or(0, Bytes::len));
    Ok(chunk)
}

fn interrupted(error: &MultipartError, limits: &UploadLimits) -> Problem {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::too_large(limits.body_bytes_max)
    } else {
        Problem::malformed(error.body_text())
    }
}

fn refusal(error: DatasetError) -> Problem {
    match &error {
        DatasetError::Io { error } => return Problem::disk(error),
        DatasetError::Blobs { error } => {
            let trouble = error.trouble();
            return trouble.map_or_else(|| Problem::internal(error), Problem::storage);
        }
        _ => {}
    }
    let mut problem =
        Problem::invalid(error.to_string()).named("dataset", "The data set is refused");
    if let Some(field) = error.field() {
        problem = problem.with_field(field);
    }
    match error.limit() {
        Some((limit, found)) => problem.with_limit(limit, Some(found)),
        None => problem,
    }
}

/// Reads the files into shards and stores the data set. It goes on where the
/// client gives up waiting, so that blobs and rows stay in step.
async fn store(
    app: &App,
    owner: Owner,
    spec: DatasetSpec,
    files: Upload,
    folder: Folder,
    claim: Claim,
) -> Result<Value, Problem> {
    let app = app.clone();
    let work = async move {
        let _turn = app.ingestion.clone().lock_owned().await;
        // Until the data set refers to its shards.
        let _hold = app.blobs.hold();
        let (blobs, limits) = (app.blobs.clone(), app.settings.upload_limits);
        let ingested = tokio::task::spawn_blocking(move || ingest(&spec, &files, &blobs, &limits));
        let ingested = ingested.await?;
        // The files were needed until here.
        drop(folder);
        let ingested = ingested.map_err(refusal)?;
        let bytes_max = app.settings.dataset_bytes_max;
        let row = DatasetRow { id: DatasetId(random::nonzero_u64()), facts: ingested.facts };
        let answer =
            serde_json::to_value(answer(row.clone())).map_err(|e| Problem::internal(&e))?;
        let remembered = claim.remember(StatusCode::CREATED, &answer);
        let (shards, remembered) = (&ingested.shards, remembered.as_ref());
        let stored = app.store.add_dataset(owner.0, &row, shards, bytes_max, remembered).await;
        if let Err(error) = stored {
            remove_blobs(&app, ingested.created).await?;
            return Err(Problem::from(error));
        }
        Ok(answer)
    };
    tokio::spawn(work).await?
}
