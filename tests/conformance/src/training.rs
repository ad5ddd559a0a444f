//! Training steps of three models as tasks, lowered as those of jobs are: forward, loss,
//! backward, optimizer. Nobody says what is right in them: what runs the same module must come
//! to the same bits.
//!
//! Each model gives three tasks: the gradients of three micro-batches, as a contributor's task
//! of a job; an update of the optimizer, as the coordinator does it; and three whole steps in
//! one scan.

use crate::reseed::Draw;
use raven_graph::model::{ModelSpec, lower};
use raven_graph::philox::{key, philox4x32, unit_f32};
use raven_graph::{
    DType, DataSpec, GraphBuilder, GraphError, Limits, LoweredModel, NodeId, Op, OptimizerSpec,
    ParamSpec, Shape, StepGraph, TensorType, ValidGraph, step_graph,
};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, Carry, Encoding, GraphText, JobId, LeaseId, Numerics, OutputSpec, Program, ReduceRule,
    Seed, ShardRef, TaskId, TaskMessage, TaskSpec, TensorPart, TensorView, ToContributor, blob_id,
};
use std::collections::{BTreeMap, HashMap};
use std::error::Error;

const MICRO_BATCH: u32 = 8;
/// Micro-batches of a task, and steps of a scan: not a power of two, so that the tree is cut.
const RUNS: u32 = 3;
/// Samples of the shard.
const ROWS: u32 = 61;

const MODELS: [(&str, &str, &str, &str); 3] = [
    (
        "mlp",
        r#"{"features": {"dtype": "u8", "shape": [8, 8]}, "scale": 0.0625, "target": {"kind": "classes", "count": 10}}"#,
        r#"{"loss": "cross_entropy", "layers": [
            {"type": "flatten"},
            {"type": "dense", "units": 48, "activation": "relu"},
            {"type": "dense", "units": 32, "activation": "tanh"},
            {"type": "dense", "units": 10}]}"#,
        r#"{"kind": "sgd", "momentum": 0.9, "nesterov": true, "weight_decay": 0.001, "clip_norm": 1.0}"#,
    ),
    (
        "cnn",
        r#"{"features": {"dtype": "u8", "shape": [1, 14, 14]}, "scale": 0.003921569, "target": {"kind": "classes", "count": 10}}"#,
        r#"{"loss": "cross_entropy", "layers": [
            {"type": "conv2d", "filters": 8, "kernel": 5, "padding": "same", "activation": "relu"},
            {"type": "max_pool2d", "size": 2},
            {"type": "conv2d", "filters": 12, "kernel": 3, "stride": 2, "padding": "same", "activation": "sigmoid"},
            {"type": "avg_pool2d", "size": 2},
            {"type": "flatten"},
            {"type": "dense", "units": 10}]}"#,
        r#"{"kind": "adam"}"#,
    ),
    (
        "dropout regression",
        r#"{"features": {"dtype": "f32", "shape": [21]}, "scale": 1.0, "target": {"kind": "values", "width": 3}}"#,
        r#"{"loss": "mse", "layers": [
            {"type": "dense", "units": 40, "activation": "sigmoid"},
            {"type": "dropout", "rate": 0.3},
            {"type": "dense", "units": 24},
            {"type": "activation", "function": "softmax"},
            {"type": "dropout", "rate": 0.1},
            {"type": "dense", "units": 3}]}"#,
        r#"{"kind": "adamw", "weight_decay": 0.01, "clip_norm": 0.5}"#,
    ),
];

type Failed = Box<dyn Error>;

/// A task of training, before it is packed.
#[derive(Debug)]
pub struct Training {
    /// Model and part.
    pub name: String,
    /// Frames to accept before the task, graph first.
    pub setup: Vec<Vec<u8>>,
    /// The task's frame.
    pub task: Vec<u8>,
    /// Which operands other seeds draw, and how.
    pub draws: BTreeMap<String, Draw>,
}

/// A tensor with its bytes.
struct Tensor {
    name: String,
    ty: TensorType,
    data: Vec<u8>,
}

impl Tensor {
    fn f32s(name: &str, shape: Shape, value: impl Fn(u32) -> f32) -> Self {
        let count = shape.elements().unwrap_or(0) as u32;
        let data = (0..count).flat_map(|i| value(i).to_le_bytes()).collect();
        Tensor { name: name.into(), ty: TensorType::new(DType::F32, shape), data }
    }

    fn part(&self) -> TensorPart<'_> {
        TensorPart { name: self.name.clone(), ty: self.ty.clone(), data: &self.data }
    }

    fn view(&self) -> TensorView<'_> {
        TensorView {
            name: &self.name,
            dtype: self.ty.dtype,
            shape: &self.ty.shape,
            data: &self.data,
        }
    }
}

/// The `i`-th random word of a stream.
fn word(stream: u32, i: u32) -> u32 {
    philox4x32([i, stream, 0, 0], key(20))[0]
}

fn attached(name: &str) -> Binding {
    Binding::Attached { input: name.into(), tensor: name.into() }
}

fn outputs(graph: &ValidGraph) -> Vec<OutputSpec> {
    let output = |name: &str| OutputSpec {
        name: name.into(),
        encoding: Encoding::Raw,
        reduce: ReduceRule::Sum,
    };
    graph.outputs().iter().map(|found| output(&found.name)).collect()
}

/// The tasks of all models.
///
/// # Errors
/// What lowering refuses.
pub fn all() -> Result<Vec<Training>, Failed> {
    let mut tasks = Vec::new();
    for (name, data, model, optimizer) in MODELS {
        let limits = Limits::default();
        let data: DataSpec = serde_json::from_str(data)?;
        let model: ModelSpec = serde_json::from_str(model)?;
        let optimizer: OptimizerSpec = serde_json::from_str(optimizer)?;
        let model = lower(&model, &data, MICRO_BATCH, &limits)?;
        let step = step_graph(&model.params, &optimizer, &limits)?;
        let steps = joined(&model, &step, &limits)?;
        let lowered = Lowered { name, shard: shard(&data), model, step, steps };
        tasks.extend([lowered.gradients(), lowered.update(), lowered.whole_steps()]);
    }
    Ok(tasks)
}

/// The features and targets of all samples.
fn shard(data: &DataSpec) -> [Tensor; 2] {
    let dims = |sample: &[u32]| Shape([&[ROWS], sample].concat());
    let even = |stream| move |i| unit_f32(word(stream, i)) - 0.5;
    let shape = dims(data.features.shape.dims());
    let count = shape.elements().unwrap_or(0) as u32;
    let x = match data.features.dtype {
        DType::U8 => Tensor {
            name: "x".into(),
            data: (0..count).map(|i| word(0, i) as u8).collect(),
            ty: TensorType::new(DType::U8, shape),
        },
        _ => Tensor::f32s("x", shape, even(0)),
    };
    let y = match data.target {
        raven_graph::Target::Classes { count } => Tensor {
            name: "y".into(),
            ty: TensorType::new(DType::I32, [ROWS]),
            data: (0..ROWS).flat_map(|i| (word(1, i) % count).to_le_bytes()).collect(),
        },
        raven_graph::Target::Values { width } => Tensor::f32s("y", dims(&[width]), even(1)),
    };
    [x, y]
}

/// The graph of gradients with the optimizer's behind it: what is the input `grad.p` of one is
/// the output of that name of the other. Outputs are the loss and, as `next.p`, what changes.
fn joined(
    model: &LoweredModel,
    step: &StepGraph,
    limits: &Limits,
) -> Result<ValidGraph, GraphError> {
    let train = &model.train;
    let input = |name: &str| train.input(name).map(|input| input.node);
    let result = |name: &str| train.outputs().iter().find(|o| o.name == name).map(|o| o.node);
    let mut b = GraphBuilder::resume(train.clone(), limits);
    let mut at: HashMap<NodeId, NodeId> = HashMap::new();
    for (id, node) in (0..).map(NodeId).zip(&step.graph.graph().nodes) {
        let known = match &node.op {
            Op::Input { name, .. } => input(name).or_else(|| result(name)),
            _ => None,
        };
        let operands: Vec<NodeId> = node.inputs.iter().map(|operand| at[operand]).collect();
        let placed = known.map_or_else(|| b.push(node.op.clone(), &operands), Ok)?;
        at.insert(id, placed);
    }
    for output in step.graph.outputs() {
        b.output(format!("next.{}", output.name), at[&output.node]);
    }
    let mut graph = b.finish()?.into_graph();
    graph.outputs.retain(|output| output.name == "loss" || output.name.starts_with("next."));
    graph.validate(limits)
}

struct Lowered {
    name: &'static str,
    shard: [Tensor; 2],
    model: LoweredModel,
    step: StepGraph,
    steps: ValidGraph,
}

impl Lowered {
    /// Parameters as a network starts.
    fn params(&self) -> Vec<Tensor> {
        let param = |(stream, spec): (u32, &ParamSpec)| {
            let value = move |i| (unit_f32(word(stream, i)) - 0.5) / 2.0;
            Tensor::f32s(&spec.name, spec.shape.clone(), value)
        };
        (2..).zip(&self.model.params).map(param).collect()
    }

    /// The optimizer's state, which is no square root's to take of less than nothing.
    fn slots(&self, value: f32) -> Vec<Tensor> {
        let slot = |spec: &ParamSpec| Tensor::f32s(&spec.name, spec.shape.clone(), |_| value);
        self.step.slots.iter().map(slot).collect()
    }

    fn rows(&self) -> Tensor {
        let count = RUNS * MICRO_BATCH;
        // The last sample of the last run is padding.
        let row = |i| if i + 1 == count { -1 } else { (word(1000, i) % ROWS) as i32 };
        Tensor {
            name: "rows".into(),
            ty: TensorType::new(DType::I32, [RUNS, MICRO_BATCH]),
            data: (0..count).flat_map(|i| row(i).to_le_bytes()).collect(),
        }
    }

    /// Samples by their row, as tasks of jobs bind them.
    fn samples() -> [Binding; 3] {
        let rows = |input: &str| Binding::Rows {
            input: input.into(),
            column: input.into(),
            rows: "rows".into(),
        };
        [rows("x"), rows("y"), Binding::RowMask { input: "w".into(), rows: "rows".into() }]
    }

    /// Draws for parameters, and for rows where there are any.
    fn draws(&self, rows: bool) -> BTreeMap<String, Draw> {
        let small = self.model.params.iter().map(|param| (param.name.clone(), Draw::Small));
        let rows = rows.then(|| ("rows".to_owned(), Draw::Rows { count: ROWS }));
        small.chain(rows).collect()
    }

    fn task(
        &self,
        part: &str,
        (graph, program): (&ValidGraph, Program),
        (tensors, mut bindings): (Vec<Tensor>, Vec<Binding>),
        draws: BTreeMap<String, Draw>,
    ) -> Training {
        let message = ToContributor::Graph { id: graph.id(), graph: GraphText::of(graph) };
        let mut setup = vec![encode(&message, &[])];
        let mut shards = Vec::new();
        if bindings.iter().any(|binding| matches!(binding, Binding::Rows { .. })) {
            let id = blob_id(self.shard.iter().map(Tensor::view));
            let frame =
                encode(&ToContributor::Blob { id }, &self.shard.each_ref().map(Tensor::part));
            shards.push(ShardRef { blob: id, first_row: 0, rows: ROWS, bytes: frame.len() as u64 });
            setup.push(frame);
        }
        // Some rules have no use for the number of the step.
        bindings.retain(|binding| graph.input(binding.input()).is_some());
        let task = ToContributor::Task(Box::new(TaskMessage {
            lease: LeaseId(1),
            task: TaskId { job: JobId(1), round: 0, stage: 0, part: 0 },
            lease_ms: 60_000,
            flops: 0,
            spec: TaskSpec {
                program,
                seed: Seed(0x5eed),
                bindings,
                shards,
                outputs: outputs(graph),
                numerics: Numerics::Strict,
            },
        }));
        let parts: Vec<TensorPart<'_>> = tensors.iter().map(Tensor::part).collect();
        let task = encode(&task, &parts);
        Training { name: format!("{}, {part}", self.name), setup, task, draws }
    }

    /// What a contributor computes in a round.
    fn gradients(&self) -> Training {
        let graph = &self.model.train;
        let mut tensors = self.params();
        let mut bindings: Vec<_> = tensors.iter().map(|tensor| attached(&tensor.name)).collect();
        bindings.extend(Self::samples());
        tensors.push(self.rows());
        let program = Program::Map { graph: graph.id(), start: 4, count: RUNS };
        self.task("gradients", (graph, program), (tensors, bindings), self.draws(true))
    }

    /// What the coordinator computes at the end of a round.
    fn update(&self) -> Training {
        let graph = &self.step.graph;
        let scalar = |name: &str, value| Tensor::f32s(name, Shape::scalar(), move |_| value);
        let mut tensors = self.params();
        let mut draws = self.draws(false);
        for (stream, param) in (500..).zip(&self.model.params) {
            let name = format!("grad.{}", param.name);
            let value = |i| unit_f32(word(stream, i)) - 0.5;
            tensors.push(Tensor::f32s(&name, param.shape.clone(), value));
            draws.insert(name, Draw::Small);
        }
        tensors.extend(self.slots(0.01));
        tensors.extend([scalar("count", 23.0), scalar("lr", 0.05), scalar("step", 7.0)]);
        tensors.retain(|tensor| graph.input(&tensor.name).is_some());
        let bindings = tensors.iter().map(|tensor| attached(&tensor.name)).collect();
        let program = Program::Map { graph: graph.id(), start: 0, count: 1 };
        self.task("update", (graph, program), (tensors, bindings), draws)
    }

    /// Steps of training, one after the other.
    fn whole_steps(&self) -> Training {
        let graph = &self.steps;
        let mut tensors = self.params();
        tensors.extend(self.slots(0.0));
        let state = tensors.iter().map(|tensor| &tensor.name);
        let carry = |name: &String| Carry { input: name.clone(), output: format!("next.{name}") };
        let carry = state.map(carry).collect();
        tensors.push(Tensor::f32s("lr", Shape::scalar(), |_| 0.05));
        let mut bindings: Vec<_> = tensors.iter().map(|tensor| attached(&tensor.name)).collect();
        bindings.extend(Self::samples());
        tensors.push(self.rows());
        if graph.input("step").is_some() {
            tensors.push(Tensor::f32s("step", Shape::from([RUNS]), |i| (i + 1) as f32));
            bindings.push(Binding::PerRun { input: "step".into(), tensor: "step".into() });
        }
        let program = Program::Scan { graph: graph.id(), steps: RUNS, carry };
        self.task("three steps", (graph, program), (tensors, bindings), self.draws(true))
    }
}
