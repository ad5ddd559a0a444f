//! Everything that the engine asks of its shell.

use crate::event::{Beneficiary, ContributorId, SiteId};
use crate::event::{Metrics, PayloadId};
use crate::job::{JobPhase, JobState};
use crate::money::PicoUsd;
use crate::verify::{Identity, Trust};
use raven_protocol::{
    Backend, BlobId, GoodbyeReason, GraphId, JobId, LeaseId, ResultDigest, ResultOutcome, Seed,
    SessionId, TaskId,
};
use serde::{Deserialize, Serialize};

/// Names an effect that is answered by [`crate::Event::EffectDone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EffectId(pub u64);

/// What a leased task works on; the shell builds the [`raven_protocol::TaskSpec`] from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Forward and backward of the whole graph on micro-batches
    /// `start..start + count` of the round's batch, with the weights of `state`.
    Replica { state: BlobId, start: u32, count: u32 },
    /// One part of a pushed stage; its operands are attached.
    Part { state: BlobId, stage: u32, part: u32 },
}

/// A message to a contributor, without its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// The graph, before the first task that runs it.
    Graph { job: JobId, graph: GraphId },
    /// The weights of a state, before the first task that reads them.
    Weights { job: JobId, state: BlobId },
    /// A leased task.
    Task { lease: LeaseId, task: TaskId, lease_ms: u64, flops: u64, work: Work },
    /// Send so many random projections under that key, which was drawn after the
    /// commitment.
    Project { lease: LeaseId, key: Seed, probes: u32 },
    /// Send the payload.
    Reveal { lease: LeaseId },
    /// No longer needed.
    Cancel { lease: LeaseId },
    /// Forget what will not be read again.
    Drop { blobs: Vec<BlobId>, graphs: Vec<GraphId> },
}

/// Verified work of one contributor in one round: the ledger's raw material.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// The task that was accepted; with the job it is the idempotency id.
    pub task: TaskId,
    /// Who did it.
    pub contributor: ContributorId,
    /// Over which session.
    pub session: SessionId,
    /// Through which site.
    pub site: Option<SiteId>,
    /// Whose the earning is.
    pub beneficiary: Beneficiary,
    /// Static cost of the task. Flops are stored, never a rounded count.
    pub flops: u64,
    /// What they cost, by the class of the device that did them.
    pub rate: PicoUsd,
    /// What executed the task.
    pub backend: Backend,
    /// What was accepted.
    pub digest: ResultDigest,
    /// Why it was believed.
    pub proof: Proof,
    /// How often the job had gone back for any reason, a restart included: with task and
    /// contributor the idempotency id.
    pub attempt: u32,
    /// Who pays.
    pub payer: Payer,
}

/// Why a result was believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The job does not check.
    Unchecked,
    /// A vetted contributor's word: provisional until its round is settled.
    Single,
    /// Several contributors came to the same bits, or where GPUs were among them to
    /// projections within the bounds of relaxed results.
    Agreed,
    /// The coordinator computed it as well.
    Refereed,
}

impl Proof {
    /// The name in stores and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Proof::Unchecked => "unchecked",
            Proof::Single => "single",
            Proof::Agreed => "agreed",
            Proof::Refereed => "refereed",
        }
    }
}

/// Who pays for an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payer {
    /// The job's owner.
    Job,
    /// The operator: the job has paid for that round once.
    Operator,
}

/// An execution that earns nothing after all: its contributor has lied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Void {
    pub task: TaskId,
    pub attempt: u32,
    pub contributor: ContributorId,
}

/// What one contributor says that a task yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Testimony {
    pub contributor: ContributorId,
    pub backend: Backend,
    /// Under which lease it committed.
    pub lease: LeaseId,
    pub digest: ResultDigest,
    /// Its result, where it was sent and is still held.
    pub payload: Option<PayloadId>,
    /// Whether its contributor is vetted, or is so if this result is right.
    pub vetted: bool,
}

/// What one transaction makes durable: a round, an evaluation or an end.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub job: JobId,
    /// Where the job stands after this record.
    pub phase: JobPhase,
    pub state: JobState,
    /// Optimizer steps done.
    pub step: u32,
    pub epoch: u32,
    /// The state after this record; `None` before the first.
    pub weights: Option<BlobId>,
    /// Whether `weights` is to be kept as a checkpoint.
    pub checkpoint: bool,
    /// Whether `weights` is the best checkpoint so far by evaluation.
    pub best: bool,
    /// Batch metrics of a round.
    pub train: Option<Metrics>,
    /// Test metrics of an evaluation.
    pub evaluation: Option<Metrics>,
    /// Learning rate of the step, where there was one.
    pub learning_rate: Option<f32>,
    /// Contributors who took part in the round.
    pub contributors: u32,
    /// Accepted work.
    pub credits: Vec<Credit>,
    /// Accepted work of before that is void.
    pub voids: Vec<Void>,
    /// Whether the rounds after `step` are undone.
    pub rolled_back: bool,
    /// Whether they are because the loss diverged: `step` is that of a checkpoint.
    pub set_back: Option<SetBack>,
    /// Rounds that the job has paid for, from the first, however far it went back.
    pub rounds_paid: u32,
    /// Results that were accepted, whoever is paid for them.
    pub accepted: Vec<Acceptance>,
    /// What is known of open work of earlier processes, where that matures.
    pub earlier: Option<Earlier>,
}

impl Record {
    /// Whether what is open of its job matures with it, because it is settled: a job that
    /// waits for money is so, whether it has a checkpoint of it or not.
    pub fn matures(&self) -> bool {
        self.checkpoint || self.phase == JobPhase::Paused || self.phase.is_end()
    }
}

/// Open work of earlier processes: whoever of its contributors is excluded has it voided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The first attempt of this process.
    pub below: u32,
    /// Who was excluded since it began, besides those whose exclusion is stored.
    pub excluded: Vec<Identity>,
}

/// Why a job went back to its last checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SetBack {
    /// Which one of the job it is, from 1.
    pub number: u32,
    /// The step that diverged.
    pub diverged_at: u32,
    /// Its mean loss, which may be no finite number.
    pub loss: f32,
}

/// The result of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acceptance {
    pub task: TaskId,
    pub digest: ResultDigest,
}

/// A partial result along the reduction tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreePart {
    /// First micro-batch.
    pub start: u32,
    /// Number of micro-batches.
    pub count: u32,
    /// Its accepted payload.
    pub payload: PayloadId,
}

/// One thing to be done. Effects with an id are answered by `EffectDone`;
/// the outcome does not depend on the order in which answers arrive.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a message.
    Send { session: SessionId, message: Outbound },
    /// End a session, with its reason.
    Close { session: SessionId, reason: GoodbyeReason, detail: String },
    /// Run the job's init graph under its seed.
    InitState { effect: EffectId, job: JobId },
    /// Run a local stage of master placement over the round's values. Stage 0 of
    /// a round starts from `state` and the batch's rows.
    RunLocal { effect: EffectId, job: JobId, round: u32, stage: u32, state: BlobId },
    /// Combine a pushed stage's payloads, in part order, into one value.
    Combine { effect: EffectId, job: JobId, round: u32, stage: u32, parts: Vec<PayloadId> },
    /// A result of a replica round was accepted: it will be among the parts of
    /// the round's [`Effect::Step`], over `total` micro-batches. What can be
    /// combined of them may be before all are there. Not answered.
    Fold { job: JobId, round: u32, total: u32, part: TreePart },
    /// Combine the parts along the tree (or take the round's values in master
    /// placement, where `parts` is empty) and run the optimizer.
    Step {
        effect: EffectId,
        job: JobId,
        round: u32,
        state: BlobId,
        parts: Vec<TreePart>,
        learning_rate: f32,
        /// Counted from 1.
        step: u32,
    },
    /// Compute a task here and say what to make of the testimonies: true to the
    /// bit where a processor gave them, within the bounds of relaxed results where
    /// a GPU did. Of what a GPU came to and the engine has released the shell keeps
    /// projections, while the round may be undone. What is kept of a false one is durable before the answer.
    Referee { effect: EffectId, job: JobId, task: TaskId, work: Work, testimonies: Vec<Testimony> },
    /// Store what is known of an identity. Not answered: what is lost in a crash
    /// is earned, or proven, again.
    Trust { identity: Identity, trust: Trust },
    /// Tell a contributor what became of a result that it committed to under a
    /// lease. Its session may be over. Not answered.
    Outcome { session: SessionId, lease: LeaseId, outcome: ResultOutcome },
    /// So many results of a contributor came to that, once and for all: each is counted
    /// once, the accepted ones when their rounds are settled. Its sessions may be over.
    /// Not answered.
    Counted { contributor: ContributorId, outcome: ResultOutcome, results: u64 },
    /// Nothing that a job has accepted so far is computed again: what was kept of it for
    /// that is not read any more. Not answered.
    Settled { job: JobId },
    /// The job goes back to the beginning of `round`, before a wrong result or where
    /// its loss was not diverging yet: partial sums of it and of what followed are
    /// forgotten. Not answered.
    RolledBack { job: JobId, round: u32 },
    /// Loss and accuracy of `state` on the held-out rows.
    Evaluate { effect: EffectId, job: JobId, state: BlobId },
    /// Make a record durable in one transaction.
    Persist { effect: EffectId, record: Box<Record> },
    /// Make durable that `contributor` is shown that slice of the job's weights.
    /// Only then is a task that shows it leased.
    Show { effect: EffectId, job: JobId, contributor: ContributorId, slice: u32 },
    /// These payloads will not be asked for again.
    ReleasePayloads { payloads: Vec<PayloadId> },
    /// This state will not be asked for again, unless a checkpoint keeps it.
    ReleaseState { job: JobId, state: BlobId },
}
