//! `coordinator replay EVIDENCE`: whoever has an evidence file and the kernel
//! module computes the finding again and trusts nobody.

use super::evidence::{EVIDENCE_BYTES_MAX, Evidence, EvidenceError};
use super::finding::Finding;
use super::{Referee, RefereeError};
use crate::runtime::executor::{KernelError, KernelModule};
use crate::runtime::session::hex;
use axum::body::Bytes;
use raven_protocol::{KernelId, ResultDigest};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What one instance may hold while it computes: a contributor's has no more than this.
const MEMORY_BYTES: u64 = 2 << 30;

/// What is asked for on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The evidence file.
    pub evidence: PathBuf,
    /// The kernel module's file.
    pub kernel: PathBuf,
    /// The coordinator's public key, where it is known.
    pub key: Option<[u8; 32]>,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{0}")]
    Kernel(#[from] KernelError),
    #[error("the evidence is about kernel {expected}, the file is {found}; --kernel names another")]
    OtherKernel { expected: KernelId, found: KernelId },
    #[error("the task cannot be run here: {0}")]
    Referee(#[from] RefereeError),
}

/// What a replay came to.
#[derive(Debug)]
pub enum Verdict {
    /// The finding is that of the file.
    Confirmed,
    /// The task's result, or what it says about the claim, is another than the file says.
    Refuted { digest: ResultDigest, finding: Finding },
    /// The file is not as the coordinator wrote it, or of another coordinator than was expected.
    Tampered(EvidenceError),
}

impl Verdict {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Verdict::Confirmed => 0,
            Verdict::Refuted { .. } => 1,
            Verdict::Tampered(_) => 2,
        }
    }
}

/// The exit code where nothing can be said.
pub const UNDECIDED: u8 = 3;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Confirmed => f.write_str("confirmed"),
            Verdict::Refuted { digest, finding } => {
                write!(f, "refuted: the result is {digest}; {finding}")
            }
            Verdict::Tampered(error) => write!(f, "tampered: {error}"),
        }
    }
}

/// Replays and prints; answers the exit code: 0 confirmed, 1 refuted, 2 tampered, 3 undecided.
pub fn run(asked: &Replay) -> u8 {
    let printed = replay(asked, |evidence| print!("{}", summary(evidence, asked.key.is_some())));
    match printed {
        Ok(verdict) => {
            println!("{verdict}");
            verdict.code()
        }
        Err(error) => {
            eprintln!("coordinator: {error}");
            UNDECIDED
        }
    }
}

/// Replays an evidence file; `tell` is given it as soon as it has been read.
///
/// # Errors
/// [`ReplayError`].
pub fn replay(asked: &Replay, tell: impl FnOnce(&Evidence)) -> Result<Verdict, ReplayError> {
    let evidence = match read(&asked.evidence)?.and_then(|evidence| {
        asked.key.map_or(Ok(()), |key| evidence.check_key(&key))?;
        Ok(evidence)
    }) {
        Ok(evidence) => evidence,
        Err(error) => return Ok(Verdict::Tampered(error)),
    };
    tell(&evidence);
    let expected = evidence.report.kernel;
    // Looked at before the module is compiled, which takes seconds.
    is_kernel(expected, kernel_id(&asked.kernel)?)?;
    let module = KernelModule::load(&asked.kernel, None)?;
    is_kernel(expected, module.id())?;
    confirm(&Referee::new(module, MEMORY_BYTES), &evidence).map_err(ReplayError::from)
}

fn kernel_id(file: &Path) -> Result<KernelId, ReplayError> {
    let bytes = std::fs::read(file);
    let bytes = bytes.map_err(|error| ReplayError::File { path: file.to_owned(), error })?;
    Ok(KernelId(*blake3::hash(&bytes).as_bytes()))
}

fn is_kernel(expected: KernelId, found: KernelId) -> Result<(), ReplayError> {
    if expected == found { Ok(()) } else { Err(ReplayError::OtherKernel { expected, found }) }
}

/// Computes the finding again.
///
/// # Errors
/// [`RefereeError`].
pub fn confirm(referee: &Referee, evidence: &Evidence) -> Result<Verdict, RefereeError> {
    let judgement = referee.judge(&evidence.materials, &evidence.claim)?;
    let report = &evidence.report;
    if judgement.digest == report.found && judgement.finding == report.finding {
        return Ok(Verdict::Confirmed);
    }
    Ok(Verdict::Refuted { digest: judgement.digest, finding: judgement.finding })
}

/// Measures a file before it is read.
fn read(path: &Path) -> Result<Result<Evidence, EvidenceError>, ReplayError> {
    let failed = |error| ReplayError::File { path: path.to_owned(), error };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > EVIDENCE_BYTES_MAX {
        let limit = EVIDENCE_BYTES_MAX;
        return Ok(Err(EvidenceError::TooLarge { found: bytes, limit }));
    }
    let file = std::fs::read(path).map_err(failed)?;
    Ok(Evidence::read(&Bytes::from(file)))
}

fn summary(evidence: &Evidence, pinned: bool) -> String {
    let report = &evidence.report;
    let whose = if pinned { "as expected" } else { "not pinned: --key says whose it must be" };
    let payload = if report.payload { "payload shown" } else { "payload not shown" };
    format!(
        "task         {} under {}\nkernel       {}\ncontributor  {}\nsigned by    {} ({whose})\n\
         at           {}\nclaimed      {} ({payload})\nfound        {}\nfinding      {}\n",
        report.task,
        report.lease,
        report.kernel,
        hex(&report.contributor.0),
        hex(&evidence.key),
        report.at.rfc3339(),
        report.claimed,
        report.found,
        report.finding,
    )
}
