//! Prints a random scenario and what came of it: `replay SEED`.

use raven_sim::swarm;

fn main() {
    let Some(seed) = std::env::args().nth(1).and_then(|text| text.parse().ok()) else {
        eprintln!("usage: replay SEED");
        return;
    };
    let scenario = swarm::scenario(seed);
    println!("{:#?}", scenario.faults);
    println!("{} contributors, engine {:#?}", scenario.nodes.len(), scenario.engine);
    for (at, plan, story) in &scenario.jobs {
        println!("at {at} us: {plan:?} {story:?}");
    }
    let outcome = scenario.run();
    println!("{outcome:#?}");
}
