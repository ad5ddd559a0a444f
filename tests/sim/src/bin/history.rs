//! Prints the digest of what the engine did for seeds of every kind: `history [SEEDS
//! [SIZE ...]]`. Two versions of the engine that differ in speed alone print the same.

use raven_engine::Verification;
use raven_sim::proofs::{Crowd, Work, cheats, scenario};
use raven_sim::swarm;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<u64>().ok());
    let seeds = arguments.next().unwrap_or(10);
    let sizes: Vec<u64> = arguments.collect();
    for seed in 0..seeds {
        for (name, mut scenario) in
            [("swarm", swarm::scenario(seed)), ("lively", swarm::lively(seed))]
        {
            scenario.keeps_history = true;
            println!("{name} {seed} {}", scenario.run().history);
        }
    }
    for size in sizes {
        let rounds = if size > 500 { 12 } else { 40 };
        let tasks = (size as u32 / 4).next_power_of_two().max(4);
        let work = Work { master: false, tasks, rounds, epochs: 4 };
        for verification in Verification::ALL {
            for (name, adversaries) in cheats() {
                let crowd = Crowd { size: size as usize, ephemeral: 0.3, cheating: 0.2 };
                let nodes = crowd.nodes(&adversaries, 1);
                let mut scenario = scenario(&work.plan(verification), nodes, 1);
                scenario.keeps_history = true;
                let outcome = scenario.run();
                println!(
                    "{} {name} {size} {} {}",
                    verification.as_str(),
                    outcome.events,
                    outcome.history
                );
            }
        }
    }
}
