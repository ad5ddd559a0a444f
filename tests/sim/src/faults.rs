//! Every knob of what goes wrong, in one place.

use crate::rng::Rng;

/// Microseconds of simulated time.
pub type Micros = u64;
/// One second.
pub const SECOND: Micros = 1_000_000;
/// One millisecond.
pub const MS: Micros = 1_000;

/// Tag of what is drawn of checks.
pub(crate) const CHECKS: u32 = 0x4348_4543;

/// What goes wrong, and how often. Probabilities are per occasion, means are
/// of exponential waiting times, 0 is never.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// A message is lost: the connection breaks.
    pub message_loss: f64,
    /// Mean time until a contributor leaves for good, or crashes and comes back.
    pub crash_mean_us: Micros,
    /// How long it takes to come back.
    pub rejoin_mean_us: Micros,
    /// Probability that a contributor who left does not come back.
    pub leave_for_good: f64,
    /// How long the coordinator takes to notice a dead connection.
    pub notice_mean_us: Micros,
    /// Mean time until a contributor freezes: connected, but silent.
    pub freeze_mean_us: Micros,
    /// How long it stays so.
    pub freeze_length_us: Micros,
    /// Mean time until a visitor pauses, resumes or moves the slider.
    pub pace_mean_us: Micros,
    /// A task is refused by a reason drawn at random.
    pub refuse: f64,
    /// A commit is sent twice.
    pub duplicate_commit: f64,
    /// A payload is sent although nobody asked.
    pub early_result: f64,
    /// An answer is sent again, to another's lease.
    pub foreign_answer: f64,
    /// A payload is not what was committed.
    pub broken_commitment: f64,
    /// A task takes up to this many times longer, once in `slow_task` tasks.
    pub slow_factor: u64,
    pub slow_task: f64,
    /// Jitter of a task's time, as a part of it.
    pub jitter: f64,
    /// Effects take between these times.
    pub effect_us_min: Micros,
    pub effect_us_max: Micros,
    /// The master takes this long to reduce a result, one after the other; a step waits for it.
    pub reduce_us: Micros,
    /// An effect fails.
    pub effect_failure: f64,
    /// From when to when the store takes nothing.
    pub store_down: Option<(Micros, Micros)>,
    /// Claims of speed are wrong by up to this factor.
    pub claim_factor: f64,
    /// A payload or an answer for projections waits for its check, before its session is
    /// read on or beside that.
    pub slow_check: f64,
    /// How long that takes.
    pub check_mean_us: Micros,
}

impl Faults {
    /// Nothing goes wrong, everything is prompt.
    pub const NONE: Faults = Faults {
        message_loss: 0.0,
        crash_mean_us: 0,
        rejoin_mean_us: 0,
        leave_for_good: 0.0,
        notice_mean_us: 0,
        freeze_mean_us: 0,
        freeze_length_us: 0,
        pace_mean_us: 0,
        refuse: 0.0,
        duplicate_commit: 0.0,
        early_result: 0.0,
        foreign_answer: 0.0,
        broken_commitment: 0.0,
        slow_factor: 1,
        slow_task: 0.0,
        jitter: 0.0,
        effect_us_min: 5 * MS,
        effect_us_max: 5 * MS,
        reduce_us: 0,
        effect_failure: 0.0,
        store_down: None,
        claim_factor: 1.0,
        slow_check: 0.0,
        check_mean_us: 0,
    };

    /// A bad day: everything that can go wrong does, to a degree drawn from `rng`.
    pub fn swarm(rng: &mut Rng) -> Faults {
        // Drawn apart, so that seeds of before draw what they did.
        let mut own = rng.fork(CHECKS);
        let slow_check = if own.chance(0.6) { 0.3 * own.unit() } else { 0.0 };
        let check_mean_us = own.between(10 * MS, 10 * SECOND);
        // Each kind of fault is absent in some runs: faults mask each other.
        let mut maybe = |value: f64| if rng.chance(0.6) { value * rng.unit() } else { 0.0 };
        let (message_loss, refuse) = (maybe(0.003), maybe(0.05));
        let (duplicate_commit, early_result) = (maybe(0.1), maybe(0.05));
        let (foreign_answer, broken_commitment) = (maybe(0.05), maybe(0.005));
        let (slow_task, jitter) = (maybe(0.05), maybe(0.5));
        let (crash, freeze, pace) = (maybe(1.0), maybe(1.0), maybe(1.0));
        let mean = |part: f64, us: Micros| if part == 0.0 { 0 } else { (us as f64 / part) as u64 };
        Faults {
            message_loss,
            crash_mean_us: mean(crash, 20 * SECOND),
            rejoin_mean_us: rng.between(SECOND, 30 * SECOND),
            leave_for_good: 0.1,
            notice_mean_us: rng.between(10 * MS, 10 * SECOND),
            freeze_mean_us: mean(freeze, 30 * SECOND),
            freeze_length_us: rng.between(SECOND, 60 * SECOND),
            pace_mean_us: mean(pace, 10 * SECOND),
            refuse,
            duplicate_commit,
            early_result,
            foreign_answer,
            broken_commitment,
            slow_factor: rng.between(2, 50),
            slow_task,
            jitter,
            effect_us_min: MS,
            effect_us_max: rng.between(2 * MS, 2 * SECOND),
            reduce_us: 0,
            effect_failure: 0.0,
            store_down: None,
            claim_factor: 1.0 + 20.0 * rng.unit(),
            slow_check,
            check_mean_us,
        }
    }
}
