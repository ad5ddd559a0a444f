use super::{INNER, Matrix, gemm, gemm_strided};
use raven_graph::philox::{key, philox4x32, unit_f32};

fn numbers(count: usize, stream: u32) -> Vec<f32> {
    let number = |i| unit_f32(philox4x32([i, stream, 0, 0], key(3))[0]) - 0.5;
    (0..count as u32).map(number).collect()
}

/// Element `[row, column]` in the order that the module promises.
fn element(
    a: impl Fn(usize) -> f32,
    b: impl Fn(usize) -> f32,
    k: usize,
    before: Option<f32>,
) -> f32 {
    let steps: Vec<usize> = (0..k).collect();
    let sums = steps
        .chunks(INNER)
        .map(|block| block.iter().fold(0f32, |sum, &step| sum + a(step) * b(step)));
    let whole = |total: Option<f32>, sum| Some(total.map_or(sum, |total| total + sum));
    sums.fold(before, whole).unwrap_or(0.0)
}

/// `[rows, columns]` stored column by column.
fn turned(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect()
}

const SHAPES: [[usize; 3]; 16] = [
    [1, 1, 1],
    [1, 7, 33],
    [1, 1030, 70],
    [2, 513, 8],
    [3, 5, 12],
    [4, 8, 8],
    [5, 3, 4],
    [7, 64, 9],
    [8, 17, 24],
    [9, 17, 5],
    [13, 1030, 11],
    [64, 128, 10],
    [130, 9, 70],
    [31, 20, 520],
    [129, 33, 1029],
    // More than one block of every axis.
    [130, 520, 530],
];

#[test]
fn every_layout_gives_the_promised_bits() {
    for [m, k, n] in SHAPES {
        let (a, b) = (numbers(m * k, 0), numbers(k * n, 1));
        let expected: Vec<u32> = (0..m * n)
            .map(|at| {
                let (row, column) = (at / n, at % n);
                element(|step| a[row * k + step], |step| b[step * n + column], k, None).to_bits()
            })
            .collect();
        let (a_turned, b_turned) = (turned(&a, m, k), turned(&b, k, n));
        let lefts = [Matrix::new(&a, m, k), Matrix::transposed(&a_turned, m, k)];
        let rights = [Matrix::new(&b, k, n), Matrix::transposed(&b_turned, k, n)];
        for (i, left) in lefts.into_iter().enumerate() {
            for (j, right) in rights.into_iter().enumerate() {
                let mut out = vec![f32::NAN; m * n];
                gemm(left, right, &mut out, &mut |_, _| {});
                let bits: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
                assert_eq!(bits, expected, "{m} x {k} x {n}, transposed: {i} {j}");
            }
        }
    }
}

#[test]
fn products_are_added_and_strided() {
    for [m, k, n] in SHAPES {
        let (step_a, step_b, step_out) = (k + 3, n + 5, n + 2);
        // The last row of the right operand ends with the slice.
        let (a, b) = (numbers(m * step_a, 0), numbers((k - 1) * step_b + n, 1));
        let before = numbers(m * step_out, 2);
        let mut out = before.clone();
        let left = Matrix::strided(&a, m, k, step_a);
        gemm_strided(left, Matrix::strided(&b, k, n, step_b), true, &mut out, step_out);
        for (at, (&found, &before)) in out.iter().zip(&before).enumerate() {
            let (row, column) = (at / step_out, at % step_out);
            let expected = if column < n {
                element(|s| a[row * step_a + s], |s| b[s * step_b + column], k, Some(before))
            } else {
                before
            };
            assert_eq!(found.to_bits(), expected.to_bits(), "{m} x {k} x {n} at {row}, {column}");
        }
    }
}

#[test]
#[should_panic(expected = "operands lie in their slices")]
fn a_matrix_beyond_its_slice_is_refused() {
    let (a, b) = ([0f32; 5], [0f32; 6]);
    gemm(Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), &mut [0f32; 4], &mut |_, _| {});
}
