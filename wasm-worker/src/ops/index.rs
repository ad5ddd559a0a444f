//! Ops that read or write by index.

use crate::buffer::Buffer;
use crate::tensor::{Element, Tensor};
use raven_graph::DType;

/// An index as an offset, where it is one of `0..extent`.
fn within(index: i32, extent: usize) -> Option<usize> {
    usize::try_from(index).ok().filter(|&at| at < extent)
}

/// `x [a.., size, b..]`, `index [t..]` to `[a.., t.., b..]`; zeros where an index is out of range.
pub fn gather(x: &Tensor, index: &Tensor, axis: usize, dims: &[usize]) -> Tensor {
    fn typed<T: Element>(x: &Tensor, index: &[i32], axis: usize, dims: &[usize]) -> Tensor {
        let (before, after) = x.dims().split_at(axis);
        let (outer, size) = (before.iter().product::<usize>(), after[0]);
        let inner: usize = after[1..].iter().product();
        let source = x.elements::<T>();
        let mut result = Buffer::filled(dims.iter().product(), T::default());
        let mut rows = result.chunks_exact_mut(inner);
        for plane in source.chunks_exact(size * inner).take(outer) {
            // The index comes first: a zip asks its first side first, and a row
            // that was taken without an index would be lost to the next plane.
            for (&at, row) in index.iter().zip(rows.by_ref()) {
                if let Some(at) = within(at, size) {
                    row.copy_from_slice(&plane[at * inner..(at + 1) * inner]);
                }
            }
        }
        Tensor::of(dims, result)
    }
    let index = index.elements::<i32>();
    match x.dtype() {
        DType::F32 => typed::<f32>(x, index, axis, dims),
        DType::I32 => typed::<i32>(x, index, axis, dims),
        DType::U8 => typed::<u8>(x, index, axis, dims),
        DType::Bool => typed::<bool>(x, index, axis, dims),
    }
}

/// `updates [a.., t.., b..]`, `index [t..]` to `[a.., size, b..]`, added in
/// index order; an index out of range is dropped.
pub fn scatter_add(updates: &Tensor, index: &Tensor, axis: usize, dims: &[usize]) -> Tensor {
    let size = dims[axis];
    let inner: usize = dims[axis + 1..].iter().product();
    let index = index.elements::<i32>();
    let mut result = Buffer::filled(dims.iter().product(), 0f32);
    let mut rows = updates.elements::<f32>().chunks_exact(inner);
    for plane in result.chunks_exact_mut(size * inner) {
        for (&at, row) in index.iter().zip(rows.by_ref()) {
            let Some(at) = within(at, size) else { continue };
            for (sum, &update) in plane[at * inner..(at + 1) * inner].iter_mut().zip(row) {
                *sum += update;
            }
        }
    }
    Tensor::of(dims, result)
}

/// `index [s..]` to `[s.., depth]`: 1 at the index, zeros elsewhere and where it is out of range.
pub fn one_hot(index: &Tensor, depth: usize, dims: &[usize]) -> Tensor {
    let mut result = Buffer::filled(dims.iter().product(), 0f32);
    for (row, &at) in result.chunks_exact_mut(depth).zip(index.elements::<i32>()) {
        if let Some(at) = within(at, depth) {
            row[at] = 1.0;
        }
    }
    Tensor::of(dims, result)
}
