//! JSON bodies, with the path of what is wrong in them.

use super::{App, Problem};
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of a JSON body: a job with the longest list of layers is far below.
pub const JSON_BYTES_MAX: usize = 1 << 20;

/// Of a body that is too large, so much is read and thrown away before it is
/// refused: a client that is still sending when the connection closes sees a
/// broken pipe instead of the answer.
const DRAINED_BYTES_MAX: usize = 64 << 20;

/// For a whole JSON body to come. Its key was looked at before, and nobody keeps a
/// request open for long; the largest one needs 17 KiB a second.
const WHOLE: Duration = Duration::from_secs(60);

/// A JSON body, and the BLAKE3 digest of its bytes.
#[derive(Clone, Debug)]
pub struct JsonBody<T>(pub T, pub [u8; 32]);

/// A body of at most [`JSON_BYTES_MAX`] as it came, for routes where none is an answer too.
#[derive(Clone, Debug)]
pub struct RawBody(pub Vec<u8>);

impl FromRequest<App> for RawBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        read(request.into_body(), WHOLE).await.map(RawBody)
    }
}

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        let bytes = read(request.into_body(), WHOLE).await?;
        let digest = *blake3::hash(&bytes).as_bytes();
        parse(&bytes).map(|value| JsonBody(value, digest))
    }
}

/// Reads a whole body of at most [`JSON_BYTES_MAX`], for no longer than `whole`.
async fn read(body: Body, whole: Duration) -> Result<Vec<u8>, Problem> {
    let late = |_| {
        let detail = format!("the body has not come whole within {} s", whole.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "The request is too slow", detail)
    };
    timeout(whole, read_all(body)).await.map_err(late)?
}

async fn read_all(body: Body) -> Result<Vec<u8>, Problem> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream::{iter, pending};
    use std::convert::Infallible;

    #[tokio::test]
    async fn a_body_that_trickles_is_given_up_however_often_something_comes() {
        let piece = || Ok::<_, Infallible>(vec![b' ']);
        let trickle = futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some((piece(), ()))
        });
        let three = || iter([(); 3].map(|()| piece()));
        let never = three().chain(pending());
        for body in [Body::from_stream(trickle), Body::from_stream(never)] {
            let problem = read(body, Duration::from_millis(50)).await.expect_err("too slow");
            assert_eq!(problem.status(), StatusCode::REQUEST_TIMEOUT);
        }
        let whole = Body::from_stream(three());
        assert_eq!(read(whole, Duration::from_secs(60)).await.expect("whole"), b"   ");
    }
}
