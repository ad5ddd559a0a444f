//! One tag per op, then its attributes in the order of declaration.

use super::{Reader, Writer};
use crate::error::GraphError;
use crate::op::{
    BinaryFn, CompareFn, Conv2dAttrs, Distribution, Op, Pool2dAttrs, ReduceFn, UnaryFn,
};

/// Functions in the order of their numbers; an entry is never moved or reused.
const UNARY: [UnaryFn; 11] = [
    UnaryFn::Neg,
    UnaryFn::Abs,
    UnaryFn::Sign,
    UnaryFn::Exp,
    UnaryFn::Log,
    UnaryFn::Sqrt,
    UnaryFn::Recip,
    UnaryFn::Tanh,
    UnaryFn::Sigmoid,
    UnaryFn::Relu,
    UnaryFn::Floor,
];
const BINARY: [BinaryFn; 7] = [
    BinaryFn::Add,
    BinaryFn::Sub,
    BinaryFn::Mul,
    BinaryFn::Div,
    BinaryFn::Max,
    BinaryFn::Min,
    BinaryFn::Pow,
];
const COMPARE: [CompareFn; 5] =
    [CompareFn::Eq, CompareFn::Lt, CompareFn::Le, CompareFn::Gt, CompareFn::Ge];
const REDUCE: [ReduceFn; 4] = [ReduceFn::Sum, ReduceFn::Mean, ReduceFn::Max, ReduceFn::Min];
const DISTRIBUTION: [Distribution; 2] = [Distribution::Uniform, Distribution::Normal];

/// The first byte of an op. A number is never reused.
const fn tag(op: &Op) -> u8 {
    match op {
        Op::Input { .. } => 0,
        Op::Constant { .. } => 1,
        Op::Unary { .. } => 2,
        Op::Binary { .. } => 3,
        Op::Compare { .. } => 4,
        Op::Select => 5,
        Op::Cast { .. } => 6,
        Op::Broadcast { .. } => 7,
        Op::Reduce { .. } => 8,
        Op::ArgMax { .. } => 9,
        Op::MatMul { .. } => 10,
        Op::Conv2d(_) => 11,
        Op::Conv2dInputGrad { .. } => 12,
        Op::Conv2dWeightGrad { .. } => 13,
        Op::MaxPool2d(_) => 14,
        Op::MaxPool2dGrad(_) => 15,
        Op::AvgPool2d(_) => 16,
        Op::AvgPool2dGrad { .. } => 17,
        Op::Reshape { .. } => 18,
        Op::Permute { .. } => 19,
        Op::Slice { .. } => 20,
        Op::Pad { .. } => 21,
        Op::Concat { .. } => 22,
        Op::Gather { .. } => 23,
        Op::ScatterAdd { .. } => 24,
        Op::OneHot { .. } => 25,
        Op::Softmax { .. } => 26,
        Op::LogSoftmax { .. } => 27,
        Op::CrossEntropy => 28,
        Op::CrossEntropyGrad => 29,
        Op::Random { .. } => 30,
    }
}

/// The place of a function in its table.
fn number<F: PartialEq>(table: &[F], function: &F) -> u8 {
    let place = table.iter().position(|entry| entry == function);
    place.expect("every function has its place in the table") as u8
}

fn function<F: Copy>(reader: &mut Reader<'_>, table: &[F]) -> Result<F, GraphError> {
    let number = usize::from(reader.u8()?);
    table.get(number).copied().ok_or_else(|| reader.refuse("unknown function"))
}

pub(super) fn write(w: &mut Writer, op: &Op) {
    w.u8(tag(op));
    match op {
        Op::Input { name, dtype, shape } => {
            w.text(name);
            w.dtype(*dtype);
            w.list(shape.dims());
        }
        Op::Constant { dtype, shape, value } => {
            w.dtype(*dtype);
            w.list(shape.dims());
            w.f32(*value);
        }
        Op::Unary { function } => w.u8(number(&UNARY, function)),
        Op::Binary { function } => w.u8(number(&BINARY, function)),
        Op::Compare { function } => w.u8(number(&COMPARE, function)),
        Op::Select | Op::CrossEntropy | Op::CrossEntropyGrad => {}
        Op::Cast { dtype } => w.dtype(*dtype),
        Op::Broadcast { shape } | Op::Reshape { shape } => w.list(shape.dims()),
        Op::Reduce { function, axes, keep_dims } => {
            w.u8(number(&REDUCE, function));
            w.list(axes);
            w.u8((*keep_dims).into());
        }
        Op::ArgMax { axis: n }
        | Op::Concat { axis: n }
        | Op::Gather { axis: n }
        | Op::OneHot { depth: n }
        | Op::Softmax { axis: n }
        | Op::LogSoftmax { axis: n } => w.u32(*n),
        Op::MatMul { transpose_lhs, transpose_rhs } => {
            w.u8((*transpose_lhs).into());
            w.u8((*transpose_rhs).into());
        }
        Op::Conv2d(attrs) => write_conv(w, attrs),
        Op::Conv2dInputGrad { attrs, input: pair }
        | Op::Conv2dWeightGrad { attrs, kernel: pair } => {
            write_conv(w, attrs);
            w.fixed(pair);
        }
        Op::MaxPool2d(attrs) | Op::MaxPool2dGrad(attrs) | Op::AvgPool2d(attrs) => {
            write_pool(w, attrs);
        }
        Op::AvgPool2dGrad { attrs, input } => {
            write_pool(w, attrs);
            w.fixed(input);
        }
        Op::Permute { axes } => w.list(axes),
        Op::Slice { starts, ends } => {
            w.list(starts);
            w.list(ends);
        }
        Op::Pad { low, high, value } => {
            w.list(low);
            w.list(high);
            w.f32(*value);
        }
        Op::ScatterAdd { axis, size } => w.fixed(&[*axis, *size]),
        Op::Random { distribution, shape, stream } => {
            w.u8(number(&DISTRIBUTION, distribution));
            w.list(shape.dims());
            w.u32(*stream);
        }
    }
}

fn write_conv(w: &mut Writer, attrs: &Conv2dAttrs) {
    w.fixed(&attrs.stride);
    w.fixed(&attrs.padding);
    w.fixed(&attrs.dilation);
    w.u32(attrs.groups);
}

fn write_pool(w: &mut Writer, attrs: &Pool2dAttrs) {
    w.fixed(&attrs.kernel);
    w.fixed(&attrs.stride);
    w.fixed(&attrs.padding);
}

// Struct fields are evaluated in the order written, which is the order of the
// bytes.
pub(super) fn read(r: &mut Reader<'_>) -> Result<Op, GraphError> {
    Ok(match r.u8()? {
        0 => Op::Input { name: r.text("input")?, dtype: r.dtype()?, shape: r.shape()? },
        1 => Op::Constant { dtype: r.dtype()?, shape: r.shape()?, value: r.f32()? },
        2 => Op::Unary { function: function(r, &UNARY)? },
        3 => Op::Binary { function: function(r, &BINARY)? },
        4 => Op::Compare { function: function(r, &COMPARE)? },
        5 => Op::Select,
        6 => Op::Cast { dtype: r.dtype()? },
        7 => Op::Broadcast { shape: r.shape()? },
        8 => {
            let function = function(r, &REDUCE)?;
            Op::Reduce { function, axes: r.list()?, keep_dims: r.flag()? }
        }
        9 => Op::ArgMax { axis: r.u32()? },
        10 => Op::MatMul { transpose_lhs: r.flag()?, transpose_rhs: r.flag()? },
        11 => Op::Conv2d(read_conv(r)?),
        12 => Op::Conv2dInputGrad { attrs: read_conv(r)?, input: r.fixed()? },
        13 => Op::Conv2dWeightGrad { attrs: read_conv(r)?, kernel: r.fixed()? },
        14 => Op::MaxPool2d(read_pool(r)?),
        15 => Op::MaxPool2dGrad(read_pool(r)?),
        16 => Op::AvgPool2d(read_pool(r)?),
        17 => Op::AvgPool2dGrad { attrs: read_pool(r)?, input: r.fixed()? },
        18 => Op::Reshape { shape: r.shape()? },
        19 => Op::Permute { axes: r.list()? },
        20 => Op::Slice { starts: r.list()?, ends: r.list()? },
        21 => Op::Pad { low: r.list()?, high: r.list()?, value: r.f32()? },
        22 => Op::Concat { axis: r.u32()? },
        23 => Op::Gather { axis: r.u32()? },
        24 => Op::ScatterAdd { axis: r.u32()?, size: r.u32()? },
        25 => Op::OneHot { depth: r.u32()? },
        26 => Op::Softmax { axis: r.u32()? },
        27 => Op::LogSoftmax { axis: r.u32()? },
        28 => Op::CrossEntropy,
        29 => Op::CrossEntropyGrad,
        30 => {
            let distribution = function(r, &DISTRIBUTION)?;
            Op::Random { distribution, shape: r.shape()?, stream: r.u32()? }
        }
        _ => return Err(r.refuse("unknown op")),
    })
}

fn read_conv(r: &mut Reader<'_>) -> Result<Conv2dAttrs, GraphError> {
    Ok(Conv2dAttrs {
        stride: r.fixed()?,
        padding: r.fixed()?,
        dilation: r.fixed()?,
        groups: r.u32()?,
    })
}

fn read_pool(r: &mut Reader<'_>) -> Result<Pool2dAttrs, GraphError> {
    Ok(Pool2dAttrs { kernel: r.fixed()?, stride: r.fixed()?, padding: r.fixed()? })
}
