//! Jobs on processors and GPUs: who gets which work.

use raven_engine::{JobPhase, JobState};
use raven_protocol::{Backend, JobId, Numerics};
use raven_sim::faults::SECOND;
use raven_sim::plans::Replica;
use raven_sim::shell::Story;
use raven_sim::sim::Outcome;
use raven_sim::{NodeSpec, Scenario};
use std::collections::BTreeSet;

const JOB: JobId = JobId(1);

fn sizes(numerics: Numerics) -> Replica {
    Replica { rows: 512, batch: 128, micro_batch: 32, epochs: 4, numerics, ..Replica::default() }
}

/// A network with the job of that plan.
fn scenario(nodes: Vec<NodeSpec>, plan: raven_engine::JobPlan) -> Scenario {
    let mut scenario = Scenario::new(3);
    scenario.nodes = nodes;
    scenario.jobs = vec![(0, plan, Story::default())];
    scenario
}

/// One device with a processor and a GPU of forty times its speed.
fn with_gpu(numerics: Numerics, gpu: NodeSpec) -> Scenario {
    let gpu = NodeSpec { gpu_of: Some(0), flops_per_s: 400_000_000_000, ..gpu };
    scenario(vec![NodeSpec::PLAIN, gpu], sizes(numerics).plan(1, 7, 0))
}

fn completed(outcome: &Outcome) {
    assert_eq!(outcome.jobs[&JOB].state.phase(), JobPhase::Completed);
}

#[test]
fn a_relaxed_job_goes_to_the_gpu_and_a_strict_one_to_the_processor() {
    let relaxed = with_gpu(Numerics::Relaxed, NodeSpec::PLAIN).run();
    completed(&relaxed);
    assert_eq!(relaxed.tasks_by_node[0], 0, "its weights would come twice");
    let strict = with_gpu(Numerics::Strict, NodeSpec::PLAIN).run();
    completed(&strict);
    assert_eq!(strict.tasks_by_node[1], 0);
    let backends = |outcome: &Outcome| -> BTreeSet<Backend> {
        outcome.records[&JOB].iter().flat_map(|r| &r.credits).map(|c| c.backend).collect()
    };
    assert_eq!(backends(&relaxed), BTreeSet::from([Backend::Gpu]));
    assert_eq!(backends(&strict), BTreeSet::from([Backend::Cpu]));
}

#[test]
fn the_processor_does_what_its_gpu_cannot() {
    // It freezes for good in the middle.
    let lost = NodeSpec { freezes_at: Some(SECOND / 2), ..NodeSpec::PLAIN };
    let lost = with_gpu(Numerics::Relaxed, lost).run();
    completed(&lost);
    assert!(lost.tasks_by_node.iter().all(|&tasks| tasks > 0), "{:?}", lost.tasks_by_node);
    // Every task is too large for it.
    let refusing = NodeSpec { refuses: true, ..NodeSpec::PLAIN };
    let refused = with_gpu(Numerics::Relaxed, refusing).run();
    completed(&refused);
    assert_eq!(refused.tasks_by_node[1], 0);
    // The same where the weights are cut: the processors may be shown their slices.
    let gpus = [0, 1].map(|owner| NodeSpec { gpu_of: Some(owner), ..refusing });
    let nodes = [NodeSpec::PLAIN; 2].into_iter().chain(gpus).collect();
    completed(&scenario(nodes, sizes(Numerics::Relaxed).master(1, 7, 4, 2)).run());
    // It is slow.
    let mut slow = with_gpu(Numerics::Relaxed, NodeSpec::PLAIN);
    slow.nodes[1].flops_per_s = 100_000_000;
    let slow = slow.run();
    completed(&slow);
    assert!(slow.tasks_by_node[0] > 5 * slow.tasks_by_node[1], "{:?}", slow.tasks_by_node);
    // It has no room for a task.
    let small = with_gpu(Numerics::Relaxed, NodeSpec { memory_bytes: 1 << 20, ..NodeSpec::PLAIN });
    let small = small.run();
    completed(&small);
    assert_eq!(small.tasks_by_node[1], 0);
}

#[test]
fn a_strict_job_with_gpus_alone_waits_and_says_why() {
    let mut scenario = with_gpu(Numerics::Strict, NodeSpec::PLAIN);
    // The processor never comes.
    scenario.nodes[0].joins_at = 10_000 * SECOND;
    scenario.until_us = 20 * SECOND;
    let outcome = scenario.run();
    let state = &outcome.jobs[&JOB].state;
    let JobState::WaitingForContributors { reason } = state else { panic!("{state:?}") };
    assert!(reason.contains("only graphics processors"), "{reason}");
}

#[test]
fn one_contributor_has_a_few_gpus_at_most() {
    let gpu = NodeSpec { gpu_of: Some(0), ..NodeSpec::PLAIN };
    let crowd = |gpus: usize| {
        let nodes = [NodeSpec::PLAIN].into_iter().chain(vec![gpu; gpus]).collect();
        let outcome = scenario(nodes, sizes(Numerics::Relaxed).plan(1, 7, 0)).run();
        completed(&outcome);
        outcome.stats.sessions_refused
    };
    assert_eq!(crowd(4), 0);
    assert!(crowd(5) > 0);
}
