//! Who asks: `Authorization: Bearer rk_…`.

use super::{App, Problem};
use crate::keys::ApiKey;
use crate::store::KeyId;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

/// The owner of what the request is about.
#[derive(Clone, Copy, Debug)]
pub struct Owner(pub KeyId);

/// The token of a `Bearer` authorization.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl FromRequestParts<App> for Owner {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)
            .ok_or_else(|| Problem::unauthorized("send Authorization: Bearer rk_…"))?;
        let key = ApiKey::parse(token).map_err(|error| Problem::unauthorized(error.to_string()))?;
        match app.store.find_key(&key).await? {
            Some(id) => Ok(Owner(id)),
            None => Err(Problem::unauthorized("the API key is unknown or revoked")),
        }
    }
}
