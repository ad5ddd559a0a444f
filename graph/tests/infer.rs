//! The shape rule of every op: what it gives, and what it refuses.

// Lists of operands read better when all are written alike.
#![allow(clippy::cloned_ref_to_slice_refs)]

use OpError as E;
use raven_graph::infer::infer;
use raven_graph::{
    BinaryFn, CompareFn, Conv2dAttrs, DType, Distribution, Op, OpError, Pool2dAttrs, ReduceFn,
    Shape, TensorType, UnaryFn,
};

fn f(dims: &[u32]) -> TensorType {
    TensorType::new(DType::F32, dims)
}

fn i(dims: &[u32]) -> TensorType {
    TensorType::new(DType::I32, dims)
}

fn b(dims: &[u32]) -> TensorType {
    TensorType::new(DType::Bool, dims)
}

fn u(dims: &[u32]) -> TensorType {
    TensorType::new(DType::U8, dims)
}

/// An op, its operands, and the type of the result.
fn gives(op: Op, operands: &[TensorType], expected: TensorType) {
    let found = infer(&op, &operands.iter().collect::<Vec<_>>());
    assert_eq!(found, Ok(expected), "{op:?} of {operands:?}");
}

/// An op, its operands, and the refusal.
fn refuses(op: Op, operands: &[TensorType], expected: impl Fn(&OpError) -> bool) {
    let found = infer(&op, &operands.iter().collect::<Vec<_>>());
    let error = found.expect_err(&format!("{op:?} of {operands:?}"));
    assert!(expected(&error), "{op:?} of {operands:?}: {error:?}");
}

fn shape(dims: &[u32]) -> Shape {
    Shape::from(dims)
}

#[test]
fn sources() {
    let input = |dims: &[u32]| Op::Input { name: "x".into(), dtype: DType::U8, shape: shape(dims) };
    gives(input(&[2, 3]), &[], u(&[2, 3]));
    refuses(input(&[2, 0]), &[], |e| *e == E::Zero { field: "shape" });
    refuses(input(&[2]), &[f(&[1])], |e| matches!(e, E::OperandCount { expected: "0", found: 1 }));
    let constant = |dtype, value| Op::Constant { dtype, shape: shape(&[2]), value };
    for (dtype, good, bad) in [
        (DType::F32, -1.5, f32::INFINITY),
        (DType::F32, -0.0, f32::NAN),
        (DType::I32, -2_147_483_648.0, 2_147_483_648.0),
        (DType::I32, 7.0, 7.5),
        (DType::U8, 255.0, 256.0),
        (DType::U8, 0.0, -1.0),
        (DType::Bool, 1.0, 2.0),
        (DType::I32, 0.0, f32::NAN),
    ] {
        gives(constant(dtype, good), &[], TensorType::new(dtype, [2]));
        refuses(constant(dtype, bad), &[], |e| matches!(e, E::Number { field: "value", .. }));
    }
    let distribution = Distribution::Normal;
    let random = |dims: &[u32]| Op::Random { distribution, shape: shape(dims), stream: 0 };
    gives(random(&[3]), &[], f(&[3]));
    refuses(random(&[0]), &[], |e| matches!(e, E::Zero { .. }));
}

#[test]
fn elementwise() {
    let unary = Op::Unary { function: UnaryFn::Exp };
    gives(unary.clone(), &[f(&[2, 3])], f(&[2, 3]));
    refuses(unary.clone(), &[i(&[2])], |e| matches!(e, E::DType { operand: 0, .. }));
    refuses(unary, &[], |e| matches!(e, E::OperandCount { .. }));
    let binary = |function| Op::Binary { function };
    gives(binary(BinaryFn::Add), &[f(&[2, 1, 3]), f(&[4, 1])], f(&[2, 4, 3]));
    gives(binary(BinaryFn::Mul), &[i(&[]), i(&[5])], i(&[5]));
    refuses(binary(BinaryFn::Add), &[f(&[2]), f(&[3])], |e| matches!(e, E::Broadcast { .. }));
    refuses(binary(BinaryFn::Add), &[f(&[2]), i(&[2])], |e| {
        matches!(e, E::DType { operand: 1, .. })
    });
    refuses(binary(BinaryFn::Add), &[u(&[2]), u(&[2])], |e| {
        matches!(e, E::DType { operand: 0, .. })
    });
    for function in [BinaryFn::Div, BinaryFn::Pow] {
        refuses(binary(function), &[i(&[2]), i(&[2])], |e| matches!(e, E::Function { .. }));
    }
    let compare = Op::Compare { function: CompareFn::Lt };
    gives(compare.clone(), &[i(&[2, 1]), i(&[3])], b(&[2, 3]));
    refuses(compare, &[b(&[2]), b(&[2])], |e| matches!(e, E::DType { operand: 0, .. }));
    gives(Op::Select, &[b(&[2, 1]), u(&[3]), u(&[])], u(&[2, 3]));
    refuses(Op::Select, &[f(&[2]), f(&[2]), f(&[2])], |e| matches!(e, E::DType { operand: 0, .. }));
    refuses(Op::Select, &[b(&[2]), f(&[2]), i(&[2])], |e| matches!(e, E::DType { operand: 2, .. }));
    refuses(Op::Select, &[b(&[4]), f(&[3]), f(&[3])], |e| matches!(e, E::Broadcast { .. }));
    gives(Op::Cast { dtype: DType::Bool }, &[f(&[2])], b(&[2]));
    let broadcast = |dims: &[u32]| Op::Broadcast { shape: shape(dims) };
    gives(broadcast(&[2, 3]), &[i(&[3])], i(&[2, 3]));
    refuses(broadcast(&[1, 3]), &[i(&[2, 3])], |e| matches!(e, E::Broadcast { .. }));
    refuses(broadcast(&[3]), &[i(&[1, 3])], |e| matches!(e, E::Broadcast { .. }));
    refuses(broadcast(&[0]), &[i(&[1])], |e| matches!(e, E::Zero { .. }));
}

#[test]
fn reductions() {
    let reduce = |axes: &[u32], keep_dims| Op::Reduce {
        function: ReduceFn::Sum,
        axes: axes.to_vec(),
        keep_dims,
    };
    let x = f(&[2, 3, 4]);
    gives(reduce(&[0, 2], false), &[x.clone()], f(&[3]));
    gives(reduce(&[0, 2], true), &[x.clone()], f(&[1, 3, 1]));
    gives(reduce(&[], false), &[x.clone()], x.clone());
    refuses(reduce(&[2, 0], false), &[x.clone()], |e| matches!(e, E::Axes { .. }));
    refuses(reduce(&[1, 1], false), &[x.clone()], |e| matches!(e, E::Axes { .. }));
    refuses(reduce(&[3], false), &[x.clone()], |e| matches!(e, E::Axis { axis: 3, rank: 3, .. }));
    refuses(reduce(&[0], false), &[i(&[2])], |e| matches!(e, E::DType { .. }));
    gives(Op::ArgMax { axis: 1 }, &[x.clone()], i(&[2, 4]));
    refuses(Op::ArgMax { axis: 3 }, &[x.clone()], |e| matches!(e, E::Axis { .. }));
    gives(Op::Softmax { axis: 2 }, &[x.clone()], x.clone());
    gives(Op::LogSoftmax { axis: 0 }, &[x.clone()], x.clone());
    refuses(Op::Softmax { axis: u32::MAX }, &[x.clone()], |e| matches!(e, E::Axis { .. }));
    refuses(Op::LogSoftmax { axis: 0 }, &[f(&[])], |e| matches!(e, E::Axis { rank: 0, .. }));
}

#[test]
fn classification() {
    gives(Op::CrossEntropy, &[f(&[4, 3]), i(&[4])], f(&[4]));
    refuses(Op::CrossEntropy, &[f(&[4, 3]), i(&[5])], |e| matches!(e, E::Extent { .. }));
    refuses(Op::CrossEntropy, &[f(&[4, 3]), f(&[4])], |e| matches!(e, E::DType { operand: 1, .. }));
    refuses(Op::CrossEntropy, &[f(&[4]), i(&[4])], |e| matches!(e, E::Rank { operand: 0, .. }));
    gives(Op::CrossEntropyGrad, &[f(&[4, 3]), i(&[4]), f(&[4])], f(&[4, 3]));
    refuses(Op::CrossEntropyGrad, &[f(&[4, 3]), i(&[4]), f(&[3])], |e| {
        matches!(e, E::Extent { .. })
    });
}

#[test]
fn matrices() {
    let matmul = |transpose_lhs, transpose_rhs| Op::MatMul { transpose_lhs, transpose_rhs };
    gives(matmul(false, false), &[f(&[2, 3]), f(&[3, 4])], f(&[2, 4]));
    gives(matmul(true, false), &[f(&[3, 2]), f(&[3, 4])], f(&[2, 4]));
    gives(matmul(false, true), &[f(&[2, 3]), f(&[4, 3])], f(&[2, 4]));
    gives(matmul(true, true), &[f(&[5, 1, 3, 2]), f(&[6, 4, 3])], f(&[5, 6, 2, 4]));
    refuses(matmul(false, false), &[f(&[2, 3]), f(&[4, 3])], |e| {
        *e == E::Extent { field: "inner extent of operand 1", expected: 3, found: 4 }
    });
    refuses(matmul(false, false), &[f(&[3]), f(&[3, 1])], |e| {
        matches!(e, E::Rank { operand: 0, .. })
    });
    refuses(matmul(false, false), &[f(&[2, 3, 4]), f(&[3, 4, 2])], |e| {
        matches!(e, E::Broadcast { .. })
    });
}

fn conv(stride: [u32; 2], padding: [u32; 4], dilation: [u32; 2], groups: u32) -> Conv2dAttrs {
    Conv2dAttrs { stride, padding, dilation, groups }
}

#[test]
fn convolutions() {
    let plain = conv([1, 1], [0; 4], [1, 1], 1);
    let strided = conv([2, 3], [1, 0, 2, 2], [2, 1], 1);
    let grouped = conv([1, 1], [0; 4], [1, 1], 2);
    let (x, w) = (f(&[2, 4, 9, 8]), f(&[6, 4, 3, 3]));
    gives(Op::Conv2d(plain), &[x.clone(), w.clone()], f(&[2, 6, 7, 6]));
    gives(Op::Conv2d(strided), &[x.clone(), w.clone()], f(&[2, 6, 3, 4]));
    gives(Op::Conv2d(grouped), &[x.clone(), f(&[6, 2, 3, 3])], f(&[2, 6, 7, 6]));
    refuses(Op::Conv2d(grouped), &[x.clone(), w.clone()], |e| matches!(e, E::Extent { .. }));
    refuses(Op::Conv2d(plain), &[x.clone(), f(&[6, 4, 10, 3])], |e| {
        *e == E::Window { field: "kernel", window: 10, padded: 9 }
    });
    refuses(Op::Conv2d(plain), &[x.clone(), f(&[6, 4, 3])], |e| {
        matches!(e, E::Rank { operand: 1, .. })
    });
    for (attrs, field) in [
        (conv([0, 1], [0; 4], [1, 1], 1), "stride"),
        (conv([1, 1], [0; 4], [1, 0], 1), "dilation"),
        (conv([1, 1], [0; 4], [1, 1], 0), "groups"),
    ] {
        refuses(Op::Conv2d(attrs), &[x.clone(), w.clone()], |e| *e == E::Zero { field });
    }
    let uneven = conv([1, 1], [0; 4], [1, 1], 4);
    refuses(Op::Conv2d(uneven), &[x.clone(), f(&[6, 1, 3, 3])], |e| {
        matches!(e, E::Extent { field: "filters modulo groups", .. })
    });
    let huge = conv([1, 1], [u32::MAX; 4], [1, 1], 1);
    refuses(Op::Conv2d(huge), &[x.clone(), w.clone()], |e| matches!(e, E::Overflow { .. }));
    let y = f(&[2, 6, 3, 4]);
    let input = [9, 8];
    gives(Op::Conv2dInputGrad { attrs: strided, input }, &[w.clone(), y.clone()], x.clone());
    refuses(Op::Conv2dInputGrad { attrs: strided, input: [9, 12] }, &[w.clone(), y.clone()], |e| {
        matches!(e, E::Extent { field: "columns of dy", .. })
    });
    refuses(Op::Conv2dInputGrad { attrs: strided, input: [0, 8] }, &[w.clone(), y.clone()], |e| {
        *e == E::Zero { field: "input" }
    });
    gives(Op::Conv2dWeightGrad { attrs: strided, kernel: [3, 3] }, &[x.clone(), y.clone()], w);
    refuses(Op::Conv2dWeightGrad { attrs: strided, kernel: [3, 0] }, &[x, y], |e| {
        *e == E::Zero { field: "kernel" }
    });
    let groups = u32::MAX;
    let overflow = Op::Conv2dInputGrad { attrs: conv([1, 1], [0; 4], [1, 1], groups), input };
    refuses(overflow, &[f(&[2, 2, 1, 1]), f(&[1, 2, 9, 8])], |e| matches!(e, E::Overflow { .. }));
}

#[test]
fn pooling() {
    let pool = |kernel, stride, padding| Pool2dAttrs { kernel, stride, padding };
    let plain = pool([2, 3], [2, 1], [0; 4]);
    let (x, y) = (f(&[2, 3, 5, 6]), f(&[2, 3, 2, 4]));
    gives(Op::MaxPool2d(plain), &[x.clone()], y.clone());
    gives(Op::AvgPool2d(plain), &[x.clone()], y.clone());
    gives(Op::MaxPool2dGrad(plain), &[x.clone(), y.clone()], x.clone());
    gives(Op::AvgPool2dGrad { attrs: plain, input: [5, 6] }, &[y.clone()], x.clone());
    gives(Op::MaxPool2d(pool([2, 2], [1, 1], [1, 0, 1, 1])), &[x.clone()], f(&[2, 3, 5, 7]));
    // A window of padding alone has no maximum.
    refuses(Op::MaxPool2d(pool([2, 2], [1, 1], [0, 2, 0, 0])), &[x.clone()], |e| {
        *e == E::Window { field: "padding", window: 2, padded: 2 }
    });
    refuses(Op::AvgPool2d(pool([0, 2], [1, 1], [0; 4])), &[x.clone()], |e| {
        *e == E::Zero { field: "kernel" }
    });
    refuses(Op::MaxPool2d(pool([6, 1], [1, 1], [0; 4])), &[x.clone()], |e| {
        matches!(e, E::Window { field: "kernel", .. })
    });
    refuses(Op::MaxPool2dGrad(plain), &[x, f(&[2, 3, 3, 4])], |e| {
        matches!(e, E::Extent { field: "rows of dy", .. })
    });
    refuses(Op::AvgPool2dGrad { attrs: plain, input: [7, 6] }, &[y], |e| {
        matches!(e, E::Extent { field: "rows of dy", .. })
    });
}

#[test]
fn layouts() {
    let x = i(&[2, 3, 4]);
    let reshape = |dims: &[u32]| Op::Reshape { shape: shape(dims) };
    gives(reshape(&[6, 4]), &[x.clone()], i(&[6, 4]));
    gives(reshape(&[]), &[i(&[1, 1])], i(&[]));
    refuses(reshape(&[5, 5]), &[x.clone()], |e| {
        *e == E::Extent { field: "elements of shape", expected: 24, found: 25 }
    });
    refuses(reshape(&[u32::MAX; 3]), &[x.clone()], |e| matches!(e, E::Overflow { .. }));
    gives(Op::Permute { axes: vec![2, 0, 1] }, &[x.clone()], i(&[4, 2, 3]));
    refuses(Op::Permute { axes: vec![0, 1] }, &[x.clone()], |e| matches!(e, E::Length { .. }));
    refuses(Op::Permute { axes: vec![0, 1, 1] }, &[x.clone()], |e| matches!(e, E::Axes { .. }));
    refuses(Op::Permute { axes: vec![0, 1, 3] }, &[x.clone()], |e| matches!(e, E::Axis { .. }));
    let slice =
        |starts: &[u32], ends: &[u32]| Op::Slice { starts: starts.into(), ends: ends.into() };
    gives(slice(&[0, 1, 2], &[2, 3, 3]), &[x.clone()], i(&[2, 2, 1]));
    for (starts, ends) in [([0, 1, 2], [2, 1, 3]), ([0, 2, 2], [2, 1, 3]), ([0, 0, 0], [2, 3, 5])] {
        refuses(slice(&starts, &ends), &[x.clone()], |e| matches!(e, E::Range { .. }));
    }
    refuses(slice(&[0], &[1]), &[x.clone()], |e| matches!(e, E::Length { field: "starts", .. }));
    let pad = |low: &[u32], value| Op::Pad { low: low.into(), high: vec![0, 2], value };
    gives(pad(&[1, 0], 0.5), &[f(&[2, 3])], f(&[3, 5]));
    refuses(pad(&[u32::MAX, 0], 0.0), &[f(&[2, 3])], |e| matches!(e, E::Overflow { .. }));
    refuses(pad(&[0, 0], f32::NAN), &[f(&[2, 3])], |e| matches!(e, E::Number { .. }));
    refuses(pad(&[0], 0.0), &[f(&[2, 3])], |e| matches!(e, E::Length { field: "low", .. }));
    let concat = |axis| Op::Concat { axis };
    gives(concat(1), &[u(&[2, 3]), u(&[2, 1])], u(&[2, 4]));
    gives(concat(0), &[u(&[2])], u(&[2]));
    refuses(concat(0), &[], |e| matches!(e, E::OperandCount { .. }));
    refuses(concat(1), &[u(&[2, 3]), u(&[3, 1])], |e| matches!(e, E::Extent { .. }));
    refuses(concat(0), &[u(&[2, 3]), u(&[2])], |e| matches!(e, E::Extent { .. }));
    refuses(concat(0), &[u(&[2]), f(&[2])], |e| matches!(e, E::DType { operand: 1, .. }));
    refuses(concat(0), &[u(&[u32::MAX]), u(&[1])], |e| matches!(e, E::Overflow { .. }));
    refuses(concat(0), &[u(&[]), u(&[])], |e| matches!(e, E::Axis { .. }));
}

#[test]
fn indexed() {
    let gather = |axis| Op::Gather { axis };
    gives(gather(1), &[u(&[2, 3, 4]), i(&[5, 6])], u(&[2, 5, 6, 4]));
    gives(gather(0), &[f(&[3]), i(&[])], f(&[]));
    refuses(gather(3), &[u(&[2, 3, 4]), i(&[5])], |e| matches!(e, E::Axis { .. }));
    refuses(gather(0), &[u(&[2]), f(&[5])], |e| matches!(e, E::DType { operand: 1, .. }));
    let scatter = |axis, size| Op::ScatterAdd { axis, size };
    gives(scatter(1, 9), &[f(&[2, 5, 6, 4]), i(&[5, 6])], f(&[2, 9, 4]));
    gives(scatter(0, 9), &[f(&[2]), i(&[])], f(&[9, 2]));
    gives(scatter(1, 9), &[f(&[2]), i(&[])], f(&[2, 9]));
    refuses(scatter(2, 9), &[f(&[2]), i(&[])], |e| matches!(e, E::Axis { .. }));
    refuses(scatter(u32::MAX, 9), &[f(&[2]), i(&[1])], |e| matches!(e, E::Axis { .. }));
    refuses(scatter(0, 9), &[f(&[2]), i(&[3])], |e| matches!(e, E::Extent { .. }));
    refuses(scatter(0, 0), &[f(&[2]), i(&[2])], |e| *e == E::Zero { field: "size" });
    refuses(scatter(0, 9), &[i(&[2]), i(&[2])], |e| matches!(e, E::DType { operand: 0, .. }));
    gives(Op::OneHot { depth: 7 }, &[i(&[2, 3])], f(&[2, 3, 7]));
    refuses(Op::OneHot { depth: 0 }, &[i(&[2])], |e| *e == E::Zero { field: "depth" });
    refuses(Op::OneHot { depth: 7 }, &[f(&[2])], |e| matches!(e, E::DType { .. }));
}
