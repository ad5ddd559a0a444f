//! Everything that the engine is told. `now` comes beside each event.

use crate::category::{CategorySet, RefusedCategories};
use crate::effect::EffectId;
use crate::money::NanoUsd;
use crate::plan::{JobPlan, ResumePoint};
use crate::terms::Terms;
use crate::verify::Trust;
use raven_protocol::{
    BlobId, DeviceClass, JobId, LeaseId, NumericClass, RefuseReason, ResultDigest, SessionId,
};

/// Milliseconds on the caller's monotonic clock.
pub type Millis = u64;

/// Who contributes: stable over one browser's workers, and over reconnects
/// where the contributor brings the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContributorId(pub [u8; 32]);

/// A registered partner site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub u64);

/// The part of an address that neighbours share: /24 of IPv4, /48 of IPv6, zero-filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkPrefix(pub [u8; 16]);

impl NetworkPrefix {
    /// Whether it is this machine's own: behind a proxy that names nobody
    /// everyone has it, and it says nothing of who is near whom.
    pub fn is_loopback(&self) -> bool {
        let [head @ .., a, b, c, d] = self.0;
        let is_mapped = head == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let unspecified = self.0 == [0; 16];
        (is_mapped && a == 127 && (b, c, d) == (0, 0, 0)) || unspecified
    }
}

/// Whose the earnings of a session are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Beneficiary {
    /// The contributor's own.
    #[default]
    Contributor,
    /// The site's through which it came: the visitor has left them to it, or has no key to
    /// come back with. Where there is no site they are the contributor's.
    Site,
    /// Nobody's: it was left to a site that does not earn by it. Whoever has left it does not
    /// get it back, and may have no key any more.
    Reserve,
}

impl Beneficiary {
    /// The name in stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Beneficiary::Contributor => "contributor",
            Beneficiary::Site => "site",
            Beneficiary::Reserve => "reserve",
        }
    }
}

/// What is known of a session from its first moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionProfile {
    /// All workers of one browser are one contributor.
    pub contributor: ContributorId,
    /// The site through which it came, if any.
    pub site: Option<SiteId>,
    /// Whose its earnings are.
    pub beneficiary: Beneficiary,
    /// For placing replicas apart.
    pub prefix: NetworkPrefix,
    /// Coarse device class.
    pub device: DeviceClass,
    /// Results compare only within this class.
    pub numeric: NumericClass,
    /// Claimed speed of one worker at full share, in flop/s; replaced by measurement.
    pub flops_per_s: u64,
    /// Duty cycle over all workers, in (0, 1].
    pub share: f64,
    /// Workers that compute at once.
    pub workers: u32,
    /// Bytes that one worker may hold.
    pub memory_bytes: u64,
    /// Bytes that its visit may still move over the network; `None` where nothing limits it.
    pub traffic_bytes: Option<u64>,
    /// Kinds of jobs of which it gets no task.
    pub refused: RefusedCategories,
    /// What is stored of its identity.
    pub trust: Trust,
    /// The coordinator's own node: it works on jobs that call for it, is shown
    /// anything, and is not counted as a contributor online.
    pub operator: bool,
}

/// A payload that the shell holds in memory until the engine releases it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PayloadId(pub u64);

/// What the shell does with an answer before it tells the engine what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Whether it is what was asked for at all. Its session is not read until that is known.
    Form,
    /// It is. What it says is compared with what others did, while its session is read on.
    Comparison,
}

/// Sums over samples, as the kernel returned them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metrics {
    /// Sum of the samples' losses.
    pub loss_sum: f32,
    /// Samples that were classified rightly (0 for regression).
    pub correct: f32,
    /// Samples.
    pub count: f32,
}

/// What an effect came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// [`crate::Effect::InitState`]: the first weights and optimizer slots.
    StateReady { state: BlobId },
    /// [`crate::Effect::RunLocal`] or [`crate::Effect::Combine`].
    StageDone,
    /// [`crate::Effect::Step`]: the next state and the batch's metrics.
    Stepped { state: BlobId, metrics: Metrics, grad_norm: f32 },
    /// [`crate::Effect::Step`]: of the groups that the job's rule combines, only
    /// `kept` have gradients that are fit for it.
    Outnumbered { kept: u32, groups: u32 },
    /// [`crate::Effect::Evaluate`].
    Evaluated { metrics: Metrics },
    /// [`crate::Effect::Referee`]: what the task yields, its result held under
    /// `payload`, and what it makes of the testimonies, in their order.
    Judged { digest: ResultDigest, payload: PayloadId, bytes: u64, agrees: Vec<Agreement> },
    /// [`crate::Effect::Referee`]: nobody can do the task, and why.
    Invalid { reason: String },
    /// [`crate::Effect::Persist`] and [`crate::Effect::Show`]: it is durable.
    Persisted,
}

/// Why an effect did not come to anything. The job fails with this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {reason}")]
pub struct EffectError {
    /// Which part of the shell failed: `executor`, `store`, `blobs`.
    pub stage: &'static str,
    /// A sentence for the job's owner.
    pub reason: String,
}

/// What the referee makes of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// It is the task's.
    Agrees,
    /// It is a GPU's, farther from the task's than others are as a rule and within
    /// what may be in a model. It proves nothing, for or against.
    Doubtful,
    /// It is a GPU's, farther from the task's than what may be in a model, and not so
    /// far that no honest one could be at a kink. It is not taken.
    Far,
    /// It is false.
    False,
}

/// How a result looks, before anybody computes it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oddness {
    /// As it should.
    #[default]
    Plain,
    /// As it should, and random probes of the product that it is found nothing
    /// beyond what rounding explains.
    Probed,
    /// Its loss is far from that of the round before.
    Unlikely,
    /// Something in it is no finite number.
    NotFinite,
    /// It differs from the product that it should be by more than rounding explains.
    Faulty,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time passed; timers that are due fire.
    Tick,
    /// A requester's job was accepted and stored.
    JobAdded { plan: Box<JobPlan>, resume: Option<ResumePoint>, terms: Box<Terms> },
    /// Its owner cancels it.
    JobCancelled { job: JobId },
    /// More was put into its escrow: what that holds now, with the margin.
    ToppedUp { job: JobId, escrow: NanoUsd },
    /// A contributor has consented and is ready.
    SessionOpened { session: SessionId, profile: SessionProfile },
    /// Its socket is gone; its leases are free.
    SessionClosed { session: SessionId },
    /// The visitor chose another share.
    PaceChanged { session: SessionId, share: f64, workers: u32 },
    /// What its visit may still move over the network, besides the results that it owes.
    TrafficLeft { session: SessionId, bytes: u64 },
    /// Its site refuses these kinds of jobs from now on, instead of those before.
    SiteRefuses { session: SessionId, categories: CategorySet },
    /// Its visitor does. Tasks under way are finished either way.
    VisitorRefuses { session: SessionId, categories: CategorySet },
    /// No new tasks until resumed.
    Paused { session: SessionId },
    /// Tasks again.
    Resumed { session: SessionId },
    /// A task is done, its payload not yet sent.
    Committed { session: SessionId, lease: LeaseId, digest: ResultDigest },
    /// What was asked for under a lease, projections or the payload, is here, and the
    /// shell checks it: from now on its contributor waits for the coordinator. It need
    /// not be told of what is checked at once, and may be told twice.
    Arrived { session: SessionId, lease: LeaseId, check: Check },
    /// Random projections of a committed payload arrived, as many as were asked for.
    /// The shell holds them under `projection`; `agrees` says whether they are
    /// within the bounds of relaxed results from all others of the same task that
    /// it was shown.
    Projected {
        session: SessionId,
        lease: LeaseId,
        projection: PayloadId,
        /// What they take in the shell's memory, also once the engine has released them.
        bytes: u64,
        agrees: bool,
    },
    /// The payload arrived and does not have the projections that its contributor
    /// had answered.
    Misprojected { session: SessionId, lease: LeaseId },
    /// The payload arrived, has the types that the task declares, and hashes to `digest`.
    Revealed {
        session: SessionId,
        lease: LeaseId,
        digest: ResultDigest,
        payload: PayloadId,
        bytes: u64,
        /// Whether it looks as a result should.
        odd: Oddness,
        /// Whether it is within the bounds of relaxed results from all that others
        /// have projected of the same task.
        agrees: bool,
    },
    /// A leased task could not be written down: a fault of this process, of which the
    /// session knows nothing.
    Unsent { session: SessionId, lease: LeaseId, reason: String },
    /// A lease handed back.
    Refused { session: SessionId, lease: LeaseId, reason: RefuseReason },
    /// An effect ended.
    EffectDone { effect: EffectId, outcome: Result<Outcome, EffectError> },
}
