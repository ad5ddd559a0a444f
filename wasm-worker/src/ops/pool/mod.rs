//! Two-dimensional pooling and its gradients.

mod tiles;

use crate::buffer::Buffer;
use crate::tensor::Tensor;
use raven_graph::Pool2dAttrs;
use std::ops::Range;

/// The windows of one axis. In 64 bits, because kernel and stride alone may fill 32.
#[derive(Clone, Copy)]
struct Windows {
    input: u64,
    count: u64,
    kernel: u64,
    stride: u64,
    before: u64,
}

impl Windows {
    fn new(input: usize, output: usize, kernel: u32, stride: u32, before: u32) -> Self {
        let [kernel, stride, before] = [kernel, stride, before].map(u64::from);
        Windows { input: input as u64, count: output as u64, kernel, stride, before }
    }

    /// Where each lies within the image, padding cut off. A list of them could be larger than the
    /// image.
    fn ranges(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.count).map(move |at| {
            let start = at * self.stride;
            let end = (start + self.kernel).saturating_sub(self.before).min(self.input);
            start.saturating_sub(self.before) as usize..end as usize
        })
    }
}

/// The geometry of one pooling, with the windows of both axes.
struct Pool {
    width: usize,
    plane: usize,
    out_plane: usize,
    rows: Windows,
    columns: Windows,
}

impl Pool {
    fn new(attrs: &Pool2dAttrs, image: &[usize], pooled: &[usize]) -> Self {
        let [top, _, left, _] = attrs.padding;
        let (h, w, oh, ow) = (image[2], image[3], pooled[2], pooled[3]);
        Pool {
            width: w,
            plane: h * w,
            out_plane: oh * ow,
            rows: Windows::new(h, oh, attrs.kernel[0], attrs.stride[0], top),
            columns: Windows::new(w, ow, attrs.kernel[1], attrs.stride[1], left),
        }
    }

    /// Calls `visit(output position, rows, columns)` for each window of a plane.
    fn for_each(&self, mut visit: impl FnMut(usize, Range<usize>, Range<usize>)) {
        let mut at = 0;
        for rows in self.rows.ranges() {
            for columns in self.columns.ranges() {
                visit(at, rows.clone(), columns);
                at += 1;
            }
        }
    }

    /// Position of the first maximum (or the first NaN) of a window. Every
    /// window holds an element of the image: padding is less than the kernel.
    fn first_max(&self, plane: &[f32], rows: Range<usize>, columns: Range<usize>) -> usize {
        let mut best = rows.start * self.width + columns.start;
        let mut greatest = plane[best];
        for row in rows {
            let start = row * self.width;
            for (column, &value) in
                columns.clone().zip(&plane[start + columns.start..start + columns.end])
            {
                if beats(value, greatest) {
                    (best, greatest) = (start + column, value);
                }
            }
        }
        best
    }
}

/// Whether a later element takes the place of the maximum so far. Without
/// short circuits: where the maximum lies is random, and a branch that nobody
/// can predict costs more than two comparisons.
fn beats(value: f32, greatest: f32) -> bool {
    (value > greatest) | (value.is_nan() & !greatest.is_nan())
}

/// `x [n, c, h, w]` to `dims = [n, c, oh, ow]`; padding never wins.
pub fn max(attrs: &Pool2dAttrs, x: &Tensor, dims: &[usize]) -> Tensor {
    let pool = Pool::new(attrs, x.dims(), dims);
    let mut result = Buffer::stale(dims.iter().product());
    let planes = x.elements::<f32>().chunks_exact(pool.plane);
    for (plane, out) in planes.zip(result.chunks_exact_mut(pool.out_plane)) {
        if tiles::serve(attrs) {
            let pairs = plane.chunks_exact(2 * pool.width);
            for (rows, out) in pairs.zip(out.chunks_exact_mut(dims[3])) {
                tiles::max_row(rows.split_at(pool.width), out);
            }
        } else {
            pool.for_each(|at, rows, columns| {
                out[at] = plane[pool.first_max(plane, rows, columns)]
            });
        }
    }
    Tensor::of(dims, result)
}

/// `x [n, c, h, w]`, `dy [n, c, oh, ow]` to `[n, c, h, w]`; ties go to the first maximum.
pub fn max_grad(attrs: &Pool2dAttrs, x: &Tensor, dy: &Tensor) -> Tensor {
    let pool = Pool::new(attrs, x.dims(), dy.dims());
    let dy_width = dy.dims()[3];
    let mut result = Buffer::filled(x.len(), 0f32);
    let planes = x.elements::<f32>().chunks_exact(pool.plane);
    let dy_planes = dy.elements::<f32>().chunks_exact(pool.out_plane);
    for ((plane, dy), dx) in planes.zip(dy_planes).zip(result.chunks_exact_mut(pool.plane)) {
        if tiles::serve(attrs) {
            let pairs = plane.chunks_exact(2 * pool.width).zip(dx.chunks_exact_mut(2 * pool.width));
            for ((rows, dx), dy) in pairs.zip(dy.chunks_exact(dy_width)) {
                tiles::grad_row(rows.split_at(pool.width), dx.split_at_mut(pool.width), dy);
            }
        } else {
            pool.for_each(|at, rows, columns| dx[pool.first_max(plane, rows, columns)] += dy[at]);
        }
    }
    Tensor::of(x.dims(), result)
}

/// `x [n, c, h, w]` to `dims = [n, c, oh, ow]`; padding counts in the mean.
pub fn average(attrs: &Pool2dAttrs, x: &Tensor, dims: &[usize]) -> Tensor {
    let pool = Pool::new(attrs, x.dims(), dims);
    let count = window_elements(attrs);
    let mut result = Buffer::stale(dims.iter().product());
    let planes = x.elements::<f32>().chunks_exact(pool.plane);
    for (plane, out) in planes.zip(result.chunks_exact_mut(pool.out_plane)) {
        pool.for_each(|at, rows, columns| {
            let mut sum = 0f32;
            for row in rows {
                let start = row * pool.width;
                for &value in &plane[start + columns.start..start + columns.end] {
                    sum += value;
                }
            }
            out[at] = sum / count;
        });
    }
    Tensor::of(dims, result)
}

/// `dy [n, c, oh, ow]` to `dims = [n, c, h, w]`.
pub fn average_grad(attrs: &Pool2dAttrs, dy: &Tensor, dims: &[usize]) -> Tensor {
    let pool = Pool::new(attrs, dims, dy.dims());
    let count = window_elements(attrs);
    let mut result = Buffer::filled(dims.iter().product(), 0f32);
    let dy_planes = dy.elements::<f32>().chunks_exact(pool.out_plane);
    for (dy, dx) in dy_planes.zip(result.chunks_exact_mut(pool.plane)) {
        pool.for_each(|at, rows, columns| {
            let share = dy[at] / count;
            for row in rows {
                let start = row * pool.width;
                for value in &mut dx[start + columns.start..start + columns.end] {
                    *value += share;
                }
            }
        });
    }
    Tensor::of(dims, result)
}

/// Elements of a whole window, padding included.
fn window_elements(attrs: &Pool2dAttrs) -> f32 {
    attrs.kernel[0] as f32 * attrs.kernel[1] as f32
}
