//! The referee: runs a disputed task again on the very module that visitors
//! run, says whether a claimed result is the task's, where it is not, which op
//! is the first to differ, and keeps that as evidence that anyone can replay.
//!
//! It decides by computing and never by counting votes. Only the strict class
//! has equal bits, so only strict tasks are judged; a relaxed task can be run
//! ([`Referee::run`]) and its values compared normwise.
//!
//! # How to call it
//! Everything here blocks, computes for as long as the task takes, and touches
//! neither clock nor store: call it on a thread that may block.
//!
//! ```text
//! let referee = Referee::new(module, executor_memory_bytes);       // cheap; an instance is made per run
//! let materials = Materials::gather(task_frame, &graph, |id| …)?;  // the frame as it was sent; weights and shards by id
//! let claim = Claim { contributor, digest, payload };              // payload: the `result` frame, where it was revealed
//! let judgement = referee.judge(&materials, &claim)?;
//! match judgement.finding { Finding::Agrees => …, Finding::DigestOnly | Finding::Differs(_) => … }
//! let file = Evidence::build(&materials, &claim, &judgement, referee.kernel(), UnixMs::now(), &key)?;
//! ```
//!
//! An error of [`Referee::judge`] is no finding: it says nothing about the contributor.

pub mod evidence;
pub mod finding;
pub mod materials;
mod narrow;
pub mod replay;
mod stale;

pub use evidence::{Evidence, EvidenceError, Report};
pub use finding::{Bits, Difference, Element, Finding, Manner};
pub use materials::{Materials, MaterialsError};

use crate::runtime::executor::{Kernel, KernelError, KernelModule};
use axum::body::Bytes;
use raven_engine::ContributorId;
use raven_protocol::{
    Frame, FrameError, FrameLimits, FromContributor, KernelId, MessageError, Numerics,
    RefuseReason, ResultDigest, TaskSpec, result_digest,
};

/// Why the referee cannot judge. None of these says anything about a contributor.
#[derive(Debug, thiserror::Error)]
pub enum RefereeError {
    #[error("{0}")]
    Kernel(#[from] KernelError),
    #[error("the kernel refused the task ({reason:?}): {detail}")]
    Refused { reason: RefuseReason, detail: String },
    #[error("a result's frame: {0}")]
    Frame(#[from] FrameError),
    #[error("a result's header: {0}")]
    Message(#[from] MessageError),
    #[error("a result's frame holds another message")]
    NoResult,
    #[error("a relaxed task has no bits to be judged by")]
    Relaxed,
    #[error("the payload hashes to {found}, {claimed} was claimed")]
    Commitment { claimed: ResultDigest, found: ResultDigest },
    #[error("the payload is not one of the task: {reason}")]
    Payload { reason: String },
}

/// What a contributor said.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who.
    pub contributor: ContributorId,
    /// What was committed.
    pub digest: ResultDigest,
    /// The `result` frame, where it was asked for and matched the digest.
    pub payload: Option<Bytes>,
}

/// What the referee computed and what it makes of a claim.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The result's digest.
    pub digest: ResultDigest,
    /// The `result` frame.
    pub result: Bytes,
    /// What that says about the claim.
    pub finding: Finding,
}

/// Computes tasks again.
#[derive(Clone, Debug)]
pub struct Referee {
    module: KernelModule,
    memory_bytes: u64,
}

impl Referee {
    /// A referee whose instances may hold that much.
    pub fn new(module: KernelModule, memory_bytes: u64) -> Self {
        Referee { module, memory_bytes }
    }

    /// The module that decides.
    pub fn kernel(&self) -> KernelId {
        self.module.id()
    }

    /// Runs a task to its end on a fresh instance, so that nothing that was run before matters.
    /// Answers the `result` frame and its digest. Any class of task.
    ///
    /// # Errors
    /// [`RefereeError`].
    pub fn run(&self, materials: &Materials) -> Result<(ResultDigest, Bytes), RefereeError> {
        let mut kernel = self.instance(materials)?;
        let result = execute(&mut kernel, materials.task())?;
        Ok((digest_of(materials, &result)?, result))
    }

    /// Runs a strict task and compares.
    ///
    /// # Errors
    /// [`RefereeError`].
    pub fn judge(&self, materials: &Materials, claim: &Claim) -> Result<Judgement, RefereeError> {
        if materials.spec().numerics != Numerics::Strict {
            return Err(RefereeError::Relaxed);
        }
        if let Some(payload) = &claim.payload {
            let found = digest_of(materials, payload)?;
            if found != claim.digest {
                return Err(RefereeError::Commitment { claimed: claim.digest, found });
            }
        }
        let mut kernel = self.instance(materials)?;
        let result = execute(&mut kernel, materials.task())?;
        let digest = digest_of(materials, &result)?;
        let finding = match &claim.payload {
            _ if digest == claim.digest => Finding::Agrees,
            None => Finding::DigestOnly,
            Some(payload) => {
                let difference = narrow::first_difference(materials, payload, &result)?;
                Finding::Differs(Box::new(stale::explain(
                    &mut kernel,
                    materials,
                    payload,
                    difference,
                )?))
            }
        };
        Ok(Judgement { digest, result, finding })
    }

    /// An instance that holds the task's graph and blobs.
    fn instance(&self, materials: &Materials) -> Result<Kernel, RefereeError> {
        let mut kernel = Kernel::new(&self.module, self.memory_bytes)?;
        kernel.accept(materials.graph_frame())?;
        for blob in materials.blob_frames() {
            kernel.accept(blob)?;
        }
        Ok(kernel)
    }
}

/// Runs a task's frame; answers the `result` frame.
fn execute(kernel: &mut Kernel, task: &[u8]) -> Result<Bytes, RefereeError> {
    let reply = Bytes::from(kernel.execute(task)?);
    match FromContributor::from_header(result_frame(&reply)?.header())? {
        FromContributor::Result { .. } => Ok(reply),
        FromContributor::Refuse { reason, detail, .. } => {
            Err(RefereeError::Refused { reason, detail })
        }
        _ => Err(RefereeError::NoResult),
    }
}

/// Reads a `result` frame, the kernel's or a contributor's.
fn result_frame(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    Frame::decode(bytes, &FrameLimits::TO_CONTRIBUTOR)
}

/// The digest of a `result` frame as one of this task.
fn digest_of(materials: &Materials, result: &[u8]) -> Result<ResultDigest, RefereeError> {
    let frame = result_frame(result)?;
    let spec: &TaskSpec = materials.spec();
    let (found, expected) = (frame.tensors().count(), spec.outputs.len());
    if found != expected {
        let reason = format!("{found} tensors, the task has {expected} outputs");
        return Err(RefereeError::Payload { reason });
    }
    let encodings = spec.outputs.iter().map(|output| output.encoding);
    Ok(result_digest(materials.message().task, encodings.zip(frame.tensors())))
}
