//! Everything that a task's result depends on, as the frames that a contributor
//! was given.

use crate::blobs::BlobError;
use axum::body::Bytes;
use raven_graph::{GraphError, GraphId, Limits, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, BlobId, Frame, FrameError, FrameLimits, GraphText, MessageError, SpecError,
    TaskMessage, TaskSpec, ToContributor, blob_id,
};

const LIMITS: FrameLimits = FrameLimits::TO_CONTRIBUTOR;

/// Why frames are not those of one task.
#[derive(Debug, thiserror::Error)]
pub enum MaterialsError {
    #[error("{what}: {error}")]
    Frame { what: &'static str, error: FrameError },
    #[error("{what}: {error}")]
    Message { what: &'static str, error: MessageError },
    #[error("{what}: the frame holds another message")]
    Kind { what: &'static str },
    #[error("task.{0}")]
    Spec(#[from] SpecError),
    #[error("graph: {0}")]
    Graph(#[from] GraphError),
    #[error("graph: {found} is not the task's, which is {expected}")]
    OtherGraph { expected: GraphId, found: GraphId },
    #[error("blobs: {found} frames, the task names {expected}")]
    BlobCount { expected: usize, found: usize },
    #[error("blob {expected}: the frame's content is that of {found}")]
    OtherBlob { expected: BlobId, found: BlobId },
    #[error("{0}")]
    Fetch(#[from] BlobError),
}

/// A task, its graph and its blobs. Whoever holds one knows that they belong together: every id
/// was computed again from what it stands for.
#[derive(Clone, Debug)]
pub struct Materials {
    message: TaskMessage,
    task: Bytes,
    graph: ValidGraph,
    graph_frame: Bytes,
    /// In the order in which the task first names them.
    blobs: Vec<(BlobId, Bytes)>,
}

fn decode<'a>(what: &'static str, bytes: &'a [u8]) -> Result<Frame<'a>, MaterialsError> {
    Frame::decode(bytes, &LIMITS).map_err(|error| MaterialsError::Frame { what, error })
}

fn message(what: &'static str, bytes: &[u8]) -> Result<ToContributor, MaterialsError> {
    let frame = decode(what, bytes)?;
    ToContributor::from_header(frame.header())
        .map_err(|error| MaterialsError::Message { what, error })
}

/// The blobs that a task names, weights and shards, each once.
fn named_blobs(spec: &TaskSpec) -> Vec<BlobId> {
    let bound = spec.bindings.iter().filter_map(|binding| match binding {
        Binding::Blob { blob, .. } => Some(*blob),
        Binding::Attached { .. }
        | Binding::PerRun { .. }
        | Binding::Rows { .. }
        | Binding::RowMask { .. } => None,
    });
    let mut seen = std::collections::HashSet::new();
    let shards = spec.shards.iter().map(|shard| shard.blob);
    bound.chain(shards).filter(|id| seen.insert(*id)).collect()
}

impl Materials {
    /// Brings together what a leased task took: its frame as it was sent, its graph, and the
    /// frames of its blobs (the round's weights, data shards), which `fetch` is asked for.
    ///
    /// # Errors
    /// [`MaterialsError`].
    pub fn gather(
        task: Bytes,
        graph: &ValidGraph,
        mut fetch: impl FnMut(BlobId) -> Result<Bytes, BlobError>,
    ) -> Result<Self, MaterialsError> {
        let frame =
            encode(&ToContributor::Graph { id: graph.id(), graph: GraphText::of(graph) }, &[]);
        let named = named_blobs(&task_message(&task)?.spec);
        let blobs = named.into_iter().map(&mut fetch).collect::<Result<Vec<_>, _>>()?;
        Materials::of_frames(task, frame.into(), blobs)
    }

    /// The same from frames that come from outside: a task's, its graph's, and its blobs' in
    /// the order in which the task first names them, bindings before shards.
    ///
    /// # Errors
    /// [`MaterialsError`].
    pub fn of_frames(
        task: Bytes,
        graph_frame: Bytes,
        blobs: Vec<Bytes>,
    ) -> Result<Self, MaterialsError> {
        let message = task_message(&task)?;
        let graph = valid_graph(&graph_frame, message.spec.program.graph())?;
        let named = named_blobs(&message.spec);
        let (expected, found) = (named.len(), blobs.len());
        if expected != found {
            return Err(MaterialsError::BlobCount { expected, found });
        }
        for (&expected, frame) in named.iter().zip(&blobs) {
            let found = blob_id(decode("blob", frame)?.tensors());
            if found != expected {
                return Err(MaterialsError::OtherBlob { expected, found });
            }
        }
        let blobs = named.into_iter().zip(blobs).collect();
        Ok(Materials { message, task, graph, graph_frame, blobs })
    }

    /// The task.
    pub fn message(&self) -> &TaskMessage {
        &self.message
    }

    /// What the task computes.
    pub fn spec(&self) -> &TaskSpec {
        &self.message.spec
    }

    /// The task's graph.
    pub fn graph(&self) -> &ValidGraph {
        &self.graph
    }

    /// The task's frame, attachments included.
    pub fn task(&self) -> &Bytes {
        &self.task
    }

    /// The graph's frame.
    pub fn graph_frame(&self) -> &Bytes {
        &self.graph_frame
    }

    /// The blobs' frames, in order.
    pub fn blob_frames(&self) -> impl Iterator<Item = &Bytes> {
        self.blobs.iter().map(|(_, frame)| frame)
    }

    /// The frame of a blob that the task names.
    pub fn blob_frame(&self, id: BlobId) -> Option<&Bytes> {
        self.blobs.iter().find(|(found, _)| *found == id).map(|(_, frame)| frame)
    }
}

fn task_message(task: &[u8]) -> Result<TaskMessage, MaterialsError> {
    let ToContributor::Task(message) = message("task", task)? else {
        return Err(MaterialsError::Kind { what: "task" });
    };
    message.spec.check()?;
    Ok(*message)
}

fn valid_graph(frame: &[u8], expected: GraphId) -> Result<ValidGraph, MaterialsError> {
    let ToContributor::Graph { id, graph } = message("graph", frame)? else {
        return Err(MaterialsError::Kind { what: "graph" });
    };
    let graph = graph.validate(&Limits::default())?;
    let wrong = [id, graph.id()].into_iter().find(|found| *found != expected);
    match wrong {
        Some(found) => Err(MaterialsError::OtherGraph { expected, found }),
        None => Ok(graph),
    }
}
