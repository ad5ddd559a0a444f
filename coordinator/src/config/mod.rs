//! Settings of a serving coordinator, from four places: a flag overrules the
//! environment, that the configuration file, and that the default. One table
//! names them all, so that each is the same word everywhere.

mod found;
mod secret;
mod setting;

pub use secret::{AdminToken, MailRelay};
pub use setting::{SETTINGS, Setting};

use crate::certificate::keep;
use crate::front::{ConnectionLimits, FrontConfig, Network, Proxies, sign_up_rate};
use crate::http::CHILDREN_MAX;
use crate::store::SiteCaps;
use found::{Found, Given};
use raven_engine::money::{NanoUsd, PicoUsd};
use raven_engine::rates::{
    BONUS_THOUSANDTHS_MAX, Bonus, LEAST_MFLOPS_MAX, Least, RATE_MAX, Rates, STAY_MINUTES_MAX,
};
use secret::{admin_token, mail_relay};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

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

/// The environment, or what a test puts in its place.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Puts the settings together. `flags` are by setting name.
///
/// # Errors
/// [`ConfigError`].
pub fn resolve(
    flags: &BTreeMap<&'static str, String>,
    config_file: Option<&Path>,
    environment: Environment<'_>,
) -> Result<Serve, ConfigError> {
    typed(&Found::gather(flags, config_file, environment)?, environment)
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
    let front = front(found)?;
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

fn front(found: &Found) -> Result<FrontConfig, ConfigError> {
    let defaults = FrontConfig::default();
    let limits = defaults.connections;
    Ok(FrontConfig {
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
