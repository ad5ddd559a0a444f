//! What the HTTP side may know of the running network.

use crate::allocation::Allocation;
use raven_engine::{Category, CategorySet, ContributorId, JobPhase, NetworkPrefix, SiteId};
use raven_protocol::{Device, DeviceClass, JobId, NumericClass, SessionId, ViewId};
use std::collections::HashMap;

/// The network at one moment; refreshed a few times a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkSnapshot {
    /// Sessions that have consented, oldest first.
    pub nodes: Vec<NodeSnapshot>,
    /// Workers of all sessions.
    pub workers: u64,
    /// Contributors of these sessions: one may have several.
    pub contributors: usize,
    /// Leases that no session has answered yet.
    pub leases: u64,
    /// Results that are held in memory.
    pub payloads: u64,
    /// Accepted tasks a second, over the last minute.
    pub tasks_per_s: f64,
    /// Jobs that the engine holds.
    pub jobs: HashMap<JobId, JobLive>,
}

/// One contributor's session.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSnapshot {
    /// The session.
    pub session: SessionId,
    /// Whose it is. Not for the public.
    pub contributor: ContributorId,
    /// Coarse device class.
    pub device: DeviceClass,
    /// Class in which its results are compared.
    pub numeric: NumericClass,
    /// Duty cycle, in (0, 1].
    pub share: f64,
    /// Workers that compute at once.
    pub workers: u32,
    /// Speed of all its workers at its share, in flop/s.
    pub flops_per_s: u64,
    /// Whether that was measured; until then it is what the device claims.
    pub measured: bool,
    /// Whether it takes tasks now.
    pub takes_tasks: bool,
    /// Tasks accepted in this session.
    pub tasks_accepted: u64,
    /// `idle`, `working` or `paused`.
    pub state: &'static str,
    /// Seconds since its consent.
    pub joined_s_ago: u64,
}

/// A job's progress between two records.
#[derive(Clone, Debug, PartialEq)]
pub struct JobLive {
    /// What it is for, by its owner's word.
    pub category: Category,
    /// Its owner's pseudonym.
    pub requester: String,
    /// Where the engine sees it. An end may not be durable yet.
    pub phase: JobPhase,
    /// The sentence that goes with it, e.g. what the job waits for.
    pub reason: Option<String>,
    /// Contributors whose work was accepted in the last round.
    pub contributors: u32,
    /// Training rows a second over the last rounds, waiting and evaluation left out.
    pub images_per_s: f64,
    /// Milliseconds spent on rounds in this process.
    pub train_ms: u64,
}

/// A session as it is stored before it gets work.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRecord {
    /// The session.
    pub session: SessionId,
    /// Its public key.
    pub contributor: ContributorId,
    /// The site through which it came, if any.
    pub site: Option<SiteId>,
    /// The page's origin, as far as it is known.
    pub origin: Option<String>,
    /// The ticket that it came with.
    pub ticket: Option<crate::ticket::UsedTicket>,
    /// Its network.
    pub prefix: NetworkPrefix,
    /// Claims about the machine.
    pub device: Device,
    /// Class in which its results are compared.
    pub numeric: NumericClass,
    /// Chosen share.
    pub share: f64,
    /// Workers.
    pub workers: u32,
    /// Kinds of jobs that its visitor refuses.
    pub refuses: CategorySet,
    /// What its card showed, by its receipt.
    pub view: Option<ViewId>,
    /// The exact text that was signed.
    pub receipt: String,
    /// Its signature, in hex.
    pub signature: String,
}

impl SessionRecord {
    /// The first line of its allocation.
    pub fn allocation(&self) -> Allocation {
        let line = Allocation::of(self.contributor, self.session, self.numeric.backend());
        line.consented(self.share, self.workers, self.refuses, &self.receipt)
    }
}
