//! Soft-max and the classification loss, shifted by the row's maximum so that
//! no exponential overflows.

use super::elementwise::maximum;
use crate::buffer::Buffer;
use crate::tensor::Tensor;

fn row_max(row: &[f32]) -> f32 {
    row.iter().fold(f32::NEG_INFINITY, |a, &b| maximum(a, b))
}

/// The maximum of a row and the logarithm of the sum of its shifted exponentials.
fn log_sum_exp(row: &[f32]) -> (f32, f32) {
    let max = row_max(row);
    let sum: f32 = row.iter().map(|&x| libm::expf(x - max)).sum();
    (max, libm::logf(sum))
}

fn softmax_row(row: &mut [f32]) {
    let max = row_max(row);
    let mut sum = 0f32;
    for x in row.iter_mut() {
        *x = libm::expf(*x - max);
        sum += *x;
    }
    for x in row {
        *x /= sum;
    }
}

fn log_softmax_row(row: &mut [f32]) {
    let (max, log_sum) = log_sum_exp(row);
    for x in row {
        *x = (*x - max) - log_sum;
    }
}

/// Bytes of the run that [`along`] copies out where it does not lie in one piece.
pub fn scratch_bytes(dims: &[usize], axis: usize) -> u64 {
    let in_one_piece = dims[axis + 1..].iter().all(|&extent| extent == 1);
    if in_one_piece { 0 } else { 4 * dims[axis] as u64 }
}

/// Applies `f` to each run of elements along `axis`.
fn along(x: Tensor, axis: usize, f: impl Fn(&mut [f32])) -> Tensor {
    let dims = x.extents();
    let extent = dims[axis];
    let inner: usize = dims[axis + 1..].iter().product();
    let mut elements = x.into_elements::<f32>();
    if inner == 1 {
        elements.chunks_exact_mut(extent).for_each(f);
        return Tensor::of(&dims, elements);
    }
    let mut row = Buffer::filled(extent, 0f32);
    for plane in elements.chunks_exact_mut(extent * inner) {
        for column in 0..inner {
            for (at, x) in row.iter_mut().enumerate() {
                *x = plane[at * inner + column];
            }
            f(&mut row);
            for (at, &x) in row.iter().enumerate() {
                plane[at * inner + column] = x;
            }
        }
    }
    Tensor::of(&dims, elements)
}

/// `exp(x) / sum(exp(x))` along `axis`.
pub fn softmax(x: Tensor, axis: usize) -> Tensor {
    along(x, axis, softmax_row)
}

/// `x - log(sum(exp(x)))` along `axis`.
pub fn log_softmax(x: Tensor, axis: usize) -> Tensor {
    along(x, axis, log_softmax_row)
}

/// A label as a column, where it names a class.
fn class(label: i32, classes: usize) -> Option<usize> {
    usize::try_from(label).ok().filter(|&at| at < classes)
}

/// `logits [b, c]`, `labels [b]` to one loss per row; 0 where a label is out of range.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    let classes = logits.dims()[1];
    let rows = logits.elements::<f32>().chunks_exact(classes);
    let losses = rows.zip(labels.elements::<i32>()).map(|(row, &label)| {
        class(label, classes).map_or(0.0, |at| {
            let (max, log_sum) = log_sum_exp(row);
            log_sum - (row[at] - max)
        })
    });
    let mut result = Buffer::empty(labels.len());
    result.extend(losses);
    Tensor::of(labels.dims(), result)
}

/// `logits [b, c]`, `labels [b]`, `dloss [b]` to `[b, c]`; zeros where a label is out of range.
pub fn cross_entropy_grad(logits: Tensor, labels: &Tensor, dloss: &Tensor) -> Tensor {
    let dims = logits.extents();
    let classes = dims[1];
    let mut elements = logits.into_elements::<f32>();
    let scales = labels.elements::<i32>().iter().zip(dloss.elements::<f32>());
    for (row, (&label, &scale)) in elements.chunks_exact_mut(classes).zip(scales) {
        let Some(at) = class(label, classes) else {
            row.fill(0.0);
            continue;
        };
        softmax_row(row);
        row[at] -= 1.0;
        for x in row {
            *x *= scale;
        }
    }
    Tensor::of(&dims, elements)
}
