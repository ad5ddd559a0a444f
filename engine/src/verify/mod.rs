//! Proof of calculation: which results are believed, and why.
//!
//! A task's [`trial`] collects commitments. Agreement of enough contributors,
//! one of them vetted, accepts a result (bits of GPUs are not compared, but
//! projections, by a [`panel`]); any disagreement goes to the
//! [`referee`], the coordinator's own computation of the same task, and never
//! to a majority. [`trust`] says who is checked how often. Results of vetted
//! contributors that nobody repeated are provisional: [`ledger`] keeps them,
//! with what is needed to compute them again, until they are settled, and
//! [`rollback`] undoes the rounds after one that turns out to be wrong.

mod docket;
pub(crate) mod earlier;
pub(crate) mod ledger;
pub(crate) mod outcome;
pub(crate) mod panel;
mod referee;
mod rollback;
mod settle;
pub(crate) mod trial;
pub mod trust;
mod verdict;

pub use earlier::OpenWord;
pub(crate) use referee::{Case, Ruling};
pub use trust::{Identity, Trust};

use crate::config::EngineConfig;
use raven_graph::philox::{key, philox4x32};
use raven_protocol::TaskId;
use serde::{Deserialize, Serialize};

/// How the results of a job are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verification {
    /// Three contributors do each task at once, one of them vetted.
    Triple,
    /// New contributors are checked by others; vetted ones now and then, unannounced.
    #[default]
    Adaptive,
    /// Every result is believed. For contributors that all belong to the requester.
    None,
}

impl Verification {
    /// Every mode.
    pub const ALL: [Verification; 3] =
        [Verification::Triple, Verification::Adaptive, Verification::None];

    /// The name in stores and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verification::Triple => "triple",
            Verification::Adaptive => "adaptive",
            Verification::None => "none",
        }
    }
}

/// Accepted executions of one task that are paid.
pub(crate) const QUALIFYING_MAX: usize = 3;

/// A draw that nobody outside can foresee: uniform over u32, keyed by the
/// engine's secret seed, a task and what it is for.
pub(crate) fn draw(config: &EngineConfig, task: TaskId, purpose: Purpose, nonce: u64) -> u32 {
    // Two permutations: the first binds the job and the purpose, the second the rest.
    let job = [task.job.0 as u32, (task.job.0 >> 32) as u32, purpose as u32, nonce as u32];
    let first = philox4x32(job, key(config.seed));
    let place = [task.round, task.stage, task.part, first[2] ^ (nonce >> 32) as u32];
    philox4x32(place, [first[0], first[1]])[0]
}

/// What a draw decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Whether a result is computed a second time.
    Check = 0x4348_454b,
    /// Who does so.
    Pair = 0x5041_4952,
    /// Whether the referee computes an accepted result again.
    Audit = 0x4155_4449,
    /// Whether it computes one that looks unlikely.
    Odd = 0x4f44_4420,
    /// The signs of projections.
    Probe = 0x5052_4f42,
}

/// Whether a draw hits with probability `1 / one_in`.
pub(crate) fn hits(draw: u32, one_in: u32) -> bool {
    u64::from(draw) * u64::from(one_in.max(1)) < 1 << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_protocol::JobId;

    #[test]
    fn draws_hit_as_often_as_they_should_and_depend_on_the_seed() {
        let task = |part| TaskId { job: JobId(1 << 40), round: 3, stage: 0, part };
        let hit = |seed: u64| {
            let config = EngineConfig { seed, ..EngineConfig::default() };
            let hit =
                (0..20_000).filter(|&part| hits(draw(&config, task(part), Purpose::Check, 0), 20));
            hit.collect::<Vec<u32>>()
        };
        let (first, second) = (hit(1), hit(2));
        assert!((850..1150).contains(&first.len()), "{}", first.len());
        assert_ne!(first, second);
        assert!(hits(u32::MAX, 1) && !hits(u32::MAX, 2));
    }
}
