//! Single-precision matrix multiplication: packed panels, tiles in registers.
//!
//! Blocks have fixed extents, and every element is a sum over blocks of the
//! inner axis of sums in order (see [`micro`]). So the bits of a product depend
//! on the inner extent alone: not on the machine, not on how operands lie, and
//! not on how many rows or columns are computed at once.

mod micro;
mod pack;
mod scattered;
#[cfg(test)]
mod tests;

use crate::buffer::Buffer;
use crate::simd::LANES;
use micro::{COLUMNS, Left, Out, ROWS, Right};
pub use scattered::{Scattered, WholeRight, scattered};
use std::ops::Range;

/// Steps of the inner axis that are summed at once: a right panel of 16 KiB
/// stays in a first-level cache.
const INNER: usize = 512;
/// Rows per block: 128 of 512 steps are a quarter of a megabyte.
const ROWS_BLOCK: usize = 128;
/// Columns per block: with 512 steps, one megabyte.
const COLUMNS_BLOCK: usize = 512;
/// The same where all rows are one block: what was packed is used once and stays close by.
const COLUMNS_OF_FEW_ROWS: usize = 64;

/// Bytes of both packed blocks at most.
pub const PACK_BYTES_MAX: u64 = (4 * INNER * (ROWS_BLOCK + COLUMNS_BLOCK)) as u64;

/// Up to as many rows, the right operand is read where it lies: each of its elements is used
/// so few times that packing would cost more than it spares.
const IN_PLACE_ROWS: usize = 8;

/// From as many columns, rows of the left operand that lie in order are packed too: four rows
/// then have one address instead of four, in each of the loops that read them.
const PACKED_COLUMNS_MIN: usize = 32;

/// A matrix somewhere in a slice.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    elements: &'a [f32],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major `[rows, columns]`.
    pub fn new(elements: &'a [f32], rows: usize, columns: usize) -> Self {
        Matrix { elements, rows, columns, row_step: columns, column_step: 1 }
    }

    /// `[rows, columns]`, stored row-major as `[columns, rows]`.
    pub fn transposed(elements: &'a [f32], rows: usize, columns: usize) -> Self {
        Matrix { elements, rows, columns, row_step: 1, column_step: rows }
    }

    /// Row-major `[rows, columns]` whose rows lie `row_step` apart.
    pub fn strided(elements: &'a [f32], rows: usize, columns: usize, row_step: usize) -> Self {
        Matrix { elements, rows, columns, row_step, column_step: 1 }
    }

    fn in_bounds(&self) -> bool {
        let last = |count: usize, step: usize| count.saturating_sub(1) * step;
        last(self.rows, self.row_step) + last(self.columns, self.column_step) < self.elements.len()
    }
}

/// What is told of the elements of a product as soon as they are complete, while they are in a
/// cache: the place of the first one in the product, and a run of them.
pub type Finish<'a> = dyn FnMut(usize, &mut [f32]) + 'a;

/// `out = a b`, row-major and gapless; `finish` is given all of it, block by block.
pub fn gemm(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], finish: &mut Finish<'_>) {
    let out_step = b.columns;
    gemm_blocks(a, b, &mut Place::Whole { out, out_step, accumulate: false }, finish);
}

/// `out = a b`, or `out += a b` with `accumulate`; rows of `out` lie `out_step` apart.
///
/// # Panics
/// Where inner extents differ or a matrix does not fit its slice: a mistake of the caller.
pub fn gemm_strided(
    a: Matrix<'_>,
    b: Matrix<'_>,
    accumulate: bool,
    out: &mut [f32],
    out_step: usize,
) {
    gemm_blocks(a, b, &mut Place::Whole { out, out_step, accumulate }, &mut |_, _| {});
}

/// Whether [`gemm_passing`] can compute products with this inner extent.
pub const fn passes(inner: usize) -> bool {
    inner <= INNER
}

/// `a b`, of which nothing is kept: `finish` is given all of it, block by block.
///
/// # Panics
/// Where the inner extent is not one that [`passes`].
pub fn gemm_passing(a: Matrix<'_>, b: Matrix<'_>, finish: &mut Finish<'_>) {
    assert!(passes(a.columns), "sums are complete after one block of the inner axis");
    let size = a.rows.min(ROWS_BLOCK) * b.columns.min(COLUMNS_BLOCK);
    gemm_blocks(a, b, &mut Place::Passing(Buffer::stale(size)), finish);
}

/// Where a product goes.
enum Place<'a> {
    Whole {
        out: &'a mut [f32],
        out_step: usize,
        accumulate: bool,
    },
    /// One block at a time, each in the place of the one before.
    Passing(Buffer<f32>),
}

impl Place<'_> {
    fn target(&mut self, rows: &Range<usize>, columns: &Range<usize>, adds: bool) -> Target<'_> {
        match self {
            Place::Whole { out, out_step, accumulate } => {
                Target { out, out_step: *out_step, origin: (0, 0), accumulate: *accumulate || adds }
            }
            Place::Passing(block) => Target {
                out: block,
                out_step: columns.len(),
                origin: (rows.start, columns.start),
                accumulate: adds,
            },
        }
    }
}

fn gemm_blocks(a: Matrix<'_>, b: Matrix<'_>, place: &mut Place<'_>, finish: &mut Finish<'_>) {
    assert_eq!(a.columns, b.rows, "inner extents");
    assert!(a.in_bounds() && b.in_bounds(), "operands lie in their slices");
    let (m, k, n) = (a.rows, a.columns, b.columns);
    if let Place::Whole { out, out_step, .. } = place {
        let fits = n <= *out_step && (m - 1) * *out_step + n <= out.len();
        assert!(fits, "the result fits its slice");
    }
    let mut blocks_of_b = RightBlocks::new(&b, m);
    let rows_stay = a.column_step == 1 && (n < PACKED_COLUMNS_MIN || m < ROWS);
    let mut panels =
        (!rows_stay).then(|| Buffer::stale(k.min(INNER) * m.min(ROWS_BLOCK).div_ceil(ROWS)));
    for inner in blocks(k, INNER) {
        // A block of rows is packed again for each block of columns, unless it is the only one.
        let mut packed_rows = None;
        for columns in blocks(n, columns_block(m)) {
            let right = blocks_of_b.pack(columns.clone(), inner.clone());
            // What is finished at once: a wide block, or all the narrow ones in its place.
            let wide = columns.start / COLUMNS_BLOCK * COLUMNS_BLOCK;
            let wide = wide..(wide + COLUMNS_BLOCK).min(n);
            for rows in blocks(m, ROWS_BLOCK) {
                let mut target = place.target(&rows, &wide, inner.start > 0);
                if let Some(panels) = &mut panels {
                    let panels = &mut panels[..inner.len() * rows.len().div_ceil(ROWS)];
                    if packed_rows.as_ref() != Some(&rows) {
                        pack::left(&a, rows.clone(), inner.clone(), panels);
                        packed_rows = Some(rows.clone());
                    }
                    rows_in_panels(panels, rows.clone(), &right, &mut target);
                } else {
                    rows_in_place(&a, rows.clone(), &inner, &right, &mut target);
                }
                if inner.end == k && columns.end == wide.end {
                    target.finish(rows, wide.clone(), n, finish);
                }
            }
        }
    }
}

/// Columns per block of a product with `rows` rows.
fn columns_block(rows: usize) -> usize {
    if rows <= ROWS_BLOCK { COLUMNS_OF_FEW_ROWS } else { COLUMNS_BLOCK }
}

fn blocks(extent: usize, block: usize) -> impl Iterator<Item = Range<usize>> {
    (0..extent).step_by(block).map(move |start| start..(start + block).min(extent))
}

/// Packs blocks of the right operand, where that pays.
struct RightBlocks<'a> {
    matrix: &'a Matrix<'a>,
    in_place: bool,
    packed: Buffer<f32>,
}

/// A block of the right operand: panels of up to eight columns.
struct RightBlock<'a> {
    matrix: &'a Matrix<'a>,
    columns: Range<usize>,
    inner: Range<usize>,
    in_place: bool,
    packed: &'a [f32],
}

impl<'a> RightBlocks<'a> {
    fn new(matrix: &'a Matrix<'a>, rows: usize) -> Self {
        let in_place = matrix.column_step == 1 && rows <= IN_PLACE_ROWS;
        // In place, only the last columns are packed.
        let columns = if in_place { COLUMNS } else { matrix.columns.min(columns_block(rows)) };
        let size = matrix.rows.min(INNER) * pack::right_width(columns);
        RightBlocks { matrix, in_place, packed: Buffer::stale(size) }
    }

    fn pack(&mut self, columns: Range<usize>, inner: Range<usize>) -> RightBlock<'_> {
        let whole = columns.len() / COLUMNS * COLUMNS;
        let packed =
            if self.in_place { columns.start + whole..columns.end } else { columns.clone() };
        let size = inner.len() * pack::right_width(packed.len());
        pack::right(self.matrix, packed, inner.clone(), &mut self.packed[..size]);
        RightBlock {
            matrix: self.matrix,
            columns,
            inner,
            in_place: self.in_place,
            packed: &self.packed[..size],
        }
    }
}

impl RightBlock<'_> {
    /// Calls `visit` with each panel and the columns that it holds. Every panel holds as many
    /// steps as the block, of two registers where it has more than four columns, else of one.
    #[inline(always)]
    fn for_each_panel(&self, mut visit: impl FnMut(Right, Range<usize>)) {
        let (mut rest, depth) = (self.packed, self.inner.len());
        for first in self.columns.clone().step_by(COLUMNS) {
            let held = first..(first + COLUMNS).min(self.columns.end);
            if self.in_place && held.len() == COLUMNS {
                let step = self.matrix.row_step;
                let from = &self.matrix.elements[self.inner.start * step + first..];
                assert!((depth - 1) * step + COLUMNS <= from.len(), "the panel lies in its slice");
                visit(Right { at: from.as_ptr(), step }, held);
                continue;
            }
            let step = pack::right_width(held.len());
            let (panel, after) = rest.split_at(depth * step);
            rest = after;
            visit(Right { at: panel.as_ptr(), step }, held);
        }
    }
}

/// Where tiles go.
struct Target<'a> {
    out: &'a mut [f32],
    out_step: usize,
    /// The row and the column of the product that `out` begins with.
    origin: (usize, usize),
    accumulate: bool,
}

impl Target<'_> {
    /// Where an element of the product is.
    fn at(&self, row: usize, column: usize) -> usize {
        (row - self.origin.0) * self.out_step + column - self.origin.1
    }

    /// Gives `finish` the elements of a block of a product with `n` columns: at once where it has
    /// whole rows without gaps, else row by row.
    fn finish(
        &mut self,
        rows: Range<usize>,
        columns: Range<usize>,
        n: usize,
        finish: &mut Finish<'_>,
    ) {
        if columns.len() == n && self.out_step == n {
            let from = self.at(rows.start, 0);
            finish(rows.start * n, &mut self.out[from..from + rows.len() * n]);
            return;
        }
        for row in rows {
            let from = self.at(row, columns.start);
            finish(row * n + columns.start, &mut self.out[from..from + columns.len()]);
        }
    }

    /// Computes `R` rows of `V` registers and puts the first `rows` and `columns` of them.
    ///
    /// # Safety
    /// As [`micro::tile`] says of `a` and `b`.
    #[inline(always)]
    unsafe fn tile<const R: usize, const V: usize, const PACKED: bool>(
        &mut self,
        depth: usize,
        (a, b): (Left, Right),
        row: usize,
        rows: usize,
        columns: &Range<usize>,
    ) {
        let at = self.at(row, columns.start);
        if rows == R && columns.len() == V * LANES {
            let last = at + (R - 1) * self.out_step + V * LANES;
            assert!(last <= self.out.len(), "the result fits its slice");
            // SAFETY: the tile lies in `out`, as was just checked; the rest is promised.
            unsafe {
                let out = Out {
                    at: self.out.as_mut_ptr().add(at),
                    row_step: self.out_step,
                    accumulate: self.accumulate,
                };
                micro::tile::<R, V, PACKED>(depth, a, b, out);
            }
            return;
        }
        let mut whole = [[[0f32; LANES]; V]; R];
        let out = Out { at: whole.as_mut_ptr().cast(), row_step: V * LANES, accumulate: false };
        // SAFETY: `whole` has the tile's extents; the rest is promised.
        unsafe { micro::tile::<R, V, PACKED>(depth, a, b, out) };
        for (r, part) in whole.iter().enumerate().take(rows) {
            let to = &mut self.out[at + r * self.out_step..][..columns.len()];
            for (to, &x) in to.iter_mut().zip(part.as_flattened()) {
                *to = if self.accumulate { *to + x } else { x };
            }
        }
    }
}

fn rows_in_panels(
    panels: &[[f32; ROWS]],
    rows: Range<usize>,
    right: &RightBlock<'_>,
    target: &mut Target<'_>,
) {
    let depth = right.inner.len();
    right.for_each_panel(|b, held| {
        for (panel, row) in panels.chunks_exact(depth).zip(rows.clone().step_by(ROWS)) {
            let count = ROWS.min(rows.end - row);
            let a = Left { at: panel.as_ptr().cast(), row_step: 1 };
            // SAFETY: panels of both sides hold `depth` steps, and `b` as many registers as it
            // has columns for.
            unsafe {
                if held.len() > LANES {
                    target.tile::<ROWS, 2, true>(depth, (a, b), row, count, &held);
                } else {
                    target.tile::<ROWS, 1, true>(depth, (a, b), row, count, &held);
                }
            }
        }
    });
}

fn rows_in_place(
    a: &Matrix<'_>,
    rows: Range<usize>,
    inner: &Range<usize>,
    right: &RightBlock<'_>,
    target: &mut Target<'_>,
) {
    fn sweep<const V: usize>(
        a: &Matrix<'_>,
        rows: &Range<usize>,
        inner: &Range<usize>,
        b: Right,
        held: &Range<usize>,
        target: &mut Target<'_>,
    ) {
        let depth = inner.len();
        for row in rows.clone().step_by(ROWS) {
            let at = a.elements[row * a.row_step + inner.start..].as_ptr();
            let left = Left { at, row_step: a.row_step };
            // SAFETY: `a` was checked to lie in its slice, and no row is read beyond its last
            // one; the panel holds `depth` steps of `V` registers.
            unsafe {
                match rows.end - row {
                    1 => target.tile::<1, V, false>(depth, (left, b), row, 1, held),
                    2 => target.tile::<2, V, false>(depth, (left, b), row, 2, held),
                    3 => target.tile::<3, V, false>(depth, (left, b), row, 3, held),
                    _ => target.tile::<ROWS, V, false>(depth, (left, b), row, ROWS, held),
                }
            }
        }
    }
    let wide = if rows.len() == 1 { one_row(a, rows.start, inner, right, target) } else { 0 };
    right.for_each_panel(|b, held| {
        if held.start < right.columns.start + wide {
            return;
        }
        if held.len() > LANES {
            sweep::<2>(a, &rows, inner, b, &held, target);
        } else {
            sweep::<1>(a, &rows, inner, b, &held, target);
        }
    });
}

/// The first columns of a single row, where the right operand is read in place: a register per
/// column group keeps more sums going than a whole tile's two, and rows of the operand are read in
/// longer runs. Returns how many columns there are.
fn one_row(
    a: &Matrix<'_>,
    row: usize,
    inner: &Range<usize>,
    right: &RightBlock<'_>,
    target: &mut Target<'_>,
) -> usize {
    const REGISTERS: usize = 8;
    const WIDE: usize = REGISTERS * LANES;
    if !right.in_place {
        return 0;
    }
    let (depth, step) = (inner.len(), right.matrix.row_step);
    let whole = right.columns.len() / WIDE * WIDE;
    let left = Left { at: a.elements[row * a.row_step + inner.start..].as_ptr(), row_step: 1 };
    for first in (right.columns.start..right.columns.start + whole).step_by(WIDE) {
        let from = &right.matrix.elements[inner.start * step + first..];
        assert!((depth - 1) * step + WIDE <= from.len(), "the panel lies in its slice");
        let b = Right { at: from.as_ptr(), step };
        // SAFETY: `a` was checked to lie in its slice, and so was the panel.
        unsafe {
            target.tile::<1, REGISTERS, false>(depth, (left, b), row, 1, &(first..first + WIDE));
        }
    }
    whole
}
