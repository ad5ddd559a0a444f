//! Prints what comes of networks with cheats: `proofs [SIZE [ROUNDS]]`.

use raven_engine::Verification;
use raven_sim::proofs::{Crowd, Figures, Work, cheats, measure};

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<u32>().ok());
    let size = arguments.next().unwrap_or(1_000) as usize;
    let rounds = arguments.next().unwrap_or(200);
    let work = Work { tasks: (size as u32 / 4).next_power_of_two(), rounds, epochs: 4 };
    let expected = work.expected();
    println!("{size} contributors, {rounds} rounds of {} tasks", work.tasks);
    println!(
        "{:<10} {:<20} {:>5} {:>6} {:>9} {:>6} {:>9} {:>8} {:>6} {:>9} {:>8} {:>10} {:>8} {:>9}",
        "mode",
        "cheats",
        "part",
        "right",
        "combined",
        "most",
        "excluded",
        "wronged",
        "back",
        "overhead",
        "referee",
        "for lies",
        "unpaid",
        "events/s"
    );
    for verification in [Verification::Triple, Verification::Adaptive] {
        for (ephemeral, who) in [(0.0, "persistent"), (0.3, "30 % brief"), (1.0, "all brief")] {
            let crowd = Crowd { size, ephemeral, cheating: 0.0 };
            let figures = measure(work, crowd, &[], verification, 1, expected);
            print(verification, who, 0.0, &figures);
        }
        for (name, adversaries) in cheats() {
            for cheating in [0.05, 0.2, 0.4] {
                let crowd = Crowd { size, ephemeral: 0.3, cheating };
                let figures = measure(work, crowd, &adversaries, verification, 1, expected);
                print(verification, name, cheating, &figures);
            }
        }
    }
}

fn print(verification: Verification, who: &str, cheating: f64, figures: &Figures) {
    println!(
        "{:<10} {:<20} {:>4.0}% {:>6} {:>9} {:>6} {:>4}/{:<4} {:>8} {:>6} {:>9.3} {:>8.3} {:>9.4}% {:>7.3}% {:>9.0}",
        verification.as_str(),
        who,
        cheating * 100.0,
        if figures.right && figures.completed { "yes" } else { "NO" },
        figures.combined,
        figures.lies_most,
        figures.excluded,
        figures.liars,
        figures.wronged,
        figures.rollbacks,
        figures.overhead,
        figures.referee,
        figures.paid_for_lies * 100.0,
        figures.unpaid * 100.0,
        figures.events_per_s,
    );
}
