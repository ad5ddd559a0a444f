//! `/v1/blobs/{id}`: data shards for contributors that hold a grant.

use super::auth::bearer;
use super::extract::Path;
use super::{App, Problem};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use raven_engine::Cause;
use raven_protocol::BlobId;

pub fn routes() -> Router<App> {
    Router::new().route("/v1/blobs/{id}", get(blob))
}

async fn blob(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let token = bearer(&headers)
        .ok_or_else(|| Problem::unauthorized("send the session's grant as a bearer token"))?;
    // One answer for blobs that are not there and blobs of others.
    let hidden = || Problem::forbidden("the grant does not cover such a blob");
    let id: BlobId = id.parse().map_err(|_| hidden())?;
    if !app.network.grant_allows(token, id) {
        return Err(hidden());
    }
    let tag = format!("\"{id}\"");
    if headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let blobs = app.blobs.clone();
    let frame = tokio::task::spawn_blocking(move || blobs.get(id)).await?;
    let frame = match frame {
        Ok(frame) => frame,
        Err(error) => {
            if error.is_damage() {
                app.blobs.note_damage(id);
                tokio::spawn(end_jobs_on(app, id, error.to_string()));
            }
            return Err(Problem::internal(&error));
        }
    };
    let answer = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        // The id is the content: it never changes, and belongs to this visitor's session only.
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned()),
        (header::ETAG, tag),
        (header::VARY, "authorization".to_owned()),
    ];
    Ok((answer, frame).into_response())
}

/// Ends the jobs that need a shard which is damaged: no contributor will ever
/// be able to do their tasks. It goes on where the client hangs up.
async fn end_jobs_on(app: App, shard: BlobId, error: String) {
    let jobs = match app.store.open_jobs_on(shard).await {
        Ok(jobs) => jobs,
        Err(error) => return tracing::error!(%shard, %error, "a shard's jobs were not found"),
    };
    for job in jobs {
        let reason = format!("its data is damaged: {error}");
        tracing::error!(%job, %reason, "a job cannot go on");
        // Stored first: an end is final, so the network's own record of it changes nothing.
        if let Err(error) = app.store.end_job(job, Cause::Coordinator, Some(&reason)).await {
            tracing::error!(%job, %error, "a job's end was not stored");
        }
        // Where the network is gone, so is the job's work.
        let _ = app.network.cancel_job(job).await;
    }
}
