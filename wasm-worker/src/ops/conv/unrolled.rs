//! Convolutions of any geometry: patches unrolled into a matrix (a bounded
//! tile of output rows at a time), then a matrix product.
//!
//! With `k = (c / groups) kh kw` and `p` output positions of a tile, per image
//! and group: forward `out [o, p] = weight [o, k] cols [k, p]`, weight gradient
//! `dw [o, k] += dy [o, p] cols^T`, input gradient `cols [k, p] = weight^T dy`
//! added back to where the patches came from.

use super::geometry::Geometry;
use crate::buffer::Buffer;
use crate::gemm::{Matrix, gemm_strided};
use std::ops::Range;

/// Elements of an unrolled tile: half a megabyte, which stays in a second-level
/// cache. Output rows are whole, so one very long row may exceed it.
const TILE_ELEMENTS: u64 = 128 * 1024;

/// Elements of one unrolled output row. In 64 bits, because a graph that is
/// only being planned may ask for more than the address space holds.
fn row_elements(geometry: &Geometry) -> u64 {
    geometry.patch() as u64 * geometry.out_width as u64
}

fn tile_rows(geometry: &Geometry) -> usize {
    (TILE_ELEMENTS / row_elements(geometry)).clamp(1, geometry.out_height as u64) as usize
}

/// Runs of output rows whose unrolled tile stays within bounds.
fn tiles(geometry: &Geometry) -> impl Iterator<Item = Range<usize>> + use<> {
    let (height, rows) = (geometry.out_height, tile_rows(geometry));
    (0..height).step_by(rows).map(move |start| start..(start + rows).min(height))
}

/// Elements of the largest tile.
pub fn tile_elements_max(geometry: &Geometry) -> u64 {
    if geometry.is_pointwise() {
        return 0;
    }
    tile_rows(geometry) as u64 * row_elements(geometry)
}

/// Room for a tile. `None` where the image is multiplied as it lies.
fn tile(geometry: &Geometry) -> Option<Buffer<f32>> {
    let elements = tile_elements_max(geometry) as usize;
    (!geometry.is_pointwise()).then(|| Buffer::stale(elements))
}

/// Unrolls the patches of output rows `rows` into `cols [patch, rows * out_width]`.
fn unroll(geometry: &Geometry, image: &[f32], rows: &Range<usize>, cols: &mut [f32]) {
    let (width, out_width) = (geometry.width, geometry.out_width);
    let stride = geometry.attrs.stride[1] as usize;
    let positions = rows.len() * out_width;
    geometry.for_each_patch_row(|patch_row, channel, tap_row, tap_column| {
        let plane = &image[channel * geometry.plane()..(channel + 1) * geometry.plane()];
        let target = &mut cols[patch_row * positions..(patch_row + 1) * positions];
        let (inside, start) = geometry.columns_inside(tap_column);
        for (target, out_row) in target.chunks_exact_mut(out_width).zip(rows.clone()) {
            let Some(row) = geometry.source_row(out_row, tap_row) else {
                target.fill(0.0);
                continue;
            };
            let source = &plane[row * width..(row + 1) * width];
            target[..inside.start].fill(0.0);
            target[inside.end..].fill(0.0);
            let target = &mut target[inside.clone()];
            if stride == 1 {
                target.copy_from_slice(&source[start..start + target.len()]);
            } else {
                let source = source[start..].iter().step_by(stride);
                target.iter_mut().zip(source).for_each(|(to, &from)| *to = from);
            }
        }
    });
}

/// Adds `cols [patch, rows * out_width]` back to where the patches came from.
fn roll_up(geometry: &Geometry, cols: &[f32], rows: &Range<usize>, image: &mut [f32]) {
    let (width, out_width) = (geometry.width, geometry.out_width);
    let stride = geometry.attrs.stride[1] as usize;
    let positions = rows.len() * out_width;
    geometry.for_each_patch_row(|patch_row, channel, tap_row, tap_column| {
        let plane = &mut image[channel * geometry.plane()..(channel + 1) * geometry.plane()];
        let source = &cols[patch_row * positions..(patch_row + 1) * positions];
        let (inside, start) = geometry.columns_inside(tap_column);
        for (source, out_row) in source.chunks_exact(out_width).zip(rows.clone()) {
            let Some(row) = geometry.source_row(out_row, tap_row) else { continue };
            let target = &mut plane[row * width..(row + 1) * width];
            let source = &source[inside.clone()];
            if stride == 1 {
                let target = &mut target[start..start + source.len()];
                target.iter_mut().zip(source).for_each(|(to, &from)| *to += from);
            } else {
                let target = target[start..].iter_mut().step_by(stride);
                target.zip(source).for_each(|(to, &from)| *to += from);
            }
        }
    });
}

/// See [`super::forward`].
pub fn forward(geometry: &Geometry, images: &[f32], weights: &[f32], result: &mut [f32]) {
    let mut cols = tile(geometry);
    let (patch, filters, out_plane) = (geometry.patch(), geometry.filters, geometry.out_plane());
    for image in 0..geometry.images {
        for group in 0..geometry.groups {
            let source = &images[geometry.image_range(image, group)];
            let out = &mut result[geometry.out_range(image, group)];
            let weight = Matrix::new(&weights[geometry.weight_range(group)], filters, patch);
            let Some(cols) = &mut cols else {
                gemm_strided(weight, Matrix::new(source, patch, out_plane), false, out, out_plane);
                continue;
            };
            for rows in tiles(geometry) {
                unroll(geometry, source, &rows, cols);
                let positions = rows.len() * geometry.out_width;
                let cols = Matrix::new(&cols[..patch * positions], patch, positions);
                let out = &mut out[rows.start * geometry.out_width..];
                gemm_strided(weight, cols, false, out, out_plane);
            }
        }
    }
}

/// See [`super::input_grad`].
pub fn input_grad(geometry: &Geometry, weights: &[f32], grads: &[f32], result: &mut [f32]) {
    let mut cols = tile(geometry);
    let (patch, filters, out_plane) = (geometry.patch(), geometry.filters, geometry.out_plane());
    for image in 0..geometry.images {
        for group in 0..geometry.groups {
            let dy = &grads[geometry.out_range(image, group)];
            let dx = &mut result[geometry.image_range(image, group)];
            let weight = Matrix::transposed(&weights[geometry.weight_range(group)], patch, filters);
            let Some(cols) = &mut cols else {
                gemm_strided(weight, Matrix::new(dy, filters, out_plane), false, dx, out_plane);
                continue;
            };
            for rows in tiles(geometry) {
                let positions = rows.len() * geometry.out_width;
                let cols = &mut cols[..patch * positions];
                let dy = &dy[rows.start * geometry.out_width..];
                let dy = Matrix::strided(dy, filters, positions, out_plane);
                gemm_strided(weight, dy, false, cols, positions);
                roll_up(geometry, cols, &rows, dx);
            }
        }
    }
}

/// See [`super::weight_grad`].
pub fn weight_grad(geometry: &Geometry, images: &[f32], grads: &[f32], result: &mut [f32]) {
    let mut cols = tile(geometry);
    let (patch, filters, out_plane) = (geometry.patch(), geometry.filters, geometry.out_plane());
    for image in 0..geometry.images {
        for group in 0..geometry.groups {
            let source = &images[geometry.image_range(image, group)];
            let dy = &grads[geometry.out_range(image, group)];
            let dw = &mut result[geometry.weight_range(group)];
            let Some(cols) = &mut cols else {
                let dy = Matrix::new(dy, filters, out_plane);
                gemm_strided(dy, Matrix::transposed(source, out_plane, patch), true, dw, patch);
                continue;
            };
            for rows in tiles(geometry) {
                unroll(geometry, source, &rows, cols);
                let positions = rows.len() * geometry.out_width;
                let cols = Matrix::transposed(&cols[..patch * positions], positions, patch);
                let dy = &dy[rows.start * geometry.out_width..];
                let dy = Matrix::strided(dy, filters, positions, out_plane);
                gemm_strided(dy, cols, true, dw, patch);
            }
        }
    }
}
