//! The certificate: one line of JSON, of a fixed outer form.
//!
//! `{"body":{…},"public_key":"<64 hex digits>","signature":"<128 hex digits>"}`.
//! The signature is over the body's bytes as they stand, so that nobody has to
//! agree with anybody on how JSON is written.

use super::chain::Link;
use super::key::{CertificateKey, Signatory};
use crate::dataset::DatasetFacts;
use crate::job::{JobContext, JobSpec};
use crate::runtime::session::{hex, parse_hex};
use raven_engine::JobPhase;
use raven_graph::GraphId;
use raven_protocol::limits::SHARDS_MAX;
use raven_protocol::{BlobId, FrameLimits, JobId, KernelId, Numerics, Seed, ShardRef};
use serde::{Deserialize, Serialize};

/// Version of body and signature.
pub const VERSION: u32 = 1;
/// Bytes of a certificate: mostly the two lists of shards, of 4096 each at most.
pub const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// Rounds of a job, as the job's own limits have it.
pub const ROUNDS_MAX: u32 = 10_000_000;
/// Published states, far above what a coordinator keeps.
pub const SNAPSHOTS_MAX: usize = 4096;

const HEAD: &str = "{\"body\":";
const KEY: &str = ",\"public_key\":\"";
const SIGNATURE: &str = "\",\"signature\":\"";
const TAIL: &str = "\"}";

/// Everything that fixes a strict job's computation, and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    pub version: u32,
    pub job: JobId,
    /// When the job ended, RFC 3339 in UTC.
    pub ended_at: String,
    /// How.
    pub state: JobPhase,
    /// blake3 of the kernel module that computed everything.
    pub kernel: KernelId,
    pub graphs: GraphIds,
    pub dataset: Dataset,
    /// Decides initial weights, shuffling and dropout.
    pub seed: Seed,
    pub numerics: Numerics,
    /// The posted document, without the terms of its price.
    pub spec: JobSpec,
    pub rounds: Rounds,
    /// Rounds that were done where the job began again because its loss diverged, in
    /// order: each lowers the learning rate of the rounds that follow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setbacks: Vec<u32>,
    pub model: Model,
    /// States that are published, by round: the first, the last and the model's among them.
    pub snapshots: Vec<Published>,
}

/// Content ids of the graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphIds {
    pub init: GraphId,
    pub train: GraphId,
    pub evaluate: GraphId,
    pub optimizer: GraphId,
}

impl GraphIds {
    /// Those of a lowered job.
    pub fn of(context: &JobContext) -> Self {
        GraphIds {
            init: context.init.id(),
            train: context.train.graph.id(),
            evaluate: context.evaluate.graph.id(),
            optimizer: context.step.graph.id(),
        }
    }

    /// By the names of their files.
    pub fn named(&self) -> [(&'static str, GraphId); 4] {
        [
            ("init", self.init),
            ("train", self.train),
            ("evaluate", self.evaluate),
            ("optimizer", self.optimizer),
        ]
    }
}

/// The rows that were trained on, and those held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    pub id: String,
    pub facts: DatasetFacts,
    pub train: Vec<ShardRef>,
    pub test: Vec<ShardRef>,
}

/// The rounds that were done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rounds {
    pub count: u32,
    /// The state before the first.
    pub first: BlobId,
    /// The state after the last.
    pub last: BlobId,
    /// The last link of the chain over all of them.
    pub link: Link,
}

/// The model that is handed out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Of the file.
    pub sha256: String,
    /// The state whose parameters it holds.
    pub state: BlobId,
    /// After how many rounds.
    pub round: u32,
    pub chosen: Chosen,
    /// What it comes to on the held-out rows, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Measured>,
}

/// Sums over the held-out rows, as they were computed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Of the samples' losses.
    pub loss_sum: f32,
    /// Samples classified rightly, where the loss has classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correct: Option<f32>,
    /// Samples.
    pub count: f32,
}

/// Why the model is of that round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// Its loss on the held-out rows was the lowest.
    Best,
    /// No state was measured.
    Last,
}

/// A published state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// After how many rounds.
    pub round: u32,
    pub state: BlobId,
    /// Of its frame.
    pub bytes: u64,
}

/// Why a text is not a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("{bytes} bytes exceed the limit of {DOCUMENT_BYTES_MAX}")]
    TooLong { bytes: u64 },
    #[error("its outer form is not {{\"body\":{{…}},\"public_key\":\"…\",\"signature\":\"…\"}}")]
    Form,
    #[error("its signature is not of the key that it names: it was changed, or never signed")]
    Signature,
    #[error("its body: {0}")]
    Body(String),
    #[error("version {found} is not known here, {VERSION} is")]
    Version { found: u32 },
    #[error("{field}: {rule}")]
    Field { field: &'static str, rule: &'static str },
}

/// A certificate whose signature is that of its key and whose parts fit together.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    pub body: Body,
    pub signatory: Signatory,
}

/// Writes a body and signs it.
///
/// # Errors
/// [`CertificateError::Body`] where it has no JSON form.
pub fn sign(body: &Body, key: &CertificateKey) -> Result<String, CertificateError> {
    let text = serde_json::to_string(body);
    let text = text.map_err(|error| CertificateError::Body(error.to_string()))?;
    let (signatory, signature) = (key.signatory(), hex(&key.sign(&text)));
    Ok(format!("{HEAD}{text}{KEY}{signatory}{SIGNATURE}{signature}{TAIL}"))
}

/// Body, key and signature as they stand.
fn parts(text: &str) -> Option<(&str, Signatory, [u8; 64])> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let rest = text.strip_prefix(HEAD)?.strip_suffix(TAIL)?;
    let (rest, signature) = rest.split_at_checked(rest.len().checked_sub(128)?)?;
    let rest = rest.strip_suffix(SIGNATURE)?;
    let (rest, key) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
    Some((rest.strip_suffix(KEY)?, key.parse().ok()?, parse_hex(signature)?))
}

/// Reads a certificate of anybody's and checks its signature.
///
/// # Errors
/// [`CertificateError`].
pub fn read(text: &str) -> Result<Certificate, CertificateError> {
    let bytes = text.len() as u64;
    if bytes > DOCUMENT_BYTES_MAX {
        return Err(CertificateError::TooLong { bytes });
    }
    let (body, signatory, signature) = parts(text).ok_or(CertificateError::Form)?;
    if !signatory.has_signed(body, &signature) {
        return Err(CertificateError::Signature);
    }
    let body: Body =
        serde_json::from_str(body).map_err(|error| CertificateError::Body(error.to_string()))?;
    check(&body)?;
    Ok(Certificate { body, signatory })
}

fn rule(holds: bool, field: &'static str, rule: &'static str) -> Result<(), CertificateError> {
    if holds { Ok(()) } else { Err(CertificateError::Field { field, rule }) }
}

/// What must hold whoever signed it: nothing later divides, indexes or
/// allocates by a number that was not looked at here.
fn check(body: &Body) -> Result<(), CertificateError> {
    if body.version != VERSION {
        return Err(CertificateError::Version { found: body.version });
    }
    let strict = body.numerics == Numerics::Strict && body.spec.numerics == Numerics::Strict;
    rule(strict, "numerics", "only strict jobs are certified")?;
    let seed = body.spec.seed.map(|seed| seed.0);
    rule(seed == Some(body.seed.0), "seed", "must be the one in spec")?;
    rule(body.spec.dataset == body.dataset.id, "dataset.id", "must be the one in spec")?;
    rule(body.state.is_end(), "state", "must be an end")?;
    rule(body.rounds.count <= ROUNDS_MAX, "rounds.count", "at most 10000000")?;
    let sha256 = parse_hex::<32>(&body.model.sha256).is_some();
    rule(sha256, "model.sha256", "64 lower-case hex digits")?;
    check_setbacks(body)?;
    let facts = &body.dataset.facts;
    check_shards("dataset.train", &body.dataset.train, facts.train_rows)?;
    check_shards("dataset.test", &body.dataset.test, facts.test_rows)?;
    check_snapshots(body)
}

fn check_shards(
    field: &'static str,
    shards: &[ShardRef],
    rows: u32,
) -> Result<(), CertificateError> {
    rule(shards.len() <= SHARDS_MAX, field, "at most 4096 shards")?;
    let mut next = 0u32;
    for shard in shards {
        // A row has a byte at least, so that rows are bounded by what is really sent.
        let fits = u64::from(shard.rows) <= shard.bytes
            && shard.bytes <= FrameLimits::TO_CONTRIBUTOR.frame_bytes_max();
        rule(fits && shard.rows > 0, field, "a shard of as many rows and bytes as there can be")?;
        rule(shard.first_row == next, field, "shards follow each other")?;
        let end = next.checked_add(shard.rows).filter(|end| i32::try_from(*end).is_ok());
        next = end.ok_or(CertificateError::Field { field, rule: "fewer than 2^31 rows" })?;
    }
    rule(next == rows, field, "as many rows as the data set's facts say")
}

/// Whether it diverged nobody can tell who did not see those rounds; where it could
/// begin again, and how often, the document says.
fn check_setbacks(body: &Body) -> Result<(), CertificateError> {
    let (field, setbacks, training) = ("setbacks", &body.setbacks, &body.spec.training);
    let max = training.on_divergence.map_or(0, |rule| rule.rule().setbacks_max);
    rule(setbacks.len() <= max as usize, field, "as many as the job's document allows")?;
    rule(setbacks.is_sorted(), field, "by round")?;
    let per_epoch = body.dataset.facts.train_rows.div_ceil(training.batch.max(1)).max(1);
    let at_checkpoints = setbacks.iter().all(|round| round.is_multiple_of(per_epoch));
    rule(at_checkpoints, field, "at the ends of epochs")?;
    let within = setbacks.iter().all(|&round| round <= body.rounds.count);
    rule(within, field, "within the rounds that were done")
}

fn check_snapshots(body: &Body) -> Result<(), CertificateError> {
    let (field, snapshots, rounds) = ("snapshots", &body.snapshots, &body.rounds);
    rule(snapshots.len() <= SNAPSHOTS_MAX, field, "at most 4096")?;
    let ascending = snapshots.windows(2).all(|pair| pair[0].round < pair[1].round);
    rule(ascending, field, "by round, each once")?;
    let bytes_max = FrameLimits::TO_CONTRIBUTOR.frame_bytes_max();
    let short = snapshots.iter().all(|snapshot| snapshot.bytes <= bytes_max);
    rule(short, field, "no longer than a frame")?;
    let is = |published: Option<&Published>, round, state| {
        published.is_some_and(|own| own.round == round && own.state == state)
    };
    rule(is(snapshots.first(), 0, rounds.first), field, "the first state is published")?;
    rule(is(snapshots.last(), rounds.count, rounds.last), field, "the last state is published")?;
    let model = snapshots.iter().find(|snapshot| snapshot.round == body.model.round);
    rule(is(model, body.model.round, body.model.state), field, "the model's state is published")
}
