//! Operands rearranged so that the innermost loops read them in order.

use super::Matrix;
use super::micro::{COLUMNS, ROWS};
use crate::simd::{F32x4, LANES};
use std::ops::Range;

/// Left panels that are written at once: their rows share a cache line of the source.
const LEFT_PANELS: usize = 4;
/// Right panels that are written at once.
const RIGHT_PANELS: usize = 4;

/// Rows `rows` of `a`, steps `inner`, as panels `[k][4]`; rows that are not
/// there are zeros.
pub fn left(a: &Matrix<'_>, rows: Range<usize>, inner: Range<usize>, to: &mut [[f32; ROWS]]) {
    if a.column_step == 1 {
        left_by_rows(a, rows, inner, to);
    } else {
        left_by_columns(a, rows, inner, to);
    }
}

/// `a` is stored row by row: four steps of each row are loaded at once and turned.
fn left_by_rows(a: &Matrix<'_>, rows: Range<usize>, inner: Range<usize>, to: &mut [[f32; ROWS]]) {
    for (panel, first) in to.chunks_exact_mut(inner.len()).zip(rows.clone().step_by(ROWS)) {
        // Where the last panel has fewer rows, its last one stands in: nobody reads those sums.
        let rows: [&[f32]; ROWS] = std::array::from_fn(|r| {
            let row = (first + r).min(rows.end - 1);
            &a.elements[row * a.row_step + inner.start..][..inner.len()]
        });
        let chunks = rows.map(|row| row.as_chunks::<LANES>());
        let (blocks, rest) = panel.as_chunks_mut::<LANES>();
        for (at, block) in blocks.iter_mut().enumerate() {
            let turned = F32x4::turn(chunks.map(|(chunks, _)| F32x4::load(&chunks[at])));
            block.iter_mut().zip(turned).for_each(|(line, turned)| turned.store(line));
        }
        for (at, line) in rest.iter_mut().enumerate() {
            *line = chunks.map(|(_, rest)| rest[at]);
        }
    }
}

/// `a` is stored column by column: neighbouring rows lie side by side.
fn left_by_columns(
    a: &Matrix<'_>,
    rows: Range<usize>,
    inner: Range<usize>,
    to: &mut [[f32; ROWS]],
) {
    let depth = inner.len();
    let groups = to.chunks_mut(depth * LEFT_PANELS);
    for (group, first) in groups.zip(rows.clone().step_by(ROWS * LEFT_PANELS)) {
        let count = (ROWS * LEFT_PANELS).min(rows.end - first);
        for (at, step) in inner.clone().enumerate() {
            let from = &a.elements[step * a.column_step + first..][..count];
            let (whole, rest) = from.as_chunks::<ROWS>();
            for (to, from) in group[at..].iter_mut().step_by(depth).zip(whole) {
                *to = *from;
            }
            if !rest.is_empty() {
                let mut padded = [0.0; ROWS];
                padded[..rest.len()].copy_from_slice(rest);
                group[whole.len() * depth + at] = padded;
            }
        }
    }
}

/// Elements that [`right`] writes per step for `columns` columns.
pub fn right_width(columns: usize) -> usize {
    columns.next_multiple_of(LANES)
}

/// Columns `columns` of `b`, steps `inner`, as whole panels `[k][8]` followed
/// by the last columns, which fill one or two registers with zeros after them.
pub fn right(b: &Matrix<'_>, columns: Range<usize>, inner: Range<usize>, to: &mut [f32]) {
    let depth = inner.len();
    let whole = columns.len() / COLUMNS * COLUMNS;
    let rest = columns.start + whole..columns.end;
    let (panels, last) = to.split_at_mut(whole * depth);
    let (panels, _) = panels.as_chunks_mut::<COLUMNS>();
    let groups = panels.chunks_mut(depth * RIGHT_PANELS);
    for (group, first) in groups.zip((columns.start..rest.start).step_by(COLUMNS * RIGHT_PANELS)) {
        if b.column_step == 1 {
            by_rows(b, first, inner.clone(), group);
        } else {
            for (at, panel) in group.chunks_exact_mut(depth).enumerate() {
                let first = first + at * COLUMNS;
                by_columns(b, first..first + COLUMNS, inner.clone(), panel.as_flattened_mut());
            }
        }
    }
    if !rest.is_empty() {
        let last = &mut last[..depth * right_width(rest.len())];
        if b.column_step == 1 {
            last_by_rows(b, rest, inner, last);
        } else {
            by_columns(b, rest, inner, last);
        }
    }
}

/// Whole panels of `b`, which is stored row by row: a line is a run of it.
fn by_rows(b: &Matrix<'_>, first: usize, inner: Range<usize>, group: &mut [[f32; COLUMNS]]) {
    let depth = inner.len();
    let columns = group.len() / depth * COLUMNS;
    for (at, step) in inner.enumerate() {
        let row = &b.elements[step * b.row_step + first..][..columns];
        let (runs, _) = row.as_chunks::<COLUMNS>();
        for (line, run) in group[at..].iter_mut().step_by(depth).zip(runs) {
            *line = *run;
        }
    }
}

/// The last columns of `b`, which is stored row by row.
fn last_by_rows(b: &Matrix<'_>, columns: Range<usize>, inner: Range<usize>, to: &mut [f32]) {
    for (step, line) in inner.zip(to.chunks_exact_mut(right_width(columns.len()))) {
        let row = &b.elements[step * b.row_step..][columns.clone()];
        line[..row.len()].copy_from_slice(row);
        line[row.len()..].fill(0.0);
    }
}

/// One panel of `b`, which is stored column by column: four steps of each
/// column are loaded at once and turned.
fn by_columns(b: &Matrix<'_>, columns: Range<usize>, inner: Range<usize>, to: &mut [f32]) {
    let width = right_width(columns.len());
    let column = |at: usize| {
        let start = at * b.column_step + inner.start;
        &b.elements[start..start + inner.len()]
    };
    for (v, first) in columns.clone().step_by(LANES).enumerate() {
        let lines = &mut to[v * LANES..];
        if columns.end - first < LANES {
            for step in 0..inner.len() {
                let line = &mut lines[step * width..][..LANES];
                line.fill(0.0);
                for (x, column_at) in line.iter_mut().zip(first..columns.end) {
                    *x = column(column_at)[step];
                }
            }
            continue;
        }
        let columns: [&[f32]; LANES] = std::array::from_fn(|lane| column(first + lane));
        let chunks = columns.map(|column| column.as_chunks::<LANES>());
        let whole = inner.len() / LANES;
        for block in 0..whole {
            let turned = F32x4::turn(chunks.map(|(chunks, _)| F32x4::load(&chunks[block])));
            for (i, turned) in turned.into_iter().enumerate() {
                let line = lines[(block * LANES + i) * width..].first_chunk_mut();
                turned.store(line.expect("a panel has room for every step"));
            }
        }
        for i in 0..inner.len() % LANES {
            let line = chunks.map(|(_, rest)| rest[i]);
            lines[(whole * LANES + i) * width..][..LANES].copy_from_slice(&line);
        }
    }
}
