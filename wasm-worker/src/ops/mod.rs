//! One kernel per op of the graph language, one family per file.
//!
//! Operands arrive by value: a kernel that can write in place takes the buffer
//! of an operand that nobody else holds. Types and shapes were inferred when
//! the graph was validated, so kernels assert them instead of returning errors.

pub(crate) mod broadcast;
mod cast;
mod conv;
pub(crate) mod elementwise;
mod index;
mod layout;
pub(crate) mod loops;
mod matmul;
mod pool;
mod random;
mod reduce;
mod softmax;

use crate::gemm::{self, Finish};
use crate::tensor::{Tensor, dims_of};
use raven_graph::{DType, Op, TensorType};

/// What an op may read besides its operands.
#[derive(Clone, Copy, Debug)]
pub struct RunContext {
    /// Key of the random nodes.
    pub seed: u64,
    /// Micro-batch or step, part of the random counter.
    pub run: u32,
}

/// The operands of one node, handed out in order.
#[derive(Debug)]
pub struct Operands<'a>(std::vec::Drain<'a, Tensor>);

impl<'a> Operands<'a> {
    /// Takes the operands of a node in the order that its op documents, out of a list that serves
    /// the next node.
    pub fn new(tensors: &'a mut Vec<Tensor>) -> Self {
        Operands(tensors.drain(..))
    }

    fn next(&mut self) -> Tensor {
        self.0.next().expect("validation has counted the operands")
    }

    fn rest(&self) -> &[Tensor] {
        self.0.as_slice()
    }
}

/// Runs one op. `out` is the inferred type of its result.
///
/// # Panics
/// Where operands do not have the types that validation saw, and on
/// [`Op::Input`], which is bound and never run.
pub fn apply(op: &Op, mut operands: Operands<'_>, out: &TensorType, context: RunContext) -> Tensor {
    let dims = dims_of(&out.shape);
    match op {
        Op::Input { .. } => unreachable!("inputs are bound before a graph runs"),
        Op::Constant { dtype, value, .. } => constant(*dtype, &dims, *value),
        Op::Random { distribution, stream, .. } => {
            random::random(*distribution, &dims, *stream, context)
        }
        Op::Unary { function } => elementwise::unary(*function, operands.next()),
        Op::Binary { function } => {
            elementwise::binary(*function, operands.next(), operands.next(), &dims)
        }
        Op::Compare { function } => {
            elementwise::compare(*function, operands.next(), operands.next(), &dims)
        }
        Op::Select => elementwise::select(operands.next(), operands.next(), operands.next(), &dims),
        Op::Cast { dtype } => cast::cast(operands.next(), *dtype),
        Op::Reduce { function, axes, .. } => {
            reduce::reduce(*function, &operands.next(), axes, &dims)
        }
        Op::ArgMax { axis } => reduce::arg_max(&operands.next(), *axis as usize, &dims),
        Op::Softmax { axis } => softmax::softmax(operands.next(), *axis as usize),
        Op::LogSoftmax { axis } => softmax::log_softmax(operands.next(), *axis as usize),
        Op::CrossEntropy => softmax::cross_entropy(&operands.next(), &operands.next()),
        Op::CrossEntropyGrad => {
            softmax::cross_entropy_grad(operands.next(), &operands.next(), &operands.next())
        }
        Op::MatMul { .. } | Op::Conv2d(_) => product(op, operands.rest(), out, &mut |_, _| {}),
        Op::Conv2dInputGrad { attrs, .. } => {
            conv::input_grad(attrs, &operands.next(), &operands.next(), &dims)
        }
        Op::Conv2dWeightGrad { attrs, .. } => {
            conv::weight_grad(attrs, &operands.next(), &operands.next(), &dims)
        }
        Op::MaxPool2d(attrs) => pool::max(attrs, &operands.next(), &dims),
        Op::MaxPool2dGrad(attrs) => pool::max_grad(attrs, &operands.next(), &operands.next()),
        Op::AvgPool2d(attrs) => pool::average(attrs, &operands.next(), &dims),
        Op::AvgPool2dGrad { attrs, .. } => pool::average_grad(attrs, &operands.next(), &dims),
        Op::Broadcast { .. } => layout::broadcast(operands.next(), &dims),
        Op::Reshape { .. } => operands.next().reshaped(&dims),
        Op::Permute { axes } => layout::permute(operands.next(), axes, &dims),
        Op::Slice { starts, .. } => layout::slice(operands.next(), starts, &dims),
        Op::Pad { low, value, .. } => layout::pad(&operands.next(), low, *value, &dims),
        Op::Concat { axis } => layout::concat(operands.rest(), *axis as usize, &dims),
        Op::Gather { axis } => {
            index::gather(&operands.next(), &operands.next(), *axis as usize, &dims)
        }
        Op::ScatterAdd { axis, .. } => {
            index::scatter_add(&operands.next(), &operands.next(), *axis as usize, &dims)
        }
        Op::OneHot { depth } => index::one_hot(&operands.next(), *depth as usize, &dims),
    }
}

/// Runs a matrix product or a convolution and hands its elements to `finish`, each once.
///
/// # Panics
/// As [`apply`], and on any other op.
pub fn product(op: &Op, operands: &[Tensor], out: &TensorType, finish: &mut Finish<'_>) -> Tensor {
    let dims = dims_of(&out.shape);
    let [lhs, rhs] = operands else { unreachable!("a product has two operands") };
    match op {
        Op::MatMul { transpose_lhs, transpose_rhs } => {
            matmul::matmul(lhs, *transpose_lhs, rhs, *transpose_rhs, &dims, finish)
        }
        Op::Conv2d(attrs) => conv::forward(attrs, lhs, rhs, &dims, finish),
        _ => unreachable!("no other op is computed in blocks"),
    }
}

/// Whether [`passing_product`] can run an op.
pub fn can_pass(op: &Op, operands: &[&TensorType]) -> bool {
    let Op::MatMul { transpose_lhs, transpose_rhs } = op else { return false };
    let [lhs, rhs] = [operands[0], operands[1]].map(|ty| dims_of(&ty.shape));
    matmul::can_pass(&lhs, *transpose_lhs, &rhs, *transpose_rhs)
}

/// The same as [`product`], but for `finish` nobody sees the elements.
///
/// # Panics
/// As [`product`], and where [`can_pass`] is false.
pub fn passing_product(op: &Op, operands: &[Tensor], finish: &mut Finish<'_>) {
    let (Op::MatMul { transpose_lhs, transpose_rhs }, [lhs, rhs]) = (op, operands) else {
        unreachable!("no other op can pass")
    };
    matmul::passing(lhs, *transpose_lhs, rhs, *transpose_rhs, finish);
}

/// A tensor filled with a number that its element type can hold exactly.
fn constant(dtype: DType, dims: &[usize], value: f32) -> Tensor {
    match dtype {
        DType::F32 => Tensor::filled(dims, value),
        DType::I32 => Tensor::filled(dims, value as i32),
        DType::U8 => Tensor::filled(dims, value as u8),
        DType::Bool => Tensor::filled(dims, value != 0.0),
    }
}

/// Bytes that an op needs beyond its operands and its result, at most.
pub fn scratch_bytes(op: &Op, operands: &[&TensorType], out: &TensorType) -> u64 {
    match op {
        Op::MatMul { .. } => gemm::PACK_BYTES_MAX,
        Op::Conv2d(_) | Op::Conv2dInputGrad { .. } | Op::Conv2dWeightGrad { .. } => {
            conv::scratch_bytes(op, operands, out)
        }
        Op::Reduce { axes, .. } => reduce::scratch_bytes(&dims_of(&operands[0].shape), axes),
        Op::Softmax { axis } | Op::LogSoftmax { axis } => {
            softmax::scratch_bytes(&dims_of(&out.shape), *axis as usize)
        }
        _ => 0,
    }
}
