//! The bounds of everything that arrives from a peer, with their reasons.

/// The version of the messages that this crate reads and writes: what a hello says. Who
/// speaks another one is told so, before anything of its hello counts.
pub const PROTOCOL_VERSION: u16 = 4;

/// The version of the frames around them, which modules write too.
pub const FRAME_VERSION: u16 = 1;

/// Bounds of one frame, checked on the 16-byte prefix before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bytes of the JSON header.
    pub header_bytes_max: u32,
    /// Bytes of the tensor section.
    pub body_bytes_max: u32,
    /// Tensors in one frame.
    pub tensors_max: u32,
}

impl FrameLimits {
    /// From the coordinator to a contributor: a graph of the greatest allowed
    /// size in the header, or a shard or weights in the body.
    pub const TO_CONTRIBUTOR: FrameLimits =
        FrameLimits { header_bytes_max: 8 << 20, body_bytes_max: 256 << 20, tensors_max: 4096 };

    /// From a contributor: headers are short, a result is at most as large as the weights of one job.
    pub const TO_COORDINATOR: FrameLimits =
        FrameLimits { header_bytes_max: 64 << 10, body_bytes_max: 64 << 20, tensors_max: 4096 };

    /// The longest frame that these limits admit.
    pub const fn frame_bytes_max(&self) -> u64 {
        32 + self.header_bytes_max as u64 + self.body_bytes_max as u64
    }
}

/// Axes of a tensor in a frame.
pub const RANK_MAX: usize = 8;
/// Bytes of a tensor's or an output's name.
pub const NAME_BYTES_MAX: usize = 128;
/// Micro-batches in one task, so that a task's attachments stay small.
pub const MICRO_BATCHES_MAX: u32 = 1 << 16;
/// Steps of a `Scan`.
pub const SCAN_STEPS_MAX: u32 = 1 << 16;
/// Bindings, outputs and carries of one task.
pub const BINDINGS_MAX: usize = 4096;
/// Shards that one task may draw rows from.
pub const SHARDS_MAX: usize = 4096;
/// Bytes of a free text from a peer (refusal details, goodbye notes).
pub const TEXT_BYTES_MAX: usize = 512;
/// Bytes of a header that holds neither a graph nor a task: the longest is a
/// `drop` that names some thousand blobs.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Leases in one message about their outcomes: some kilobytes.
pub const OUTCOMES_MAX: usize = 128;
/// Random projections that a contributor is asked for of each output at most: each takes as many
/// additions as the output has elements.
pub const PROBES_MAX: u32 = 64;
/// Bytes of a consent receipt's JSON text.
pub const RECEIPT_BYTES_MAX: usize = 4096;

/// Kinds of jobs that one list of refused ones names at most: there are no more.
pub const REFUSES_MAX: usize = 6;

/// Bytes of the pseudonym of whoever a job is for: it stands on a small card.
pub const REQUESTER_BYTES_MAX: usize = 40;
