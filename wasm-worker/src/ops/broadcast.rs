//! NumPy broadcasting for kernels of our own.

use crate::buffer::{Buffer, Pooled};
use crate::tensor::Element;

/// Steps between neighbours along each axis of `out` within an operand of
/// extents `dims`: 0 where the operand is broadcast.
fn steps(dims: &[usize], out: &[usize]) -> Vec<usize> {
    let missing = out.len() - dims.len();
    let mut steps = vec![0; out.len()];
    let mut step = 1;
    for axis in (0..dims.len()).rev() {
        if dims[axis] != 1 {
            steps[missing + axis] = step;
        }
        step *= dims[axis];
    }
    steps
}

/// The loops over a broadcast result: neighbouring axes that every operand
/// walks evenly are one axis, and the last axis is the row.
struct Loops<const N: usize> {
    /// Extents of the axes outside of a row, with each operand's step.
    lead: Vec<(usize, [usize; N])>,
    row: usize,
    /// Each operand's step within a row: 0 (one element) or 1 (a run).
    row_steps: [usize; N],
}

impl<const N: usize> Loops<N> {
    fn new(operands: [&[usize]; N], out: &[usize]) -> Self {
        let steps = operands.map(|dims| steps(dims, out));
        let mut axes: Vec<(usize, [usize; N])> = Vec::with_capacity(out.len());
        for (axis, &extent) in out.iter().enumerate().filter(|(_, extent)| **extent != 1) {
            let inner: [usize; N] = std::array::from_fn(|operand| steps[operand][axis]);
            match axes.last_mut() {
                Some((outer_extent, outer))
                    if outer.iter().zip(&inner).all(|(&outer, &inner)| outer == inner * extent) =>
                {
                    *outer_extent *= extent;
                    *outer = inner;
                }
                _ => axes.push((extent, inner)),
            }
        }
        let (row, row_steps) = axes.pop().unwrap_or((1, [0; N]));
        Loops { lead: axes, row, row_steps }
    }

    /// Visits each row with the operands' offsets of its first element.
    fn for_each_row(&self, mut visit: impl FnMut([usize; N])) {
        let mut index = vec![0usize; self.lead.len()];
        let mut offsets = [0usize; N];
        let rows: usize = self.lead.iter().map(|(extent, _)| extent).product();
        for _ in 0..rows {
            visit(offsets);
            for (at, (extent, steps)) in index.iter_mut().zip(&self.lead).rev() {
                *at += 1;
                let whole = *at == *extent;
                for (offset, step) in offsets.iter_mut().zip(steps) {
                    *offset += step;
                    *offset -= if whole { step * extent } else { 0 };
                }
                if !whole {
                    break;
                }
                *at = 0;
            }
        }
    }
}

/// `f(a, b)` over the broadcast of two operands.
pub fn zip<A: Element, B: Element, R: Pooled>(
    (a, a_dims): (&[A], &[usize]),
    (b, b_dims): (&[B], &[usize]),
    out: &[usize],
    f: impl Fn(A, B) -> R,
) -> Buffer<R> {
    let mut result = Buffer::empty(out.iter().product());
    let loops = Loops::new([a_dims, b_dims], out);
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
    result
}

/// `a = f(a, b)` for an operand that has the result's extents already.
pub fn zip_into<A: Element, B: Element>(
    (a, a_dims): (&mut [A], &[usize]),
    (b, b_dims): (&[B], &[usize]),
    f: impl Fn(A, B) -> A,
) {
    let loops = Loops::new([a_dims, b_dims], a_dims);
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
    let mut result = Buffer::empty(out.iter().product());
    let loops = Loops::new([condition_dims, a_dims, b_dims], out);
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
    result
}

/// Repeats an operand over the extents `out`.
pub fn expand<T: Element>((x, dims): (&[T], &[usize]), out: &[usize]) -> Buffer<T> {
    let mut result = Buffer::empty(out.iter().product());
    let loops = Loops::new([dims], out);
    loops.for_each_row(|[at]| match loops.row_steps {
        [0] => result.extend(std::iter::repeat_n(x[at], loops.row)),
        [_] => result.extend_from_slice(&x[at..at + loops.row]),
    });
    result
}
