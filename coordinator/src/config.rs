//! Settings of a serving coordinator, from four places: a flag overrules the
//! environment, that the configuration file, and that the default. One table
//! names them all, so that each is the same word everywhere.

use crate::authorities;
use crate::certificate::keep;
use crate::front::{ConnectionLimits, FrontConfig, Network, Proxies, Rate, sign_up_rate};
use crate::http::CHILDREN_MAX;
use crate::mail::{Authorities, EmailAddress, Login, Relay, RelayError, Security};
use crate::store::SiteCaps;
use raven_engine::money::{NanoUsd, PicoUsd};
use raven_engine::rates::{
    BONUS_THOUSANDTHS_MAX, Bonus, LEAST_MFLOPS_MAX, Least, RATE_MAX, Rates, STAY_MINUTES_MAX,
};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

const LISTEN: &str = "127.0.0.1:8080";
/// The kernel module where no other is named.
pub const KERNEL: &str = "dist/kernel/raven_kernel.wasm";
/// What a visit may move unless the operator says otherwise.
const VISIT_MB: u32 = 25;
/// More than any visit moves: a terabyte.
const VISIT_MB_MAX: u32 = 1_000_000;
/// One USD: payments outside cost tens of cents.
pub const WITHDRAWAL_LEAST: NanoUsd = NanoUsd(1_000_000_000);
/// A gibibyte: an upload of the largest size may still be in the middle.
const DISK_FREE_BYTES_MIN: u64 = 1 << 30;
/// Half a year: whoever comes back for a holiday finds it still.
const UNCLAIMED_AFTER_DAYS: u32 = 180;
/// A configuration file is a page of text.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// As many as a 120-bit secret has in base 32.
const TOKEN_CHARS_MIN: usize = 24;

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key in the file; `--name` with hyphens as a flag, `RAVEN_NAME` in the environment.
    pub name: &'static str,
    /// What it takes.
    pub takes: &'static str,
    /// What it is.
    pub what: &'static str,
}

const fn setting(name: &'static str, takes: &'static str, what: &'static str) -> Setting {
    Setting { name, takes, what }
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    setting("data", "DIR", "folder of the store, blobs and caches; made where it is missing"),
    setting("listen", "ADDRESS", "address and port; port 0: any free one, printed at the start"),
    setting("origin", "URL", "how browsers reach this coordinator; the listen address if absent"),
    setting("embed", "DIR", "built tag, frame and workers (web-snippet/dist)"),
    setting("www", "DIR", "built network page"),
    setting("kernel", "FILE", "kernel module (dist/kernel/raven_kernel.wasm)"),
    setting("admin_token_file", "FILE", "what operators send as a bearer token; mode 0600"),
    setting("trusted_proxies", "LIST", "addresses or networks whose X-Forwarded-For is believed"),
    setting("log_format", "text|json", "how the log is written; RUST_LOG chooses what"),
    setting("sessions_max", "NUMBER", "open sessions of contributors"),
    setting("sessions_per_network_max", "NUMBER", "of those, sessions of one network"),
    setting("connections_max", "NUMBER", "open connections"),
    setting("connections_per_network_max", "NUMBER", "of those, connections of one network"),
    setting("requests_per_s", "NUMBER", "requests a second of one network"),
    setting("requests_burst", "NUMBER", "of those, at once"),
    setting("key_requests_per_s", "NUMBER", "requests a second with one API key"),
    setting("key_requests_burst", "NUMBER", "of those, at once"),
    setting("blob_bytes_max", "BYTES", "all blobs together; uploads beyond it are refused"),
    setting(
        "certificate_bytes",
        "BYTES",
        "states of one strict job from which others may check its rounds",
    ),
    setting("operator", "yes|no", "whether jobs may call for this machine where nobody is there"),
    setting(
        "private_pool",
        "yes|no",
        "whether all contributors are known, so that jobs may leave results unchecked",
    ),
    setting(
        "gpu",
        "no|hardware|any",
        "GPUs of visitors who allow it; any: software ones too, for tests",
    ),
    setting("visit_mb", "NUMBER", "megabytes that one visit may move over the network, both ways"),
    setting("disk_free_bytes_min", "BYTES", "what uploads leave free on the disk"),
    setting(
        "site_sessions_per_network_max",
        "NUMBER",
        "sessions of one network at a time by which a site earns",
    ),
    setting(
        "site_new_keys_per_network_hour_max",
        "NUMBER",
        "new keys of one network within an hour by which a site earns",
    ),
    setting(
        "site_network_share_percent",
        "NUMBER",
        "part of a site's daily work that one network may do and the site earn by",
    ),
    setting(
        "unclaimed_after_days",
        "NUMBER",
        "days after which earnings of a contributor that was not seen go to the reserve",
    ),
    setting("rate_phone", "PICO_USD", "what a calculation of 50 Mflop earns on a phone"),
    setting("rate_desktop", "PICO_USD", "the same on a desktop"),
    setting("rate_server", "PICO_USD", "the same on a server"),
    setting("bonus_gpu", "THOUSANDTHS", "on top of a rate for what a GPU has executed"),
    setting("bonus_stay", "THOUSANDTHS", "on top of a rate after a stay of stay_minutes"),
    setting("stay_minutes", "NUMBER", "how long a session must be open for bonus_stay"),
    setting("least_desktop", "MFLOPS", "what a session delivers that is paid as a desktop"),
    setting("least_server", "MFLOPS", "the same of a server, whatever its share"),
    setting("least_gpu", "MFLOPS", "the same of a GPU, before there is a bonus for it"),
    setting(
        "mail_folder",
        "DIR",
        "where links for people who sign up are written; absent: none do",
    ),
    setting("smtp", "URL", "relay that takes those links: smtps://USER@HOST or smtp://HOST"),
    setting("smtp_password_file", "FILE", "the user's password at the relay; mode 0600"),
    setting(
        "smtp_authorities",
        "FILE",
        "who vouches for the relay, in PEM; by default as browsers",
    ),
    setting("mail_from", "ADDRESS", "whom mail is from; needed with smtp"),
    setting("sign_ups_per_network", "NUMBER", "accounts that one network asks for in 15 minutes"),
    setting("passkey_sign_up", "yes|no", "whether whoever has a passkey may make an account"),
    setting("sub_accounts_max", "NUMBER", "sub-accounts of one account"),
    setting("withdrawal_nano_usd_min", "NUMBER", "nano-USD that are paid out at least"),
];

impl Setting {
    /// `--sessions-max`.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }

    /// `RAVEN_SESSIONS_MAX`.
    pub fn variable(&self) -> String {
        format!("RAVEN_{}", self.name.to_uppercase())
    }
}

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

/// Which GPUs of visitors may work, where the visitor allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuUse {
    /// None: the GPU module is not offered.
    #[default]
    No,
    /// Those that are faster than the processor.
    Hardware,
    /// Software adapters too, however slow: for tests on machines without a GPU.
    Any,
}

impl GpuUse {
    /// The word in settings and in the frame's page.
    pub const fn name(self) -> &'static str {
        match self {
            GpuUse::No => "no",
            GpuUse::Hardware => "hardware",
            GpuUse::Any => "any",
        }
    }
}

/// What `serve` is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Serve {
    pub data: PathBuf,
    pub listen: SocketAddr,
    pub origin: Option<String>,
    pub embed: Option<PathBuf>,
    pub www: Option<PathBuf>,
    pub kernel: PathBuf,
    /// Needed for `/metrics` where it is set.
    pub admin_token: Option<AdminToken>,
    pub log_json: bool,
    pub front: FrontConfig,
    pub sessions_max: Option<usize>,
    pub sessions_per_network_max: Option<usize>,
    pub blob_bytes_max: Option<u64>,
    pub disk_free_bytes_min: u64,
    pub unclaimed_after_days: u32,
    /// Bytes that the published states of one strict job may take.
    pub certificate_bytes: u64,
    pub visit_mb: u32,
    pub gpu: GpuUse,
    /// Whether jobs may call for this machine where nobody is there.
    pub operator: bool,
    pub private_pool: bool,
    /// What one network may earn a site.
    pub site_caps: SiteCaps,
    /// At which the work of new jobs is paid.
    pub rates: Rates,
    /// Where mail to people is written; without it and a relay nobody signs up.
    pub mail_folder: Option<PathBuf>,
    /// Who takes mail to people from there, or from a folder of the data.
    pub mail_relay: Option<MailRelay>,
    /// Whether whoever has a passkey may make an account.
    pub passkey_sign_up: bool,
    /// Open sub-accounts of one account.
    pub sub_accounts_max: u64,
    /// What is less is not paid out.
    pub withdrawal_least: NanoUsd,
}

/// A relay, and who we are to it.
#[derive(Clone, Debug, PartialEq)]
pub struct MailRelay {
    pub relay: Relay,
    pub authorities: Authorities,
    pub login: Option<Login>,
    pub from: EmailAddress,
}

/// Why settings are not taken. Each names the setting and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{0} is needed")]
    Missing(String),
    #[error("{source_name}: {rule}")]
    Value { source_name: String, rule: String },
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{}: unknown field {field:?}", path.display())]
    Unknown { path: PathBuf, field: String },
    #[error(
        "listen: {listen} can be reached from elsewhere; set admin_token_file first, or listen on 127.0.0.1"
    )]
    Exposed { listen: SocketAddr },
}

/// A setting's text, and where it stands.
#[derive(Clone, Debug)]
struct Given {
    text: String,
    source: String,
}

impl Given {
    fn refuse(&self, rule: impl fmt::Display) -> ConfigError {
        ConfigError::Value { source_name: self.source.clone(), rule: rule.to_string() }
    }

    fn parse<T: FromStr>(&self, rule: &str) -> Result<T, ConfigError> {
        self.text.parse().map_err(|_| self.refuse(format!("{:?} is not {rule}", self.text)))
    }
}

/// The environment, or what a test puts in its place.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Settings by name, from all places.
struct Found(BTreeMap<&'static str, Given>);

impl Found {
    fn get(&self, name: &str) -> Option<&Given> {
        self.0.get(name)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(|given| PathBuf::from(&given.text))
    }

    /// A number of which at least one is needed.
    fn count<T: FromStr + PartialOrd + From<u8>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, ConfigError> {
        let rule = "a whole number from 1";
        let Some(given) = self.get(name) else { return Ok(None) };
        let value = given.parse::<T>(rule)?;
        if value < T::from(1) {
            return Err(given.refuse(format!("{:?} is not {rule}", given.text)));
        }
        Ok(Some(value))
    }

    fn rate(&self, per_s: &str, burst: &str, default: Rate) -> Result<Rate, ConfigError> {
        let number = |name: &str, default: f64| -> Result<f64, ConfigError> {
            let rule = "a number from 1 to 1e9";
            let Some(given) = self.get(name) else { return Ok(default) };
            let value: f64 = given.parse(rule)?;
            let fits = (1.0..=1e9).contains(&value);
            fits.then_some(value)
                .ok_or_else(|| given.refuse(format!("{:?} is not {rule}", given.text)))
        };
        Ok(Rate { per_s: number(per_s, default.per_s)?, burst: number(burst, default.burst)? })
    }
}

/// Puts the settings together. `flags` are by setting name.
///
/// # Errors
/// [`ConfigError`].
pub fn resolve(
    flags: &BTreeMap<&'static str, String>,
    config_file: Option<&Path>,
    environment: Environment<'_>,
) -> Result<Serve, ConfigError> {
    let variable = environment("RAVEN_CONFIG").map(PathBuf::from);
    let path = config_file.map(Path::to_owned).or(variable);
    let mut file = path.as_deref().map(read_file).transpose()?.unwrap_or_default();
    let mut found = BTreeMap::new();
    for setting in SETTINGS {
        let flag = flags.get(setting.name).cloned();
        let flag = flag.map(|text| Given { text, source: setting.flag() });
        let variable = environment(&setting.variable());
        let variable = variable.map(|text| Given { text, source: setting.variable() });
        let in_file = file.remove(setting.name);
        if let Some(given) = flag.or(variable).or(in_file) {
            found.insert(setting.name, given);
        }
    }
    typed(&Found(found), environment)
}

fn typed(found: &Found, environment: Environment<'_>) -> Result<Serve, ConfigError> {
    let data = found.path("data").ok_or_else(|| ConfigError::Missing("--data".into()))?;
    let default_listen = Given { text: LISTEN.into(), source: "listen".into() };
    let listen: SocketAddr =
        found.get("listen").unwrap_or(&default_listen).parse("an address and port")?;
    let admin_token = admin_token(found, environment)?;
    if !listen.ip().to_canonical().is_loopback() && admin_token.is_none() {
        return Err(ConfigError::Exposed { listen });
    }
    let defaults = FrontConfig::default();
    let limits = defaults.connections;
    let front = FrontConfig {
        proxies: proxies(found)?,
        connections: ConnectionLimits {
            all_max: found.count("connections_max")?.unwrap_or(limits.all_max),
            per_network_max: found
                .count("connections_per_network_max")?
                .unwrap_or(limits.per_network_max),
        },
        network_rate: found.rate("requests_per_s", "requests_burst", defaults.network_rate)?,
        key_rate: found.rate("key_requests_per_s", "key_requests_burst", defaults.key_rate)?,
        sign_up_rate: found
            .count("sign_ups_per_network")?
            .map_or(defaults.sign_up_rate, sign_up_rate),
    };
    let log_json = match found.get("log_format").map(|given| (given, given.text.as_str())) {
        None | Some((_, "text")) => false,
        Some((_, "json")) => true,
        Some((given, _)) => return Err(given.refuse("text or json")),
    };
    let yes_or_no = |name: &'static str, default: bool| match found
        .get(name)
        .map(|given| (given, given.text.as_str()))
    {
        None => Ok(default),
        Some((_, "yes")) => Ok(true),
        Some((_, "no")) => Ok(false),
        Some((given, _)) => Err(given.refuse("yes or no")),
    };
    let operator = yes_or_no("operator", true)?;
    let private_pool = yes_or_no("private_pool", false)?;
    let passkey_sign_up = yes_or_no("passkey_sign_up", false)?;
    Ok(Serve {
        data,
        listen,
        origin: found.get("origin").map(|given| given.text.clone()),
        embed: found.path("embed"),
        www: found.path("www"),
        kernel: found.path("kernel").unwrap_or_else(|| KERNEL.into()),
        admin_token,
        log_json,
        front,
        sessions_max: found.count("sessions_max")?,
        sessions_per_network_max: found.count("sessions_per_network_max")?,
        blob_bytes_max: found.count("blob_bytes_max")?,
        disk_free_bytes_min: found.count("disk_free_bytes_min")?.unwrap_or(DISK_FREE_BYTES_MIN),
        unclaimed_after_days: found.count("unclaimed_after_days")?.unwrap_or(UNCLAIMED_AFTER_DAYS),
        certificate_bytes: found.count("certificate_bytes")?.unwrap_or(keep::BYTES_DEFAULT),
        visit_mb: visit_mb(found)?,
        gpu: gpu(found)?,
        operator,
        private_pool,
        site_caps: site_caps(found)?,
        rates: rates(found)?,
        mail_folder: found.path("mail_folder"),
        mail_relay: mail_relay(found, environment)?,
        passkey_sign_up,
        sub_accounts_max: found.count("sub_accounts_max")?.unwrap_or(CHILDREN_MAX),
        withdrawal_least: withdrawal_least(found)?,
    })
}

fn site_caps(found: &Found) -> Result<SiteCaps, ConfigError> {
    let defaults = SiteCaps::default();
    let share = "site_network_share_percent";
    let network_share_percent = found.count(share)?.unwrap_or(defaults.network_share_percent);
    if let Some(given) = found.get(share).filter(|_| network_share_percent > 100) {
        return Err(given.refuse(format!("{:?} is not a whole number from 1 to 100", given.text)));
    }
    Ok(SiteCaps {
        sessions_per_network_max: found
            .count("site_sessions_per_network_max")?
            .unwrap_or(defaults.sessions_per_network_max),
        new_keys_per_network_max: found
            .count("site_new_keys_per_network_hour_max")?
            .unwrap_or(defaults.new_keys_per_network_max),
        network_share_percent,
    })
}

fn withdrawal_least(found: &Found) -> Result<NanoUsd, ConfigError> {
    let least = found.count::<i64>("withdrawal_nano_usd_min")?;
    Ok(least.map_or(WITHDRAWAL_LEAST, NanoUsd))
}

fn gpu(found: &Found) -> Result<GpuUse, ConfigError> {
    let Some(given) = found.get("gpu") else { return Ok(GpuUse::Hardware) };
    let uses = [GpuUse::No, GpuUse::Hardware, GpuUse::Any];
    let named = uses.into_iter().find(|choice| choice.name() == given.text);
    named.ok_or_else(|| given.refuse("no, hardware or any"))
}

fn visit_mb(found: &Found) -> Result<u32, ConfigError> {
    let Some(given) = found.get("visit_mb") else { return Ok(VISIT_MB) };
    let rule = "a whole number from 1 to 1000000";
    let value: u32 = given.parse(rule)?;
    let fits = (1..=VISIT_MB_MAX).contains(&value);
    fits.then_some(value).ok_or_else(|| given.refuse(format!("{:?} is not {rule}", given.text)))
}

/// What work earns. Zero is no rate: whoever wants nothing for it sets 1.
fn rates(found: &Found) -> Result<Rates, ConfigError> {
    let usual = Rates::USUAL;
    let number = |name: &str, least: u64, most: u64, default: u64| -> Result<u64, ConfigError> {
        let Some(given) = found.get(name) else { return Ok(default) };
        let rule = format!("a whole number from {least} to {most}");
        let value = given.text.parse().ok().filter(|value| (least..=most).contains(value));
        value.ok_or_else(|| given.refuse(format!("{:?} is not {rule}", given.text)))
    };
    let rate = |name, default: PicoUsd| number(name, 1, RATE_MAX.0, default.0).map(PicoUsd);
    let small = |name, most: u32, default: u32| {
        let found = number(name, 0, most.into(), default.into())?;
        Ok(u32::try_from(found).unwrap_or(most))
    };
    let least = |name, default| small(name, LEAST_MFLOPS_MAX, default);
    Ok(Rates {
        phone: rate("rate_phone", usual.phone)?,
        desktop: rate("rate_desktop", usual.desktop)?,
        server: rate("rate_server", usual.server)?,
        bonus: Bonus {
            gpu_thousandths: small(
                "bonus_gpu",
                BONUS_THOUSANDTHS_MAX,
                usual.bonus.gpu_thousandths,
            )?,
            stay_thousandths: small(
                "bonus_stay",
                BONUS_THOUSANDTHS_MAX,
                usual.bonus.stay_thousandths,
            )?,
            stay_minutes: small("stay_minutes", STAY_MINUTES_MAX, usual.bonus.stay_minutes)?,
        },
        least: Least {
            desktop_mflops: least("least_desktop", usual.least.desktop_mflops)?,
            server_mflops: least("least_server", usual.least.server_mflops)?,
            gpu_mflops: least("least_gpu", usual.least.gpu_mflops)?,
        },
    })
}

fn proxies(found: &Found) -> Result<Proxies, ConfigError> {
    let Some(given) = found.get("trusted_proxies") else { return Ok(Proxies::default()) };
    let entries = given.text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let networks = entries.map(|entry| {
        entry.parse::<Network>().map_err(|error| given.refuse(format!("{entry:?} is not {error}")))
    });
    Ok(Proxies(networks.collect::<Result<_, _>>()?))
}

/// From the environment as it is, or from a file that only its owner reads.
fn admin_token(
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
fn mail_relay(
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

fn read_file(path: &Path) -> Result<BTreeMap<&'static str, Given>, ConfigError> {
    let refuse = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let bytes = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(refuse(format!("{bytes} bytes, the limit is {FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error| refuse(format!("{error}")))?;
    let mut found = BTreeMap::new();
    for (field, value) in table {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == field) else {
            return Err(ConfigError::Unknown { path: path.to_owned(), field });
        };
        let source = format!("{}: {field}", path.display());
        let text = text_of(&value).ok_or_else(|| ConfigError::Value {
            source_name: source.clone(),
            rule: "a text, a number or a list of texts".into(),
        })?;
        found.insert(setting.name, Given { text, source });
    }
    Ok(found)
}

/// A value as it would stand in the environment.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Array(list) => {
            let texts: Option<Vec<&str>> = list.iter().map(toml::Value::as_str).collect();
            Some(texts?.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        flags: BTreeMap<&'static str, String>,
        environment: BTreeMap<String, String>,
        file: Option<String>,
    }

    impl Case {
        fn new(file: &str) -> Self {
            let file = Some(file.to_owned()).filter(|file| !file.is_empty());
            Case { flags: [("data", "d".into())].into(), environment: BTreeMap::new(), file }
        }

        fn flag(mut self, name: &'static str, text: &str) -> Self {
            self.flags.insert(name, text.into());
            self
        }

        fn variable(mut self, name: &str, text: &str) -> Self {
            self.environment.insert(name.into(), text.into());
            self
        }

        fn resolve(self) -> Result<Serve, ConfigError> {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("raven.toml");
            if let Some(file) = &self.file {
                std::fs::write(&path, file).expect("written");
            }
            let path = self.file.as_ref().map(|_| path.as_path());
            resolve(&self.flags, path, &|name| self.environment.get(name).cloned())
        }

        fn refused(self) -> String {
            self.resolve().expect_err("refused").to_string()
        }
    }

    #[test]
    fn a_flag_overrules_the_environment_that_the_file_and_that_the_default() {
        let file = "listen = '127.0.0.1:3'\nsessions_max = 30\n";
        let port = |case: Case| case.resolve().expect("taken").listen.port();
        assert_eq!(port(Case::new("")), 8080);
        assert_eq!(port(Case::new(file)), 3);
        let both = || Case::new(file).variable("RAVEN_LISTEN", "127.0.0.1:2");
        assert_eq!(port(both()), 2);
        assert_eq!(port(both().flag("listen", "127.0.0.1:1")), 1);
        let all = both().flag("listen", "127.0.0.1:1").resolve().expect("taken");
        assert_eq!(all.sessions_max, Some(30));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (file, told) in [
            ("lisen = 'x'", "unknown field \"lisen\""),
            ("[front]\nlisten = 'x'", "unknown field \"front\""),
            ("listen = true", "listen: a text"),
            ("listen = 'x'", "listen: \"x\" is not an address and port"),
            ("sessions_max = 0", "sessions_max: \"0\" is not a whole number from 1"),
            ("sessions_max = -1", "sessions_max: \"-1\" is not"),
            ("requests_per_s = 0.5", "requests_per_s: \"0.5\" is not a number"),
            ("log_format = 'xml'", "log_format: text or json"),
            ("gpu = 'yes'", "gpu: no, hardware or any"),
            ("rate_phone = 0", "rate_phone: \"0\" is not a whole number from 1"),
            ("bonus_gpu = 1001", "bonus_gpu: \"1001\" is not a whole number from 0 to 1000"),
            ("stay_minutes = 1441", "stay_minutes: \"1441\" is not"),
            ("least_server = 10000001", "least_server: \"10000001\" is not a whole number from 0"),
            ("trusted_proxies = ['10.0.0.0/99']", "trusted_proxies: \"10.0.0.0/99\" is not an"),
            ("listen = ", "raven.toml: "),
        ] {
            let error = Case::new(file).refused();
            assert!(error.contains(told) && error.contains("raven.toml"), "{file}: {error}");
        }
        let error = Case::new("").variable("RAVEN_SESSIONS_MAX", "many").refused();
        assert!(error.starts_with("RAVEN_SESSIONS_MAX: "), "{error}");
        let error = Case::new("").flag("listen", "x").refused();
        assert!(error.starts_with("--listen: "), "{error}");
    }

    #[test]
    fn other_machines_need_an_admin_token_first() {
        let error = Case::new("listen = '0.0.0.0:80'").refused();
        assert!(error.contains("admin_token_file"), "{error}");
        for listen in ["127.0.0.1:1", "[::1]:1", "127.9.9.9:0"] {
            assert!(Case::new("").flag("listen", listen).resolve().is_ok(), "{listen}");
        }
        let token = "0123456789abcdefghijklmn";
        let open = Case::new("listen = '0.0.0.0:80'").variable("RAVEN_ADMIN_TOKEN", token);
        let serve = open.resolve().expect("taken");
        assert!(serve.admin_token.as_ref().is_some_and(|own| own.is(token) && !own.is("else")));
        assert!(!format!("{serve:?}").contains(token));
        let short = Case::new("").variable("RAVEN_ADMIN_TOKEN", "secret").refused();
        assert!(short.contains("at least 24"), "{short}");
    }

    #[test]
    fn a_token_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "0123456789abcdefghijklmn\n").expect("written");
        let case = || Case::new("").flag("admin_token_file", path.to_str().expect("text"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("changed");
        assert!(case().refused().contains("mode 0644, 0600 is needed"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("changed");
        assert!(case().resolve().expect("taken").admin_token.is_some());
    }

    #[test]
    fn a_relay_has_a_sender_and_its_password_a_place_of_its_own() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        std::fs::write(&path, "se cret\n").expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("changed");
        let case = |smtp: &str| Case::new("").flag("smtp", smtp).flag("mail_from", "raven@x.org");
        let with = |smtp: &str| case(smtp).flag("smtp_password_file", path.to_str().expect("text"));
        let open = case("smtp://127.0.0.1:25").resolve().expect("taken").mail_relay;
        assert!(open.expect("a relay").login.is_none());
        let serve = with("smtps://ann@m.org").resolve().expect("taken");
        assert!(!format!("{serve:?}").contains("se cret"), "{serve:?}");
        let login = serve.mail_relay.and_then(|it| it.login).expect("a login");
        assert_eq!((login.user.as_str(), login.password.as_str()), ("ann", "se cret"));
        let direct = case("smtps://ann@m.org").variable("RAVEN_SMTP_PASSWORD", "other");
        let direct = direct.resolve().expect("taken").mail_relay.and_then(|it| it.login);
        assert_eq!(direct.expect("a login").password, "other");
        for (case, told) in [
            (Case::new("").flag("smtp", "smtps://m.org"), "mail_from is needed"),
            (case("smtps://m.org").flag("mail_from", "a@x.org\nBcc: b@x.org"), "--mail-from: "),
            (case("smtps://ann:secret@m.org"), "must not have a password"),
            (case("smtps://ann@m.org"), "needs smtp_password_file"),
            (with("smtps://m.org"), "no user before the host"),
            (case("smtps://m.org").flag("smtp_authorities", "/nowhere"), "--smtp-authorities: "),
            (case("smtp://[::1]").flag("smtp_authorities", "/nowhere"), "no TLS to a relay"),
        ] {
            let error = case.refused();
            assert!(error.contains(told), "{told}: {error}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("changed");
        assert!(with("smtps://ann@m.org").refused().contains("mode 0640"));
    }

    #[test]
    fn lists_are_the_same_in_a_file_and_in_the_environment() {
        let file = Case::new("trusted_proxies = ['10.0.0.0/8', '::1']").resolve().expect("taken");
        let list = Case::new("").variable("RAVEN_TRUSTED_PROXIES", "10.0.0.0/8, ::1");
        assert_eq!(file.front.proxies, list.resolve().expect("taken").front.proxies);
        assert_eq!(file.front.proxies.0.len(), 2);
    }
}
