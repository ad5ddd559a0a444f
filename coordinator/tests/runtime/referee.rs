//! The referee on the kernel module: what it says of lies, and evidence that
//! replays to the same finding and shows every change.

use crate::support::{cache_dir, kernel_file};
use axum::body::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use raven_coordinator::blobs::blob_frame;
use raven_coordinator::referee::replay::{Replay, Verdict, confirm, replay};
use raven_coordinator::referee::{
    Bits, Claim, Difference, Element, Evidence, EvidenceError, Finding, Manner, Materials, Referee,
    RefereeError, Report,
};
use raven_coordinator::runtime::executor::{KernelModule, Tensor, tensors_of};
use raven_coordinator::time::UnixMs;
use raven_engine::ContributorId;
use raven_graph::philox::philox4x32;
use raven_graph::{DType, GraphBuilder, Limits, TensorType, ValidGraph};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, BlobId, Carry, Encoding, FromContributor, JobId, KernelId, LeaseId, Numerics,
    OutputSpec, Program, ReduceRule, Seed, ShardRef, TaskId, TaskMessage, TaskSpec, TensorPart,
    ToContributor, result_digest,
};
use std::process::Command;

const LEASE: LeaseId = LeaseId(0xabc);
const TASK: TaskId = TaskId { job: JobId(5), round: 3, stage: 0, part: 0 };

fn referee() -> Referee {
    let module = KernelModule::load(&kernel_file(), Some(&cache_dir())).expect("the kernel");
    Referee::new(module, 256 << 20)
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn tensor(dims: &[u32], elements: &[f32]) -> Tensor {
    let data: Vec<u8> = elements.iter().flat_map(|x| x.to_le_bytes()).collect();
    Tensor { ty: TensorType::new(DType::F32, dims), data: data.into() }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn output(name: &str) -> OutputSpec {
    OutputSpec { name: name.into(), encoding: Encoding::Raw, reduce: ReduceRule::Sum }
}

fn task_frame(spec: TaskSpec, attachments: &[(&str, &Tensor)]) -> Bytes {
    let message = TaskMessage { lease: LEASE, task: TASK, lease_ms: 1000, flops: 1, spec };
    let parts: Vec<TensorPart<'_>> =
        attachments.iter().map(|(name, tensor)| tensor.part(*name)).collect();
    encode(&ToContributor::Task(Box::new(message)), &parts).into()
}

/// `h = relu(x w)`, `y = h w`, outputs named so that their order is not that of their nodes.
fn product_graph() -> ValidGraph {
    let mut builder = GraphBuilder::new(&Limits::default());
    let x = builder.input("x", DType::F32, [4, 4]).expect("x");
    let w = builder.input("w", DType::F32, [4, 4]).expect("w");
    let h = builder.matmul(x, w, false, false).expect("a product");
    let h = builder.unary(raven_graph::UnaryFn::Relu, h).expect("relu");
    let y = builder.matmul(h, w, false, false).expect("a product");
    builder.output("y", y);
    builder.output("h", h);
    builder.finish().expect("a graph")
}

/// The product of an attached matrix and one in a blob.
fn product() -> Materials {
    let value = |stream: u32, i: u32| (philox4x32([i, stream, 0, 0], [1, 2])[0] >> 8) as f32 / 1e7;
    let matrix =
        |stream| tensor(&[4, 4], &std::array::from_fn::<_, 16, _>(|i| value(stream, i as u32)));
    let (x, w) = (matrix(0), matrix(1));
    let (blob, frame) = blob_frame(&[w.part("weights")]);
    let graph = product_graph();
    let spec = TaskSpec {
        program: Program::Map { graph: graph.id(), start: 0, count: 1 },
        seed: Seed(1),
        bindings: vec![
            Binding::Attached { input: "x".into(), tensor: "x".into() },
            Binding::Blob { input: "w".into(), blob, tensor: "weights".into() },
        ],
        shards: Vec::new(),
        outputs: vec![output("y"), output("h")],
        numerics: Numerics::Strict,
    };
    let fetch = |id: BlobId| {
        assert_eq!(id, blob);
        Ok(Bytes::from(frame.clone()))
    };
    Materials::gather(task_frame(spec, &[("x", &x)]), &graph, fetch).expect("one task's")
}

/// `s' = s * 3 + d`, with another `d` for each of the steps.
fn scan(steps: u32) -> Materials {
    let mut builder = GraphBuilder::new(&Limits::default());
    let s = builder.input("s", DType::F32, [2]).expect("s");
    let d = builder.input("d", DType::F32, [2]).expect("d");
    let three = builder.scalar(3.0).expect("a number");
    let next = builder.mul(s, three).expect("a product");
    let next = builder.add(next, d).expect("a sum");
    builder.output("s", next);
    let graph = builder.finish().expect("a graph");
    let first = tensor(&[2], &[1.0, -1.0]);
    let each: Vec<f32> = (0..2 * steps).map(|i| i as f32 + 0.5).collect();
    let each = tensor(&[steps, 2], &each);
    let spec = TaskSpec {
        program: Program::Scan {
            graph: graph.id(),
            steps,
            carry: vec![Carry { input: "s".into(), output: "s".into() }],
        },
        seed: Seed(1),
        bindings: vec![
            Binding::Attached { input: "s".into(), tensor: "first".into() },
            Binding::PerRun { input: "d".into(), tensor: "each".into() },
        ],
        shards: Vec::new(),
        outputs: vec![output("s")],
        numerics: Numerics::Strict,
    };
    let frame = task_frame(spec, &[("first", &first), ("each", &each)]);
    Materials::gather(frame, &graph, |_| panic!("no blob is named")).expect("one task's")
}

/// `s' = s + the sum of two rows of a shard`, other rows for each of the steps.
fn scan_over_rows(steps: u32) -> (Materials, Vec<f32>) {
    let mut builder = GraphBuilder::new(&Limits::default());
    let s = builder.input("s", DType::F32, []).expect("s");
    let x = builder.input("x", DType::F32, [2, 3]).expect("x");
    let sum = builder.sum_all(x).expect("a sum");
    let next = builder.add(s, sum).expect("a sum");
    builder.output("s", next);
    let graph = builder.finish().expect("a graph");
    let column: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let (blob, frame) = blob_frame(&[tensor(&[8, 3], &column).part("x")]);
    let picked: Vec<i32> = (0..2 * steps).map(|i| (i as i32 * 3) % 8).collect();
    let rows = Tensor::rows(steps, 2, &picked);
    let spec = TaskSpec {
        program: Program::Scan {
            graph: graph.id(),
            steps,
            carry: vec![Carry { input: "s".into(), output: "s".into() }],
        },
        seed: Seed(1),
        bindings: vec![
            Binding::Attached { input: "s".into(), tensor: "first".into() },
            Binding::Rows { input: "x".into(), column: "x".into(), rows: "rows".into() },
        ],
        shards: vec![ShardRef { blob, first_row: 0, rows: 8, bytes: frame.len() as u64 }],
        outputs: vec![output("s")],
        numerics: Numerics::Strict,
    };
    let task = task_frame(spec, &[("first", &Tensor::scalar(1.0)), ("rows", &rows)]);
    let materials = Materials::gather(task, &graph, |_| Ok(Bytes::from(frame.clone())));
    let row = |row: &i32| (0..3).map(|at| column[*row as usize * 3 + at]).sum::<f32>();
    let states = picked.chunks(2).scan(1.0f32, |state, pair| {
        *state += pair.iter().map(row).sum::<f32>();
        Some(*state)
    });
    (materials.expect("one task's"), states.collect())
}

/// What the task gives.
fn honest(materials: &Materials) -> Vec<(String, Tensor)> {
    let (_, result) = referee().run(materials).expect("runs");
    tensors_of(&result).expect("a frame")
}

fn claim(values: &[(String, Tensor)]) -> Claim {
    let views = values.iter().map(|(name, tensor)| (Encoding::Raw, tensor.view(name)));
    let parts: Vec<TensorPart<'_>> =
        values.iter().map(|(name, tensor)| tensor.part(name.clone())).collect();
    Claim {
        contributor: ContributorId([9; 32]),
        digest: result_digest(TASK, views),
        payload: Some(encode(&FromContributor::Result { lease: LEASE }, &parts).into()),
    }
}

/// The result with the named outputs' elements changed.
fn lie(materials: &Materials, names: &[&str], change: impl Fn(usize, f32) -> f32) -> Claim {
    let mut values = honest(materials);
    for (_, value) in values.iter_mut().filter(|(name, _)| names.contains(&name.as_str())) {
        let changed: Vec<f32> =
            numbers(value).into_iter().enumerate().map(|(at, x)| change(at, x)).collect();
        *value = tensor(value.ty.shape.dims(), &changed);
    }
    claim(&values)
}

fn difference(materials: &Materials, claim: &Claim) -> Difference {
    match referee().judge(materials, claim).expect("judged").finding {
        Finding::Differs(difference) => *difference,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_honest_claim_agrees_whether_or_not_it_was_shown() {
    let materials = product();
    let shown = claim(&honest(&materials));
    let hidden = Claim { payload: None, ..shown.clone() };
    for claim in [shown, hidden] {
        let judgement = referee().judge(&materials, &claim).expect("judged");
        assert_eq!((judgement.digest, judgement.finding), (claim.digest, Finding::Agrees));
    }
}

#[test]
fn the_first_wrong_op_and_element_are_named() {
    let materials = product();
    let right = honest(&materials);
    let found = difference(
        &materials,
        &lie(&materials, &["y", "h"], |at, x| if at >= 6 { x + 1.0 } else { x }),
    );
    // The ReLU comes before the second product, though its output is listed after.
    assert_eq!((found.output.as_str(), found.node, found.op.as_str()), ("h", 3, "unary"));
    let h = numbers(&right[1].1);
    assert_eq!((found.element, found.elements_wrong, found.elements), (6, 10, 16));
    assert_eq!(found.found, Element::F32(Bits::of(h[6])));
    assert_eq!(found.claimed, Element::F32(Bits::of(h[6] + 1.0)));
    assert_eq!((found.outputs_wrong, found.manner), (2, Manner::Other));
    let found = difference(&materials, &lie(&materials, &["y"], |_, x| -x));
    assert_eq!((found.node, found.op.as_str(), found.outputs_wrong), (4, "matmul", 1));
    assert_eq!(found.manner, Manner::SignFlipped);
}

#[test]
fn lies_are_told_apart() {
    let materials = product();
    let manner = |change: fn(usize, f32) -> f32| {
        difference(&materials, &lie(&materials, &["y"], change)).manner
    };
    assert_eq!(manner(|_, _| 0.0), Manner::Zeros);
    assert_eq!(manner(|_, x| x * 64.0), Manner::Scaled { factor: Bits::of(64.0) });
    assert_eq!(manner(|at, x| x + at as f32), Manner::Other);
    let mut values = honest(&materials);
    let copied = tensors_of(materials.blob_frames().next().expect("a blob")).expect("a frame");
    values[0].1 = copied[0].1.clone();
    let input = "w".to_owned();
    assert_eq!(difference(&materials, &claim(&values)).manner, Manner::CopiedInput { input });
    let hidden = Claim { payload: None, ..lie(&materials, &["y"], |_, x| -x) };
    let judgement = referee().judge(&materials, &hidden).expect("judged");
    assert_eq!(judgement.finding, Finding::DigestOnly);
}

#[test]
fn a_stale_state_is_named_by_its_step() {
    let steps = 6;
    let materials = scan(steps);
    let mut state = vec![1.0f32, -1.0];
    for step in 0..steps {
        let stale = claim(&[("s".to_owned(), tensor(&[2], &state))]);
        let found = difference(&materials, &stale);
        assert_eq!(found.manner, Manner::StaleStep { step });
        assert_eq!((found.op.as_str(), found.output.as_str()), ("binary", "s"));
        for (at, x) in state.iter_mut().enumerate() {
            *x = *x * 3.0 + (2 * step) as f32 + at as f32 + 0.5;
        }
    }
    assert_eq!(numbers(&honest(&materials)[0].1), state, "this is what the scan computes");
}

#[test]
fn tasks_that_read_shards_are_replayed_from_the_file_alone() {
    let steps = 9;
    let (materials, states) = scan_over_rows(steps);
    assert_eq!(numbers(&honest(&materials)[0].1), [states[8]]);
    for step in [1, 4, 8] {
        let stale = claim(&[("s".to_owned(), Tensor::scalar(states[step - 1]))]);
        let evidence = read(&evidence_of(&materials, &stale)).expect("read");
        let verdict = confirm(&referee(), &evidence).expect("judged");
        assert!(matches!(verdict, Verdict::Confirmed), "{verdict}");
        let Finding::Differs(found) = evidence.report.finding else { panic!("it differs") };
        assert_eq!(found.manner, Manner::StaleStep { step: step as u32 });
    }
}

#[test]
fn what_cannot_be_judged_says_nothing_of_the_contributor() {
    let materials = product();
    let mut broken = claim(&honest(&materials));
    broken.digest.0[0] ^= 1;
    let refused = referee().judge(&materials, &broken);
    assert!(matches!(refused, Err(RefereeError::Commitment { .. })), "{refused:?}");
    let few = claim(&honest(&materials)[..1]);
    let refused = referee().judge(&materials, &few);
    assert!(matches!(refused, Err(RefereeError::Payload { .. })), "{refused:?}");
    let mut other = honest(&materials);
    other[0].0 = "z".into();
    let refused = referee().judge(&materials, &claim(&other));
    assert!(matches!(refused, Err(RefereeError::Payload { .. })), "{refused:?}");
    let mut message = materials.message().clone();
    message.spec.numerics = Numerics::Relaxed;
    let spec = message.spec;
    let x = tensors_of(materials.task()).expect("a frame");
    let relaxed = Materials::of_frames(
        task_frame(spec, &[("x", &x[0].1)]),
        materials.graph_frame().clone(),
        materials.blob_frames().cloned().collect(),
    );
    let refused = referee().judge(&relaxed.expect("one task's"), &few);
    assert!(matches!(refused, Err(RefereeError::Relaxed)), "{refused:?}");
}

fn evidence_of(materials: &Materials, claim: &Claim) -> Vec<u8> {
    let referee = referee();
    let judgement = referee.judge(materials, claim).expect("judged");
    let at = UnixMs(1_795_000_000_125);
    Evidence::build(materials, claim, &judgement, referee.kernel(), at, &key()).expect("built")
}

fn read(file: &[u8]) -> Result<Evidence, EvidenceError> {
    Evidence::read(&Bytes::copy_from_slice(file))
}

/// The file with its signature made anew by the key.
fn signed_again(file: &[u8], key: &SigningKey) -> Vec<u8> {
    let mut before = file[..file.len() - 96].to_vec();
    before.extend_from_slice(key.verifying_key().as_bytes());
    let message = [b"raven evidence 1\n", &blake3::hash(&before).as_bytes()[..]].concat();
    let signature = key.sign(&message);
    before.extend_from_slice(&signature.to_bytes());
    before
}

#[test]
fn evidence_reads_back_and_is_confirmed() {
    let materials = product();
    let lies = [
        claim(&honest(&materials)),
        lie(&materials, &["y"], |_, x| x * 2.0),
        Claim { payload: None, ..lie(&materials, &["h"], |_, _| 0.0) },
    ];
    for claim in lies {
        let evidence = read(&evidence_of(&materials, &claim)).expect("read");
        let Report { task, lease, kernel, contributor, claimed, payload, .. } = evidence.report;
        assert_eq!((task, lease, kernel), (TASK, LEASE, referee().kernel()));
        assert_eq!((contributor, claimed), (claim.contributor, claim.digest));
        assert_eq!((payload, &evidence.claim.payload), (claim.payload.is_some(), &claim.payload));
        assert_eq!(evidence.key, key().verifying_key().to_bytes());
        let verdict = confirm(&referee(), &evidence).expect("judged");
        assert!(matches!(verdict, Verdict::Confirmed), "{verdict}");
    }
}

#[test]
fn a_wrong_finding_is_refuted_whoever_signed_it() {
    let materials = product();
    let honest = claim(&honest(&materials));
    let referee = referee();
    let mut judgement = referee.judge(&materials, &honest).expect("judged");
    judgement.finding = Finding::DigestOnly;
    let file =
        Evidence::build(&materials, &honest, &judgement, referee.kernel(), UnixMs(0), &key());
    let verdict = confirm(&referee, &read(&file.expect("built")).expect("read")).expect("judged");
    assert!(matches!(verdict, Verdict::Refuted { finding: Finding::Agrees, .. }), "{verdict}");
}

#[test]
fn every_changed_or_missing_byte_is_found() {
    let materials = product();
    let file = evidence_of(&materials, &lie(&materials, &["y"], |_, x| -x));
    read(&file).expect("as it was written");
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(read(&changed).is_err(), "byte {at} was changed");
        assert!(read(&file[..at]).is_err(), "cut at {at}");
    }
    assert!(read(&[&file[..], &[0]].concat()).is_err());
    let other = signed_again(&file, &SigningKey::from_bytes(&[8; 32]));
    let other = read(&other).expect("another's, and consistent");
    let pinned = other.check_key(&key().verifying_key().to_bytes());
    assert!(matches!(pinned, Err(EvidenceError::OtherKey { .. })), "{pinned:?}");
}

/// A signature holds nobody off who makes a key of their own: what is behind it must be read as
/// carefully as what any stranger sends.
#[test]
fn changed_bytes_under_a_new_signature_never_panic() {
    let materials = product();
    let file = evidence_of(&materials, &lie(&materials, &["y"], |_, x| -x));
    let referee = referee();
    let (mut taken, mut refuted) = (0, 0);
    for at in 0..file.len() - 96 {
        for bit in [0, 7] {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            let Ok(evidence) = read(&signed_again(&changed, &key())) else { continue };
            taken += 1;
            // Numbers that nothing else in the file repeats: of the finding, of the operands.
            if taken % 10 == 0 {
                let verdict = confirm(&referee, &evidence);
                refuted += u32::from(matches!(verdict, Ok(Verdict::Refuted { .. })));
            }
        }
    }
    println!("{taken} of {} changed files are consistent", 2 * (file.len() - 96));
    assert!(refuted > 0, "a changed operand or finding is refuted");
    // Lengths that reach beyond the file, and counts of frames.
    for (at, bytes) in [(12, [0xff; 4]), (12, [2, 0, 0, 0]), (12, [9, 0, 0, 0]), (16, [0xff; 4])] {
        let mut changed = file.clone();
        changed[at..at + 4].copy_from_slice(&bytes);
        assert!(read(&signed_again(&changed, &key())).is_err(), "{at} {bytes:?}");
    }
}

#[test]
fn the_command_says_which_and_by_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("case.evidence");
    let materials = product();
    let file = evidence_of(&materials, &lie(&materials, &["y"], |_, x| x * 0.5));
    std::fs::write(&path, &file).expect("written");
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command.arg("replay").arg(&path).arg("--kernel").arg(kernel_file()).args(more);
        let out = command.output().expect("runs");
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let public: String =
        key().verifying_key().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let (code, text) = run(&["--key", &public]);
    assert_eq!(code, Some(0), "{text}");
    for word in ["confirmed", "node 4 (matmul)", "scaled by 0.5", "as expected", &public] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    let (code, text) = run(&["--key", &"00".repeat(32)]);
    assert_eq!((code, text.starts_with("tampered")), (Some(2), true), "{text}");
    let mut changed = file.clone();
    changed[file.len() / 2] ^= 4;
    std::fs::write(&path, changed).expect("written");
    let (code, text) = run(&[]);
    assert_eq!((code, text.starts_with("tampered")), (Some(2), true), "{text}");
}

#[test]
fn another_kernel_or_no_file_decides_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, other) = (folder.path().join("case.evidence"), folder.path().join("k.wasm"));
    let materials = product();
    let asked = Replay { evidence: path.clone(), kernel: other.clone(), key: None };
    assert!(replay(&asked, |_| {}).is_err(), "there is no file");
    let file = evidence_of(&materials, &claim(&honest(&materials)));
    std::fs::write(&path, file).expect("written");
    std::fs::write(&other, b"\0asm").expect("written");
    let error = replay(&asked, |_| {}).expect_err("another module").to_string();
    let found = KernelId(*blake3::hash(b"\0asm").as_bytes());
    assert!(error.contains(&found.to_string()), "{error}");
}
