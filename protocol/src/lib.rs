//! What crosses the wire between the coordinator and its contributors.
//!
//! `PROTOCOL.md` is the page for people who write another contributor; a test
//! keeps it in step with the types here. No I/O, no clock.

pub mod digest;
pub mod frame;
mod graph_text;
pub mod ids;
pub mod limits;
pub mod message;
pub mod outcome;
pub mod task;
pub mod tree;

pub use digest::{blob_id, result_digest};
pub use frame::{Frame, FrameError, TensorPart, TensorView};
pub use graph_text::GraphText;
pub use ids::{BlobId, JobId, KernelId, LeaseId, ResultDigest, Seed, SessionId, TaskId, ViewId};
pub use limits::{FRAME_VERSION, FrameLimits, PROTOCOL_VERSION};
pub use message::{
    Backend, Device, DeviceClass, Earnings, FromContributor, GoodbyeReason, Hello, JobCategory,
    Keeps, MessageError, NumericClass, Receipt, RefuseReason, TaskMessage, ToContributor,
};
pub use outcome::{LeaseOutcome, ResultOutcome};
pub use raven_graph::GraphId;
pub use task::{
    Binding, Carry, Encoding, Numerics, OutputSpec, Program, ReduceRule, ShardRef, SpecError,
    TaskSpec,
};
