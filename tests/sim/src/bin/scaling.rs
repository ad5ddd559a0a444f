//! Prints how work scales with contributors, and what events cost.

use raven_sim::figures::{FrozenCost, GOALS, Setting, batch_256, long_tasks};
use raven_sim::plans::Replica;
use raven_sim::swarm;
use std::process::ExitCode;
use std::time::Duration;

const CROWDS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

fn describe(setting: &Setting) -> String {
    let link = setting.node.link;
    format!(
        "L = {} ms one way, {}/{} Mbit/s down/up, coordinator on {} Gbit/s",
        link.latency_us / 1000,
        link.down_bytes_per_s * 8 / 1_000_000,
        link.up_bytes_per_s * 8 / 1_000_000,
        setting.network.out_bytes_per_s * 8 / 1_000_000_000,
    )
}

/// One line per crowd, against one contributor with `job(crowd)`. Returns each
/// crowd's work in times the work of one.
fn table(title: &str, setting: &Setting, job: impl Fn(usize) -> Replica) -> Vec<(usize, f64)> {
    println!("{title}; {}", describe(setting));
    println!("  contributors   times one   per contributor");
    let mut rows = Vec::new();
    for crowd in CROWDS {
        let one = setting.rate(1, &job(crowd));
        let times = setting.rate(crowd, &job(crowd)) / one;
        println!("  {crowd:12}   {times:9.2}   {:15.3}", times / crowd as f64);
        rows.push((crowd, times));
    }
    println!();
    rows
}

/// Whether `value` keeps to `goal`, said in a line.
fn judge(what: &str, value: f64, goal: f64, met: bool) -> bool {
    println!("{} {what}: {value:.2}, goal {goal:.2}", if met { "ok  " } else { "MISS" });
    met
}

fn main() -> ExitCode {
    let symmetric = Setting::SYMMETRIC;
    println!(
        "contributors of {} Gflop/s; weights and each result 0.86 MB; each step and each durable\n\
         record take the master {} ms, reducing a result {:.1} ms; task times vary by up to {:.0} %;\n\
         47 MB of data in 12 shards. Every row compares with one contributor doing the same job.\n",
        symmetric.node.flops_per_s / 1_000_000_000,
        symmetric.effect_us / 1000,
        symmetric.reduce_us as f64 / 1e3,
        symmetric.jitter * 100.0
    );
    let four = |task_s| move |crowd: usize| long_tasks(4 * crowd as u32, task_s);
    let mut far = symmetric;
    far.node.link.latency_us = 150_000;
    let gigabit = Setting { network: raven_sim::Network::GIGABIT, ..symmetric };
    let households = Setting::HOUSEHOLDS;
    let rows = table("T = 1 s, 4 tasks a round per contributor", &symmetric, four(1.0));
    table("T = 1 s, 4 tasks a round per contributor", &households, four(1.0));
    table("T = 1 s, 4 tasks a round per contributor", &far, four(1.0));
    table("T = 1 s, 4 tasks a round per contributor", &gigabit, four(1.0));
    table("T = 2 s, 4 tasks a round per contributor", &households, four(2.0));
    table("one job at batch 256: T = 56 ms, 8 tasks a round", &symmetric, |_| batch_256());
    let costs = frozen();
    events(&symmetric);
    println!();
    let mut met = true;
    for (crowd, goal) in GOALS {
        let times = rows.iter().find(|(found, _)| *found == crowd).map_or(0.0, |row| row.1);
        met &= judge(&format!("times the work of one with {crowd}"), times, goal, times >= goal);
    }
    for (others, cost) in costs {
        let (cost_s, lease_s) = (cost.cost_us() as f64 / 1e6, cost.lease_ms as f64 / 1e3);
        let what = format!("seconds that a frozen one costs beside {others}");
        met &= judge(&what, cost_s, lease_s, cost_s < lease_s);
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints and returns what a frozen contributor costs beside so many others.
fn frozen() -> Vec<(usize, FrozenCost)> {
    println!("one more contributor that freezes for good in mid-round, 4 tasks of 1 s each:");
    let measure = |others: usize| {
        (others, FrozenCost::measure(others, &long_tasks(4 * others as u32 + 4, 1.0)))
    };
    let costs: Vec<_> = [1, 2, 4, 16, 63].into_iter().map(measure).collect();
    for (others, cost) in &costs {
        println!(
            "  beside {others:2}: costs {:5.2} s of {:6.1} s, its lease was {:5.2} s",
            cost.cost_us() as f64 / 1e6,
            cost.without_us as f64 / 1e6,
            cost.lease_ms as f64 / 1e3
        );
    }
    println!();
    costs
}

fn events(setting: &Setting) {
    let per_s = |events: u64, time: Duration| events as f64 / time.as_secs_f64();
    let (mut events, mut time) = (0, Duration::ZERO);
    for seed in 0..40 {
        let outcome = swarm::scenario(seed).run();
        events += outcome.events;
        time += outcome.engine_time;
    }
    println!("engine: {:9.0} events/s in random networks", per_s(events, time));
    for crowd in [64, 256, 1024] {
        let job = long_tasks(8 * crowd as u32, 0.1).plan(1, 7, 0);
        let outcome = setting.run(vec![setting.node; crowd], job);
        let rate = per_s(outcome.events, outcome.engine_time);
        println!("engine: {rate:9.0} events/s with {crowd} contributors");
    }
}
