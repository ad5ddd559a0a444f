//! Whether an origin is a site's own: a file on it, or a TXT record of its host,
//! has the site's key.

use super::dns::{self, DnsError};
use super::fetch::Fetcher;
use super::{PageError, address};
use crate::store::ProofKind;
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Where the file is looked for on an origin.
pub const PROOF_PATH: &str = "/.well-known/raven-site.txt";
/// Bytes of the file that are read: some keys, one a line.
const FILE_BYTES_MAX: u64 = 4 << 10;
/// What stands before the host's name, and before the key in the record.
const LABEL: &str = "_raven";
const RECORD: &str = "raven-site=";

/// What one place had to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Found {
    /// The site's key.
    Key,
    /// It was read, and the key is not in it.
    NoKey,
    /// It could not be read.
    Unread { reason: &'static str, detail: String },
    /// It was not looked at: the other place was enough, or there is no such place.
    NotAsked,
}

/// What was looked at for one origin, and found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OriginReport {
    pub origin: String,
    pub proven: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ProofKind>,
    /// The file's address.
    pub file_url: String,
    pub file: Found,
    /// The record's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
    pub dns: Found,
}

/// The name servers that are asked.
#[derive(Clone, Debug, Default)]
pub struct Resolvers(pub Vec<SocketAddr>);

impl Resolvers {
    /// Those of this machine.
    pub fn of_system() -> Self {
        Resolvers(dns::resolvers(Path::new("/etc/resolv.conf")))
    }
}

/// Looks for a site's key at an origin. Blocks for some seconds at most.
///
/// `coordinator` is the origin under which browsers reach this coordinator; where that
/// is on this machine, origins on this machine are asked too.
pub fn prove(
    coordinator: &str,
    resolvers: &Resolvers,
    site_key: &str,
    origin: &str,
) -> OriginReport {
    let file_url = format!("{origin}{PROOF_PATH}");
    let file = in_file(coordinator, site_key, origin, &file_url);
    let dns_name = host_name(origin).map(|host| format!("{LABEL}.{host}"));
    let dns = match &dns_name {
        Some(name) if file != Found::Key => in_dns(resolvers, site_key, name),
        _ => Found::NotAsked,
    };
    let by = match (&file, &dns) {
        (Found::Key, _) => Some(ProofKind::File),
        (_, Found::Key) => Some(ProofKind::Dns),
        _ => None,
    };
    OriginReport {
        origin: origin.to_owned(),
        proven: by.is_some(),
        by,
        file_url,
        file,
        dns_name,
        dns,
    }
}

fn in_file(coordinator: &str, site_key: &str, origin: &str, url: &str) -> Found {
    // Only this origin: what a redirect leads to elsewhere proves nothing of it.
    let origins = [origin.to_owned()];
    let fetcher = Fetcher::new(address::is_local_origin(coordinator), &origins);
    match fetcher.text(url, FILE_BYTES_MAX) {
        Ok(text) if text.lines().any(|line| line.trim() == site_key) => Found::Key,
        Ok(_) => Found::NoKey,
        Err(error) => unread(&error),
    }
}

fn unread(error: &PageError) -> Found {
    Found::Unread { reason: error.name(), detail: error.to_string() }
}

fn in_dns(resolvers: &Resolvers, site_key: &str, name: &str) -> Found {
    match dns::texts(&resolvers.0, name) {
        Ok(texts) => {
            let has_key = |text: &String| text.trim().strip_prefix(RECORD) == Some(site_key);
            if texts.iter().any(has_key) { Found::Key } else { Found::NoKey }
        }
        Err(error) => {
            let reason = match error {
                DnsError::NoResolver => "no_resolver",
                DnsError::Name => "name",
                DnsError::Io(_) => "unreachable",
                DnsError::Malformed => "malformed",
                DnsError::Refused { .. } => "refused",
            };
            Found::Unread { reason, detail: error.to_string() }
        }
    }
}

/// An origin's host where it is a name that others may have records for.
fn host_name(origin: &str) -> Option<&str> {
    let (_, rest) = origin.split_once("://")?;
    let host = rest.split(':').next()?;
    let is_name = !rest.starts_with('[')
        && host.parse::<IpAddr>().is_err()
        && host.contains('.')
        && !address::is_local_name(host);
    is_name.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_names_have_records() {
        for (origin, name) in [
            ("https://news.example", Some("news.example")),
            ("https://news.example:8443", Some("news.example")),
            ("http://127.0.0.1:80", None),
            ("http://[::1]:80", None),
            ("http://a.localhost:81", None),
            ("http://intranet", None),
        ] {
            assert_eq!(host_name(origin), name, "{origin}");
        }
    }
}
