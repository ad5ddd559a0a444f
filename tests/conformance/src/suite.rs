//! Cases as frames.

use crate::reseed::Draw;
use crate::training::{self, Training};
use raven_graph::{DType, Graph, GraphId, Shape, TensorType};
use raven_protocol::frame::encode;
use raven_protocol::{
    BlobId, GraphText, JobId, LeaseId, TaskId, TaskMessage, TaskSpec, TensorPart, TensorView,
    ToContributor, blob_id,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

/// A tensor and where its bytes are in the file beside the document.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TensorRef {
    /// Name within the case.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
    /// First byte.
    pub offset: usize,
    /// Number of bytes.
    pub bytes: usize,
}

/// What `reference.py` writes: operands by name, graph and shards unnamed.
#[derive(Debug, Deserialize)]
struct Source {
    name: String,
    family: String,
    abs: f64,
    rel: f64,
    graph: Graph,
    spec: serde_json::Value,
    attached: Vec<TensorRef>,
    shards: Vec<Vec<TensorRef>>,
    expected: Vec<TensorRef>,
}

#[derive(Deserialize)]
struct Sources {
    cases: Vec<Source>,
}

/// A run of bytes in the suite's binary file.
pub type Span = [usize; 2];

/// One case, ready for any kernel.
#[derive(Debug, Deserialize, Serialize)]
pub struct Case {
    /// Unique title.
    pub name: String,
    /// The op, or `program`.
    pub family: String,
    /// Greatest absolute difference that is accepted ...
    pub abs: f64,
    /// ... beyond this fraction of the expected number.
    pub rel: f64,
    /// Frames to accept before the task, graph first.
    pub setup: Vec<Span>,
    /// The task's frame.
    pub task: Span,
    /// What the result must hold, in order.
    pub expected: Vec<TensorRef>,
}

/// A task of training, ready for any kernel: only bits are compared.
#[derive(Debug, Deserialize, Serialize)]
pub struct TrainingCase {
    /// Unique title.
    pub name: String,
    /// Frames to accept before the task, graph first.
    pub setup: Vec<Span>,
    /// The task's frame.
    pub task: Span,
    /// Which operands other seeds draw, and how.
    pub draws: BTreeMap<String, Draw>,
}

/// All cases with the file that their spans point into.
#[derive(Debug)]
pub struct Suite {
    /// In the order of the reference.
    pub cases: Vec<Case>,
    /// Training steps.
    pub training: Vec<TrainingCase>,
    /// Frames and expected tensors.
    pub bytes: Vec<u8>,
}

#[derive(Deserialize, Serialize)]
struct Document {
    cases: Vec<Case>,
    training: Vec<TrainingCase>,
}

impl Suite {
    /// Builds the suite from the files of `reference.py` in `dir`.
    ///
    /// # Errors
    /// Files that are missing or that do not describe cases.
    pub fn pack(dir: &Path) -> Result<Suite, Box<dyn Error>> {
        let sources: Sources = serde_json::from_slice(&fs::read(dir.join("cases.json"))?)?;
        let data = fs::read(dir.join("cases.bin"))?;
        let mut suite = Suite { cases: Vec::new(), training: Vec::new(), bytes: Vec::new() };
        for source in sources.cases {
            let name = source.name.clone();
            suite.add(source, &data).map_err(|error| format!("case {name:?}: {error}"))?;
        }
        for Training { name, setup, task, draws } in training::all()? {
            let setup = setup.iter().map(|frame| suite.push(frame)).collect();
            let task = suite.push(&task);
            suite.training.push(TrainingCase { name, setup, task, draws });
        }
        Ok(suite)
    }

    /// Reads a suite that was written before.
    ///
    /// # Errors
    /// Files that are missing or that are no suite.
    pub fn read(dir: &Path) -> Result<Suite, Box<dyn Error>> {
        let document: Document = serde_json::from_slice(&fs::read(dir.join("suite.json"))?)?;
        let Document { cases, training } = document;
        Ok(Suite { cases, training, bytes: fs::read(dir.join("suite.bin"))? })
    }

    /// Writes `suite.json` and `suite.bin` into `dir`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(self, dir: &Path) -> Result<(), Box<dyn Error>> {
        let document =
            serde_json::to_vec(&Document { cases: self.cases, training: self.training })?;
        fs::write(dir.join("suite.json"), document)?;
        Ok(fs::write(dir.join("suite.bin"), self.bytes)?)
    }

    /// The bytes of a span.
    pub fn span(&self, [offset, bytes]: Span) -> &[u8] {
        &self.bytes[offset..offset + bytes]
    }

    /// The bytes of an expected tensor.
    pub fn tensor(&self, tensor: &TensorRef) -> &[u8] {
        self.span([tensor.offset, tensor.bytes])
    }

    fn push(&mut self, bytes: &[u8]) -> Span {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        [offset, bytes.len()]
    }

    fn add(&mut self, source: Source, data: &[u8]) -> Result<(), Box<dyn Error>> {
        let id = GraphId::of(&source.graph);
        let graph = ToContributor::Graph { id, graph: GraphText::unchecked(&source.graph) };
        let mut setup = vec![self.push(&encode(&graph, &[]))];
        let mut spec = source.spec.to_string().replace("$graph", &id.to_string());
        for (index, shard) in source.shards.iter().enumerate() {
            let blob = blob_of(shard, data);
            setup.push(self.push(&encode(&ToContributor::Blob { id: blob }, &parts(shard, data))));
            spec = spec.replace(&format!("$shard{index}"), &blob.to_string());
        }
        let spec: TaskSpec = serde_json::from_str(&spec)?;
        let number = self.cases.len() as u32;
        let task = ToContributor::Task(Box::new(TaskMessage {
            lease: LeaseId(u128::from(number)),
            task: TaskId { job: JobId(1), round: number, stage: 0, part: 0 },
            lease_ms: 60_000,
            flops: 0,
            spec,
        }));
        let task = self.push(&encode(&task, &parts(&source.attached, data)));
        let expected = source
            .expected
            .into_iter()
            .map(|tensor| {
                let [offset, _] = self.push(&data[tensor.offset..tensor.offset + tensor.bytes]);
                TensorRef { offset, ..tensor }
            })
            .collect();
        let Source { name, family, abs, rel, .. } = source;
        self.cases.push(Case { name, family, abs, rel, setup, task, expected });
        Ok(())
    }
}

fn parts<'a>(tensors: &[TensorRef], data: &'a [u8]) -> Vec<TensorPart<'a>> {
    tensors
        .iter()
        .map(|tensor| TensorPart {
            name: tensor.name.clone(),
            ty: TensorType { dtype: tensor.dtype, shape: tensor.shape.clone() },
            data: &data[tensor.offset..tensor.offset + tensor.bytes],
        })
        .collect()
}

fn blob_of(tensors: &[TensorRef], data: &[u8]) -> BlobId {
    blob_id(tensors.iter().map(|tensor| TensorView {
        name: &tensor.name,
        dtype: tensor.dtype,
        shape: &tensor.shape,
        data: &data[tensor.offset..tensor.offset + tensor.bytes],
    }))
}
