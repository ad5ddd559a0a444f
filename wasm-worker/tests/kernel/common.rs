//! Frames that the tests send.

use raven_graph::{DType, Graph, GraphBuilder, Limits, ReduceFn, TensorType};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, BlobId, Encoding, Frame, FrameLimits, FromContributor, GraphText, JobId, LeaseId,
    Numerics, OutputSpec, Program, ReduceRule, Seed, TaskId, TaskMessage, TaskSpec, TensorPart,
    TensorView, ToContributor, blob_id,
};
use raven_worker::Kernel;

/// A named tensor with its bytes.
pub type Named = (&'static str, TensorType, Vec<u8>);

pub fn f32s(name: &'static str, dims: &[u32], values: &[f32]) -> Named {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    (name, TensorType::new(DType::F32, dims), bytes)
}

pub fn i32s(name: &'static str, dims: &[u32], values: &[i32]) -> Named {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    (name, TensorType::new(DType::I32, dims), bytes)
}

fn parts(tensors: &[Named]) -> Vec<TensorPart<'_>> {
    tensors
        .iter()
        .map(|(name, ty, data)| TensorPart { name: name.to_string(), ty: ty.clone(), data })
        .collect()
}

pub fn graph_frame(graph: &Graph) -> Vec<u8> {
    let id = raven_graph::GraphId::of(graph);
    encode(&ToContributor::Graph { id, graph: GraphText::unchecked(graph) }, &[])
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

/// A frame with this header and no tensors.
pub fn header_frame(header: &str) -> Vec<u8> {
    let mut frame = b"RAVN\x01\0\0\0".to_vec();
    frame.extend((header.len() as u32).to_le_bytes());
    frame.extend([0; 4]);
    frame.extend(header.as_bytes());
    frame.resize(frame.len().next_multiple_of(16), 0);
    frame
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
        seed: Seed(3),
        bindings,
        shards: Vec::new(),
        outputs,
        numerics: Numerics::Strict,
    }
}

/// `y = sum over rows of relu(x w)`: x [4, 3] per run, w [3, 2].
pub fn small_graph() -> Graph {
    let mut b = GraphBuilder::new(&Limits::default());
    let x = b.input("x", DType::F32, [4, 3]).expect("valid");
    let w = b.input("w", DType::F32, [3, 2]).expect("valid");
    let y = b.matmul(x, w, false, false).expect("valid");
    let y = b.unary(raven_graph::UnaryFn::Relu, y).expect("valid");
    let sum = b.reduce(ReduceFn::Sum, y, &[0], false).expect("valid");
    b.output("rows", y);
    b.output("sum", sum);
    b.finish().expect("valid").into_graph()
}

/// A task of [`small_graph`] over `count` micro-batches from `start`.
pub fn small_task(lease: u128, start: u32, count: u32) -> Vec<u8> {
    let value = |i: u32| ((i.wrapping_mul(2_654_435_761) >> 8) % 1000) as f32 * 0.37 - 150.0;
    let xs: Vec<f32> = (start * 12..(start + count) * 12).map(value).collect();
    let ws: Vec<f32> = (0..6).map(|i| value(7000 + i)).collect();
    let graph = raven_graph::GraphId::of(&small_graph());
    let bindings = vec![Binding::PerRun { input: "x".into(), tensor: "xs".into() }, attached("w")];
    let outputs = vec![output("sum", ReduceRule::Sum), output("rows", ReduceRule::Concat)];
    let spec = spec(Program::Map { graph, start, count }, bindings, outputs);
    task_frame(lease, spec, &[f32s("xs", &[count, 4, 3], &xs), f32s("w", &[3, 2], &ws)])
}

pub fn kernel_with(graph: &Graph) -> Kernel {
    let mut kernel = Kernel::new(64 << 20);
    assert!(kernel.accept(&graph_frame(graph)).expect("a graph").is_none());
    kernel
}

/// The message and the tensors of a kernel's frame.
pub fn read(frame: &[u8]) -> (FromContributor, Vec<(String, TensorType, Vec<u8>)>) {
    let frame = Frame::decode(frame, &FrameLimits::TO_COORDINATOR).expect("the kernel's frame");
    let message = FromContributor::from_header(frame.header()).expect("a message");
    let tensors = frame.tensors().map(|t| (t.name.to_owned(), t.ty(), t.data.to_vec())).collect();
    (message, tensors)
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The reason and detail of a `refuse` frame.
pub fn refusal(frame: &[u8]) -> (raven_protocol::RefuseReason, String) {
    match read(frame).0 {
        FromContributor::Refuse { reason, detail, .. } => (reason, detail),
        other => panic!("expected a refusal, found {other:?}"),
    }
}
