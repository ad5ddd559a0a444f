//! One pass over a matrix of f32 that multiplies it by a few vectors of f64
//! and sums up the squares of its rows or columns on the way.
//!
//! Each pass reads its matrix once for all vectors. Sums are taken in lanes; in
//! which order does not matter to a check whose bound is `2^29` times above the
//! rounding of f64, so that wider registers may be used where a processor has them.

use crate::lanes::{Four, LANES, Portable};

/// Rows that are multiplied at once: their sums fill the registers, and a vector's elements are
/// loaded once for all.
const DOT_ROWS: usize = 4;
/// Rows that are added to the columns' sums at once, so that these are loaded
/// and stored a quarter as often.
const ADD_ROWS: usize = 4;

/// What a pass yields.
#[derive(Debug)]
pub(crate) struct Swept<const P: usize> {
    /// One vector per probe.
    pub products: [Vec<f64>; P],
    /// Sums of squares of the rows or columns that the products belong to; empty
    /// where none were asked for.
    pub squares: Vec<f64>,
}

/// `M x` for each `x`, and the sums of squares of `M`'s rows. `matrix` is
/// row-major with `columns` columns, at least one.
pub(crate) fn rows<const P: usize>(
    matrix: &[f32],
    columns: usize,
    vectors: [&[f64]; P],
    squares: bool,
) -> Swept<P> {
    #[cfg(target_arch = "x86_64")]
    if x86::wide() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { x86::rows(matrix, columns, vectors, squares) };
    }
    if squares {
        rows_in::<Portable, P, true>(matrix, columns, vectors)
    } else {
        rows_in::<Portable, P, false>(matrix, columns, vectors)
    }
}

/// `Mᵀ y` for each `y`, and the sums of squares of `M`'s columns. `matrix` is
/// row-major with `columns` columns, at least one.
pub(crate) fn columns<const P: usize>(
    matrix: &[f32],
    columns: usize,
    vectors: [&[f64]; P],
    squares: bool,
) -> Swept<P> {
    #[cfg(target_arch = "x86_64")]
    if x86::wide() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { x86::columns(matrix, columns, vectors, squares) };
    }
    if squares {
        columns_in::<Portable, P, true>(matrix, columns, vectors)
    } else {
        columns_in::<Portable, P, false>(matrix, columns, vectors)
    }
}

/// The same passes, compiled for what most x86-64 processors have beyond the least.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Swept, columns_in, rows_in};
    use crate::lanes::Avx2;

    pub fn wide() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn rows<const P: usize>(
        matrix: &[f32],
        columns: usize,
        vectors: [&[f64]; P],
        squares: bool,
    ) -> Swept<P> {
        if squares {
            rows_in::<Avx2, P, true>(matrix, columns, vectors)
        } else {
            rows_in::<Avx2, P, false>(matrix, columns, vectors)
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn columns<const P: usize>(
        matrix: &[f32],
        columns: usize,
        vectors: [&[f64]; P],
        squares: bool,
    ) -> Swept<P> {
        if squares {
            columns_in::<Avx2, P, true>(matrix, columns, vectors)
        } else {
            columns_in::<Avx2, P, false>(matrix, columns, vectors)
        }
    }
}

#[inline(always)]
fn rows_in<V: Four, const P: usize, const SQUARES: bool>(
    matrix: &[f32],
    columns: usize,
    vectors: [&[f64]; P],
) -> Swept<P> {
    let count = matrix.len() / columns;
    let mut swept = Swept {
        products: [const { Vec::new() }; P],
        squares: Vec::with_capacity(if SQUARES { count } else { 0 }),
    };
    swept.products.iter_mut().for_each(|product| product.reserve_exact(count));
    let vectors = vectors.map(|vector| &vector[..columns]);
    let groups = matrix.chunks_exact(DOT_ROWS * columns);
    let rest = groups.remainder();
    for group in groups {
        let rows = std::array::from_fn(|row| &group[row * columns..(row + 1) * columns]);
        dot_rows::<V, P, DOT_ROWS, SQUARES>(rows, vectors, &mut swept);
    }
    for row in rest.chunks_exact(columns) {
        dot_rows::<V, P, 1, SQUARES>([row], vectors, &mut swept);
    }
    swept
}

/// `R` rows times each vector, and the rows' sums of squares, put behind those that are there.
#[inline(always)]
fn dot_rows<V: Four, const P: usize, const R: usize, const SQUARES: bool>(
    rows: [&[f32]; R],
    vectors: [&[f64]; P],
    swept: &mut Swept<P>,
) {
    let mut sums = [[V::zero(); P]; R];
    let mut squares = [V::zero(); R];
    let whole = rows[0].len() / LANES;
    let row_chunks = rows.map(|row| &row.as_chunks::<LANES>().0[..whole]);
    let vector_chunks = vectors.map(|vector| &vector.as_chunks::<LANES>().0[..whole]);
    for at in 0..whole {
        let factors: [V; P] = std::array::from_fn(|probe| V::load(&vector_chunks[probe][at]));
        for row in 0..R {
            let x = V::widen(&row_chunks[row][at]);
            for (sum, factor) in sums[row].iter_mut().zip(factors) {
                *sum = sum.plus_product(x, factor);
            }
            if SQUARES {
                squares[row] = squares[row].plus_product(x, x);
            }
        }
    }
    for row in 0..R {
        let rest = || rows[row].iter().enumerate().skip(whole * LANES);
        for (probe, vector) in vectors.iter().enumerate() {
            let rest: f64 = rest().map(|(at, &x)| f64::from(x) * vector[at]).sum();
            swept.products[probe].push(sums[row][probe].sum() + rest);
        }
        if SQUARES {
            let rest: f64 = rest().map(|(_, &x)| f64::from(x) * f64::from(x)).sum();
            swept.squares.push(squares[row].sum() + rest);
        }
    }
}

#[inline(always)]
fn columns_in<V: Four, const P: usize, const SQUARES: bool>(
    matrix: &[f32],
    columns: usize,
    vectors: [&[f64]; P],
) -> Swept<P> {
    let mut swept = Swept {
        products: [const { Vec::new() }; P],
        squares: vec![0f64; if SQUARES { columns } else { 0 }],
    };
    swept.products.iter_mut().for_each(|product| product.resize(columns, 0f64));
    let groups = matrix.chunks_exact(ADD_ROWS * columns);
    let (whole, rest) = (groups.len() * ADD_ROWS, groups.remainder());
    for (group, first) in groups.zip((0..).step_by(ADD_ROWS)) {
        let rows = std::array::from_fn(|row| &group[row * columns..(row + 1) * columns]);
        let factors = vectors.map(|vector| std::array::from_fn(|row| vector[first + row]));
        add_rows::<V, P, ADD_ROWS, SQUARES>(rows, factors, &mut swept);
    }
    for (row, at) in rest.chunks_exact(columns).zip(whole..) {
        let factors = vectors.map(|vector| [vector[at]]);
        add_rows::<V, P, 1, SQUARES>([row], factors, &mut swept);
    }
    swept
}

/// Adds `R` rows, times each probe's factors, to the columns' sums.
#[inline(always)]
fn add_rows<V: Four, const P: usize, const R: usize, const SQUARES: bool>(
    rows: [&[f32]; R],
    factors: [[f64; R]; P],
    swept: &mut Swept<P>,
) {
    let columns = rows[0].len();
    let whole = columns / LANES;
    let row_chunks = rows.map(|row| &row.as_chunks::<LANES>().0[..whole]);
    let mut products = swept.products.each_mut().map(|product| &mut product[..columns]);
    let squares = &mut swept.squares[..if SQUARES { columns } else { 0 }];
    let spread = factors.map(|factors| factors.map(V::splat));
    for at in 0..whole {
        let x = row_chunks.map(|chunks| V::widen(&chunks[at]));
        for (product, factors) in products.iter_mut().zip(&spread) {
            let sums = &mut product.as_chunks_mut::<LANES>().0[at];
            let sum = x.iter().zip(factors);
            sum.fold(V::load(sums), |sum, (&x, &factor)| sum.plus_product(x, factor)).store(sums);
        }
        if SQUARES {
            let sums = &mut squares.as_chunks_mut::<LANES>().0[at];
            x.iter().fold(V::load(sums), |sum, &x| sum.plus_product(x, x)).store(sums);
        }
    }
    for column in whole * LANES..columns {
        for (row, elements) in rows.iter().enumerate() {
            let x = f64::from(elements[column]);
            for (product, factors) in products.iter_mut().zip(&factors) {
                product[column] += x * factors[row];
            }
            if SQUARES {
                squares[column] += x * x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Portable;

    /// Small whole numbers, so that every order of additions gives the same sums.
    fn matrix(rows: usize, columns: usize) -> Vec<f32> {
        (0..rows * columns).map(|at| ((at * 7 + 3) % 11) as f32 - 5.0).collect()
    }

    fn vector(count: usize, stream: usize) -> Vec<f64> {
        (0..count).map(|at| ((at * 5 + stream) % 7) as f64 - 3.0).collect()
    }

    #[test]
    fn both_passes_give_the_products_and_squares() {
        for (r, c) in [(1, 1), (3, 5), (4, 8), (5, 17), (9, 33), (130, 7)] {
            let m = matrix(r, c);
            let at = |row: usize, column: usize| f64::from(m[row * c + column]);
            let (x, y) = ([vector(c, 1), vector(c, 2)], [vector(r, 1), vector(r, 2)]);
            let across = rows(&m, c, [&x[0], &x[1]], true);
            let down = columns(&m, c, [&y[0], &y[1]], true);
            for probe in 0..2 {
                for row in 0..r {
                    let sum: f64 = (0..c).map(|column| at(row, column) * x[probe][column]).sum();
                    assert_eq!(across.products[probe][row], sum, "{r}x{c}");
                }
                for column in 0..c {
                    let sum: f64 = (0..r).map(|row| at(row, column) * y[probe][row]).sum();
                    assert_eq!(down.products[probe][column], sum, "{r}x{c}");
                }
            }
            let squares: f64 = m.iter().map(|&x| f64::from(x * x)).sum();
            assert_eq!(across.squares.iter().sum::<f64>(), squares);
            assert_eq!(down.squares.iter().sum::<f64>(), squares);
            // The narrow code, which this processor may not have chosen.
            let narrow = rows_in::<Portable, 2, true>(&m, c, [&x[0], &x[1]]);
            assert_eq!((&narrow.products, &narrow.squares), (&across.products, &across.squares));
            let narrow = columns_in::<Portable, 2, true>(&m, c, [&y[0], &y[1]]);
            assert_eq!((&narrow.products, &narrow.squares), (&down.products, &down.squares));
            assert!(rows(&m, c, [&x[0], &x[1]], false).squares.is_empty());
        }
    }
}
