use raven_sim::figures::{Setting, long_tasks};
fn main() {
    let n: usize = std::env::args().nth(1).and_then(|t| t.parse().ok()).unwrap_or(64);
    let before = std::time::Instant::now();
    let outcome = Setting::SYMMETRIC
        .run(vec![Setting::SYMMETRIC.node; n], long_tasks(8 * n as u32, 0.1).plan(1, 7, 0));
    println!("{:?} {:?}", outcome.stats, outcome.events);
    println!("engine {:?} of {:?}", outcome.engine_time, before.elapsed());
}
