//! A contributor without a browser: `coordinator contribute`. It runs the module
//! that visitors run, under wasmtime, keeps its share by resting between steps, and
//! speaks the protocol that visitors' workers speak. It is nobody's page, so that
//! its sessions come through no site.

mod address;
mod backoff;
mod consent;
mod fetcher;
mod frames;
mod identity;
mod memory;
mod pace;
mod pool;
mod session;
mod speed;
mod stay;
mod tls;
mod trust;
mod worker;

pub use address::{Address, AddressError};
pub(crate) use consent::words_version;
pub use stay::{Wish, contribute};

use crate::runtime::executor::KernelError;
use raven_protocol::GoodbyeReason;
use std::path::PathBuf;

/// What was asked for on the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribute {
    pub to: Address,
    /// Part of all cores, in (0, 1].
    pub share: f64,
    /// Workers; by default as few as the share needs.
    pub workers: Option<u32>,
    /// File of the secret key that earns; made where there is none.
    pub key: PathBuf,
    /// The kernel module's file.
    pub kernel: PathBuf,
    /// Where the compiled module is kept.
    pub cache: Option<PathBuf>,
    /// Authorities that may vouch for the coordinator instead of those that browsers know.
    pub authorities: Option<PathBuf>,
    /// Whether the yes was given on the command line.
    pub yes: bool,
}

/// Share of the machine where none is named.
pub const SHARE_DEFAULT: f64 = 0.5;

/// Why contributing ends, or does not begin.
#[derive(Debug, thiserror::Error)]
pub enum ContributeError {
    #[error("the contributor's key: {action} {}: {error}", path.display())]
    Key { action: &'static str, path: PathBuf, error: std::io::Error },
    #[error("the contributor's key: {} has mode {mode:04o}; others may read it, 0600 is needed", path.display())]
    KeyMode { path: PathBuf, mode: u32 },
    #[error("the contributor's key: {} is not 64 lower-case hex digits", path.display())]
    KeyUnreadable { path: PathBuf },
    #[error("--ca: {}: {detail}", path.display())]
    Authorities { path: PathBuf, detail: String },
    #[error("--to: no certificate can be for {name}")]
    Name { name: String },
    #[error("no TLS can be spoken: {0}")]
    Tls(rustls::Error),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("the kernel refuses the speed test: {detail}")]
    Speed { detail: String },
    #[error("a worker was not started: {0}")]
    Thread(std::io::Error),
    #[error("--share: {share} is too little for one worker; {least} is the least on this machine")]
    Share { share: f64, least: f64 },
    #[error("nothing was agreed to, so nothing runs; answer yes, or give --yes")]
    NoConsent,
    #[error("{to} sends us away ({reason:?}): {detail}")]
    Refused { to: Address, reason: GoodbyeReason, detail: String },
    #[error("workers crash again and again: {detail}")]
    Crashes { detail: String },
}
