//! What is known to nobody else: operators' token, and the password at the relay
//! that takes mail. Each comes from the environment or from a file that only its
//! owner reads.

use super::found::{Found, Given};
use super::{ConfigError, Environment};
use crate::authorities;
use crate::mail::{Authorities, EmailAddress, Login, Relay, RelayError, Security};
use std::fmt;
use std::path::Path;

/// As many as a 120-bit secret has in base 32.
const TOKEN_CHARS_MIN: usize = 24;

/// A secret that operators send. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(String);

impl AdminToken {
    /// Whether a request brought it.
    pub fn is(&self, token: &str) -> bool {
        crate::random::same_bytes(self.0.as_bytes(), token.as_bytes())
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

/// A relay, and who we are to it.
#[derive(Clone, Debug, PartialEq)]
pub struct MailRelay {
    pub relay: Relay,
    pub authorities: Authorities,
    pub login: Option<Login>,
    pub from: EmailAddress,
}

/// From the environment as it is, or from a file that only its owner reads.
pub(super) fn admin_token(
    found: &Found,
    environment: Environment<'_>,
) -> Result<Option<AdminToken>, ConfigError> {
    let direct = environment("RAVEN_ADMIN_TOKEN");
    let given = match (direct, found.get("admin_token_file")) {
        (Some(text), _) => Given { text, source: "RAVEN_ADMIN_TOKEN".into() },
        (None, Some(given)) => {
            let text = secret_file(Path::new(&given.text)).map_err(|rule| given.refuse(rule))?;
            Given { text, source: given.source.clone() }
        }
        (None, None) => return Ok(None),
    };
    let token = given.text.trim();
    if token.len() < TOKEN_CHARS_MIN || !token.chars().all(|c| c.is_ascii_graphic()) {
        let rule = format!("a token has at least {TOKEN_CHARS_MIN} visible ASCII characters");
        return Err(given.refuse(rule));
    }
    Ok(Some(AdminToken(token.to_owned())))
}

/// Where mail goes, with the password from the environment or a file of its own: a URL
/// stands in listings of processes.
pub(super) fn mail_relay(
    found: &Found,
    environment: Environment<'_>,
) -> Result<Option<MailRelay>, ConfigError> {
    let Some(given) = found.get("smtp") else { return Ok(None) };
    let relay: Relay = given.text.parse().map_err(|error: RelayError| given.refuse(error))?;
    let authorities = match found.get("smtp_authorities") {
        Some(file) if relay.security == Security::Loopback => {
            return Err(file.refuse("there is no TLS to a relay on this machine by smtp://"));
        }
        Some(file) => {
            let read = authorities::read(Path::new(&file.text));
            Authorities(read.map_err(|rule| file.refuse(format!("{}: {rule}", file.text)))?)
        }
        None => Authorities::default(),
    };
    let from = found.get("mail_from").ok_or_else(|| ConfigError::Missing("mail_from".into()))?;
    let from: EmailAddress = from.text.parse().map_err(|error| from.refuse(error))?;
    let direct = environment("RAVEN_SMTP_PASSWORD");
    let password = match (direct, found.get("smtp_password_file")) {
        (Some(text), _) => Some(text),
        (None, Some(given)) => {
            Some(secret_file(Path::new(&given.text)).map_err(|rule| given.refuse(rule))?)
        }
        (None, None) => None,
    };
    let login = match (relay.user.clone(), password) {
        (None, None) => None,
        (Some(user), Some(password)) => {
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            Some(Login { user, password })
        }
        (Some(_), None) => {
            let rule = "its user needs smtp_password_file, or RAVEN_SMTP_PASSWORD";
            return Err(given.refuse(rule));
        }
        (None, Some(_)) => {
            return Err(given.refuse("there is a password, and no user before the host"));
        }
    };
    Ok(Some(MailRelay { relay, authorities, login, from }))
}

fn secret_file(path: &Path) -> Result<String, String> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(format!("{} has mode {mode:04o}, 0600 is needed", path.display()));
    }
    std::fs::read_to_string(path).map_err(failed)
}
