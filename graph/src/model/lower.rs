//! From a layer list and a data set to the graphs of a training job.

use super::layers::{Mode, Network, Param, path};
use super::spec::{DataSpec, Layer, Loss, ModelSpec, ParamSpec, Target};
use super::{Activation, ModelError, initial};
use crate::builder::GraphBuilder;
use crate::dtype::{DType, Shape};
use crate::error::GraphError;
use crate::gradient::grad;
use crate::limits::Limits;
use crate::pass;
use crate::program::NodeId;
use crate::valid::ValidGraph;

/// A layer adds a dozen nodes with its gradient, so more would not pass the
/// node limit anyway.
const LAYERS_MAX: usize = 1_024;

/// The graphs of one model. All but `init` take every parameter by name and
/// `x dtype[micro_batch, sample..]`; `train` and `evaluate` also take `y`
/// (`i32[micro_batch]` or `f32[micro_batch, width]`) and `w f32[micro_batch]`,
/// a weight per sample that is 0 for padding.
#[derive(Clone, Debug, PartialEq)]
pub struct LoweredModel {
    /// Parameters in layer order.
    pub params: Vec<ParamSpec>,
    /// No inputs; one output per parameter, drawn from the task's seed.
    pub init: ValidGraph,
    /// Outputs `loss` (sum of `w * loss`), `correct` (sum of `w` where the
    /// label is the largest logit; 0 for regression), `count` (sum of `w`),
    /// and `grad.<param>`, the gradient of `loss`. Dropout is on.
    pub train: ValidGraph,
    /// Outputs `loss`, `correct` and `count` without dropout.
    pub evaluate: ValidGraph,
    /// Output `logits`: the last layer's result, without dropout.
    pub predict: ValidGraph,
    /// The node of `predict` that ends each layer, for [`crate::cut::cut_layers`].
    pub boundaries: Vec<NodeId>,
}

/// Lowers a model for samples of a data set, `micro_batch` at a time.
///
/// # Errors
/// [`ModelError`] with the path of the field at fault.
pub fn lower(
    model: &ModelSpec,
    data: &DataSpec,
    micro_batch: u32,
    limits: &Limits,
) -> Result<LoweredModel, ModelError> {
    check(model, data, micro_batch)?;
    let lowering = Lowering { model, data, micro_batch, limits };
    let train = lowering.train()?;
    let evaluate = lowering.evaluate()?;
    let (predict, boundaries) = lowering.predict()?;
    let init = initial::graph(&train.params, limits)
        .map_err(|error| ModelError::Graph { part: "init", error })?;
    let params = train.params.into_iter().map(|param| param.spec).collect();
    Ok(LoweredModel { params, init, train: train.graph, evaluate, predict, boundaries })
}

/// Checks what does not depend on shapes inside the network.
fn check(model: &ModelSpec, data: &DataSpec, micro_batch: u32) -> Result<(), ModelError> {
    let field = |field: &str, rule, found: String| {
        Err(ModelError::Field { field: field.into(), rule, found })
    };
    if model.layers.is_empty() {
        return Err(ModelError::NoLayers);
    }
    if model.layers.len() > LAYERS_MAX {
        return Err(ModelError::Layers { limit: LAYERS_MAX, found: model.layers.len() });
    }
    if micro_batch == 0 {
        return field("micro_batch", "at least 1", micro_batch.to_string());
    }
    if !matches!(data.features.dtype, DType::U8 | DType::F32) {
        return Err(ModelError::SampleType { found: data.features.dtype });
    }
    if !data.scale.is_finite() {
        return field("data.scale", "finite", data.scale.to_string());
    }
    match (model.loss, data.target) {
        (Loss::CrossEntropy, Target::Classes { count }) if count < 2 => {
            field("data.target.count", "at least 2", count.to_string())
        }
        (Loss::Mse, Target::Values { width: 0 }) => {
            field("data.target.width", "at least 1", "0".into())
        }
        (Loss::CrossEntropy, Target::Values { .. }) => Err(ModelError::Loss {
            loss: "cross_entropy",
            expected: "class labels",
            found: "values",
        }),
        (Loss::Mse, Target::Classes { .. }) => {
            Err(ModelError::Loss { loss: "mse", expected: "values", found: "class labels" })
        }
        _ => softmax_once(model),
    }
}

/// Refuses a soft-max before a loss that applies it.
fn softmax_once(model: &ModelSpec) -> Result<(), ModelError> {
    let index = model.layers.len() - 1;
    let (activation, field) = match &model.layers[index] {
        Layer::Dense(dense) => (dense.activation, "activation"),
        Layer::Conv2d(conv) => (conv.activation, "activation"),
        Layer::Activation(layer) => (layer.function, "function"),
        _ => (Activation::Linear, ""),
    };
    if model.loss == Loss::CrossEntropy && activation == Activation::Softmax {
        return Err(ModelError::SoftmaxTwice { field: path(index, field) });
    }
    Ok(())
}

/// A declared input shape within the limits.
fn input_shape(dims: &[u64], limits: &Limits) -> Result<Shape, ModelError> {
    let refuse = |name, limit, found| {
        Err(ModelError::Limit { field: "input_shape".into(), name, limit, found })
    };
    // The graph puts the rows of a micro-batch before the axes of a sample.
    let (limit, found) = (u64::from(limits.rank_max).saturating_sub(1), dims.len() as u64);
    if found > limit {
        return refuse("rank_max - 1", limit, found);
    }
    let found = dims.iter().fold(1u64, |n, &dim| n.saturating_mul(dim));
    let narrow: Option<Vec<u32>> = dims.iter().map(|&dim| u32::try_from(dim).ok()).collect();
    match narrow {
        Some(dims) if found <= limits.elements_max => Ok(Shape(dims)),
        // An extent beyond 32 bits next to a zero is as wrong as a product that is too large.
        _ => refuse("elements_max", limits.elements_max, found.max(largest(dims))),
    }
}

fn largest(dims: &[u64]) -> u64 {
    dims.iter().copied().max().unwrap_or(0)
}

struct Lowering<'a> {
    model: &'a ModelSpec,
    data: &'a DataSpec,
    micro_batch: u32,
    limits: &'a Limits,
}

/// The network's result with what led to it.
struct Forward {
    logits: NodeId,
    params: Vec<Param>,
    boundaries: Vec<NodeId>,
}

struct Trained {
    graph: ValidGraph,
    params: Vec<Param>,
}

impl Lowering<'_> {
    fn train(&self) -> Result<Trained, ModelError> {
        let mut b = GraphBuilder::new(self.limits);
        let forward = self.forward(&mut b, Mode::Train)?;
        let params = forward.params;
        let lower = || {
            let loss = self.losses(&mut b, forward.logits)?;
            let wrt: Vec<NodeId> = params.iter().map(|param| param.node).collect();
            let gradients = grad(&mut b, loss, &wrt)?;
            for (param, gradient) in params.iter().zip(gradients) {
                b.output(format!("grad.{}", param.spec.name), gradient);
            }
            pass::optimize(&b.finish()?)
        };
        let graph = lower().map_err(|error| ModelError::Graph { part: "train", error })?;
        Ok(Trained { graph, params })
    }

    fn evaluate(&self) -> Result<ValidGraph, ModelError> {
        let mut b = GraphBuilder::new(self.limits);
        let forward = self.forward(&mut b, Mode::Infer)?;
        let lower = || {
            self.losses(&mut b, forward.logits)?;
            pass::optimize(&b.finish()?)
        };
        lower().map_err(|error| ModelError::Graph { part: "evaluate", error })
    }

    fn predict(&self) -> Result<(ValidGraph, Vec<NodeId>), ModelError> {
        let mut b = GraphBuilder::new(self.limits);
        let forward = self.forward(&mut b, Mode::Infer)?;
        b.output("logits", forward.logits);
        let graph = b.finish().map_err(|error| ModelError::Graph { part: "predict", error })?;
        Ok((graph, forward.boundaries))
    }

    /// Samples as f32 in the shape that the first layer takes, then all layers.
    fn forward(&self, b: &mut GraphBuilder, mode: Mode) -> Result<Forward, ModelError> {
        let mut x = self.samples(b)?;
        let layers = &self.model.layers;
        let limits = self.limits;
        let mut network = Network { b, layers, mode, limits, params: Vec::new() };
        let mut boundaries = Vec::with_capacity(layers.len());
        for index in 0..layers.len() {
            x = network.apply(index, x)?;
            boundaries.push(x);
        }
        let params = network.params;
        self.check_target(b, x)?;
        Ok(Forward { logits: x, params, boundaries })
    }

    fn samples(&self, b: &mut GraphBuilder) -> Result<NodeId, ModelError> {
        let sample = &self.data.features.shape;
        let shape = self.sample_shape()?;
        let batched = |shape: &Shape| Shape([&[self.micro_batch], shape.dims()].concat());
        let mut lower = || {
            let raw = b.input("x", self.data.features.dtype, batched(sample))?;
            let float = b.cast(raw, DType::F32)?;
            let scaled =
                if self.data.scale == 1.0 { float } else { b.scale(float, self.data.scale)? };
            b.reshape(scaled, batched(&shape))
        };
        lower().map_err(|error| ModelError::Layer { field: "data.features".into(), error })
    }

    /// The shape of a sample as the first layer sees it.
    fn sample_shape(&self) -> Result<Shape, ModelError> {
        let found = &self.data.features.shape;
        if let Some(dims) = &self.model.input_shape {
            let expected = input_shape(dims, self.limits)?;
            if expected.elements() != found.elements() || expected.elements() == Some(0) {
                return Err(ModelError::InputShape { expected, found: found.clone() });
            }
            return Ok(expected);
        }
        let image = matches!(
            self.model.layers[0],
            Layer::Conv2d(_) | Layer::MaxPool2d(_) | Layer::AvgPool2d(_)
        );
        match found.dims() {
            &[rows, columns] if image => Ok(Shape::from([1, rows, columns])),
            _ => Ok(found.clone()),
        }
    }

    fn check_target(&self, b: &GraphBuilder, logits: NodeId) -> Result<(), ModelError> {
        let width = match self.data.target {
            Target::Classes { count } => count,
            Target::Values { width } => width,
        };
        let found = Shape::from(&b.shape(logits).dims()[1..]);
        let expected = Shape::from([width]);
        if found == expected {
            return Ok(());
        }
        // The layer that set the width is the one to change.
        let layers = &self.model.layers;
        let dense = layers.iter().rposition(|layer| matches!(layer, Layer::Dense(_)));
        let field = match dense {
            Some(index) if found.rank() == 1 => path(index, "units"),
            _ => path(layers.len() - 1, layers[layers.len() - 1].kind()),
        };
        Err(ModelError::Target { field, expected, found })
    }

    /// Adds the outputs `loss`, `correct` and `count`; returns the loss.
    fn losses(&self, b: &mut GraphBuilder, logits: NodeId) -> Result<NodeId, GraphError> {
        let rows = self.micro_batch;
        let (y, per_sample) = match self.data.target {
            Target::Classes { .. } => {
                let y = b.input("y", DType::I32, [rows])?;
                (y, b.cross_entropy(logits, y)?)
            }
            Target::Values { width } => {
                let y = b.input("y", DType::F32, [rows, width])?;
                (y, b.mean_squared_error(logits, y)?)
            }
        };
        let w = b.input("w", DType::F32, [rows])?;
        let weighted = b.mul(per_sample, w)?;
        let loss = b.sum_all(weighted)?;
        let correct = match self.data.target {
            Target::Classes { .. } => {
                let hits = b.hits(logits, y)?;
                let counted = b.mul(hits, w)?;
                b.sum_all(counted)?
            }
            Target::Values { .. } => b.scalar(0.0)?,
        };
        let count = b.sum_all(w)?;
        b.output("loss", loss);
        b.output("correct", correct);
        b.output("count", count);
        Ok(loss)
    }
}
