//! JSON bodies, with the path of what is wrong in them.

use super::{App, Problem};
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

/// Bytes of a JSON body: a job with the longest list of layers is far below.
pub const JSON_BYTES_MAX: usize = 1 << 20;

/// Of a body that is too large, so much is read and thrown away before it is
/// refused: a client that is still sending when the connection closes sees a
/// broken pipe instead of the answer.
const DRAINED_BYTES_MAX: usize = 64 << 20;

/// A JSON body, and the BLAKE3 digest of its bytes.
#[derive(Clone, Debug)]
pub struct JsonBody<T>(pub T, pub [u8; 32]);

/// A body of at most [`JSON_BYTES_MAX`] as it came, for routes where none is an answer too.
#[derive(Clone, Debug)]
pub struct RawBody(pub Vec<u8>);

impl FromRequest<App> for RawBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        read(request.into_body()).await.map(RawBody)
    }
}

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        let bytes = read(request.into_body()).await?;
        let digest = *blake3::hash(&bytes).as_bytes();
        parse(&bytes).map(|value| JsonBody(value, digest))
    }
}

/// Reads a whole body of at most [`JSON_BYTES_MAX`].
async fn read(body: Body) -> Result<Vec<u8>, Problem> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut total) = (Vec::new(), 0usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Problem::malformed(format!("body: {error}")))?;
        total = total.saturating_add(chunk.len());
        if total <= JSON_BYTES_MAX {
            bytes.extend_from_slice(&chunk);
        } else if total > DRAINED_BYTES_MAX {
            break;
        }
    }
    if total > JSON_BYTES_MAX {
        return Err(Problem::too_large(JSON_BYTES_MAX as u64));
    }
    Ok(bytes)
}

/// Reads a JSON document.
///
/// # Errors
/// [`Problem`] with the path of the field.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        // Where a value is cut off, the path ends in a question mark.
        let path = error.path().to_string();
        let path = path.trim_end_matches('?').trim_end_matches('.').to_owned();
        let inner = error.into_inner();
        let problem = if inner.is_data() {
            Problem::invalid(inner.to_string())
        } else {
            Problem::malformed(inner.to_string())
        };
        if path.is_empty() { problem } else { problem.with_field(path) }
    })?;
    deserializer.end().map_err(|error| Problem::malformed(error.to_string()))?;
    Ok(value)
}
