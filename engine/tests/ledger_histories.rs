//! Random histories of jobs, prices, rates, replicas, lies and crashes. After every
//! group of entries the auditor, who shares no arithmetic with the books, computes all
//! balances anew; a crash takes whatever was not durable and goes on from the lines
//! that are; at the end of a job its shares are compared with exact sums that
//! `histories` keeps in its own way.
//!
//! `RAVEN_LEDGER_HISTORIES=N` runs N histories, from `RAVEN_LEDGER_FIRST=S` on where that is
//! set; `RAVEN_LEDGER_SEED=S` runs only that one.

mod histories;

use histories::run::{Reached, Run};
use histories::{Desk, Dice};
use raven_engine::money::{Charge, FLOPS_PER_CALCULATION, Flops};
use raven_engine::rates;
use raven_protocol::DeviceClass;

const HISTORIES: u64 = 20_000;

fn history(seed: u64) -> (u64, Reached) {
    let mut dice = Dice { seed, drawn: 0 };
    let mut desk = Desk::default();
    let mut reached = Reached::default();
    for number in 0..1 + u64::from(dice.below(2)) {
        let Some(mut run) = Run::begin(&mut desk, &mut dice, number) else { continue };
        loop {
            desk.at += 1;
            if run.is_trained() {
                if run.end(&mut desk, &mut dice) {
                    break;
                }
                continue;
            }
            match dice.below(10) {
                0 => run.void(&mut desk, &mut dice),
                1 => run.mature(&mut desk),
                2 => run.top_up(&mut desk, &mut dice),
                3 => run.crash(&mut desk, &mut dice),
                4 => desk.sync(),
                _ => run.add_round(&mut desk, &mut dice),
            }
        }
        reached.add(run.reached);
    }
    (desk.entries, reached)
}

#[test]
fn books_balance_in_random_histories() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("RAVEN_LEDGER_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("RAVEN_LEDGER_FIRST").unwrap_or(0);
            first..first + number("RAVEN_LEDGER_HISTORIES").unwrap_or(HISTORIES)
        }
    };
    let count = seeds.end - seeds.start;
    let (mut entries, mut all) = (0, Reached::default());
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| history(seed));
        let Ok((added, reached)) = outcome else {
            panic!("history {seed} failed; RAVEN_LEDGER_SEED={seed} replays it");
        };
        entries += added;
        all.add(reached);
    }
    println!("{count} histories, {entries} entries, {all:?}");
    assert!(count < 100 || all.least() > count / 20, "{all:?}");
}

#[test]
fn a_phones_second_is_worth_what_the_rate_says() {
    let charge = Charge::of(Flops(FLOPS_PER_CALCULATION), rates::rate(DeviceClass::Phone));
    assert_eq!(charge, Charge::from_units(12_000 * i128::from(FLOPS_PER_CALCULATION)));
}
