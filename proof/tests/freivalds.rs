//! False alarms and misses of Freivalds' check, counted.

mod support;

use raven_graph::philox::{key, philox4x32};
use raven_proof::freivalds::{
    Operand, PROBES_THOROUGH, PROBES_USUAL, Product, Verdict, check_product, row_bounds,
};
use support::{NUMBERS, Numbers, numbers, off_by};

/// The long counts of `scripts/test --full`.
fn full() -> bool {
    std::env::var_os("RAVEN_FULL").is_some()
}

/// In which order a device sums up: each is honest.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// One after the other.
    Sequential,
    /// The same with fused operations.
    Fused,
    /// From the last to the first.
    Reversed,
    /// Halves of halves.
    Pairwise,
    /// Blocks of the inner axis, each in eight sums: the kernel's and a GPU's way.
    Blocked,
    /// As `Fused`, with zeros for subnormal operands and sums.
    Flushing,
}

const ORDERS: [Order; 6] = [
    Order::Sequential,
    Order::Fused,
    Order::Reversed,
    Order::Pairwise,
    Order::Blocked,
    Order::Flushing,
];

fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0 } else { x }
}

fn pairwise(terms: &[f32]) -> f32 {
    match terms {
        [] => 0.0,
        [term] => *term,
        _ => {
            let (left, right) = terms.split_at(terms.len() / 2);
            pairwise(left) + pairwise(right)
        }
    }
}

fn inner(order: Order, pairs: &[(f32, f32)]) -> f32 {
    let products = pairs.iter().map(|(a, b)| a * b);
    match order {
        Order::Sequential => products.fold(0.0, |sum, term| sum + term),
        Order::Reversed => products.rev().fold(0.0, |sum, term| sum + term),
        Order::Fused => pairs.iter().fold(0.0, |sum, (a, b)| a.mul_add(*b, sum)),
        Order::Pairwise => pairwise(&products.collect::<Vec<_>>()),
        Order::Blocked => pairs.chunks(64).fold(0.0, |total, block| {
            let mut sums = [0f32; 8];
            block.iter().enumerate().for_each(|(at, (a, b))| sums[at % 8] += a * b);
            total + sums.iter().sum::<f32>()
        }),
        Order::Flushing => {
            pairs.iter().fold(0.0, |sum, (a, b)| flushed(flushed(*a).mul_add(flushed(*b), sum)))
        }
    }
}

/// A product with operands of its own.
struct Case {
    extents: [usize; 3],
    transposed: [bool; 2],
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Case {
    fn honest(extents: [usize; 3], kind: Numbers, order: Order, seed: u64) -> Case {
        let [m, k, n] = extents;
        let (a, b) = (numbers(kind, m * k, seed, 0), numbers(kind, k * n, seed, 1));
        let transposed = [seed & 1 != 0, seed & 2 != 0];
        let at = |elements: &[f32], turned, rows, columns, row, column| -> f32 {
            elements[if turned { column * rows + row } else { row * columns + column }]
        };
        let mut c = Vec::with_capacity(m * n);
        for row in 0..m {
            for column in 0..n {
                let pairs: Vec<(f32, f32)> = (0..k)
                    .map(|step| {
                        let left = at(&a, transposed[0], m, k, row, step);
                        (left, at(&b, transposed[1], k, n, step, column))
                    })
                    .collect();
                c.push(inner(order, &pairs));
            }
        }
        Case { extents, transposed, a, b, c }
    }

    fn product(&self) -> Product<'_> {
        let [m, k, n] = self.extents;
        let [left, right] = self.transposed;
        Product {
            m,
            k,
            n,
            a: Operand { elements: &self.a, transposed: left },
            b: Operand { elements: &self.b, transposed: right },
            c: &self.c,
        }
    }
}

const SHAPES: [[usize; 3]; 8] = [
    [1, 1, 1],
    [1, 40, 3],
    [7, 5, 90],
    [16, 16, 16],
    [33, 70, 12],
    [64, 10, 64],
    [5, 700, 9],
    [40, 40, 40],
];

#[test]
fn no_honest_product_is_called_faulty() {
    let count: u64 = if full() { 10_000 } else { 1_000 };
    let mut closest = 0f64;
    for seed in 0..count {
        let pick = |of: usize, by: u64| (seed / by) as usize % of;
        let extents = SHAPES[pick(SHAPES.len(), 4)];
        let (kind, order) = (NUMBERS[pick(6, 1)], ORDERS[pick(6, 7)]);
        let case = Case::honest(extents, kind, order, seed);
        let probes = if seed % 5 == 0 { PROBES_THOROUGH } else { PROBES_USUAL };
        let verdict = check_product(&case.product(), probes, seed).expect("extents fit");
        assert_eq!(verdict, Verdict::Consistent, "{seed}: {extents:?} {kind:?} {order:?}");
        closest = closest.max(worst_element(&case));
    }
    println!("{count} honest products: no false alarm");
    println!("largest honest error: {closest:.3} of the worst-case bound of its row");
}

/// The largest error of an element beside its row's bound.
fn worst_element(case: &Case) -> f64 {
    let product = case.product();
    let [m, k, n] = case.extents;
    let bounds = row_bounds(&product).expect("extents fit");
    let row = |row: usize| {
        let error = |column: usize| {
            let exact: f64 = (0..k)
                .map(|step| {
                    let a = if product.a.transposed { step * m + row } else { row * k + step };
                    let b =
                        if product.b.transposed { column * k + step } else { step * n + column };
                    f64::from(case.a[a]) * f64::from(case.b[b])
                })
                .sum();
            (exact - f64::from(case.c[row * n + column])).abs()
        };
        (0..n).map(error).fold(0.0, f64::max) / bounds[row]
    };
    (0..m).map(row).fold(0.0, f64::max)
}

/// Puts faults of 16 times the bound into single elements; answers how many were missed.
fn misses(case: &mut Case, probes: u32, trials: u64) -> u64 {
    let [m, _, n] = case.extents;
    let bounds = row_bounds(&case.product()).expect("extents fit");
    let mut missed = 0;
    for trial in 0..trials {
        let words = philox4x32([trial as u32, 0, 0, 1], key(99));
        let (row, column) = (words[0] as usize % m, words[1] as usize % n);
        let at = row * n + column;
        let honest = case.c[at];
        case.c[at] = off_by(honest, 16.0 * bounds[row], words[2] & 1 == 0);
        match check_product(&case.product(), probes, 1_000_000 + trial).expect("extents fit") {
            Verdict::Faulty { row: found, residual, bound } => {
                assert!(found == row && residual > bound, "{found} instead of {row}");
            }
            Verdict::Consistent => missed += 1,
            Verdict::Undecided { .. } => panic!("everything is finite"),
        }
        case.c[at] = honest;
    }
    missed
}

#[test]
fn single_faults_of_sixteen_bounds_are_found() {
    let times = if full() { 10 } else { 1 };
    let cases = [([24, 20, 80], 40_000), ([130, 64, 100], 4_000), ([8, 300, 8], 8_000)];
    let (mut missed, mut trials) = (0, 0);
    for (extents, count) in cases {
        for (seed, order) in (0u64..).zip([Order::Blocked, Order::Fused]) {
            let mut case = Case::honest(extents, NUMBERS[seed as usize], order, seed);
            missed += misses(&mut case, PROBES_USUAL, count * times);
            trials += count * times;
            let thorough = misses(&mut case, PROBES_THOROUGH, count * times / 4);
            assert_eq!(thorough, 0, "{extents:?}: six probes missed a fault");
        }
    }
    let found = 100.0 * (1.0 - missed as f64 / trials as f64);
    println!("{trials} faults of 16 bounds: {found:.3} % found with two probes, all with six");
    assert!(found >= 99.7, "{found} %");
}

#[test]
fn common_lies_are_found() {
    let case = Case::honest([40, 40, 40], Numbers::Centred, Order::Sequential, 3);
    let lies: [(&str, Vec<f32>); 4] = [
        ("zeros", vec![0.0; 1600]),
        ("turned signs", case.c.iter().map(|x| -x).collect()),
        ("scaled", case.c.iter().map(|x| x * 1.001).collect()),
        ("another product", Case::honest([40; 3], Numbers::Centred, Order::Fused, 7).c),
    ];
    for (lie, c) in lies {
        let claimed = Product { c: &c, ..case.product() };
        let found = check_product(&claimed, PROBES_USUAL, 5).expect("extents fit");
        assert!(matches!(found, Verdict::Faulty { .. }), "{lie}");
    }
}
