//! Scaling figures: how much more several contributors do than one.

use crate::faults::{Faults, MS, Micros, SECOND};
use crate::network::{LinkSpec, Network};
use crate::node::NodeSpec;
use crate::plans::Replica;
use crate::shell::Story;
use crate::sim::{Outcome, Scenario};
use raven_engine::JobPlan;
use raven_protocol::JobId;

/// The circumstances of a figure.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub node: NodeSpec,
    pub network: Network,
    /// Jitter of a task's time, as a part of it.
    pub jitter: f64,
    /// Effects (the optimizer step, one durable record) take this long each.
    pub effect_us: Micros,
    /// The master takes this long to reduce one result, while others are computed.
    pub reduce_us: Micros,
}

impl Setting {
    /// 10 Gflop/s, 25 ms one way, 100 Mbit/s each way, a coordinator on 10 Gbit/s.
    pub const SYMMETRIC: Setting = Setting {
        node: NodeSpec {
            link: LinkSpec { up_bytes_per_s: 12_500_000, ..LinkSpec::HOUSEHOLD },
            ..NodeSpec::PLAIN
        },
        network: Network::TEN_GIGABIT,
        jitter: 0.05,
        effect_us: 20 * MS,
        reduce_us: REDUCE_US,
    };
    /// The same with 40 Mbit/s up.
    pub const HOUSEHOLDS: Setting = Setting { node: NodeSpec::PLAIN, ..Setting::SYMMETRIC };

    /// Runs `plan` with these contributors.
    pub fn run(&self, nodes: Vec<NodeSpec>, plan: JobPlan) -> Outcome {
        let mut scenario = Scenario::new(1);
        scenario.nodes = nodes;
        scenario.network = self.network;
        scenario.faults = Faults {
            jitter: self.jitter,
            effect_us_min: self.effect_us,
            effect_us_max: self.effect_us,
            reduce_us: self.reduce_us,
            ..Faults::NONE
        };
        // Contributors are there before the job is.
        scenario.jobs = vec![(SECOND, plan, Story::default())];
        scenario.until_us = 1_000_000 * SECOND;
        scenario.run()
    }

    /// Work per second, in flop/s, of `contributors` on `job` in the second half
    /// of its rounds: in the first, everybody fetches the data.
    pub fn rate(&self, contributors: usize, job: &Replica) -> f64 {
        let outcome = self.run(vec![self.node; contributors], job.plan(1, 7, 0));
        let job = &outcome.jobs[&JobId(1)];
        assert!(job.state.is_end(), "{:?}", job.state);
        let steps = &job.step_times;
        let (first, last) = (steps.len() / 2, steps.len() - 1);
        let took_us = steps[last] - steps[first];
        let flops = job.flops as f64 * (last - first) as f64 / steps.len() as f64;
        flops / (took_us as f64 / 1e6)
    }
}

/// What one result of 0.86 MB adds to a step, as measured on the kernel module
/// under wasmtime (`runtime_executor` prints it).
pub const REDUCE_US: Micros = 1000;

/// Contributors, and how many times the work of one they must do with four
/// tasks of a second each per round.
pub const GOALS: [(usize, f64); 2] = [(2, 1.8), (64, 0.9 * 64.0)];

/// Fashion-MNIST's training images.
pub const DATA_BYTES: u64 = 47_040_000;
/// Rounds of a figure.
pub const ROUNDS: u32 = 10;

/// A job of rounds of `tasks` micro-batches, each `task_s` seconds of a plain contributor.
pub fn long_tasks(tasks: u32, task_s: f64) -> Replica {
    let flops = (NodeSpec::PLAIN.flops_per_s as f64 * task_s) as u64;
    batches(tasks * 32, flops, ROUNDS)
}

/// The network of FACTS' CNN at batch 256: 1.12 Gflop per 64 images, in 8
/// micro-batches of 32; 0.86 MB of weights.
pub fn batch_256() -> Replica {
    batches(256, 560_000_000, 300)
}

fn batches(batch: u32, flops: u64, rounds: u32) -> Replica {
    let rows = batch * rounds;
    let row_bytes = DATA_BYTES / u64::from(rows);
    let (micro_batch, shards, epochs) = (32, 12, 1);
    Replica { rows, batch, micro_batch, epochs, shards, flops, row_bytes, ..Replica::default() }
}

/// What a contributor that freezes for good in mid-round costs.
#[derive(Clone, Copy, Debug)]
pub struct FrozenCost {
    /// The job's time without and with the frozen contributor.
    pub without_us: Micros,
    pub with_us: Micros,
    /// The shortest lease that the frozen contributor was given.
    pub lease_ms: u64,
}

impl FrozenCost {
    /// Among `others` plain contributors, one more freezes; compared with the
    /// others alone, which is all that the job has from then on.
    pub fn measure(others: usize, job: &Replica) -> FrozenCost {
        let setting = Setting::SYMMETRIC;
        let plain = vec![setting.node; others];
        let without = setting.run(plain.clone(), job.plan(1, 7, 0));
        let took_us = without.jobs[&JobId(1)].took_us;
        // In the third quarter of the job: speeds and links are known by then.
        let at = SECOND + took_us * 5 / 8;
        let mut nodes = plain;
        nodes.push(NodeSpec { freezes_at: Some(at), joins_at: at - 2 * SECOND, ..setting.node });
        let with = setting.run(nodes, job.plan(1, 7, 0));
        FrozenCost {
            without_us: took_us,
            with_us: with.jobs[&JobId(1)].took_us,
            lease_ms: with.lease_ms_of[others],
        }
    }

    pub fn cost_us(&self) -> Micros {
        self.with_us.saturating_sub(self.without_us)
    }
}
