//! NumPy broadcasting for kernels of our own.

use super::loops::{Loops, row_major};
use crate::axes::Dims;
use crate::buffer::{Buffer, Pooled};
use crate::tensor::Element;

/// Steps between neighbours along each axis of `out` within an operand of
/// extents `dims`: 0 where the operand is broadcast.
fn steps(dims: &[usize], out: &[usize]) -> Dims {
    repeated(&row_major(dims), dims, out)
}

/// The same of an operand whose neighbours along its own axes lie `own` apart.
pub fn repeated(own: &[usize], dims: &[usize], out: &[usize]) -> Dims {
    let added = std::iter::repeat_n(0, out.len() - dims.len());
    let own = own.iter().zip(dims);
    added.chain(own.map(|(&step, &extent)| if extent == 1 { 0 } else { step })).collect()
}

/// The loops over the broadcast of `operands` to `out`: within a row, an operand's step is 0 (one
/// element) or 1 (a run).
fn loops<const N: usize>(operands: [&[usize]; N], out: &[usize]) -> Loops<N> {
    Loops::new(out, &operands.map(|dims| steps(dims, out)))
}

/// `f(a, b)` over the broadcast of two operands.
pub fn zip<A: Element, B: Element, R: Pooled>(
    (a, a_dims): (&[A], &[usize]),
    (b, b_dims): (&[B], &[usize]),
    out: &[usize],
    f: impl Fn(A, B) -> R,
) -> Buffer<R> {
    let mut buffer = Buffer::empty(out.iter().product());
    let result: &mut Vec<_> = &mut buffer;
    let loops = loops([a_dims, b_dims], out);
    let row = loops.row;
    loops.for_each_row(|[at_a, at_b]| match loops.row_steps {
        [0, 0] => result.push(f(a[at_a], b[at_b])),
        [_, 0] => {
            let b = b[at_b];
            result.extend(a[at_a..at_a + row].iter().map(|&a| f(a, b)));
        }
        [0, _] => {
            let a = a[at_a];
            result.extend(b[at_b..at_b + row].iter().map(|&b| f(a, b)));
        }
        [_, _] => {
            let pairs = a[at_a..at_a + row].iter().zip(&b[at_b..at_b + row]);
            result.extend(pairs.map(|(&a, &b)| f(a, b)));
        }
    });
    buffer
}

/// `a = f(a, b)` for an operand that has the result's extents already.
pub fn zip_into<A: Element, B: Element>(
    (a, a_dims): (&mut [A], &[usize]),
    (b, b_dims): (&[B], &[usize]),
    f: impl Fn(A, B) -> A,
) {
    let loops = loops([a_dims, b_dims], a_dims);
    let row = loops.row;
    loops.for_each_row(|[at_a, at_b]| {
        let a = &mut a[at_a..at_a + row];
        if loops.row_steps[1] == 0 {
            let b = b[at_b];
            a.iter_mut().for_each(|a| *a = f(*a, b));
        } else {
            a.iter_mut().zip(&b[at_b..at_b + row]).for_each(|(a, &b)| *a = f(*a, b));
        }
    });
}

/// `a` where `condition`, else `b`, all three broadcast.
pub fn select<T: Element>(
    (condition, condition_dims): (&[bool], &[usize]),
    (a, a_dims): (&[T], &[usize]),
    (b, b_dims): (&[T], &[usize]),
    out: &[usize],
) -> Buffer<T> {
    let mut buffer = Buffer::empty(out.iter().product());
    let result: &mut Vec<_> = &mut buffer;
    let loops = loops([condition_dims, a_dims, b_dims], out);
    let row = loops.row;
    let [_, step_a, step_b] = loops.row_steps;
    loops.for_each_row(|[at_c, at_a, at_b]| {
        // An operand that repeats one element along the row has an empty run.
        let (one_a, one_b) = (a[at_a], b[at_b]);
        let (a, b) = (&a[at_a..at_a + step_a * row], &b[at_b..at_b + step_b * row]);
        if loops.row_steps[0] == 0 {
            let (values, one) = if condition[at_c] { (a, one_a) } else { (b, one_b) };
            match values {
                [] => result.extend(std::iter::repeat_n(one, row)),
                values => result.extend_from_slice(values),
            }
            return;
        }
        let chosen = condition[at_c..at_c + row].iter();
        match (a, b) {
            ([], []) => result.extend(chosen.map(|&c| T::pick(c, one_a, one_b))),
            (a, []) => result.extend(chosen.zip(a).map(|(&c, &a)| T::pick(c, a, one_b))),
            ([], b) => result.extend(chosen.zip(b).map(|(&c, &b)| T::pick(c, one_a, b))),
            (a, b) => {
                let pairs = a.iter().zip(b);
                result.extend(chosen.zip(pairs).map(|(&c, (&a, &b))| T::pick(c, a, b)));
            }
        }
    });
    buffer
}

/// Repeats an operand over the extents `out`.
pub fn expand<T: Element>((x, dims): (&[T], &[usize]), out: &[usize]) -> Buffer<T> {
    loops([dims], out).read(x)
}
