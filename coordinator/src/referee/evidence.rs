//! A finding that anyone can replay: one file with the claim, the finding and
//! everything that the task's result depends on.
//!
//! ```text
//! offset  bytes
//! 0       8     magic "RAVNEVID"
//! 8       4     format version, u32 little-endian: 1
//! 12      4     number of frames N, u32
//! 16      ..    N times: length L, u64, then a frame of the protocol of L bytes
//! ..      32    the coordinator's Ed25519 public key
//! ..      64    its signature of "raven evidence 1\n" and the blake3 of all bytes before it
//! ```
//!
//! The frames, in order: `evidence` (the [`Report`]), `task` as it was sent,
//! `graph`, `result` where the claim's payload was shown, and a `blob` for each
//! that the task names. [`Evidence::read`] computes every id again, so that a
//! file that it takes is whole and consistent; that its finding is right is what
//! [`super::replay`] shows.
//!
//! That the claim is wrong anyone can compute. That this contributor made it is
//! the coordinator's word: a commitment is not signed by the one who makes it.

use super::finding::Finding;
use super::{Claim, Judgement, Materials, MaterialsError, RefereeError, digest_of, result_frame};
use crate::runtime::session::{hex, parse_hex};
use crate::time::UnixMs;
use axum::body::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use raven_engine::ContributorId;
use raven_protocol::frame::encode;
use raven_protocol::limits::{BINDINGS_MAX, SHARDS_MAX};
use raven_protocol::{
    Frame, FrameError, FrameLimits, FromContributor, KernelId, LeaseId, ResultDigest, TaskId,
};
use serde::{Deserialize, Serialize};

const MAGIC: [u8; 8] = *b"RAVNEVID";
const VERSION: u32 = 1;
const PREFIX_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
/// What is signed begins with it, so that no other signature of the key is one of evidence.
const DOMAIN: &[u8] = b"raven evidence 1\n";
/// Task, graph, report and payload, beside the blobs.
const FRAMES_MAX: usize = 4 + BINDINGS_MAX + SHARDS_MAX;
/// A report has a name of an output and a few numbers.
const REPORT_LIMITS: FrameLimits =
    FrameLimits { header_bytes_max: 64 << 10, body_bytes_max: 0, tensors_max: 0 };

/// Bytes of a file at most: shards, weights and attachments of one task fit an instance of the
/// kernel several times over, and it is read as a whole.
pub const EVIDENCE_BYTES_MAX: u64 = 512 << 20;

/// Why bytes are not evidence, or none can be made.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error("evidence: {found} bytes exceed the limit of {limit}")]
    TooLarge { found: u64, limit: u64 },
    #[error("evidence: not an evidence file")]
    Magic,
    #[error("evidence: version {found} is not read here, {VERSION} is")]
    Version { found: u32 },
    #[error("evidence: {found} bytes, {needed} are needed")]
    Truncated { found: usize, needed: usize },
    #[error("evidence: {found} frames, 3 to {limit} are expected")]
    FrameCount { found: usize, limit: usize },
    #[error("evidence: {found} bytes behind the last frame")]
    Trailing { found: usize },
    #[error("evidence: the signature is not one of {key} of these bytes")]
    Signature { key: String },
    #[error("evidence: signed by {found}, {expected} is expected")]
    OtherKey { expected: String, found: String },
    #[error("evidence: the report's frame: {0}")]
    ReportFrame(FrameError),
    #[error("evidence: the report: {reason}")]
    Report { reason: String },
    #[error("evidence: the report's {field} is not that of the frames")]
    Inconsistent { field: &'static str },
    #[error("evidence: {0}")]
    Materials(#[from] MaterialsError),
    #[error("evidence: the claim's payload: {0}")]
    Payload(#[from] RefereeError),
}

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The task, and with it the job.
    pub task: TaskId,
    /// The lease under which it was answered.
    pub lease: LeaseId,
    /// The module that the job is pinned to.
    pub kernel: KernelId,
    /// Who answered it.
    #[serde(with = "contributor_text")]
    pub contributor: ContributorId,
    /// What was committed.
    pub claimed: ResultDigest,
    /// Whether the payload of it is in the file.
    pub payload: bool,
    /// What the referee computed.
    pub found: ResultDigest,
    /// What that says about the claim.
    pub finding: Finding,
    /// When, RFC 3339 in UTC.
    #[serde(with = "time_text")]
    pub at: UnixMs,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Header {
    Evidence(Box<Report>),
}

mod contributor_text {
    use super::{ContributorId, hex, parse_hex};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(id: &ContributorId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&id.0))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ContributorId, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_hex(&text).map(ContributorId).ok_or_else(|| D::Error::custom("64 hex digits"))
    }
}

mod time_text {
    use super::UnixMs;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(at: &UnixMs, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&at.rfc3339())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixMs, D::Error> {
        let text = String::deserialize(deserializer)?;
        UnixMs::parse(&text).ok_or_else(|| D::Error::custom("a time in RFC 3339"))
    }
}

/// A file that was read: signed by the key that it names, and consistent.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What it says.
    pub report: Report,
    /// What the task's result depends on.
    pub materials: Materials,
    /// What was claimed.
    pub claim: Claim,
    /// The Ed25519 public key that signed it.
    pub key: [u8; KEY_BYTES],
}

impl Evidence {
    /// Writes a file.
    ///
    /// # Errors
    /// [`EvidenceError::TooLarge`].
    pub fn build(
        materials: &Materials,
        claim: &Claim,
        judgement: &Judgement,
        kernel: KernelId,
        at: UnixMs,
        signer: &SigningKey,
    ) -> Result<Vec<u8>, EvidenceError> {
        let message = materials.message();
        let report = Report {
            task: message.task,
            lease: message.lease,
            kernel,
            contributor: claim.contributor,
            claimed: claim.digest,
            payload: claim.payload.is_some(),
            found: judgement.digest,
            finding: judgement.finding.clone(),
            at,
        };
        let report = encode(&Header::Evidence(Box::new(report)), &[]);
        let mut frames = vec![&report[..], materials.task(), materials.graph_frame()];
        frames.extend(claim.payload.as_deref());
        frames.extend(materials.blob_frames().map(|frame| &frame[..]));
        let tail = KEY_BYTES + SIGNATURE_BYTES;
        let bytes = frames.iter().map(|frame| 8 + frame.len()).sum::<usize>() + PREFIX_BYTES + tail;
        check_size(bytes as u64)?;
        let mut file = Vec::with_capacity(bytes);
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&(frames.len() as u32).to_le_bytes());
        for frame in frames {
            file.extend_from_slice(&(frame.len() as u64).to_le_bytes());
            file.extend_from_slice(frame);
        }
        file.extend_from_slice(signer.verifying_key().as_bytes());
        let signature = signer.sign(&signed(&file));
        file.extend_from_slice(&signature.to_bytes());
        Ok(file)
    }

    /// Reads a file: signature first, then that everything in it belongs together. Nothing is
    /// allocated by what the file says before that has been measured.
    ///
    /// # Errors
    /// [`EvidenceError`]: the coordinator did not write such a file.
    pub fn read(file: &Bytes) -> Result<Self, EvidenceError> {
        let (content, key) = authentic(file)?;
        let frames = frames(file, content)?;
        let [report, task, graph, rest @ ..] = &frames[..] else {
            return Err(EvidenceError::FrameCount { found: frames.len(), limit: FRAMES_MAX });
        };
        let report = read_report(report)?;
        let (payload, blobs) = match rest {
            [payload, blobs @ ..] if report.payload => (Some(payload.clone()), blobs),
            _ if report.payload => return Err(EvidenceError::Inconsistent { field: "payload" }),
            blobs => (None, blobs),
        };
        let materials = Materials::of_frames(task.clone(), graph.clone(), blobs.to_vec())?;
        let message = materials.message();
        let claim = Claim { contributor: report.contributor, digest: report.claimed, payload };
        if report.task != message.task {
            return Err(EvidenceError::Inconsistent { field: "task" });
        }
        if report.lease != message.lease {
            return Err(EvidenceError::Inconsistent { field: "lease" });
        }
        check_payload(&materials, &claim)?;
        Ok(Evidence { report, materials, claim, key })
    }

    /// Refuses a file of another key than the expected one, 64 hex digits.
    ///
    /// # Errors
    /// [`EvidenceError::OtherKey`].
    pub fn check_key(&self, expected: &[u8; KEY_BYTES]) -> Result<(), EvidenceError> {
        if self.key == *expected {
            return Ok(());
        }
        Err(EvidenceError::OtherKey { expected: hex(expected), found: hex(&self.key) })
    }
}

fn check_size(found: u64) -> Result<(), EvidenceError> {
    let limit = EVIDENCE_BYTES_MAX;
    if found > limit { Err(EvidenceError::TooLarge { found, limit }) } else { Ok(()) }
}

/// What is signed of the bytes before the signature.
fn signed(before: &[u8]) -> Vec<u8> {
    [DOMAIN, blake3::hash(before).as_bytes()].concat()
}

/// The frames' bytes and the key, of a file whose signature holds.
fn authentic(file: &[u8]) -> Result<(&[u8], [u8; KEY_BYTES]), EvidenceError> {
    check_size(file.len() as u64)?;
    let needed = PREFIX_BYTES + KEY_BYTES + SIGNATURE_BYTES;
    if file.len() < needed {
        return Err(EvidenceError::Truncated { found: file.len(), needed });
    }
    if file[..8] != MAGIC {
        return Err(EvidenceError::Magic);
    }
    let version = word(file, 8);
    if version != VERSION {
        return Err(EvidenceError::Version { found: version });
    }
    let (before, signature) = file.split_at(file.len() - SIGNATURE_BYTES);
    let (content, key) = before.split_at(before.len() - KEY_BYTES);
    let (key, signature) = (array(key), Signature::from_bytes(&array(signature)));
    let holds = VerifyingKey::from_bytes(&key)
        .is_ok_and(|key| key.verify_strict(&signed(before), &signature).is_ok());
    if holds { Ok((content, key)) } else { Err(EvidenceError::Signature { key: hex(&key) }) }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(&bytes[at..at + 4]))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    // Whoever calls this has cut the slice to that length.
    bytes.try_into().expect("a slice of that length")
}

/// The frames, sharing the file's bytes. `content` is the file without key and signature.
fn frames(file: &Bytes, content: &[u8]) -> Result<Vec<Bytes>, EvidenceError> {
    let count = word(content, 12) as usize;
    if !(3..=FRAMES_MAX).contains(&count) {
        return Err(EvidenceError::FrameCount { found: count, limit: FRAMES_MAX });
    }
    let mut frames = Vec::with_capacity(count);
    let mut rest = &content[PREFIX_BYTES..];
    for _ in 0..count {
        let truncated = |needed| EvidenceError::Truncated { found: rest.len(), needed };
        let (length, after) = rest.split_at_checked(8).ok_or_else(|| truncated(8))?;
        let length = usize::try_from(u64::from_le_bytes(array(length))).unwrap_or(usize::MAX);
        let frame = after.split_at_checked(length);
        let (frame, after) = frame.ok_or_else(|| truncated(length.saturating_add(8)))?;
        frames.push(file.slice_ref(frame));
        rest = after;
    }
    if rest.is_empty() { Ok(frames) } else { Err(EvidenceError::Trailing { found: rest.len() }) }
}

fn read_report(frame: &[u8]) -> Result<Report, EvidenceError> {
    let frame = Frame::decode(frame, &REPORT_LIMITS).map_err(EvidenceError::ReportFrame)?;
    let header = serde_json::from_str(frame.header());
    let Header::Evidence(report) =
        header.map_err(|error| EvidenceError::Report { reason: error.to_string() })?;
    Ok(*report)
}

/// That the payload is what was committed, and under this lease.
fn check_payload(materials: &Materials, claim: &Claim) -> Result<(), EvidenceError> {
    let Some(payload) = &claim.payload else { return Ok(()) };
    let frame = result_frame(payload).map_err(RefereeError::from)?;
    let header = FromContributor::from_header(frame.header()).map_err(RefereeError::from)?;
    if header != (FromContributor::Result { lease: materials.message().lease }) {
        return Err(EvidenceError::Inconsistent { field: "payload" });
    }
    if digest_of(materials, payload)? != claim.digest {
        return Err(EvidenceError::Inconsistent { field: "claimed digest" });
    }
    Ok(())
}
