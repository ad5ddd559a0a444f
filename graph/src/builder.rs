//! Builds graphs node by node; each call infers the new node's type, so a
//! mistake is reported where it is made.

use crate::dtype::{DType, Shape, TensorType};
use crate::error::GraphError;
use crate::limits::Limits;
use crate::op::{
    BinaryFn, CompareFn, Conv2dAttrs, Distribution, Op, Pool2dAttrs, ReduceFn, UnaryFn,
};
use crate::program::{GRAPH_VERSION, Graph, Node, NodeId, Output};
use crate::valid::{ValidGraph, node_type};

/// A graph under construction.
#[derive(Clone, Debug)]
pub struct GraphBuilder {
    nodes: Vec<Node>,
    types: Vec<TensorType>,
    outputs: Vec<Output>,
    limits: Limits,
}

impl GraphBuilder {
    /// Starts an empty graph whose nodes keep to `limits`.
    pub fn new(limits: &Limits) -> Self {
        GraphBuilder {
            nodes: Vec::new(),
            types: Vec::new(),
            outputs: Vec::new(),
            limits: limits.clone(),
        }
    }

    /// Goes on from a finished graph; ids stay what they were.
    pub fn resume(graph: ValidGraph, limits: &Limits) -> Self {
        let types = graph.types().to_vec();
        let Graph { nodes, outputs, .. } = graph.into_graph();
        GraphBuilder { nodes, types, outputs, limits: limits.clone() }
    }

    /// Adds any op.
    ///
    /// # Errors
    /// What the op or the limits refuse, with the id that the node would have.
    pub fn push(&mut self, op: Op, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        if id.0 >= self.limits.nodes_max {
            let found = u64::from(id.0) + 1;
            return Err(GraphError::Nodes { limit: self.limits.nodes_max, found });
        }
        let node = Node { op, inputs: inputs.to_vec() };
        self.types.push(node_type(id, &node, &self.types, &self.limits)?);
        self.nodes.push(node);
        Ok(id)
    }

    /// The type of a node's value.
    ///
    /// # Panics
    /// Where the id is not one of this builder's.
    pub fn ty(&self, node: NodeId) -> &TensorType {
        &self.types[node.index()]
    }

    /// The extents of a node's value.
    pub fn shape(&self, node: NodeId) -> &Shape {
        &self.ty(node).shape
    }

    /// The nodes so far.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Names a result.
    pub fn output(&mut self, name: impl Into<String>, node: NodeId) {
        self.outputs.push(Output { name: name.into(), node });
    }

    /// Ends construction.
    ///
    /// # Errors
    /// What [`Graph::validate`] refuses: names, bytes, flops.
    pub fn finish(self) -> Result<ValidGraph, GraphError> {
        let GraphBuilder { nodes, outputs, limits, .. } = self;
        Graph { version: GRAPH_VERSION, nodes, outputs }.validate(&limits)
    }
}

/// One method per op. Each returns what [`GraphBuilder::push`] refuses.
impl GraphBuilder {
    /// `() -> dtype[shape]`, bound by name.
    pub fn input(
        &mut self,
        name: impl Into<String>,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Result<NodeId, GraphError> {
        self.push(Op::Input { name: name.into(), dtype, shape: shape.into() }, &[])
    }

    /// `() -> dtype[shape]`, filled with `value`.
    pub fn constant(
        &mut self,
        dtype: DType,
        shape: impl Into<Shape>,
        value: f32,
    ) -> Result<NodeId, GraphError> {
        self.push(Op::Constant { dtype, shape: shape.into(), value }, &[])
    }

    /// `() -> f32`, one number.
    pub fn scalar(&mut self, value: f32) -> Result<NodeId, GraphError> {
        self.constant(DType::F32, Shape::scalar(), value)
    }

    /// `() -> f32[shape]` from the counter-based generator.
    pub fn random(
        &mut self,
        distribution: Distribution,
        shape: impl Into<Shape>,
        stream: u32,
    ) -> Result<NodeId, GraphError> {
        self.push(Op::Random { distribution, shape: shape.into(), stream }, &[])
    }

    /// `(x f32[s]) -> f32[s]`.
    pub fn unary(&mut self, function: UnaryFn, x: NodeId) -> Result<NodeId, GraphError> {
        self.push(Op::Unary { function }, &[x])
    }

    /// `(a, b) -> broadcast(a, b)`.
    pub fn binary(
        &mut self,
        function: BinaryFn,
        lhs: NodeId,
        rhs: NodeId,
    ) -> Result<NodeId, GraphError> {
        self.push(Op::Binary { function }, &[lhs, rhs])
    }

    /// `lhs + rhs`.
    pub fn add(&mut self, lhs: NodeId, rhs: NodeId) -> Result<NodeId, GraphError> {
        self.binary(BinaryFn::Add, lhs, rhs)
    }

    /// `lhs - rhs`.
    pub fn sub(&mut self, lhs: NodeId, rhs: NodeId) -> Result<NodeId, GraphError> {
        self.binary(BinaryFn::Sub, lhs, rhs)
    }

    /// `lhs * rhs`.
    pub fn mul(&mut self, lhs: NodeId, rhs: NodeId) -> Result<NodeId, GraphError> {
        self.binary(BinaryFn::Mul, lhs, rhs)
    }

    /// `lhs / rhs`.
    pub fn div(&mut self, lhs: NodeId, rhs: NodeId) -> Result<NodeId, GraphError> {
        self.binary(BinaryFn::Div, lhs, rhs)
    }

    /// `x * factor`.
    pub fn scale(&mut self, x: NodeId, factor: f32) -> Result<NodeId, GraphError> {
        let factor = self.scalar(factor)?;
        self.mul(x, factor)
    }

    /// `(a, b) -> bool[broadcast(a, b)]`.
    pub fn compare(
        &mut self,
        function: CompareFn,
        lhs: NodeId,
        rhs: NodeId,
    ) -> Result<NodeId, GraphError> {
        self.push(Op::Compare { function }, &[lhs, rhs])
    }

    /// `a` where `condition`, else `b`.
    pub fn select(
        &mut self,
        condition: NodeId,
        a: NodeId,
        b: NodeId,
    ) -> Result<NodeId, GraphError> {
        self.push(Op::Select, &[condition, a, b])
    }

    /// `(x[s]) -> dtype[s]`; the node itself where the type is right already.
    pub fn cast(&mut self, x: NodeId, dtype: DType) -> Result<NodeId, GraphError> {
        if self.ty(x).dtype == dtype { Ok(x) } else { self.push(Op::Cast { dtype }, &[x]) }
    }

    /// `(x[s]) -> x[shape]`; the node itself where the shape is right already.
    pub fn broadcast(&mut self, x: NodeId, shape: &Shape) -> Result<NodeId, GraphError> {
        if self.shape(x) == shape {
            return Ok(x);
        }
        self.push(Op::Broadcast { shape: shape.clone() }, &[x])
    }

    /// `(x f32[s]) -> f32` over `axes`.
    pub fn reduce(
        &mut self,
        function: ReduceFn,
        x: NodeId,
        axes: &[u32],
        keep_dims: bool,
    ) -> Result<NodeId, GraphError> {
        self.push(Op::Reduce { function, axes: axes.to_vec(), keep_dims }, &[x])
    }

    /// `(x f32[s]) -> f32`, the sum of all elements.
    pub fn sum_all(&mut self, x: NodeId) -> Result<NodeId, GraphError> {
        let axes: Vec<u32> = (0..self.shape(x).rank() as u32).collect();
        if axes.is_empty() { Ok(x) } else { self.reduce(ReduceFn::Sum, x, &axes, false) }
    }

    /// `(x f32[s]) -> i32`, the first maximum along `axis`.
    pub fn arg_max(&mut self, x: NodeId, axis: u32) -> Result<NodeId, GraphError> {
        self.push(Op::ArgMax { axis }, &[x])
    }

    /// `(a f32[.., m, k], b f32[.., k, n]) -> f32[.., m, n]`.
    pub fn matmul(
        &mut self,
        lhs: NodeId,
        rhs: NodeId,
        transpose_lhs: bool,
        transpose_rhs: bool,
    ) -> Result<NodeId, GraphError> {
        self.push(Op::MatMul { transpose_lhs, transpose_rhs }, &[lhs, rhs])
    }

    /// `(x f32[n, c, h, w], weight f32[o, c / groups, kh, kw]) -> f32[n, o, oh, ow]`.
    pub fn conv2d(
        &mut self,
        x: NodeId,
        weight: NodeId,
        attrs: Conv2dAttrs,
    ) -> Result<NodeId, GraphError> {
        self.push(Op::Conv2d(attrs), &[x, weight])
    }

    /// `(x f32[n, c, h, w]) -> f32[n, c, oh, ow]`.
    pub fn max_pool2d(&mut self, x: NodeId, attrs: Pool2dAttrs) -> Result<NodeId, GraphError> {
        self.push(Op::MaxPool2d(attrs), &[x])
    }

    /// `(x f32[n, c, h, w]) -> f32[n, c, oh, ow]`.
    pub fn avg_pool2d(&mut self, x: NodeId, attrs: Pool2dAttrs) -> Result<NodeId, GraphError> {
        self.push(Op::AvgPool2d(attrs), &[x])
    }

    /// `(x[s]) -> x[shape]`; the node itself where the shape is right already.
    pub fn reshape(&mut self, x: NodeId, shape: impl Into<Shape>) -> Result<NodeId, GraphError> {
        let shape = shape.into();
        if *self.shape(x) == shape { Ok(x) } else { self.push(Op::Reshape { shape }, &[x]) }
    }

    /// `(x[s]) -> x[s[axes[0]], ..]`.
    pub fn permute(&mut self, x: NodeId, axes: &[u32]) -> Result<NodeId, GraphError> {
        self.push(Op::Permute { axes: axes.to_vec() }, &[x])
    }

    /// `(x[s]) -> x[ends - starts]`.
    pub fn slice(&mut self, x: NodeId, starts: &[u32], ends: &[u32]) -> Result<NodeId, GraphError> {
        self.push(Op::Slice { starts: starts.to_vec(), ends: ends.to_vec() }, &[x])
    }

    /// The range `start..end` of one axis.
    pub fn slice_axis(
        &mut self,
        x: NodeId,
        axis: u32,
        start: u32,
        end: u32,
    ) -> Result<NodeId, GraphError> {
        let mut ends = self.shape(x).0.clone();
        let mut starts = vec![0; ends.len()];
        // An axis out of range keeps the lists as they are and then fails here.
        let Some(slot) = ends.get_mut(axis as usize) else {
            starts.push(start);
            return self.slice(x, &starts, &ends);
        };
        *slot = end;
        starts[axis as usize] = start;
        self.slice(x, &starts, &ends)
    }

    /// `(x f32[s]) -> f32[low + s + high]`.
    pub fn pad(
        &mut self,
        x: NodeId,
        low: &[u32],
        high: &[u32],
        value: f32,
    ) -> Result<NodeId, GraphError> {
        self.push(Op::Pad { low: low.to_vec(), high: high.to_vec(), value }, &[x])
    }

    /// Operands joined along `axis`.
    pub fn concat(&mut self, parts: &[NodeId], axis: u32) -> Result<NodeId, GraphError> {
        self.push(Op::Concat { axis }, parts)
    }

    /// `(x[s], index i32[t]) -> x[s[..axis], t.., s[axis + 1..]]`.
    pub fn gather(&mut self, x: NodeId, index: NodeId, axis: u32) -> Result<NodeId, GraphError> {
        self.push(Op::Gather { axis }, &[x, index])
    }

    /// The adjoint of [`GraphBuilder::gather`].
    pub fn scatter_add(
        &mut self,
        updates: NodeId,
        index: NodeId,
        axis: u32,
        size: u32,
    ) -> Result<NodeId, GraphError> {
        self.push(Op::ScatterAdd { axis, size }, &[updates, index])
    }

    /// `(index i32[s]) -> f32[s.., depth]`.
    pub fn one_hot(&mut self, index: NodeId, depth: u32) -> Result<NodeId, GraphError> {
        self.push(Op::OneHot { depth }, &[index])
    }

    /// `(x f32[s]) -> f32[s]` along `axis`.
    pub fn softmax(&mut self, x: NodeId, axis: u32) -> Result<NodeId, GraphError> {
        self.push(Op::Softmax { axis }, &[x])
    }

    /// `(x f32[s]) -> f32[s]` along `axis`.
    pub fn log_softmax(&mut self, x: NodeId, axis: u32) -> Result<NodeId, GraphError> {
        self.push(Op::LogSoftmax { axis }, &[x])
    }

    /// `(logits f32[b, c], labels i32[b]) -> f32[b]`.
    pub fn cross_entropy(&mut self, logits: NodeId, labels: NodeId) -> Result<NodeId, GraphError> {
        self.push(Op::CrossEntropy, &[logits, labels])
    }
}

/// Combinations that several callers need.
impl GraphBuilder {
    /// The mean over all axes but the first of `(x - y)^2`: `f32[b, ..] -> f32[b]`.
    ///
    /// # Errors
    /// Operands that do not have one shape of rank 2 or more.
    pub fn mean_squared_error(&mut self, x: NodeId, y: NodeId) -> Result<NodeId, GraphError> {
        let difference = self.sub(x, y)?;
        let square = self.mul(difference, difference)?;
        let axes: Vec<u32> = (1..self.shape(square).rank() as u32).collect();
        self.reduce(ReduceFn::Mean, square, &axes, false)
    }

    /// Inverted dropout: each element is zero with probability `rate`, else
    /// divided by `1 - rate`. The mask is a constant to [`crate::grad`].
    ///
    /// # Errors
    /// A rate outside `0..1`.
    pub fn dropout(&mut self, x: NodeId, rate: f32, stream: u32) -> Result<NodeId, GraphError> {
        if !(0.0..1.0).contains(&rate) {
            let rule = "at least 0 and less than 1";
            return Err(GraphError::Parameter { field: "rate", rule, found: rate });
        }
        if rate == 0.0 {
            return Ok(x);
        }
        let shape = self.shape(x).clone();
        let uniform = self.random(Distribution::Uniform, shape, stream)?;
        let rate_node = self.scalar(rate)?;
        let kept = self.compare(CompareFn::Ge, uniform, rate_node)?;
        let scale = self.scalar(1.0 / (1.0 - rate))?;
        let zero = self.scalar(0.0)?;
        let mask = self.select(kept, scale, zero)?;
        self.mul(x, mask)
    }

    /// 1 where the largest logit is the label's, else 0:
    /// `(logits f32[b, c], labels i32[b]) -> f32[b]`.
    ///
    /// # Errors
    /// Operands of other types.
    pub fn hits(&mut self, logits: NodeId, labels: NodeId) -> Result<NodeId, GraphError> {
        let predicted = self.arg_max(logits, 1)?;
        let equal = self.compare(CompareFn::Eq, predicted, labels)?;
        self.cast(equal, DType::F32)
    }

    /// Sums a broadcast value back to `shape`, the adjoint of broadcasting.
    ///
    /// # Errors
    /// A shape that does not broadcast to the value's.
    pub fn sum_to(&mut self, x: NodeId, shape: &Shape) -> Result<NodeId, GraphError> {
        let from = self.shape(x).clone();
        if from == *shape {
            return Ok(x);
        }
        let added = from.rank().saturating_sub(shape.rank());
        let summed = |axis: usize| {
            axis < added || (shape.dims()[axis - added] == 1 && from.dims()[axis] != 1)
        };
        let axes: Vec<u32> =
            (0..from.rank()).filter(|&axis| summed(axis)).map(|axis| axis as u32).collect();
        let sum = self.reduce(ReduceFn::Sum, x, &axes, false)?;
        self.reshape(sum, shape.clone())
    }
}
