//! Products whose left operand is not a matrix in memory: its elements lie at the sum of a row's
//! and a step's offset, as the patches of an image do. Nothing is copied.

use super::micro::{self, COLUMNS, Out, ROWS, Right};
use super::{INNER, Matrix, ROWS_BLOCK, blocks, pack};
use crate::buffer::Buffer;
use crate::simd::LANES;
use std::ops::Range;

/// A left operand: element `[row, step]` is `elements[rows[row] + steps[step] / 4]`.
#[derive(Clone, Copy, Debug)]
pub struct Scattered<'a> {
    elements: &'a [f32],
    rows: &'a [usize],
    steps: &'a [usize],
}

impl<'a> Scattered<'a> {
    /// Offsets of rows are in elements, those of steps in bytes.
    ///
    /// # Panics
    /// Where an offset leads out of the slice: a mistake of the caller.
    pub fn new(elements: &'a [f32], rows: &'a [usize], steps: &'a [usize]) -> Self {
        let last = |offsets: &[usize]| offsets.iter().max().copied().unwrap_or(0);
        assert!(last(rows) + last(steps) / 4 < elements.len(), "every element lies in the slice");
        Scattered { elements, rows, steps }
    }
}

/// A right operand, packed as a whole to be used many times.
#[derive(Debug)]
pub struct WholeRight {
    rows: usize,
    columns: usize,
    packed: Buffer<f32>,
}

impl WholeRight {
    /// Room for matrices of these extents; the first one is packed later.
    pub fn new(rows: usize, columns: usize) -> Self {
        WholeRight { rows, columns, packed: Buffer::stale(rows * pack::right_width(columns)) }
    }

    /// Elements that a packed matrix takes.
    pub fn elements(rows: usize, columns: usize) -> u64 {
        rows as u64 * columns.next_multiple_of(LANES) as u64
    }

    /// Packs a matrix in place of the one before.
    ///
    /// # Panics
    /// Where it has other extents: a mistake of the caller.
    pub fn pack(&mut self, b: &Matrix<'_>) {
        assert!(b.in_bounds(), "the operand lies in its slice");
        assert_eq!((b.rows, b.columns), (self.rows, self.columns), "there is room for it");
        let width = pack::right_width(b.columns);
        for inner in blocks(b.rows, INNER) {
            let to = &mut self.packed[inner.start * width..inner.end * width];
            pack::right(b, 0..b.columns, inner, to);
        }
    }

    /// Each panel of a block of steps, with the columns that it holds.
    fn panels(&self, inner: &Range<usize>) -> impl Iterator<Item = (Right, Range<usize>)> {
        let width = pack::right_width(self.columns);
        let mut rest = &self.packed[inner.start * width..inner.end * width];
        let (columns, depth) = (self.columns, inner.len());
        (0..columns).step_by(COLUMNS).map(move |first| {
            let held = first..(first + COLUMNS).min(columns);
            let step = pack::right_width(held.len());
            let (panel, after) = rest.split_at(depth * step);
            rest = after;
            (Right { at: panel.as_ptr(), step }, held)
        })
    }
}

/// `out = (a b)^T`, or `out += (a b)^T` with `accumulate`: element `[row, column]` of the product
/// is written to `out[column * out_step + row]`.
///
/// # Panics
/// Where inner extents differ or the result does not fit its slice: a mistake of the caller.
pub fn scattered(
    a: Scattered<'_>,
    b: &WholeRight,
    accumulate: bool,
    out: &mut [f32],
    out_step: usize,
) {
    assert_eq!(a.steps.len(), b.rows, "inner extents");
    let rows = a.rows.len();
    assert!(
        rows <= out_step && (b.columns - 1) * out_step + rows <= out.len(),
        "the result fits its slice"
    );
    for inner in blocks(b.rows, INNER) {
        let steps = &a.steps[inner.clone()];
        let accumulate = accumulate || inner.start > 0;
        for block in blocks(rows, ROWS_BLOCK) {
            for (right, held) in b.panels(&inner) {
                for row in block.clone().step_by(ROWS) {
                    let rows = &a.rows[row..(row + ROWS).min(block.end)];
                    let at = held.start * out_step + row;
                    let target = Target { out: &mut out[at..], out_step, accumulate };
                    // SAFETY: every row has an element at every step, the panel has as many
                    // steps of the registers that its columns need, and `out` was checked.
                    unsafe { tile(a.elements, rows, steps, right, held.len(), target) };
                }
            }
        }
    }
}

/// Where one tile goes.
struct Target<'a> {
    out: &'a mut [f32],
    out_step: usize,
    accumulate: bool,
}

/// # Safety
/// As [`micro::scattered`] says of operands; `out` has `columns` columns of as many rows.
unsafe fn tile(
    elements: &[f32],
    rows: &[usize],
    steps: &[usize],
    b: Right,
    columns: usize,
    target: Target<'_>,
) {
    let two = columns > LANES;
    let whole = columns == if two { COLUMNS } else { LANES };
    let mut edge = [[0f32; ROWS]; COLUMNS];
    let Target { out, out_step, accumulate } = target;
    let to = if whole {
        Out { at: out.as_mut_ptr(), row_step: out_step, accumulate }
    } else {
        Out { at: edge.as_mut_ptr().cast(), row_step: ROWS, accumulate: false }
    };
    // SAFETY: by the caller's promise; `edge` has all columns of the tile.
    unsafe {
        match (rows.len(), two) {
            (1, false) => sums::<1, 1>(elements, rows, steps, b, to),
            (2, false) => sums::<2, 1>(elements, rows, steps, b, to),
            (3, false) => sums::<3, 1>(elements, rows, steps, b, to),
            (_, false) => sums::<ROWS, 1>(elements, rows, steps, b, to),
            (1, true) => sums::<1, 2>(elements, rows, steps, b, to),
            (2, true) => sums::<2, 2>(elements, rows, steps, b, to),
            (3, true) => sums::<3, 2>(elements, rows, steps, b, to),
            (_, true) => sums::<ROWS, 2>(elements, rows, steps, b, to),
        }
    }
    if whole {
        return;
    }
    for (column, edge) in edge.iter().enumerate().take(columns) {
        for (to, &x) in out[column * out_step..][..rows.len()].iter_mut().zip(edge) {
            *to = if accumulate { *to + x } else { x };
        }
    }
}

/// # Safety
/// As [`micro::scattered`] says.
#[inline(always)]
unsafe fn sums<const R: usize, const V: usize>(
    elements: &[f32],
    rows: &[usize],
    steps: &[usize],
    b: Right,
    out: Out,
) {
    let at: [*const f32; R] = std::array::from_fn(|r| elements[rows[r]..].as_ptr());
    let neighbours = R == ROWS && rows.windows(2).all(|pair| pair[1] == pair[0] + 1);
    // SAFETY: by the caller's promise.
    unsafe {
        if neighbours {
            micro::scattered::<R, V, true>(steps.len(), at, steps.as_ptr(), b, out);
        } else {
            micro::scattered::<R, V, false>(steps.len(), at, steps.as_ptr(), b, out);
        }
    }
}
