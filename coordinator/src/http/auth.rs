//! Who asks: `Authorization: Bearer rk_…`, and whether its key may.

use super::{App, Problem};
use crate::keys::ApiKey;
use crate::scopes::{Scope, Scopes};
use crate::store::{KeyId, KnownKey};
use crate::time::UnixMs;
use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

/// The account that owns what the request is about. Its key may do what the route is for.
#[derive(Clone, Copy, Debug)]
pub struct Owner(pub KeyId);

/// The same, with what is known of the key.
#[derive(Clone, Copy, Debug)]
pub struct Caller(pub KnownKey);

/// The token of a `Bearer` authorization.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What a key must be allowed for a route, by the route's own form. One that
/// stands in no line here takes keys that may do everything.
fn needed(route: &str) -> Scopes {
    let parts: Vec<&str> = route.strip_prefix("/v1/").unwrap_or_default().split('/').collect();
    match parts[..] {
        ["jobs" | "quotes", ..] => Scope::Jobs.into(),
        ["datasets" | "uploads", ..] => Scope::Datasets.into(),
        // What a site has earned is money, and goes with it.
        ["sites", _, "account" | "spend" | "withdrawals" | "hand-over", ..] => {
            Scope::Account.into()
        }
        ["sites", ..] => Scope::Sites.into(),
        // Whoever recovers an account, or has a passkey of it, may do everything.
        ["account", "recovery-code"] | ["account", "passkeys", ..] => Scopes::ALL,
        ["account", ..] | ["accounts", _, "transfer"] => Scope::Account.into(),
        ["keys" | "accounts", ..] => Scope::Keys.into(),
        _ => Scopes::ALL,
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)
            .ok_or_else(|| Problem::unauthorized("send Authorization: Bearer rk_…"))?;
        let key = ApiKey::parse(token).map_err(|error| Problem::unauthorized(error.to_string()))?;
        let known = app.store.known_key(&key, UnixMs::now()).await?;
        let known = known.ok_or_else(|| {
            Problem::unauthorized("the API key is unknown, revoked, or its time is over")
        })?;
        let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        match known.scopes.lacks(needed(route)) {
            None => Ok(Caller(known)),
            Some(scope) => Err(Problem::scope(scope)),
        }
    }
}

impl FromRequestParts<App> for Owner {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Caller(known) = Caller::from_request_parts(parts, app).await?;
        Ok(Owner(known.account))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_needs_what_it_is_about_and_others_need_everything() {
        for (route, scope) in [
            ("/v1/jobs/{id}/model", Scope::Jobs),
            ("/v1/quotes", Scope::Jobs),
            ("/v1/uploads/{id}", Scope::Datasets),
            ("/v1/sites/{id}/verify", Scope::Sites),
            ("/v1/sites/{id}/spend", Scope::Account),
            ("/v1/sites/{id}/withdrawals", Scope::Account),
            ("/v1/sites/{id}/hand-over", Scope::Account),
            ("/v1/account/withdrawals/{id}", Scope::Account),
            ("/v1/sites/{id}/account/receipts/{number}", Scope::Account),
            ("/v1/account", Scope::Account),
            ("/v1/account/receipts/{number}", Scope::Account),
            ("/v1/keys/{id}", Scope::Keys),
            ("/v1/accounts/{id}/transfer", Scope::Account),
            ("/v1/accounts/{id}/keys/{key}", Scope::Keys),
            ("/v1/accounts", Scope::Keys),
        ] {
            assert_eq!(needed(route), scope.into(), "{route}");
        }
        for route in [
            "",
            "/v1/account/recovery-code",
            "/v1/account/passkeys",
            "/v1/account/passkeys/{id}",
            "/v1/else",
            "/jobs",
            "/v1/",
        ] {
            assert_eq!(needed(route), Scopes::ALL, "{route}");
        }
    }
}
