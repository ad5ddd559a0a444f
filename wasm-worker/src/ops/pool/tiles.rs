//! Maxima of the common 2 by 2 tiles without padding, four tiles at once.
//! Nothing branches on where a maximum lies: nobody could predict it.

use super::beats;
use crate::simd::{F32x4, LANES};
use raven_graph::Pool2dAttrs;

/// Whether windows are such tiles.
pub fn serve(attrs: &Pool2dAttrs) -> bool {
    attrs.kernel == [2, 2] && attrs.stride == [2, 2] && attrs.padding == [0; 4]
}

/// The elements of four tiles by their place: 0 and 1 above, 2 and 3 below.
#[inline(always)]
fn places(above: &[f32], below: &[f32]) -> [F32x4; 4] {
    let split = |row: &[f32]| {
        let (lanes, _) = row.as_chunks::<LANES>();
        F32x4::split([F32x4::load(&lanes[0]), F32x4::load(&lanes[1])])
    };
    let ([first, second], [third, fourth]) = (split(above), split(below));
    [first, second, third, fourth]
}

/// The first tiles of each group of four among `count`. The last group overlaps the one before
/// where it must: what both write is the same.
fn groups(count: usize) -> impl Iterator<Item = usize> {
    let last = count.checked_sub(LANES);
    let whole = (0..count / LANES).map(|group| group * LANES);
    whole.chain(last.filter(|_| !count.is_multiple_of(LANES)))
}

/// Whether a tile may hold a NaN: one NaN makes the sum one.
#[inline(always)]
fn may_hold_nan([a, b, c, d]: [F32x4; 4]) -> bool {
    a.plus(b).plus(c.plus(d)).has_nan()
}

/// The first maximum (or the first NaN) of a tile and its place.
fn first_max(tile: [f32; 4]) -> (f32, usize) {
    let mut best = (tile[0], 0);
    for (place, &value) in tile.iter().enumerate().skip(1) {
        if beats(value, best.0) {
            best = (value, place);
        }
    }
    best
}

/// The tile that begins at column `at`.
fn tile_at(above: &[f32], below: &[f32], at: usize) -> [f32; 4] {
    [above[at], above[at + 1], below[at], below[at + 1]]
}

/// One row of tiles: their maxima.
pub fn max_row((above, below): (&[f32], &[f32]), out: &mut [f32]) {
    if out.len() < LANES {
        return maxima_one_by_one((above, below), out);
    }
    for first in groups(out.len()) {
        let columns = 2 * first..2 * (first + LANES);
        let (above, below) = (&above[columns.clone()], &below[columns]);
        let out = &mut out[first..first + LANES];
        let tiles = places(above, below);
        if may_hold_nan(tiles) {
            maxima_one_by_one((above, below), out);
            continue;
        }
        let [mut max, rest @ ..] = tiles;
        for x in rest {
            max = x.greater(max).pick(x, max);
        }
        out.copy_from_slice(&max.to_array());
    }
}

fn maxima_one_by_one((above, below): (&[f32], &[f32]), out: &mut [f32]) {
    for (at, out) in out.iter_mut().enumerate() {
        *out = first_max(tile_at(above, below, 2 * at)).0;
    }
}

/// One row of tiles: each `dy` goes to its tile's first maximum, over zeros.
pub fn grad_row(
    (above, below): (&[f32], &[f32]),
    (dx_above, dx_below): (&mut [f32], &mut [f32]),
    dy: &[f32],
) {
    if dy.len() < LANES {
        return grads_one_by_one((above, below), (dx_above, dx_below), dy);
    }
    for first in groups(dy.len()) {
        let columns = 2 * first..2 * (first + LANES);
        let (above, below) = (&above[columns.clone()], &below[columns.clone()]);
        let dx = (&mut dx_above[columns.clone()], &mut dx_below[columns]);
        let dy = &dy[first..first + LANES];
        let tiles = places(above, below);
        if may_hold_nan(tiles) {
            grads_one_by_one((above, below), dx, dy);
        } else {
            four_grads(tiles, F32x4::load(&dy.as_chunks().0[0]), dx);
        }
    }
}

/// Four tiles without NaN.
#[inline(always)]
fn four_grads([a, b, c, d]: [F32x4; 4], dy: F32x4, dx: (&mut [f32], &mut [f32])) {
    let second = b.greater(a);
    let max = second.pick(b, a);
    let third = c.greater(max);
    let fourth = d.greater(third.pick(c, max));
    // What a later place takes is not left to the earlier ones.
    let (to_fourth, left) = (fourth.keep(dy), fourth.drop(dy));
    let (to_third, left) = (third.keep(left), third.drop(left));
    let rows = [[second.drop(left), second.keep(left)], [to_third, to_fourth]];
    for (row, to) in rows.into_iter().zip([dx.0, dx.1]) {
        let (lanes, _) = to.as_chunks_mut::<LANES>();
        lanes.iter_mut().zip(F32x4::merge(row)).for_each(|(to, lanes)| lanes.store(to));
    }
}

fn grads_one_by_one(
    (above, below): (&[f32], &[f32]),
    (dx_above, dx_below): (&mut [f32], &mut [f32]),
    dy: &[f32],
) {
    for (at, &dy) in dy.iter().enumerate() {
        let (_, place) = first_max(tile_at(above, below, 2 * at));
        let row = if place < 2 { &mut *dx_above } else { &mut *dx_below };
        row[2 * at + place % 2] = dy;
    }
}
