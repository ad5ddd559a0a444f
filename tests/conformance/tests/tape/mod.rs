//! Runs the forward part of a graph on burn's autodiff and takes the gradients
//! that burn finds: an oracle that shares nothing with ours but the meaning of
//! the ops.

mod image;

use crate::support::{Bindings, Data, Draw, Tensor, run_all};
use burn_autodiff::Autodiff;
use burn_backend::backend::AutodiffBackend;
use burn_backend::ops::{ActivationOps, FloatTensorOps};
use burn_backend::tensor::{BoolTensor, FloatTensor, IndexingUpdateOp, IntTensor};
use burn_std::Slice;
use burn_std::ops::PadMode;
use raven_graph::{BinaryFn, CompareFn, DType, NodeId, Op, ReduceFn, UnaryFn, ValidGraph};
use raven_worker::backend::Cpu;
use std::collections::BTreeMap;

type B = Autodiff<Cpu>;
type F = FloatTensor<B>;

/// The loss and the gradient of each input named in `wrt`, in f32.
pub fn gradients(
    forward: &ValidGraph,
    bindings: &Bindings,
    draw: Draw,
    wrt: &[&str],
) -> BTreeMap<String, Tensor> {
    let mut tape = Tape {
        graph: forward,
        reference: run_all(forward, bindings, draw),
        values: vec![None; forward.graph().nodes.len()],
    };
    for (index, node) in forward.graph().nodes.iter().enumerate() {
        let id = NodeId(index as u32);
        if forward.ty(id).dtype != DType::F32 {
            continue;
        }
        let value = tape.apply(id, &node.op, &node.inputs);
        let tracked = matches!(&node.op, Op::Input { name, .. } if wrt.contains(&name.as_str()));
        tape.values[index] =
            Some(if tracked { B::float_set_require_grad(value, true) } else { value });
    }
    let loss = tape.float(forward.outputs()[0].node);
    let mut found = BTreeMap::from([("loss".to_owned(), read(B::inner(loss.clone()), &[]))]);
    let gradients = B::backward(loss);
    for name in wrt {
        let input = forward.input(name).expect("an input of that name");
        let dims = crate::support::dims(&input.ty.shape);
        let gradient = B::grad(&tape.float(input.node), &gradients);
        let zeros = || Tensor::f(&dims, vec![0.0; dims.iter().product()]);
        found.insert((*name).to_owned(), gradient.map_or_else(zeros, |g| read(g, &dims)));
    }
    found
}

/// A float tensor of burn's as one of the reference.
fn read(tensor: FloatTensor<Cpu>, dims: &[usize]) -> Tensor {
    let tensor = raven_worker::Tensor::from_burn(tensor);
    let elements = tensor.elements::<f32>().iter().map(|&v| f64::from(v)).collect();
    Tensor::f(dims, elements)
}

struct Tape<'a> {
    graph: &'a ValidGraph,
    /// Every node's value, for what carries no gradient.
    reference: Vec<Tensor>,
    values: Vec<Option<F>>,
}

/// Burn has no rank 0: a number is one element.
fn burn_dims(dims: &[usize]) -> Vec<usize> {
    if dims.is_empty() { vec![1] } else { dims.to_vec() }
}

fn constant(tensor: &Tensor) -> F {
    let elements: Vec<f32> = tensor.floats().iter().map(|&v| v as f32).collect();
    B::from_inner(raven_worker::Tensor::new(&burn_dims(&tensor.dims), elements).into_burn())
}

fn reshape(x: F, dims: &[usize]) -> F {
    B::float_reshape(x, burn_dims(dims).into())
}

/// NumPy broadcasting from one shape to another.
fn expand(x: F, from: &[usize], to: &[usize]) -> F {
    let to = burn_dims(to);
    let aligned = [vec![1; to.len() - from.len()], from.to_vec()].concat();
    B::float_expand(reshape(x, &aligned), to.into())
}

impl Tape<'_> {
    fn dims(&self, node: NodeId) -> &[usize] {
        &self.reference[node.index()].dims
    }

    fn float(&self, node: NodeId) -> F {
        self.values[node.index()].clone().expect("a float node before its user")
    }

    /// A float operand broadcast to the dims of `like`.
    fn wide(&self, operand: NodeId, like: NodeId) -> F {
        expand(self.float(operand), self.dims(operand), self.dims(like))
    }

    fn integers(&self, node: NodeId) -> Vec<i32> {
        self.reference[node.index()].integers().iter().map(|&v| v as i32).collect()
    }

    /// A condition broadcast to the dims of `like`.
    fn mask(&self, condition: &Tensor, like: NodeId) -> BoolTensor<B> {
        let wide = condition.pick(self.dims(like).to_vec(), |at| condition.at(at));
        let Data::I(flags) = wide.data else { panic!("a condition is not a float") };
        let flags: Vec<bool> = flags.iter().map(|&flag| flag != 0).collect();
        raven_worker::Tensor::new(&burn_dims(&wide.dims), flags).into_burn()
    }

    fn apply(&self, id: NodeId, op: &Op, x: &[NodeId]) -> F {
        match op {
            Op::Input { .. } | Op::Constant { .. } | Op::Random { .. } | Op::OneHot { .. } => {
                constant(&self.reference[id.index()])
            }
            Op::Unary { function } => unary(*function, self.float(x[0])),
            Op::Binary { function } => self.binary(*function, x, id),
            Op::Select => {
                let mask = self.mask(&self.reference[x[0].index()], id);
                B::float_mask_where(self.wide(x[2], id), mask, self.wide(x[1], id))
            }
            Op::Cast { .. } if self.graph.ty(x[0]).dtype == DType::F32 => self.float(x[0]),
            Op::Cast { .. } => constant(&self.reference[id.index()]),
            Op::Broadcast { .. } => self.wide(x[0], id),
            Op::Reduce { function, axes, .. } => {
                let reduced = axes.iter().fold(self.float(x[0]), |v, &axis| match function {
                    ReduceFn::Sum => B::float_sum_dim(v, axis as usize),
                    ReduceFn::Mean => B::float_mean_dim(v, axis as usize),
                    ReduceFn::Max => B::float_max_dim(v, axis as usize),
                    ReduceFn::Min => B::float_min_dim(v, axis as usize),
                });
                reshape(reduced, self.dims(id))
            }
            Op::MatMul { transpose_lhs, transpose_rhs } => {
                let lhs = self.matrix(x[0], *transpose_lhs, id);
                B::float_matmul(lhs, self.matrix(x[1], *transpose_rhs, id))
            }
            Op::Softmax { axis } => B::softmax(self.float(x[0]), *axis as usize),
            Op::LogSoftmax { axis } => B::log_softmax(self.float(x[0]), *axis as usize),
            Op::CrossEntropy => self.cross_entropy(x),
            Op::CrossEntropyGrad => self.cross_entropy_grad(x, id),
            Op::Conv2d(_)
            | Op::Conv2dInputGrad { .. }
            | Op::Conv2dWeightGrad { .. }
            | Op::MaxPool2d(_)
            | Op::AvgPool2d(_)
            | Op::AvgPool2dGrad { .. } => image::apply(op, &self.operands(x), self.dims(id)),
            _ => self.moved(id, op, x),
        }
    }

    fn operands(&self, x: &[NodeId]) -> Vec<(F, Vec<usize>)> {
        x.iter().map(|&operand| (self.float(operand), self.dims(operand).to_vec())).collect()
    }

    fn binary(&self, function: BinaryFn, x: &[NodeId], id: NodeId) -> F {
        let (lhs, rhs) = (self.wide(x[0], id), self.wide(x[1], id));
        match function {
            BinaryFn::Add => B::float_add(lhs, rhs),
            BinaryFn::Sub => B::float_sub(lhs, rhs),
            BinaryFn::Mul => B::float_mul(lhs, rhs),
            BinaryFn::Div => B::float_div(lhs, rhs),
            BinaryFn::Pow => B::float_powf(lhs, rhs),
            BinaryFn::Max => B::float_mask_where(rhs, self.order(x, id, CompareFn::Ge), lhs),
            BinaryFn::Min => B::float_mask_where(rhs, self.order(x, id, CompareFn::Le), lhs),
        }
    }

    /// Where the first operand compares so with the second.
    fn order(&self, x: &[NodeId], id: NodeId, by: CompareFn) -> BoolTensor<B> {
        let operands = [0, 1].map(|place: usize| &self.reference[x[place].index()]);
        let draw = Draw::default();
        let op = Op::Compare { function: by };
        let flags = crate::support::ops::run(&op, &operands, &Bindings::new(), draw);
        self.mask(&flags, id)
    }

    /// An operand of a matrix product with the leading axes of the result.
    fn matrix(&self, operand: NodeId, transposed: bool, result: NodeId) -> F {
        let dims = self.dims(operand);
        let lead = &self.dims(result)[..self.dims(result).len() - 2];
        let wide = [lead, &dims[dims.len() - 2..]].concat();
        let x = expand(self.float(operand), dims, &wide);
        if transposed { B::float_swap_dims(x, wide.len() - 2, wide.len() - 1) } else { x }
    }

    /// Labels are in range here.
    fn cross_entropy(&self, x: &[NodeId]) -> F {
        let rows = self.dims(x[0])[0];
        let labels = raven_worker::Tensor::new(&[rows, 1], self.integers(x[1])).into_burn();
        let log = B::log_softmax(self.float(x[0]), 1);
        reshape(B::float_neg(B::float_gather(1, log, labels)), &[rows])
    }

    /// The soft-max less one at the label, times the gradient of the row's loss.
    fn cross_entropy_grad(&self, x: &[NodeId], id: NodeId) -> F {
        let dims = self.dims(id);
        let hits = self.integers(x[1]).into_iter().flat_map(|label| {
            (0..dims[1] as i32).map(move |class| if class == label { 1.0 } else { 0.0 })
        });
        let hits = constant(&Tensor::f(dims, hits.collect()));
        let rows = expand(self.float(x[2]), &[dims[0], 1], dims);
        B::float_mul(B::float_sub(B::softmax(self.float(x[0]), 1), hits), rows)
    }

    fn moved(&self, id: NodeId, op: &Op, x: &[NodeId]) -> F {
        match op {
            Op::Reshape { .. } => reshape(self.float(x[0]), self.dims(id)),
            Op::Permute { axes } => {
                let axes: Vec<usize> = axes.iter().map(|&axis| axis as usize).collect();
                B::float_permute(self.float(x[0]), &axes)
            }
            Op::Slice { starts, ends } => {
                let ranges: Vec<Slice> = starts
                    .iter()
                    .zip(ends)
                    .map(|(&s, &e)| (s as usize..e as usize).into())
                    .collect();
                B::float_slice(self.float(x[0]), &ranges)
            }
            Op::Pad { low, high, value } => {
                let sides: Vec<(usize, usize)> =
                    low.iter().zip(high).map(|(&l, &h)| (l as usize, h as usize)).collect();
                B::float_pad(self.float(x[0]), &sides, PadMode::Constant(*value))
            }
            Op::Concat { axis } => {
                B::float_cat(x.iter().map(|&part| self.float(part)).collect(), *axis as usize)
            }
            Op::Gather { axis } => {
                let index = self.index(x[1]);
                reshape(B::float_select(self.float(x[0]), *axis as usize, index), self.dims(id))
            }
            Op::ScatterAdd { axis, .. } => {
                let axis = *axis as usize;
                let dims = self.dims(id);
                let zeros = constant(&Tensor::f(dims, vec![0.0; dims.iter().product()]));
                let mut flat = dims.to_vec();
                flat[axis] = self.dims(x[1]).iter().product();
                let updates = reshape(self.float(x[0]), &flat);
                let add = IndexingUpdateOp::Add;
                B::float_select_assign(zeros, axis, self.index(x[1]), updates, add)
            }
            other => panic!("{other:?} is not in a forward graph"),
        }
    }

    /// An index of any rank in one axis; all entries are in range here.
    fn index(&self, node: NodeId) -> IntTensor<B> {
        let entries = self.integers(node);
        raven_worker::Tensor::new(&[entries.len()], entries).into_burn()
    }
}

fn unary(function: UnaryFn, x: F) -> F {
    match function {
        UnaryFn::Neg => B::float_neg(x),
        UnaryFn::Abs => B::float_abs(x),
        UnaryFn::Sign => B::float_sign(x),
        UnaryFn::Exp => B::float_exp(x),
        UnaryFn::Log => B::float_log(x),
        UnaryFn::Sqrt => B::float_sqrt(x),
        UnaryFn::Recip => B::float_recip(x),
        UnaryFn::Tanh => B::float_tanh(x),
        UnaryFn::Sigmoid => B::sigmoid(x),
        UnaryFn::Relu => B::relu(x),
        UnaryFn::Floor => B::float_floor(x),
    }
}
