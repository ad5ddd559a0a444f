//! Batched matrix multiplication; transposed operands are read where they lie.

use crate::buffer::Buffer;
use crate::gemm::{Matrix, gemm};
use crate::tensor::Tensor;

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
        let (lead, matrix) = tensor.dims().split_at(tensor.dims().len() - 2);
        let (rows, columns) =
            if transposed { (matrix[1], matrix[0]) } else { (matrix[0], matrix[1]) };
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

/// `lhs [.., m, k]` times `rhs [.., k, n]` to `dims = [.., m, n]`.
pub fn matmul(
    lhs: &Tensor,
    transpose_lhs: bool,
    rhs: &Tensor,
    transpose_rhs: bool,
    dims: &[usize],
) -> Tensor {
    let (lhs, rhs) = (Stack::new(lhs, transpose_lhs), Stack::new(rhs, transpose_rhs));
    let mut result = Buffer::stale(dims.iter().product());
    if rhs.lead.is_empty() && !lhs.transposed {
        // One right operand for all: the left matrices stacked are one tall matrix.
        let rows = lhs.elements.len() / lhs.columns;
        let tall = Matrix::new(lhs.elements, rows, lhs.columns);
        gemm(tall, rhs.at(0, &[]), &mut result);
        return Tensor::of(dims, result);
    }
    let lead = &dims[..dims.len() - 2];
    for (index, out) in result.chunks_exact_mut(lhs.rows * rhs.columns).enumerate() {
        gemm(lhs.at(index, lead), rhs.at(index, lead), out);
    }
    Tensor::of(dims, result)
}
