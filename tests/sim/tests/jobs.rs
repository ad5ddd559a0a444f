//! How jobs begin, wait and end, one story each.

use raven_engine::ledger::pay;
use raven_engine::money::{Charge, Flops, NanoUsd};
use raven_engine::rates;
use raven_engine::{
    Allowance, Budget, Cause, CompletedReason, ContributorId, EarlyStopping, EngineConfig,
    Fallback, JobPhase, JobState, LossMonitor, Patience, Payer, Record, ResumePoint, Spent, Terms,
    Verification,
};
use raven_protocol::{BlobId, DeviceClass, JobId};
use raven_sim::faults::{Faults, MS, SECOND};
use raven_sim::node::contributor;
use raven_sim::plans::Replica;
use raven_sim::shell::Story;
use raven_sim::sim::JobOutcome;
use raven_sim::{NodeSpec, Scenario};
use std::collections::{BTreeMap, BTreeSet};

const JOB: JobId = JobId(1);

fn sizes() -> Replica {
    Replica { rows: 512, batch: 128, micro_batch: 32, epochs: 4, ..Replica::default() }
}

fn scenario(nodes: usize, story: Story) -> Scenario {
    let mut scenario = Scenario::new(3);
    scenario.nodes = vec![NodeSpec::PLAIN; nodes];
    scenario.jobs = vec![(0, sizes().plan(1, 7, 0), story)];
    scenario
}

fn run(scenario: Scenario) -> (JobOutcome, Vec<Record>) {
    let mut outcome = scenario.run();
    let job = outcome.jobs.remove(&JOB).expect("the job is known");
    (job, outcome.records.remove(&JOB).unwrap_or_default())
}

#[test]
fn a_job_runs_its_epochs_and_keeps_its_checkpoints() {
    let (job, records) = run(scenario(2, Story::default()));
    assert_eq!(job.state, JobState::Completed { reason: CompletedReason::EpochsDone });
    assert_eq!((job.steps, job.step_times.len()), (16, 16));
    // One record for the first weights, one per step, one per evaluation.
    assert_eq!(records.len(), 1 + 16 + 4);
    let evaluations: Vec<&Record> = records.iter().filter(|r| r.evaluation.is_some()).collect();
    assert_eq!(
        evaluations.iter().map(|r| (r.epoch, r.step)).collect::<Vec<_>>(),
        [(0, 4), (1, 8), (2, 12), (3, 16)]
    );
    assert!(evaluations.iter().all(|record| record.checkpoint && record.best));
    assert!(records.iter().filter(|r| r.train.is_some()).all(|r| r.learning_rate == Some(0.05)));
    assert_eq!(records.last().map(|record| record.phase), Some(JobPhase::Completed));
}

#[test]
fn a_loss_that_is_not_a_number_ends_the_job_and_pays_the_round() {
    let (job, records) = run(scenario(2, Story { nan_at_step: Some(6), ..Story::default() }));
    let reason = "the loss became NaN at step 6".to_owned();
    assert_eq!(job.state, JobState::Failed { cause: Cause::NotFinite, reason });
    assert_eq!(job.steps, 5);
    let last = records.last().expect("an end is recorded");
    assert_eq!((last.phase, last.step, last.checkpoint), (JobPhase::Failed, 5, true));
    assert!(!last.credits.is_empty(), "the round that went wrong was worked for");
    assert_eq!(last.weights, records[records.len() - 2].weights, "the last good weights stay");
}

#[test]
fn early_stopping_ends_a_job_that_stands_still() {
    let mut scenario = scenario(2, Story { plateau_after: Some(1), ..Story::default() });
    let early_stopping = Some(EarlyStopping { patience: 1, min_delta: 0.0 });
    scenario.jobs[0].1 = Replica { epochs: 9, early_stopping, ..sizes() }.plan(1, 7, 0);
    let (job, records) = run(scenario);
    assert_eq!(job.state, JobState::Completed { reason: CompletedReason::EarlyStopped });
    // The first epoch is the best, one without improvement is tolerated, the second ends it.
    assert_eq!(job.steps, 3 * 4);
    let best: Vec<u32> = records.iter().filter(|r| r.best).map(|r| r.epoch).collect();
    assert_eq!(best, [0]);
}

/// Runs nine epochs with these losses and a patience of 1.
fn stopping_early(losses: &'static [f32], min_delta: f32) -> (JobOutcome, Vec<Record>) {
    let mut scenario = scenario(2, Story { losses: Some(losses), ..Story::default() });
    let early_stopping = Some(EarlyStopping { patience: 1, min_delta });
    scenario.jobs[0].1 = Replica { epochs: 9, early_stopping, ..sizes() }.plan(1, 7, 0);
    run(scenario)
}

#[test]
fn slow_and_steady_gains_do_not_stop_a_job_early() {
    // Every second epoch is lower by more than 0.15 than the last that was.
    let (job, records) = stopping_early(&[1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], 0.15);
    assert_eq!(job.state, JobState::Completed { reason: CompletedReason::EpochsDone });
    let best = records.iter().filter(|record| record.best).count();
    assert_eq!(best, 9, "each is better than the one before all the same");
    // Three epochs in a row gain too little together.
    let (job, _) = stopping_early(&[1.0, 0.95, 0.9, 0.86, 0.5, 0.5, 0.5, 0.5, 0.5], 0.15);
    assert_eq!(job.state, JobState::Completed { reason: CompletedReason::EarlyStopped });
    assert_eq!(job.steps, 3 * 4);
}

#[test]
fn an_end_that_the_store_does_not_take_is_offered_until_it_does() {
    // The record of a step fails, and so do the first offers of the end that follows from it.
    let mut broken = scenario(2, Story::default());
    let (whole, _) = run(broken.clone());
    let down = whole.took_us / 2;
    broken.faults = Faults { store_down: Some((down, down + 20 * SECOND)), ..Faults::NONE };
    let (job, records) = run(broken);
    assert_eq!(
        job.state,
        JobState::Failed { cause: Cause::Coordinator, reason: "store: the disk is full".into() }
    );
    // The auditor checks that the last of them became durable, with its credits.
    let ends: Vec<&Record> = records.iter().filter(|r| r.phase == JobPhase::Failed).collect();
    assert!(ends.len() > 2, "{} offers", ends.len());
    assert!(ends[0].checkpoint, "the first offers keep the newest weights");

    let mut refused = scenario(1, Story::default());
    refused.engine.jobs_max = 0;
    refused.faults = Faults { store_down: Some((0, 20 * SECOND)), ..Faults::NONE };
    let (job, records) = run(refused);
    assert_eq!(job.state.phase(), JobPhase::Failed);
    assert_eq!(records.len(), 2, "one that failed and one that did not");
}

#[test]
fn a_job_can_be_cancelled_at_any_time() {
    let (whole, _) = run(scenario(2, Story::default()));
    for tenth in 0..=12 {
        let mut scenario = scenario(2, Story::default());
        let at = whole.took_us * tenth / 10;
        scenario.cancels = vec![(at, JOB)];
        scenario.faults = Faults { effect_us_max: 400 * MS, ..Faults::NONE };
        let (job, records) = run(scenario);
        let last = records.last().expect("an end is recorded");
        assert!(job.state.is_end() && last.phase == job.state.phase(), "{:?}", job.state);
        assert!(job.state.phase() != JobPhase::Failed);
    }
}

#[test]
fn a_shell_that_fails_ends_the_job_with_its_reason() {
    let mut scenario = scenario(2, Story::default());
    scenario.faults = Faults { effect_failure: 1.0, ..Faults::NONE };
    let (job, _) = run(scenario);
    assert_eq!(
        job.state,
        JobState::Failed { cause: Cause::Coordinator, reason: "store: the disk is full".into() }
    );
}

#[test]
fn a_resumed_job_ends_with_the_same_weights() {
    let (whole, records) = run(scenario(2, Story::default()));
    let mut epochs_done = 0;
    let mut best = None;
    for record in &records[..records.len() - 1] {
        if let (Some(metrics), Some(weights)) = (record.evaluation, record.weights) {
            epochs_done += 1;
            best = Some((metrics.loss_sum / metrics.count, weights));
        }
        let Some(weights) = record.weights.filter(|_| record.checkpoint) else { continue };
        let mut scenario = scenario(3, Story::default());
        let (step, patience) = (record.step, Patience { gain: best.map(|best| best.0), stale: 0 });
        let point = ResumePoint { step, epochs_done, best, patience, ..point(weights, step) };
        scenario.resumes.insert(JOB, point);
        let (job, _) = run(scenario);
        assert_eq!(job.weights, whole.weights, "resumed at step {step}");
        assert_eq!(job.state.phase(), JobPhase::Completed);
    }
    assert_eq!(epochs_done, 3, "every checkpoint was tried");
}

#[test]
fn a_job_waits_with_a_reason_and_goes_on_when_somebody_comes() {
    let mut nobody = scenario(0, Story::default());
    nobody.until_us = 100 * SECOND;
    let (job, _) = run(nobody);
    let reason = "no contributor is online".to_owned();
    assert_eq!(job.state, JobState::WaitingForContributors { reason });

    let mut late = scenario(1, Story::default());
    late.nodes[0].joins_at = 50 * SECOND;
    let (job, _) = run(late);
    assert_eq!(job.state.phase(), JobPhase::Completed);
    assert!(job.took_us > 50 * SECOND);
}

#[test]
fn memory_is_respected() {
    let mut small = scenario(2, Story::default());
    small.until_us = 100 * SECOND;
    for node in &mut small.nodes {
        node.memory_bytes = 8 << 20;
    }
    let (job, _) = run(small);
    let JobState::WaitingForContributors { reason } = job.state else {
        panic!("{:?}", job.state);
    };
    assert!(reason.contains("bytes of memory"), "{reason}");

    // Room for one state, one run and one of four shards at a time: the
    // auditor checks that no more is ever held.
    let mut tight = scenario(2, Story::default());
    let data = Replica { row_bytes: 4_000, ..sizes() };
    tight.jobs[0].1 = data.plan(1, 7, 0);
    for node in &mut tight.nodes {
        node.memory_bytes = (8 << 20) + 2 * data.weights_bytes + 2 * 128 * 4_000;
    }
    let (job, _) = run(tight);
    assert_eq!(job.state.phase(), JobPhase::Completed, "{:?}", job.state);
}

#[test]
fn no_contributor_sees_more_slices_than_it_may() {
    for (nodes, held_max, completes) in [(1, 2, false), (2, 2, true), (3, 2, true), (1, 4, true)] {
        let mut scenario = scenario(nodes, Story::default());
        let sizes = Replica { epochs: 1, flops: 20_000_000, ..sizes() };
        scenario.jobs[0].1 = sizes.master(1, 7, 4, held_max);
        scenario.until_us = 1_000 * SECOND;
        let (job, _) = run(scenario);
        let completed = job.state.phase() == JobPhase::Completed;
        assert_eq!(completed, completes, "{nodes} hold {held_max} of 4 each: {:?}", job.state);
        if let JobState::WaitingForContributors { reason } = job.state {
            assert!(reason.contains("2 of 4 slices"), "{reason}");
        }
    }
}

#[test]
fn what_contributors_were_shown_counts_after_a_restart() {
    let sizes = Replica { epochs: 1, flops: 20_000_000, ..sizes() };
    let master = |nodes: usize| {
        let mut scenario = scenario(nodes, Story::default());
        scenario.jobs[0].1 = sizes.master(1, 7, 4, 2);
        scenario.until_us = 1_000 * SECOND;
        scenario
    };
    let (_, records) = run(master(2));
    let weights = records[0].weights.expect("the first weights");
    let resumed = |nodes: usize, shown: &[(usize, [u32; 2])]| {
        let shown = shown.iter().map(|&(node, slices)| (contributor(node), slices.into()));
        let shown: BTreeMap<ContributorId, BTreeSet<u32>> = shown.collect();
        let point = ResumePoint { shown, ..point(weights, 0) };
        let mut scenario = master(nodes);
        scenario.resumes.insert(JOB, point);
        run(scenario).0
    };
    // The auditor, which knows what was shown before, lets nobody see a third slice.
    assert_eq!(resumed(2, &[(0, [0, 1]), (1, [2, 3])]).state.phase(), JobPhase::Completed);
    // Both have seen the same half: the other needs a third contributor.
    let both = [(0, [0, 1]), (1, [0, 1])];
    assert_eq!(resumed(2, &both).state.phase(), JobPhase::WaitingForContributors);
    assert_eq!(resumed(3, &both).state.phase(), JobPhase::Completed);
}

#[test]
fn jobs_share_contributors_by_work() {
    let mut scenario = scenario(4, Story::default());
    // Rounds cost the same, micro-batches of one a tenth of the other's.
    let large = Replica { flops: 2_000_000_000, epochs: 100, rows: 4_096, batch: 1_024, ..sizes() };
    let small = Replica { flops: 200_000_000, rows: 40_960, batch: 10_240, ..large };
    scenario.jobs = vec![
        (0, large.plan(1, 7, 0), Story::default()),
        (0, small.plan(2, 8, 0), Story::default()),
    ];
    scenario.until_us = 120 * SECOND;
    let outcome = scenario.run();
    let done = |id| outcome.jobs[&JobId(id)].flops as f64;
    let ratio = done(1) / done(2);
    assert!((0.6..1.7).contains(&ratio), "the jobs got {} and {} flops", done(1), done(2));
}

#[test]
fn work_goes_by_speed_and_share() {
    let mut scenario = scenario(3, Story::default());
    scenario.jobs[0].1 = Replica { rows: 8192, batch: 4096, ..sizes() }.plan(1, 7, 0);
    scenario.nodes[1].flops_per_s *= 2;
    scenario.nodes[2].flops_per_s *= 4;
    scenario.nodes[2].share = 0.25;
    let outcome = scenario.run();
    let tasks: Vec<f64> = outcome.tasks_by_node.iter().map(|&tasks| tasks as f64).collect();
    let (double, same) = (tasks[1] / tasks[0], tasks[2] / tasks[0]);
    assert!((1.5..2.5).contains(&double), "{tasks:?}");
    assert!((0.7..1.4).contains(&same), "{tasks:?}");
}

#[test]
fn everybody_has_a_turn_where_a_round_has_fewer_tasks_than_contributors() {
    // Two runs a round at most; the third contributor is never the first to finish.
    let sizes = Replica { rows: 512, batch: 32, micro_batch: 16, epochs: 16, ..sizes() };
    let took = |nodes: Vec<NodeSpec>| {
        let mut scenario = scenario(0, Story::default());
        scenario.jobs[0].1 = sizes.plan(1, 7, 0);
        scenario.nodes = nodes;
        let mut outcome = scenario.run();
        let job = outcome.jobs.remove(&JOB).expect("the job is known");
        assert_eq!(job.state.phase(), JobPhase::Completed);
        (job.took_us, outcome.tasks_by_node)
    };
    let slow = NodeSpec { flops_per_s: NodeSpec::PLAIN.flops_per_s / 2, ..NodeSpec::PLAIN };
    let (alone_us, _) = took(vec![NodeSpec::PLAIN; 2]);
    let (took_us, tasks) = took(vec![NodeSpec::PLAIN, NodeSpec::PLAIN, slow]);
    println!("two: {alone_us} us; with a slower third: {took_us} us, tasks {tasks:?}");
    assert!(tasks[2] >= 2, "the third one is left out: {tasks:?}");
    assert!(tasks[0].min(tasks[1]) > tasks[2], "the faster ones do more: {tasks:?}");
    assert!(took_us <= alone_us + alone_us / 10, "turns cost too much");
}

/// A job has saved nothing for turns when it begins, however long the coordinator has run.
#[test]
fn a_young_job_affords_no_turns() {
    let sizes = Replica { rows: 64, batch: 32, micro_batch: 16, epochs: 1, ..sizes() };
    let mut scenario = scenario(3, Story::default());
    scenario.nodes[2].flops_per_s /= 4;
    scenario.jobs = vec![(3600 * SECOND, sizes.plan(1, 7, 0), Story::default())];
    scenario.until_us = 7200 * SECOND;
    let outcome = scenario.run();
    assert_eq!(outcome.jobs[&JOB].state.phase(), JobPhase::Completed);
    assert_eq!(outcome.tasks_by_node, [2, 2, 0]);
}

#[test]
fn bounds_turn_away_with_a_reason() {
    let mut scenario = scenario(5, Story::default());
    scenario.engine = EngineConfig { sessions_max: 2, jobs_max: 2, ..scenario.engine };
    scenario.faults = Faults { rejoin_mean_us: 5 * SECOND, ..Faults::NONE };
    for id in 2..=4 {
        scenario.jobs.push((MS, sizes().plan(id, 7, 0), Story::default()));
    }
    let outcome = scenario.run();
    assert!(outcome.stats.sessions_refused >= 3);
    assert_eq!(outcome.stats.jobs_refused, 2);
    let states: Vec<&JobState> = outcome.jobs.values().map(|job| &job.state).collect();
    let reason = "2 jobs are open, the limit is 2".to_owned();
    assert_eq!(
        states
            .iter()
            .filter(|s| ***s == JobState::Failed { cause: Cause::Refused, reason: reason.clone() })
            .count(),
        2
    );
}

#[test]
fn a_plan_that_does_not_fit_fails_by_field() {
    let mut scenario = scenario(1, Story::default());
    scenario.jobs[0].1 = Replica { batch: 7, micro_batch: 3, ..sizes() }.plan(1, 7, 0);
    let (job, records) = run(scenario);
    let JobState::Failed { reason, .. } = job.state else { panic!("{:?}", job.state) };
    assert!(reason.starts_with("plan.batch: 7 rows"), "{reason}");
    assert_eq!(records.len(), 1, "the refusal is durable");
}

/// The reference scenario under these terms.
fn under(nodes: usize, terms: Terms) -> Scenario {
    let mut scenario = scenario(nodes, Story::default());
    scenario.terms.insert(JOB, terms);
    scenario
}

fn round_flops() -> u64 {
    let sizes = sizes();
    sizes.flops * u64::from(sizes.batch / sizes.micro_batch)
}

#[test]
fn a_budget_is_never_exceeded_and_the_best_so_far_stays() {
    let rounds = 7;
    let flops = rounds * round_flops();
    // One operation less would be a round less.
    for (budget, done) in [
        (Budget::Flops(flops), rounds),
        (Budget::Flops(flops - 1), rounds - 1),
        (Budget::Flops(round_flops() - 1), 0),
        (Budget::Charge(Charge::of(Flops(flops), rates::HIGHEST)), 0),
    ] {
        let (job, records) = run(under(2, Terms { budget: Some(budget), ..Terms::default() }));
        let JobState::Failed { cause: Cause::Budget, .. } = job.state else {
            panic!("{budget:?}: {:?}", job.state);
        };
        let last = records.last().expect("an end");
        assert!(last.checkpoint && last.weights.is_some(), "what was trained is kept");
        match budget {
            Budget::Flops(most) => {
                assert!(job.flops <= most);
                assert_eq!(job.flops, done * round_flops(), "{budget:?}");
            }
            Budget::Charge(most) => {
                // Desktops cost less than the highest rate, so more than seven rounds are done.
                let credits = records.iter().flat_map(|record| &record.credits);
                let charge = credits.fold(Charge::default(), |sum, credit| {
                    sum.plus(Charge::of(Flops(credit.flops), credit.rate)).expect("small")
                });
                assert!(charge <= most && job.flops > flops, "{charge:?}");
            }
        }
    }
    let all = Budget::Flops(16 * round_flops());
    let (job, _) = run(under(2, Terms { budget: Some(all), ..Terms::default() }));
    assert_eq!(job.state.phase(), JobPhase::Completed);
}

/// At the beginning once more, after so many rounds were paid for.
fn point(weights: BlobId, credited_rounds: u32) -> ResumePoint {
    ResumePoint {
        rollbacks: 0,
        attempt: 0,
        setbacks: Vec::new(),
        losses: LossMonitor::default(),
        open: Vec::new(),
        weights,
        step: 0,
        epochs_done: 0,
        best: None,
        patience: Patience::default(),
        shown: BTreeMap::new(),
        credited_rounds,
        spent: Spent::default(),
    }
}

#[test]
fn a_job_that_holds_too_little_keeps_what_it_has_and_waits_till_its_deadline() {
    let rounds = 7;
    let cost = Charge::of(Flops(rounds * round_flops()), rates::HIGHEST);
    let escrow = pay::quote(cost, Allowance::ONE);
    for verification in [Verification::None, Verification::Adaptive] {
        let mut scenario = under(3, Terms { escrow, deadline: Some(500_000), ..Terms::default() });
        scenario.jobs[0].1.verification = verification;
        let (job, records) = run(scenario);
        assert_eq!(job.state.cause(), Some(Cause::Deadline));
        let pauses: Vec<&Record> =
            records.iter().filter(|record| record.phase == JobPhase::Paused).collect();
        let [paused] = pauses.as_slice() else { panic!("{} pauses", pauses.len()) };
        assert!(paused.checkpoint && paused.weights.is_some() && paused.step < 16);
        assert_eq!(job.steps, paused.step, "nobody works for it any more");
        let JobState::Paused { missing } = paused.state else { panic!("{:?}", paused.state) };
        assert!(missing.0 > 0);
        let credits = records.iter().flat_map(|record| &record.credits);
        let own = credits.filter(|credit| credit.payer == Payer::Job);
        let charge = own.fold(Charge::default(), |sum, credit| {
            sum.plus(Charge::of(Flops(credit.flops), credit.rate)).expect("small")
        });
        assert!(charge <= cost, "{verification:?} {charge:?}");
    }
}

#[test]
fn what_the_operator_pays_is_bounded() {
    let (_, records) = run(scenario(2, Story::default()));
    let first = records[0].weights.expect("the first weights");
    // All rounds were charged before a crash, so that the operator pays for them now.
    let done = |most: u64| {
        let mut scenario = under(
            2,
            Terms {
                operator_cost_max: Some(NanoUsd(i64::try_from(most).expect("small"))),
                ..Terms::default()
            },
        );
        scenario.resumes.insert(JOB, point(first, 16));
        run(scenario).0
    };
    let round = Charge::of(Flops(round_flops()), rates::rate(DeviceClass::Desktop));
    let round = round.rounded_up().expect("small").0.unsigned_abs();
    let job = done(5 * round);
    let JobState::Failed { cause: Cause::OperatorCost, reason } = job.state else {
        panic!("{:?}", job.state);
    };
    assert!(reason.contains("the limit is") && reason.contains("attempt number 1"), "{reason}");
    assert_eq!(job.steps, 6, "the round that came to the limit is done");
    assert_eq!(done(100 * round).state.phase(), JobPhase::Completed);
}

#[test]
fn a_budget_counts_rounds_once_over_restarts() {
    let (_, records) = run(scenario(2, Story::default()));
    let first = records[0].weights.expect("the first weights");
    let resumed = |credited_rounds: u32, budget_rounds: u64| {
        let spent = Spent { flops: 3 * round_flops(), ..Spent::default() };
        let point = ResumePoint { spent, ..point(first, credited_rounds) };
        let budget = Some(Budget::Flops(budget_rounds * round_flops()));
        let mut scenario = under(2, Terms { budget, ..Terms::default() });
        scenario.resumes.insert(JOB, point);
        run(scenario).0
    };
    // Three rounds run again for nothing, then two more are paid.
    let job = resumed(3, 5);
    assert_eq!(job.state.cause(), Some(Cause::Budget));
    assert_eq!(job.steps, 5);
    assert_eq!(resumed(3, 16).state.phase(), JobPhase::Completed);
    assert_eq!(resumed(0, 3).steps, 0, "nothing is left for a round that is not credited");
}

#[test]
fn a_budget_holds_for_placement_master_as_well() {
    let sizes = Replica { epochs: 1, flops: 20_000_000, ..sizes() };
    let mut whole = scenario(2, Story::default());
    whole.jobs[0].1 = sizes.master(1, 7, 4, 2);
    let (job, _) = run(whole.clone());
    assert_eq!(job.state.phase(), JobPhase::Completed);
    let budget = Some(Budget::Flops(job.flops - 1));
    whole.terms.insert(JOB, Terms { budget, ..Terms::default() });
    let (less, _) = run(whole);
    assert_eq!(less.state.cause(), Some(Cause::Budget));
    assert_eq!(less.steps, job.steps - 1, "no round is begun that cannot be paid");
    assert!(less.flops < job.flops);
}

#[test]
fn a_deadline_ends_a_job_wherever_it_stands() {
    let (whole, _) = run(scenario(2, Story::default()));
    for tenth in 1..10 {
        let at = whole.took_us * tenth / 10;
        let deadline = Some(at / MS);
        let (job, records) = run(under(2, Terms { deadline, ..Terms::default() }));
        assert_eq!(job.state.cause(), Some(Cause::Deadline), "{:?}", job.state);
        assert!(job.took_us + SECOND >= at && job.took_us <= at + SECOND, "{}", job.took_us);
        assert!(records.iter().any(|record| record.checkpoint));
    }
    let (job, _) = run(under(0, Terms { deadline: Some(5_000), ..Terms::default() }));
    assert_eq!(job.state.cause(), Some(Cause::Deadline), "waiting is no excuse");
    let deadline = Some(2 * whole.took_us / MS);
    let (job, _) = run(under(2, Terms { deadline, ..Terms::default() }));
    assert_eq!(job.state.phase(), JobPhase::Completed);
}

#[test]
fn a_job_that_nobody_works_on_falls_back_as_it_was_told() {
    let (whole, _) = run(scenario(2, Story::default()));
    let fallback = |fallback| Terms { fallback, fallback_after_ms: 30_000, ..Terms::default() };
    let with_operator = |nodes: usize, terms| {
        let mut scenario = under(nodes, terms);
        scenario.nodes.push(NodeSpec { operator: true, ..NodeSpec::PLAIN });
        scenario.until_us = 1_000 * SECOND;
        scenario
    };
    // Waiting goes on for ever, although the operator's node is there.
    let (job, _) = run(with_operator(0, fallback(Fallback::Wait)));
    let reason = "no contributor is online".to_owned();
    assert_eq!(job.state, JobState::WaitingForContributors { reason });
    let (job, _) = run(with_operator(0, fallback(Fallback::Cancel)));
    assert_eq!(job.state, JobState::Cancelled { cause: Cause::NoContributors });
    assert!((30..32).contains(&(job.took_us / SECOND)), "{}", job.took_us);
    let (job, records) = run(with_operator(0, fallback(Fallback::Operator)));
    assert_eq!(job.state.phase(), JobPhase::Completed);
    assert_eq!(job.weights, whole.weights, "the same bits as by contributors");
    assert!(job.took_us > 30 * SECOND);
    let credits: Vec<_> = records.iter().flat_map(|record| &record.credits).collect();
    assert!(!credits.is_empty() && credits.iter().all(|c| c.contributor == contributor(0)));
    // Where contributors are, nothing falls back.
    for kind in [Fallback::Cancel, Fallback::Operator] {
        let outcome = with_operator(2, fallback(kind)).run();
        assert_eq!(outcome.jobs[&JOB].state.phase(), JobPhase::Completed);
        assert_eq!(outcome.tasks_by_node[2], 0, "the operator's node was not called");
    }
}

#[test]
fn the_operators_node_makes_way_for_contributors() {
    let terms =
        Terms { fallback: Fallback::Operator, fallback_after_ms: 5_000, ..Terms::default() };
    let mut scenario = under(1, terms);
    scenario.jobs[0].1 = Replica { epochs: 40, ..sizes() }.plan(1, 7, 0);
    scenario.nodes.push(NodeSpec { operator: true, ..NodeSpec::PLAIN });
    scenario.nodes[0].joins_at = 20 * SECOND;
    let outcome = scenario.run();
    assert_eq!(outcome.jobs[&JOB].state.phase(), JobPhase::Completed);
    let credits = || outcome.records[&JOB].iter().flat_map(|record| &record.credits);
    let of = |node| credits().filter(move |credit| credit.contributor == contributor(node));
    let last = of(1).map(|credit| credit.task.round).max().expect("it was called");
    let first = of(0).map(|credit| credit.task.round).min().expect("somebody came");
    assert!(last <= first + 1, "rounds {first} on are the contributor's, {last} was not");
}

#[test]
fn the_operators_node_may_be_shown_the_whole_model() {
    let sizes = Replica { epochs: 1, flops: 20_000_000, ..sizes() };
    let terms =
        Terms { fallback: Fallback::Operator, fallback_after_ms: 5_000, ..Terms::default() };
    let mut scenario = under(1, terms);
    scenario.jobs[0].1 = sizes.master(1, 7, 4, 2);
    scenario.nodes.push(NodeSpec { operator: true, ..NodeSpec::PLAIN });
    scenario.until_us = 1_000 * SECOND;
    // One contributor may hold half of the slices; the rest is nobody's but the operator's.
    let (job, _) = run(scenario);
    assert_eq!(job.state.phase(), JobPhase::Completed, "{:?}", job.state);
    // The rest is not waited for at every stage: only before the first.
    assert!(job.took_us < 10 * SECOND, "{} s", job.took_us / SECOND);
}

#[test]
fn a_visit_that_may_not_move_what_a_job_needs_works_on_another() {
    let other = JobId(2);
    let mut scenario = scenario(1, Story::default());
    let large = Replica { weights_bytes: 30 << 20, ..sizes() };
    let terms = Terms { fallback: Fallback::Cancel, fallback_after_ms: 20_000, ..Terms::default() };
    scenario.jobs = vec![
        (0, large.plan(1, 7, 0), Story::default()),
        (0, Replica { epochs: 40, ..sizes() }.plan(2, 7, 0), Story::default()),
    ];
    scenario.terms.insert(JOB, terms);
    scenario.nodes[0].traffic_bytes = Some(25_000_000);
    scenario.until_us = 1_000 * SECOND;
    let outcome = scenario.run();
    // Nobody could work on it, and that somebody works on another is no help.
    let cause = Cause::NoContributors;
    assert_eq!(outcome.jobs[&JOB].state, JobState::Cancelled { cause });
    let JobState::WaitingForContributors { reason } = &outcome.jobs[&other].state else {
        panic!("{:?}", outcome.jobs[&other].state)
    };
    assert!(reason.contains("may still move in its visit"), "{reason}");
    // Its weights go down and its gradients up, both within what was left.
    let tasks = outcome.tasks_by_node[0];
    let least = sizes().weights_bytes;
    assert!(tasks > 8 && tasks * least < 25_000_000, "{tasks} tasks");
}
