//! The closed set of tensor operations. Nothing else ever reaches a kernel.
//!
//! Layouts are row-major; images are NCHW and convolution weights OIHW.
//! [`crate::infer`] holds the shape rule of every op, [`crate::gradient`] its
//! derivative and [`crate::cost`] its price; `OPS.md` is the table for readers.

use crate::dtype::{DType, Shape};
use serde::{Deserialize, Serialize};

/// Functions of one number, applied to each element (f32 to f32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnaryFn {
    Neg,
    Abs,
    /// -1, 0 or 1.
    Sign,
    Exp,
    Log,
    Sqrt,
    /// `1 / x`.
    Recip,
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `max(x, 0)`; its derivative at 0 is 0.
    Relu,
    Floor,
}

/// Functions of two numbers with NumPy broadcasting (both f32 or both i32; `Pow` and `Div` f32 only).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BinaryFn {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    Pow,
}

/// Comparisons with NumPy broadcasting; the result is `Bool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompareFn {
    Eq,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Reductions over a set of axes (f32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReduceFn {
    Sum,
    Mean,
    Max,
    Min,
}

/// Distributions of [`Op::Random`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Uniform in [0, 1), 24 bits of resolution.
    Uniform,
    /// Standard normal by Box-Muller over two uniforms.
    Normal,
}

/// Geometry of a two-dimensional convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2dAttrs {
    /// Step in rows and columns, each at least 1.
    pub stride: [u32; 2],
    /// Zeros added before the first and after the last row and column: `[top, bottom, left, right]`.
    pub padding: [u32; 4],
    /// Distance between kernel taps, each at least 1.
    pub dilation: [u32; 2],
    /// Input and output channels are split into this many independent groups.
    pub groups: u32,
}

/// Geometry of two-dimensional pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool2dAttrs {
    /// Rows and columns of the window.
    pub kernel: [u32; 2],
    /// Step in rows and columns, each at least 1.
    pub stride: [u32; 2],
    /// `[top, bottom, left, right]`; max pooling pads with -inf, average pooling
    /// with zeros that count in the mean.
    pub padding: [u32; 4],
}

/// One operation. Operand order is the order in [`crate::Node::inputs`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// A named operand bound by the task: `() -> dtype[shape]`.
    Input { name: String, dtype: DType, shape: Shape },
    /// A tensor filled with one finite number: `() -> dtype[shape]`.
    Constant { dtype: DType, shape: Shape, value: f32 },
    /// `(x f32[s]) -> f32[s]`.
    Unary { function: UnaryFn },
    /// `(a, b) -> broadcast(a, b)`.
    Binary { function: BinaryFn },
    /// `(a, b) -> bool[broadcast(a, b)]`, operands f32 or i32.
    Compare { function: CompareFn },
    /// `(condition bool, a, b) -> a where condition, else b`; all three broadcast.
    Select,
    /// `(x) -> dtype[s]`; f32 to integers truncates towards zero and saturates, NaN becomes 0; anything to bool is `x != 0`.
    Cast { dtype: DType },
    /// `(x[s]) -> x[shape]` by NumPy's rule.
    Broadcast { shape: Shape },
    /// `(x f32[s]) -> f32` over `axes` (sorted, unique); kept as extent 1 with `keep_dims`.
    Reduce { function: ReduceFn, axes: Vec<u32>, keep_dims: bool },
    /// `(x f32[s]) -> i32` index of the first maximum along `axis`, which is removed.
    ArgMax { axis: u32 },
    /// `(a f32[.., m, k], b f32[.., k, n]) -> f32[.., m, n]`, either operand stored transposed; leading axes broadcast.
    #[serde(rename = "matmul")]
    MatMul { transpose_lhs: bool, transpose_rhs: bool },
    /// `(x f32[n, c, h, w], weight f32[o, c / groups, kh, kw]) -> f32[n, o, oh, ow]`.
    Conv2d(Conv2dAttrs),
    /// `(weight f32[o, c / groups, kh, kw], dy f32[n, o, oh, ow]) -> f32[n, c, h, w]`, with `input = [h, w]`.
    Conv2dInputGrad { attrs: Conv2dAttrs, input: [u32; 2] },
    /// `(x f32[n, c, h, w], dy f32[n, o, oh, ow]) -> f32[o, c / groups, kh, kw]`, with `kernel = [kh, kw]`.
    Conv2dWeightGrad { attrs: Conv2dAttrs, kernel: [u32; 2] },
    /// `(x f32[n, c, h, w]) -> f32[n, c, oh, ow]`.
    MaxPool2d(Pool2dAttrs),
    /// `(x f32[n, c, h, w], dy f32[n, c, oh, ow]) -> f32[n, c, h, w]`; ties go to the first maximum in row-major order.
    MaxPool2dGrad(Pool2dAttrs),
    /// `(x f32[n, c, h, w]) -> f32[n, c, oh, ow]`.
    AvgPool2d(Pool2dAttrs),
    /// `(dy f32[n, c, oh, ow]) -> f32[n, c, h, w]`, with `input = [h, w]`.
    AvgPool2dGrad { attrs: Pool2dAttrs, input: [u32; 2] },
    /// `(x[s]) -> x[shape]`, same number of elements.
    Reshape { shape: Shape },
    /// `(x[s]) -> x[s[axes[0]], s[axes[1]], ..]`.
    Permute { axes: Vec<u32> },
    /// `(x[s]) -> x[ends - starts]`, half-open per axis.
    Slice { starts: Vec<u32>, ends: Vec<u32> },
    /// `(x f32[s]) -> f32[low + s + high]`, filled with `value`.
    Pad { low: Vec<u32>, high: Vec<u32>, value: f32 },
    /// `(x0, x1, ..) -> ` joined along `axis`; one operand or more.
    Concat { axis: u32 },
    /// `(x[s], index i32[t]) -> x[s[..axis], t.., s[axis + 1..]]`; an index out of range yields zeros.
    Gather { axis: u32 },
    /// `(updates f32[u], index i32[t]) -> f32`: the adjoint of [`Op::Gather`], with extent `size` at `axis`;
    /// added in index order, an index out of range is dropped.
    ScatterAdd { axis: u32, size: u32 },
    /// `(index i32[s]) -> f32[s.., depth]`; an index out of range yields zeros.
    OneHot { depth: u32 },
    /// `(x f32[s]) -> f32[s]` along `axis`.
    Softmax { axis: u32 },
    /// `(x f32[s]) -> f32[s]` along `axis`.
    LogSoftmax { axis: u32 },
    /// `(logits f32[b, c], labels i32[b]) -> f32[b]`, one loss per row; a label out of range yields 0 and no gradient.
    CrossEntropy,
    /// `(logits f32[b, c], labels i32[b], dloss f32[b]) -> f32[b, c]`.
    CrossEntropyGrad,
    /// `() -> f32[shape]` from Philox 4x32-10, keyed by the task's seed, its micro-batch index and `stream`
    /// (see [`crate::philox`]). Two nodes with one stream and shape are the same tensor.
    Random { distribution: Distribution, shape: Shape, stream: u32 },
}

impl Op {
    /// The name used in JSON and in errors.
    pub const fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Constant { .. } => "constant",
            Op::Unary { .. } => "unary",
            Op::Binary { .. } => "binary",
            Op::Compare { .. } => "compare",
            Op::Select => "select",
            Op::Cast { .. } => "cast",
            Op::Broadcast { .. } => "broadcast",
            Op::Reduce { .. } => "reduce",
            Op::ArgMax { .. } => "arg_max",
            Op::MatMul { .. } => "matmul",
            Op::Conv2d(_) => "conv2d",
            Op::Conv2dInputGrad { .. } => "conv2d_input_grad",
            Op::Conv2dWeightGrad { .. } => "conv2d_weight_grad",
            Op::MaxPool2d(_) => "max_pool2d",
            Op::MaxPool2dGrad(_) => "max_pool2d_grad",
            Op::AvgPool2d(_) => "avg_pool2d",
            Op::AvgPool2dGrad { .. } => "avg_pool2d_grad",
            Op::Reshape { .. } => "reshape",
            Op::Permute { .. } => "permute",
            Op::Slice { .. } => "slice",
            Op::Pad { .. } => "pad",
            Op::Concat { .. } => "concat",
            Op::Gather { .. } => "gather",
            Op::ScatterAdd { .. } => "scatter_add",
            Op::OneHot { .. } => "one_hot",
            Op::Softmax { .. } => "softmax",
            Op::LogSoftmax { .. } => "log_softmax",
            Op::CrossEntropy => "cross_entropy",
            Op::CrossEntropyGrad => "cross_entropy_grad",
            Op::Random { .. } => "random",
        }
    }
}
