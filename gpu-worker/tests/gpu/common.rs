//! Frames that the tests send, and the two kernels that answer them.

use raven_gpu::Kernel;
use raven_graph::{DType, GraphBuilder, GraphId, Limits, NodeId, TensorType, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, BlobId, Encoding, Frame, FrameLimits, FromContributor, GraphText, JobId, LeaseId,
    Numerics, OutputSpec, Program, ReduceRule, RefuseReason, Seed, TaskId, TaskMessage, TaskSpec,
    TensorPart, TensorView, ToContributor, blob_id,
};

/// A named tensor with its bytes.
pub type Named = (String, TensorType, Vec<u8>);

/// A number that depends on `i` alone, even in [0, 1).
pub fn noise(i: u32) -> f32 {
    let mixed = (i ^ 0x9e37_79b9).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
    ((mixed ^ (mixed >> 16)) >> 8) as f32 / 16_777_216.0
}

pub fn f32s(name: &str, dims: &[u32], values: &[f32]) -> Named {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    (name.to_owned(), TensorType::new(DType::F32, dims), bytes)
}

pub fn i32s(name: &str, dims: &[u32], values: &[i32]) -> Named {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    (name.to_owned(), TensorType::new(DType::I32, dims), bytes)
}

pub fn u8s(name: &str, dims: &[u32], values: &[u8]) -> Named {
    (name.to_owned(), TensorType::new(DType::U8, dims), values.to_vec())
}

/// Even numbers in `low..high`.
pub fn spread(name: &str, dims: &[u32], low: f32, high: f32) -> Named {
    let seed = name.bytes().fold(7u32, |seed, byte| seed.wrapping_mul(31) + u32::from(byte));
    let value = |i: u32| low + (high - low) * noise(i.wrapping_add(seed.wrapping_mul(977)));
    f32s(name, dims, &(0..dims.iter().product()).map(value).collect::<Vec<f32>>())
}

fn parts(tensors: &[Named]) -> Vec<TensorPart<'_>> {
    tensors
        .iter()
        .map(|(name, ty, data)| TensorPart { name: name.clone(), ty: ty.clone(), data })
        .collect()
}

pub fn graph_frame(graph: &ValidGraph) -> Vec<u8> {
    encode(&ToContributor::Graph { id: graph.id(), graph: GraphText::of(graph) }, &[])
}

pub fn blob_frame(tensors: &[Named]) -> (BlobId, Vec<u8>) {
    let id = blob_id(tensors.iter().map(|(name, ty, data)| TensorView {
        name,
        dtype: ty.dtype,
        shape: &ty.shape,
        data,
    }));
    (id, encode(&ToContributor::Blob { id }, &parts(tensors)))
}

pub fn task_frame(lease: u128, spec: TaskSpec, attached: &[Named]) -> Vec<u8> {
    let message = TaskMessage {
        lease: LeaseId(lease),
        task: TaskId { job: JobId(1), round: 0, stage: 0, part: 0 },
        lease_ms: 1000,
        flops: 0,
        spec,
    };
    encode(&ToContributor::Task(Box::new(message)), &parts(attached))
}

pub fn message(message: &ToContributor) -> Vec<u8> {
    encode(message, &[])
}

pub fn output(name: &str, reduce: ReduceRule) -> OutputSpec {
    OutputSpec { name: name.into(), encoding: Encoding::Raw, reduce }
}

pub fn attached(name: &str) -> Binding {
    Binding::Attached { input: name.into(), tensor: name.into() }
}

pub fn spec(program: Program, bindings: Vec<Binding>, outputs: Vec<OutputSpec>) -> TaskSpec {
    TaskSpec {
        program,
        seed: Seed(0x0123_4567_89ab_cdef),
        bindings,
        shards: Vec::new(),
        outputs,
        numerics: Numerics::Relaxed,
    }
}

pub fn map(graph: GraphId, start: u32, count: u32) -> Program {
    Program::Map { graph, start, count }
}

/// A task that runs `graph` once on attached inputs and returns all outputs.
pub fn whole_task(lease: u128, graph: &ValidGraph, inputs: &[Named]) -> Vec<u8> {
    let bindings = graph.inputs().iter().map(|input| attached(&input.name)).collect();
    let outputs = graph.outputs().iter().map(|o| output(&o.name, ReduceRule::Sum)).collect();
    task_frame(lease, spec(map(graph.id(), 3, 1), bindings, outputs), inputs)
}

/// The message and the tensors of a kernel's frame.
pub fn read(frame: &[u8]) -> (FromContributor, Vec<Named>) {
    let frame = Frame::decode(frame, &FrameLimits::TO_CONTRIBUTOR).expect("the kernel's frame");
    let message = FromContributor::from_header(frame.header()).expect("a message");
    let tensors = frame.tensors().map(|t| (t.name.to_owned(), t.ty(), t.data.to_vec())).collect();
    (message, tensors)
}

/// The tensors of a `result` frame.
pub fn result(frame: &[u8]) -> Vec<Named> {
    match read(frame) {
        (FromContributor::Result { .. }, tensors) => tensors,
        (other, _) => panic!("expected a result, found {other:?}"),
    }
}

/// The reason and detail of a `refuse` frame.
pub fn refusal(frame: &[u8]) -> (RefuseReason, String) {
    match read(frame).0 {
        FromContributor::Refuse { reason, detail, .. } => (reason, detail),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// A kernel on whatever adapter there is; `None`, with a word, where there is none.
pub fn gpu(budget: u64) -> Option<Kernel> {
    Some(Kernel::new(raven_gpu::doors::native::open_for_tests()?, budget))
}

pub fn cpu(budget: u64) -> raven_worker::Kernel {
    raven_worker::Kernel::new(budget)
}

/// A graph and its inputs in the making.
pub struct Case {
    pub name: String,
    pub b: GraphBuilder,
    pub inputs: Vec<Named>,
    /// How far GPU and CPU may differ: absolutely, and relative to the CPU's number.
    pub bounds: (f32, f32),
}

impl Case {
    pub fn new(name: impl Into<String>, bounds: (f32, f32)) -> Self {
        let b = GraphBuilder::new(&Limits::default());
        Case { name: name.into(), b, inputs: Vec::new(), bounds }
    }

    /// Binds a tensor.
    pub fn bind(&mut self, tensor: Named) -> NodeId {
        let (name, ty) = (tensor.0.clone(), tensor.1.clone());
        self.inputs.push(tensor);
        self.b.input(name, ty.dtype, ty.shape).expect("a valid input")
    }

    /// Numbers in -2..2.
    pub fn x(&mut self, name: &str, dims: &[u32]) -> NodeId {
        self.bind(spread(name, dims, -2.0, 2.0))
    }

    /// Ends with outputs `y0`, `y1`, and so on.
    pub fn ends(mut self, outputs: &[NodeId]) -> (String, ValidGraph, Vec<Named>, (f32, f32)) {
        for (at, node) in outputs.iter().enumerate() {
            self.b.output(format!("y{at}"), *node);
        }
        let name = self.name;
        let graph = self.b.finish().unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, graph, self.inputs, self.bounds)
    }
}

/// A finished case.
pub type Ready = (String, ValidGraph, Vec<Named>, (f32, f32));

/// Compares two results, element by element.
pub fn expect_close(name: &str, cpu: &[Named], gpu: &[Named], (absolute, relative): (f32, f32)) {
    assert_eq!(cpu.len(), gpu.len(), "{name}: outputs");
    for ((output, ty, expected), (_, found_ty, found)) in cpu.iter().zip(gpu) {
        assert_eq!(ty, found_ty, "{name}.{output}");
        if ty.dtype != DType::F32 {
            assert_eq!(expected, found, "{name}.{output}");
            continue;
        }
        for (at, (expected, found)) in floats(expected).iter().zip(floats(found)).enumerate() {
            let same = expected.to_bits() == found.to_bits() || *expected == found;
            let bound = absolute + relative * expected.abs();
            assert!(
                same || (expected - found).abs() <= bound,
                "{name}.{output}[{at}]: the CPU has {expected}, the GPU {found}, allowed is {bound}"
            );
        }
    }
}
