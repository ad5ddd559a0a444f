//! Random networks with everything that goes wrong, one per seed. The auditor
//! checks every event; what follows judges the outcome.

use raven_engine::JobPhase;
use raven_sim::swarm::{self, Replay, judge};
use std::collections::BTreeMap;

#[test]
fn random_networks_keep_every_invariant_and_the_same_bits() {
    let seeds = swarm::seeds();
    println!("seeds {seeds:?} (RAVEN_SIM_SEEDS=n for more)");
    let mut phases: BTreeMap<JobPhase, u32> = BTreeMap::new();
    let mut events = 0;
    for seed in seeds {
        let _replay = Replay { test: "faults", seed };
        let scenario = swarm::scenario(seed);
        let outcome = scenario.clone().run();
        judge(&scenario, &outcome);
        events += outcome.events;
        for job in outcome.jobs.values() {
            if std::env::var_os("RAVEN_SIM_WHY").is_some() && !job.state.is_end() {
                println!("seed {seed}: {:?} after {} steps", job.state, job.steps);
            }
            *phases.entry(job.state.phase()).or_default() += 1;
        }
    }
    println!("{events} events; jobs by where they stood at the end: {phases:?}");
}

#[test]
fn jobs_end_where_faults_pass() {
    let seeds = swarm::seeds();
    println!("seeds {seeds:?} (RAVEN_SIM_SEEDS=n for more)");
    let mut slowest = (0, 0);
    for seed in seeds {
        let _replay = Replay { test: "faults", seed };
        let scenario = swarm::lively(seed);
        let outcome = scenario.clone().run();
        judge(&scenario, &outcome);
        for (id, job) in &outcome.jobs {
            let is_done = job.state.phase() == JobPhase::Completed;
            assert!(is_done, "{id}: {:?} after {} steps", job.state, job.steps);
            slowest = slowest.max((job.took_us / 1_000_000, seed));
        }
    }
    println!("slowest job: {} s of simulated time, seed {}", slowest.0, slowest.1);
}
