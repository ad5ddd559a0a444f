//! Extractors whose refusals are problems, like every other answer: axum's own
//! answer in plain text.

use super::{App, Problem};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path as AxumPath, Query as AxumQuery};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

/// Parameters of the route's path.
#[derive(Clone, Debug)]
pub struct Path<T>(pub T);

/// The query string.
#[derive(Clone, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let found = AxumPath::from_request_parts(parts, app).await;
        let AxumPath(value) = found.map_err(|rejection: PathRejection| {
            if rejection.status() == StatusCode::INTERNAL_SERVER_ERROR {
                return Problem::internal(&rejection.body_text());
            }
            Problem::malformed(rejection.body_text()).with_field("path")
        })?;
        Ok(Path(value))
    }
}

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let found = AxumQuery::from_request_parts(parts, app).await;
        let AxumQuery(value) = found.map_err(|rejection: QueryRejection| {
            Problem::malformed(rejection.body_text()).with_field("query")
        })?;
        Ok(Query(value))
    }
}
