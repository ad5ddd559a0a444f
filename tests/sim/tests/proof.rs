//! Networks with cheats: the model is the one that honest contributors make,
//! nobody honest is excluded, and cheats earn next to nothing.

use raven_engine::{JobPhase, JobPlan, Payer, Proof, Verification};
use raven_protocol::{JobId, Numerics};
use raven_sim::faults::{Faults, MS, SECOND};
use raven_sim::plans::Replica;
use raven_sim::proofs::{Crowd, Work, measure};
use raven_sim::shell::Story;
use raven_sim::{About, Adversary, Lie, NodeSpec, Outcome, Scenario};

/// 40 rounds in 4 epochs, 16 micro-batches each.
fn plan(verification: Verification) -> JobPlan {
    let sizes =
        Replica { rows: 5_120, batch: 512, micro_batch: 32, epochs: 4, ..Replica::default() };
    JobPlan { verification, ..sizes.plan(1, 42, 0) }
}

fn run(plan: &JobPlan, nodes: Vec<NodeSpec>, faults: Faults, seed: u64) -> Outcome {
    let mut scenario = Scenario::new(seed);
    scenario.nodes = nodes;
    scenario.faults = faults;
    scenario.jobs = vec![(0, plan.clone(), Story::default())];
    scenario.until_us = 100_000 * SECOND;
    scenario.run()
}

fn weights(outcome: &Outcome) -> u64 {
    let job = &outcome.jobs[&JobId(1)];
    assert_eq!(job.state.phase(), JobPhase::Completed, "{:?}", job.state);
    job.weights.expect("a completed job has weights")
}

fn crowd(honest: usize, cheats: &[Adversary]) -> Vec<NodeSpec> {
    let cheat = |&adversary| NodeSpec { adversary: Some(adversary), ..NodeSpec::PLAIN };
    std::iter::repeat_n(NodeSpec::PLAIN, honest).chain(cheats.iter().map(cheat)).collect()
}

fn calm() -> Faults {
    Faults { effect_us_min: MS, effect_us_max: 30 * MS, jitter: 0.2, ..Faults::NONE }
}

const LIES: [Lie; 8] = [
    Lie::Noise,
    Lie::Flipped,
    Lie::Scaled,
    Lie::Zero,
    Lie::Stale,
    Lie::Colluding { group: 7 },
    Lie::Withheld,
    Lie::Invalid,
];

#[test]
fn honest_contributors_alone_come_to_the_same_bits_in_every_mode() {
    let expected = weights(&run(&plan(Verification::None), crowd(1, &[]), calm(), 1));
    for verification in Verification::ALL {
        for size in [1, 2, 3, 8, 30] {
            let outcome = run(&plan(verification), crowd(size, &[]), calm(), size as u64);
            assert_eq!(weights(&outcome), expected, "{verification:?} with {size}");
            assert_eq!(outcome.stats.lies_proven, 0);
            assert_eq!(outcome.stats.rollbacks, 0);
            let stats = &outcome.stats;
            println!(
                "{verification:?} with {size}: paid {:.3}, referee {:.3}, executed {:.3} of the tasks, {} unpaid",
                stats.flops_paid as f64 / stats.flops_accepted as f64,
                stats.referee_flops as f64 / stats.flops_accepted as f64,
                outcome.truth.executed as f64 / stats.flops_accepted as f64,
                stats.unpaid,
            );
        }
    }
}

#[test]
fn no_lie_reaches_a_model() {
    let expected = weights(&run(&plan(Verification::None), crowd(1, &[]), calm(), 1));
    for verification in [Verification::Triple, Verification::Adaptive] {
        for lie in LIES {
            for honest_first in [0, 12] {
                for seed in 0..3 {
                    let cheat = Adversary { honest_first, ..Adversary::always(lie) };
                    let outcome = run(&plan(verification), crowd(8, &[cheat; 4]), calm(), seed);
                    let what =
                        format!("{verification:?} {lie:?} after {honest_first}, seed {seed}");
                    assert_eq!(weights(&outcome), expected, "{what}");
                    assert!(outcome.truth.wronged.is_empty(), "{what}");
                    let lied = outcome.truth.lies.len();
                    assert_eq!(outcome.truth.excluded.len(), lied, "{what}");
                    let paid: u64 = outcome
                        .records
                        .values()
                        .flatten()
                        .flat_map(|record| &record.credits)
                        .filter(|credit| credit.payer == Payer::Job)
                        .map(|credit| credit.flops)
                        .sum();
                    println!(
                        "{what}: {} lies, {} combined, {} rollbacks, paid {:.2}",
                        outcome.truth.lies.values().sum::<u64>(),
                        outcome.truth.combined,
                        outcome.stats.rollbacks,
                        paid as f64 / outcome.stats.flops_accepted as f64,
                    );
                }
            }
        }
    }
}

/// The same in placement `master`: eight parts of each of three stages, of which two are products.
fn sliced(verification: Verification) -> JobPlan {
    let sizes =
        Replica { rows: 5_120, batch: 512, micro_batch: 32, epochs: 4, ..Replica::default() };
    JobPlan { verification, ..sizes.master(1, 42, 8, 8) }
}

#[test]
fn no_lie_about_a_product_reaches_a_model_that_stays_with_its_master() {
    let expected = weights(&run(&sliced(Verification::None), crowd(1, &[]), calm(), 1));
    let mut singles = 0;
    for lie in LIES {
        for honest_first in [0, 12, 40] {
            for seed in 0..3 {
                let about = About::Products;
                let cheat = Adversary { honest_first, about, ..Adversary::always(lie) };
                let outcome =
                    run(&sliced(Verification::Adaptive), crowd(8, &[cheat; 4]), calm(), seed);
                let what = format!("{lie:?} after {honest_first}, seed {seed}");
                assert_eq!(weights(&outcome), expected, "{what}");
                assert_eq!(outcome.truth.combined, 0, "{what}: found before it counts");
                assert!(outcome.truth.wronged.is_empty(), "{what}");
                assert_eq!(outcome.truth.excluded.len(), outcome.truth.lies.len(), "{what}");
                let credits = outcome.records.values().flatten().flat_map(|record| &record.credits);
                singles += credits.filter(|credit| credit.proof == Proof::Single).count();
            }
        }
    }
    assert!(singles > 10_000, "most results are accepted singly: {singles}");
}

/// Of parts that probes say nothing about, the referee computes some while their stage is open.
#[test]
fn whoever_lies_about_other_parts_is_found_by_the_referee_and_undone() {
    let expected = weights(&run(&sliced(Verification::None), crowd(1, &[]), calm(), 1));
    let mut combined = 0;
    for seed in 0..10 {
        let cheat =
            Adversary { honest_first: 30, about: About::Others, ..Adversary::always(Lie::Flipped) };
        let outcome = run(&sliced(Verification::Adaptive), crowd(8, &[cheat; 2]), calm(), seed);
        assert_eq!(outcome.truth.excluded.len(), 2, "seed {seed}");
        assert!(outcome.truth.wronged.is_empty(), "seed {seed}");
        // Whoever goes on lying is found after ten lies on average; with them all that is not
        // settled is undone.
        let lies = outcome.truth.lies.values().copied().max().unwrap_or(0);
        let standing = outcome.truth.standing.len();
        println!("seed {seed}: at most {lies} lies, {standing} in the model");
        assert!(lies < 80, "seed {seed}: {lies}");
        assert_eq!(weights(&outcome) == expected, standing == 0, "seed {seed}");
        combined += outcome.truth.combined;
    }
    assert!(combined > 0, "some lies are accepted first, or nothing is undone here");
}

/// Honest contributors of placement `master`, with epochs as short as ten rounds.
#[test]
fn audits_of_parts_are_few() {
    for (numerics, most) in [(Numerics::Strict, 0.12), (Numerics::Relaxed, 0.10)] {
        let plan = JobPlan { numerics, ..sliced(Verification::Adaptive) };
        let plain = run(&plan, crowd(8, &[]), calm(), 3);
        let stats = &plain.stats;
        let part = stats.referee_flops as f64 / stats.flops_accepted as f64;
        println!("{numerics:?}: the referee computes {part:.4} of the work");
        assert!(part > 0.01 && part < most, "{numerics:?}: {part}");
    }
}

#[test]
fn who_withholds_what_it_committed_to_takes_nobodys_pay() {
    let work = Work { master: false, tasks: 32, rounds: 80, epochs: 4 };
    let expected = work.expected();
    // What a mode computes at most, for all that are late.
    for (verification, overhead_max) in [(Verification::Triple, 3.2), (Verification::Adaptive, 1.5)]
    {
        for cheating in [0.2, 0.4] {
            let crowd = Crowd { size: 120, ephemeral: 0.3, cheating };
            let lorises = [Adversary::always(Lie::Withheld)];
            let figures = measure(work, crowd, &lorises, verification, 1, expected);
            let what = format!("{verification:?} with {cheating}: {figures:?}");
            assert!(figures.right && figures.wronged == 0, "{what}");
            assert!(figures.unpaid < 0.005, "{what}");
            assert!(figures.overhead < overhead_max, "{what}");
        }
    }
}

#[test]
fn a_job_that_is_cancelled_pays_no_lie_that_was_not_looked_at_before() {
    let plan = plan(Verification::Adaptive);
    let (mut ended, mut found) = (0, 0);
    for seed in 0..60 {
        let cheat = Adversary { honest_first: 14, ..Adversary::always(Lie::Noise) };
        let mut scenario = Scenario::new(seed);
        scenario.nodes = crowd(5, &[cheat; 3]);
        scenario.faults = calm();
        scenario.jobs = vec![(0, plan.clone(), Story::default())];
        scenario.cancels = vec![(2 * SECOND + seed * 100 * MS, JobId(1))];
        scenario.until_us = 100_000 * SECOND;
        let outcome = scenario.run();
        let records = &outcome.records[&JobId(1)];
        let last = records.last().expect("an end");
        ended += u32::from(last.phase == JobPhase::Cancelled);
        found += last.voids.len();
        let void: std::collections::BTreeSet<_> = records
            .iter()
            .flat_map(|record| &record.voids)
            .map(|void| (void.task, void.attempt, void.contributor))
            .collect();
        let lies = &outcome.truth.false_results;
        for credit in records.iter().flat_map(|record| &record.credits) {
            let is_void = void.contains(&(credit.task, credit.attempt, credit.contributor));
            let is_lie = lies.contains_key(&(credit.task, credit.digest));
            assert!(!is_lie || is_void, "seed {seed}: {credit:?} is paid");
        }
        // What is kept of it holds no lie either.
        assert!(outcome.truth.standing.is_empty(), "seed {seed}");
    }
    println!("{ended} were cancelled, {found} lies were found at the end");
    assert!(ended > 20 && found > 0, "{ended} {found}");
}
