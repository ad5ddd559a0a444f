//! The innermost loops: a tile of up to four rows and eight columns is kept in
//! registers while both operands stream by.
//!
//! Every element of a tile is `((0 + a0 b0) + a1 b1) + …` in the order of the
//! inner axis, each product and each sum rounded. That order does not depend on
//! the tile's size or on how the operands lie, so the edges of a matrix, a
//! transposed operand and a native build yield the same bits.

use crate::simd::{F32x4, LANES};

/// Rows of a whole tile.
pub const ROWS: usize = 4;
/// Columns of a whole tile: two registers. Four rows of three would spill.
pub const COLUMNS: usize = 2 * LANES;

/// Where a tile's rows lie in the left operand.
#[derive(Clone, Copy)]
pub struct Left {
    /// The first row's first element.
    pub at: *const f32,
    /// Distance between rows where they are read in place; packed rows are neighbours.
    pub row_step: usize,
}

/// Where a tile's columns lie in the right operand.
#[derive(Clone, Copy)]
pub struct Right {
    /// The first step's first element.
    pub at: *const f32,
    /// Distance between steps.
    pub step: usize,
}

/// Where a tile is written.
#[derive(Clone, Copy)]
pub struct Out {
    /// The first row's first element.
    pub at: *mut f32,
    /// Distance between rows.
    pub row_step: usize,
    /// Whether the tile is added to what is there.
    pub accumulate: bool,
}

/// One step of the inner axis.
///
/// # Safety
/// `a` has an element at each multiple of `a_step` below `R`, `b` has `V` registers.
#[inline(always)]
unsafe fn add_products<const R: usize, const V: usize>(
    sums: &mut [[F32x4; V]; R],
    a: *const f32,
    a_step: usize,
    b: *const f32,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let b: [F32x4; V] = std::array::from_fn(|v| F32x4::load(&*b.add(v * LANES).cast()));
        for (r, sums) in sums.iter_mut().enumerate() {
            let a = F32x4::splat(*a.add(r * a_step));
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = sum.plus_product(a, b);
            }
        }
    }
}

/// `R` rows of the left operand times `V` registers of the right one.
///
/// A function of its own: inlined into its caller's loops, it would be given
/// fewer registers than it needs.
///
/// # Safety
/// `depth` steps of `R` rows lie at `a` (packed: four neighbours per step), as many of `V`
/// registers at `b`, and `R` rows of `V` registers at `out`, which overlaps neither.
#[inline(never)]
pub unsafe fn tile<const R: usize, const V: usize, const PACKED: bool>(
    depth: usize,
    a: Left,
    b: Right,
    out: Out,
) {
    let (row_step, step) = if PACKED { (1, ROWS) } else { (a.row_step, 1) };
    let mut sums = [[F32x4::splat(0.0); V]; R];
    let (mut a, mut at, mut left) = (a.at, b.at, depth);
    // SAFETY: by the caller's promise.
    unsafe {
        // Two steps per turn, with a way out between them: without it, the compiler loads what
        // both need first, and spills. Where columns are read in place, the step after the last
        // one may lie outside.
        while left > 0 {
            add_products(&mut sums, a, row_step, at);
            if left == 1 {
                break;
            }
            add_products(&mut sums, a.wrapping_add(step), row_step, at.wrapping_add(b.step));
            a = a.wrapping_add(2 * step);
            at = at.wrapping_add(2 * b.step);
            left -= 2;
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let row = out.at.add(r * out.row_step).cast::<[f32; LANES]>();
            for (v, sum) in sums.into_iter().enumerate() {
                let to = &mut *row.add(v);
                let sum = if out.accumulate { F32x4::load(to).plus(sum) } else { sum };
                sum.store(to);
            }
        }
    }
}

/// One step of the inner axis, at offset `step` of each row.
///
/// # Safety
/// Each row has an element there (`NEIGHBOURS`: as many from the first row's on), `b` has `V`
/// registers.
#[inline(always)]
unsafe fn add_scattered<const R: usize, const V: usize, const NEIGHBOURS: bool>(
    sums: &mut [[F32x4; V]; R],
    rows: &[*const f32; R],
    step: usize,
    b: *const f32,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let b: [F32x4; V] = std::array::from_fn(|v| F32x4::load(&*b.add(v * LANES).cast()));
        for (r, sums) in sums.iter_mut().enumerate() {
            let a =
                if NEIGHBOURS { *rows[0].byte_add(step).add(r) } else { *rows[r].byte_add(step) };
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = sum.plus_product(F32x4::splat(a), b);
            }
        }
    }
}

/// A left operand whose elements lie at the sum of a row's and a step's offset, times `V`
/// registers of the right one; the tile is written turned, `out.row_step` between columns.
///
/// `NEIGHBOURS` says that the rows' offsets are consecutive elements.
///
/// # Safety
/// `rows[r] + steps[s]` is an element for each of `depth` steps (offsets of steps are in bytes),
/// `b` has as many steps of `V` registers, and `out` has `4 V` columns of `R` elements, which
/// overlap no operand.
#[inline(never)]
pub unsafe fn scattered<const R: usize, const V: usize, const NEIGHBOURS: bool>(
    depth: usize,
    rows: [*const f32; R],
    steps: *const usize,
    b: Right,
    out: Out,
) {
    let mut sums = [[F32x4::splat(0.0); V]; R];
    let (mut steps, mut at, mut left) = (steps, b.at, depth);
    // SAFETY: by the caller's promise.
    unsafe {
        // As in [`tile`].
        while left > 0 {
            add_scattered::<R, V, NEIGHBOURS>(&mut sums, &rows, *steps, at);
            if left == 1 {
                break;
            }
            let second = at.wrapping_add(b.step);
            add_scattered::<R, V, NEIGHBOURS>(&mut sums, &rows, *steps.add(1), second);
            steps = steps.wrapping_add(2);
            at = at.wrapping_add(2 * b.step);
            left -= 2;
        }
        let zeros = [F32x4::splat(0.0); V];
        let rows: [[F32x4; V]; ROWS] = std::array::from_fn(|r| *sums.get(r).unwrap_or(&zeros));
        for (v, four) in (0..V).map(|v| (v, rows.map(|row| row[v]))) {
            for (lane, column) in F32x4::turn(four).into_iter().enumerate() {
                let to = out.at.add((v * LANES + lane) * out.row_step);
                if R == ROWS {
                    let to = &mut *to.cast::<[f32; LANES]>();
                    let sum = if out.accumulate { F32x4::load(to).plus(column) } else { column };
                    sum.store(to);
                    continue;
                }
                for (r, x) in column.to_array().into_iter().enumerate().take(R) {
                    let to = &mut *to.add(r);
                    *to = if out.accumulate { *to + x } else { x };
                }
            }
        }
    }
}
