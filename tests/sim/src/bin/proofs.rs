//! Prints what comes of networks with cheats: `proofs [SIZE [ROUNDS [JSON [ONLY ...]]]]`.
//! With a file (`-` for none) the figures go there too, in the form of the benchmarks.
//! With further words only the cases are run in whose name they all are.

use raven_engine::Verification;
use raven_sim::Lie;
use raven_sim::proofs::{
    Crowd, Figures, Work, cheats, master_cheats, measure, once, once_unprobed, undetected,
    undetected_part,
};
use std::cell::LazyCell;
use std::fmt::Write as _;

/// Networks in which some lie about parts that are no products: what stays of them is stated
/// beside a formula.
const UNPROBED: &str = "master, all";

/// A crowd that is vetted: it takes so many rounds until newcomers and those who lie after a
/// while are a part of the cost that stays.
const WARM_ROUNDS: u32 = 640;

/// 2/q, with q = 1/20: combined false results for each liar, in the mean. The most of one is
/// printed too; chance has it that one of hundreds is found much later than the others.
const LIES_MAX: f64 = 40.0;

/// What the proof of calculation is to show.
#[derive(Default)]
struct Goals {
    rows: String,
    wrong: usize,
    wronged: usize,
    lies_paid: f64,
    unpaid: f64,
    late: f64,
    lies_mean: f64,
    /// Words that the names of the cases must have.
    only: Vec<String>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |otherwise: u32| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let (size, rounds) = (number(1_000), number(200));
    let file = arguments.next().filter(|file| file != "-");
    let mut goals = Goals { only: arguments.collect(), ..Goals::default() };
    let tasks = (size / 4).next_power_of_two();
    let work = Work { master: false, tasks, rounds, epochs: 4 };
    let expected = work.expected();
    println!("{size} contributors, {rounds} rounds of {} tasks", work.tasks);
    println!(
        "mode      who or what cheats    part  right combined in model  most  excluded   after s  wronged back  \
         overhead   late referee   for lies   unpaid  events/s  audited"
    );
    let crowd = |ephemeral, cheating| Crowd { size: size as usize, ephemeral, cheating };
    for verification in [Verification::Triple, Verification::Adaptive] {
        for (ephemeral, who) in [(0.0, "persistent"), (0.3, "30 % brief"), (1.0, "all brief")] {
            let run = || measure(work, crowd(ephemeral, 0.0), &[], verification, 1, expected);
            goals.case(verification, who, 0.0, run);
        }
        for (name, adversaries) in cheats() {
            for cheating in [0.05, 0.2, 0.4] {
                let crowd = crowd(0.3, cheating);
                let run = || measure(work, crowd, &adversaries, verification, 1, expected);
                goals.case(verification, name, cheating, run);
            }
        }
    }
    let adaptive = Verification::Adaptive;
    let cheats = cheats();
    let mixed = &cheats.last().expect("some").1;
    let long = Work { rounds: rounds.max(WARM_ROUNDS), ..work };
    let run = || measure(long, crowd(0.0, 0.05), mixed, adaptive, 1, long.expected());
    if let Some(figures) = goals.case(adaptive, "mixed, persistent", 0.05, run) {
        goals.late = figures.overhead_late;
        // Each contributor's last result of those between two settlements is the referee's
        // to compute, so that it is more where each does less between them.
        println!(
            "after warm-up ({} rounds) {:.3} of what is accepted is computed besides it: {:.3} by the referee, \
             {:.3} by other contributors",
            long.rounds,
            figures.overhead_late - 1.0,
            figures.referee_late,
            figures.overhead_late - 1.0 - figures.referee_late,
        );
    }
    if goals.wants("adaptive one lie each") {
        let figures = measure(work, crowd(0.0, 0.2), &[once(9)], adaptive, 1, expected);
        goals.print_once(&figures, work, size);
    }
    goals.masters(Work { master: true, rounds: rounds / 2, ..work }, crowd);
    if let Some(file) = file {
        std::fs::write(&file, goals.json(size, rounds)).expect("the file is written");
    }
    if goals.wrong > 0
        || goals.wronged > 0
        || goals.lies_paid > 0.001
        || goals.unpaid > 0.01
        || goals.late > 1.15
        || goals.lies_mean > LIES_MAX
    {
        eprintln!("a goal is missed");
        std::process::exit(1);
    }
}

impl Goals {
    fn wants(&self, case: &str) -> bool {
        self.only.iter().all(|word| case.contains(word))
    }

    /// Runs a case, if it is wanted, and prints what it came to.
    fn case(
        &mut self,
        mode: Verification,
        who: &str,
        cheating: f64,
        run: impl FnOnce() -> Figures,
    ) -> Option<Figures> {
        let name = format!("{} {who} {:.0} %", mode.as_str(), cheating * 100.0);
        if !self.wants(&name) {
            return None;
        }
        let figures = run();
        self.print(mode, who, cheating, &figures);
        Some(figures)
    }

    fn print(&mut self, mode: Verification, who: &str, cheating: f64, figures: &Figures) {
        let is_right = figures.right && figures.completed;
        println!(
            "{:<9} {:<20} {:>4.0}% {:>6} {:>8} {:>8} {:>5} {:>4}/{:<4} {:>4.0}/{:<4.0} {:>7} {:>4} {:>9.3} {:>6.3} \
             {:>7.3} {:>9.4}% {:>7.3}% {:>9.0} {:>8.0}",
            mode.as_str(),
            who,
            cheating * 100.0,
            if is_right { "yes" } else { "NO" },
            figures.combined,
            figures.standing,
            figures.lies_most,
            figures.excluded,
            figures.liars,
            figures.exclusion_s.0,
            figures.exclusion_s.1,
            figures.wronged,
            figures.rollbacks,
            figures.overhead,
            figures.overhead_late,
            figures.referee,
            figures.paid_for_lies * 100.0,
            figures.unpaid * 100.0,
            figures.events_per_s,
            figures.audited_per_s,
        );
        if !who.starts_with(UNPROBED) {
            self.wrong += usize::from(!is_right);
        }
        self.wronged += figures.wronged;
        let mean = figures.combined as f64 / figures.liars.max(1) as f64;
        self.lies_mean = self.lies_mean.max(mean);
        if cheating <= 0.2 {
            self.lies_paid = self.lies_paid.max(figures.paid_for_lies);
            self.unpaid = self.unpaid.max(figures.unpaid);
        }
        let case = format!("{} {who} {:.0} %", mode.as_str(), cheating * 100.0);
        let _ = write!(
            self.rows,
            "{}{{\"case\":\"{case}\",\"unit\":\"of the job's own work\",\"ours\":{:.4},\"peers\":{{}}}}",
            if self.rows.is_empty() { "" } else { "," },
            figures.overhead,
        );
    }

    /// Networks of placement `master`, and what stays of lies about parts that no
    /// probe looks at.
    fn masters(&mut self, work: Work, crowd: impl Fn(f64, f64) -> Crowd) {
        let adaptive = Verification::Adaptive;
        // An honest network says it, which takes as long as a case.
        let expected = LazyCell::new(|| work.expected());
        println!("placement master, {} rounds of 3 stages of {} parts", work.rounds, work.tasks);
        for (name, adversaries) in master_cheats() {
            for cheating in [0.0, 0.05, 0.2, 0.4] {
                let crowd = crowd(0.3, cheating);
                let run = || measure(work, crowd, &adversaries, adaptive, 1, *expected);
                self.case(adaptive, name, cheating, run);
            }
        }
        if !self.wants("master, one unprobed lie each") {
            return;
        }
        let cheat = once_unprobed(Lie::Flipped);
        let figures = measure(work, crowd(0.0, 0.2), &[cheat], adaptive, 1, *expected);
        println!(
            "one lie each of a fifth about a part that is no product: {} of {} stayed in the model, {:.3}; \
             by the formula {:.3}",
            figures.standing,
            figures.lies,
            figures.standing as f64 / figures.lies.max(1) as f64,
            undetected_part(),
        );
    }

    /// One lie each of a colluding fifth: what stays, beside the formula.
    fn print_once(&self, figures: &Figures, work: Work, size: u32) {
        let windows = f64::from(work.rounds) / 64.0_f64.min(f64::from(work.rounds / work.epochs));
        let singles = f64::from(work.tasks * work.rounds) / f64::from(size) / windows;
        println!(
            "one lie each of a colluding fifth: {} of {} stayed in the model, {:.3}; by the formula {:.3} \
             ({singles:.1} tasks each between two settlements)",
            figures.standing,
            figures.lies,
            figures.standing as f64 / figures.lies.max(1) as f64,
            undetected(0.2, singles.max(1.0)),
        );
    }

    fn json(&self, size: u32, rounds: u32) -> String {
        let goal = |name: &str, value: f64, goal: f64| {
            let met = value <= goal;
            format!("{{\"name\":\"{name}\",\"value\":{value:.5},\"goal\":{goal},\"met\":{met}}}")
        };
        let goals = [
            goal("delivered models that are wrong", self.wrong as f64, 0.0),
            goal("honest contributors excluded", self.wronged as f64, 0.0),
            goal("part of pay for lies, up to 20 % cheats", self.lies_paid, 0.001),
            goal("part of honest work unpaid, up to 20 % cheats", self.unpaid, 0.01),
            goal("adaptive, 5 % cheats with keys, last quarter", self.late, 1.15),
            goal("combined false results of each liar", self.lies_mean, LIES_MAX),
        ];
        format!(
            "{{\"name\":\"proofs\",\"date\":\"{}\",\"machine\":\"simulation of {size} contributors, {rounds} rounds\",\
             \"rows\":[{}],\"goals\":[{}]}}\n",
            std::env::var("RAVEN_DATE").unwrap_or_default(),
            self.rows,
            goals.join(","),
        )
    }
}
