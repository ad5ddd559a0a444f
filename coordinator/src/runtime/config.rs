//! What the runtime is told at its start.

use crate::certificate::keep;
use crate::config::GpuUse;
use crate::view::CardView;
use raven_protocol::KernelId;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Settings of the runtime. Everything that has a right value for everyone is a
/// constant beside its use instead.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// The kernel module's file, the one that visitors are served.
    pub kernel_file: PathBuf,
    /// The GPU module that visitors are served, where they are.
    pub gpu_kernel: Option<KernelId>,
    /// Where the compiled kernel is kept between starts.
    pub cache_dir: Option<PathBuf>,
    /// `Origin` values that may open a session: the coordinator's own, since
    /// only its frame connects. A client without the header is no browser.
    pub own_origins: Vec<String>,
    /// Version of the consent text that must have been shown.
    pub consent_text_version: String,
    /// What cards show now, whatever waits: a yes to anything else is asked for again.
    pub card: CardView,
    /// Threads that run the kernel for the master.
    pub executor_threads: usize,
    /// Bytes of graphs, blobs and values that one executor instance may hold, and
    /// the operator's own node as much again.
    pub executor_memory_bytes: u64,
    /// Open sessions; each may hold a message of the greatest size in memory.
    pub sessions_max: usize,
    /// Of those, open sockets of one network (/24 of IPv4, /48 of IPv6). Behind
    /// a proxy every peer has the proxy's address; raise it there.
    pub sessions_per_network_max: usize,
    /// Sockets without consent that are read at the same time; more wait
    /// unread. Each may send 64 KiB before it has consented.
    pub opening_max: usize,
    /// Of those, sockets of one network.
    pub opening_per_network_max: usize,
    /// Whether the coordinator's own node works on jobs that call for it.
    pub operator: bool,
    /// Bytes that the published states of one strict job may take.
    pub certificate_bytes: u64,
    /// Where evidence of false results is kept; without it nothing is.
    pub evidence_dir: Option<PathBuf>,
    /// Between two looks at the sites of open sessions: a site that is paused has no
    /// session any more after a minute.
    pub site_look: Duration,
    /// Waiting times of sessions.
    pub timeouts: Timeouts,
    /// Lets tests come to what takes minutes.
    pub ahead: Ahead,
}

/// How far the engine's clock is ahead of the machine's; never anything but nothing outside
/// of tests. It only grows, since that clock is monotonic.
#[derive(Clone, Debug, Default)]
pub struct Ahead(Arc<AtomicU64>);

impl Ahead {
    /// In milliseconds.
    pub fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Time passes for the engine, and for nobody else.
    pub fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }
}

impl RuntimeConfig {
    /// Defaults for a kernel file, an origin and a consent text.
    pub fn new(
        kernel_file: PathBuf,
        own_origins: Vec<String>,
        consent_text_version: String,
    ) -> Self {
        let card = CardView::new(&consent_text_version, "", GpuUse::No.name());
        RuntimeConfig {
            kernel_file,
            gpu_kernel: None,
            cache_dir: None,
            own_origins,
            consent_text_version,
            card,
            executor_threads: 1,
            executor_memory_bytes: 1 << 30,
            sessions_max: 1024,
            sessions_per_network_max: 512,
            opening_max: 64,
            opening_per_network_max: 32,
            operator: true,
            certificate_bytes: keep::BYTES_DEFAULT,
            evidence_dir: None,
            site_look: Duration::from_secs(10),
            timeouts: Timeouts::default(),
            ahead: Ahead::default(),
        }
    }
}

/// How long a peer may keep the coordinator waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the upgrade to a hello.
    pub hello: Duration,
    /// From the welcome to a receipt. The visitor said yes before the socket
    /// was opened, so only a signature is waited for.
    pub consent: Duration,
    /// Between two pings to a contributor from which nothing came.
    pub ping: Duration,
    /// Without any frame or pong.
    pub idle: Duration,
    /// For one frame to leave, beside a second per [`Timeouts::DRAIN_BYTES_PER_S_MIN`].
    pub drain: Duration,
    /// For the peer to answer a close frame.
    pub close: Duration,
}

impl Timeouts {
    /// A reader slower than this is not worth the memory that its frames hold.
    pub const DRAIN_BYTES_PER_S_MIN: u64 = 64 << 10;

    /// Time for a frame of `bytes` to leave.
    pub fn drain_of(&self, bytes: usize) -> Duration {
        self.drain + Duration::from_millis(bytes as u64 * 1000 / Self::DRAIN_BYTES_PER_S_MIN)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            hello: Duration::from_secs(10),
            consent: Duration::from_secs(30),
            ping: Duration::from_secs(20),
            idle: Duration::from_secs(60),
            drain: Duration::from_secs(20),
            close: Duration::from_secs(2),
        }
    }
}
