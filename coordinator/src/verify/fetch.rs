//! Fetching one page of a stranger, bounded in bytes, time, redirects and addresses.

use super::address::{is_local_name, is_local_origin, is_public};
use axum::http::{StatusCode, Uri, header};
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// Time for one page with its redirects, in milliseconds: a reader would have left by then.
pub const PAGE_MS_MAX: u64 = 8_000;
/// Bytes of a page that are read: a tag belongs near its top.
const PAGE_BYTES_MAX: u64 = 1 << 20;
/// Redirects that are followed: to the language, to the start page, to the slash.
const REDIRECTS_MAX: u32 = 3;
/// Longest address that is followed.
const URL_BYTES_MAX: usize = 2_048;
const USER_AGENT: &str = "raven-verify (looks whether a registered page has its tag)";

/// Why a page was not read.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    #[error("{url} is not an address of a page")]
    Malformed { url: String },
    #[error("{url} is not of an origin that is registered for the site")]
    NotRegistered { url: String },
    #[error("{url} is not https; http is read on localhost only, by a coordinator that runs there")]
    NotHttps { url: String },
    #[error("{host} leads to an address that is not public")]
    Address { host: String },
    #[error("{host} has no address")]
    NoHost { host: String },
    #[error("more than {limit} redirects")]
    Redirects { limit: u32 },
    #[error("it took longer than {limit_ms} ms")]
    TimedOut { limit_ms: u64 },
    #[error("the server answers {status}")]
    Status { status: u16 },
    #[error("it is {found:?}, not text/html")]
    NotHtml { found: String },
    #[error("no secure connection could be made: {cause}")]
    Tls { cause: String },
    #[error("it cannot be reached: {cause}")]
    Unreachable { cause: String },
}

impl PageError {
    /// A short name that does not change, for programs.
    pub fn name(&self) -> &'static str {
        match self {
            PageError::Malformed { .. } => "malformed",
            PageError::NotRegistered { .. } => "not_registered",
            PageError::NotHttps { .. } => "not_https",
            PageError::Address { .. } => "address_refused",
            PageError::NoHost { .. } => "no_host",
            PageError::Redirects { .. } => "too_many_redirects",
            PageError::TimedOut { .. } => "timed_out",
            PageError::Status { .. } => "bad_status",
            PageError::NotHtml { .. } => "not_html",
            PageError::Tls { .. } => "tls",
            PageError::Unreachable { .. } => "unreachable",
        }
    }
}

/// A page that was read.
#[derive(Debug)]
pub struct Page {
    /// Its address, after redirects.
    pub url: String,
    pub text: String,
    /// Whether it is longer than what was read.
    pub cut_off: bool,
}

/// Fetches pages of some origins.
pub struct Fetcher<'a> {
    agent: ureq::Agent,
    origins: &'a [String],
    local: bool,
}

impl<'a> Fetcher<'a> {
    /// `local`: pages of this machine may be read, over http too.
    pub fn new(local: bool, origins: &'a [String]) -> Self {
        let config = ureq::Agent::config_builder()
            // Followed here, where each step is checked.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // An environment's proxy would resolve names where no address is checked.
            .proxy(None)
            .user_agent(USER_AGENT)
            .build();
        let resolver = PublicResolver { local, inner: DefaultResolver::default() };
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
        Fetcher { agent, origins, local }
    }

    /// Reads a page, after up to [`REDIRECTS_MAX`] redirects among the origins.
    ///
    /// # Errors
    /// [`PageError`].
    pub fn get(&self, url: &str) -> Result<Page, PageError> {
        let (url, response) = self.follow(url, "text/html")?;
        read(url, response)
    }

    /// Reads at most `bytes_max` of a file of any kind, as text.
    ///
    /// # Errors
    /// [`PageError`].
    pub fn text(&self, url: &str, bytes_max: u64) -> Result<String, PageError> {
        let (url, response) = self.follow(url, "text/plain")?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(PageError::Status { status: status.as_u16() });
        }
        let mut bytes = Vec::new();
        let mut reader = response.into_body().into_reader().take(bytes_max);
        reader.read_to_end(&mut bytes).map_err(|error| named(&url, ureq::Error::from(error)))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Asks for an address and where it leads to; answers the last one.
    fn follow(
        &self,
        url: &str,
        accept: &str,
    ) -> Result<(String, ureq::http::Response<ureq::Body>), PageError> {
        let started = Instant::now();
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            self.check(&url)?;
            let left = Duration::from_millis(PAGE_MS_MAX).saturating_sub(started.elapsed());
            let response = self
                .agent
                .get(&url)
                .config()
                // A timeout of nothing would be none.
                .timeout_global(Some(left.max(Duration::from_millis(1))))
                .build()
                .header(header::ACCEPT, accept)
                .call()
                .map_err(|error| named(&url, error))?;
            let location = response.headers().get(header::LOCATION);
            let Some(location) = location.filter(|_| response.status().is_redirection()) else {
                return Ok((url, response));
            };
            let location = location.to_str().ok().and_then(|location| join(&url, location));
            url = location.ok_or_else(|| PageError::Malformed { url: "a redirect".into() })?;
        }
        Err(PageError::Redirects { limit: REDIRECTS_MAX })
    }

    /// Whether that address may be asked: one of the origins, over https or on this machine.
    ///
    /// # Errors
    /// [`PageError`].
    pub fn check(&self, url: &str) -> Result<(), PageError> {
        let shown = || url.chars().take(200).collect::<String>();
        let origin = origin_of(url).filter(|_| url.len() <= URL_BYTES_MAX);
        let origin = origin.ok_or_else(|| PageError::Malformed { url: shown() })?;
        if !self.origins.contains(&origin) {
            return Err(PageError::NotRegistered { url: shown() });
        }
        let is_local = self.local && is_local_origin(&origin);
        if !origin.starts_with("https://") && !is_local {
            return Err(PageError::NotHttps { url: shown() });
        }
        Ok(())
    }
}

fn read(url: String, response: ureq::http::Response<ureq::Body>) -> Result<Page, PageError> {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(PageError::Status { status: status.as_u16() });
    }
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("").to_ascii_lowercase();
    if !kind.starts_with("text/html") && !kind.starts_with("application/xhtml+xml") {
        return Err(PageError::NotHtml { found: kind.chars().take(80).collect() });
    }
    let mut bytes = Vec::new();
    let mut reader = response.into_body().into_reader().take(PAGE_BYTES_MAX + 1);
    reader.read_to_end(&mut bytes).map_err(|error| named(&url, ureq::Error::from(error)))?;
    let cut_off = bytes.len() as u64 > PAGE_BYTES_MAX;
    bytes.truncate(PAGE_BYTES_MAX as usize);
    Ok(Page { url, text: String::from_utf8_lossy(&bytes).into_owned(), cut_off })
}

fn named(url: &str, error: ureq::Error) -> PageError {
    let host = || url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    let host = || host().unwrap_or_default();
    match error {
        ureq::Error::Timeout(_) => PageError::TimedOut { limit_ms: PAGE_MS_MAX },
        ureq::Error::HostNotFound => PageError::NoHost { host: host() },
        ureq::Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<NotPublic>()) => {
            PageError::Address { host: host() }
        }
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            PageError::TimedOut { limit_ms: PAGE_MS_MAX }
        }
        ureq::Error::Tls(cause) => PageError::Tls { cause: cause.to_owned() },
        ureq::Error::Rustls(cause) => PageError::Tls { cause: cause.to_string() },
        error => PageError::Unreachable { cause: error.to_string() },
    }
}

/// The origin of an address as browsers write it; none where it has none of http or https.
pub fn origin_of(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let authority = uri.authority()?;
    // Names and passwords are for people, not for pages.
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host().to_ascii_lowercase();
    Some(match authority.port_u16() {
        Some(port) if port != default_port => format!("{scheme}://{host}:{port}"),
        // A port that is no number is not left out.
        None if authority.port().is_some() => return None,
        _ => format!("{scheme}://{host}"),
    })
}

/// The address that `reference` means on the page `base`.
pub fn join(base: &str, reference: &str) -> Option<String> {
    let reference = reference.trim();
    let scheme_end = reference.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
    if scheme_end.is_some_and(|end| end > 0 && reference[end..].starts_with(':')) {
        return Some(reference.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    if reference.starts_with("//") {
        return Some(format!("{scheme}:{reference}"));
    }
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let path = path.split(['?', '#']).next().unwrap_or("");
    if reference.starts_with('/') {
        return Some(format!("{scheme}://{authority}{reference}"));
    }
    let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
    Some(format!("{scheme}://{authority}{folder}{reference}"))
}

/// What the resolver says of an address that may not be asked.
#[derive(Debug)]
struct NotPublic;

impl fmt::Display for NotPublic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not a public address")
    }
}

impl std::error::Error for NotPublic {}

/// Resolves names to public addresses only. It is asked for every connection,
/// so a name whose address changes between two looks gains nothing.
struct PublicResolver {
    local: bool,
    inner: DefaultResolver,
}

impl fmt::Debug for PublicResolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PublicResolver").field("local", &self.local).finish()
    }
}

impl Resolver for PublicResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let refused = || ureq::Error::Io(io::Error::other(NotPublic));
        let host = uri.host().unwrap_or("").to_ascii_lowercase();
        let mut allowed = self.empty();
        if is_local_name(&host) {
            if !self.local {
                return Err(refused());
            }
            let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
            let port = uri.port_u16().unwrap_or(default_port);
            allowed.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
            return Ok(allowed);
        }
        let found = self.inner.resolve(uri, config, timeout)?;
        // A loopback address is given as such, never as what a name leads to.
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let may = |address: IpAddr| {
            is_public(address) || (self.local && literal && address.is_loopback())
        };
        found.iter().filter(|found| may(found.ip())).for_each(|found| allowed.push(*found));
        if allowed.is_empty() { Err(refused()) } else { Ok(allowed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_as_browsers_do() {
        let base = "https://a.example/b/c?d#e";
        for (reference, url) in [
            ("https://x.example/y", "https://x.example/y"),
            ("//x.example/y", "https://x.example/y"),
            ("/y?z", "https://a.example/y?z"),
            ("y", "https://a.example/b/y"),
            ("", "https://a.example/b/"),
        ] {
            assert_eq!(join(base, reference).as_deref(), Some(url), "{reference}");
        }
        assert_eq!(join("https://a.example", "y").as_deref(), Some("https://a.example/y"));
    }

    #[test]
    fn origins_have_one_spelling() {
        for (url, origin) in [
            ("https://A.example:443/x", Some("https://a.example")),
            ("http://a.example:8080", Some("http://a.example:8080")),
            ("http://[::1]:80/", Some("http://[::1]")),
            ("https://user@a.example/", None),
            ("ftp://a.example/", None),
            ("javascript:alert(1)", None),
            ("/path", None),
            ("", None),
        ] {
            assert_eq!(origin_of(url).as_deref(), origin, "{url}");
        }
    }

    #[test]
    fn only_registered_origins_over_https_are_asked() {
        let origins =
            ["https://a.example", "http://a.example", "http://127.0.0.1:9"].map(str::to_owned);
        let reason =
            |local, url: &str| Fetcher::new(local, &origins).check(url).err().map(|e| e.name());
        assert_eq!(reason(false, "https://a.example/x"), None);
        assert_eq!(reason(false, "https://b.example/x"), Some("not_registered"));
        assert_eq!(reason(true, "http://a.example/x"), Some("not_https"));
        assert_eq!(reason(false, "http://127.0.0.1:9/"), Some("not_https"));
        assert_eq!(reason(true, "http://127.0.0.1:9/"), None);
        assert_eq!(reason(true, "nonsense"), Some("malformed"));
        let long = format!("https://a.example/{}", "x".repeat(URL_BYTES_MAX));
        assert_eq!(reason(true, &long), Some("malformed"));
    }

    #[test]
    fn private_addresses_are_refused_before_a_connection() {
        let origins =
            ["https://127.0.0.1:1", "https://10.0.0.1", "https://[::1]", "https://x.localhost:1"]
                .map(str::to_owned);
        for origin in &origins {
            let error = Fetcher::new(false, &origins).get(origin).expect_err("refused");
            assert_eq!(error.name(), "address_refused", "{error}");
        }
    }
}
