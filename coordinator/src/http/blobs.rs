//! `/v1/blobs/{id}`: data shards for contributors that hold a grant.

use super::auth::bearer;
use super::extract::Path;
use super::{App, Problem};
use crate::blobs::BlobError;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
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
    let frame = frame.map_err(|error| match error {
        BlobError::Missing { .. } => hidden(),
        error => Problem::internal(&error),
    })?;
    let answer = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        // The id is the content: it never changes, and belongs to this visitor's session only.
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned()),
        (header::ETAG, tag),
        (header::VARY, "authorization".to_owned()),
    ];
    Ok((answer, frame).into_response())
}
