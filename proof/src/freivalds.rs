//! Freivalds' check of a matrix product: `C = op(A) op(B)` is multiplied by a
//! random vector on both sides, which takes three passes over matrices where
//! the product takes `k` times as much.
//!
//! R. Freivalds, "Fast probabilistic algorithms" (MFCS 1979), has exact numbers
//! and zero-one probes. Here numbers are rounded, so the difference is compared
//! with a bound on honest round-off, and probes are standard normal, so that a
//! wrong element shows in proportion to its size whatever else is wrong.
//!
//! # The bound
//! Whoever sums `k` products in f32 in any order, with or without fused
//! operations, is off by `|E| <= g |A| |B|`, element by element, with
//! `g = k u / (1 - k u)` and `u = 2^-24` (N. Higham, Accuracy and Stability of
//! Numerical Algorithms, 2nd ed. 2002, section 3.5). `|A| |B| |x|` would cost as
//! much as the check again. By Cauchy-Schwarz row `i` of `E` has the 2-norm
//! `g ||A_i|| ||B||_F` at most, whose parts fall out of the passes. The probe is
//! drawn after `C` is fixed, so the residual `E_i x` is normal with that
//! standard deviation at most: it is above [`DEVIATIONS`] of them in a row with
//! probability 1.3e-15, and never above `||E_i|| ||x||`. To this are added the
//! rounding of the check's own f64 sums and what a device loses that replaces
//! subnormal numbers by zero, as GPUs may.
//!
//! # What is found
//! An element that is off by 16 times its row's bound is missed by one probe
//! where `|x_j| < 1/16`: with probability 0.05, 0.0025 with two probes and
//! 1.6e-8 with six. Faults below the bound are not found: they are no larger
//! than what an honest device might have lost.

use crate::sweep::{self, Swept};
use raven_graph::philox::{key, philox4x32};

/// Standard deviations that an honest residual is allowed: it exceeds them with
/// probability `erfc(8 / sqrt 2)`, 1.3e-15 per row and probe.
pub const DEVIATIONS: f64 = 8.0;
/// Probes of a usual check.
pub const PROBES_USUAL: u32 = 2;
/// Probes where a miss would be costly.
pub const PROBES_THOROUGH: u32 = 6;
/// Half the distance of 1 to its neighbour in f32.
const UNIT: f64 = 1.0 / 16_777_216.0;
/// The smallest normal number of f32: below, a device may put zero.
const NORMAL_MIN: f64 = f32::MIN_POSITIVE as f64;
/// Tells these random numbers from others under the same seed.
const DOMAIN: u32 = 0x4652_4549;

/// A matrix as it lies: row-major, and meant as its transpose where `transposed`.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The elements.
    pub elements: &'a [f32],
    /// Whether `[rows, columns]` is stored as `[columns, rows]`.
    pub transposed: bool,
}

/// A claimed product `c [m, n] = a [m, k] b [k, n]`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// Rows of the left operand and of the product.
    pub m: usize,
    /// Columns of the left operand, rows of the right one.
    pub k: usize,
    /// Columns of the right operand and of the product.
    pub n: usize,
    /// The left operand.
    pub a: Operand<'a>,
    /// The right operand.
    pub b: Operand<'a>,
    /// What is claimed, row-major.
    pub c: &'a [f32],
}

/// Why a product cannot be checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProductError {
    #[error("product.{operand}: {found} elements, the extents take {expected}")]
    Elements { operand: &'static str, found: usize, expected: usize },
    #[error("product.{operand}: the number of its elements overflows")]
    Overflow { operand: &'static str },
    #[error("product.k: {found} is not below {limit}, from where f32 sums have no bound")]
    Depth { found: usize, limit: usize },
    #[error("a check takes at least one probe")]
    NoProbes,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// No probe differs by more than honest round-off can explain.
    Consistent,
    /// A row differs by more. Of several, the one that exceeds its bound the most.
    Faulty {
        /// The row of the product.
        row: usize,
        /// What the probe differs by; infinite where an element is not finite and no honest
        /// sum could have left the range of f32.
        residual: f64,
        /// What would have been accepted.
        bound: f64,
    },
    /// The row's operands or an honest sum may not be finite: only computing it again tells.
    Undecided {
        /// The row of the product.
        row: usize,
    },
}

impl Product<'_> {
    fn check_extents(&self) -> Result<(), ProductError> {
        let limit = 1 << 23;
        if self.k >= limit {
            return Err(ProductError::Depth { found: self.k, limit });
        }
        let operands = [
            ("a", self.m, self.k, self.a.elements.len()),
            ("b", self.k, self.n, self.b.elements.len()),
            ("c", self.m, self.n, self.c.len()),
        ];
        for (operand, rows, columns, found) in operands {
            let expected = rows.checked_mul(columns).ok_or(ProductError::Overflow { operand })?;
            if found != expected {
                return Err(ProductError::Elements { operand, found, expected });
            }
        }
        Ok(())
    }

    /// `op(B) x` per probe, and the squares of B's elements summed up.
    fn right<const P: usize>(&self, x: [&[f64]; P], squares: bool) -> ([Vec<f64>; P], f64) {
        let Swept { products, squares } = multiply(self.b, self.n, self.k, x, squares);
        (products, squares.iter().sum())
    }

    /// `op(A) y` per probe, and the squares of each row of A.
    fn left<const P: usize>(&self, y: [&[f64]; P], squares: bool) -> Swept<P> {
        multiply(self.a, self.k, self.m, y, squares)
    }
}

/// `op(M) x` for an operand with that many columns and rows as it is meant. The squares are those
/// of its rows.
fn multiply<const P: usize>(
    operand: Operand<'_>,
    columns: usize,
    rows: usize,
    x: [&[f64]; P],
    squares: bool,
) -> Swept<P> {
    if operand.transposed {
        sweep::columns(operand.elements, rows, x, squares)
    } else {
        sweep::rows(operand.elements, columns, x, squares)
    }
}

/// What an honest row may be off by.
#[derive(Clone, Debug)]
struct RoundOff {
    k: f64,
    n: f64,
    /// 2-norms of the left operand's rows.
    rows: Vec<f64>,
    /// Frobenius norm of the right operand.
    right: f64,
}

impl RoundOff {
    fn of(product: &Product<'_>, row_squares: &[f64], right_squares: f64) -> Self {
        RoundOff {
            k: product.k as f64,
            n: product.n as f64,
            rows: row_squares.iter().map(|square| square.sqrt()).collect(),
            right: right_squares.sqrt(),
        }
    }

    /// `g` of the module's description.
    fn growth(&self) -> f64 {
        self.k * UNIT / (1.0 - self.k * UNIT)
    }

    /// The bound of a row's residual for a probe of that 2-norm.
    fn bound(&self, row: usize, probe_norm: f64) -> f64 {
        let (left, right, k, n) = (self.rows[row], self.right, self.k, self.n);
        // Operands, products and sums that were put to zero.
        let flushed = NORMAL_MIN * (k.sqrt() * right + (n * k).sqrt() * left + 2.0 * k * n.sqrt());
        let deviation = self.growth() * left * right + flushed;
        // Three f64 sums of at most n or k terms, each at most these norms' product.
        let own = 4.0 * (n + k + 8.0) * f64::EPSILON * left * right * probe_norm;
        deviation * DEVIATIONS.min(probe_norm) + own
    }

    /// Whether no sum in this row can leave the range of f32, in any order.
    fn stays_finite(&self, row: usize) -> bool {
        self.rows[row] * self.right * (1.0 + self.growth()) < f64::from(f32::MAX)
    }
}

/// The largest bound that [`check_product`] can have for each row of a product: what
/// faults are measured by.
///
/// # Errors
/// [`ProductError`].
pub fn row_bounds(product: &Product<'_>) -> Result<Vec<f64>, ProductError> {
    product.check_extents()?;
    if product.m == 0 || product.n == 0 || product.k == 0 {
        return Ok(vec![0.0; product.m]);
    }
    let ([], right) = product.right([], true);
    let left = product.left([], true);
    let round_off = RoundOff::of(product, &left.squares, right);
    // As long as such a probe may get.
    let norm = DEVIATIONS.max(2.0 * (product.n as f64).sqrt());
    Ok((0..product.m).map(|row| round_off.bound(row, norm)).collect())
}

/// Checks a product with as many probes as wanted ([`PROBES_USUAL`],
/// [`PROBES_THOROUGH`]), drawn from `seed`.
///
/// `seed` must be unknown to whoever computed the product until it was fixed.
///
/// # Errors
/// [`ProductError`], which is a mistake of the caller and says nothing about the product.
pub fn check_product(
    product: &Product<'_>,
    probes: u32,
    seed: u64,
) -> Result<Verdict, ProductError> {
    product.check_extents()?;
    if probes == 0 {
        return Err(ProductError::NoProbes);
    }
    if product.m == 0 || product.n == 0 {
        return Ok(Verdict::Consistent);
    }
    if product.k == 0 {
        return Ok(check_empty_sums(product));
    }
    let mut round_off = None;
    let mut verdict = Verdict::Consistent;
    for first in (0..probes).step_by(2) {
        let found = if probes - first == 1 {
            check_group(product, seed, [first], &mut round_off)
        } else {
            check_group(product, seed, [first, first + 1], &mut round_off)
        };
        match found {
            Verdict::Faulty { .. } => return Ok(found),
            Verdict::Undecided { .. } => verdict = found,
            Verdict::Consistent => {}
        }
    }
    Ok(verdict)
}

/// Sums of nothing are zero.
fn check_empty_sums(product: &Product<'_>) -> Verdict {
    match product.c.iter().position(|&x| x != 0.0) {
        None => Verdict::Consistent,
        Some(at) => Verdict::Faulty {
            row: at / product.n,
            residual: f64::from(product.c[at]).abs(),
            bound: 0.0,
        },
    }
}

/// One pass over each matrix for the probes of these numbers.
fn check_group<const P: usize>(
    product: &Product<'_>,
    seed: u64,
    numbers: [u32; P],
    round_off: &mut Option<RoundOff>,
) -> Verdict {
    let squares = round_off.is_none();
    let x = numbers.map(|number| normal(seed, number, product.n));
    let (y, right) = product.right(x.each_ref().map(Vec::as_slice), squares);
    let z = product.left(y.each_ref().map(Vec::as_slice), squares);
    let w = sweep::rows(product.c, product.n, x.each_ref().map(Vec::as_slice), false);
    let round_off = &*round_off.get_or_insert_with(|| RoundOff::of(product, &z.squares, right));
    let mut verdict = Verdict::Consistent;
    let mut worst = 1.0;
    for (probe, x) in x.iter().enumerate() {
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        for row in 0..product.m {
            let residual = (w.products[probe][row] - z.products[probe][row]).abs();
            let bound = round_off.bound(row, norm);
            if residual <= bound {
                continue;
            }
            let honest = z.products[probe][row].is_finite() && bound.is_finite();
            if !honest || (!residual.is_finite() && !round_off.stays_finite(row)) {
                if verdict == Verdict::Consistent {
                    verdict = Verdict::Undecided { row };
                }
                continue;
            }
            let residual = if residual.is_finite() { residual } else { f64::INFINITY };
            if residual / bound > worst {
                worst = residual / bound;
                verdict = Verdict::Faulty { row, residual, bound };
            }
        }
    }
    verdict
}

/// Probe `number`: standard normal by Box and Muller, two from two words of Philox with the
/// counter `[element / 4, number, 'FREI', 0]`.
fn normal(seed: u64, number: u32, count: usize) -> Vec<f64> {
    let key = key(seed);
    let mut probe = Vec::with_capacity(count.next_multiple_of(4));
    for block in 0..count.div_ceil(4) as u32 {
        let words = philox4x32([block, number, DOMAIN, 0], key);
        for pair in words.chunks_exact(2) {
            // In (0, 1], so that the logarithm is finite.
            let radius = (-2.0 * ((f64::from(pair[0]) + 1.0) / 4_294_967_296.0).ln()).sqrt();
            let angle = f64::from(pair[1]) * (std::f64::consts::TAU / 4_294_967_296.0);
            let (sine, cosine) = angle.sin_cos();
            probe.extend([radius * cosine, radius * sine]);
        }
    }
    probe.truncate(count);
    probe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(elements: &[f32]) -> Operand<'_> {
        Operand { elements, transposed: false }
    }

    #[test]
    fn probes_are_standard_normal_and_differ() {
        let x = normal(1, 0, 100_000);
        let mean = x.iter().sum::<f64>() / 1e5;
        let square = x.iter().map(|x| x * x).sum::<f64>() / 1e5;
        let small = x.iter().filter(|x| x.abs() < 1.0 / 16.0).count() as f64 / 1e5;
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.02, "{mean} {square}");
        assert!((small - 0.0498).abs() < 0.004, "{small}");
        assert_ne!(normal(1, 0, 8), normal(1, 1, 8));
        assert_ne!(normal(1, 0, 8), normal(2, 0, 8));
        assert_eq!(normal(1, 0, 8)[..5], normal(1, 0, 5));
    }

    #[test]
    fn mistakes_of_the_caller_are_named() {
        let (a, c) = ([1.0; 6], [1.0; 4]);
        let product = Product { m: 2, k: 3, n: 2, a: plain(&a), b: plain(&a), c: &c };
        assert_eq!(check_product(&product, 0, 1), Err(ProductError::NoProbes));
        let short = Product { c: &c[..3], ..product };
        let expected = ProductError::Elements { operand: "c", found: 3, expected: 4 };
        assert_eq!(check_product(&short, 2, 1), Err(expected));
        let deep = Product { k: 1 << 23, ..product };
        assert!(matches!(check_product(&deep, 2, 1), Err(ProductError::Depth { .. })));
        let wide = Product { m: usize::MAX, ..product };
        assert_eq!(check_product(&wide, 2, 1), Err(ProductError::Overflow { operand: "a" }));
    }

    #[test]
    fn sums_of_nothing_are_zero() {
        let empty = Product { m: 2, k: 0, n: 2, a: plain(&[]), b: plain(&[]), c: &[0.0; 4] };
        assert_eq!(check_product(&empty, 2, 1), Ok(Verdict::Consistent));
        let wrong = Product { c: &[0.0, 0.0, 0.0, 1e-30], ..empty };
        assert!(matches!(check_product(&wrong, 2, 1), Ok(Verdict::Faulty { row: 1, .. })));
        let none = Product { m: 0, k: 1, n: 2, a: plain(&[]), b: plain(&[1.0; 2]), c: &[] };
        assert_eq!(check_product(&none, 2, 1), Ok(Verdict::Consistent));
    }

    #[test]
    fn what_is_not_finite_is_a_fault_only_where_it_cannot_be_honest() {
        let a = [1.0f32, 2.0, 3.0, 4.0];
        let c = [7.0f32, 10.0, f32::NAN, 22.0];
        let product = Product { m: 2, k: 2, n: 2, a: plain(&a), b: plain(&a), c: &c };
        let found = check_product(&product, 2, 1).expect("checked");
        assert!(
            matches!(found, Verdict::Faulty { row: 1, residual, .. } if residual == f64::INFINITY)
        );
        let large = [1e30f32, 1e30, 1.0, 1.0];
        let overflown = Product {
            a: plain(&large),
            b: plain(&large),
            c: &[f32::INFINITY, f32::INFINITY, 1e30, 1e30],
            ..product
        };
        assert_eq!(check_product(&overflown, 2, 1), Ok(Verdict::Undecided { row: 0 }));
        let unknown = [f32::NAN, 0.0, 0.0, 0.0];
        let operand = Product { a: plain(&unknown), ..product };
        assert!(matches!(
            check_product(&operand, 2, 1),
            // The other row is known to be zero, and is not.
            Ok(Verdict::Faulty { row: 1, .. })
        ));
    }
}
