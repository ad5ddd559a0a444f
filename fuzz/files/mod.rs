//! An evidence file and a bundle, whole ones, and what must hold of whatever becomes of them:
//! for the fuzz targets, and for the property tests of the coordinator where there is no fuzzer.

use axum::body::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use raven_coordinator::blobs::blob_frame;
use raven_coordinator::certificate::bundle::{
    CERTIFICATE, KERNEL, graph_file, rounds_file, shard_file, state_file,
};
use raven_coordinator::certificate::chain::{RoundLine, Tasks, link, origin};
use raven_coordinator::certificate::document::{
    self, Body, Chosen, Dataset, GraphIds, Measured, Model, Published, Rounds, VERSION,
};
use raven_coordinator::certificate::verify::{Check, Draw, VerifyError, verify};
use raven_coordinator::certificate::{CertificateKey, issue, tar};
use raven_coordinator::referee::{Claim, Evidence, Finding, Judgement, Materials};
use raven_coordinator::time::UnixMs;
use raven_engine::{ContributorId, JobPhase};
use raven_graph::{DType, GraphBuilder, Limits, TensorType};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, BlobId, Encoding, FromContributor, JobId, KernelId, LeaseId, Numerics, OutputSpec,
    Program, ReduceRule, ResultDigest, Seed, ShardRef, TaskId, TaskMessage, TaskSpec, TensorPart,
    TensorView, ToContributor, result_digest,
};
use std::error;
use std::path::Path;

pub type Failed = Box<dyn error::Error>;

/// Signs what the seeds hold, and what becomes of them.
const SECRET: [u8; 32] = [9; 32];

fn part<'a>(name: &str, dtype: DType, dims: &[u32], data: &'a [u8]) -> TensorPart<'a> {
    TensorPart { name: name.into(), ty: TensorType::new(dtype, dims), data }
}

fn attached(name: &str) -> Binding {
    Binding::Attached { input: name.into(), tensor: name.into() }
}

/// Evidence about `y = x w`, without its key and signature: the target adds its own.
pub fn evidence(with_payload: bool) -> Result<Vec<u8>, Failed> {
    let mut builder = GraphBuilder::new(&Limits::default());
    let x = builder.input("x", DType::F32, [2, 2])?;
    let w = builder.input("w", DType::F32, [2, 2])?;
    let y = builder.matmul(x, w, false, false)?;
    builder.output("y", y);
    let graph = builder.finish()?;
    let numbers: Vec<u8> = (0..4).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let (blob, weights) = blob_frame(&[part("w", DType::F32, &[2, 2], &numbers)]);
    let task = TaskId { job: JobId(1), round: 2, stage: 0, part: 0 };
    let output = OutputSpec { name: "y".into(), encoding: Encoding::Raw, reduce: ReduceRule::Sum };
    let spec = TaskSpec {
        program: Program::Map { graph: graph.id(), start: 0, count: 1 },
        seed: Seed(1),
        bindings: vec![
            attached("x"),
            Binding::Blob { input: "w".into(), blob, tensor: "w".into() },
        ],
        shards: Vec::new(),
        outputs: vec![output],
        numerics: Numerics::Strict,
    };
    let lease = LeaseId(5);
    let message = TaskMessage { lease, task, lease_ms: 1000, flops: 16, spec };
    let frame = encode(
        &ToContributor::Task(Box::new(message)),
        &[part("x", DType::F32, &[2, 2], &numbers)],
    );
    let materials = Materials::gather(frame.into(), &graph, |_| Ok(Bytes::from(weights.clone())))?;
    let ty = TensorType::new(DType::F32, [2, 2]);
    let view = TensorView { name: "y", dtype: DType::F32, shape: &ty.shape, data: &numbers };
    let payload =
        encode(&FromContributor::Result { lease }, &[part("y", DType::F32, &[2, 2], &numbers)]);
    let claim = Claim {
        contributor: ContributorId([3; 32]),
        digest: result_digest(task, [(Encoding::Raw, view)]),
        payload: with_payload.then(|| payload.clone().into()),
    };
    let judgement = Judgement {
        digest: ResultDigest([1; 32]),
        result: payload.into(),
        finding: Finding::DigestOnly,
    };
    let key = SigningKey::from_bytes(&SECRET);
    let (kernel, at) = (KernelId([2; 32]), UnixMs(1_700_000_000_000));
    let mut file = Evidence::build(&materials, &claim, &judgement, kernel, at, &key)?;
    Evidence::read(&Bytes::from(file.clone()))?;
    file.truncate(file.len() - 96);
    Ok(file)
}

const SPEC: &str = r#"{"name": "t", "dataset": "ds_0000000000000001", "seed": 7, "numerics": "strict",
    "model": {"layers": [{"type": "dense", "units": 2}], "loss": "cross_entropy"},
    "optimizer": {"kind": "sgd", "momentum": 0.9},
    "training": {"epochs": 1, "batch": 4, "micro_batch": 2,
                 "schedule": {"kind": "constant", "learning_rate": 0.1}}}"#;
const FACTS: &str = r#"{"name": "t", "format": "npy", "train_rows": 8, "test_rows": 2,
    "features": {"dtype": "u8", "shape": [3]}, "target": {"kind": "classes", "classes": 2},
    "scale": 1.0, "license": "none", "source": "made up", "bytes": 70}"#;

/// A shard of so many rows.
fn shard(rows: u32) -> (ShardRef, Vec<u8>) {
    let x = vec![1; 3 * rows as usize];
    let y = vec![0; 4 * rows as usize];
    let parts = [part("x", DType::U8, &[rows, 3], &x), part("y", DType::I32, &[rows], &y)];
    let (blob, frame) = blob_frame(&parts);
    (ShardRef { blob, first_row: 0, rows, bytes: frame.len() as u64 }, frame)
}

/// A bundle of a job of two rounds, whose states hold what comes to hand.
pub fn bundle() -> Result<Vec<u8>, Failed> {
    let (job, kernel, seed) = (JobId(1), KernelId([2; 32]), Seed(7));
    let ((train, train_frame), (test, test_frame)) = (shard(8), shard(2));
    let dataset = Dataset {
        id: "ds_0000000000000001".into(),
        facts: serde_json::from_str(FACTS)?,
        train: vec![train],
        test: vec![test],
    };
    let spec = serde_json::from_str(SPEC)?;
    let context = issue::lower(job, kernel, seed, &spec, &dataset)?;
    let state = |tag: u8| {
        let zeros = vec![tag; 24];
        blob_frame(&[
            part("0.weight", DType::F32, &[3, 2], &zeros),
            part("0.bias", DType::F32, &[2], &zeros[..8]),
        ])
    };
    let states = [state(0), state(1), state(2)];
    let ids: Vec<BlobId> = states.iter().map(|(id, _)| *id).collect();
    let (mut text, mut previous) = (String::new(), origin(job, ids[0]));
    for round in 1..=2u32 {
        let tasks = Tasks::of([(0, 0, ResultDigest([round as u8; 32]))]);
        let (before, after) = (ids[round as usize - 1], ids[round as usize]);
        previous = link(previous, round, before, after, tasks.as_ref());
        let line = RoundLine { round, state: after, tasks, runs: vec![0], link: previous };
        text += &(serde_json::to_string(&line)? + "\n");
    }
    let published = |round: u32| Published {
        round,
        state: ids[round as usize],
        bytes: states[round as usize].1.len() as u64,
    };
    let body = Body {
        version: VERSION,
        job,
        ended_at: "2026-01-02T03:04:05Z".into(),
        state: JobPhase::Completed,
        kernel,
        graphs: GraphIds::of(&context),
        dataset,
        seed,
        numerics: Numerics::Strict,
        spec,
        rounds: Rounds { count: 2, first: ids[0], last: ids[2], link: previous },
        setbacks: Vec::new(),
        model: Model {
            sha256: "0".repeat(64),
            state: ids[2],
            round: 2,
            chosen: Chosen::Best,
            evaluation: Some(Measured { loss_sum: 1.5, correct: Some(1.0), count: 2.0 }),
        },
        snapshots: vec![published(0), published(1), published(2)],
    };
    let certificate = document::sign(&body, &CertificateKey::from_secret(SECRET))?;
    document::read(&certificate)?;
    let mut files = vec![(CERTIFICATE.to_owned(), certificate.into_bytes())];
    let graphs = [
        ("init", &context.init),
        ("train", &context.train.graph),
        ("evaluate", &context.evaluate.graph),
        ("optimizer", &context.step.graph),
    ];
    files.extend(graphs.map(|(name, graph)| (graph_file(name), graph.to_json())));
    files.push((rounds_file(0), text.into_bytes()));
    files.extend(states.into_iter().map(|(id, frame)| (state_file(id), frame)));
    files.extend([(shard_file(train.blob), train_frame), (shard_file(test.blob), test_frame)]);
    files.push((KERNEL.to_owned(), b"\0asm".to_vec()));
    Ok(archive(files.iter().map(|(name, content)| (name.as_str(), content.as_slice()))))
}

fn archive<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        bytes.extend_from_slice(&tar::header(name, content.len() as u64));
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len() + tar::padding(content.len() as u64), 0);
    }
    bytes.extend_from_slice(&tar::END);
    bytes
}

/// Reads bytes as evidence, as they are and with a signature behind them: answers whether the
/// latter is evidence. What is taken fits together.
pub fn check_evidence(content: &[u8]) -> bool {
    let check = |file: Vec<u8>| {
        let Ok(evidence) = Evidence::read(&Bytes::from(file)) else { return false };
        let (report, message) = (&evidence.report, evidence.materials.message());
        assert_eq!((report.task, report.lease), (message.task, message.lease));
        assert_eq!(report.payload, evidence.claim.payload.is_some());
        assert_eq!(evidence.materials.graph().id(), message.spec.program.graph());
        true
    };
    check(content.to_vec());
    let key = SigningKey::from_bytes(&SECRET);
    let mut file = [content, key.verifying_key().as_bytes()].concat();
    let signed = [&b"raven evidence 1\n"[..], blake3::hash(&file).as_bytes()].concat();
    file.extend(key.sign(&signed).to_bytes());
    check(file)
}

/// Checks bytes as a bundle, as they are and with the archive's checksums and the certificate's
/// signature put right: answers whether the latter is one up to its model, which is not there.
/// `folder` is for files of this caller alone.
pub fn check_bundle(folder: &Path, bytes: &[u8]) -> bool {
    let (bundle, model) = (folder.join("bundle.tar"), folder.join("model"));
    let check = |bytes: &[u8]| {
        std::fs::write(&model, b"no model").expect("written");
        std::fs::write(&bundle, bytes).expect("written");
        let check = Check {
            bundle: &bundle,
            model: &model,
            kernel: None,
            signer: None,
            draw: Draw::All,
            evaluate: true,
            seed: 1,
            scratch: folder,
            cache: None,
        };
        let found = verify(&check, &mut |_| {});
        matches!(
            found.expect_err("there is no model that it could be of"),
            VerifyError::Model { .. }
        )
    };
    check(bytes);
    let files: Vec<(&str, Vec<u8>)> = files(bytes)
        .into_iter()
        .map(|(name, content)| match name {
            CERTIFICATE => (name, signed(content)),
            _ => (name, content.to_vec()),
        })
        .collect();
    check(&archive(files.iter().map(|(name, content)| (*name, content.as_slice()))))
}

/// Name and content of each file, as far as the headers make sense.
fn files(bytes: &[u8]) -> Vec<(&str, &[u8])> {
    let (mut at, mut files) = (0, Vec::new());
    while let Some(header) = bytes.get(at..at + tar::BLOCK) {
        let name = header[..100].split(|&byte| byte == 0).next().unwrap_or_default();
        let length = std::str::from_utf8(&header[124..135]).ok();
        let length = length.and_then(|text| usize::from_str_radix(text, 8).ok());
        let (Ok(name), Some(length)) = (std::str::from_utf8(name), length) else { break };
        let begin = at + tar::BLOCK;
        let Some(content) = bytes.get(begin..begin.saturating_add(length)) else { break };
        files.push((name, content));
        at = begin + length + tar::padding(length as u64);
    }
    files
}

/// A certificate with its signature put right, as far as it has a form.
fn signed(text: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(text) else { return text.to_vec() };
    let body = text.strip_prefix("{\"body\":").unwrap_or(text);
    let body = body.rsplit_once(",\"public_key\":").map_or(body, |(body, _)| body);
    let key = CertificateKey::from_secret(SECRET);
    let signature: String = key.sign(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let key = key.signatory();
    format!("{{\"body\":{body},\"public_key\":\"{key}\",\"signature\":\"{signature}\"}}")
        .into_bytes()
}
