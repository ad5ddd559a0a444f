//! Random choices, each a function of the seed and of how many came before.

use raven_graph::philox::{derive_seed, key, philox4x32};

/// A stream of random words.
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    drawn: u64,
}

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng { seed, drawn: 0 }
    }

    /// A stream that is independent of this one and of other tags.
    pub fn fork(&self, tag: u32) -> Self {
        Rng::new(derive_seed(self.seed, [tag, 0x464f_524b, 0, 0]))
    }

    pub fn word(&mut self) -> u64 {
        let counter = [self.drawn as u32, (self.drawn >> 32) as u32, 0, 0];
        self.drawn += 1;
        let words = philox4x32(counter, key(self.seed));
        u64::from(words[0]) | u64::from(words[1]) << 32
    }

    /// Uniform in `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(n.max(1))) >> 64) as u64
    }

    /// Uniform in `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Exponential with this mean.
    pub fn wait(&mut self, mean: u64) -> u64 {
        (-(1.0 - self.unit()).ln() * mean as f64) as u64
    }
}
