//! `/` and what the live network page loads.

use super::{App, Problem};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// uPlot sets the sizes of what it draws by style attributes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

pub fn routes() -> Router<App> {
    Router::new().route("/", get(index))
}

async fn index(State(app): State<App>, headers: HeaderMap) -> Response {
    serve(&app, "", &headers)
        .unwrap_or_else(|| "Raven's coordinator. /v1/stats has the network.\n".into_response())
}

/// A file of the page, or that there is no such route.
pub async fn file_or_nothing(
    State(app): State<App>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = uri.path().strip_prefix('/').filter(|_| method == Method::GET);
    path.and_then(|path| serve(&app, path, &headers))
        .ok_or_else(|| Problem::not_found("there is no such route; API.md lists them"))
}

fn serve(app: &App, path: &str, headers: &HeaderMap) -> Option<Response> {
    let mut response = app.www.file(path)?.response(headers);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // Names of built files need not change with their content.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(response)
}
