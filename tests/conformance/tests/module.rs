//! The suite on the shipped module, under wasmtime as the coordinator runs it:
//! within tolerance of NumPy, and with exactly the digests that Node got, on
//! the suite's operands and on random ones.

use raven_conformance::reseed::reseeded;
use raven_conformance::{suite::Suite, verdict};
use raven_protocol::{Frame, FrameLimits, FromContributor};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use wasmtime::{Config, Engine, Instance, Linker, Memory, Module, Store, TypedFunc};

const NO_REPLY: u64 = 0;
const FAILED: u64 = u64::MAX;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The module through its host's door.
struct Host {
    store: Store<()>,
    instance: Instance,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    free: TypedFunc<(u32, u32), ()>,
}

impl Host {
    fn new() -> Self {
        let mut config = Config::new();
        config.wasm_relaxed_simd(false);
        let engine = Engine::new(&config).expect("the host's CPU can run SIMD");
        let file = root().join("dist/kernel/raven_kernel.wasm");
        let module = Module::from_file(&engine, file).expect("scripts/lib/build-wasm.sh was run");
        let mut linker = Linker::new(&engine);
        // Whoever reaches JavaScript from the host's door ends the instance.
        linker.define_unknown_imports_as_traps(&module).expect("imports are functions");
        let mut store = Store::new(&engine, ());
        let instance = linker.instantiate(&mut store, &module).expect("nothing runs at start");
        let memory = instance.get_memory(&mut store, "memory").expect("memory is exported");
        let alloc = instance.get_typed_func(&mut store, "raven_alloc").expect("raven_alloc");
        let free = instance.get_typed_func(&mut store, "raven_free").expect("raven_free");
        Host { store, instance, memory, alloc, free }
    }

    fn kernel(&mut self, budget: u64) -> u32 {
        let new: TypedFunc<u64, u32> =
            self.instance.get_typed_func(&mut self.store, "raven_kernel_new").expect("export");
        new.call(&mut self.store, budget).expect("no trap")
    }

    fn end(&mut self, kernel: u32) {
        let free: TypedFunc<u32, ()> =
            self.instance.get_typed_func(&mut self.store, "raven_kernel_free").expect("export");
        free.call(&mut self.store, kernel).expect("no trap");
    }

    /// The reply's bytes, if there is one.
    fn reply(&mut self, packed: u64) -> Option<Vec<u8>> {
        if packed == NO_REPLY {
            return None;
        }
        assert_ne!(packed, FAILED, "see raven_error");
        let (ptr, len) = (packed as u32, (packed >> 32) as u32);
        let bytes = self.memory.data(&self.store)[ptr as usize..(ptr + len) as usize].to_vec();
        self.free.call(&mut self.store, (ptr, len)).expect("no trap");
        Some(bytes)
    }

    fn call(&mut self, name: &str, kernel: u32, frame: &[u8]) -> u64 {
        let call: TypedFunc<(u32, u32, u32), u64> =
            self.instance.get_typed_func(&mut self.store, name).expect("export");
        let len = frame.len() as u32;
        let ptr = self.alloc.call(&mut self.store, len).expect("no trap");
        self.memory.write(&mut self.store, ptr as usize, frame).expect("the buffer is in memory");
        let packed = call.call(&mut self.store, (kernel, ptr, len)).expect("no trap");
        self.free.call(&mut self.store, (ptr, len)).expect("no trap");
        packed
    }

    fn error(&mut self, kernel: u32) -> String {
        let error: TypedFunc<u32, u64> =
            self.instance.get_typed_func(&mut self.store, "raven_error").expect("export");
        let packed = error.call(&mut self.store, kernel).expect("no trap");
        String::from_utf8(self.reply(packed).unwrap_or_default()).expect("errors are text")
    }
}

/// How often every case runs on other operands.
fn seeds() -> u32 {
    let text = std::env::var("RAVEN_BIT_SEEDS").unwrap_or_else(|_| "3".into());
    text.parse().expect("RAVEN_BIT_SEEDS is a number")
}

/// The report of `run.mjs` in Node on the same files.
fn node_report(seeds: u32) -> Value {
    let file = root().join(format!("target/conformance/node-{seeds}.json"));
    let status = Command::new("node")
        .current_dir(root())
        .args(["tests/conformance/run.mjs", "dist/kernel", "target/conformance"])
        .args(["--seeds", &seeds.to_string(), "--json"])
        .arg(&file)
        .status()
        .expect("node runs");
    assert!(status.success(), "the suite fails in Node");
    serde_json::from_slice(&std::fs::read(file).expect("the report")).expect("JSON")
}

#[test]
#[ignore = "needs the module and the suite: run scripts/lib/conformance.sh"]
fn wasmtime_and_node_agree_bit_for_bit() {
    let suite = Suite::read(&root().join("target/conformance")).expect("the suite");
    let report = node_report(0);
    let node = report["cases"].as_array().expect("cases");
    assert_eq!(node.len(), suite.cases.len());
    let mut host = Host::new();
    let mut wrong = Vec::new();
    for (case, node) in suite.cases.iter().zip(node) {
        let kernel = host.kernel(1 << 29);
        for &frame in &case.setup {
            assert_eq!(
                host.call("raven_accept", kernel, suite.span(frame)),
                NO_REPLY,
                "{}",
                case.name
            );
        }
        // Once at a stroke for the values, once in steps for the digest.
        let packed = host.call("raven_execute", kernel, suite.span(case.task));
        let result = host.reply(packed).expect("a result");
        if let Err(reason) = verdict::check(&suite, case, &result) {
            wrong.push(format!("{}: {reason}", case.name));
        }
        let digest = commit(&mut host, kernel, suite.span(case.task), 1.0);
        if node["digest"] != digest.as_str() {
            wrong.push(format!("{}: wasmtime {digest}, node {}", case.name, node["digest"]));
        }
        host.end(kernel);
    }
    println!("wasmtime: {} cases, digests as in node", suite.cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
#[ignore = "needs the module and the suite: run scripts/lib/conformance.sh"]
fn wasmtime_and_node_agree_on_random_operands() {
    let suite = Suite::read(&root().join("target/conformance")).expect("the suite");
    let seeds = seeds();
    let report = node_report(seeds);
    let node = report["seeds"]["cases"].as_array().expect("cases");
    let cases = suite.cases.iter().map(|case| (&case.name, &case.setup, case.task, None));
    let training = suite.training.iter();
    let training = training.map(|case| (&case.name, &case.setup, case.task, Some(&case.draws)));
    let tasks: Vec<_> = cases.chain(training).collect();
    assert_eq!(node.len(), tasks.len());
    let mut host = Host::new();
    let mut wrong = Vec::new();
    for ((name, setup, task, draws), node) in tasks.into_iter().zip(node) {
        let kernel = host.kernel(1 << 29);
        for &frame in setup {
            host.call("raven_accept", kernel, suite.span(frame));
        }
        let digests: Vec<String> = (1..=seeds)
            .map(|seed| reseeded(suite.span(task), seed, draws))
            .map(|task| commit(&mut host, kernel, &task, f64::MAX))
            .collect();
        if node["digest"] != sha256(&digests.join("\n")).as_str() {
            wrong.push(name);
        }
        host.end(kernel);
    }
    println!(
        "wasmtime: {} cases and {} tasks of training with {seeds} seeds, digests as in node",
        suite.cases.len(),
        suite.training.len()
    );
    assert!(wrong.is_empty(), "other bits than in node: {wrong:?}");
}

/// Begins, steps and finishes a task; the digest of its commit.
fn commit(host: &mut Host, kernel: u32, task: &[u8], flops: f64) -> String {
    assert_eq!(host.call("raven_begin", kernel, task), NO_REPLY);
    let step: TypedFunc<(u32, f64), i32> =
        host.instance.get_typed_func(&mut host.store, "raven_step").expect("export");
    loop {
        match step.call(&mut host.store, (kernel, flops)).expect("no trap") {
            0 => {}
            1 => break,
            other => panic!("step answered {other}"),
        }
    }
    let finish: TypedFunc<(u32, u64), u64> =
        host.instance.get_typed_func(&mut host.store, "raven_finish").expect("export");
    let packed = finish.call(&mut host.store, (kernel, 5)).expect("no trap");
    let frame = host.reply(packed).expect("a commit");
    let frame = Frame::decode(&frame, &FrameLimits::TO_COORDINATOR).expect("a frame");
    match FromContributor::from_header(frame.header()).expect("a message") {
        FromContributor::Commit { digest, elapsed_ms: 5, .. } => digest.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs the module: run scripts/lib/conformance.sh"]
fn bytes_that_are_no_frame_are_errors_not_traps() {
    let mut host = Host::new();
    let kernel = host.kernel(1 << 20);
    for bytes in [&b""[..], b"RAVN", &[0xff; 64], b"RAVN\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"]
    {
        for call in ["raven_accept", "raven_missing", "raven_begin", "raven_execute"] {
            assert_eq!(host.call(call, kernel, bytes), FAILED, "{call}");
            assert!(host.error(kernel).starts_with("frame"), "{call}");
        }
    }
    let step: TypedFunc<(u32, f64), i32> =
        host.instance.get_typed_func(&mut host.store, "raven_step").expect("export");
    assert_eq!(step.call(&mut host.store, (kernel, 1.0)).expect("no trap"), -1);
    assert_eq!(host.error(kernel), "lease: no task is running");
}
