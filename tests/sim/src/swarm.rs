//! Scenarios drawn from a seed, and what must hold of their outcome.

use crate::adversary::{About, Adversary, Lie};
use crate::faults::{Faults, MS, SECOND};
use crate::kernel::Value;
use crate::network::{LinkSpec, Network};
use crate::node::NodeSpec;
use crate::plans::Replica;
use crate::rng::Rng;
use crate::shell::Story;
use crate::sim::{Outcome, Scenario};
use raven_engine::{
    Algorithm, Allowance, Budget, Cause, Divergence, EarlyStopping, EngineConfig, Fallback,
    JobPlan, JobState, Placement, Rates, Terms, Verification,
};
use raven_protocol::{JobId, Numerics};

/// A random contributor: phones to servers, near and far.
fn node(rng: &mut Rng) -> NodeSpec {
    let exponent = rng.unit();
    NodeSpec {
        workers: rng.between(1, 4) as u32,
        // 0.3 to 30 Gflop/s.
        flops_per_s: (3e8 * 100f64.powf(exponent)) as u64,
        share: 0.05 + 0.95 * rng.unit(),
        memory_bytes: rng.between(12 << 20, 256 << 20),
        traffic_bytes: None,
        refused: NodeSpec::PLAIN.refused,
        link: LinkSpec {
            latency_us: rng.between(MS, 200 * MS),
            down_bytes_per_s: rng.between(200_000, 50_000_000),
            up_bytes_per_s: rng.between(100_000, 20_000_000),
        },
        joins_at: if rng.chance(0.5) { 0 } else { rng.wait(20 * SECOND) },
        freezes_at: rng.chance(0.03).then(|| rng.wait(60 * SECOND)),
        operator: false,
        gpu_of: None,
        refuses: false,
        adversary: None,
        ephemeral: false,
        stay_mean_us: 0,
    }
}

/// Sessions on the GPUs of some of the first `crowd` nodes.
fn gpus(rng: &mut Rng, crowd: usize) -> Vec<NodeSpec> {
    let owners: Vec<usize> = (0..crowd).filter(|_| rng.chance(0.2)).collect();
    let gpu = |&owner: &usize| {
        let drawn = node(rng);
        let flops_per_s = drawn.flops_per_s * 10;
        let refuses = rng.chance(0.2);
        NodeSpec { workers: 1, flops_per_s, gpu_of: Some(owner), refuses, ..drawn }
    };
    owners.iter().map(gpu).collect()
}

fn sizes(rng: &mut Rng) -> Replica {
    let micro_batch = 1 << rng.between(0, 5);
    let early = EarlyStopping { patience: rng.below(2) as u32, min_delta: 0.01 };
    Replica {
        rows: rng.between(1, 2_000) as u32,
        batch: micro_batch * rng.between(1, 24) as u32,
        micro_batch,
        epochs: rng.between(1, 3) as u32,
        shards: rng.between(1, 8) as u32,
        flops: rng.between(1_000_000, 3_000_000_000),
        weights_bytes: rng.between(100, 2_000_000),
        row_bytes: rng.between(4, 1000),
        early_stopping: rng.chance(0.3).then_some(early),
        divergence: None,
        numerics: if rng.chance(0.5) { Numerics::Relaxed } else { Numerics::Strict },
    }
}

fn story(rng: &mut Rng) -> Story {
    Story {
        nan_at_step: rng.chance(0.05).then(|| rng.between(1, 20) as u32),
        plateau_after: rng.chance(0.3).then(|| rng.between(1, 2) as u32),
        losses: None,
        explodes: None,
    }
}

/// Makes some jobs watch for a loss that diverges, and some losses do so: as far as
/// the jobs can recover from it, or at will.
fn add_divergence(scenario: &mut Scenario, recovers: bool) {
    let mut rng = Rng::new(scenario.seed).fork(5);
    for (_, plan, story) in &mut scenario.jobs {
        let Algorithm::SyncSgd(sgd) = &mut plan.algorithm;
        if !rng.chance(0.3) {
            continue;
        }
        sgd.divergence = Some(Divergence {
            factor: 2.0 + 8.0 * rng.unit() as f32,
            window: rng.between(1, 6) as u32,
            setbacks_max: if recovers { 3 } else { rng.below(4) as u32 },
            learning_rate_factor: 0.5,
        });
        // Learning rates begin at 0.05: one, two or three setbacks are needed.
        let rate = [0.04, 0.02, 0.01][rng.below(3) as usize];
        story.explodes = rng.chance(0.7).then(|| (rng.between(1, 12) as u32, rate));
    }
}

/// Quotes half of the jobs with another allowance than is usual: some are charged each task
/// once, so that all else is the operator's.
fn add_allowances(scenario: &mut Scenario) {
    let mut rng = Rng::new(scenario.seed).fork(6);
    for (_, plan, _) in &scenario.jobs {
        if rng.chance(0.5) {
            let thousandths = if rng.chance(0.3) { 1_000 } else { rng.between(1_000, 4_000) };
            let terms = scenario.terms.entry(plan.job).or_default();
            terms.allowance = Some(Allowance(thousandths as u32));
        }
    }
}

/// The plan and story of a random job.
fn job(rng: &mut Rng, id: u64) -> (JobPlan, Story) {
    let sizes = sizes(rng);
    let seed = rng.word();
    let plan = if rng.chance(0.3) {
        let slices = rng.between(1, 6) as u32;
        let held_max = rng.between(1, u64::from(slices)) as u32;
        let rows = sizes.rows.min(400);
        Replica { rows, ..sizes }.master(id, seed, slices, held_max)
    } else {
        sizes.plan(id, seed, rng.below(2) as u8)
    };
    (JobPlan { verification: verification(rng), ..plan }, story(rng))
}

fn verification(rng: &mut Rng) -> Verification {
    match rng.below(4) {
        0 => Verification::Triple,
        1 | 2 => Verification::Adaptive,
        _ => Verification::None,
    }
}

/// Makes cheats of some contributors, and every job one that they cannot spoil: of
/// placement `master` these are the products, and what is none only where three agree.
fn add_cheats(scenario: &mut Scenario) {
    let mut rng = Rng::new(scenario.seed).fork(3);
    if !rng.chance(0.4) {
        return;
    }
    let about = if rng.chance(0.5) { About::Products } else { About::Everything };
    for node in scenario.nodes.iter_mut().filter(|node| !node.operator) {
        if rng.chance(0.3) {
            let lies = [
                Lie::Noise,
                Lie::Flipped,
                Lie::Scaled,
                Lie::Zero,
                Lie::Stale,
                Lie::Colluding { group: 3 },
                Lie::Withheld,
                Lie::Within,
                Lie::Kinked,
                Lie::Feigned,
            ];
            let lie = lies[rng.below(lies.len() as u64) as usize];
            let honest_first = rng.below(20) as u32;
            node.adversary = Some(Adversary { honest_first, about, ..Adversary::always(lie) });
        }
    }
    for (_, plan, _) in &mut scenario.jobs {
        let Algorithm::SyncSgd(sgd) = &plan.algorithm;
        plan.verification = match (&sgd.placement, plan.verification) {
            (Placement::Master { .. }, _) if about == About::Everything => Verification::Triple,
            (_, Verification::None) => Verification::Adaptive,
            (_, chosen) => chosen,
        };
    }
}

fn terms(rng: &mut Rng) -> Terms {
    let fallbacks = [Fallback::Wait, Fallback::Cancel, Fallback::Operator];
    Terms {
        deadline: rng.chance(0.2).then(|| rng.between(1, 300_000)),
        budget: rng.chance(0.3).then(|| Budget::Flops(rng.between(1, 1_000_000_000_000))),
        escrow: None,
        operator_cost_max: None,
        fallback: fallbacks[rng.below(3) as usize],
        fallback_after_ms: rng.between(0, 30_000),
        rates: Rates::FLAT,
        allowance: None,
    }
}

/// Everything at once, from one seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut rng = Rng::new(seed).fork(1);
    let crowd = [1, 2, 3, 5, 8, 20, 60][rng.below(7) as usize];
    let nodes = (0..crowd).map(|_| node(&mut rng)).collect();
    let count = rng.between(1, 4);
    let mut cancels = Vec::new();
    let jobs = (1..=count).map(|id| {
        let at = rng.wait(10 * SECOND);
        let (plan, story) = job(&mut rng, id);
        if rng.chance(0.1) {
            cancels.push((at + rng.wait(30 * SECOND), JobId(id)));
        }
        (at, plan, story)
    });
    let jobs = jobs.collect();
    let mut faults = Faults::swarm(&mut rng);
    if rng.chance(0.1) {
        faults.effect_failure = 0.02;
    }
    if rng.chance(0.1) {
        let from = rng.wait(20 * SECOND);
        faults.store_down = Some((from, from + rng.wait(60 * SECOND)));
    }
    let network = if rng.chance(0.5) { Network::TEN_GIGABIT } else { Network::GIGABIT };
    let engine = EngineConfig {
        seed: rng.word(),
        sessions_max: if rng.chance(0.1) { 4 } else { 1_000 },
        jobs_max: if rng.chance(0.1) { 2 } else { 100 },
        jobs_active_max: rng.between(1, 8) as usize,
        ..EngineConfig::default()
    };
    let until_us = 1_200 * SECOND;
    let mut nodes: Vec<NodeSpec> = nodes;
    nodes.extend(gpus(&mut rng, crowd));
    if rng.chance(0.3) {
        nodes.push(NodeSpec { operator: true, ..node(&mut rng) });
    }
    let mut some_terms = |id| {
        let has = rng.chance(0.3);
        if has { Some((JobId(id), terms(&mut rng))) } else { None }
    };
    let terms = (1..=count).filter_map(&mut some_terms).collect();
    let mut scenario = Scenario {
        terms,
        nodes,
        jobs,
        cancels,
        faults,
        network,
        engine,
        until_us,
        ..Scenario::new(seed)
    };
    add_cheats(&mut scenario);
    add_divergence(&mut scenario, false);
    add_allowances(&mut scenario);
    scenario
}

/// Faults that pass: everybody comes back, thaws and stops refusing. Every job
/// must come to its end.
pub fn lively(seed: u64) -> Scenario {
    let mut rng = Rng::new(seed).fork(2);
    let mut scenario = scenario(seed);
    let crowd = rng.between(1, 30) as usize;
    scenario.nodes = (0..crowd)
        .map(|_| {
            let drawn = node(&mut rng);
            let flops_per_s = drawn.flops_per_s.max(3_000_000_000);
            NodeSpec { flops_per_s, share: drawn.share.max(0.2), freezes_at: None, ..drawn }
        })
        .collect();
    let gpus = gpus(&mut rng, crowd);
    scenario.nodes.extend(gpus.into_iter().map(|gpu| NodeSpec { freezes_at: None, ..gpu }));
    scenario.jobs = (1..=rng.between(1, 3))
        .map(|id| {
            let drawn = sizes(&mut rng);
            let rows = drawn.rows.min(500).min(drawn.batch * 20);
            let epochs = 1 + drawn.epochs % 2;
            let drawn = Replica { rows, epochs, flops: drawn.flops.min(300_000_000), ..drawn };
            let plan = if rng.chance(0.5) {
                let slices = rng.between(1, 6) as u32;
                // As few as can hold all slices between them, at times.
                let held_min = slices.div_ceil(crowd as u32);
                let held_max = rng.between(held_min.into(), slices.into()) as u32;
                drawn.master(id, rng.word(), slices, held_max)
            } else {
                drawn.plan(id, rng.word(), 0)
            };
            let plan = JobPlan { verification: verification(&mut rng), ..plan };
            (rng.wait(10 * SECOND), plan, Story::default())
        })
        .collect();
    scenario.cancels.clear();
    scenario.terms.clear();
    let faults = scenario.faults;
    scenario.faults = Faults {
        leave_for_good: 0.0,
        refuse: 0.0,
        effect_failure: 0.0,
        store_down: None,
        // Whoever breaks its word is excluded for good, and nobody might be left.
        broken_commitment: 0.0,
        ..faults
    };
    let engine = scenario.engine;
    scenario.engine = EngineConfig { sessions_max: 1_000, jobs_max: 100, ..engine };
    scenario.until_us = 50_000 * SECOND;
    add_divergence(&mut scenario, true);
    add_allowances(&mut scenario);
    scenario
}

/// The weights that `plan` must end with: one contributor, nothing goes wrong.
pub fn reference(plan: &JobPlan, story: Story) -> (JobState, Option<Value>) {
    let mut scenario = Scenario::new(0);
    let memory_bytes = 1 << 40;
    let fast = NodeSpec { flops_per_s: 1_000_000_000_000, memory_bytes, ..NodeSpec::PLAIN };
    // Master placement may need several to hold all slices.
    scenario.nodes = vec![fast; 8];
    scenario.jobs = vec![(0, plan.clone(), story)];
    scenario.until_us = 1_000_000 * SECOND;
    let outcome = scenario.run();
    let job = &outcome.jobs[&plan.job];
    (job.state.clone(), job.weights)
}

/// What must hold of an outcome beyond what the auditor saw: jobs that came to
/// their own end came to the same one as without faults.
pub fn judge(scenario: &Scenario, outcome: &Outcome) {
    for (_, plan, story) in &scenario.jobs {
        let Some(job) = outcome.jobs.get(&plan.job) else { continue };
        let came_to_its_end = match &job.state {
            JobState::Completed { .. } => true,
            JobState::Failed { cause, .. } => {
                matches!(cause, Cause::NotFinite | Cause::Diverged)
            }
            _ => false,
        };
        if came_to_its_end {
            let expected = reference(plan, *story);
            assert_eq!((job.state.clone(), job.weights), expected, "{}", plan.job);
        }
    }
}

/// Prints how to run a seed again if the test that holds it panics.
#[derive(Debug)]
pub struct Replay {
    pub test: &'static str,
    pub seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Replay { test, seed } = self;
            eprintln!(
                "seed {seed} failed; again: \
                 RAVEN_SIM_SEED={seed} cargo test --release -p raven-sim --test {test} -- --nocapture"
            );
        }
    }
}

/// The seeds to run: `RAVEN_SIM_SEED` alone, or `RAVEN_SIM_SEEDS` (40) from
/// `RAVEN_SIM_FIRST` (0) on.
pub fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("RAVEN_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("RAVEN_SIM_FIRST").unwrap_or(0);
            first..first + number("RAVEN_SIM_SEEDS").unwrap_or(40)
        }
    }
}
