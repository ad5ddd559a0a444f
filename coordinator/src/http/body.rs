//! JSON bodies, with the path of what is wrong in them.

use super::{App, Problem};
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

/// Bytes of a JSON body: a job with the longest list of layers is far below.
pub const JSON_BYTES_MAX: usize = 1 << 20;

/// A JSON body, and the BLAKE3 digest of its bytes.
#[derive(Clone, Debug)]
pub struct JsonBody<T>(pub T, pub [u8; 32]);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, app).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                Problem::too_large(JSON_BYTES_MAX as u64)
            } else {
                Problem::malformed(rejection.body_text())
            }
        })?;
        let digest = *blake3::hash(&bytes).as_bytes();
        parse(&bytes).map(|value| JsonBody(value, digest))
    }
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
