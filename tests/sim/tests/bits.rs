//! The same job and seed end with the same weights, whoever contributes.

use raven_engine::{Algorithm, JobPhase, JobPlan};
use raven_protocol::JobId;
use raven_sim::faults::{Faults, MS, SECOND};
use raven_sim::network::LinkSpec;
use raven_sim::plans::Replica;
use raven_sim::rng::Rng;
use raven_sim::shell::Story;
use raven_sim::{NodeSpec, Scenario};

fn crowd(size: usize, seed: u64) -> Vec<NodeSpec> {
    let mut rng = Rng::new(seed);
    let node = |_| NodeSpec {
        workers: rng.between(1, 4) as u32,
        flops_per_s: rng.between(500_000_000, 20_000_000_000),
        share: 0.1 + 0.9 * rng.unit(),
        link: LinkSpec { latency_us: rng.between(MS, 200 * MS), ..LinkSpec::HOUSEHOLD },
        joins_at: rng.below(10 * SECOND),
        ..NodeSpec::PLAIN
    };
    (0..size).map(node).collect()
}

fn churn() -> Faults {
    Faults {
        message_loss: 0.002,
        crash_mean_us: 30 * SECOND,
        rejoin_mean_us: 5 * SECOND,
        notice_mean_us: 2 * SECOND,
        freeze_mean_us: 60 * SECOND,
        freeze_length_us: 20 * SECOND,
        pace_mean_us: 15 * SECOND,
        duplicate_commit: 0.05,
        early_result: 0.02,
        foreign_answer: 0.02,
        broken_commitment: 0.001,
        slow_factor: 20,
        slow_task: 0.02,
        jitter: 0.3,
        effect_us_min: MS,
        effect_us_max: 300 * MS,
        claim_factor: 10.0,
        ..Faults::NONE
    }
}

fn weights(plan: &JobPlan, nodes: Vec<NodeSpec>, faults: Faults, seed: u64) -> u64 {
    let mut scenario = Scenario::new(seed);
    scenario.nodes = nodes;
    scenario.faults = faults;
    scenario.jobs = vec![(0, plan.clone(), Story::default())];
    scenario.until_us = 100_000 * SECOND;
    let outcome = scenario.run();
    let job = &outcome.jobs[&JobId(1)];
    assert_eq!(job.state.phase(), JobPhase::Completed, "{:?}", job.state);
    job.weights.expect("a completed job has weights")
}

#[test]
fn replica_placement_with_1_2_4_and_200_contributors_and_churn() {
    // 29 micro-batches a batch and a last one of 7: no power of two fits.
    let sizes = Replica { rows: 1_500, batch: 29 * 16, micro_batch: 16, ..Replica::default() };
    let plan = sizes.plan(1, 42, 0);
    let expected = weights(&plan, vec![NodeSpec::PLAIN], Faults::NONE, 0);
    for size in [1, 2, 4, 200] {
        for seed in 0..3 {
            assert_eq!(
                weights(&plan, crowd(size, seed), churn(), seed),
                expected,
                "{size}, {seed}"
            );
        }
    }
    let other_seed = weights(&sizes.plan(1, 43, 0), vec![NodeSpec::PLAIN], Faults::NONE, 0);
    assert_ne!(other_seed, expected, "the weights depend on the job's seed");
}

#[test]
fn groups_are_never_crossed_and_their_sums_are_those_of_the_batch() {
    // Batches of 29 and 7 micro-batches: groups of 8 and 5, and of 2 and 1. The
    // auditor looks at every task that is leased.
    let sizes = Replica { rows: 1_500, batch: 29 * 16, micro_batch: 16, ..Replica::default() };
    let expected = weights(&sizes.plan(1, 42, 0), vec![NodeSpec::PLAIN], Faults::NONE, 0);
    let grouped = with_groups(sizes.plan(1, 42, 0), 4);
    for size in [1, 4, 60] {
        for seed in 0..3 {
            let found = weights(&grouped, crowd(size, seed), churn(), seed);
            assert_eq!(found, expected, "{size}, {seed}");
        }
    }
}

#[test]
fn more_groups_than_a_round_has_micro_batches_are_refused() {
    let sizes = Replica { rows: 1_500, batch: 29 * 16, micro_batch: 16, ..Replica::default() };
    for groups in [0, 3, 8] {
        let mut scenario = Scenario::new(1);
        let plan = with_groups(sizes.plan(1, 42, 0), groups);
        scenario.jobs = vec![(0, plan, Story::default())];
        let outcome = scenario.run();
        let state = format!("{:?}", outcome.jobs[&JobId(1)].state);
        assert!(state.contains("plan.groups") && state.contains("at most 7"), "{state}");
    }
}

fn with_groups(mut plan: JobPlan, groups: u32) -> JobPlan {
    let Algorithm::SyncSgd(sgd) = &mut plan.algorithm;
    sgd.groups = groups;
    plan
}

#[test]
fn master_placement_with_2_4_and_200_contributors_and_churn() {
    let sizes = Replica { rows: 600, batch: 100, micro_batch: 50, ..Replica::default() };
    let plan = Replica { flops: 50_000_000, ..sizes }.master(1, 42, 4, 2);
    let expected = weights(&plan, vec![NodeSpec::PLAIN; 2], Faults::NONE, 0);
    for size in [2, 4, 200] {
        for seed in 0..3 {
            assert_eq!(
                weights(&plan, crowd(size, seed), churn(), seed),
                expected,
                "{size}, {seed}"
            );
        }
    }
}
