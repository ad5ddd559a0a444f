//! What several contributors must do more than one, and what a frozen one may cost.
//! `cargo run --release -p raven-sim --bin scaling` prints the whole table.

use raven_sim::figures::{FrozenCost, GOALS, Setting, batch_256, long_tasks};

/// T = 1 s of work per task, L = 25 ms one way, four tasks per contributor and round.
#[test]
fn contributors_add_up() {
    let setting = Setting::SYMMETRIC;
    for (crowd, least) in GOALS {
        let job = long_tasks(4 * crowd as u32, 1.0);
        let times = setting.rate(crowd, &job) / setting.rate(1, &job);
        println!("{crowd} contributors do {times:.2} times the work of one, goal {least}");
        assert!(times >= least, "{crowd} contributors do {times:.2} times the work of one");
    }
}

/// The figure for one job at batch 256 has no goal but to be no loss.
#[test]
fn tiny_tasks_do_not_get_slower_with_more_contributors() {
    let setting = Setting::SYMMETRIC;
    let one = setting.rate(1, &batch_256());
    for crowd in [2, 8, 64] {
        let times = setting.rate(crowd, &batch_256()) / one;
        println!("batch 256: {crowd} contributors do {times:.2} times the work of one");
        assert!(times >= 1.0, "{crowd} contributors do {times:.2} times the work of one");
    }
}

#[test]
fn a_frozen_contributor_costs_less_than_one_lease() {
    for others in [1, 2, 4, 16, 63] {
        let cost = FrozenCost::measure(others, &long_tasks(4 * others as u32 + 4, 1.0));
        println!("beside {others}: {cost:?}");
        assert!(cost.cost_us() < cost.lease_ms * 1000, "beside {others}: {cost:?}");
    }
}
