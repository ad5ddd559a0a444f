//! `/v1/datasets`: streamed uploads.

use super::auth::Owner;
use super::{App, Problem, body};
use crate::dataset::{DatasetError, DatasetFacts, DatasetSpec, Upload, UploadLimits, ingest};
use crate::random;
use crate::store::{DatasetId, DatasetRow};
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use std::path::{Path as FilePath, PathBuf};
use tokio::io::AsyncWriteExt;

/// Entries of one answer.
const LIST_MAX: u32 = 100;

pub fn routes(limits: &UploadLimits) -> Router<App> {
    let limit = usize::try_from(limits.body_bytes_max).unwrap_or(usize::MAX);
    let upload = post(upload).layer(DefaultBodyLimit::max(limit));
    Router::new().route("/v1/datasets", upload.get(list)).route("/v1/datasets/{id}", get(show))
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

/// Finds an owner's data set by the text of its id.
pub async fn find(app: &App, owner: Owner, text: &str) -> Result<Option<DatasetRow>, Problem> {
    let Ok(id) = text.parse::<DatasetId>() else { return Ok(None) };
    Ok(app.store.dataset(owner.0, id).await?)
}

async fn list(State(app): State<App>, owner: Owner) -> Result<Json<DatasetList>, Problem> {
    let rows = app.store.datasets(owner.0, LIST_MAX).await?;
    Ok(Json(DatasetList { datasets: rows.into_iter().map(answer).collect() }))
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
    request: Request,
) -> Result<(StatusCode, Json<DatasetAnswer>), Problem> {
    let limits = app.settings.upload_limits;
    let held = app.store.dataset_bytes(owner.0).await?;
    if held >= app.settings.dataset_bytes_max {
        return Err(Problem::quota("bytes of data sets", app.settings.dataset_bytes_max, held));
    }
    app.room()?;
    let _permit = app.uploads.clone().try_acquire_owned().map_err(|_| {
        Problem::unavailable("as many uploads as this coordinator takes are going on")
    })?;
    // Only now, with a known key, is any of the body read.
    let mut multipart = Multipart::from_request(request, &app)
        .await
        .map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let spec = read_spec(&mut multipart, &limits).await?;
    spec.check().map_err(refusal)?;
    let folder = Folder::create(&app.settings.upload_folder).await?;
    let files = receive(&mut multipart, &spec, &folder.0, &limits).await?;
    let stored = store(&app, owner, spec, files, folder).await?;
    Ok((StatusCode::CREATED, Json(answer(stored))))
}

async fn read_spec(
    multipart: &mut Multipart,
    limits: &UploadLimits,
) -> Result<DatasetSpec, Problem> {
    let first = next_part(multipart, limits).await?;
    let mut part = first
        .filter(|part| part.name() == Some("spec"))
        .ok_or_else(|| Problem::invalid("the first part must be spec").with_field("spec"))?;
    let mut text = Vec::new();
    while let Some(chunk) = part.chunk().await.map_err(|error| interrupted(&error, limits))? {
        if text.len() + chunk.len() > limits.spec_bytes_max {
            let limit = limits.spec_bytes_max as u64;
            return Err(Problem::invalid(format!("spec: more than {limit} bytes"))
                .with_field("spec")
                .with_limit(limit, None));
        }
        text.extend_from_slice(&chunk);
    }
    body::parse(&text).map_err(|problem| problem.within("spec"))
}

async fn receive(
    multipart: &mut Multipart,
    spec: &DatasetSpec,
    folder: &FilePath,
    limits: &UploadLimits,
) -> Result<Upload, Problem> {
    let mut files = Upload::default();
    while let Some(part) = next_part(multipart, limits).await? {
        let name = files.expect(spec.format, part.name().unwrap_or("")).map_err(refusal)?;
        let path = folder.join(name);
        save(part, &path, limits).await?;
        files.add(name, path);
    }
    Ok(files)
}

async fn save(mut part: Field<'_>, path: &FilePath, limits: &UploadLimits) -> Result<(), Problem> {
    let failed = |error: std::io::Error| Problem::disk(&error);
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    while let Some(chunk) = part.chunk().await.map_err(|error| interrupted(&error, limits))? {
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}

async fn next_part<'a>(
    multipart: &'a mut Multipart,
    limits: &UploadLimits,
) -> Result<Option<Field<'a>>, Problem> {
    multipart.next_field().await.map_err(|error| interrupted(&error, limits))
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
) -> Result<DatasetRow, Problem> {
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
        let row = DatasetRow { id: DatasetId(random::nonzero_u64()), facts: ingested.facts };
        if let Err(error) = app.store.add_dataset(owner.0, &row, &ingested.shards).await {
            let blobs = app.blobs.clone();
            tokio::task::spawn_blocking(move || {
                for blob in ingested.created {
                    // What stays is removed at the next start.
                    let _ = blobs.remove(blob);
                }
            })
            .await?;
            return Err(Problem::from(error));
        }
        Ok(row)
    };
    tokio::spawn(work).await?
}
