//! Ops that move elements without computing.

use super::broadcast;
use super::loops::{Loops, row_major};
use crate::axes::Dims;
use crate::buffer::Buffer;
use crate::tensor::{Element, Tensor};
use raven_graph::DType;

/// Calls a function for the element type that `$dtype` names.
macro_rules! for_type {
    ($dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            DType::F32 => $function::<f32>($($argument),*),
            DType::I32 => $function::<i32>($($argument),*),
            DType::U8 => $function::<u8>($($argument),*),
            DType::Bool => $function::<bool>($($argument),*),
        }
    };
}

/// `x` repeated over the extents `dims`.
pub fn broadcast(x: Tensor, dims: &[usize]) -> Tensor {
    fn typed<T: Element>(x: &Tensor, dims: &[usize]) -> Tensor {
        Tensor::of(dims, broadcast::expand((x.elements::<T>(), x.dims()), dims))
    }
    if x.dims() == dims {
        return x;
    }
    for_type!(x.dtype(), typed(&x, dims))
}

/// The elements of `x` from `first` on, in the order of `loops`, as extents `dims`.
fn read(x: &Tensor, first: usize, loops: &Loops<1>, dims: &[usize]) -> Tensor {
    fn typed<T: Element>(x: &Tensor, first: usize, loops: &Loops<1>, dims: &[usize]) -> Tensor {
        Tensor::of(dims, loops.read(&x.elements::<T>()[first..]))
    }
    for_type!(x.dtype(), typed(x, first, loops, dims))
}

/// Axis `i` of the result, whose extents are `dims`, is axis `axes[i]` of `x`.
pub fn permute(x: Tensor, axes: &[u32], dims: &[usize]) -> Tensor {
    let own = row_major(x.dims());
    let steps = axes.iter().map(|&axis| own[axis as usize]).collect();
    let loops = Loops::new(dims, &[steps]);
    if loops.are_in_order() {
        return x.reshaped(dims);
    }
    read(&x, 0, &loops, dims)
}

/// The box of `x` that begins at `starts` and has extents `dims`.
pub fn slice(x: Tensor, starts: &[u32], dims: &[usize]) -> Tensor {
    if x.dims() == dims {
        return x;
    }
    let steps = row_major(x.dims());
    let first = starts.iter().zip(steps.iter()).map(|(&start, step)| start as usize * step).sum();
    read(&x, first, &Loops::new(dims, &[steps]), dims)
}

/// The parts joined along `axis` to extents `dims`.
pub fn concat(parts: &[Tensor], axis: usize, dims: &[usize]) -> Tensor {
    fn typed<T: Element>(parts: &[Tensor], axis: usize, dims: &[usize]) -> Tensor {
        let mut joined = Buffer::stale(dims.iter().product());
        // Elements for each index of the axes before, of the whole and of a part.
        let whole: usize = dims[axis..].iter().product();
        let mut first = 0;
        for part in parts {
            let run: usize = part.dims()[axis..].iter().product();
            let places = joined.chunks_exact_mut(whole);
            for (to, from) in places.zip(part.elements::<T>().chunks_exact(run)) {
                to[first..first + run].copy_from_slice(from);
            }
            first += run;
        }
        Tensor::of(dims, joined)
    }
    if let [part] = parts {
        return part.clone();
    }
    for_type!(parts[0].dtype(), typed(parts, axis, dims))
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
    let mut index = Dims::filled(lead, 0);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A tensor whose elements are their own places.
    fn places(dims: &[usize]) -> Tensor {
        Tensor::new(dims, (0..dims.iter().product::<usize>() as i32).collect())
    }

    /// Every index within `dims`, the last axis fastest.
    fn indices(dims: &[usize]) -> Vec<Vec<usize>> {
        let mut all = vec![Vec::new()];
        for &extent in dims {
            let longer = |index: &Vec<usize>| {
                let index = index.clone();
                (0..extent).map(move |at| [index.as_slice(), &[at]].concat())
            };
            all = all.iter().flat_map(longer).collect();
        }
        all
    }

    fn place(index: &[usize], dims: &[usize]) -> i32 {
        index.iter().zip(dims).fold(0, |place, (at, extent)| place * extent + at) as i32
    }

    /// Every permutation of `0..count`.
    fn orders(count: u32) -> Vec<Vec<u32>> {
        let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
        let with_last = |order: Vec<u32>| {
            (0..=order.len()).map(move |at| {
                let (before, after) = order.split_at(at);
                [before, &[last], after].concat()
            })
        };
        orders(last).into_iter().flat_map(with_last).collect()
    }

    #[test]
    fn axes_change_places() {
        let shapes: [&[usize]; 6] =
            [&[], &[5], &[3, 4], &[2, 1, 3], &[2, 3, 4, 5], &[1, 2, 2, 1, 3]];
        for dims in shapes {
            for axes in orders(dims.len() as u32) {
                let to: Vec<usize> = axes.iter().map(|&axis| dims[axis as usize]).collect();
                let expected: Vec<i32> = indices(&to)
                    .into_iter()
                    .map(|index| {
                        let mut from = vec![0; dims.len()];
                        axes.iter().zip(index).for_each(|(&axis, at)| from[axis as usize] = at);
                        place(&from, dims)
                    })
                    .collect();
                // A value that somebody else holds, and one that nobody else does.
                let shared = places(dims);
                for x in [shared.clone(), places(dims)] {
                    let found = permute(x, &axes, &to);
                    assert_eq!(found.dims(), to);
                    assert_eq!(found.elements::<i32>(), expected, "{dims:?} {axes:?}");
                }
                assert_eq!(shared.elements::<i32>(), places(dims).elements::<i32>());
            }
        }
    }

    #[test]
    fn boxes_are_cut_out() {
        let cases: [(&[usize], &[u32], &[usize]); 8] = [
            (&[], &[], &[]),
            (&[7], &[2], &[3]),
            (&[4, 5], &[0, 0], &[4, 5]),
            (&[4, 5], &[1, 0], &[2, 5]),
            (&[4, 5], &[0, 3], &[4, 1]),
            (&[4, 5], &[3, 4], &[1, 1]),
            (&[2, 3, 4], &[0, 1, 2], &[2, 2, 2]),
            (&[3, 2, 4, 2], &[1, 0, 1, 0], &[2, 2, 2, 2]),
        ];
        for (dims, starts, to) in cases {
            let expected: Vec<i32> = indices(to)
                .into_iter()
                .map(|index| {
                    let from: Vec<usize> =
                        index.iter().zip(starts).map(|(at, &start)| at + start as usize).collect();
                    place(&from, dims)
                })
                .collect();
            let found = slice(places(dims), starts, to);
            assert_eq!((found.dims(), found.elements::<i32>()), (to, &expected[..]), "{dims:?}");
        }
    }

    #[test]
    fn parts_are_joined() {
        let dims = [3, 4, 2];
        for axis in [0, 1, 2] {
            let cut = |start: usize, count: usize| {
                let (mut starts, mut to) = ([0u32; 3], dims);
                (starts[axis], to[axis]) = (start as u32, count);
                slice(places(&dims), &starts, &to)
            };
            let whole = places(&dims);
            let parts: [Vec<Tensor>; 3] = [
                vec![cut(0, dims[axis])],
                vec![cut(0, 1), cut(1, dims[axis] - 1)],
                (0..dims[axis]).map(|at| cut(at, 1)).collect(),
            ];
            for parts in parts {
                let joined = concat(&parts, axis, &dims);
                assert_eq!(joined.dims(), dims);
                assert_eq!(joined.elements::<i32>(), whole.elements::<i32>(), "axis {axis}");
            }
        }
    }
}
