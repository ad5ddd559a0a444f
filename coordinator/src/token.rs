//! RAVEN tokens: what amounts are in them, at a rate that the operator sets. The
//! books are in nano-USD; tokens are how an amount is shown, paid in, or paid out.

use crate::time::UnixMs;
use raven_engine::money::NanoUsd;

/// A rate of less would make an amount of tokens leave its range.
pub const RATE_MIN: i64 = 1_000;
/// A million USD a token: a slip of the finger is not kept for good.
pub const RATE_MAX: i64 = 1_000_000_000_000_000;

const MICRO: i128 = 1_000_000;

/// Millionths of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MicroTokens(pub i64);

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

    /// What tokens are worth, rounded to the nearest nano-USD and from the middle to the
    /// even one: neither who pays nor who is paid has more than half a nano-USD of it,
    /// and over many payments neither has any. `None` beyond 64 bits.
    pub fn worth(&self, tokens: MicroTokens) -> Option<NanoUsd> {
        let exact = i128::from(tokens.0) * i128::from(self.nano_usd);
        let (whole, rest) = (exact.div_euclid(MICRO), exact.rem_euclid(MICRO));
        let is_up = rest * 2 > MICRO || (rest * 2 == MICRO && whole % 2 != 0);
        i64::try_from(whole + i128::from(is_up)).ok().map(NanoUsd)
    }
}

/// What came in, in tokens, and what they were worth then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaidTokens {
    pub tokens: MicroTokens,
    pub rate: TokenRate,
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
    fn what_tokens_are_worth_is_off_by_half_a_nano_usd_at_most() {
        let rate = |nano_usd| TokenRate { from: UnixMs(0), nano_usd };
        for (nano_usd, micro, worth) in [
            (50_000_000, 1_000_000, 50_000_000),
            (1_000, 499, 0),
            (1_000, 500, 0),
            (1_000, 501, 1),
            (1_000, 1_500, 2),
            (1_000, 2_500, 2),
            (1_001, 1_000, 1),
        ] {
            let found = rate(nano_usd).worth(MicroTokens(micro));
            assert_eq!(found, Some(NanoUsd(worth)), "{micro} at {nano_usd}");
        }
        assert_eq!(rate(RATE_MAX).worth(MicroTokens(i64::MAX)), None);
        for micro in 1..5_000 {
            let exact = i128::from(micro) * 1_234_567;
            let found = rate(1_234_567).worth(MicroTokens(micro)).expect("in range");
            assert!((i128::from(found.0) * MICRO - exact).abs() <= MICRO / 2, "{micro}");
        }
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
