//! False alarms and misses of Freivalds' check on what a device computes.
//!
//! `cargo run --release -p raven-gpu --example gpu_products -- [COUNT] [SIZE_MAX]` opens the best
//! Vulkan adapter (a software one too), computes COUNT (10,000) products of random extents
//! up to SIZE_MAX (384) with operands of every kind and layout, checks each with
//! two and with six probes, puts a fault of 16 times its row's bound into one element and checks
//! again. Prints one JSON object. Fails where an honest product is called faulty, where six
//! probes miss a fault, or where two find less than 99.7 % of them.

#[path = "../../proof/tests/support/mod.rs"]
mod support;

use raven_gpu::{Kernel, OpenOptions};
use raven_graph::philox::{key, philox4x32};
use raven_graph::{DType, GraphBuilder, Limits, TensorType};
use raven_proof::freivalds::{PROBES_THOROUGH, PROBES_USUAL, check_product, row_bounds};
use raven_proof::{Operand, Product, Verdict};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, Encoding, Frame, FrameLimits, FromContributor, GraphText, JobId, LeaseId, Numerics,
    OutputSpec, Program, ReduceRule, Seed, TaskId, TaskMessage, TaskSpec, TensorPart,
    ToContributor,
};
use std::error::Error;
use std::time::Instant;
use support::{NUMBERS, numbers, off_by};

const BUDGET: u64 = 1 << 30;
/// How large a fault is, in bounds of its row.
const FAULT: f64 = 16.0;
/// The part of the faults that two probes must find.
const FOUND_MIN: f64 = 0.997;

type Failed = Box<dyn Error>;

/// A product to compute: everything follows from its number.
struct Case {
    extents: [usize; 3],
    transposed: [bool; 2],
    a: Vec<f32>,
    b: Vec<f32>,
    /// Where the fault goes and which way it points.
    words: [u32; 4],
}

impl Case {
    fn new(number: u64, size_max: f64) -> Self {
        let words = philox4x32([0, 0, 0, 2], key(number));
        // Even in the logarithm: as many small extents as large ones.
        let extent = |word: u32| size_max.powf(f64::from(word) / 4_294_967_296.0).round() as usize;
        let [m, k, n] = [extent(words[0]), extent(words[1]), extent(words[2])];
        let kind = NUMBERS[words[3] as usize % NUMBERS.len()];
        Case {
            extents: [m, k, n],
            transposed: [number & 1 != 0, number & 2 != 0],
            a: numbers(kind, m * k, number, 0),
            b: numbers(kind, k * n, number, 1),
            words: philox4x32([1, 0, 0, 2], key(number)),
        }
    }

    fn product<'a>(&'a self, c: &'a [f32]) -> Product<'a> {
        let [m, k, n] = self.extents;
        let [left, right] = self.transposed;
        let a = Operand { elements: &self.a, transposed: left };
        Product { m, k, n, a, b: Operand { elements: &self.b, transposed: right }, c }
    }

    /// The graph frame and the task frame.
    fn frames(&self) -> Result<[Vec<u8>; 2], Failed> {
        let [m, k, n] = self.extents.map(|extent| extent as u32);
        let [left, right] = self.transposed;
        let dims_a = if left { [k, m] } else { [m, k] };
        let dims_b = if right { [n, k] } else { [k, n] };
        let mut graph = GraphBuilder::new(&Limits::default());
        let a = graph.input("a", DType::F32, dims_a)?;
        let b = graph.input("b", DType::F32, dims_b)?;
        let c = graph.matmul(a, b, left, right)?;
        graph.output("c", c);
        let graph = graph.finish()?;
        let attached =
            |name: &str| Binding::Attached { input: name.to_owned(), tensor: name.to_owned() };
        let spec = TaskSpec {
            program: Program::Map { graph: graph.id(), start: 0, count: 1 },
            seed: Seed(1),
            bindings: vec![attached("a"), attached("b")],
            shards: Vec::new(),
            outputs: vec![OutputSpec {
                name: "c".into(),
                encoding: Encoding::Raw,
                reduce: ReduceRule::Sum,
            }],
            numerics: Numerics::Relaxed,
        };
        let task = ToContributor::Task(Box::new(TaskMessage {
            lease: LeaseId(1),
            task: TaskId { job: JobId(1), round: 0, stage: 0, part: 0 },
            lease_ms: 60_000,
            flops: graph.cost().flops,
            spec,
        }));
        let [a, b] =
            [&self.a, &self.b].map(|x| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
        let part = |name: &str, dims: [u32; 2], data| TensorPart {
            name: name.to_owned(),
            ty: TensorType::new(DType::F32, dims),
            data,
        };
        let parts = [part("a", dims_a, &a[..]), part("b", dims_b, &b[..])];
        let text = ToContributor::Graph { id: graph.id(), graph: GraphText::of(&graph) };
        Ok([encode(&text, &[]), encode(&task, &parts)])
    }
}

fn computed(kernel: &mut Kernel, [graph, task]: &[Vec<u8>; 2]) -> Result<Vec<f32>, Failed> {
    kernel.accept(graph)?;
    let answer = kernel.execute(task)?;
    let frame = Frame::decode(&answer, &FrameLimits::TO_CONTRIBUTOR)?;
    match FromContributor::from_header(frame.header())? {
        FromContributor::Result { .. } => {}
        other => return Err(format!("no result: {other:?}").into()),
    }
    let c = frame.tensors().next().ok_or("a result has a tensor")?;
    Ok(c.data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// What was seen with one number of probes.
#[derive(Default)]
struct Counts {
    false_alarms: u64,
    undecided: u64,
    found: u64,
}

impl Counts {
    fn honest(&mut self, number: u64, product: &Product<'_>, probes: u32) -> Result<(), Failed> {
        match check_product(product, probes, seed(number))? {
            Verdict::Consistent => {}
            Verdict::Undecided { .. } => self.undecided += 1,
            Verdict::Faulty { row, residual, bound } => {
                let Product { m, k, n, .. } = product;
                eprintln!(
                    "false alarm: product {number} [{m}, {k}, {n}], {probes} probes, row {row}: {residual} over {bound}"
                );
                self.false_alarms += 1;
            }
        }
        Ok(())
    }

    fn faulty(&mut self, number: u64, product: &Product<'_>, probes: u32) -> Result<(), Failed> {
        let verdict = check_product(product, probes, seed(number))?;
        self.found += u64::from(matches!(verdict, Verdict::Faulty { .. }));
        Ok(())
    }

    fn report(&self, count: u64) -> serde_json::Value {
        serde_json::json!({
            "false_alarms": self.false_alarms,
            "undecided": self.undecided,
            "faults": count,
            "found": self.found,
            "found_percent": 100.0 * self.found as f64 / count as f64,
        })
    }
}

/// Nothing that the operands depend on.
fn seed(number: u64) -> u64 {
    number ^ 0x5eed << 48
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let count: u64 = arguments.first().map_or(Ok(10_000), |text| text.parse())?;
    let size_max: f64 = arguments.get(1).map_or(Ok(384.0), |text| text.parse())?;
    let gpu = raven_gpu::doors::native::open(OpenOptions { software: true })?;
    let adapter = gpu.name().to_owned();
    let mut kernel = Kernel::new(gpu, BUDGET);
    let probes = [PROBES_USUAL, PROBES_THOROUGH];
    let mut counts = [Counts::default(), Counts::default()];
    let (mut device_s, mut check_s) = (0.0, 0.0);
    let began = Instant::now();
    for number in 0..count {
        let case = Case::new(number, size_max);
        let frames = case.frames()?;
        let start = Instant::now();
        let mut c = computed(&mut kernel, &frames)?;
        device_s += start.elapsed().as_secs_f64();
        let start = Instant::now();
        for (counts, probes) in counts.iter_mut().zip(probes) {
            counts.honest(number, &case.product(&c), probes)?;
        }
        check_s += start.elapsed().as_secs_f64();
        let bounds = row_bounds(&case.product(&c))?;
        let at = case.words[0] as usize % c.len();
        let fault = FAULT * bounds[at / case.extents[2]];
        c[at] = off_by(c[at], fault, case.words[1] & 1 == 0);
        for (counts, probes) in counts.iter_mut().zip(probes) {
            counts.faulty(number, &case.product(&c), probes)?;
        }
        if (number + 1) % 1000 == 0 {
            eprintln!("{} of {count} products, {:.0} s", number + 1, began.elapsed().as_secs_f64());
        }
    }
    let [two, six] = &counts;
    let report = serde_json::json!({
        "adapter": adapter,
        "products": count,
        "size_max": size_max,
        "two_probes": two.report(count),
        "six_probes": six.report(count),
        "device_s": device_s,
        "checks_s": check_s,
        "seconds": began.elapsed().as_secs_f64(),
    });
    println!("{report:#}");
    let goal = six.found == count && two.found as f64 >= FOUND_MIN * count as f64;
    if two.false_alarms + six.false_alarms > 0 || !goal {
        return Err("a goal is missed".into());
    }
    Ok(())
}
