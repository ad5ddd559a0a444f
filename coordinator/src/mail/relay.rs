//! The server that takes mail from us, and how it is reached.

use super::EmailAddress;
use lettre::address::Envelope;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// Longer than any name of a host.
const HOST_BYTES_MAX: usize = 253;

/// How what is said to the relay is kept from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte.
    Tls,
    /// TLS from the first command on; a relay that does not offer it gets nothing.
    StartTls,
    /// Nothing: the relay is on this machine.
    Loopback,
}

/// Who vouches for the relay's name, where it is not whom browsers believe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities(pub Vec<CertificateDer<'static>>);

impl Authorities {
    /// What TLS with a host goes by.
    fn parameters(&self, host: &str) -> Result<TlsParameters, lettre::transport::smtp::Error> {
        let mut builder = TlsParameters::builder(host.to_owned());
        if !self.0.is_empty() {
            builder = builder.certificate_store(CertificateStore::None);
        }
        for authority in &self.0 {
            builder = builder.add_root_certificate(Certificate::from_der(authority.to_vec())?);
        }
        builder.build()
    }
}

/// Who we are to the relay.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
}

/// The password is never shown.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A relay: `smtps://HOST:465`, or `smtp://HOST:587`, with `USER@` before the host where
/// it wants to know who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    pub host: String,
    pub port: u16,
    pub security: Security,
    /// The password is told apart: a URL is shown in places where a secret must not be.
    pub user: Option<String>,
}

/// Why a text names no relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    #[error("must begin with smtps:// or smtp://")]
    Scheme,
    #[error("must be a host and perhaps a port, without a path")]
    Host,
    #[error("the port must be a number from 1 to 65535")]
    Port,
    #[error("the user must be visible ASCII characters")]
    User,
    #[error("must not have a password: it has a place of its own")]
    Password,
}

impl FromStr for Relay {
    type Err = RelayError;

    fn from_str(text: &str) -> Result<Self, RelayError> {
        let (is_tls, rest) = match text.strip_prefix("smtps://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("smtp://").ok_or(RelayError::Scheme)?),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // A user is often an address, so that the last @ is the one that ends it.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err(RelayError::Password),
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let is_user = |user: &str| !user.is_empty() && user.bytes().all(|it| it.is_ascii_graphic());
        if !user.is_none_or(is_user) {
            return Err(RelayError::User);
        }
        // A colon within brackets belongs to the address.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (host, port.ok_or(RelayError::Port)?)
            }
            _ => (rest, if is_tls { 465 } else { 587 }),
        };
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        let is_host = match inner {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(is_name),
        };
        if !is_host || host.len() > HOST_BYTES_MAX {
            return Err(RelayError::Host);
        }
        let host = inner.unwrap_or(host).to_owned();
        let security = match (is_tls, is_this_machine(&host)) {
            (true, _) => Security::Tls,
            (false, true) => Security::Loopback,
            (false, false) => Security::StartTls,
        };
        Ok(Relay { host, port, security, user: user.map(str::to_owned) })
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

/// What became of an attempt to hand a letter over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Handed {
    Over,
    /// The relay will not take it, however often it is asked.
    Refused(String),
    /// Another time may be better.
    NotNow(String),
    /// What is in it is of no use any more.
    TooLate,
}

/// Whoever hands letters over: the relay, and as whom.
#[derive(Debug)]
pub(super) struct Sender {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Address,
    /// For one letter, from the connection to the last answer.
    stall: Duration,
}

impl Sender {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// That of TLS, as text.
    pub(super) fn new(
        relay: &Relay,
        authorities: &Authorities,
        login: Option<&Login>,
        from: &EmailAddress,
        stall: Duration,
    ) -> Result<Self, String> {
        let parameters = || authorities.parameters(&relay.host).map_err(|error| error.to_string());
        let tls = match relay.security {
            Security::Tls => Tls::Wrapper(parameters()?),
            Security::StartTls => Tls::Required(parameters()?),
            Security::Loopback => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&relay.host)
            .tls(tls)
            .port(relay.port)
            .timeout(Some(stall))
            .hello_name(ClientId::Domain(from.domain().to_owned()));
        if let Some(Login { user, password }) = login {
            builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
        }
        Ok(Sender { transport: builder.build(), from: address(from)?, stall })
    }

    /// Says what became of it; never waits longer than a stall may last.
    pub(super) async fn hand_over(&self, to: &EmailAddress, letter: &[u8]) -> Handed {
        let envelope = address(to).and_then(|to| {
            Envelope::new(Some(self.from.clone()), vec![to]).map_err(|error| error.to_string())
        });
        let envelope = match envelope {
            Ok(envelope) => envelope,
            Err(reason) => return Handed::Refused(reason),
        };
        match tokio::time::timeout(self.stall, self.transport.send_raw(&envelope, letter)).await {
            Ok(Ok(_)) => Handed::Over,
            Ok(Err(error)) if is_about_the_letter(&error) => Handed::Refused(error.to_string()),
            Ok(Err(error)) => Handed::NotNow(error.to_string()),
            Err(_) => Handed::NotNow(format!("no answer within {} s", self.stall.as_secs_f32())),
        }
    }
}

/// A relay that does not take our word for who we are will, once the operator has seen the
/// log; one that wants nothing of the letter or its reader will not.
fn is_about_the_letter(error: &lettre::transport::smtp::Error) -> bool {
    const ABOUT_US: [u16; 4] = [530, 534, 535, 538];
    let code = error.status().map(u16::from);
    error.is_permanent() && code.is_some_and(|code| !ABOUT_US.contains(&code))
}

/// Two readings of one address, of which ours is the narrower one.
fn address(email: &EmailAddress) -> Result<Address, String> {
    email.as_str().parse().map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_elsewhere_is_spoken_to_under_tls_only() {
        for (text, host, port, security, user) in [
            ("smtps://mail.example.org", "mail.example.org", 465, Security::Tls, None),
            ("smtp://mail.example.org", "mail.example.org", 587, Security::StartTls, None),
            ("smtp://mail.example.org:25/", "mail.example.org", 25, Security::StartTls, None),
            ("smtp://10.0.0.1", "10.0.0.1", 587, Security::StartTls, None),
            ("smtp://127.0.0.1:2525", "127.0.0.1", 2525, Security::Loopback, None),
            ("smtp://[::1]:25", "::1", 25, Security::Loopback, None),
            ("smtps://localhost", "localhost", 465, Security::Tls, None),
            ("smtps://a@x.org@m.org:1", "m.org", 1, Security::Tls, Some("a@x.org")),
        ] {
            let relay: Relay = text.parse().expect(text);
            let user = user.map(str::to_owned);
            assert_eq!(relay, Relay { host: host.into(), port, security, user }, "{text}");
        }
    }

    #[test]
    fn what_is_no_relay_is_refused() {
        for (text, error) in [
            ("mail.example.org", RelayError::Scheme),
            ("https://mail.example.org", RelayError::Scheme),
            ("smtps://", RelayError::Host),
            ("smtps://mail example.org", RelayError::Host),
            ("smtps://mail.example.org/path", RelayError::Host),
            ("smtps://[::1", RelayError::Host),
            ("smtps://mail.example.org:0", RelayError::Port),
            ("smtps://mail.example.org:x", RelayError::Port),
            ("smtps://ann:secret@mail.example.org", RelayError::Password),
            ("smtps://@mail.example.org", RelayError::User),
            ("smtps://a\r\nb@mail.example.org", RelayError::User),
        ] {
            assert_eq!(text.parse::<Relay>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let login = Login { user: "ann".into(), password: "secret".into() };
        assert_eq!(format!("{login:?}"), "Login { user: \"ann\", .. }");
    }
}
