//! Partner sites: their origins, keys and the tag that they paste.

use crate::random;
use crate::store::{Book, SiteRow};
use raven_engine::{CategorySet, SiteId};

/// Bytes of a site's name; it is shown in the frame.
const NAME_BYTES_MAX: usize = 100;
/// Origins of one site.
const ORIGINS_MAX: usize = 32;
/// Bytes of an origin: a host name has 253 at most.
const ORIGIN_BYTES_MAX: usize = 300;

/// Why a site is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    #[error("name: {found} bytes, must be 1 to {limit} bytes without control characters")]
    Name { limit: usize, found: usize },
    #[error("origins: {found} given, must be 1 to {limit}")]
    Origins { limit: usize, found: usize },
    #[error("allowed_categories: {found} given, must be at least {limit}, or null for all")]
    Allowed { limit: usize, found: usize },
    #[error("{field}: no kind of jobs would be left; a site that wants none is paused")]
    NothingLeft { field: &'static str },
    #[error("origins[{index}]: {rule}")]
    Origin { index: usize, rule: &'static str },
}

impl SiteError {
    /// The field at fault.
    pub fn field(&self) -> String {
        match self {
            SiteError::Name { .. } => "name".into(),
            SiteError::Origins { .. } => "origins".into(),
            SiteError::Allowed { .. } => "allowed_categories".into(),
            SiteError::NothingLeft { field } => (*field).into(),
            SiteError::Origin { index, .. } => format!("origins[{index}]"),
        }
    }

    /// The limit that was passed and what was found, where it is one.
    pub fn limit(&self) -> Option<(u64, u64)> {
        match *self {
            SiteError::Name { limit, found }
            | SiteError::Origins { limit, found }
            | SiteError::Allowed { limit, found } => Some((limit as u64, found as u64)),
            SiteError::NothingLeft { .. } | SiteError::Origin { .. } => None,
        }
    }
}

/// Checks a request and makes the site that it asks for. Its key says in which money it earns.
///
/// # Errors
/// [`SiteError`] names the field.
pub fn new_site(name: &str, origins: &[String], book: Book) -> Result<SiteRow, SiteError> {
    if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(SiteError::Name { limit: NAME_BYTES_MAX, found: name.len() });
    }
    check_origins(origins)?;
    Ok(SiteRow {
        id: SiteId(random::nonzero_u64()),
        name: name.to_owned(),
        site_key: format!("pk_{book}_{}", random::base32(&random::bytes::<15>())),
        origins: origins.to_vec(),
        revoked: false,
        paused: false,
        refuses: CategorySet::EMPTY,
        allows: None,
    })
}

/// Checks a site's list of origins.
///
/// # Errors
/// [`SiteError::Origins`], [`SiteError::Origin`].
pub fn check_origins(origins: &[String]) -> Result<(), SiteError> {
    if origins.is_empty() || origins.len() > ORIGINS_MAX {
        return Err(SiteError::Origins { limit: ORIGINS_MAX, found: origins.len() });
    }
    for (index, origin) in origins.iter().enumerate() {
        check_origin(origin).map_err(|rule| SiteError::Origin { index, rule })?;
    }
    Ok(())
}

/// Checks the kinds of jobs that a site takes alone. Whoever wants none pauses the site.
///
/// # Errors
/// [`SiteError::Allowed`].
pub fn check_allowed(allows: CategorySet) -> Result<(), SiteError> {
    if allows.is_empty() { Err(SiteError::Allowed { limit: 1, found: 0 }) } else { Ok(()) }
}

/// Accepts `scheme://host` or `scheme://host:port` in the one spelling that
/// browsers send, and nothing that could end or widen a header's source list.
///
/// # Errors
/// The rule that is broken.
pub fn check_origin(origin: &str) -> Result<(), &'static str> {
    if origin.len() > ORIGIN_BYTES_MAX {
        return Err("longer than any origin");
    }
    let (scheme, rest) = origin.split_once("://").ok_or("must be scheme://host[:port]")?;
    let default_port = match scheme {
        "http" => "80",
        "https" => "443",
        _ => return Err("the scheme must be http or https"),
    };
    let (host, port) = match rest.strip_prefix('[') {
        // An IPv6 address keeps its brackets.
        Some(inside) => {
            let (address, after) = inside.split_once(']').ok_or("an IPv6 address needs a ]")?;
            let address: std::net::Ipv6Addr = address.parse().map_err(|_| "not an IPv6 address")?;
            if !rest.starts_with(&format!("[{address}]")) {
                return Err("an IPv6 address must be in its shortest form");
            }
            (None, after.strip_prefix(':').or((!after.is_empty()).then_some("!")))
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(rest), None),
        },
    };
    if let Some(host) = host {
        check_host(host)?;
    }
    match port {
        None => Ok(()),
        Some(port) if port == default_port => Err("leave the scheme's own port out"),
        Some(port) => {
            let number: u16 = port.parse().map_err(|_| "the port must be a number below 65536")?;
            // "+80" and "080" parse too.
            if number == 0 || number.to_string() != port {
                return Err("the port must be a plain number from 1");
            }
            Ok(())
        }
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let label_is_good = |label: &str| {
        let letters = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(letters)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.split('.').all(label_is_good) {
        Ok(())
    } else {
        Err("the host must be lower-case letters, digits, dots and hyphens (xn-- for others)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_one_spelling() {
        for good in [
            "https://example.org",
            "http://news.localhost:8081",
            "http://127.0.0.1:8080",
            "https://xn--bcher-kva.example",
            "http://[::1]:9000",
            "http://[::1]",
        ] {
            assert_eq!(check_origin(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "example.org",
            "https://",
            "https://example.org/",
            "https://example.org/page",
            "https://example.org:443",
            "https://example.org:0",
            "https://example.org:080",
            "https://example.org:+80",
            "https://example.org:99999",
            "https://Example.org",
            "https://*.example.org",
            "https://user@example.org",
            "https://example.org; script-src *",
            "https://example.org https://evil.example",
            "https://example..org",
            "https://-a.example",
            "ftp://example.org",
            "data://x",
            "http://[::1",
            "http://[::1]x",
            "http://[0:0:0:0:0:0:0:1]",
            "https://b\u{fc}cher.example",
        ] {
            assert!(check_origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_site_has_a_name_and_origins() {
        let origins = vec!["https://a.example".to_owned()];
        for (book, prefix) in [(Book::Test, "pk_test_"), (Book::Live, "pk_live_")] {
            let site = new_site("Local News", &origins, book).expect("a site");
            assert!(site.site_key.starts_with(prefix) && site.site_key.len() == 32);
        }
        let new_site = |name, origins: &[String]| new_site(name, origins, Book::Test);
        assert!(matches!(new_site(" ", &origins), Err(SiteError::Name { .. })));
        assert!(matches!(new_site("a\nb", &origins), Err(SiteError::Name { .. })));
        assert!(matches!(new_site("a", &[]), Err(SiteError::Origins { .. })));
    }
}
