//! From ops to launches: one family per file, each with its shaders in `wgsl/`.

mod chain;
pub mod conv;
mod direct;
pub mod fuse;
pub mod gemm;
pub mod index;
pub mod layout;
pub mod pool;
pub mod reduce;
pub mod role;
pub mod softmax;

use crate::shader::{Launch, ValueId, count};
use raven_graph::{DType, Op};
use std::collections::HashSet;
use std::rc::Rc;

/// Values and launches of a plan in the making.
#[derive(Debug, Default)]
pub struct Lower {
    /// Words of each value.
    pub words: Vec<u32>,
    /// In the order in which they run.
    pub launches: Vec<Launch>,
    /// Text of all shaders; launches with the same text share it.
    sources: HashSet<Rc<str>>,
    source_bytes: u64,
    /// Invocations are the lanes of a CPU's vectors, as on software adapters.
    pub lanes: bool,
}

impl Lower {
    /// An empty plan for a device of that kind.
    pub fn new(lanes: bool) -> Self {
        Lower { lanes, ..Lower::default() }
    }

    /// A new value of so many words.
    pub fn value(&mut self, words: u32) -> ValueId {
        self.words.push(words);
        ValueId(self.words.len() as u32 - 1)
    }

    /// Runs `launch` next.
    pub fn push(&mut self, mut launch: Launch) {
        match self.sources.get(&launch.source) {
            Some(known) => launch.source = known.clone(),
            None => {
                self.source_bytes += launch.source.len() as u64;
                self.sources.insert(launch.source.clone());
            }
        }
        self.launches.push(launch);
    }

    /// Bytes of all shaders.
    pub fn source_bytes(&self) -> u64 {
        self.source_bytes
    }
}

/// An operand or a result of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Arg<'a> {
    /// Where its elements are.
    pub value: ValueId,
    /// Extents, outermost first.
    pub dims: &'a [u32],
    /// Element type.
    pub dtype: DType,
}

impl Arg<'_> {
    /// Number of elements.
    pub fn count(&self) -> u32 {
        count(self.dims)
    }
}

/// How the device stores elements: numbers as themselves, bytes and bools as one word each.
pub fn element(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::I32 => "i32",
        DType::U8 | DType::Bool => "u32",
    }
}

/// Lowers an op that is neither element-wise nor a view; those are fused.
///
/// # Panics
/// For any other op: a mistake of the plan.
pub fn kernel(cx: &mut Lower, op: &Op, args: &[Arg<'_>], out: Arg<'_>) {
    match (op, args) {
        (Op::MatMul { transpose_lhs, transpose_rhs }, [a, b]) => {
            gemm::matmul(cx, (*a, *transpose_lhs), (*b, *transpose_rhs), out);
        }
        (Op::Conv2d(attrs), [x, weight]) => conv::forward(cx, attrs, *x, *weight, out),
        (Op::Conv2dInputGrad { attrs, .. }, [weight, dy]) => {
            conv::input_grad(cx, attrs, *weight, *dy, out);
        }
        (Op::Conv2dWeightGrad { attrs, .. }, [x, dy]) => {
            conv::weight_grad(cx, attrs, *x, *dy, out);
        }
        (Op::MaxPool2d(attrs), [x]) => pool::forward(cx, attrs, "max", *x, out),
        (Op::AvgPool2d(attrs), [x]) => pool::forward(cx, attrs, "average", *x, out),
        (Op::MaxPool2dGrad(attrs), [x, dy]) => pool::gradient(cx, attrs, Some(*x), *dy, out),
        (Op::AvgPool2dGrad { attrs, .. }, [dy]) => pool::gradient(cx, attrs, None, *dy, out),
        (Op::Reduce { function, axes, .. }, [x]) => {
            reduce::reduce(cx, *function, *x, axes, out.value);
        }
        (Op::ArgMax { axis }, [x]) => reduce::arg_max(cx, *x, *axis as usize, out),
        (Op::Softmax { axis }, [x]) => softmax::along(cx, "softmax", *x, *axis as usize, out),
        (Op::LogSoftmax { axis }, [x]) => {
            softmax::along(cx, "log_softmax", *x, *axis as usize, out);
        }
        (Op::CrossEntropy, [logits, labels]) => {
            softmax::cross_entropy(cx, *logits, *labels, None, out);
        }
        (Op::CrossEntropyGrad, [logits, labels, scale]) => {
            softmax::cross_entropy(cx, *logits, *labels, Some(*scale), out);
        }
        (Op::Concat { axis }, parts) => layout::concat(cx, parts, *axis as usize, out),
        (Op::Gather { axis }, [x, index]) => {
            index::gather(cx, *x, *index, *axis as usize, out);
        }
        (Op::ScatterAdd { axis, .. }, [updates, index]) => {
            index::scatter_add(cx, *updates, *index, *axis as usize, out);
        }
        _ => unreachable!("{} is fused, or has other operands than validation saw", op.name()),
    }
}
