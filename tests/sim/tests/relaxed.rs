//! Networks of GPUs with cheats: nobody honest is excluded, and what cheats did to
//! the model is bounded.

use raven_engine::{JobPhase, JobPlan, Stats, Verification};
use raven_protocol::{JobId, Numerics};
use raven_sim::faults::{Faults, MS, SECOND};
use raven_sim::plans::Replica;
use raven_sim::shell::Story;
use raven_sim::{Adversary, Lie, NodeSpec, Outcome, Scenario};

const JOB: JobId = JobId(1);
/// Of its norm an honest GPU's result is off at most.
const CEILING: f64 = 0.02;

/// 30 rounds in 3 epochs, 16 micro-batches each.
fn plan(verification: Verification) -> JobPlan {
    let numerics = Numerics::Relaxed;
    let sizes = Replica {
        rows: 5_120,
        batch: 512,
        micro_batch: 32,
        epochs: 3,
        numerics,
        ..Replica::default()
    };
    JobPlan { verification, ..sizes.plan(1, 42, 0) }
}

/// So many GPUs, each somebody's own, and so many processors. Cheats are spread among the GPUs.
fn crowd(gpus: usize, processors: usize, cheats: &[Adversary]) -> Vec<NodeSpec> {
    let gpu = |index: usize| NodeSpec {
        gpu_of: Some(index),
        flops_per_s: 40_000_000_000,
        // Seven and the numbers of GPUs have no divisor in common.
        adversary: cheats.get(index * 7 % gpus).copied(),
        ..NodeSpec::PLAIN
    };
    (0..gpus).map(gpu).chain(std::iter::repeat_n(NodeSpec::PLAIN, processors)).collect()
}

fn calm() -> Faults {
    Faults { effect_us_min: MS, effect_us_max: 30 * MS, jitter: 0.2, ..Faults::NONE }
}

fn run(verification: Verification, nodes: Vec<NodeSpec>, seed: u64) -> Outcome {
    let mut scenario = Scenario::new(seed);
    scenario.nodes = nodes;
    scenario.faults = calm();
    scenario.jobs = vec![(0, plan(verification), Story::default())];
    scenario.until_us = 100_000 * SECOND;
    let outcome = scenario.run();
    let job = &outcome.jobs[&JOB];
    assert_eq!(job.state.phase(), JobPhase::Completed, "{:?}", job.state);
    outcome
}

/// What results in the model are off: the most of one, and the mean over the job's tasks.
fn influence(outcome: &Outcome) -> (f64, f64) {
    let off = &outcome.truth.off;
    let most = off.values().copied().fold(0.0, f64::max);
    (most, off.values().sum::<f64>() / outcome.stats.tasks_accepted.max(1) as f64)
}

fn print(what: &str, outcome: &Outcome) {
    let Stats { panels, panels_split, doubted, referee_runs, tasks_accepted, .. } = outcome.stats;
    let (most, mean) = influence(outcome);
    println!(
        "{what}: {tasks_accepted} tasks, {panels} panels ({panels_split} split), {referee_runs} by the referee, \
         {doubted} doubted, {} lies, {} of {} liars excluded, off by {most:.1e} at most, {mean:.1e} on average, \
         tolerance {:.1e}, {} rollbacks, {} unpaid",
        outcome.truth.lies.values().sum::<u64>(),
        outcome.truth.excluded.len(),
        outcome.truth.lies.len(),
        outcome.truth.tolerance,
        outcome.stats.rollbacks,
        outcome.stats.unpaid,
    );
}

#[test]
fn honest_gpus_confirm_each_other_and_the_referee_steps_back() {
    for verification in [Verification::Adaptive, Verification::Triple] {
        for (gpus, processors) in [(2, 0), (3, 0), (4, 4), (1, 3), (12, 0)] {
            let outcome = run(verification, crowd(gpus, processors, &[]), gpus as u64);
            let what = format!("{verification:?} with {gpus} GPUs, {processors} processors");
            print(&what, &outcome);
            let Stats { panels, panels_split, referee_runs, tasks_accepted, lies_proven, .. } =
                outcome.stats;
            assert_eq!((lies_proven, outcome.truth.wronged.len()), (0, 0), "{what}");
            assert!(influence(&outcome).0 <= CEILING, "{what}");
            let needed = if verification == Verification::Triple { 3 } else { 2 };
            if gpus >= needed {
                assert!(panels > 0, "{what}");
            }
            if verification == Verification::Triple && gpus + processors >= needed {
                // Once they are vetted, all but samples and kinks is theirs to confirm.
                assert!(panels > tasks_accepted / 2, "{what}: {panels} of {tasks_accepted}");
                assert!(referee_runs < tasks_accepted / 2, "{what}: {referee_runs}");
            }
            assert!(panels_split <= 1 + panels / 10, "{what}: {panels_split} of {panels}");
        }
    }
}

#[test]
fn what_cheats_do_to_a_model_is_bounded_and_nobody_honest_is_excluded() {
    let lies = [
        Lie::Noise,
        Lie::Flipped,
        Lie::Scaled,
        Lie::Zero,
        Lie::Stale,
        Lie::Colluding { group: 7 },
        Lie::Withheld,
        Lie::Feigned,
        Lie::Within,
        Lie::Kinked,
    ];
    for verification in [Verification::Triple, Verification::Adaptive] {
        for cheating in [1, 4, 8] {
            // Of twenty GPUs, beside five processors.
            for (seed, lie) in (0..).zip(lies) {
                for honest_first in [0, 30] {
                    let cheat = Adversary { honest_first, ..Adversary::always(lie) };
                    let nodes = crowd(20, 5, &vec![cheat; cheating]);
                    let outcome = run(verification, nodes, seed);
                    let what =
                        format!("{verification:?}, {cheating} of 20: {lie:?} after {honest_first}");
                    print(&what, &outcome);
                    assert!(outcome.truth.wronged.is_empty(), "{what}");
                    assert!(outcome.truth.standing.is_empty(), "{what}: a lie is in the model");
                    let (most, mean) = influence(&outcome);
                    assert!(most <= CEILING, "{what}: {most}");
                    assert!(mean <= CEILING * cheating as f64 / 20.0, "{what}: {mean}");
                }
            }
        }
    }
}

#[test]
fn a_payload_that_is_not_what_was_projected_is_a_lie() {
    let cheat = Adversary { honest_first: 20, ..Adversary::always(Lie::Feigned) };
    let outcome = run(Verification::Triple, crowd(4, 0, &[cheat]), 5);
    print("feigned projections", &outcome);
    assert_eq!(outcome.truth.excluded.len(), 1);
    assert!(outcome.stats.broken_commitments > 0, "it was found by its payload");
}

#[test]
fn whoever_answers_no_projection_is_not_waited_for() {
    let cheat = Adversary { honest_first: 20, ..Adversary::always(Lie::Withheld) };
    let outcome = run(Verification::Triple, crowd(5, 0, &[cheat]), 6);
    print("withheld projections", &outcome);
    assert!(outcome.stats.leases_expired > 0);
    assert!(outcome.truth.excluded.is_empty(), "silence proves nothing");
}

#[test]
fn a_minority_just_inside_the_bounds_does_not_move_them() {
    let outcome =
        run(Verification::Adaptive, crowd(20, 0, &[Adversary::always(Lie::Within); 8]), 9);
    print("within the bounds", &outcome);
    assert!(outcome.truth.tolerance < 1e-3, "{}", outcome.truth.tolerance);
    assert!(outcome.stats.doubted > 0);
    // Nobody vets them, so that what the referee came to is what counts.
    assert!(influence(&outcome).1 < CEILING / 20.0);
}

#[test]
fn whoever_is_always_as_far_off_as_a_kink_may_be_loses_its_trust_for_good() {
    for verification in [Verification::Adaptive, Verification::Triple] {
        for honest_first in [0, 15] {
            let cheat = Adversary { honest_first, ..Adversary::always(Lie::Kinked) };
            let outcome = run(verification, crowd(5, 0, &[cheat]), 11);
            let what = format!("{verification:?}, kinks after {honest_first}");
            print(&what, &outcome);
            let excluded = outcome.truth.excluded.len();
            assert_eq!((excluded, outcome.truth.wronged.len()), (1, 0), "{what}");
            assert!(outcome.truth.standing.is_empty(), "{what}");
            assert!(influence(&outcome).0 <= CEILING, "{what}");
        }
    }
}
