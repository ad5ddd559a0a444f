//! Ops that move elements without computing.

use super::broadcast;
use crate::backend::Cpu;
use crate::buffer::Buffer;
use crate::tensor::{Element, Tensor};
use burn_backend::Slice;
use burn_backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
use raven_graph::DType;

/// `x` repeated over the extents `dims`.
pub fn broadcast(x: Tensor, dims: &[usize]) -> Tensor {
    fn typed<T: Element>(x: &Tensor, dims: &[usize]) -> Tensor {
        Tensor::of(dims, broadcast::expand((x.elements::<T>(), x.dims()), dims))
    }
    if x.dims() == dims {
        return x;
    }
    match x.dtype() {
        DType::F32 => typed::<f32>(&x, dims),
        DType::I32 => typed::<i32>(&x, dims),
        DType::U8 => typed::<u8>(&x, dims),
        DType::Bool => typed::<bool>(&x, dims),
    }
}

/// Axis `i` of the result is axis `axes[i]` of `x`.
pub fn permute(x: Tensor, axes: &[u32]) -> Tensor {
    let axes: Vec<usize> = axes.iter().map(|&axis| axis as usize).collect();
    let permuted = match x.dtype() {
        DType::F32 => Cpu::float_permute(x.into_burn(), &axes),
        DType::Bool => Cpu::bool_permute(x.into_burn(), &axes),
        DType::I32 | DType::U8 => Cpu::int_permute(x.into_burn(), &axes),
    };
    Tensor::from_burn(permuted)
}

/// The half-open box `starts..ends` of `x`.
pub fn slice(x: Tensor, starts: &[u32], ends: &[u32]) -> Tensor {
    let ranges: Vec<Slice> = starts
        .iter()
        .zip(ends)
        .map(|(&start, &end)| Slice::new(start as isize, Some(end as isize), 1))
        .collect();
    let part = match x.dtype() {
        DType::F32 => Cpu::float_slice(x.into_burn(), &ranges),
        DType::Bool => Cpu::bool_slice(x.into_burn(), &ranges),
        DType::I32 | DType::U8 => Cpu::int_slice(x.into_burn(), &ranges),
    };
    Tensor::from_burn(part)
}

/// The parts joined along `axis`.
pub fn concat(parts: Vec<Tensor>, axis: usize) -> Tensor {
    let dtype = parts.first().map(Tensor::dtype);
    let parts = parts.into_iter().map(Tensor::into_burn).collect();
    let joined = match dtype {
        Some(DType::F32) => Cpu::float_cat(parts, axis),
        Some(DType::Bool) => Cpu::bool_cat(parts, axis),
        Some(DType::I32 | DType::U8) => Cpu::int_cat(parts, axis),
        None => unreachable!("validation asks for at least one part"),
    };
    Tensor::from_burn(joined)
}

/// `x` placed at `low` within extents `dims`, filled with `value`.
pub fn pad(x: &Tensor, low: &[u32], value: f32, dims: &[usize]) -> Tensor {
    let (source, from) = (x.elements::<f32>(), x.dims());
    let mut padded = Buffer::filled(dims.iter().product(), value);
    let Some(lead) = dims.len().checked_sub(1) else {
        padded.copy_from_slice(source);
        return Tensor::of(dims, padded);
    };
    let row = from[lead];
    let mut index = vec![0usize; lead];
    for values in source.chunks_exact(row) {
        let start =
            (0..lead).fold(0, |at, axis| at * dims[axis] + index[axis] + low[axis] as usize);
        let start = start * dims[lead] + low[lead] as usize;
        padded[start..start + row].copy_from_slice(values);
        for axis in (0..lead).rev() {
            index[axis] += 1;
            if index[axis] < from[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Tensor::of(dims, padded)
}
