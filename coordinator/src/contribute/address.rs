//! Where the coordinator is.

use std::fmt;
use std::str::FromStr;

/// Longer than any name of a host.
const HOST_BYTES_MAX: usize = 253;

/// An origin, such as `https://raven.example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As it stands in a URL: an IPv6 address is in brackets.
    host: String,
    port: u16,
    is_secure: bool,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("must begin with https:// or http://")]
    Scheme,
    #[error("must be a host and perhaps a port, without a path")]
    Host,
    #[error("the port must be a number from 1 to 65535")]
    Port,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (is_secure, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://").ok_or(AddressError::Scheme)?),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // A colon within brackets belongs to the address.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (host, port.ok_or(AddressError::Port)?)
            }
            _ => (rest, if is_secure { 443 } else { 80 }),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match inner {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(is_name),
        };
        if !is_host || host.len() > HOST_BYTES_MAX {
            return Err(AddressError::Host);
        }
        Ok(Address { host: host.to_owned(), port, is_secure })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Address {
    /// What a file that belongs to this coordinator alone is called after.
    pub(crate) fn file_name(&self) -> String {
        let host: String = self.host.chars().filter(|it| !matches!(it, '[' | ']')).collect();
        format!("{}-{}", host.replace(':', "_").to_ascii_lowercase(), self.port)
    }

    /// Where sessions are opened.
    pub(super) fn session_url(&self) -> String {
        let scheme = if self.is_secure { "wss" } else { "ws" };
        format!("{scheme}://{}:{}/v1/contribute", self.host, self.port)
    }

    /// Whom the coordinator's certificate must be for; nothing where there is none.
    pub(super) fn certified_name(&self) -> Option<&str> {
        let inner = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        self.is_secure.then_some(inner.unwrap_or(&self.host))
    }

    /// What a socket connects to.
    pub(super) fn socket(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read() {
        let cases = [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://raven.example/", "http://raven.example:80"),
            ("http://[::1]:9", "http://[::1]:9"),
            ("http://[::1]", "http://[::1]:80"),
            ("https://raven.example", "https://raven.example:443"),
        ];
        for (text, read) in cases {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), read);
        }
    }

    #[test]
    fn each_coordinator_has_files_of_its_own() {
        let name = |text: &str| text.parse::<Address>().expect(text).file_name();
        assert_eq!(name("https://Raven.example"), "raven.example-443");
        assert_eq!(name("http://[::1]:9"), "__1-9");
        assert_ne!(name("http://localhost:80"), name("http://localhost:81"));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        let cases = [
            ("127.0.0.1:8080", AddressError::Scheme),
            ("wss://raven.example", AddressError::Scheme),
            ("http://", AddressError::Host),
            ("http://a/b", AddressError::Host),
            ("http://user@a", AddressError::Host),
            ("http://::1", AddressError::Host),
            ("http://a:0", AddressError::Port),
            ("http://a:70000", AddressError::Port),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }
}
