//! Networks with cheats: the model is the one that honest contributors make,
//! nobody honest is excluded, and cheats earn next to nothing.

use raven_engine::{JobPhase, JobPlan, Payer, Verification};
use raven_protocol::JobId;
use raven_sim::faults::{Faults, MS, SECOND};
use raven_sim::plans::Replica;
use raven_sim::proofs::{Crowd, Work, measure};
use raven_sim::shell::Story;
use raven_sim::{Adversary, Lie, NodeSpec, Outcome, Scenario};

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

const LIES: [Lie; 7] = [
    Lie::Noise,
    Lie::Flipped,
    Lie::Scaled,
    Lie::Zero,
    Lie::Stale,
    Lie::Colluding { group: 7 },
    Lie::Withheld,
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

#[test]
fn who_withholds_what_it_committed_to_takes_nobodys_pay() {
    let work = Work { tasks: 32, rounds: 80, epochs: 4 };
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
