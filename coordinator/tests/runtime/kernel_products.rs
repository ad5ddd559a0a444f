//! Freivalds' check says nothing of the kernel module's own products, and finds
//! faults that are put into them.

use crate::support::{cache_dir, kernel_file};
use axum::body::Bytes;
use raven_coordinator::referee::{Materials, Referee};
use raven_coordinator::runtime::executor::{KernelModule, Tensor, tensors_of};
use raven_graph::philox::{key, philox4x32, unit_f32};
use raven_graph::{DType, GraphBuilder, Limits, TensorType, ValidGraph};
use raven_proof::freivalds::{PROBES_USUAL, row_bounds};
use raven_proof::{Operand, Product, Verdict, check_product};
use raven_protocol::frame::encode;
use raven_protocol::{
    Binding, Encoding, JobId, LeaseId, Numerics, OutputSpec, Program, ReduceRule, Seed, TaskId,
    TaskMessage, TaskSpec, ToContributor,
};

/// Products of one task, its micro-batches.
const RUNS: u32 = 250;

struct Case {
    extents: [u32; 3],
    transposed: [bool; 2],
}

const CASES: [Case; 4] = [
    Case { extents: [24, 70, 17], transposed: [false, false] },
    Case { extents: [17, 24, 40], transposed: [true, false] },
    Case { extents: [33, 33, 33], transposed: [false, true] },
    // More than one block of the inner axis.
    Case { extents: [3, 700, 9], transposed: [false, false] },
];

fn graph(case: &Case) -> ValidGraph {
    let [m, k, n] = case.extents;
    let lay = |rows, columns, turned| if turned { [columns, rows] } else { [rows, columns] };
    let mut builder = GraphBuilder::new(&Limits::default());
    let a = builder.input("a", DType::F32, lay(m, k, case.transposed[0])).expect("a");
    let b = builder.input("b", DType::F32, lay(k, n, case.transposed[1])).expect("b");
    let product = builder.matmul(a, b, case.transposed[0], case.transposed[1]).expect("a product");
    builder.output("c", product);
    builder.finish().expect("a graph")
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Random matrices, one for each run; every other one has numbers of one sign.
fn stack(graph: &ValidGraph, input: &str, seed: u64) -> Tensor {
    let ty = &graph.input(input).expect("an input").ty;
    let each = ty.shape.elements().unwrap_or(0) as u32;
    let data = (0..RUNS * each).flat_map(|at| {
        let low = if (at / each).is_multiple_of(2) { 0.5 } else { 0.0 };
        let x = unit_f32(philox4x32([at, 0, 0, 0], key(seed))[0]) - low;
        x.to_le_bytes()
    });
    let dims = [&[RUNS], ty.shape.dims()].concat();
    Tensor { ty: TensorType::new(DType::F32, &dims[..]), data: data.collect::<Vec<u8>>().into() }
}

fn task(graph: &ValidGraph, a: &Tensor, b: &Tensor) -> Bytes {
    let bind = |name: &str| Binding::PerRun { input: name.into(), tensor: name.into() };
    let spec = TaskSpec {
        program: Program::Map { graph: graph.id(), start: 0, count: RUNS },
        seed: Seed(1),
        bindings: vec![bind("a"), bind("b")],
        shards: Vec::new(),
        outputs: vec![OutputSpec {
            name: "c".into(),
            encoding: Encoding::Raw,
            reduce: ReduceRule::Concat,
        }],
        numerics: Numerics::Strict,
    };
    let message = TaskMessage {
        lease: LeaseId(1),
        task: TaskId { job: JobId(1), round: 0, stage: 0, part: 0 },
        lease_ms: 1000,
        flops: 1,
        spec,
    };
    encode(&ToContributor::Task(Box::new(message)), &[a.part("a"), b.part("b")]).into()
}

/// Checks the products of one task, and each again with a fault of 16 bounds in it. Answers how
/// many faults were missed.
fn check(referee: &Referee, case: &Case, seed: u64) -> u32 {
    let graph = graph(case);
    let (left, right) = (stack(&graph, "a", 2 * seed), stack(&graph, "b", 2 * seed + 1));
    let task = task(&graph, &left, &right);
    let materials = Materials::gather(task, &graph, |_| panic!("no blob is named"));
    let (_, result) = referee.run(&materials.expect("one task's")).expect("runs");
    let mut products = numbers(&tensors_of(&result).expect("a frame")[0].1);
    let [m, k, n] = case.extents.map(|extent| extent as usize);
    let (left, right) = (numbers(&left), numbers(&right));
    let mut missed = 0;
    for (run, c) in products.chunks_exact_mut(m * n).enumerate() {
        let a = Operand { elements: &left[run * m * k..][..m * k], transposed: case.transposed[0] };
        let b =
            Operand { elements: &right[run * k * n..][..k * n], transposed: case.transposed[1] };
        let drawn = seed << 32 | run as u64;
        let product = Product { m, k, n, a, b, c };
        let verdict = check_product(&product, PROBES_USUAL, drawn).expect("extents fit");
        assert_eq!(verdict, Verdict::Consistent, "seed {seed}, run {run}");
        let (row, column) = (run % m, run % n);
        let bound = row_bounds(&product).expect("extents fit")[row];
        c[row * n + column] += (16.5 * bound) as f32;
        let verdict = check_product(&Product { m, k, n, a, b, c }, PROBES_USUAL, drawn);
        missed += u32::from(verdict == Ok(Verdict::Consistent));
    }
    missed
}

#[test]
fn the_module_s_products_raise_no_alarm_and_faults_in_them_do() {
    let tasks = if std::env::var_os("RAVEN_FULL").is_some() { 40 } else { 4 };
    let module = KernelModule::load(&kernel_file(), Some(&cache_dir())).expect("the kernel");
    let referee = Referee::new(module, 256 << 20);
    let missed: u32 =
        (0..tasks).map(|seed| check(&referee, &CASES[seed as usize % CASES.len()], seed)).sum();
    let products = tasks as u32 * RUNS;
    println!(
        "{products} products of the module: no false alarm; {missed} faults missed of as many"
    );
    // 0.25 % are expected with two probes.
    assert!(missed <= 3 + products / 200, "{missed} of {products}");
}
