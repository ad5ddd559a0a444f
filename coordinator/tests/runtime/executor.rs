//! The master's tensor maths on the kernel module: however a batch was cut and
//! whatever the kernel went through before, the same bits come out.

use crate::support::data::{Rows, job};
use crate::support::{cache_dir, kernel_file};
use raven_coordinator::blobs::Blobs;
use raven_coordinator::job::{JobContext, JobSpec, Lowering, lower_job};
use raven_coordinator::runtime::Metrics as Counters;
use raven_coordinator::runtime::driver::task_seed;
use raven_coordinator::runtime::executor::{
    Done, Executor, ExecutorError, Fold, KernelError, KernelModule, Operation, Part, ROWS, Request,
    Run, Runner, State, Tensor, Worker, attached, row_bindings,
};
use raven_engine::{EffectId, Metrics};
use raven_protocol::{BlobId, JobId, Seed};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

const MEMORY_BYTES: u64 = 512 << 20;

struct Bench {
    context: Arc<JobContext>,
    module: KernelModule,
    blobs: Blobs,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(rows: &Rows, spec: &JobSpec) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("a blob folder");
        let module = KernelModule::load(&kernel_file(), Some(&cache_dir())).expect("the kernel");
        let stored = rows.store(&blobs);
        let of = |test: bool| stored.iter().filter(|s| s.test == test).map(|s| s.shard).collect();
        let lowering = Lowering {
            job: JobId(1),
            seed: Seed(7),
            kernel: module.id(),
            dataset: &rows.facts(),
            train_shards: of(false),
            test_shards: of(true),
        };
        let (context, _) = lower_job(spec, lowering).expect("a good job");
        Bench { context: Arc::new(context), module, blobs, _folder: folder }
    }

    fn runner(&self, memory_bytes: u64) -> Runner {
        Runner::new(self.module.clone(), self.blobs.clone(), memory_bytes)
    }

    fn worker(&self) -> Worker {
        Worker::new(self.runner(MEMORY_BYTES))
    }

    fn init(&self, worker: &mut Worker) -> Arc<State> {
        match worker.perform(Operation::Init { context: self.context.clone() }).expect("init") {
            Done::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    /// The training graph over micro-batches `start..start + count` of the first rows.
    fn part(&self, runner: &mut Runner, state: &State, start: u32, count: u32) -> Part {
        let train = &self.context.train;
        let first = start * train.rows;
        let numbers: Vec<i32> = (first..first + count * train.rows).map(|row| row as i32).collect();
        let rows = Tensor::rows(count, train.rows, &numbers);
        let mut bindings = row_bindings(&self.context, train);
        let mut attachments = vec![(ROWS.to_owned(), &rows)];
        for (name, tensor) in state.params() {
            bindings.push(attached(name));
            attachments.push((name.clone(), tensor));
        }
        let values = runner.run(&Run {
            graph: &train.graph,
            start,
            count,
            seed: task_seed(Seed(7), 0),
            bindings,
            shards: self.context.data.train_shards.clone(),
            outputs: train.outputs.clone(),
            attachments,
        });
        Part { start, count, values: values.expect("runs") }
    }

    fn step(&self, worker: &mut Worker, state: &Arc<State>, parts: Vec<Part>) -> Stepped {
        let operation = Operation::Step {
            context: self.context.clone(),
            state: state.clone(),
            round: 0,
            parts,
            groups: Vec::new(),
            learning_rate: 0.01,
            step: 1,
        };
        match worker.perform(operation).expect("steps") {
            Done::Stepped { state, metrics, grad_norm } => {
                Stepped { state: state.id(), metrics, grad_norm }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Stepped {
    state: BlobId,
    metrics: Metrics,
    grad_norm: f32,
}

#[test]
fn a_step_does_not_depend_on_how_its_batch_was_cut() {
    let bench = Bench::new(&Rows { train: 200, test: 8 }, &job("replica", 1, 104, 8));
    let mut worker = bench.worker();
    let mut runner = bench.runner(MEMORY_BYTES);
    let state = bench.init(&mut worker);
    let cuts: [&[(u32, u32)]; 4] = [
        &[(0, 13)],
        &[(0, 8), (8, 5)],
        &[(0, 4), (4, 2), (6, 1), (7, 1), (8, 4), (12, 1)],
        &[(0, 1), (1, 1), (2, 2), (4, 4), (8, 2), (10, 2), (12, 1)],
    ];
    let mut first = None;
    for cut in cuts {
        let parts: Vec<Part> = cut
            .iter()
            .map(|&(start, count)| bench.part(&mut runner, &state, start, count))
            .collect();
        let stepped = bench.step(&mut worker, &state, parts);
        assert_eq!(stepped.metrics.count, 104.0);
        assert!(stepped.metrics.loss_sum > 0.0 && stepped.grad_norm > 0.0, "{stepped:?}");
        assert_ne!(stepped.state, state.id());
        assert_eq!(first.get_or_insert(stepped.state), &stepped.state, "cut {cut:?}");
    }
}

#[test]
fn more_parts_than_fit_one_run_are_summed_in_groups() {
    // 320 parts with seven outputs each are more inputs than one sum may have.
    let bench = Bench::new(&Rows { train: 320, test: 8 }, &job("replica", 1, 320, 1));
    let mut worker = bench.worker();
    let mut runner = bench.runner(MEMORY_BYTES);
    let state = bench.init(&mut worker);
    let singles = (0..320).map(|start| bench.part(&mut runner, &state, start, 1)).collect();
    let whole = vec![bench.part(&mut runner, &state, 0, 320)];
    let (singles, whole) =
        (bench.step(&mut worker, &state, singles), bench.step(&mut worker, &state, whole));
    assert_eq!(singles, whole);
}

#[test]
fn results_that_were_summed_before_their_step_give_the_same_bits() {
    let bench = Bench::new(&Rows { train: 320, test: 8 }, &job("replica", 1, 312, 8));
    let mut worker = bench.worker();
    let mut runner = bench.runner(MEMORY_BYTES);
    let state = bench.init(&mut worker);
    let parts: Vec<Part> = (0..39).map(|start| bench.part(&mut runner, &state, start, 1)).collect();
    let at_once = bench.step(&mut worker, &state, parts.clone());
    // In an order that is nobody's, and one of them is late.
    for at in (0..39).map(|i| i * 16 % 39).filter(|&at| at != 20) {
        let part = parts[at].clone();
        let fold = Fold { context: bench.context.clone(), round: 0, total: 39, part };
        worker.fold(fold).expect("sums");
    }
    assert_eq!(bench.step(&mut worker, &state, parts.clone()), at_once);
    // What another round left does no harm.
    let fold = Fold { context: bench.context.clone(), round: 5, total: 39, part: parts[0].clone() };
    worker.fold(fold).expect("is kept");
    assert_eq!(bench.step(&mut worker, &state, parts), at_once);
}

#[test]
fn parts_with_a_gap_are_refused_and_the_worker_goes_on() {
    let bench = Bench::new(&Rows { train: 200, test: 8 }, &job("replica", 1, 104, 8));
    let mut worker = bench.worker();
    let mut runner = bench.runner(MEMORY_BYTES);
    let state = bench.init(&mut worker);
    let parts = vec![bench.part(&mut runner, &state, 0, 4), bench.part(&mut runner, &state, 8, 5)];
    let operation = Operation::Step {
        context: bench.context.clone(),
        state: state.clone(),
        round: 0,
        parts,
        groups: Vec::new(),
        learning_rate: 0.01,
        step: 1,
    };
    let refused = worker.perform(operation);
    assert!(matches!(refused, Err(ExecutorError::TreeShape)), "{refused:?}");
    assert_eq!(bench.init(&mut worker).id(), state.id());
}

#[test]
fn evaluation_covers_every_row_once_over_several_runs() {
    // 8192 rows make one run, so these are three, the last one short.
    let bench = Bench::new(&Rows { train: 200, test: 16_500 }, &job("replica", 1, 104, 8));
    let mut worker = bench.worker();
    let state = bench.init(&mut worker);
    let mut evaluate = || {
        let context = bench.context.clone();
        match worker.perform(Operation::Evaluate { context, state: state.clone() }) {
            Ok(Done::Evaluated { metrics }) => metrics,
            other => panic!("{other:?}"),
        }
    };
    let metrics = evaluate();
    assert_eq!(metrics.count, 16_500.0);
    assert!(metrics.loss_sum > 0.0 && metrics.correct <= metrics.count, "{metrics:?}");
    assert_eq!(evaluate(), metrics);
}

fn evaluate(bench: &Bench, worker: &mut Worker, state: &Arc<State>) -> Metrics {
    let (context, state) = (bench.context.clone(), state.clone());
    match worker.perform(Operation::Evaluate { context, state }) {
        Ok(Done::Evaluated { metrics }) => metrics,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_kernel_forgot_for_another_job_is_given_to_it_again() {
    let bench = Bench::new(&Rows { train: 200, test: 8_000 }, &job("replica", 1, 104, 8));
    let mut spec = job("replica", 1, 104, 8);
    let wide = serde_json::json!({
        "layers": [
            {"type": "flatten"},
            {"type": "dense", "units": 3000, "activation": "relu"},
            {"type": "dense", "units": 4}
        ],
        "loss": "cross_entropy"
    });
    spec.model = serde_json::from_value(wide).expect("a model");
    let other = Bench::new(&Rows { train: 200, test: 8 }, &spec);
    let state = bench.init(&mut bench.worker());
    let all = evaluate(&bench, &mut bench.worker(), &state);
    // From budgets that the other job needs nearly whole to one with room for both.
    let mut squeezed = 0;
    for kib in (2816..6144).step_by(256) {
        let mut worker = Worker::new(bench.runner(kib << 10));
        assert_eq!(evaluate(&bench, &mut worker, &state), all, "{kib} KiB");
        let between = worker.perform(Operation::Init { context: other.context.clone() });
        squeezed += u32::from(between.is_ok());
        assert_eq!(evaluate(&bench, &mut worker, &state), all, "{kib} KiB");
    }
    assert!(squeezed > 0, "the other job fits none of the budgets");
}

#[test]
fn a_kernel_without_memory_says_so_and_is_replaced() {
    let bench = Bench::new(&Rows { train: 200, test: 8 }, &job("replica", 1, 104, 8));
    // Too little for the parameters, let alone a run.
    let mut small = Worker::new(bench.runner(1 << 10));
    let refused = small.perform(Operation::Init { context: bench.context.clone() });
    let error = refused.expect_err("no room");
    let is_typed = matches!(
        error,
        ExecutorError::Refused { .. }
            | ExecutorError::Kernel(KernelError::Refused { .. } | KernelError::OutOfMemory { .. })
    );
    assert!(is_typed, "{error:?}");
    bench.init(&mut bench.worker());
}

#[test]
fn a_state_survives_its_frame() {
    let bench = Bench::new(&Rows { train: 200, test: 8 }, &job("replica", 1, 104, 8));
    let mut worker = bench.worker();
    let state = bench.init(&mut worker);
    bench.blobs.put(state.id(), &state.frame()).expect("stored");
    let frame = bench.blobs.get(state.id()).expect("read");
    let again = State::from_frame(&bench.context, &frame).expect("the same job's");
    assert_eq!((again.id(), again.tensors()), (state.id(), state.tensors()));
    // Adam has two slots per parameter; contributors get none of them.
    assert_eq!(state.tensors().len(), 3 * state.params().len());
    assert!(state.weights().frame.len() < state.frame().len());
    let other = Bench::new(&Rows { train: 200, test: 8 }, &{
        let mut spec = job("replica", 1, 104, 8);
        spec.optimizer = serde_json::from_str("{\"kind\":\"sgd\",\"momentum\":0.9}").expect("sgd");
        spec
    });
    let refused = State::from_frame(&other.context, &frame);
    assert!(matches!(refused, Err(ExecutorError::StateMismatch { .. })), "{refused:?}");
}

/// What a round costs the master, printed: it is time in which nobody trains.
#[test]
fn a_round_of_a_convolutional_model_costs_the_master_little() {
    let mut spec = job("replica", 1, 256, 32);
    let model = serde_json::json!({
        "input_shape": [1, 8, 8],
        "layers": [
            {"type": "conv2d", "filters": 16, "kernel": 5, "padding": "same", "activation": "relu"},
            {"type": "conv2d", "filters": 32, "kernel": 5, "padding": "same", "activation": "relu"},
            {"type": "flatten"},
            {"type": "dense", "units": 100, "activation": "relu"},
            {"type": "dense", "units": 4}
        ],
        "loss": "cross_entropy"
    });
    spec.model = serde_json::from_value(model).expect("a model");
    let bench = Bench::new(&Rows { train: 256, test: 8 }, &spec);
    let mut worker = bench.worker();
    let mut runner = bench.runner(MEMORY_BYTES);
    let state = bench.init(&mut worker);
    let part = bench.part(&mut runner, &state, 0, 1);
    let mut step_ms = |count: u32| {
        let parts: Vec<Part> = (0..count).map(|start| Part { start, ..part.clone() }).collect();
        bench.step(&mut worker, &state, parts.clone());
        let mut times: Vec<f64> = (0..5)
            .map(|_| {
                let parts = parts.clone();
                let start = Instant::now();
                bench.step(&mut worker, &state, parts);
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[2]
    };
    let (few, many) = (step_ms(8), step_ms(256));
    let parameters: u64 = state.params().iter().map(|(_, t)| t.data.len() as u64 / 4).sum();
    println!(
        "one step with Adam on {parameters} parameters: {few:.1} ms over 8 parts, {many:.1} ms over 256, \
         {:.2} ms for each more",
        (many - few) / 248.0
    );
    // The simulation's figures rest on times like these; this is far above them.
    assert!(few < 1000.0 && many < 10_000.0, "{few} ms, {many} ms");
}

#[test]
fn results_that_wait_take_no_operation_s_place() {
    let bench = Bench::new(&Rows { train: 200, test: 16_500 }, &job("replica", 1, 104, 8));
    let (counters, (out, mut done)) = (Arc::<Counters>::default(), mpsc::unbounded_channel());
    let executor = Executor::start(&bench.module, &bench.blobs, 1, MEMORY_BYTES, &counters, &out);
    let executor = executor.expect("a thread");
    let mut worker = bench.worker();
    let state = bench.init(&mut worker);
    let part = bench.part(&mut bench.runner(MEMORY_BYTES), &state, 0, 1);
    // While the thread is busy, more results than its queue has places.
    let context = || bench.context.clone();
    let evaluate = Operation::Evaluate { context: context(), state: state.clone() };
    executor.submit(Request { effect: EffectId(1), operation: evaluate }).expect("submitted");
    for start in 0..8192 {
        let part = Part { start, ..part.clone() };
        executor.fold(Fold { context: context(), round: 0, total: 8192, part });
    }
    let request =
        Request { effect: EffectId(2), operation: Operation::Init { context: context() } };
    executor.submit(request).expect("there is room for an operation");
    let mut answered: Vec<u64> =
        (0..2).map(|_| done.blocking_recv().expect("an answer").0.0).collect();
    answered.sort_unstable();
    assert_eq!(answered, [1, 2]);
    executor.stop();
}

#[test]
fn an_evaluation_lets_other_operations_in_between() {
    // Three runs of at most 8192 rows.
    let bench = Bench::new(&Rows { train: 100, test: 20_000 }, &job("replica", 1, 100, 20));
    let mut worker = bench.worker();
    let state = bench.init(&mut worker);
    let evaluate = || Operation::Evaluate { context: bench.context.clone(), state: state.clone() };
    let Done::Evaluated { metrics: whole } = worker.perform(evaluate()).expect("evaluates") else {
        panic!("no metrics");
    };
    assert_eq!(whole.count, 20_000.0);
    let (counters, (out, mut done)) = (Arc::<Counters>::default(), mpsc::unbounded_channel());
    let executor = Executor::start(&bench.module, &bench.blobs, 1, MEMORY_BYTES, &counters, &out);
    let executor = executor.expect("a thread");
    let submit = |number, operation| {
        let request = Request { effect: EffectId(number), operation };
        executor.submit(request).expect("submitted");
    };
    submit(1, evaluate());
    submit(2, evaluate());
    submit(3, Operation::Init { context: bench.context.clone() });
    let mut next = || done.blocking_recv().expect("an answer");
    let (first, result) = next();
    assert_eq!(first, EffectId(3), "an evaluation kept another job waiting");
    assert!(result.is_ok());
    for number in [1, 2] {
        let (effect, result) = next();
        assert_eq!(effect, EffectId(number));
        let Ok(Done::Evaluated { metrics }) = result else { panic!("{result:?}") };
        assert_eq!(metrics, whole, "the same bits as without interruption");
    }
    assert_eq!(counters.executor_runs.get(), 3);
    executor.stop();
}
