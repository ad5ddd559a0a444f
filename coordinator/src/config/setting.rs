//! The table of settings: each is the same word on the command line, in the
//! environment and in the file.

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
