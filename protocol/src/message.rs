//! Messages: the typed headers of frames, one enum per direction.

use crate::graph_text::GraphText;
use crate::ids::{BlobId, KernelId, LeaseId, ResultDigest, Seed, SessionId, TaskId, ViewId};
use crate::limits::{
    MESSAGE_BYTES_MAX, PROBES_MAX, RECEIPT_BYTES_MAX, REFUSES_MAX, REQUESTER_BYTES_MAX,
    TEXT_BYTES_MAX,
};
use crate::outcome::LeaseOutcome;
use crate::task::TaskSpec;
use raven_graph::GraphId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What kind of machine contributes; deliberately coarse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceClass {
    Phone,
    Desktop,
    Server,
}

/// What executes a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// The CPU module.
    Cpu,
    /// The GPU module.
    Gpu,
}

impl Backend {
    /// The word of it on the wire and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Cpu => "cpu",
            Backend::Gpu => "gpu",
        }
    }
}

/// What a job is for, by its owner's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobCategory {
    Vision,
    Language,
    Tabular,
    Science,
    Finance,
    Other,
}

/// Results are compared only within one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "class", rename_all = "snake_case", deny_unknown_fields)]
pub enum NumericClass {
    /// The CPU module with this content; bit-exact everywhere.
    Cpu { kernel: KernelId },
    /// The GPU module with this content; results agree within bounds, and only
    /// relaxed tasks are done by it.
    Gpu { kernel: KernelId },
}

impl NumericClass {
    /// The module that does the work.
    pub const fn backend(self) -> Backend {
        match self {
            NumericClass::Cpu { .. } => Backend::Cpu,
            NumericClass::Gpu { .. } => Backend::Gpu,
        }
    }
}

/// What a device says of itself. Claims: nothing is paid or trusted by them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Coarse class.
    pub class: DeviceClass,
    /// Logical cores.
    pub cores: u32,
    /// Bytes that one worker may use for blobs and values.
    pub memory_bytes: u64,
    /// Measured at start, one worker at full speed, in flop/s.
    pub flops_per_s: u64,
}

/// How long the key of a session is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeps {
    /// It is stored: whoever comes back has it.
    #[default]
    Key,
    /// It is gone with the visit.
    Visit,
}

/// Whose the earnings of a session are to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Earnings {
    /// Its key's.
    #[default]
    Mine,
    /// The site's through which it came.
    Site,
}

/// First message of a contributor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`].
    pub protocol: u16,
    /// Class in which this session's results are compared.
    pub numeric: NumericClass,
    /// Claims about the machine.
    pub device: Device,
    /// Share of the machine, a duty cycle in (0, 1].
    pub share: f64,
    /// Workers that compute at once.
    pub workers: u32,
    /// Ed25519 public key of this session, 64 lower-case hex digits.
    pub session_key: String,
    /// Ticket that the frame was served with; binds the session to a site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Bytes that may still cross in this visit, both ways together, frames and
    /// shards alike. Without it there is no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_bytes_left: Option<u64>,
    /// Whether `session_key` outlives the visit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keeps: Keeps,
    /// Whose the earnings are to be.
    #[serde(default, skip_serializing_if = "is_default")]
    pub earnings: Earnings,
}

/// What the visitor agreed to. Signed as the exact text that is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Version of the consent text that was shown.
    pub text_version: String,
    /// Publishable key of the site, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// What a page's card showed beside those words, as the coordinator named it. Whoever
    /// comes through no page has seen none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewId>,
    /// Share that was chosen, in (0, 1].
    pub share: f64,
    /// Whether the processor may be used.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub cpu: bool,
    /// Whether the GPU may be used, at the same share.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gpu: bool,
    /// Kinds of jobs that nothing is computed of; at most [`REFUSES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refuses: Vec<JobCategory>,
    /// When it was signed, in milliseconds since 1970 on the coordinator's clock: the
    /// welcome's `now_ms` and what has passed since.
    pub time_ms: u64,
    /// The welcome's nonce.
    pub nonce: String,
    /// The hello's session key.
    pub session_key: String,
    /// The hello's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keeps: Keeps,
    /// The hello's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub earnings: Earnings,
    /// Zero in a session's first receipt; each later one's is above all before it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub counter: u32,
}

const fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why a worker hands a lease back. None of these costs trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefuseReason {
    /// The task needs more memory than the budget allows.
    TooLarge,
    /// A graph or blob that the task names is not here.
    Missing,
    /// The graph has an op or a value that this module or device cannot do.
    Unsupported,
    /// The task does not fit its graph or its blobs.
    Invalid,
    /// The visitor paused or stopped.
    Stopping,
    /// Anything else that went wrong in the worker.
    Failed,
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoodbyeReason {
    /// The visitor said stop, or closed the page.
    Stopped,
    /// The coordinator is going down; come back later.
    Draining,
    /// Protocol or kernel version is not spoken here.
    Incompatible,
    /// A frame or message was malformed.
    BadFrame,
    /// The message is not allowed in this state.
    OutOfTurn,
    /// The consent receipt is missing, wrong or too late.
    NoConsent,
    /// Ticket unknown, expired or of a revoked site.
    BadTicket,
    /// The peer did not read or answer in time.
    TooSlow,
    /// More sessions than this coordinator takes.
    Full,
    /// A payload did not match its commitment.
    BrokenCommitment,
    /// No more work fits into what the visit may still move.
    TrafficCap,
    /// A result of this contributor was proven false.
    Excluded,
    /// What the receipt says was shown is not known here, too old or otherwise now: ask again.
    StaleView,
}

impl GoodbyeReason {
    /// Every one, in the order of their close codes.
    pub const ALL: [GoodbyeReason; 13] = [
        GoodbyeReason::Stopped,
        GoodbyeReason::Draining,
        GoodbyeReason::Incompatible,
        GoodbyeReason::BadFrame,
        GoodbyeReason::OutOfTurn,
        GoodbyeReason::NoConsent,
        GoodbyeReason::BadTicket,
        GoodbyeReason::TooSlow,
        GoodbyeReason::Full,
        GoodbyeReason::BrokenCommitment,
        GoodbyeReason::TrafficCap,
        GoodbyeReason::Excluded,
        GoodbyeReason::StaleView,
    ];

    /// The name on the wire and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            GoodbyeReason::Stopped => "stopped",
            GoodbyeReason::Draining => "draining",
            GoodbyeReason::Incompatible => "incompatible",
            GoodbyeReason::BadFrame => "bad_frame",
            GoodbyeReason::OutOfTurn => "out_of_turn",
            GoodbyeReason::NoConsent => "no_consent",
            GoodbyeReason::BadTicket => "bad_ticket",
            GoodbyeReason::TooSlow => "too_slow",
            GoodbyeReason::Full => "full",
            GoodbyeReason::BrokenCommitment => "broken_commitment",
            GoodbyeReason::TrafficCap => "traffic_cap",
            GoodbyeReason::Excluded => "excluded",
            GoodbyeReason::StaleView => "stale_view",
        }
    }

    /// The WebSocket close code (private range, RFC 6455 section 7.4.2).
    pub const fn close_code(self) -> u16 {
        match self {
            GoodbyeReason::Stopped => 4000,
            GoodbyeReason::Draining => 4001,
            GoodbyeReason::Incompatible => 4002,
            GoodbyeReason::BadFrame => 4003,
            GoodbyeReason::OutOfTurn => 4004,
            GoodbyeReason::NoConsent => 4005,
            GoodbyeReason::BadTicket => 4006,
            GoodbyeReason::TooSlow => 4007,
            GoodbyeReason::Full => 4008,
            GoodbyeReason::BrokenCommitment => 4009,
            GoodbyeReason::TrafficCap => 4010,
            GoodbyeReason::Excluded => 4011,
            GoodbyeReason::StaleView => 4012,
        }
    }
}

/// From a contributor to the coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromContributor {
    /// First message.
    Hello(Hello),
    /// Answer to the welcome: the receipt's exact JSON text and its Ed25519
    /// signature, 128 lower-case hex digits.
    Consent { receipt: String, signature: String },
    /// A task is done; the payload stays here until it is asked for.
    Commit {
        /// The lease that is answered.
        lease: LeaseId,
        /// Commitment to the outputs.
        digest: ResultDigest,
        /// Milliseconds from the task's arrival at the worker to its end, pauses included.
        elapsed_ms: u64,
        /// What executed the task: that of the session's class, or the session ends.
        backend: Backend,
    },
    /// Random projections of the payload, which stays here: a tensor u8 `[probes, 8]` per output.
    Projected { lease: LeaseId },
    /// The payload; the outputs are the frame's tensors.
    Result { lease: LeaseId },
    /// A lease handed back.
    Refuse {
        lease: LeaseId,
        reason: RefuseReason,
        #[serde(default)]
        detail: String,
    },
    /// The visitor moved the slider, or refuses other kinds of jobs. A share above the
    /// present one, or a kind that is refused no longer, comes with a new receipt, signed
    /// like the consent's.
    Pace {
        share: f64,
        workers: u32,
        /// All that are refused from now on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        refuses: Vec<JobCategory>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    /// No new tasks, please; those in hand are returned as refused.
    Pause {
        #[serde(default)]
        detail: String,
    },
    /// Tasks again.
    Resume,
    /// The session ends.
    Goodbye { reason: GoodbyeReason },
}

/// From the coordinator to a contributor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToContributor {
    /// Answer to the hello.
    Welcome {
        /// This session.
        session: SessionId,
        /// To be signed in the receipt.
        nonce: String,
        /// The consent text that must have been shown.
        consent_text_version: String,
        /// Milliseconds until the receipt must have arrived.
        consent_ms_max: u64,
        /// The coordinator's clock, in milliseconds since 1970; receipts are dated by it.
        now_ms: u64,
    },
    /// The receipt is good: tasks will follow.
    Ready {
        /// Bearer token for `GET /v1/blobs/{id}`.
        grant: String,
    },
    /// A graph, once a session. Read by [`ToContributor::from_header`] alone:
    /// a tagged enum would unfold the text before its length is looked at.
    #[serde(skip_deserializing)]
    Graph { id: GraphId, graph: GraphText },
    /// A blob; its tensors are the frame's. Replaces nothing: ids are content.
    Blob { id: BlobId },
    /// For whom, and for what kind of job, the tasks are that follow. Sent before a
    /// session's first task, and before one of a job for which it is something else.
    About {
        /// A pseudonym, always the same for one owner; at most [`REQUESTER_BYTES_MAX`] bytes.
        requester: String,
        category: JobCategory,
    },
    /// A task; attachments are the frame's tensors.
    Task(Box<TaskMessage>),
    /// Send random projections of a committed lease's payload, and keep the payload.
    Project {
        lease: LeaseId,
        /// Of the signs; drawn after the commitment.
        key: Seed,
        /// Projections of each output, 1 to [`PROBES_MAX`].
        probes: u32,
    },
    /// Send the payload of a committed lease.
    Reveal { lease: LeaseId },
    /// The lease's work is no longer needed: stop it, drop its payload.
    Cancel { lease: LeaseId },
    /// Forget blobs and graphs.
    Drop {
        #[serde(default)]
        blobs: Vec<BlobId>,
        #[serde(default)]
        graphs: Vec<GraphId>,
    },
    /// What became of committed results.
    Outcomes {
        /// At most [`crate::limits::OUTCOMES_MAX`].
        results: Vec<LeaseOutcome>,
    },
    /// The session ends.
    Goodbye {
        reason: GoodbyeReason,
        detail: String,
        /// Milliseconds after which coming back may help, where it may at all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
}

/// A leased task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskMessage {
    /// Answered once, by this session only.
    pub lease: LeaseId,
    /// What the result is a result of.
    pub task: TaskId,
    /// Milliseconds until the lease may be given to another.
    pub lease_ms: u64,
    /// Static cost of the whole task.
    pub flops: u64,
    /// What to compute. Blobs other than shards were sent before; shards are
    /// fetched from `GET /v1/blobs/{id}`.
    pub spec: TaskSpec,
}

/// Why a header is not a message of the expected direction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("message: {reason}")]
    Malformed { reason: String },
    #[error("{field}: {found} bytes exceed the limit of {limit}")]
    TextTooLong { field: &'static str, found: usize, limit: usize },
    #[error("{field}: must be a number above 0 and at most 1")]
    ShareOutOfRange { field: &'static str },
    #[error("workers: {found} is outside of 1..=256")]
    WorkersOutOfRange { found: u32 },
    #[error("probes: {found} is outside of 1..={PROBES_MAX}")]
    ProbesOutOfRange { found: u32 },
    #[error("{field}: {found} kinds of jobs exceed the limit of {REFUSES_MAX}")]
    RefusesTooMany { field: &'static str, found: usize },
    #[error("tensors: a {kind} message carries none")]
    UnexpectedTensors { kind: &'static str },
}

fn parse<'de, T: Deserialize<'de>>(header: &'de str) -> Result<T, MessageError> {
    serde_json::from_str(header)
        .map_err(|error| MessageError::Malformed { reason: error.to_string() })
}

fn text(field: &'static str, value: &str, limit: usize) -> Result<(), MessageError> {
    if value.len() > limit {
        return Err(MessageError::TextTooLong { field, found: value.len(), limit });
    }
    Ok(())
}

fn share(field: &'static str, value: f64) -> Result<(), MessageError> {
    // Written so that NaN is refused too.
    if value > 0.0 && value <= 1.0 { Ok(()) } else { Err(MessageError::ShareOutOfRange { field }) }
}

fn workers(found: u32) -> Result<(), MessageError> {
    if (1..=256).contains(&found) { Ok(()) } else { Err(MessageError::WorkersOutOfRange { found }) }
}

fn refuses(field: &'static str, kinds: &[JobCategory]) -> Result<(), MessageError> {
    let found = kinds.len();
    if found <= REFUSES_MAX { Ok(()) } else { Err(MessageError::RefusesTooMany { field, found }) }
}

impl FromContributor {
    /// Reads and bounds the header of a contributor's frame.
    ///
    /// # Errors
    /// [`MessageError`] names the field.
    pub fn from_header(header: &str) -> Result<Self, MessageError> {
        let message: FromContributor = parse(header)?;
        match &message {
            FromContributor::Hello(hello) => {
                share("share", hello.share)?;
                workers(hello.workers)?;
                text("session_key", &hello.session_key, 64)?;
                text("ticket", hello.ticket.as_deref().unwrap_or(""), TEXT_BYTES_MAX)?;
            }
            FromContributor::Consent { receipt, signature } => {
                text("receipt", receipt, RECEIPT_BYTES_MAX)?;
                text("signature", signature, 128)?;
            }
            FromContributor::Refuse { detail, .. } | FromContributor::Pause { detail } => {
                text("detail", detail, TEXT_BYTES_MAX)?;
            }
            FromContributor::Pace {
                share: value,
                workers: count,
                refuses: kinds,
                receipt,
                signature,
            } => {
                share("share", *value)?;
                workers(*count)?;
                refuses("refuses", kinds)?;
                text("receipt", receipt.as_deref().unwrap_or(""), RECEIPT_BYTES_MAX)?;
                text("signature", signature.as_deref().unwrap_or(""), 128)?;
            }
            FromContributor::Commit { .. }
            | FromContributor::Projected { .. }
            | FromContributor::Result { .. }
            | FromContributor::Resume
            | FromContributor::Goodbye { .. } => {}
        }
        Ok(message)
    }
}

impl ToContributor {
    /// Reads the header of a coordinator's frame. A graph stays text, and a
    /// task is read straight into its types; what else a header may hold is
    /// short, and its length is looked at before it is unfolded.
    ///
    /// # Errors
    /// [`MessageError`] names the field.
    pub fn from_header(header: &str) -> Result<Self, MessageError> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
        }
        #[derive(Deserialize)]
        struct GraphHeader<'a> {
            id: GraphId,
            #[serde(borrow)]
            graph: &'a RawValue,
        }
        match &*parse::<Kind<'_>>(header)?.kind {
            "graph" => {
                let GraphHeader { id, graph } = parse(header)?;
                Ok(ToContributor::Graph { id, graph: GraphText::from_raw(graph) })
            }
            "task" => Ok(ToContributor::Task(parse(header)?)),
            _ => {
                text("header", header, MESSAGE_BYTES_MAX)?;
                match parse(header)? {
                    ToContributor::About { requester, category } => {
                        text("requester", &requester, REQUESTER_BYTES_MAX)?;
                        Ok(ToContributor::About { requester, category })
                    }
                    ToContributor::Project { probes, .. }
                        if !(1..=PROBES_MAX).contains(&probes) =>
                    {
                        Err(MessageError::ProbesOutOfRange { found: probes })
                    }
                    message => Ok(message),
                }
            }
        }
    }
}

impl Receipt {
    /// Reads a receipt's signed text.
    ///
    /// # Errors
    /// [`MessageError`] names the field.
    pub fn from_text(receipt: &str) -> Result<Self, MessageError> {
        text("receipt", receipt, RECEIPT_BYTES_MAX)?;
        let receipt: Receipt = parse(receipt)?;
        share("receipt.share", receipt.share)?;
        refuses("receipt.refuses", &receipt.refuses)?;
        Ok(receipt)
    }
}
