//! Batched matrix multiplication; transposed operands are read where they lie.

use crate::buffer::Buffer;
use crate::gemm::{Finish, Matrix, gemm, gemm_passing, passes};
use crate::tensor::Tensor;

/// Leading axes, rows and columns of an operand.
fn matrices(dims: &[usize], transposed: bool) -> (&[usize], usize, usize) {
    let (lead, matrix) = dims.split_at(dims.len() - 2);
    if transposed { (lead, matrix[1], matrix[0]) } else { (lead, matrix[0], matrix[1]) }
}

/// One operand as a stack of matrices.
struct Stack<'a> {
    elements: &'a [f32],
    lead: &'a [usize],
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a> Stack<'a> {
    fn new(tensor: &'a Tensor, transposed: bool) -> Self {
        let (lead, rows, columns) = matrices(tensor.dims(), transposed);
        Stack { elements: tensor.elements(), lead, rows, columns, transposed }
    }

    /// The matrix at `index` of the broadcast leading axes `lead`.
    fn at(&self, index: usize, lead: &[usize]) -> Matrix<'a> {
        let missing = lead.len() - self.lead.len();
        let (mut rest, mut offset, mut step) = (index, 0, 1);
        for axis in (0..lead.len()).rev() {
            let position = rest % lead[axis];
            rest /= lead[axis];
            if axis >= missing {
                let extent = self.lead[axis - missing];
                offset += if extent == 1 { 0 } else { position * step };
                step *= extent;
            }
        }
        let size = self.rows * self.columns;
        let elements = &self.elements[offset * size..(offset + 1) * size];
        if self.transposed {
            Matrix::transposed(elements, self.rows, self.columns)
        } else {
            Matrix::new(elements, self.rows, self.columns)
        }
    }
}

/// Both operands as one matrix each, where there is one right operand for all: the left matrices
/// stacked are one tall matrix.
fn one_product<'a>(lhs: &Stack<'a>, rhs: &Stack<'a>) -> Option<(Matrix<'a>, Matrix<'a>)> {
    if !is_one(lhs.lead, lhs.transposed, rhs.lead) {
        return None;
    }
    if lhs.lead.is_empty() {
        return Some((lhs.at(0, &[]), rhs.at(0, &[])));
    }
    let rows = lhs.elements.len() / lhs.columns;
    Some((Matrix::new(lhs.elements, rows, lhs.columns), rhs.at(0, &[])))
}

fn is_one(lhs_lead: &[usize], lhs_transposed: bool, rhs_lead: &[usize]) -> bool {
    rhs_lead.is_empty() && (!lhs_transposed || lhs_lead.is_empty())
}

/// Whether [`passing`] can compute the product of operands of these extents.
pub fn can_pass(lhs: &[usize], transpose_lhs: bool, rhs: &[usize], transpose_rhs: bool) -> bool {
    let (lhs_lead, _, inner) = matrices(lhs, transpose_lhs);
    let (rhs_lead, ..) = matrices(rhs, transpose_rhs);
    is_one(lhs_lead, transpose_lhs, rhs_lead) && passes(inner)
}

/// The same as [`matmul`], but for `finish` nobody sees the elements.
///
/// # Panics
/// Where [`can_pass`] is false.
pub fn passing(
    lhs: &Tensor,
    transpose_lhs: bool,
    rhs: &Tensor,
    transpose_rhs: bool,
    finish: &mut Finish<'_>,
) {
    let (lhs, rhs) = (Stack::new(lhs, transpose_lhs), Stack::new(rhs, transpose_rhs));
    let (left, right) = one_product(&lhs, &rhs).expect("the caller has asked whether it can");
    gemm_passing(left, right, finish);
}

/// `lhs [.., m, k]` times `rhs [.., k, n]` to `dims = [.., m, n]`; `finish` is told of each
/// block.
pub fn matmul(
    lhs: &Tensor,
    transpose_lhs: bool,
    rhs: &Tensor,
    transpose_rhs: bool,
    dims: &[usize],
    finish: &mut Finish<'_>,
) -> Tensor {
    let (lhs, rhs) = (Stack::new(lhs, transpose_lhs), Stack::new(rhs, transpose_rhs));
    let mut result = Buffer::stale(dims.iter().product());
    if let Some((tall, right)) = one_product(&lhs, &rhs) {
        gemm(tall, right, &mut result, finish);
        return Tensor::of(dims, result);
    }
    let lead = &dims[..dims.len() - 2];
    let size = lhs.rows * rhs.columns;
    for (index, out) in result.chunks_exact_mut(size).enumerate() {
        let mut finish = |at: usize, part: &mut [f32]| finish(index * size + at, part);
        gemm(lhs.at(index, lead), rhs.at(index, lead), out, &mut finish);
    }
    Tensor::of(dims, result)
}
