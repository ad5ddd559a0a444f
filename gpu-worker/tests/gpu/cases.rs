//! Every op over several shapes, odd ones included.

use crate::common::*;
use raven_graph::{
    BinaryFn, CompareFn, Conv2dAttrs, DType, Distribution, Op, Pool2dAttrs, ReduceFn, Shape,
    UnaryFn,
};

/// Moves of elements and integers: nothing may differ.
const EXACT: (f32, f32) = (0.0, 0.0);
/// One rounding each way.
const ROUNDED: (f32, f32) = (1e-6, 2e-6);
/// What WGSL allows exponentials and their kin.
const TRANSCENDENTAL: (f32, f32) = (2e-5, 2e-5);
/// Sums of some hundred products in another order.
const SUMMED: (f32, f32) = (2e-4, 1e-4);

pub fn all() -> Vec<Ready> {
    let mut cases = Vec::new();
    cases.extend(unary());
    cases.extend(binary());
    cases.extend(choices());
    cases.extend(casts());
    cases.extend(layouts());
    cases.extend(reductions());
    cases.extend(products());
    cases.extend(convolutions());
    cases.extend(pools());
    cases.extend(indices());
    cases.extend(softmaxes());
    cases.extend(randoms());
    cases.extend(chains());
    cases.extend(crate::chains::all());
    cases
}

fn unary() -> Vec<Ready> {
    use UnaryFn::*;
    let functions = [Neg, Abs, Sign, Exp, Log, Sqrt, Recip, Tanh, Sigmoid, Relu, Floor];
    let mut cases = Vec::new();
    for function in functions {
        for count in [1, 7, 64, 1000] {
            let mut c = Case::new(format!("{function:?} {count}"), TRANSCENDENTAL);
            let positive = matches!(function, Log | Sqrt | Recip);
            let low = if positive { 0.01 } else { -9.0 };
            let x = c.bind(spread("x", &[count], low, 9.0));
            let y = c.b.unary(function, x).expect("valid");
            cases.push(c.ends(&[y]));
        }
    }
    let mut c = Case::new("large tanh and sigmoid", TRANSCENDENTAL);
    let x = c.bind(f32s("x", &[4], &[-1e4, -60.0, 60.0, 1e4]));
    let (y, z) = (c.b.unary(Tanh, x).expect("valid"), c.b.unary(Sigmoid, x).expect("valid"));
    cases.push(c.ends(&[y, z]));
    cases
}

const BROADCASTS: [(&[u32], &[u32]); 8] = [
    (&[5], &[5]),
    (&[64], &[]),
    (&[], &[3, 5]),
    (&[6, 8], &[8]),
    (&[6, 7], &[7]),
    (&[4, 1, 8], &[4, 3, 1]),
    (&[2, 3, 4, 8], &[3, 1, 1]),
    (&[2, 1, 3, 1, 5], &[4, 1, 2, 5]),
];

fn binary() -> Vec<Ready> {
    use BinaryFn::*;
    let mut cases = Vec::new();
    for function in [Add, Sub, Mul, Div, Max, Min, Pow] {
        for (left, right) in BROADCASTS {
            let bounds = if function == Pow { (1e-4, 1e-4) } else { ROUNDED };
            let mut c = Case::new(format!("{function:?} {left:?} {right:?}"), bounds);
            let low = if matches!(function, Div | Pow) { 0.2 } else { -3.0 };
            let (a, b) =
                (c.bind(spread("a", left, low, 3.0)), c.bind(spread("b", right, low, 3.0)));
            let y = c.b.binary(function, a, b).expect("valid");
            cases.push(c.ends(&[y]));
        }
    }
    let mut c = Case::new("pow at its edges", (1e-5, 1e-4));
    let a = c.bind(f32s("a", &[8], &[-2.0, -2.0, 0.0, 0.0, 4.0, -1.5, 1.0, 0.0]));
    let b = c.bind(f32s("b", &[8], &[3.0, 2.0, 2.0, 0.0, 0.5, -2.0, 9.0, 0.5]));
    let y = c.b.binary(Pow, a, b).expect("valid");
    cases.push(c.ends(&[y]));
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let mut c = Case::new("pow at every pair of its special values", EXACT);
    let specials =
        [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, inf, -inf, nan, 4.0, 1e10, -1e10];
    // Columns whose finite powers are powers of two, or beyond every number.
    let a: Vec<f32> = vec![0.0, -0.0, 1.0, -1.0, inf, -inf, nan];
    let (rows, columns) = (a.len() as u32, specials.len() as u32);
    let bases = c.bind(f32s("a", &[rows, 1], &a));
    let exponents = c.bind(f32s("b", &[columns], &specials));
    let whole = c.b.binary(Pow, bases, exponents).expect("valid");
    let bases = c.bind(f32s("c", &[columns], &specials));
    let exponents = c.bind(f32s("d", &[6, 1], &[0.0, -0.0, inf, -inf, nan, nan]));
    let beyond = c.b.binary(Pow, bases, exponents).expect("valid");
    let bases = c.bind(f32s("e", &[3], &[-2.0, -0.5, -1e10]));
    let exponents = c.bind(f32s("f", &[2, 1], &[0.5, -2.5]));
    let none = c.b.binary(Pow, bases, exponents).expect("valid");
    // The sign of a zero shows in its inverse.
    let signs = c.b.unary(UnaryFn::Recip, whole).expect("valid");
    cases.push(c.ends(&[whole, beyond, none, signs]));
    let mut c = Case::new("max and min with NaN", EXACT);
    let a = c.bind(f32s("a", &[4], &[nan, 1.0, 2.0, nan]));
    let b = c.bind(f32s("b", &[4], &[1.0, nan, 3.0, nan]));
    let (y, z) = (c.b.binary(Max, a, b).expect("valid"), c.b.binary(Min, a, b).expect("valid"));
    cases.push(c.ends(&[y, z]));
    for function in [Add, Sub, Mul, Max, Min] {
        let mut c = Case::new(format!("i32 {function:?}"), EXACT);
        let a = c.bind(i32s("a", &[2, 4], &[1, -7, i32::MAX, i32::MIN, 65_537, 0, 3, -1]));
        let b = c.bind(i32s("b", &[4], &[2, i32::MAX, 1, -1]));
        let y = c.b.binary(function, a, b).expect("valid");
        cases.push(c.ends(&[y]));
    }
    cases
}

fn choices() -> Vec<Ready> {
    let mut cases = Vec::new();
    for function in [CompareFn::Eq, CompareFn::Lt, CompareFn::Le, CompareFn::Gt, CompareFn::Ge] {
        for (left, right) in BROADCASTS {
            let mut c = Case::new(format!("{function:?} {left:?} {right:?}"), EXACT);
            let (a, b) = (c.x("a", left), c.x("b", right));
            let (a, b) = (
                c.b.unary(UnaryFn::Floor, a).expect("valid"),
                c.b.unary(UnaryFn::Floor, b).expect("valid"),
            );
            let y = c.b.compare(function, a, b).expect("valid");
            let x = c.b.select(y, a, b).expect("valid");
            cases.push(c.ends(&[y, x]));
        }
        let mut c = Case::new(format!("i32 {function:?}"), EXACT);
        let a = c.bind(i32s("a", &[5], &[1, 2, 3, i32::MIN, i32::MAX]));
        let b = c.bind(i32s("b", &[5], &[1, 3, 2, i32::MAX, i32::MIN]));
        let y = c.b.compare(function, a, b).expect("valid");
        cases.push(c.ends(&[y]));
    }
    let mut c = Case::new("select of other types", EXACT);
    let flags = (String::from("c"), raven_graph::TensorType::new(DType::Bool, [2, 1]), vec![1, 0]);
    let flags = c.bind(flags);
    let a = c.bind(u8s("a", &[3], &[1, 2, 255]));
    let b = c.bind(u8s("b", &[2, 3], &[9, 8, 7, 6, 5, 4]));
    let y = c.b.select(flags, a, b).expect("valid");
    let z = c.b.select(flags, flags, flags).expect("valid");
    cases.push(c.ends(&[y, z]));
    cases
}

fn casts() -> Vec<Ready> {
    let types = [DType::F32, DType::I32, DType::U8, DType::Bool];
    let floats: Vec<f32> = vec![
        0.0,
        -0.0,
        0.9,
        -0.9,
        1.5,
        -1.5,
        255.0,
        256.5,
        -3.0,
        3e9,
        -3e9,
        2_147_483_600.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1e-30,
    ];
    let sources = [
        f32s("x", &[16], &floats),
        i32s("x", &[8], &[0, 1, -1, 255, 256, i32::MAX, i32::MIN, 7]),
        u8s("x", &[5], &[0, 1, 2, 128, 255]),
        ("x".to_owned(), raven_graph::TensorType::new(DType::Bool, [5]), vec![0, 1, 1, 0, 1]),
    ];
    let mut cases = Vec::new();
    for source in sources {
        let mut c = Case::new(format!("cast from {}", source.1), EXACT);
        let x = c.bind(source);
        let y: Vec<_> = types
            .iter()
            .map(|to| c.b.push(Op::Cast { dtype: *to }, &[x]).expect("valid"))
            .collect();
        cases.push(c.ends(&y));
    }
    cases
}

fn layouts() -> Vec<Ready> {
    let mut cases = Vec::new();
    let permutations: [(&[u32], &[u32]); 6] = [
        (&[5], &[0]),
        (&[4, 8], &[1, 0]),
        (&[3, 5, 7], &[2, 0, 1]),
        (&[2, 3, 4, 8], &[0, 2, 1, 3]),
        (&[2, 3, 4, 5], &[3, 2, 1, 0]),
        (&[2, 1, 3, 2, 1, 2], &[5, 1, 3, 0, 4, 2]),
    ];
    for (dims, axes) in permutations {
        let mut c = Case::new(format!("permute {dims:?} {axes:?}"), EXACT);
        let x = c.x("x", dims);
        let y = c.b.permute(x, axes).expect("valid");
        cases.push(c.ends(&[y]));
    }
    for (from, to) in
        [(&[1, 8][..], &[6, 8][..]), (&[3, 1], &[2, 3, 8]), (&[], &[7]), (&[5], &[1, 5])]
    {
        let mut c = Case::new(format!("broadcast {from:?} {to:?}"), EXACT);
        let x = c.x("x", from);
        let y = c.b.broadcast(x, &Shape(to.to_vec())).expect("valid");
        cases.push(c.ends(&[y]));
    }
    for (dims, starts, ends) in [
        (&[9][..], &[2][..], &[7][..]),
        (&[6, 8], &[1, 4], &[5, 8]),
        (&[3, 4, 5], &[0, 1, 2], &[3, 3, 3]),
    ] {
        let mut c = Case::new(format!("slice {dims:?} {starts:?} {ends:?}"), EXACT);
        let x = c.x("x", dims);
        let y = c.b.slice(x, starts, ends).expect("valid");
        let low: Vec<u32> = starts.iter().map(|start| start + 1).collect();
        let z = c.b.pad(y, &low, starts, -1.5).expect("valid");
        cases.push(c.ends(&[y, z]));
    }
    let mut c = Case::new("concat and reshape", EXACT);
    let (x, y) = (c.x("x", &[2, 3, 4]), c.x("y", &[2, 1, 4]));
    let joined = c.b.concat(&[x, y, x], 1).expect("valid");
    let flat = c.b.reshape(joined, [7, 8]).expect("valid");
    let one = c.b.concat(&[y], 2).expect("valid");
    cases.push(c.ends(&[joined, flat, one]));
    let mut c = Case::new("outputs that are inputs and constants", EXACT);
    let x = c.x("x", &[2, 3]);
    let same = c.b.reshape(x, [3, 2]).expect("valid");
    let k = c.b.constant(DType::I32, [5], -7.0).expect("valid");
    let f = c.b.constant(DType::F32, [3], 0.1).expect("valid");
    let bools = c.b.constant(DType::Bool, [3], 1.0).expect("valid");
    let bytes = c.b.constant(DType::U8, [], 200.0).expect("valid");
    cases.push(c.ends(&[x, same, k, f, bools, bytes]));
    cases
}

fn reductions() -> Vec<Ready> {
    let mut cases = Vec::new();
    let shapes: [(&[u32], &[u32]); 12] = [
        (&[7], &[0]),
        (&[1000], &[0]),
        (&[70_001], &[0]),
        (&[64, 10], &[0]),
        (&[64, 10], &[1]),
        (&[3, 300], &[1]),
        (&[2, 3, 4, 5], &[0, 2, 3]),
        (&[16, 8, 13, 13], &[0, 2, 3]),
        (&[5, 4, 3, 2], &[1, 3]),
        (&[4000, 3], &[0]),
        (&[2, 5000], &[1]),
        (&[4, 4], &[]),
    ];
    for function in [ReduceFn::Sum, ReduceFn::Mean, ReduceFn::Max, ReduceFn::Min] {
        for (dims, axes) in shapes {
            let exact = matches!(function, ReduceFn::Max | ReduceFn::Min);
            let bounds = if exact { EXACT } else { (3e-3, 1e-4) };
            let mut c = Case::new(format!("{function:?} {dims:?} {axes:?}"), bounds);
            let x = c.x("x", dims);
            let y = c.b.reduce(function, x, axes, false).expect("valid");
            let z = c.b.reduce(function, x, axes, true).expect("valid");
            cases.push(c.ends(&[y, z]));
        }
    }
    for (dims, axis) in [(&[9][..], 0), (&[6, 10], 1), (&[3, 70, 4], 1), (&[5, 3], 0)] {
        let mut c = Case::new(format!("arg_max {dims:?} {axis}"), EXACT);
        let x = c.x("x", dims);
        let x = c.b.unary(UnaryFn::Floor, x).expect("valid");
        let y = c.b.arg_max(x, axis).expect("valid");
        cases.push(c.ends(&[y]));
    }
    cases
}

fn products() -> Vec<Ready> {
    let mut cases = Vec::new();
    let extents = [
        (1, 1, 1),
        (4, 4, 4),
        (3, 5, 7),
        (64, 10, 128),
        (17, 33, 65),
        (64, 256, 100),
        (130, 140, 36),
        (300, 2, 19),
        (2, 300, 8),
        (5, 6, 3000),
        (16, 24, 2048),
    ];
    for (m, n, k) in extents {
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut c = Case::new(format!("matmul {m} {n} {k} {ta} {tb}"), (2e-3, 1e-4));
            let a = c.x("a", &if ta { [k, m] } else { [m, k] });
            let b = c.x("b", &if tb { [n, k] } else { [k, n] });
            let y = c.b.matmul(a, b, ta, tb).expect("valid");
            cases.push(c.ends(&[y]));
        }
    }
    let batches: [(&[u32], &[u32]); 5] =
        [(&[3], &[3]), (&[2, 3], &[]), (&[], &[4]), (&[2, 1], &[1, 3]), (&[2, 1, 2], &[3, 1])];
    for (left, right) in batches {
        for (ta, tb) in [(false, false), (true, true)] {
            for (m, n, k) in [(4, 8, 4), (5, 3, 7)] {
                let mut c =
                    Case::new(format!("matmul {left:?} {right:?} {m} {n} {k} {ta}"), SUMMED);
                let matrix =
                    |t: bool, rows, columns| if t { [columns, rows] } else { [rows, columns] };
                let a = c.x("a", &[left, &matrix(ta, m, k)].concat());
                let b = c.x("b", &[right, &matrix(tb, k, n)].concat());
                let y = c.b.matmul(a, b, ta, tb).expect("valid");
                cases.push(c.ends(&[y]));
            }
        }
    }
    cases
}

fn convolutions() -> Vec<Ready> {
    let plain = Conv2dAttrs { stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 };
    // Image [n, c, h, w], filters, kernel, attributes.
    let shapes = [
        ([1, 1, 5, 5], 1, [3, 3], plain),
        ([2, 3, 8, 9], 4, [3, 2], plain),
        ([3, 4, 7, 7], 8, [3, 3], Conv2dAttrs { padding: [1; 4], ..plain }),
        ([2, 2, 28, 28], 16, [5, 5], Conv2dAttrs { padding: [2; 4], ..plain }),
        ([2, 4, 9, 8], 6, [3, 3], Conv2dAttrs { stride: [2, 3], padding: [1, 0, 2, 1], ..plain }),
        ([1, 2, 11, 11], 3, [3, 3], Conv2dAttrs { dilation: [2, 3], padding: [2; 4], ..plain }),
        ([2, 6, 6, 6], 4, [3, 3], Conv2dAttrs { groups: 2, padding: [1; 4], ..plain }),
        ([2, 4, 5, 5], 4, [3, 3], Conv2dAttrs { groups: 4, padding: [1; 4], ..plain }),
        ([4, 8, 6, 6], 40, [1, 1], plain),
    ];
    let mut cases = Vec::new();
    for (x, filters, kernel, attrs) in shapes {
        let name = format!("conv2d {x:?} {filters} {kernel:?} {attrs:?}");
        let weight = [filters, x[1] / attrs.groups, kernel[0], kernel[1]];
        let mut c = Case::new(&name, (1e-3, 1e-4));
        let (image, w) = (c.x("x", &x), c.x("w", &weight));
        let y = c.b.conv2d(image, w, attrs).expect("valid");
        let shape = c.b.shape(y).dims().to_vec();
        let dy = c.x("dy", &shape);
        let dx =
            c.b.push(Op::Conv2dInputGrad { attrs, input: [x[2], x[3]] }, &[w, dy]).expect("valid");
        let dw = c.b.push(Op::Conv2dWeightGrad { attrs, kernel }, &[image, dy]).expect("valid");
        cases.push(c.ends(&[y, dx, dw]));
    }
    cases
}

fn pools() -> Vec<Ready> {
    let pool = |kernel, stride, padding| Pool2dAttrs { kernel, stride, padding };
    let shapes = [
        ([2, 3, 8, 8], pool([2, 2], [2, 2], [0; 4])),
        ([1, 2, 7, 9], pool([3, 2], [2, 1], [1, 1, 0, 1])),
        ([2, 1, 5, 5], pool([3, 3], [1, 1], [1; 4])),
        ([1, 1, 4, 4], pool([4, 4], [4, 4], [0; 4])),
        ([1, 2, 6, 6], pool([1, 1], [3, 3], [0; 4])),
    ];
    let mut cases = Vec::new();
    for (dims, attrs) in shapes {
        let mut c = Case::new(format!("pool {dims:?} {attrs:?}"), ROUNDED);
        let x = c.x("x", &dims);
        // Whole numbers tie, which is what the first maximum is about.
        let x = c.b.unary(UnaryFn::Floor, x).expect("valid");
        let (max, mean) =
            (c.b.max_pool2d(x, attrs).expect("valid"), c.b.avg_pool2d(x, attrs).expect("valid"));
        let shape = c.b.shape(max).dims().to_vec();
        let dy = c.x("dy", &shape);
        let dmax = c.b.push(Op::MaxPool2dGrad(attrs), &[x, dy]).expect("valid");
        let input = [dims[2], dims[3]];
        let dmean = c.b.push(Op::AvgPool2dGrad { attrs, input }, &[dy]).expect("valid");
        cases.push(c.ends(&[max, mean, dmax, dmean]));
    }
    let mut c = Case::new("max_pool2d_grad of one value", EXACT);
    let x = c.x("x", &[1, 1, 3, 4]);
    let dx = c.b.push(Op::MaxPool2dGrad(pool([1, 1], [1, 1], [0; 4])), &[x, x]).expect("valid");
    cases.push(c.ends(&[dx]));
    cases
}

fn indices() -> Vec<Ready> {
    let mut cases = Vec::new();
    let shapes: [(&[u32], u32, &[u32]); 5] = [
        (&[9, 4], 0, &[6]),
        (&[5], 0, &[2, 3]),
        (&[3, 7, 5], 1, &[70]),
        (&[2, 3, 4], 2, &[]),
        (&[40, 130], 0, &[200]),
    ];
    for (dims, axis, taken) in shapes {
        let size = dims[axis as usize] as i32;
        let count: u32 = taken.iter().product();
        // Some out of range on either side, many twice.
        let index: Vec<i32> =
            (0..count).map(|i| (noise(i) * (size + 2) as f32) as i32 - 1).collect();
        let mut c = Case::new(format!("gather and scatter {dims:?} {axis} {taken:?}"), SUMMED);
        let (x, index) = (c.x("x", dims), c.bind(i32s("i", taken, &index)));
        let y = c.b.gather(x, index, axis).expect("valid");
        let back = c.b.scatter_add(y, index, axis, size as u32).expect("valid");
        cases.push(c.ends(&[y, back]));
    }
    for depth in [1, 3, 8] {
        let mut c = Case::new(format!("one_hot {depth}"), EXACT);
        let index = c.bind(i32s("i", &[2, 3], &[0, 2, -1, 7, 8, 1]));
        let y = c.b.one_hot(index, depth).expect("valid");
        cases.push(c.ends(&[y]));
    }
    let mut c = Case::new("gather of bytes", EXACT);
    let (x, index) =
        (c.bind(u8s("x", &[3, 2], &[1, 2, 3, 4, 5, 6])), c.bind(i32s("i", &[3], &[2, 9, 0])));
    let y = c.b.gather(x, index, 0).expect("valid");
    cases.push(c.ends(&[y]));
    cases
}

fn softmaxes() -> Vec<Ready> {
    let mut cases = Vec::new();
    for (dims, axis) in
        [(&[1][..], 0), (&[64, 10], 1), (&[3, 1000], 1), (&[4, 5, 6], 1), (&[300, 3], 0)]
    {
        let mut c = Case::new(format!("softmax {dims:?} {axis}"), TRANSCENDENTAL);
        let x = c.bind(spread("x", dims, -30.0, 30.0));
        let (y, z) =
            (c.b.softmax(x, axis).expect("valid"), c.b.log_softmax(x, axis).expect("valid"));
        cases.push(c.ends(&[y, z]));
    }
    for (rows, classes) in [(1, 1), (64, 10), (7, 3), (5, 700)] {
        let mut c = Case::new(format!("cross_entropy {rows} {classes}"), TRANSCENDENTAL);
        let logits = c.bind(spread("x", &[rows, classes], -20.0, 20.0));
        let labels: Vec<i32> =
            (0..rows).map(|i| (noise(i) * (classes + 2) as f32) as i32 - 1).collect();
        let (labels, scale) = (c.bind(i32s("labels", &[rows], &labels)), c.x("scale", &[rows]));
        let loss = c.b.cross_entropy(logits, labels).expect("valid");
        let dx = c.b.push(Op::CrossEntropyGrad, &[logits, labels, scale]).expect("valid");
        let hits = c.b.hits(logits, labels).expect("valid");
        cases.push(c.ends(&[loss, dx, hits]));
    }
    cases
}

fn randoms() -> Vec<Ready> {
    let mut cases = Vec::new();
    for (distribution, bounds) in
        [(Distribution::Uniform, EXACT), (Distribution::Normal, (1e-5, 1e-5))]
    {
        // The last is long enough for uniform numbers close to 1.
        for dims in [&[][..], &[5], &[64, 33], &[1001], &[400_000]] {
            let mut c = Case::new(format!("{distribution:?} {dims:?}"), bounds);
            let y = c.b.random(distribution, dims, 9).expect("valid");
            cases.push(c.ends(&[y]));
        }
    }
    let mut c = Case::new("dropout", ROUNDED);
    let x = c.x("x", &[8, 12]);
    let y = c.b.dropout(x, 0.4, 3).expect("valid");
    cases.push(c.ends(&[y]));
    cases
}

fn chains() -> Vec<Ready> {
    let mut cases = Vec::new();
    let mut c = Case::new("a chain with broadcasts, constants and an alias", TRANSCENDENTAL);
    let (x, bias) = (c.x("x", &[6, 8]), c.x("bias", &[8]));
    let sum = c.b.add(x, bias).expect("valid");
    let act = c.b.unary(UnaryFn::Sigmoid, sum).expect("valid");
    let scaled = c.b.scale(act, 3.0).expect("valid");
    let flat = c.b.reshape(scaled, [48]).expect("valid");
    let y = c.b.mul(flat, flat).expect("valid");
    cases.push(c.ends(&[y]));

    let mut c = Case::new("more operands than buffers", ROUNDED);
    let mut total = c.x("x0", &[4, 4]);
    for at in 1..20 {
        let x = c.x(&format!("x{at}"), &[4, 4]);
        total = c.b.add(total, x).expect("valid");
    }
    cases.push(c.ends(&[total]));

    let mut c = Case::new("a long chain", SUMMED);
    let x = c.x("x", &[10]);
    let mut y = x;
    for at in 0..200 {
        y = c.b.scale(y, if at % 2 == 0 { 1.5 } else { 0.7 }).expect("valid");
    }
    cases.push(c.ends(&[y]));

    let mut c = Case::new("a comparison read as a number", EXACT);
    let (a, b) = (c.x("a", &[9]), c.x("b", &[9]));
    let less = c.b.compare(CompareFn::Lt, a, b).expect("valid");
    let number = c.b.cast(less, DType::I32).expect("valid");
    let float = c.b.cast(number, DType::F32).expect("valid");
    let byte = c.b.cast(less, DType::U8).expect("valid");
    cases.push(c.ends(&[number, float, byte]));

    let mut c = Case::new("views of views", EXACT);
    let x = c.x("x", &[4, 6]);
    let t = c.b.permute(x, &[1, 0]).expect("valid");
    let s = c.b.slice(t, &[1, 0], &[5, 4]).expect("valid");
    let y = c.b.add(s, s).expect("valid");
    let z = c.b.scalar(2.0).expect("valid");
    let z = c.b.broadcast(z, &Shape(vec![4, 4])).expect("valid");
    let z = c.b.permute(z, &[1, 0]).expect("valid");
    let z = c.b.pad(z, &[1, 0], &[0, 1], 5.0).expect("valid");
    cases.push(c.ends(&[y, t, z]));
    cases
}
