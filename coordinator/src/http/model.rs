//! `/v1/jobs/{id}/model` and the script that runs it.

use super::auth::Owner;
use super::extract::Path;
use super::{App, Problem, jobs};
use crate::blobs::BlobError;
use crate::job::TensorSpec;
use crate::model_file::{self, DataNote, ModelFile};
use crate::store::{CheckpointRow, JobRow};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use raven_graph::{DType, TensorType};

/// The script, with one place for the file's digest.
const LOAD_MODEL: &str = include_str!("load_model.py");
const DIGEST_PLACE: &str = "{{sha256}}";

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/jobs/{id}/model", get(model))
        .route("/v1/jobs/{id}/model/load_model.py", get(script))
}

/// The state that the model is made of: the best, or the last where none was measured.
async fn checkpoint(app: &App, row: &JobRow) -> Result<Option<CheckpointRow>, Problem> {
    let kept = app.store.checkpoints(row.id).await?;
    let best = kept.iter().find(|checkpoint| checkpoint.best).or(kept.last());
    Ok(best.copied())
}

/// Writes the model file; `None` before the first checkpoint.
async fn build(app: &App, row: &JobRow) -> Result<Option<ModelFile>, Problem> {
    let Some(checkpoint) = checkpoint(app, row).await? else { return Ok(None) };
    let dataset = app.store.dataset_facts(row.dataset).await?;
    let dataset = dataset.ok_or_else(|| Problem::internal(&"a job's data set is gone"))?;
    let (blobs, row) = (app.blobs.clone(), row.clone());
    let built = tokio::task::spawn_blocking(move || {
        let frame = match blobs.get(checkpoint.weights) {
            Ok(frame) => frame,
            // A running job's older states come and go.
            Err(BlobError::Missing { .. }) if !row.phase.is_end() => return Ok(None),
            Err(error) => return Err(Problem::internal(&error)),
        };
        let params: Vec<TensorSpec> = row
            .facts
            .params
            .iter()
            .map(|param| TensorSpec {
                name: param.name.clone(),
                ty: TensorType::new(DType::F32, param.shape.clone()),
            })
            .collect();
        let note = DataNote {
            features: &dataset.features,
            scale: dataset.scale,
            target: dataset.target,
            table: dataset.table.as_ref(),
        };
        model_file::write(&frame, &params, &row.spec.model, &note)
            .map(Some)
            .map_err(|error| Problem::internal(&error))
    });
    built.await?
}

/// The digest of an ended job's model, kept from then on.
pub async fn digest(app: &App, row: &JobRow) -> Result<Option<String>, Problem> {
    let Some(file) = build(app, row).await? else { return Ok(None) };
    app.store.set_model_sha256(row.id, &file.sha256).await?;
    Ok(Some(file.sha256))
}

/// The checkpoint and the digest of an ended job's model.
pub async fn certified(
    app: &App,
    row: &JobRow,
) -> Result<Option<(CheckpointRow, String)>, Problem> {
    let Some(checkpoint) = checkpoint(app, row).await? else { return Ok(None) };
    let sha256 = match &row.model_sha256 {
        Some(sha256) => Some(sha256.clone()),
        None => digest(app, row).await?,
    };
    Ok(sha256.map(|sha256| (checkpoint, sha256)))
}

async fn find(app: &App, owner: Owner, id: &str) -> Result<(JobRow, ModelFile), Problem> {
    let row = jobs::find(app, owner, id).await?;
    let file = build(app, &row)
        .await?
        .ok_or_else(|| Problem::conflict("the job has no checkpoint yet").with_field("state"))?;
    Ok((row, file))
}

async fn model(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (row, file) = find(&app, owner, &id).await?;
    if row.phase.is_end() && row.model_sha256.is_none() {
        app.store.set_model_sha256(row.id, &file.sha256).await?;
    }
    let tag = format!("\"{}\"", file.sha256);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let name = format!("attachment; filename=\"{}.safetensors\"", row.id);
    let answer = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, name),
        (header::ETAG, tag),
    ];
    Ok((answer, file.bytes).into_response())
}

async fn script(
    State(app): State<App>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (_, file) = find(&app, owner, &id).await?;
    let answer = [
        (header::CONTENT_TYPE, "text/x-python; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"load_model.py\""),
    ];
    Ok((answer, LOAD_MODEL.replace(DIGEST_PLACE, &file.sha256)).into_response())
}
