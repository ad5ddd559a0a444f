//! Loops over the elements of a result, with the place of each operand's element.

use crate::axes::{Dims, PerAxis};
use crate::buffer::{Buffer, Pooled};

/// Steps between neighbours along each axis of a row-major tensor.
pub fn row_major(dims: &[usize]) -> Dims {
    let mut steps = Dims::filled(dims.len(), 1);
    for axis in (1..dims.len()).rev() {
        steps[axis - 1] = steps[axis] * dims[axis];
    }
    steps
}

/// One loop: how often it turns, and each operand's step.
#[derive(Clone, Copy, Debug)]
struct Axis<const N: usize> {
    extent: usize,
    steps: [usize; N],
}

impl<const N: usize> Default for Axis<N> {
    fn default() -> Self {
        Axis { extent: 1, steps: [0; N] }
    }
}

/// The loops over a result: neighbouring axes that every operand walks evenly
/// are one axis, and the last axis is the row.
#[derive(Clone, Debug)]
pub struct Loops<const N: usize> {
    /// The axes outside of a row.
    lead: PerAxis<Axis<N>>,
    /// Elements of a row.
    pub row: usize,
    /// Each operand's step within a row.
    pub row_steps: [usize; N],
}

impl<const N: usize> Loops<N> {
    /// Loops over extents `out`; `steps` are each operand's along those axes.
    pub fn new(out: &[usize], steps: &[Dims; N]) -> Self {
        let mut axes: PerAxis<Axis<N>> = PerAxis::default();
        for (axis, &extent) in out.iter().enumerate().filter(|(_, extent)| **extent != 1) {
            let inner: [usize; N] = std::array::from_fn(|operand| steps[operand][axis]);
            match axes.last_mut() {
                Some(Axis { extent: outer_extent, steps: outer })
                    if outer.iter().zip(&inner).all(|(&outer, &inner)| outer == inner * extent) =>
                {
                    *outer_extent *= extent;
                    *outer = inner;
                }
                _ => axes.push(Axis { extent, steps: inner }),
            }
        }
        let row = axes.pop().unwrap_or_default();
        Loops { lead: axes, row: row.extent, row_steps: row.steps }
    }

    fn rows(&self) -> usize {
        self.lead.iter().map(|axis| axis.extent).product()
    }

    /// Visits each row with the operands' offsets of its first element.
    pub fn for_each_row(&self, mut visit: impl FnMut([usize; N])) {
        let mut index = Dims::filled(self.lead.len(), 0);
        let mut offsets = [0usize; N];
        for _ in 0..self.rows() {
            visit(offsets);
            for (at, Axis { extent, steps }) in index.iter_mut().zip(self.lead.iter()).rev() {
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

impl Loops<1> {
    /// Whether the elements are read one after the other.
    pub fn are_in_order(&self) -> bool {
        self.lead.is_empty() && (self.row == 1 || self.row_steps == [1])
    }

    /// Whether it is one element over and over.
    pub fn is_single(&self) -> bool {
        self.lead.is_empty() && self.row_steps == [0]
    }

    /// After how many elements the loops read the same ones again.
    pub fn period(&self) -> usize {
        let row = Axis { extent: self.row, steps: self.row_steps };
        let axes = self.lead.iter().copied().chain([row]);
        axes.skip_while(|axis| axis.steps == [0]).map(|axis| axis.extent).product()
    }

    /// Where row number `row` begins.
    fn row_offset(&self, mut row: usize) -> usize {
        let mut offset = 0;
        for &Axis { extent, steps: [step] } in self.lead.iter().rev() {
            offset += row % extent * step;
            row /= extent;
        }
        offset
    }

    /// `f` of the elements from place `at` of the loops on, as many as `to` has.
    pub fn read_part<T: Copy, R: Copy>(
        &self,
        x: &[T],
        at: usize,
        mut to: &mut [R],
        f: impl Fn(T) -> R,
    ) {
        let (mut row, mut column) = (at / self.row, at % self.row);
        while !to.is_empty() {
            let count = to.len().min(self.row - column);
            let (part, rest) = std::mem::take(&mut to).split_at_mut(count);
            let [step] = self.row_steps;
            let from = &x[self.row_offset(row) + column * step..];
            match step {
                0 => part.fill(f(from[0])),
                1 => part.iter_mut().zip(&from[..count]).for_each(|(to, &x)| *to = f(x)),
                _ => part.iter_mut().zip(from.iter().step_by(step)).for_each(|(to, &x)| *to = f(x)),
            }
            (to, row, column) = (rest, row + 1, 0);
        }
    }

    /// The elements of `x` in the order of the loops.
    pub fn read<T: Pooled>(&self, x: &[T]) -> Buffer<T> {
        let mut result = Buffer::stale(self.rows() * self.row);
        let mut rows = result.chunks_exact_mut(self.row);
        self.for_each_row(|[at]| {
            let row = rows.next().expect("the result has every row");
            match self.row_steps {
                [0] => row.fill(x[at]),
                [1] => row.copy_from_slice(&x[at..at + row.len()]),
                [step] => {
                    let from = x[at..].iter().step_by(step);
                    row.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
                }
            }
        });
        result
    }
}
