//! A slow interpreter over f64, written from the documentation of the ops and
//! sharing no code with any kernel. Tests compare against it; nothing else
//! may use it.

#![allow(dead_code)] // Each test binary uses its own part of this.

pub mod finite;
pub mod image;
pub mod ops;
pub mod samples;

use raven_graph::{DType, NodeId, Shape, TensorType, ValidGraph};
use std::collections::BTreeMap;

/// Elements of a tensor: floats, or any of the integer types.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    F(Vec<f64>),
    I(Vec<i64>),
}

/// A tensor of the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub dtype: DType,
    pub dims: Vec<usize>,
    pub data: Data,
}

impl Tensor {
    pub fn f(dims: &[usize], data: Vec<f64>) -> Self {
        assert_eq!(dims.iter().product::<usize>(), data.len());
        Tensor { dtype: DType::F32, dims: dims.to_vec(), data: Data::F(data) }
    }

    pub fn i(dims: &[usize], data: Vec<i64>) -> Self {
        assert_eq!(dims.iter().product::<usize>(), data.len());
        Tensor { dtype: DType::I32, dims: dims.to_vec(), data: Data::I(data) }
    }

    pub fn floats(&self) -> &[f64] {
        match &self.data {
            Data::F(data) => data,
            Data::I(_) => panic!("not floats"),
        }
    }

    pub fn integers(&self) -> &[i64] {
        match &self.data {
            Data::I(data) => data,
            Data::F(_) => panic!("not integers"),
        }
    }

    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn ty(&self) -> TensorType {
        let dims: Vec<u32> = self.dims.iter().map(|&d| d as u32).collect();
        TensorType { dtype: self.dtype, shape: Shape(dims) }
    }

    /// The same elements under another shape.
    pub fn with_dims(&self, dims: Vec<usize>) -> Self {
        assert_eq!(dims.iter().product::<usize>(), self.len());
        Tensor { dims, ..self.clone() }
    }

    /// Elements picked by flat index.
    pub fn pick(&self, dims: Vec<usize>, index: impl Fn(&[usize]) -> usize) -> Self {
        let places = indices(&dims).map(|at| index(&at)).collect::<Vec<_>>();
        let data = match &self.data {
            Data::F(data) => Data::F(places.iter().map(|&i| data[i]).collect()),
            Data::I(data) => Data::I(places.iter().map(|&i| data[i]).collect()),
        };
        Tensor { dtype: self.dtype, dims, data }
    }

    /// The flat index of `at`, broadcasting extents of 1 and missing axes.
    pub fn at(&self, at: &[usize]) -> usize {
        let missing = at.len() - self.dims.len();
        let mut flat = 0;
        for (axis, &extent) in self.dims.iter().enumerate() {
            let i = if extent == 1 { 0 } else { at[missing + axis] };
            flat = flat * extent + i;
        }
        flat
    }

    /// A range of one axis.
    pub fn slice_axis(&self, axis: usize, start: usize, end: usize) -> Self {
        let mut dims = self.dims.clone();
        dims[axis] = end - start;
        self.pick(dims, |at| {
            let mut from = at.to_vec();
            from[axis] += start;
            self.at(&from)
        })
    }
}

/// All multi-indices of a shape in row-major order.
pub fn indices(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let dims = dims.to_vec();
    let count: usize = dims.iter().product();
    (0..count).map(move |flat| {
        let mut left = flat;
        let mut at = vec![0; dims.len()];
        for axis in (0..dims.len()).rev() {
            at[axis] = left % dims[axis];
            left /= dims[axis];
        }
        at
    })
}

/// Extents as `usize`.
pub fn dims(shape: &Shape) -> Vec<usize> {
    shape.dims().iter().map(|&d| d as usize).collect()
}

/// What random ops draw from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draw {
    pub seed: u64,
    pub micro_batch: u32,
}

pub type Bindings = BTreeMap<String, Tensor>;

/// Every node's value.
pub fn run_all(graph: &ValidGraph, bindings: &Bindings, draw: Draw) -> Vec<Tensor> {
    let mut values: Vec<Tensor> = Vec::new();
    for (index, node) in graph.graph().nodes.iter().enumerate() {
        let operands: Vec<&Tensor> = node.inputs.iter().map(|i| &values[i.index()]).collect();
        let value = ops::run(&node.op, &operands, bindings, draw);
        let expected = graph.ty(NodeId(index as u32));
        assert_eq!(&value.ty(), expected, "node {index} {:?}", node.op);
        values.push(value);
    }
    values
}

/// The outputs by name.
pub fn run(graph: &ValidGraph, bindings: &Bindings, draw: Draw) -> Bindings {
    let values = run_all(graph, bindings, draw);
    let outputs = graph.outputs().iter();
    outputs.map(|output| (output.name.clone(), values[output.node.index()].clone())).collect()
}

/// Bindings from a list.
pub fn bind<const N: usize>(list: [(&str, Tensor); N]) -> Bindings {
    list.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

/// Largest difference relative to the larger magnitude, or absolute below 1.
pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!((a.dtype, &a.dims), (b.dtype, &b.dims));
    let pairs = a.floats().iter().zip(b.floats());
    pairs.map(|(x, y)| (x - y).abs() / x.abs().max(y.abs()).max(1.0)).fold(0.0, f64::max)
}
