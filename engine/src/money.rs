//! Units of work and price. All integers: books that round differ.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Floating-point operations, as the static cost counts them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Flops(pub u64);

/// Floating-point operations in one calculation, the unit of price.
pub const FLOPS_PER_CALCULATION: u64 = 50_000_000;

/// A rate: pico-USD per calculation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PicoUsd(pub u64);

/// An amount in books: nano-USD; negative where a balance is owed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);

impl fmt::Display for NanoUsd {
    /// Decimal USD with nine places, e.g. `-0.000000012`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let amount = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:09}", amount / 1_000_000_000, amount % 1_000_000_000)
    }
}

/// A charge before it is rounded: pico-USD times flops, of which
/// [`Charge::PER_NANO_USD`] make one nano-USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Charge(i128);

impl Charge {
    /// How many of a charge's units are one nano-USD.
    pub const PER_NANO_USD: i128 = FLOPS_PER_CALCULATION as i128 * 1_000;

    /// More than any sum of charges.
    pub const MAX: Charge = Charge(i128::MAX);

    /// That many whole nano-USD.
    pub const fn nano_usd(amount: u64) -> Self {
        Charge(amount as i128 * Self::PER_NANO_USD)
    }

    /// The exact number of units, for stores.
    pub const fn units(self) -> i128 {
        self.0
    }

    /// What [`Charge::units`] gave.
    pub const fn from_units(units: i128) -> Self {
        Charge(units)
    }

    /// `flops × rate / 50e6`, exact below [`Charge::MAX`], which stands for all beyond it:
    /// two u64 multiply within u128, and nothing near that is taken by the books.
    pub const fn of(flops: Flops, rate: PicoUsd) -> Self {
        let units = flops.0 as u128 * rate.0 as u128;
        if units > i128::MAX as u128 { Charge::MAX } else { Charge(units as i128) }
    }

    /// In whole nano-USD, rounded up; `None` beyond the range of the books.
    pub fn rounded_up(self) -> Option<NanoUsd> {
        let whole = self.0.div_euclid(Self::PER_NANO_USD);
        let up = i128::from(self.0.rem_euclid(Self::PER_NANO_USD) > 0);
        i64::try_from(whole.checked_add(up)?).ok().map(NanoUsd)
    }

    /// Both charges; `None` beyond i128.
    pub fn plus(self, other: Charge) -> Option<Charge> {
        self.0.checked_add(other.0).map(Charge)
    }
}

/// Why charges cannot be entered into the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoundingError {
    #[error("charges: their sum exceeds the range of the books")]
    Overflow,
}

/// Rounds charges to whole nano-USD by largest remainder: the results add up
/// to the exact sum rounded down, and none differs from its exact value by a
/// whole nano-USD. Equal remainders are served in the order given.
///
/// # Errors
/// [`RoundingError::Overflow`] where a sum leaves i64 nano-USD.
pub fn round_by_largest_remainder(charges: &[Charge]) -> Result<Vec<NanoUsd>, RoundingError> {
    let exact = charges
        .iter()
        .try_fold(Charge::default(), |sum, &charge| sum.plus(charge))
        .ok_or(RoundingError::Overflow)?;
    let total = exact.0.div_euclid(Charge::PER_NANO_USD);
    i64::try_from(total).map_err(|_| RoundingError::Overflow)?;
    let mut amounts: Vec<i128> =
        charges.iter().map(|charge| charge.0.div_euclid(Charge::PER_NANO_USD)).collect();
    let floors: i128 = amounts.iter().sum();
    let mut order: Vec<usize> = (0..charges.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(charges[i].0.rem_euclid(Charge::PER_NANO_USD)));
    // Fewer than one unit is missing per entry, so `take` never runs short.
    let missing = usize::try_from(total - floors).map_err(|_| RoundingError::Overflow)?;
    for &i in order.iter().take(missing) {
        amounts[i] += 1;
    }
    amounts
        .into_iter()
        .map(|amount| i64::try_from(amount).map(NanoUsd).map_err(|_| RoundingError::Overflow))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_five_percent_for_an_hour() {
        // 10 calculations a second for 3600 s at cloud parity of a core.
        let charge = Charge::of(Flops(36_000 * FLOPS_PER_CALCULATION), PicoUsd(20_000));
        assert_eq!(round_by_largest_remainder(&[charge]), Ok(vec![NanoUsd(720_000)]));
        assert_eq!(NanoUsd(720_000).to_string(), "0.000720000");
        assert_eq!(NanoUsd(-12).to_string(), "-0.000000012");
    }

    #[test]
    fn a_price_is_never_rounded_down() {
        let unit = Charge::PER_NANO_USD;
        assert_eq!(Charge(0).rounded_up(), Some(NanoUsd(0)));
        assert_eq!(Charge(1).rounded_up(), Some(NanoUsd(1)));
        assert_eq!(Charge(unit).rounded_up(), Some(NanoUsd(1)));
        assert_eq!(Charge(unit + 1).rounded_up(), Some(NanoUsd(2)));
        assert_eq!(Charge::of(Flops(u64::MAX), PicoUsd(u64::MAX / 2)).rounded_up(), None);
    }

    #[test]
    fn the_largest_of_charges_are_refused_and_owe_nothing_to_anybody() {
        let (half, most) = (PicoUsd(u64::MAX / 2), PicoUsd(u64::MAX));
        let exact = i128::from(u64::MAX) * i128::from(half.0);
        assert_eq!(Charge::of(Flops(u64::MAX), half), Charge(exact));
        assert_eq!(Charge::of(Flops(u64::MAX / 2), most), Charge(exact));
        let largest = Charge::of(Flops(u64::MAX), most);
        assert_eq!(largest, Charge::MAX);
        assert_eq!(largest.rounded_up(), None);
        assert_eq!(largest.plus(Charge(1)), None);
        assert_eq!(round_by_largest_remainder(&[largest]), Err(RoundingError::Overflow));
    }

    #[test]
    fn rounded_parts_add_up_and_stay_close() {
        let rate = PicoUsd(7_001);
        for n in 1..60u64 {
            let charges: Vec<Charge> =
                (0..n).map(|i| Charge::of(Flops(i * 104_729 + n * 7), rate)).collect();
            let amounts = round_by_largest_remainder(&charges).expect("in range");
            let exact: i128 = charges.iter().map(|charge| charge.0).sum();
            let sum: i128 = amounts.iter().map(|amount| i128::from(amount.0)).sum();
            assert_eq!(sum, exact / Charge::PER_NANO_USD);
            for (charge, amount) in charges.iter().zip(&amounts) {
                let error = (i128::from(amount.0) * Charge::PER_NANO_USD - charge.0).abs();
                assert!(error < Charge::PER_NANO_USD, "{charge:?} became {amount:?}");
            }
        }
    }

    #[test]
    fn the_largest_remainder_is_served_first() {
        let unit = Charge::PER_NANO_USD;
        let charges = [Charge(unit * 6 / 10), Charge(unit * 9 / 10), Charge(unit * 5 / 10)];
        let amounts = round_by_largest_remainder(&charges).expect("in range");
        assert_eq!(amounts, [NanoUsd(1), NanoUsd(1), NanoUsd(0)]);
    }

    #[test]
    fn amounts_beyond_the_books_are_refused() {
        let huge = Charge::of(Flops(u64::MAX), PicoUsd(u64::MAX / 2));
        assert_eq!(round_by_largest_remainder(&[huge]), Err(RoundingError::Overflow));
        assert_eq!(round_by_largest_remainder(&[huge; 3]), Err(RoundingError::Overflow));
        assert_eq!(round_by_largest_remainder(&[]), Ok(vec![]));
    }
}
