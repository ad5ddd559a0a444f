//! Single-precision matrix multiplication on the GEMM that burn-ndarray links.
//!
//! Its blocking is fixed at compile time, so the bits of a product depend on
//! the shapes alone.

/// A matrix somewhere in a slice.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    elements: &'a [f32],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major `[rows, columns]`.
    pub fn new(elements: &'a [f32], rows: usize, columns: usize) -> Self {
        Matrix { elements, rows, columns, row_step: columns, column_step: 1 }
    }

    /// `[rows, columns]`, stored row-major as `[columns, rows]`.
    pub fn transposed(elements: &'a [f32], rows: usize, columns: usize) -> Self {
        Matrix { elements, rows, columns, row_step: 1, column_step: rows }
    }

    /// Row-major `[rows, columns]` whose rows lie `row_step` apart.
    pub fn strided(elements: &'a [f32], rows: usize, columns: usize, row_step: usize) -> Self {
        Matrix { elements, rows, columns, row_step, column_step: 1 }
    }

    fn in_bounds(&self) -> bool {
        let last = |count: usize, step: usize| count.saturating_sub(1) * step;
        last(self.rows, self.row_step) + last(self.columns, self.column_step) < self.elements.len()
    }
}

/// `out = a b`, row-major and gapless.
pub fn gemm(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32]) {
    let columns = b.columns;
    gemm_strided(a, b, false, out, columns);
}

/// `out = a b`, or `out += a b` with `accumulate`; rows of `out` lie `out_step` apart.
///
/// # Panics
/// Where inner extents differ or a matrix does not fit its slice: a mistake of the caller.
pub fn gemm_strided(
    a: Matrix<'_>,
    b: Matrix<'_>,
    accumulate: bool,
    out: &mut [f32],
    out_step: usize,
) {
    assert_eq!(a.columns, b.rows, "inner extents");
    assert!(a.in_bounds() && b.in_bounds(), "operands lie in their slices");
    let (m, n) = (a.rows, b.columns);
    assert!(n <= out_step && (m - 1) * out_step + n <= out.len(), "the result fits its slice");
    // SAFETY: the asserts above show that every element that is reached by
    // the given extents and steps lies in its slice, and `out` is borrowed
    // mutably, so it overlaps neither operand.
    unsafe {
        matrixmultiply::sgemm(
            m,
            a.columns,
            n,
            1.0,
            a.elements.as_ptr(),
            a.row_step as isize,
            a.column_step as isize,
            b.elements.as_ptr(),
            b.row_step as isize,
            b.column_step as isize,
            if accumulate { 1.0 } else { 0.0 },
            out.as_mut_ptr(),
            out_step as isize,
            1,
        );
    }
}
