//! Jobs whose loss diverges: they go back to their last checkpoint at a lower
//! learning rate, the same way whatever happens around them, or end.

use raven_engine::{
    Cause, Divergence, JobPhase, JobPlan, JobState, LossMonitor, Patience, Payer, Record,
    ResumePoint, Spent, Verification,
};
use raven_protocol::JobId;
use raven_sim::faults::{Faults, MS, SECOND};
use raven_sim::plans::Replica;
use raven_sim::shell::Story;
use raven_sim::{Adversary, Lie, NodeSpec, Outcome, Scenario};
use std::collections::BTreeMap;

const JOB: JobId = JobId(1);
const RULE: Divergence =
    Divergence { factor: 4.0, window: 2, setbacks_max: 2, learning_rate_factor: 0.5 };

/// 16 rounds in 4 epochs.
fn plan(rule: Divergence, verification: Verification) -> JobPlan {
    let sizes = Replica {
        rows: 512,
        batch: 128,
        micro_batch: 16,
        epochs: 4,
        divergence: Some(rule),
        ..Replica::default()
    };
    JobPlan { verification, ..sizes.plan(1, 7, 0) }
}

/// Explodes from that step on, above that learning rate; the schedule has 0.05.
fn explodes(step: u32, rate: f32) -> Story {
    Story { explodes: Some((step, rate)), ..Story::default() }
}

fn scenario(plan: JobPlan, story: Story, nodes: usize) -> Scenario {
    let mut scenario = Scenario::new(3);
    scenario.nodes = vec![NodeSpec::PLAIN; nodes];
    scenario.jobs = vec![(0, plan, story)];
    scenario.until_us = 100_000 * SECOND;
    scenario
}

/// Steps that were done, and their learning rates.
fn steps(outcome: &Outcome) -> Vec<(u32, f32)> {
    let records = outcome.records[&JOB].iter();
    records.filter_map(|record| Some((record.step, record.learning_rate?))).collect()
}

/// Steps that diverged, and where the job began again.
fn setbacks(outcome: &Outcome) -> Vec<(u32, u32)> {
    let records = outcome.records[&JOB].iter();
    records.filter_map(|record| Some((record.set_back?.diverged_at, record.step))).collect()
}

#[test]
fn a_job_that_diverges_goes_back_to_its_checkpoint_with_a_lower_rate() {
    let outcome = scenario(plan(RULE, Verification::None), explodes(7, 0.03), 2).run();
    let job = &outcome.jobs[&JOB];
    assert_eq!((job.state.phase(), job.steps), (JobPhase::Completed, 16));
    assert_eq!(setbacks(&outcome), [(7, 4)], "step 7 led back to the end of the first epoch");
    let expected: Vec<(u32, f32)> =
        (1..=6).map(|step| (step, 0.05)).chain((5..=16).map(|step| (step, 0.025))).collect();
    assert_eq!(steps(&outcome), expected);
    // All that was done is paid by the job: it was right.
    let credits = outcome.records[&JOB].iter().flat_map(|record| &record.credits);
    let paid: Vec<_> = credits.filter(|credit| credit.payer == Payer::Job).collect();
    let flops: u64 = paid.iter().map(|credit| credit.flops).sum();
    assert_eq!(flops, (7 + 12) * 8 * 500_000_000);
    assert!(paid.iter().all(|credit| credit.attempt == u32::from(credit.task.round >= 4)
        || (credit.attempt == 0 && credit.task.round < 7)));
    assert_eq!(outcome.stats.setbacks, 1);
}

#[test]
fn each_setback_counts_and_the_last_is_one_too_many() {
    let twice = scenario(plan(RULE, Verification::None), explodes(6, 0.015), 2).run();
    assert_eq!(setbacks(&twice), [(6, 4), (6, 4)]);
    assert_eq!(twice.jobs[&JOB].state.phase(), JobPhase::Completed);
    let never = scenario(plan(RULE, Verification::None), explodes(6, 0.001), 2).run();
    assert_eq!(setbacks(&never), [(6, 4), (6, 4)]);
    let JobState::Failed { cause, reason } = &never.jobs[&JOB].state else {
        panic!("{:?}", never.jobs[&JOB].state);
    };
    assert_eq!(*cause, Cause::Diverged);
    assert!(reason.starts_with("it diverges at step 6 after it went back 2 times: "), "{reason}");
    // What was trained before it is kept.
    let last = never.records[&JOB].last().expect("an end");
    assert_eq!((last.step, last.checkpoint), (5, true));
    let none = Divergence { setbacks_max: 0, ..RULE };
    let stops = scenario(plan(none, Verification::None), explodes(6, 0.001), 2).run();
    assert_eq!(stops.jobs[&JOB].state.cause(), Some(Cause::Diverged));
    assert_eq!(stops.stats.setbacks, 0);
}

#[test]
fn what_is_no_number_is_divergence_from_the_first_step_on() {
    let story = Story { nan_at_step: Some(1), ..Story::default() };
    let outcome = scenario(plan(RULE, Verification::None), story, 2).run();
    assert_eq!(setbacks(&outcome), [(1, 0), (1, 0)]);
    let JobState::Failed { cause: Cause::Diverged, reason } = &outcome.jobs[&JOB].state else {
        panic!("{:?}", outcome.jobs[&JOB].state);
    };
    assert!(reason.contains("the loss became NaN"), "{reason}");
}

#[test]
fn going_back_is_the_same_whoever_contributes_and_whoever_lies() {
    let expected = scenario(plan(RULE, Verification::None), explodes(7, 0.015), 1).run();
    let expected = (expected.jobs[&JOB].weights, setbacks(&expected).len());
    for verification in [Verification::Triple, Verification::Adaptive] {
        for seed in 0..6 {
            let mut scenario = scenario(plan(RULE, verification), explodes(7, 0.015), 12);
            scenario.seed = seed;
            scenario.engine.seed = seed;
            scenario.faults =
                Faults { effect_us_min: MS, effect_us_max: 30 * MS, jitter: 0.3, ..Faults::NONE };
            for node in &mut scenario.nodes[..4] {
                let liar = Adversary { honest_first: 8, ..Adversary::always(Lie::Flipped) };
                node.adversary = Some(liar);
            }
            let outcome = scenario.run();
            let found = (outcome.jobs[&JOB].weights, setbacks(&outcome).len());
            assert_eq!(found, expected, "{verification:?}, seed {seed}");
        }
    }
}

/// Where a coordinator that stops after these records goes on.
fn resume_after(records: &[Record]) -> Option<ResumePoint> {
    let (mut losses, mut setbacks) = (Vec::new(), Vec::new());
    let (mut point, mut epochs_done, mut best, mut rounds) = (None, 0, None, 0);
    for record in records {
        rounds = rounds.max(record.step);
        if let Some(train) = record.train {
            losses.push(train.loss_sum / train.count);
        }
        if record.set_back.is_some() {
            losses.truncate(record.step as usize);
            setbacks.push(record.step);
            rounds = record.step;
        }
        if let (Some(metrics), Some(weights)) = (record.evaluation, record.weights) {
            epochs_done += 1;
            best = Some((metrics.loss_sum / metrics.count, weights));
        }
        if let Some(weights) = record.weights.filter(|_| record.checkpoint) {
            point = Some((weights, record.step, epochs_done, best));
        }
    }
    let (weights, step, epochs_done, best) = point?;
    let mut monitor = LossMonitor::default();
    for (round, &loss) in (0..step).zip(&losses) {
        monitor.observe(&RULE, &setbacks, round, loss);
    }
    Some(ResumePoint {
        open: Vec::new(),
        rollbacks: 0,
        attempt: 0,
        setbacks,
        losses: monitor,
        weights,
        step,
        epochs_done,
        best,
        patience: Patience { gain: best.map(|best| best.0), stale: 0 },
        shown: BTreeMap::new(),
        credited_rounds: rounds,
        spent: Spent::default(),
    })
}

#[test]
fn a_coordinator_that_stops_anywhere_comes_to_the_same_weights() {
    for verification in [Verification::None, Verification::Adaptive] {
        for story in [explodes(6, 0.03), explodes(7, 0.015), explodes(10, 0.03)] {
            let whole = scenario(plan(RULE, verification), story, 3).run();
            let records = &whole.records[&JOB];
            let back = setbacks(&whole).len();
            assert!(back > 0);
            for stopped in 1..records.len() {
                let Some(point) = resume_after(&records[..stopped]) else { continue };
                let before = point.setbacks.len();
                let mut again = scenario(plan(RULE, verification), story, 2);
                again.resumes.insert(JOB, point);
                let again = again.run();
                let what = format!("{verification:?} {story:?}: stopped after {stopped} records");
                assert_eq!(again.jobs[&JOB].weights, whole.jobs[&JOB].weights, "{what}");
                assert_eq!(setbacks(&again).len() + before, back, "{what}");
            }
        }
    }
}
