//! Robust combination: the rules against what they are defined to be, the same
//! bits however a round was cut, and trainings with a contributor that spoils
//! its results.

use crate::support::contributor::{Contributor, Habits, Poison};
use crate::support::data::{Rows, job};
use crate::support::{Coordinator, cache_dir, kernel_file};
use raven_coordinator::blobs::Blobs;
use raven_coordinator::job::{Combine, JobContext, JobSpec, Lowering, lower_job};
use raven_coordinator::runtime::executor::{
    Combined, Done, Fold, Group, KernelModule, Operation, Part, Runner, State, Tensor, Worker,
};
use raven_coordinator::store::JobRow;
use raven_engine::{Cause, JobPhase, Metrics, Verification, groups, tree};
use raven_graph::philox::philox4x32;
use raven_protocol::{BlobId, JobId, Seed};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const ID: JobId = JobId(1);
/// Rows of a micro-batch in the made-up rounds.
const MICRO_ROWS: u32 = 8;

struct Bench {
    context: Arc<JobContext>,
    worker: Worker,
    total: u32,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// Rounds of `total` micro-batches; `units` decide the model's size.
    fn new(combine: Combine, total: u32, units: u32) -> Self {
        let mut spec = job("replica", 1, total * MICRO_ROWS, MICRO_ROWS);
        spec.training.combine = combine;
        let layers = serde_json::json!({
            "layers": [{"type": "flatten"}, {"type": "dense", "units": units}, {"type": "dense", "units": 4}],
            "loss": "cross_entropy"
        });
        spec.model = serde_json::from_value(layers).expect("a model");
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("a blob folder");
        let module = KernelModule::load(&kernel_file(), Some(&cache_dir())).expect("the kernel");
        let rows = Rows { train: total * MICRO_ROWS, test: 8 };
        let stored = rows.store(&blobs);
        let of = |test: bool| stored.iter().filter(|s| s.test == test).map(|s| s.shard).collect();
        let lowering = Lowering {
            job: ID,
            seed: Seed(7),
            kernel: module.id(),
            dataset: &rows.facts(),
            train_shards: of(false),
            test_shards: of(true),
        };
        let (context, _) = lower_job(&spec, lowering).expect("a good job");
        let worker = Worker::new(Runner::new(module, blobs, 512 << 20));
        Bench { context: Arc::new(context), worker, total, _folder: folder }
    }

    /// How many numbers a gradient has.
    fn numbers(&self) -> usize {
        self.context.params.iter().map(|p| p.ty.shape.elements().expect("small") as usize).sum()
    }

    /// The groups of a round, the last one two rows short.
    fn groups(&self) -> Vec<Group> {
        let runs = groups::runs(self.total, self.context.combine.groups());
        let group = |(start, count)| Group { start, count, rows: count * MICRO_ROWS };
        let mut groups: Vec<Group> = runs.map(group).collect();
        groups.last_mut().expect("groups").rows -= 2;
        groups
    }

    /// A part of these gradients, and of what it says about its samples.
    fn part(&self, start: u32, count: u32, gradient: &[f32], said: Metrics) -> Part {
        let train = &self.context.train;
        let mut values = HashMap::from([
            (train.loss_sum.clone(), Tensor::scalar(said.loss_sum)),
            (train.correct.clone(), Tensor::scalar(said.correct)),
            (train.count.clone(), Tensor::scalar(said.count)),
        ]);
        let mut rest = gradient;
        for name in &train.gradients {
            let ty = train.graph.output_type(name).expect("an output").clone();
            let (own, others) = rest.split_at(ty.shape.elements().expect("small") as usize);
            rest = others;
            let data: Vec<u8> = own.iter().flat_map(|x| x.to_le_bytes()).collect();
            values.insert(name.clone(), Tensor { ty, data: data.into() });
        }
        Part { start, count, values }
    }

    /// Combines one part for each group, with these gradients.
    fn combine(&mut self, sums: &[Vec<f32>]) -> Combined {
        let groups = self.groups();
        assert_eq!(groups.len(), sums.len());
        let parts = groups.iter().zip(sums);
        let parts = parts.map(|(group, sum)| self.part(group.start, group.count, sum, LIE));
        let parts: Vec<Part> = parts.collect();
        self.worker.combine_groups(&self.context, parts, &groups).expect("combines")
    }

    /// The mean gradient that the optimizer's step would see.
    fn combined(&mut self, sums: &[Vec<f32>]) -> (Vec<f32>, Metrics) {
        match self.combine(sums) {
            Combined::Part { part, metrics } => {
                let train = &self.context.train;
                let count = part.values[&train.count].as_scalar().expect("a number");
                let numbers = train.gradients.iter().flat_map(|name| {
                    part.values[name].as_f32s().expect("numbers").collect::<Vec<f32>>()
                });
                (numbers.map(|x| x / count).collect(), metrics)
            }
            other => panic!("{other:?}"),
        }
    }

    fn init(&mut self) -> Arc<State> {
        match self.worker.perform(Operation::Init { context: self.context.clone() }) {
            Ok(Done::State(state)) => state,
            other => panic!("{other:?}"),
        }
    }

    fn step(&mut self, state: &Arc<State>, parts: Vec<Part>, groups: Vec<Group>) -> BlobId {
        let operation = Operation::Step {
            context: self.context.clone(),
            state: state.clone(),
            round: 0,
            parts,
            groups,
            learning_rate: 0.01,
            step: 1,
        };
        match self.worker.perform(operation) {
            Ok(Done::Stepped { state, .. }) => state.id(),
            other => panic!("{other:?}"),
        }
    }
}

/// A contributor may say what it likes about the number of its samples.
const LIE: Metrics = Metrics { loss_sum: 2.0, correct: 3.0, count: 1e9 };

/// Numbers in -1..1, drawn for `tag`.
fn drawn(numbers: usize, tag: u32) -> Vec<f32> {
    let draw = |at: usize| philox4x32([at as u32, tag, 0, 0], [5, 6])[0];
    (0..numbers).map(|at| (f64::from(draw(at)) / f64::from(1u32 << 31) - 1.0) as f32).collect()
}

/// A trimmed mean as it is defined: sorted, cut, added up.
fn naive_trimmed(means: &[Vec<f32>], trim: usize) -> Vec<f32> {
    let coordinate = |at: usize| {
        let mut values: Vec<f32> = means.iter().map(|mean| mean[at]).collect();
        values.sort_by(f32::total_cmp);
        let kept = &values[trim..values.len() - trim];
        let sum = kept[1..].iter().fold(kept[0], |sum, value| sum + value);
        sum / kept.len() as f32
    };
    (0..means[0].len()).map(coordinate).collect()
}

fn means(sums: &[Vec<f32>], groups: &[Group]) -> Vec<Vec<f32>> {
    let mean = |(sum, group): (&Vec<f32>, &Group)| -> Vec<f32> {
        sum.iter().map(|x| x / group.rows as f32).collect()
    };
    sums.iter().zip(groups).map(mean).collect()
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt()
}

fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= 1e-5 * expected.abs().max(1e-3), "{at}: {found}, {expected} expected");
    }
}

#[test]
fn a_trimmed_mean_is_the_naive_one_to_the_bit() {
    // 11 micro-batches are six groups; the model is larger than one run's stretch.
    let mut bench = Bench::new(Combine::TrimmedMean { groups: 8, trim: 2, guard: None }, 11, 4500);
    assert!(bench.numbers() > 1 << 18);
    let sums: Vec<Vec<f32>> = (0..6).map(|tag| drawn(bench.numbers(), tag)).collect();
    let (found, metrics) = bench.combined(&sums);
    let expected = naive_trimmed(&means(&sums, &bench.groups()), 2);
    assert!(found.iter().map(|x| x.to_bits()).eq(expected.iter().map(|x| x.to_bits())));
    // Sums of what they said of their samples; rows are counted here.
    assert_eq!(metrics, Metrics { loss_sum: 12.0, correct: 18.0, count: 86.0 });
}

#[test]
fn equal_values_are_kept_as_often_as_they_are_there() {
    let mut bench = Bench::new(Combine::TrimmedMean { groups: 4, trim: 1, guard: None }, 4, 1);
    let rows = [8.0, 8.0, 8.0, 6.0];
    for (values, expected) in [([1.0, 1.0, 1.0, 9.0], 1.0), ([2.0, 2.0, 4.0, 4.0], 3.0)] {
        let sums: Vec<Vec<f32>> =
            values.iter().zip(rows).map(|(x, rows)| vec![x * rows; bench.numbers()]).collect();
        assert_eq!(bench.combined(&sums).0, vec![expected; bench.numbers()]);
    }
}

#[test]
fn clipped_means_are_as_defined() {
    let limit = 1.47f32;
    let rule = Combine::ClippedMean { groups: 8, norm: limit, guard: None };
    let mut bench = Bench::new(rule, 11, 24);
    let sums: Vec<Vec<f32>> = (0..6).map(|tag| drawn(bench.numbers(), tag)).collect();
    let (found, _) = bench.combined(&sums);
    let groups = bench.groups();
    let means = means(&sums, &groups);
    let norms: Vec<f64> = means.iter().map(|mean| norm(mean)).collect();
    let clipped = norms.iter().filter(|&&norm| norm > f64::from(limit)).count();
    assert!((1..6).contains(&clipped), "some are clipped, not all: {norms:?}");
    let expected = |at: usize| {
        let terms = means.iter().zip(&groups).zip(&norms).map(|((mean, group), norm)| {
            let factor = (f64::from(limit) / norm).min(1.0);
            f64::from(mean[at]) * factor * f64::from(group.rows)
        });
        terms.sum::<f64>() / 86.0
    };
    let expected: Vec<f64> = (0..bench.numbers()).map(expected).collect();
    assert_close(&found, &expected);
}

#[test]
fn centred_clipping_is_as_defined() {
    let (radius, iterations) = (0.5f32, 3);
    let rule = Combine::CenteredClipping { groups: 8, radius, iterations, guard: None };
    let mut bench = Bench::new(rule, 11, 24);
    let sums: Vec<Vec<f32>> = (0..6).map(|tag| drawn(bench.numbers(), tag)).collect();
    let (found, _) = bench.combined(&sums);
    let groups = bench.groups();
    let means = means(&sums, &groups);
    let mut center: Vec<f64> = naive_trimmed(&means, 2).into_iter().map(f64::from).collect();
    for _ in 0..iterations {
        let mut moved = center.clone();
        for (mean, group) in means.iter().zip(&groups) {
            let to: Vec<f64> = mean.iter().zip(&center).map(|(x, c)| f64::from(*x) - c).collect();
            let distance = to.iter().map(|x| x * x).sum::<f64>().sqrt();
            let factor = (f64::from(radius) / distance).min(1.0) * f64::from(group.rows) / 86.0;
            moved.iter_mut().zip(to).for_each(|(x, to)| *x += factor * to);
        }
        center = moved;
    }
    assert_close(&found, &center);
}

#[test]
fn rules_come_to_exact_bits() {
    // Means of 1, 1, 1 and 9 in one coordinate, by quotients and roots that are exact.
    let row = |bench: &Bench, x: f32| {
        let mut sum = vec![0.0; bench.numbers()];
        sum[5] = x;
        sum
    };
    let centered = Combine::CenteredClipping { groups: 4, radius: 2.0, iterations: 1, guard: None };
    for (rule, expected) in [
        // The median is 1; a fourth of the way to 9, cut to 2, is added.
        (centered, 1.0 + 6.0 / 30.0 * 2.0),
        // (8 + 8 + 8 + 6 * 2) / 30.
        (Combine::ClippedMean { groups: 4, norm: 2.0, guard: None }, 36.0f32 / 30.0),
        (Combine::TrimmedMean { groups: 4, trim: 1, guard: None }, 1.0),
    ] {
        let mut bench = Bench::new(rule, 4, 1);
        let sums = [8.0, 8.0, 8.0, 54.0].map(|x| row(&bench, x));
        let (found, _) = bench.combined(&sums);
        assert_eq!(found[5].to_bits(), expected.to_bits(), "{rule:?}: {}", found[5]);
        assert!(found.iter().enumerate().all(|(at, &x)| at == 5 || x == 0.0));
    }
}

/// Micro-batches' gradients and honest counts; the last one is two rows short.
fn micro_batches(bench: &Bench) -> Vec<(Vec<f32>, Metrics)> {
    let one = |at: u32| {
        let short = if at + 1 == bench.total { 2.0 } else { 0.0 };
        let said = Metrics { loss_sum: 1.5, correct: 4.0, count: MICRO_ROWS as f32 - short };
        (drawn(bench.numbers(), at), said)
    };
    (0..bench.total).map(one).collect()
}

/// The part of a run: its micro-batches, added along the tree.
fn run(bench: &Bench, start: u32, count: u32) -> Part {
    let micro_batches = micro_batches(bench);
    let run = &micro_batches[start as usize..(start + count) as usize];
    let leaves = run.iter().enumerate().map(|(at, one)| (at as u32, 1, one.clone()));
    let sum = tree::combine(count, leaves, |(a, said), (b, also)| {
        let sum = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let loss_sum = said.loss_sum + also.loss_sum;
        let (correct, count) = (said.correct + also.correct, said.count + also.count);
        (sum, Metrics { loss_sum, correct, count })
    });
    let (sum, said) = sum.expect("covers");
    bench.part(start, count, &sum, said)
}

#[test]
fn the_same_bits_however_a_round_was_cut_and_in_any_order_of_arrival() {
    for rule in [
        Combine::TrimmedMean { groups: 4, trim: 1, guard: Some(3.0) },
        Combine::ClippedMean { groups: 4, norm: 0.05, guard: None },
        Combine::CenteredClipping { groups: 4, radius: 0.1, iterations: 2, guard: None },
    ] {
        // Groups of 16, 16, 16 and 5.
        let mut bench = Bench::new(rule, 53, 6);
        let (state, groups) = (bench.init(), bench.groups());
        let coarse: Vec<Part> =
            groups.iter().map(|group| run(&bench, group.start, group.count)).collect();
        let expected = bench.step(&state, coarse, groups.clone());
        for order in 0..3u32 {
            let mut fine: Vec<Part> = (0..53).map(|start| run(&bench, start, 1)).collect();
            let sorted = fine.clone();
            fine.sort_by_key(|part| philox4x32([part.start, order, 0, 0], [1, 2]));
            for part in fine {
                let fold = Fold { context: bench.context.clone(), round: 0, total: 53, part };
                bench.worker.fold(fold).expect("folds");
            }
            assert_eq!(bench.step(&state, sorted, groups.clone()), expected, "{rule:?}");
        }
    }
}

#[test]
fn where_nothing_is_clipped_the_bits_are_those_of_the_mean() {
    let rule = Combine::ClippedMean { groups: 8, norm: 1e6, guard: None };
    let mut bench = Bench::new(rule, 13, 6);
    let (state, groups) = (bench.init(), bench.groups());
    let parts: Vec<Part> = (0..13).map(|start| run(&bench, start, 1)).collect();
    let clipped = bench.step(&state, parts.clone(), groups);
    assert_eq!(clipped, bench.step(&state, parts, Vec::new()));
}

#[test]
fn groups_that_are_not_finite_or_far_out_are_left_out() {
    let guarded = |guard| Combine::ClippedMean { groups: 4, norm: 1e6, guard };
    let of = |bench: &Bench, values: [f32; 4]| -> Vec<Vec<f32>> {
        let rows = [8.0, 8.0, 8.0, 6.0];
        values.iter().zip(rows).map(|(x, rows)| vec![x * rows; bench.numbers()]).collect()
    };
    let mut bench = Bench::new(guarded(None), 4, 1);
    for spoilt in [f32::NAN, f32::INFINITY, 1e30] {
        let sums = of(&bench, [1.0, spoilt, 1.0, 1.0]);
        let (found, metrics) = bench.combined(&sums);
        assert_eq!(found, vec![1.0; bench.numbers()]);
        assert_eq!(metrics, Metrics { loss_sum: 6.0, correct: 9.0, count: 22.0 });
    }
    let sums = of(&bench, [1.0, 100.0, 1.0, 1.0]);
    assert!(bench.combined(&sums).0[0] > 20.0, "without a guard it counts");
    let sums = of(&bench, [1.0, f32::NAN, f32::NAN, f32::NAN]);
    assert!(matches!(bench.combine(&sums), Combined::Outnumbered { kept: 1, groups: 4 }));
    let mut bench = Bench::new(guarded(Some(3.0)), 4, 1);
    let sums = of(&bench, [1.0, 100.0, 1.0, 2.9]);
    let (found, metrics) = bench.combined(&sums);
    assert_eq!(metrics.count, 22.0);
    assert!((1.0..2.0).contains(&found[0]), "{}", found[0]);
}

const ROWS: Rows = Rows { train: 560, test: 150 };

/// 15 micro-batches a batch and ten in an epoch's last one: eight groups and five.
fn robust(combine: Combine) -> JobSpec {
    let mut spec = job("replica", 5, 120, 8);
    spec.verification = Verification::None;
    spec.training.combine = combine;
    spec
}

/// Trains to the end; answers the job, its last state and its accuracy.
async fn train(spec: &JobSpec, habits: &[Habits]) -> (JobRow, BlobId, f64) {
    let coordinator = Coordinator::start(|_| {}).await;
    let contributors: Vec<Contributor> = habits
        .iter()
        .enumerate()
        .map(|(number, &habits)| Contributor::start(coordinator.address, number as u8 + 1, habits))
        .collect();
    while coordinator.runtime.snapshot().nodes.len() < habits.len() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    coordinator.add_job(ID, &ROWS, spec).await;
    let row = coordinator.finished(ID, Duration::from_secs(120)).await;
    let summary = coordinator.store.job_summary(ID).await.expect("read");
    let accuracy = summary.evaluation.and_then(|(_, means)| means.accuracy).unwrap_or_default();
    let state = coordinator.last_state(ID).await;
    drop(contributors);
    (row, state, accuracy)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poisoned_group_ruins_a_mean_and_no_robust_rule() {
    let poison = Habits {
        poison: Some(Poison { below: 1, factor: -1000.0, after: 0 }),
        ..Habits::default()
    };
    let (_, _, ruined) = train(&robust(Combine::default()), &[poison]).await;
    assert!(ruined < 0.5, "the mean follows the liar: accuracy {ruined}");
    for rule in [
        Combine::TrimmedMean { groups: 8, trim: 1, guard: None },
        Combine::ClippedMean { groups: 8, norm: 0.5, guard: None },
        Combine::ClippedMean { groups: 8, norm: 1e3, guard: Some(5.0) },
        Combine::CenteredClipping { groups: 8, radius: 0.5, iterations: 3, guard: None },
    ] {
        let (row, _, accuracy) = train(&robust(rule), &[poison]).await;
        assert_eq!((row.phase, row.reason), (JobPhase::Completed, None), "{rule:?}");
        println!("{rule:?}: accuracy {accuracy}, {ruined} by the mean");
        assert!(accuracy > 0.85, "{rule:?}: accuracy {accuracy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_robust_job_comes_to_the_same_bits_whoever_works_on_it() {
    let spec = robust(Combine::TrimmedMean { groups: 8, trim: 1, guard: Some(10.0) });
    let steady = Habits::default();
    let slow = Habits { slow: Duration::from_millis(10), ..steady };
    let dying = Habits { dies_after: Some(3), ..steady };
    let (_, alone, accuracy) = train(&spec, &[steady]).await;
    assert!(accuracy > 0.85, "accuracy {accuracy}");
    let (_, three, _) = train(&spec, &[dying, slow, steady]).await;
    assert_eq!(alone, three);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_most_groups_are_spoilt_the_job_fails_and_says_so() {
    let poison = Some(Poison { below: u32::MAX, factor: f32::NAN, after: 0 });
    let spec = robust(Combine::TrimmedMean { groups: 8, trim: 1, guard: None });
    let (row, _, _) = train(&spec, &[Habits { poison, ..Habits::default() }]).await;
    assert_eq!((row.phase, row.cause), (JobPhase::Failed, Some(Cause::NotFinite)));
    let reason = row.reason.expect("a sentence");
    assert!(reason.contains("only 0 of 8 groups"), "{reason}");
}
