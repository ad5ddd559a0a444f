//! Contributors that cheat.

use crate::faults::Micros;
use crate::ids::IdMap;
use crate::kernel::{Value, is_product, mix};
use crate::rng::Rng;
use raven_engine::{ContributorId, Identity, Trust, Work};
use raven_protocol::{ResultDigest, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// How a contributor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Anything, another each time.
    Noise,
    /// What a gradient with its sign turned would be: the same of all who do so.
    Flipped,
    /// What a scaled gradient would be: the same of all who scale alike.
    Scaled,
    /// Zeros.
    Zero,
    /// The result of the task that it did before.
    Stale,
    /// What its group agreed on.
    Colluding { group: u64 },
    /// It commits and sends nothing.
    Withheld,
    /// It calls every task invalid, to end the job.
    Invalid,
    /// A GPU's: as far off, always to the same side, as honest ones may be at most.
    Within,
    /// A GPU's: as far off, always to the same side, as one result of an honest one may be.
    Kinked,
    /// A GPU's: turned signs, with projections of the truth.
    Feigned,
}

/// A cheat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adversary {
    pub lie: Lie,
    /// Tasks that it does honestly first.
    pub honest_first: u32,
    /// How often it lies before it is honest for good.
    pub lies_max: u32,
    pub about: About,
}

/// What a cheat lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Everything,
    /// Matrix products of placement `master`, which are probed.
    Products,
    /// Anything but those.
    Others,
}

impl About {
    pub(crate) fn holds(self, work: &Work) -> bool {
        match self {
            About::Everything => true,
            About::Products => is_product(work),
            About::Others => !is_product(work),
        }
    }
}

impl Adversary {
    /// One that lies from the start.
    pub const fn always(lie: Lie) -> Self {
        Adversary { lie, honest_first: 0, lies_max: u32::MAX, about: About::Everything }
    }
}

impl Lie {
    /// What is said instead of `truth`.
    pub fn value(self, truth: Value, before: Value, rng: &mut Rng) -> Value {
        match self {
            Lie::Noise => rng.word(),
            Lie::Flipped => !truth,
            Lie::Scaled => mix(truth, 2),
            Lie::Zero => 0,
            Lie::Stale => before,
            Lie::Colluding { group } => mix(truth, group),
            // Of tensors that are no numbers nothing is nearly right.
            Lie::Withheld | Lie::Invalid | Lie::Within | Lie::Kinked | Lie::Feigned => truth,
        }
    }
}

/// What a simulation knows of lies, which the engine does not.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// What every run that was leased was leased as, as of its last lease.
    pub work: IdMap<TaskId, Work>,
    /// False results that were committed to, by contributor.
    pub lies: BTreeMap<ContributorId, u64>,
    /// False results by what they were committed to for, and who did.
    pub false_results: IdMap<(TaskId, ResultDigest), BTreeSet<ContributorId>>,
    /// False results that were folded into a round which was not undone.
    pub standing: BTreeSet<TaskId>,
    /// What results of GPUs were off, by task: in norms of the task's own.
    pub off: BTreeMap<TaskId, f64>,
    /// Tolerance of relaxed results at the end.
    pub tolerance: f64,
    /// All that ever were.
    pub combined: u64,
    /// The same by whoever had come to them.
    pub combined_of: BTreeMap<ContributorId, u64>,
    /// Contributors that cheat.
    pub cheats: BTreeSet<ContributorId>,
    /// What is stored of identities.
    pub trust: IdMap<Identity, Trust>,
    /// Honest contributors that were excluded.
    pub wronged: BTreeSet<ContributorId>,
    pub excluded: BTreeSet<ContributorId>,
    /// When each committed to its first false result.
    pub first_lies: BTreeMap<ContributorId, Micros>,
    /// How long after that those who were excluded were.
    pub exclusions: Vec<Micros>,
    /// Flops of everything that was computed by contributors.
    pub executed: u64,
    /// Tasks that those who do not cheat have computed and committed to.
    pub honest_done: u64,
    /// By step, as of when it was made durable.
    pub costs: Vec<Cost>,
}

/// Flops so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// What contributors had computed.
    pub executed: u64,
    /// What the referee had.
    pub refereed: u64,
    /// What was accepted, also in rounds that were undone.
    pub accepted: u64,
}
