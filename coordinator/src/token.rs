//! RAVEN tokens: what amounts are in them, at a rate that the operator sets. The
//! books are in nano-USD; tokens are how an amount is shown, or paid out.

use crate::time::UnixMs;
use raven_engine::money::NanoUsd;

/// A rate of less would make an amount of tokens leave its range.
pub const RATE_MIN: i64 = 1_000;
/// A million USD a token: a slip of the finger is not kept for good.
pub const RATE_MAX: i64 = 1_000_000_000_000_000;

const MICRO: i128 = 1_000_000;

/// What a whole token is worth, from a time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRate {
    pub from: UnixMs,
    /// [`RATE_MIN`] to [`RATE_MAX`].
    pub nano_usd: i64,
}

impl TokenRate {
    /// An amount in millionths of a token, rounded towards nothing: nobody is shown
    /// or paid more than an amount is worth. `None` beyond 64 bits.
    pub fn micro_tokens(&self, amount: NanoUsd) -> Option<i64> {
        let micro = i128::from(amount.0) * MICRO / i128::from(self.nano_usd.max(1));
        i64::try_from(micro).ok()
    }
}

/// The rates that there were, oldest first.
#[derive(Clone, Debug, Default)]
pub struct TokenRates(pub Vec<TokenRate>);

impl TokenRates {
    /// The rate that was in force; none before the first one.
    pub fn at(&self, time: UnixMs) -> Option<TokenRate> {
        let after = self.0.partition_point(|rate| rate.from <= time);
        after.checked_sub(1).and_then(|at| self.0.get(at).copied())
    }

    /// An amount in millionths of a token at the rate of that time.
    pub fn micro_tokens(&self, amount: NanoUsd, time: UnixMs) -> Option<i64> {
        self.at(time)?.micro_tokens(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_towards_nothing() {
        let rate = TokenRate { from: UnixMs(0), nano_usd: 3_000_000 };
        for (amount, micro) in
            [(0, 0), (2, 0), (3, 1), (5, 1), (-2, 0), (-3, -1), (-5, -1), (3_000_000, 1_000_000)]
        {
            assert_eq!(rate.micro_tokens(NanoUsd(amount)), Some(micro), "{amount}");
        }
        let least = TokenRate { nano_usd: RATE_MIN, ..rate };
        assert_eq!(least.micro_tokens(NanoUsd(i64::MAX)), None);
        let most = TokenRate { nano_usd: RATE_MAX, ..rate };
        assert!(most.micro_tokens(NanoUsd(i64::MIN)).is_some());
    }

    #[test]
    fn each_time_has_the_rate_that_was_in_force() {
        let rate = |from, nano_usd| TokenRate { from: UnixMs(from), nano_usd };
        let rates = TokenRates(vec![rate(10, 1_000), rate(20, 2_000)]);
        let at = |time| rates.at(UnixMs(time)).map(|rate| rate.nano_usd);
        assert_eq!(
            (at(9), at(10), at(19), at(20), at(99)),
            (None, Some(1_000), Some(1_000), Some(2_000), Some(2_000))
        );
        assert_eq!(TokenRates::default().at(UnixMs(5)), None);
    }
}
