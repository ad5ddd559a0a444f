//! Writes valid inputs for every target, so that the fuzzer starts behind the first checks.
//!
//! `cargo run --example seeds -- FOLDER` writes `FOLDER/<target>/<name>`.

use raven_graph::model::{DataSpec, Target};
use raven_graph::{DType, Limits, TensorType, ValidGraph, lower};
use raven_protocol::frame::encode;
use raven_protocol::{FromContributor, TensorPart};
use std::path::Path;
use std::{env, fs, io};

const MODELS: [(&str, &str); 2] = [
    (
        "mlp",
        r#"{"layers":[{"type":"flatten"},{"type":"dense","units":3,"activation":"relu"},
            {"type":"dropout","rate":0.5},{"type":"dense","units":2}],"loss":"cross_entropy"}"#,
    ),
    (
        "cnn",
        r#"{"layers":[{"type":"conv2d","filters":2,"kernel":3,"padding":"same","activation":"tanh"},
            {"type":"max_pool2d","size":2},{"type":"avg_pool2d","size":2},{"type":"flatten"},
            {"type":"dense","units":2}],"loss":"cross_entropy"}"#,
    ),
];

const MESSAGES: [(&str, &str); 12] = [
    ("commit", r#"{"type":"commit","lease":"0000000000000001","digest":"00","elapsed_ms":12,"backend":"cpu"}"#),
    ("projected", r#"{"type":"projected","lease":"0000000000000001"}"#),
    ("project", r#"{"type":"project","lease":"0000000000000001","key":"0x0000000000000001","probes":32}"#),
    ("refuse", r#"{"type":"refuse","lease":"0000000000000001","reason":"too_large","detail":"x"}"#),
    ("pace", r#"{"type":"pace","share":0.5,"workers":2}"#),
    ("choosy", r#"{"type":"pace","share":0.5,"workers":2,"refuses":["finance","other"]}"#),
    ("pause", r#"{"type":"pause","detail":"hidden"}"#),
    ("goodbye", r#"{"type":"goodbye","reason":"stopped"}"#),
    ("outcomes", r#"{"type":"outcomes","results":[{"lease":"lease_00000000000000000000000000000001","outcome":"accepted"}]}"#),
    ("about", r#"{"type":"about","requester":"Amber Heron","category":"vision"}"#),
    ("given", r#"{"text_version":"1","site":"pk","view":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","share":0.1,"cpu":false,"gpu":true,"refuses":["finance"],"time_ms":1800000000000,"keeps":"visit","earnings":"site","nonce":"00","session_key":"00","counter":2}"#),
    ("receipt", r#"{"text_version":"1","site":"pk","share":0.1,"time_ms":1800000000000,"nonce":"00","session_key":"00"}"#),
];

fn write(folder: &Path, target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = folder.join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

fn graphs() -> Vec<(String, ValidGraph)> {
    let data = DataSpec {
        features: TensorType::new(DType::U8, [4, 4]),
        scale: 0.0625,
        target: Target::Classes { count: 2 },
    };
    let mut graphs = Vec::new();
    for (name, text) in MODELS {
        let model = serde_json::from_str(text).expect("a model");
        let lowered = lower(&model, &data, 2, &Limits::default()).expect("lowers");
        graphs.push((format!("{name}-train"), lowered.train));
        graphs.push((format!("{name}-init"), lowered.init));
    }
    graphs
}

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).expect("usage: seeds FOLDER");
    let folder = Path::new(&folder);
    for (name, graph) in graphs() {
        write(folder, "graph_json", &name, &graph.to_json())?;
        write(folder, "kernel", &name, &graph.to_json())?;
        write(folder, "graph_canonical", &name, &graph.to_canonical())?;
    }
    for (name, text) in MESSAGES {
        write(folder, "message", name, text.as_bytes())?;
    }
    let weights = [0u8; 24];
    let part = |name: &str, dtype, dims: &[u32], data| TensorPart {
        name: name.into(),
        ty: TensorType::new(dtype, dims),
        data,
    };
    let frame = encode(
        &FromContributor::Resume,
        &[
            part("w", DType::F32, &[2, 3], &weights[..]),
            part("flags", DType::Bool, &[3], &weights[..3]),
            part("empty", DType::I32, &[0, 4], &weights[..0]),
        ],
    );
    write(folder, "frame", "tensors", &frame)?;
    write(folder, "frame", "plain", &encode(&FromContributor::Resume, &[]))
}
