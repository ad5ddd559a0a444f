//! Chains at the limits of one shader.

use crate::common::*;
use raven_graph::{BinaryFn, CompareFn, DType, NodeId, Op, TensorType, UnaryFn};

const EXACT: (f32, f32) = (0.0, 0.0);
const ROUNDED: (f32, f32) = (1e-6, 2e-6);

pub fn all() -> Vec<Ready> {
    vec![
        short_operands(),
        three_of_three(),
        two_element_types(),
        many_slices(),
        wide_views(),
        constants(),
    ]
}

fn bools(name: &str, values: &[u8]) -> Named {
    (name.to_owned(), TensorType::new(DType::Bool, [values.len() as u32]), values.to_vec())
}

/// Three operands of one op each that read eight values together.
fn short_operands() -> Ready {
    let mut c = Case::new("chain limits: eight reads by short operands", EXACT);
    let [p, q, x1, y1, x2, y2] = ["p", "q", "x1", "y1", "x2", "y2"].map(|name| c.x(name, &[4]));
    let (m1, m2) = (c.bind(bools("m1", &[1, 0, 1, 0])), c.bind(bools("m2", &[0, 0, 1, 1])));
    let less = c.b.compare(CompareFn::Lt, p, q).expect("valid");
    let a = c.b.select(m1, x1, y1).expect("valid");
    let b = c.b.select(m2, x2, y2).expect("valid");
    let y = c.b.select(less, a, b).expect("valid");
    c.ends(&[y])
}

/// The same with nine, and with views that others read too.
fn three_of_three() -> Ready {
    let mut c = Case::new("chain limits: nine reads by short operands", EXACT);
    let choice = |c: &mut Case, at: usize| {
        let mask = c.bind(bools(&format!("m{at}"), &[1, 0, 0, 1, 1, 0]));
        let (x, y) = (c.x(&format!("x{at}"), &[6]), c.x(&format!("y{at}"), &[6]));
        c.b.select(mask, x, y).expect("valid")
    };
    let [a, b, d] = [0, 1, 2].map(|at| choice(&mut c, at));
    let mask = c.b.push(Op::Cast { dtype: DType::Bool }, &[d]).expect("valid");
    let table = c.x("t", &[9]);
    let part = c.b.slice(table, &[1], &[7]).expect("valid");
    let (a, b) = (c.b.mul(a, part).expect("valid"), c.b.add(b, part).expect("valid"));
    let y = c.b.select(mask, a, b).expect("valid");
    let z = c.b.mul(part, part).expect("valid");
    c.ends(&[y, z])
}

/// One value under two element types beside six others.
fn two_element_types() -> Ready {
    let mut c = Case::new("chain limits: one value under two element types", EXACT);
    let bytes: Vec<_> =
        (0..7).map(|at| c.bind(u8s(&format!("b{at}"), &[3], &[at, 100 + at, 255]))).collect();
    let whole = c.b.push(Op::Cast { dtype: DType::I32 }, &[bytes[0]]).expect("valid");
    let mut total = c.b.cast(whole, DType::F32).expect("valid");
    for byte in bytes {
        let number = c.b.cast(byte, DType::F32).expect("valid");
        total = c.b.add(total, number).expect("valid");
    }
    c.ends(&[total])
}

/// Twenty views whose extents and steps are more than one uniform block holds.
fn many_slices() -> Ready {
    let mut c = Case::new("chain limits: twenty slices of one value", ROUNDED);
    let x = c.x("x", &[9, 9, 9, 9]);
    let slice = |c: &mut Case, at: u32| {
        let starts = [at % 5, at / 5, (at + 1) % 5, at % 3];
        c.b.slice(x, &starts, &starts.map(|start| start + 5)).expect("valid")
    };
    let mut total = slice(&mut c, 0);
    for at in 1..20 {
        let part = slice(&mut c, at);
        total = c.b.add(total, part).expect("valid");
    }
    c.ends(&[total])
}

/// Three operands of one op each over views of eight axes.
fn wide_views() -> Ready {
    let mut c = Case::new("chain limits: nine views of eight axes", ROUNDED);
    let dims = [2, 3, 2, 3, 2, 3, 2, 3];
    let x = c.x("x", &dims.map(|extent| extent + 1));
    let view = |c: &mut Case, at: usize| {
        let starts: [u32; 8] = std::array::from_fn(|axis| u32::from(axis == at));
        let ends: [u32; 8] = std::array::from_fn(|axis| starts[axis] + dims[axis]);
        c.b.slice(x, &starts, &ends).expect("valid")
    };
    let views: Vec<_> = (0..8).map(|at| view(&mut c, at)).collect();
    let pair = |c: &mut Case, a: usize, b: usize| {
        c.b.binary(BinaryFn::Max, views[a], views[b]).expect("valid")
    };
    let less = c.b.compare(CompareFn::Lt, views[0], views[1]).expect("valid");
    let (a, b) = (pair(&mut c, 2, 3), pair(&mut c, 4, 5));
    let y = c.b.select(less, a, b).expect("valid");
    let z = pair(&mut c, 6, 7);
    let y = c.b.add(y, z).expect("valid");
    c.ends(&[y])
}

/// Ops over constants whose results are no finite numbers, or beyond an integer.
fn constants() -> Ready {
    let mut c = Case::new("chain limits: constants", (2e-5, 2e-5));
    let constant = |c: &mut Case, dtype, value: f32| -> NodeId {
        c.b.constant(dtype, [8], value).expect("valid")
    };
    let [zero, hundred, large] =
        [0.0, 100.0, 3e38].map(|value| constant(&mut c, DType::F32, value));
    let one = constant(&mut c, DType::I32, 1.0);
    let most = constant(&mut c, DType::I32, 2_147_483_520.0);
    let least = constant(&mut c, DType::I32, -2_147_483_648.0);
    let x = c.x("x", &[8]);
    let mut ends = vec![
        c.b.unary(UnaryFn::Recip, zero).expect("valid"),
        c.b.unary(UnaryFn::Log, zero).expect("valid"),
        c.b.unary(UnaryFn::Exp, hundred).expect("valid"),
        c.b.add(large, large).expect("valid"),
        c.b.mul(x, zero).expect("valid"),
        c.b.binary(BinaryFn::Sub, least, one).expect("valid"),
        c.b.binary(BinaryFn::Mul, most, most).expect("valid"),
    ];
    let yes = constant(&mut c, DType::Bool, 1.0);
    ends.push(c.b.select(yes, large, zero).expect("valid"));
    c.ends(&ends)
}

#[test]
fn constants_come_from_variables() {
    // Browsers refuse shaders with a constant expression that yields no finite number.
    let (_, graph, ..) = constants();
    let target = raven_gpu::Target { binding_bytes_max: 128 << 20, lanes: false };
    let plan = raven_gpu::Plan::new(graph, target).expect("supported");
    assert_eq!(plan.launches().len(), 8);
    for launch in plan.launches() {
        let (_, body) = launch.source.split_once("fn run").expect("a body");
        let (body, _) = body.split_once("\n}").expect("its end");
        for line in body.lines().skip(4).filter(|line| !line.starts_with("    var k")) {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '.');
            let mut numbers = words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
            // The numerator of an inverse, and what bools are stored as.
            assert!(numbers.all(|number| ["1.0", "0u", "1u"].contains(&number)), "{line}");
        }
    }
}
