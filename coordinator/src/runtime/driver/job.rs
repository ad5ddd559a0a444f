//! What the driver keeps of a running job: states, row order, frames, progress.

use super::link::About;
use super::live::Progress;
use crate::job::{JobContext, RowGraph};
use crate::runtime::executor::{
    ExecutorError, Group, ROWS, RoundStart, RoundValues, RowSource, State, Tensor, attached,
    operands, row_bindings,
};
use crate::runtime::leases::{Expected, ExpectedOutput};
use crate::runtime::product::Product;
use crate::runtime::relaxed::{Bounds, Relaxed};
use axum::body::Bytes;
use raven_engine::{Algorithm, Category, EpochOrder, Placement, SyncSgd, Verification, Work};
use raven_graph::cut::{Part as CutPart, PartInput, Stage};
use raven_graph::{GraphId, Shape, TensorType, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, BlobId, Encoding, GraphText, JobCategory, LeaseId, Numerics, OutputSpec, Program,
    ReduceRule, Seed, ShardRef, TaskId, TaskMessage, TaskSpec, TensorPart, ToContributor,
};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

/// The referee's tasks are leased to nobody; evidence states a bound that a reader takes.
const LEASE_MS_JUDGED: u64 = 3_600_000;

/// Mean losses of a task and of the round before it that differ by more are looked at.
const LOSS_RATIO_MAX: f32 = 4.0;
/// Mean loss below which that says nothing.
const LOSS_NOTED_MIN: f32 = 0.05;

/// Separates the seeds of tasks from everything else that is drawn from a job's seed.
const TAG_TASK: u32 = 0x5441_534b;

/// Key of the random nodes of all tasks of a round; the micro-batch's index is
/// part of the counter. A function of job and round alone, so that it does not
/// matter who runs a task, or how often.
pub fn task_seed(job: Seed, round: u32) -> Seed {
    Seed(raven_graph::philox::derive_seed(job.0, [round, TAG_TASK, 0, 0]))
}

/// A job as it is handed to the driver.
#[derive(Debug)]
pub struct NewJob {
    /// Graphs and facts.
    pub context: Arc<JobContext>,
    /// The pseudonym of whoever owns it.
    pub requester: String,
    /// The state to go on from, where the job was begun before.
    pub state: Option<Arc<State>>,
    /// Master placement: the training rows.
    pub rows: Option<RowSource>,
}

/// A running job.
#[derive(Debug)]
pub struct Job {
    pub(super) context: Arc<JobContext>,
    pub(super) requester: String,
    pub(super) progress: Progress,
    /// Of its GPUs.
    pub(super) relaxed: Relaxed,
    /// By id, with how often it was made: equal states have one id.
    states: HashMap<BlobId, (Arc<State>, u32)>,
    order: Option<EpochOrder>,
    graphs: HashMap<GraphId, Bytes>,
    rows: Option<Arc<RowSource>>,
    /// Master placement: the values of the round that is going on.
    round: Option<(u32, RoundValues)>,
    /// Mean loss of the last round.
    pub(super) last_loss: Option<f32>,
}

/// A task before its lease: what to compute, the tensors that go with it, and
/// what it returns.
struct Draft {
    spec: TaskSpec,
    attachments: Attachments,
    expected: Expected,
    product: Option<Product>,
}

impl Draft {
    fn frame(self, lease: LeaseId, task: TaskId, lease_ms: u64, flops: u64) -> TaskFrame {
        let Draft { spec, attachments, expected, product } = self;
        let (shards, graph) = (spec.shards.clone(), spec.program.graph());
        let message = TaskMessage { lease, task, lease_ms, flops, spec };
        let frame = match attachments {
            Attachments::Ready(attachments) => TaskBytes::Ready(encode_task(message, &attachments)),
            Attachments::Cut { inputs, values, bytes } => TaskBytes::Deferred {
                bytes,
                build: Box::new(move || {
                    let attachments = operands(&inputs, &values.all()?)?;
                    Ok(encode_task(message, &attachments))
                }),
            },
        };
        let (expected, product) = (Arc::new(expected), product.map(Arc::new));
        TaskFrame { frame, expected, product, shards, graph }
    }
}

/// Tensors that go with a task.
enum Attachments {
    /// Here, and small.
    Ready(Vec<(String, Tensor)>),
    /// Cut out of the round's values, of so many bytes, when the frame is made:
    /// that copies a part of the batch and the weights.
    Cut { inputs: Vec<PartInput>, values: RoundValues, bytes: usize },
}

/// A task's frame, or how to make it.
pub enum TaskBytes {
    Ready(Bytes),
    /// Of about so many bytes. Making it blocks.
    Deferred {
        bytes: usize,
        build: Box<dyn FnOnce() -> Result<Bytes, ExecutorError> + Send>,
    },
}

impl fmt::Debug for TaskBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a task's frame of {} bytes", self.bytes())
    }
}

impl TaskBytes {
    pub(super) fn bytes(&self) -> usize {
        match self {
            TaskBytes::Ready(frame) => frame.len(),
            TaskBytes::Deferred { bytes, .. } => *bytes,
        }
    }
}

/// A task ready to be sent.
pub struct TaskFrame {
    pub(super) frame: TaskBytes,
    pub(super) expected: Arc<Expected>,
    pub(super) product: Option<Arc<Product>>,
    /// To be fetched by the contributor.
    pub(super) shards: Vec<ShardRef>,
    /// The graph that it runs.
    pub(super) graph: GraphId,
}

impl Job {
    pub(super) fn new(job: NewJob) -> Self {
        let NewJob { context, requester, state, rows } = job;
        let mut job = Job {
            context,
            requester,
            progress: Progress::default(),
            relaxed: Relaxed::default(),
            states: HashMap::new(),
            order: None,
            graphs: HashMap::new(),
            rows: rows.map(Arc::new),
            round: None,
            last_loss: None,
        };
        if let Some(state) = state {
            job.keep_state(state);
        }
        job
    }

    /// What the visitor is told of it.
    pub(super) fn about(&self) -> About {
        let category = match self.context.plan.category {
            Category::Vision => JobCategory::Vision,
            Category::Language => JobCategory::Language,
            Category::Tabular => JobCategory::Tabular,
            Category::Science => JobCategory::Science,
            Category::Finance => JobCategory::Finance,
            Category::Other => JobCategory::Other,
        };
        About { requester: self.requester.clone(), category }
    }

    /// Whether the loss of a result is far from that of the round before.
    pub(super) fn is_unlikely(&self, values: &HashMap<String, Tensor>) -> bool {
        let train = &self.context.train;
        let scalar = |name: &str| values.get(name).and_then(Tensor::as_scalar);
        let (Some(before), Some(sum), Some(count)) =
            (self.last_loss, scalar(&train.loss_sum), scalar(&train.count))
        else {
            return false;
        };
        let ratio = sum / count / before;
        // Losses that are nearly nothing already jump about.
        before > LOSS_NOTED_MIN && !(1.0 / LOSS_RATIO_MAX..=LOSS_RATIO_MAX).contains(&ratio)
    }

    pub(super) fn keep_state(&mut self, state: Arc<State>) {
        self.states.entry(state.id()).or_insert((state, 0)).1 += 1;
    }

    pub(super) fn release_state(&mut self, id: BlobId) {
        if let Some((_, made)) = self.states.get_mut(&id) {
            *made -= 1;
            if *made == 0 {
                self.states.remove(&id);
            }
        }
    }

    /// A state that the engine has not released.
    ///
    /// # Errors
    /// [`ExecutorError::Missing`], a fault of this process.
    pub(super) fn state(&self, id: BlobId) -> Result<Arc<State>, ExecutorError> {
        let state = self.states.get(&id).map(|(state, _)| state.clone());
        state.ok_or_else(|| ExecutorError::Missing { name: format!("state {id}") })
    }

    fn sgd(&self) -> &SyncSgd {
        let Algorithm::SyncSgd(sgd) = &self.context.plan.algorithm;
        sgd
    }

    /// The row order of the epoch that `round` belongs to; shuffled once an epoch.
    fn order(&mut self, round: u32) -> Result<&EpochOrder, ExecutorError> {
        let known =
            self.order.as_ref().map(|order| (order.layout().epoch_of(round), order.epoch()));
        if known.is_none_or(|(wanted, epoch)| wanted != epoch) {
            let refuse = |error: raven_engine::LayoutError| ExecutorError::Missing {
                name: format!("row order ({error})"),
            };
            let layout = raven_engine::Layout::of(self.sgd()).map_err(refuse)?;
            let epoch = layout.epoch_of(round);
            let order = EpochOrder::new(self.sgd(), self.context.plan.seed, epoch);
            self.order = Some(order.map_err(refuse)?);
        }
        self.order.as_ref().ok_or_else(|| ExecutorError::Missing { name: "row order".into() })
    }

    /// Whether its results are compared within bounds.
    pub(super) fn is_relaxed(&self) -> bool {
        self.context.plan.numerics == Numerics::Relaxed
    }

    /// Within which results of GPUs are compared.
    pub(super) fn bounds(&self) -> Bounds {
        let bounds = self.relaxed.bounds(&self.context.train.correct);
        if self.is_replica() { bounds } else { bounds.linear() }
    }

    /// What the job's rule combines in `round`; nothing where gradients are only added.
    pub(super) fn groups(&mut self, round: u32) -> Result<Vec<Group>, ExecutorError> {
        let context = self.context.clone();
        Ok(Group::of_round(&context, self.order(round)?, round))
    }

    /// The frame that introduces a graph; encoded once.
    pub(super) fn graph_frame(&mut self, id: GraphId) -> Result<Bytes, ExecutorError> {
        if let Some(frame) = self.graphs.get(&id) {
            return Ok(frame.clone());
        }
        let graph = self.find_graph(id);
        let graph = graph.ok_or_else(|| ExecutorError::Missing { name: format!("graph {id}") })?;
        let message = ToContributor::Graph { id, graph: GraphText::of(graph) };
        let frame = Bytes::from(encode(&message, &[]));
        self.graphs.insert(id, frame.clone());
        Ok(frame)
    }

    fn find_graph(&self, id: GraphId) -> Option<&ValidGraph> {
        if self.context.train.graph.id() == id {
            return Some(&self.context.train.graph);
        }
        let stages = self.context.cut.iter().flat_map(|cut| &cut.stages);
        let pushed = stages.filter_map(|stage| match stage {
            Stage::Pushed(entries) => Some(entries),
            Stage::Local(_) => None,
        });
        let mut parts = pushed.flatten().flat_map(|entry| &entry.parts);
        parts.find(|part| part.graph.id() == id).map(|part| &part.graph)
    }

    /// Builds a leased task.
    ///
    /// # Errors
    /// [`ExecutorError`] where a value or state is not there: a fault of this process.
    pub(super) fn task_frame(
        &mut self,
        lease: LeaseId,
        task: TaskId,
        lease_ms: u64,
        flops: u64,
        work: &Work,
    ) -> Result<TaskFrame, ExecutorError> {
        let draft = self.draft(task, work)?;
        Ok(draft.frame(lease, task, lease_ms, flops))
    }

    /// Builds a task for the referee: the same, as a strict one.
    ///
    /// # Errors
    /// Those of [`Job::task_frame`].
    pub(super) fn judged_frame(
        &mut self,
        lease: LeaseId,
        task: TaskId,
        work: &Work,
    ) -> Result<TaskFrame, ExecutorError> {
        // The values of a round are dropped with it. To begin it anew would drop those of
        // the one that is going on, and its stages would be missing.
        let is_over = self.round.as_ref().is_none_or(|(current, _)| *current != task.round);
        if matches!(work, Work::Part { .. }) && is_over {
            return Err(ExecutorError::Missing { name: format!("values of round {}", task.round) });
        }
        let mut draft = self.draft(task, work)?;
        draft.spec.numerics = Numerics::Strict;
        Ok(draft.frame(lease, task, LEASE_MS_JUDGED, 0))
    }

    /// A graph that tasks run.
    ///
    /// # Errors
    /// [`ExecutorError::Missing`], a fault of this process.
    pub(super) fn graph(&self, id: GraphId) -> Result<ValidGraph, ExecutorError> {
        let graph = self.find_graph(id).cloned();
        graph.ok_or_else(|| ExecutorError::Missing { name: format!("graph {id}") })
    }

    fn draft(&mut self, task: TaskId, work: &Work) -> Result<Draft, ExecutorError> {
        match *work {
            Work::Replica { state, start, count } => {
                self.replica_spec(task.round, state, start, count)
            }
            Work::Part { state, stage, part } => self.part_spec(task.round, state, stage, part),
        }
    }

    fn replica_spec(
        &mut self,
        round: u32,
        state: BlobId,
        start: u32,
        count: u32,
    ) -> Result<Draft, ExecutorError> {
        let weights = self.state(state)?.weights().id;
        let order = self.order(round)?;
        let mut numbers = Vec::new();
        let mut shards_read = BTreeSet::new();
        for micro_batch in start..start + count {
            numbers.extend(order.rows(round, micro_batch));
            shards_read.extend(order.shards_of(round, micro_batch));
        }
        let sgd = self.sgd();
        let shards = shards_read.into_iter().filter_map(|i| sgd.shards.get(i as usize)).copied();
        let shards: Vec<ShardRef> = shards.collect();
        let rows = Tensor::rows(count, sgd.micro_batch, &numbers);
        let context = &self.context;
        let mut bindings = row_bindings(context, &context.train);
        let params = context.params.iter().map(|param| param.name.clone());
        let bound = params.filter(|name| context.train.graph.input(name).is_some());
        bindings.extend(bound.map(|name| Binding::Blob {
            input: name.clone(),
            blob: weights,
            tensor: name,
        }));
        let spec = TaskSpec {
            program: Program::Map { graph: context.train.graph.id(), start, count },
            seed: task_seed(context.plan.seed, round),
            bindings,
            shards,
            outputs: context.train.outputs.clone(),
            numerics: context.plan.numerics,
        };
        let expected = expected_of(&context.train, count)?;
        let attachments = Attachments::Ready(vec![(ROWS.to_owned(), rows)]);
        Ok(Draft { spec, attachments, expected, product: None })
    }

    fn part_spec(
        &mut self,
        round: u32,
        state: BlobId,
        stage: u32,
        part: u32,
    ) -> Result<Draft, ExecutorError> {
        self.begin_round(round, state)?;
        let part = self.part(stage, part)?;
        let attached_bytes: u64 =
            part.graph.inputs().iter().filter_map(|input| input.ty.bytes()).sum();
        let values = self.round_values()?;
        let is_checked = self.context.plan.verification != Verification::None;
        let product = is_checked.then(|| Product::of(part, &values)).flatten();
        let attachments = Attachments::Cut {
            inputs: part.inputs.clone(),
            values,
            bytes: usize::try_from(attached_bytes).unwrap_or(usize::MAX),
        };
        let output = OutputSpec {
            name: part.output.clone(),
            encoding: Encoding::Raw,
            reduce: ReduceRule::Sum,
        };
        let ty = part.graph.output_type(&part.output).cloned();
        let ty = ty.ok_or_else(|| ExecutorError::Missing { name: part.output.clone() })?;
        let expected = ExpectedOutput { name: output.name.clone(), encoding: output.encoding, ty };
        let spec = TaskSpec {
            program: Program::Map { graph: part.graph.id(), start: 0, count: 1 },
            seed: task_seed(self.context.plan.seed, round),
            bindings: part.inputs.iter().map(|input| attached(&input.name)).collect(),
            shards: Vec::new(),
            outputs: vec![output],
            numerics: self.context.plan.numerics,
        };
        let expected = Expected { outputs: vec![expected] };
        Ok(Draft { spec, attachments, expected, product })
    }

    /// Part `index` of a pushed stage, counted over all its entries.
    fn part(&self, stage: u32, index: u32) -> Result<&CutPart, ExecutorError> {
        let cut = self.context.cut.as_ref();
        let found = cut.and_then(|cut| match cut.stages.get(stage as usize)? {
            Stage::Pushed(entries) => {
                entries.iter().flat_map(|entry| &entry.parts).nth(index as usize)
            }
            Stage::Local(_) => None,
        });
        found.ok_or_else(|| ExecutorError::Missing {
            name: format!("part {index} of stage {stage}"),
        })
    }

    /// Master placement: begins the round where it is another than the last.
    pub(super) fn begin_round(&mut self, round: u32, state: BlobId) -> Result<(), ExecutorError> {
        if self.round.as_ref().is_some_and(|(current, _)| *current == round) {
            return Ok(());
        }
        let order = self.order(round)?;
        let micro_batches = order.layout().micro_batches(round);
        let rows = (0..micro_batches).flat_map(|index| order.rows(round, index)).collect();
        let state = self.state(state)?;
        let source = self.rows.clone();
        let source = source.ok_or_else(|| ExecutorError::Missing { name: "rows".into() })?;
        let start = Arc::new(RoundStart::new(self.context.clone(), source, state, rows));
        self.round = Some((round, RoundValues { start, defined: Arc::default() }));
        Ok(())
    }

    /// The values of the round that is going on.
    ///
    /// # Errors
    /// [`ExecutorError::Missing`] where none is.
    pub(super) fn round_values(&self) -> Result<RoundValues, ExecutorError> {
        let values = self.round.as_ref().map(|(_, values)| values.clone());
        values.ok_or_else(|| ExecutorError::Missing { name: "round".into() })
    }

    /// Adds what a stage has defined, unless its round is over.
    pub(super) fn define(&mut self, round: u32, defined: Vec<(String, Tensor)>) {
        if let Some((current, values)) = &mut self.round
            && *current == round
        {
            Arc::make_mut(&mut values.defined).extend(defined);
        }
    }

    /// Master placement: the cut graph's outputs, by their names in the graph.
    pub(super) fn cut_outputs(&self) -> Result<HashMap<String, Tensor>, ExecutorError> {
        let RoundValues { start, defined } = self.round_values()?;
        let start = start.gathered();
        let find = |name: &str| defined.get(name).or_else(|| start.as_ref()?.get(name)).cloned();
        let outputs = self.context.cut.iter().flat_map(|cut| &cut.outputs);
        outputs
            .map(|output| {
                let value = find(&output.value);
                let missing = || ExecutorError::Missing { name: output.value.clone() };
                Ok((output.name.clone(), value.ok_or_else(missing)?))
            })
            .collect()
    }

    /// Master placement: the round's values will not be read again.
    pub(super) fn end_round(&mut self) {
        self.round = None;
    }

    /// Whether contributors hold the model.
    pub(super) fn is_replica(&self) -> bool {
        matches!(self.sgd().placement, Placement::Replica { .. })
    }
}

fn encode_task(message: TaskMessage, attachments: &[(String, Tensor)]) -> Bytes {
    let parts: Vec<TensorPart<'_>> =
        attachments.iter().map(|(name, tensor)| tensor.part(name.clone())).collect();
    encode(&ToContributor::Task(Box::new(message)), &parts).into()
}

/// What a task of `count` micro-batches of a row graph returns.
fn expected_of(graph: &RowGraph, count: u32) -> Result<Expected, ExecutorError> {
    let outputs = graph.outputs.iter().map(|output| {
        let ty = graph.graph.output_type(&output.name);
        let ty = ty.ok_or_else(|| ExecutorError::Missing { name: output.name.clone() })?;
        let ty = match output.reduce {
            ReduceRule::Sum => ty.clone(),
            ReduceRule::Concat => joined(ty, count),
        };
        Ok(ExpectedOutput { name: output.name.clone(), encoding: output.encoding, ty })
    });
    Ok(Expected { outputs: outputs.collect::<Result<_, ExecutorError>>()? })
}

/// The type of `count` tensors joined along their first axis.
fn joined(ty: &TensorType, count: u32) -> TensorType {
    let mut dims = ty.shape.dims().to_vec();
    if let Some(first) = dims.first_mut() {
        *first = first.saturating_mul(count);
    }
    TensorType { dtype: ty.dtype, shape: Shape(dims) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::Blobs;
    use crate::dataset::{DatasetFacts, Features, Format, Target, X_COLUMN, Y_COLUMN};
    use crate::job::{Lowering, lower_job};
    use crate::runtime::leases::Held;
    use crate::runtime::metrics::Metrics;
    use crate::runtime::product::look;
    use raven_engine::Oddness;
    use raven_graph::DType;
    use raven_protocol::{Frame, FrameLimits, JobId, KernelId};

    const ROW_COUNT: u32 = 64;

    fn shards(blobs: &Blobs) -> Vec<ShardRef> {
        let x: Vec<u8> = (0..ROW_COUNT * 16).map(|at| at as u8).collect();
        let y: Vec<u8> = (0..ROW_COUNT).flat_map(|row| (row as i32 % 4).to_le_bytes()).collect();
        let ty = |dtype, dims: &[u32]| TensorType::new(dtype, dims);
        let parts = [
            TensorPart { name: X_COLUMN.into(), ty: ty(DType::U8, &[ROW_COUNT, 16]), data: &x },
            TensorPart { name: Y_COLUMN.into(), ty: ty(DType::I32, &[ROW_COUNT]), data: &y },
        ];
        let (blob, bytes) = blobs.put_tensors(&parts).expect("stored");
        vec![ShardRef { blob, first_row: 0, rows: ROW_COUNT, bytes }]
    }

    /// A job in master placement on 64 rows, with a state of zeros.
    fn job(blobs: &Blobs) -> (Job, BlobId) {
        let document = serde_json::json!({
            "name": "t", "dataset": "ds_00000000000003e8", "seed": 7, "placement": "master",
            "model": {"layers": [{"type": "dense", "units": 8, "activation": "relu"},
                                 {"type": "dense", "units": 4}], "loss": "cross_entropy"},
            "optimizer": {"kind": "sgd"},
            "training": {"epochs": 1, "batch": 32, "micro_batch": 16,
                         "schedule": {"kind": "constant", "learning_rate": 0.1}}
        });
        let facts = DatasetFacts {
            name: "t".into(),
            format: Format::Npy,
            train_rows: ROW_COUNT,
            test_rows: ROW_COUNT,
            features: Features { dtype: DType::U8, shape: vec![16] },
            target: Target::Classes { classes: 4 },
            scale: 1.0,
            license: "none".into(),
            source: "made up".into(),
            bytes: 0,
            table: None,
            labels: None,
            expires_at: None,
        };
        let stored = shards(blobs);
        let rows = RowSource::load(blobs, &stored).expect("rows");
        let lowering = Lowering {
            job: JobId(1),
            seed: Seed(7),
            kernel: KernelId([0; 32]),
            dataset: &facts,
            train_shards: stored.clone(),
            test_shards: stored,
        };
        let spec = serde_json::from_value(document).expect("a document");
        let (context, _) = lower_job(&spec, lowering).expect("lowers");
        let specs = context.params.iter().chain(&context.slots);
        let zeros = specs.map(|spec| Tensor::zeros(spec.ty.clone())).collect();
        let state = State::new(&context, zeros).expect("a state");
        let id = state.id();
        let context = Arc::new(context);
        let requester = String::new();
        (Job::new(NewJob { context, requester, state: Some(state), rows: Some(rows) }), id)
    }

    #[test]
    fn what_a_part_attaches_is_copied_when_its_frame_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("blobs");
        let (mut job, state) = job(&blobs);
        let stages = &job.context.cut.as_ref().expect("a cut").stages;
        // Stages before the first pushed one define what it reads; here they are made up.
        let (stage, inputs) = stages
            .iter()
            .enumerate()
            .find_map(|(at, stage)| match stage {
                Stage::Pushed(entries) => Some((at as u32, entries[0].parts[0].inputs.clone())),
                Stage::Local(_) => None,
            })
            .expect("a pushed stage");
        let graph_inputs = job.part(stage, 0).expect("part 0").graph.inputs().to_vec();
        job.begin_round(0, state).expect("begins");
        let start = job.round_values().expect("a round").start;
        let known = ["x", "y", "mask"];
        for (input, spec) in inputs.iter().zip(&graph_inputs) {
            let name = &input.value.name;
            let is_start = job.context.params.iter().any(|param| param.name == *name)
                || known.contains(&name.as_str());
            if !is_start {
                assert!(input.value.slice.is_none(), "only weights are cut here: {name}");
                job.define(0, vec![(name.clone(), Tensor::zeros(spec.ty.clone()))]);
            }
        }
        let task = TaskId { job: JobId(1), round: 0, stage, part: 0 };
        let work = Work::Part { state, stage, part: 0 };
        let built = job.task_frame(LeaseId(1), task, 1000, 1, &work).expect("a task");
        let TaskBytes::Deferred { bytes, build } = built.frame else {
            panic!("a part's frame is made on the driver's task");
        };
        assert!(start.gathered().is_none(), "the batch was gathered on the driver's task");
        let frame = build().expect("made");
        assert!(start.gathered().is_some());
        let decoded = Frame::decode(&frame, &FrameLimits::TO_CONTRIBUTOR).expect("a frame");
        let attached: usize = decoded.tensors().map(|tensor| tensor.data.len()).sum();
        assert_eq!(attached, bytes, "counted as what it is");
        let values = job.round_values().expect("a round").all().expect("values");
        let expected = operands(&inputs, &values).expect("operands");
        let found = decoded.tensors().map(|tensor| (tensor.name.to_owned(), tensor.data.to_vec()));
        let expected = expected.into_iter().map(|(name, tensor)| (name, tensor.data.to_vec()));
        assert!(found.eq(expected));
    }

    #[test]
    fn the_referee_is_not_given_the_operands_of_another_round() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("blobs");
        let (mut job, state) = job(&blobs);
        let stages = &job.context.cut.as_ref().expect("a cut").stages;
        let stage = stages.iter().position(|stage| matches!(stage, Stage::Pushed(_)));
        let stage = stage.expect("a pushed stage") as u32;
        job.begin_round(1, state).expect("begins");
        let work = Work::Part { state, stage, part: 0 };
        let mut judged = |round| {
            let task = TaskId { job: JobId(1), round, stage, part: 0 };
            job.judged_frame(LeaseId(1), task, &work).is_ok()
        };
        assert!(!judged(0), "its values are gone");
        assert!(judged(1), "and those of the one that is going on are not");
    }

    #[test]
    fn a_part_that_is_a_product_is_probed_with_the_operands_of_its_round() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("blobs");
        let (mut job, state) = job(&blobs);
        let stages = job.context.cut.as_ref().expect("a cut").stages.clone();
        let pushed = stages.iter().enumerate().find_map(|(at, stage)| match stage {
            Stage::Pushed(entries) => Some((at as u32, entries[0].parts[0].clone())),
            Stage::Local(_) => None,
        });
        let (stage, part) = pushed.expect("a pushed stage");
        job.begin_round(0, state).expect("begins");
        // The samples as f32, which a local stage defines; the weights are zeros.
        let value = |i: u32| (i % 7) as f32 - 3.0;
        let (lhs, rhs) = (&part.inputs[0].value.name, &part.inputs[1].value.name);
        for (name, dims) in [(lhs, [32, 16]), (rhs, [16, 8])] {
            let data: Vec<u8> =
                (0..dims[0] * dims[1]).flat_map(|i| value(i).to_le_bytes()).collect();
            let tensor = Tensor { ty: TensorType::new(DType::F32, dims), data: data.into() };
            job.define(0, vec![(name.clone(), tensor)]);
        }
        let task = TaskId { job: JobId(1), round: 0, stage, part: 0 };
        let work = Work::Part { state, stage, part: 0 };
        let built = job.task_frame(LeaseId(1), task, 1000, 1, &work).expect("a task");
        assert!(built.product.is_some(), "a dense layer is a product");
        let held = Held { task, expected: built.expected, product: built.product };
        let values = job.round_values().expect("a round").all().expect("values");
        let operands = operands(&part.inputs, &values).expect("operands");
        let [a, b] = [0, 1].map(|at: usize| operands[at].1.as_f32s().expect("f32"));
        let (a, b): (Vec<f32>, Vec<f32>) = (a.collect(), b.collect());
        let columns = b.len() / 16;
        let product = |at: usize| -> f32 {
            (0..16).map(|k| a[at / columns * 16 + k] * b[k * columns + at % columns]).sum()
        };
        let metrics = Metrics::default();
        let look = |change: &dyn Fn(usize, f32) -> f32| {
            let data = (0..32 * columns).flat_map(|at| change(at, product(at)).to_le_bytes());
            let ty = TensorType::new(DType::F32, [32, columns as u32]);
            let result = Tensor { ty, data: data.collect::<Vec<u8>>().into() };
            look(&held, &HashMap::from([("part".to_owned(), result)]), &metrics)
        };
        assert_eq!(look(&|_, x| x), Oddness::Probed);
        assert_eq!(look(&|at, x| if at == 5 { x + 0.5 } else { x }), Oddness::Faulty);
        assert_eq!(look(&|_, x| -x), Oddness::Faulty);
        assert_eq!(look(&|at, x| if at == 9 { f32::NAN } else { x }), Oddness::NotFinite);
        assert_eq!((metrics.product_checks.get(), metrics.product_faults.get()), (3, 2));
    }
}
