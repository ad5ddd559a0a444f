//! Networks with cheats, and what came of them: the figures of the proof of
//! calculation.

use crate::adversary::{About, Adversary, Cost, Lie};
use crate::faults::{Faults, MS, Micros, SECOND};
use crate::kernel::Value;
use crate::node::NodeSpec;
use crate::plans::Replica;
use crate::rng::Rng;
use crate::shell::Story;
use crate::sim::{Outcome, Scenario};
use raven_engine::{JobPhase, JobPlan, Verification};
use raven_protocol::JobId;

/// Bytes of a row of the data that they train on.
const ROW_BYTES: u32 = 784;
/// How long those stay who keep no key.
const EPHEMERAL_STAY_US: Micros = 90 * SECOND;
/// How long those stay who do.
const PERSISTENT_STAY_US: Micros = 1_200 * SECOND;

/// Who contributes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crowd {
    pub size: usize,
    /// Part of it that comes with a new key each time.
    pub ephemeral: f64,
    /// Part of it that cheats.
    pub cheating: f64,
}

/// What they work on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Whether the model stays with its master. Two in three tasks are matrix products then.
    pub master: bool,
    /// Tasks of a round, or parts of each of its three pushed stages.
    pub tasks: u32,
    pub rounds: u32,
    pub epochs: u32,
}

/// What a network came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Whether the job completed.
    pub completed: bool,
    /// Whether its weights are those that honest contributors come to.
    pub right: bool,
    /// False results that were committed to, that were combined at some time,
    /// and the most of these that one contributor came to.
    pub lies: u64,
    pub combined: u64,
    /// Those of them that are in the model.
    pub standing: usize,
    pub lies_most: u64,
    /// Contributors that lied, and those of them that were excluded.
    pub liars: usize,
    pub excluded: usize,
    /// Seconds from the first false result of those who were excluded until then: the median,
    /// and the most.
    pub exclusion_s: (f64, f64),
    /// Honest contributors that were excluded.
    pub wronged: usize,
    pub rollbacks: u64,
    /// Everything that was computed, and the referee's part of it, over the job's own
    /// work; and the former in the last quarter of its rounds.
    pub overhead: f64,
    pub overhead_late: f64,
    pub referee: f64,
    /// The referee's part of what was computed in the last quarter.
    pub referee_late: f64,
    /// Part of all pay that went for false results and was not taken back.
    pub paid_for_lies: f64,
    /// Part of the tasks which those who do not cheat computed that earned nothing.
    pub unpaid: f64,
    /// Events that the engine handled, and how many a second: of the engine's own
    /// time, and of all that the simulation and its audit took.
    pub events: u64,
    pub events_per_s: f64,
    pub audited_per_s: f64,
}

impl Work {
    /// The job: every task is one micro-batch of half a second on the slowest.
    pub fn plan(&self, verification: Verification) -> JobPlan {
        let micro_batch = 8;
        let batch = self.tasks * micro_batch;
        let rows = batch * self.rounds / self.epochs;
        let sizes = Replica {
            rows,
            batch,
            micro_batch,
            epochs: self.epochs,
            // As large as the coordinator makes them: larger ones would fill its link.
            shards: (rows * ROW_BYTES).div_ceil(1 << 20).max(4),
            row_bytes: ROW_BYTES.into(),
            flops: 1_000_000_000,
            weights_bytes: 100_000,
            ..Replica::default()
        };
        let plan = if self.master {
            sizes.master(1, 42, self.tasks, self.tasks)
        } else {
            sizes.plan(1, 42, 0)
        };
        JobPlan { verification, ..plan }
    }

    /// Flops of all its tasks, each done once.
    fn flops(&self) -> u64 {
        u64::from(self.tasks * self.rounds) * 1_000_000_000 * if self.master { 3 } else { 1 }
    }

    /// The weights that honest contributors come to.
    pub fn expected(&self) -> Value {
        let nodes = vec![NodeSpec { workers: 64, ..NodeSpec::PLAIN }; 4];
        let outcome = run(&self.plan(Verification::None), nodes, 1);
        outcome.jobs[&JobId(1)].weights.expect("it completes")
    }
}

impl Crowd {
    /// Its members; `adversaries` take turns among those who cheat.
    pub fn nodes(&self, adversaries: &[Adversary], seed: u64) -> Vec<NodeSpec> {
        let mut rng = Rng::new(seed).fork(7);
        let cheats = (self.size as f64 * self.cheating).round() as usize;
        let node = |index: usize| {
            let ephemeral = rng.chance(self.ephemeral);
            let adversary = (index < cheats && !adversaries.is_empty())
                .then(|| adversaries[index % adversaries.len()]);
            NodeSpec {
                flops_per_s: rng.between(2_000_000_000, 12_000_000_000),
                joins_at: rng.below(5 * SECOND),
                stay_mean_us: if ephemeral { EPHEMERAL_STAY_US } else { PERSISTENT_STAY_US },
                ephemeral,
                adversary,
                ..NodeSpec::PLAIN
            }
        };
        (0..self.size).map(node).collect()
    }
}

fn run(plan: &JobPlan, nodes: Vec<NodeSpec>, seed: u64) -> Outcome {
    scenario(plan, nodes, seed).run()
}

/// The network in which `plan` is worked on.
pub fn scenario(plan: &JobPlan, nodes: Vec<NodeSpec>, seed: u64) -> Scenario {
    let mut scenario = Scenario::new(seed);
    scenario.nodes = nodes;
    scenario.faults = Faults {
        effect_us_min: MS,
        effect_us_max: 30 * MS,
        jitter: 0.2,
        rejoin_mean_us: 20 * SECOND,
        notice_mean_us: SECOND,
        ..Faults::NONE
    };
    scenario.jobs = vec![(6 * SECOND, plan.clone(), Story::default())];
    scenario.until_us = 1_000_000 * SECOND;
    scenario
}

/// Runs a network and compares it with what honest contributors come to.
pub fn measure(
    work: Work,
    crowd: Crowd,
    adversaries: &[Adversary],
    verification: Verification,
    seed: u64,
    expected: Value,
) -> Figures {
    let plan = work.plan(verification);
    let outcome = run(&plan, crowd.nodes(adversaries, seed), seed);
    let job = &outcome.jobs[&JobId(1)];
    let (stats, truth) = (&outcome.stats, &outcome.truth);
    let own = work.flops();
    let records = outcome.records.values().flatten();
    let (mut paid, mut paid_for_lies, mut honest_paid) = (0u64, 0u64, 0u64);
    let voids: Vec<_> = records.clone().flat_map(|record| record.voids.clone()).collect();
    let voids: std::collections::BTreeSet<_> =
        voids.iter().map(|void| (void.task, void.attempt, void.contributor)).collect();
    for credit in records.flat_map(|record| &record.credits) {
        if voids.contains(&(credit.task, credit.attempt, credit.contributor)) {
            continue;
        }
        paid += credit.flops;
        honest_paid += u64::from(!truth.cheats.contains(&credit.contributor));
        if truth.false_results.contains_key(&(credit.task, credit.digest)) {
            paid_for_lies += credit.flops;
        }
    }
    let unpaid = truth.honest_done.saturating_sub(honest_paid);
    Figures {
        completed: job.state.phase() == JobPhase::Completed,
        right: job.weights == Some(expected),
        lies: truth.lies.values().sum(),
        combined: truth.combined,
        standing: truth.standing.len(),
        lies_most: truth.combined_of.values().copied().max().unwrap_or(0),
        liars: truth.lies.len(),
        excluded: truth.lies.keys().filter(|who| truth.excluded.contains(who)).count(),
        exclusion_s: exclusion_s(&truth.exclusions),
        wronged: truth.wronged.len(),
        rollbacks: stats.rollbacks,
        overhead_late: late(&truth.costs, |cost| cost.executed + cost.refereed),
        referee_late: late(&truth.costs, |cost| cost.refereed),
        overhead: (truth.executed + stats.referee_flops) as f64 / own as f64,
        referee: stats.referee_flops as f64 / own as f64,
        paid_for_lies: paid_for_lies as f64 / paid.max(1) as f64,
        unpaid: unpaid as f64 / truth.honest_done.max(1) as f64,
        events: outcome.events,
        events_per_s: outcome.events as f64 / outcome.engine_time.as_secs_f64(),
        audited_per_s: outcome.events as f64 / outcome.time.as_secs_f64(),
    }
}

fn exclusion_s(times: &[Micros]) -> (f64, f64) {
    let mut times = times.to_vec();
    times.sort_unstable();
    let seconds = |at: Option<&Micros>| at.map_or(0.0, |&us| us as f64 / SECOND as f64);
    (seconds(times.get(times.len() / 2)), seconds(times.last()))
}

/// What of it was computed for what was accepted, in the last quarter.
fn late(costs: &[Cost], what: impl Fn(&Cost) -> u64) -> f64 {
    let (Some(last), Some(from)) = (costs.last(), costs.get(costs.len() * 3 / 4)) else {
        return f64::NAN;
    };
    (what(last) - what(from)) as f64 / (last.accepted - from.accepted).max(1) as f64
}

/// What a contributor of a group lies once, after it was vetted, and is honest again.
pub fn once(group: u64) -> Adversary {
    Adversary { honest_first: 40, lies_max: 1, ..Adversary::always(Lie::Colluding { group }) }
}

/// The chance that one false result of a vetted contributor stays in a model, where
/// a part `colluding` of the vetted ones says the same and each does `singles`
/// unrepeated tasks between two settlements.
///
/// It is checked in its stage with the chance q = 1/20 (of results beyond the
/// twentieth), by a vetted partner who is one of the group with the chance c; else
/// the referee computes it where it is the contributor's last, or with the chance
/// a = 1/50: (1 - q) (1 - a) (1 - 1/n) + q c (1 - a).
pub fn undetected(colluding: f64, singles: f64) -> f64 {
    let (q, a) = (1.0 / 20.0, 1.0 / 50.0);
    (1.0 - q) * (1.0 - a) * (1.0 - 1.0 / singles) + q * colluding * (1.0 - a)
}

/// What a cheat lies once about a part that is no product, after it was vetted.
pub fn once_unprobed(lie: Lie) -> Adversary {
    Adversary { honest_first: 40, lies_max: 1, about: About::Others, ..Adversary::always(lie) }
}

/// The chance that one false result of a vetted contributor about a part that is no
/// product stays in a model: nobody checks it in its stage, with the chance q = 1/20
/// (of results beyond the twentieth), nor does the referee, with the chance 1/20.
/// About a product it is 1.6e-8, of an element that is off by 16 bounds.
pub fn undetected_part() -> f64 {
    (1.0 - 1.0 / 20.0) * (1.0 - 1.0 / 20.0)
}

/// Those who lie about parts of placement `master`, by name.
pub fn master_cheats() -> Vec<(&'static str, Vec<Adversary>)> {
    let cheats = |about| {
        let after = |lie| Adversary { honest_first: 30, about, ..Adversary::always(lie) };
        let always = |lie| Adversary { about, ..Adversary::always(lie) };
        vec![
            always(Lie::Noise),
            after(Lie::Flipped),
            always(Lie::Zero),
            after(Lie::Colluding { group: 9 }),
            always(Lie::Stale),
            always(Lie::Withheld),
        ]
    };
    vec![("master, products", cheats(About::Products)), ("master, all", cheats(About::Everything))]
}

/// The cheats that are looked at, by name.
pub fn cheats() -> Vec<(&'static str, Vec<Adversary>)> {
    let after = |lie| Adversary { honest_first: 30, ..Adversary::always(lie) };
    let alone = |lie| vec![Adversary::always(lie)];
    vec![
        ("noise", alone(Lie::Noise)),
        ("scaled", alone(Lie::Scaled)),
        ("sign flipped", alone(Lie::Flipped)),
        ("stale", alone(Lie::Stale)),
        ("zero", alone(Lie::Zero)),
        ("honest, then lying", vec![after(Lie::Flipped)]),
        ("colluding", vec![after(Lie::Colluding { group: 9 })]),
        ("slow loris", alone(Lie::Withheld)),
        ("calling tasks invalid", alone(Lie::Invalid)),
        (
            "mixed",
            vec![
                Adversary::always(Lie::Noise),
                after(Lie::Flipped),
                Adversary::always(Lie::Zero),
                after(Lie::Colluding { group: 9 }),
                Adversary::always(Lie::Stale),
                Adversary::always(Lie::Withheld),
            ],
        ),
    ]
}
