//! What each layer adds to a graph.

use super::spec::{Activation, Conv2d, Dense, Extent2, Layer, Padding, ParamSpec, Pool2d};
use super::{ModelError, initial};
use crate::builder::GraphBuilder;
use crate::dtype::{DType, Shape};
use crate::error::GraphError;
use crate::limits::Limits;
use crate::op::{Conv2dAttrs, Pool2dAttrs, UnaryFn};
use crate::program::NodeId;
use initial::Initial;

/// Whether dropout is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Train,
    Infer,
}

/// A parameter as a layer declares it.
#[derive(Clone, Debug)]
pub(super) struct Param {
    pub spec: ParamSpec,
    pub node: NodeId,
    pub initial: Initial,
}

/// A network under construction: the value so far is `f32[batch, sample..]`.
pub(super) struct Network<'a> {
    pub b: &'a mut GraphBuilder,
    pub layers: &'a [Layer],
    pub mode: Mode,
    pub limits: &'a Limits,
    pub params: Vec<Param>,
}

impl<'a> Network<'a> {
    /// Applies one layer.
    pub fn apply(&mut self, index: usize, x: NodeId) -> Result<NodeId, ModelError> {
        let layers = self.layers;
        match &layers[index] {
            Layer::Dense(dense) => self.dense(index, dense, x),
            Layer::Conv2d(conv) => self.conv2d(index, conv, x),
            // Done before the convolution's bias, see `conv2d`.
            Layer::MaxPool2d(_) if self.pools_early(index) => Ok(x),
            Layer::MaxPool2d(pool) => self.max_pool2d(index, pool, x),
            Layer::AvgPool2d(pool) => {
                let attrs = self.pool(index, pool, x)?;
                self.b.avg_pool2d(x, attrs).map_err(|error| at(index, "size", error))
            }
            Layer::Flatten(_) => {
                let batch = self.b.shape(x).dims()[0];
                let width = self.sample_shape(x).elements().and_then(|n| u32::try_from(n).ok());
                // More than 32 bits of elements fail the reshape.
                let shape = [batch, width.unwrap_or(u32::MAX)];
                self.b.reshape(x, shape).map_err(|error| at(index, "flatten", error))
            }
            Layer::Activation(layer) => {
                self.activate(x, layer.function).map_err(|error| at(index, "function", error))
            }
            Layer::Dropout(layer) => {
                if !(0.0..1.0).contains(&layer.rate) {
                    let rule = "at least 0 and less than 1";
                    return Err(refuse(index, "rate", rule, layer.rate));
                }
                if self.mode == Mode::Infer {
                    return Ok(x);
                }
                let stream = index as u32;
                self.b.dropout(x, layer.rate, stream).map_err(|error| at(index, "rate", error))
            }
        }
    }

    fn sample_shape(&self, x: NodeId) -> Shape {
        Shape::from(&self.b.shape(x).dims()[1..])
    }

    /// Declares a parameter as an input of the graph.
    fn param(
        &mut self,
        index: usize,
        name: &str,
        shape: Shape,
        initial: Initial,
    ) -> Result<NodeId, GraphError> {
        let name = format!("{index}.{name}");
        let node = self.b.input(&name, DType::F32, shape.clone())?;
        self.params.push(Param { spec: ParamSpec { name, shape }, node, initial });
        Ok(node)
    }

    fn dense(&mut self, index: usize, dense: &Dense, x: NodeId) -> Result<NodeId, ModelError> {
        let sample = self.sample_shape(x);
        let &[width] = sample.dims() else {
            let expected = "one axis; put a flatten layer before it";
            return Err(shape_refused(index, "units", expected, sample));
        };
        let units = self.count(index, "units", dense.units)?;
        let initial = self.initial(index, width.into(), units.into());
        let lower = |network: &mut Self| {
            let shape = Shape::from([width, units]);
            let weight = network.param(index, "weight", shape, initial)?;
            let mut y = network.b.matmul(x, weight, false, false)?;
            if dense.bias {
                let shape = Shape::from([units]);
                let bias = network.param(index, "bias", shape, Initial::Zeros)?;
                y = network.b.add(y, bias)?;
            }
            network.activate(y, dense.activation)
        };
        lower(self).map_err(|error| at(index, "units", error))
    }

    fn conv2d(&mut self, index: usize, conv: &Conv2d, x: NodeId) -> Result<NodeId, ModelError> {
        let sample = self.sample_shape(x);
        let &[channels, rows, columns] = sample.dims() else {
            let expected = "three axes: channels, rows, columns";
            return Err(shape_refused(index, "kernel", expected, sample));
        };
        let filters = self.count(index, "filters", conv.filters)?;
        let kernel = self.extents(index, "kernel", conv.kernel)?;
        let stride = self.extents(index, "stride", conv.stride)?;
        let padding = match conv.padding {
            Padding::Valid => [0; 4],
            Padding::Same => {
                let [top, bottom] = same_padding(rows, kernel[0], stride[0]);
                let [left, right] = same_padding(columns, kernel[1], stride[1]);
                [top, bottom, left, right]
            }
        };
        let attrs = Conv2dAttrs { stride, padding, dilation: [1, 1], groups: 1 };
        let taps = f64::from(kernel[0]) * f64::from(kernel[1]);
        let fan_in = f64::from(channels) * taps;
        let initial = self.initial(index, fan_in, f64::from(filters) * taps);
        let shape = Shape::from([filters, channels, kernel[0], kernel[1]]);
        let mut y = self
            .param(index, "weight", shape, initial)
            .and_then(|weight| self.b.conv2d(x, weight, attrs))
            .map_err(|error| at(index, "kernel", error))?;
        // Adding a bias per channel and rectifying are monotonic, also after
        // rounding, so the largest element stays the largest: pooling first
        // gives the same bits and leaves a fraction of the elements to do.
        if let (true, Layer::MaxPool2d(pool)) = (self.pools_early(index + 1), self.next(index)) {
            y = self.max_pool2d(index + 1, pool, y)?;
        }
        self.bias_and_activate(index, conv, filters, y).map_err(|error| at(index, "filters", error))
    }

    /// The layer after `index`, or the layer itself where it is the last.
    fn next(&self, index: usize) -> &'a Layer {
        let layers = self.layers;
        layers.get(index + 1).unwrap_or(&layers[index])
    }

    /// Whether the layer is a max-pooling that its convolution does itself.
    fn pools_early(&self, index: usize) -> bool {
        let Some(before) = index.checked_sub(1) else { return false };
        match (&self.layers[before], self.layers.get(index)) {
            (Layer::Conv2d(conv), Some(Layer::MaxPool2d(_))) => {
                matches!(conv.activation, Activation::Linear | Activation::Relu)
            }
            _ => false,
        }
    }

    fn bias_and_activate(
        &mut self,
        index: usize,
        conv: &Conv2d,
        filters: u32,
        mut y: NodeId,
    ) -> Result<NodeId, GraphError> {
        if conv.bias {
            let shape = Shape::from([filters]);
            let bias = self.param(index, "bias", shape, Initial::Zeros)?;
            let bias = self.b.reshape(bias, [filters, 1, 1])?;
            y = self.b.add(y, bias)?;
        }
        self.activate(y, conv.activation)
    }

    fn max_pool2d(&mut self, index: usize, pool: &Pool2d, x: NodeId) -> Result<NodeId, ModelError> {
        let attrs = self.pool(index, pool, x)?;
        self.b.max_pool2d(x, attrs).map_err(|error| at(index, "size", error))
    }

    fn pool(&self, index: usize, pool: &Pool2d, x: NodeId) -> Result<Pool2dAttrs, ModelError> {
        let sample = self.sample_shape(x);
        if sample.rank() != 3 {
            let expected = "three axes: channels, rows, columns";
            return Err(shape_refused(index, "size", expected, sample));
        }
        let kernel = self.extents(index, "size", pool.size)?;
        let stride = self.extents(index, "stride", pool.stride.unwrap_or(pool.size))?;
        Ok(Pool2dAttrs { kernel, stride, padding: [0; 4] })
    }

    /// A count of things that each take at least one element.
    fn count(&self, index: usize, field: &str, count: u64) -> Result<u32, ModelError> {
        let limit = self.limits.elements_max.min(u32::MAX.into());
        match u32::try_from(count) {
            Ok(0) => Err(refuse(index, field, "at least 1", count)),
            Ok(narrow) if count <= limit => Ok(narrow),
            _ => {
                let (field, name) = (path(index, field), "elements_max");
                Err(ModelError::Limit { field, name, limit, found: count })
            }
        }
    }

    fn extents(&self, index: usize, field: &str, sides: Extent2) -> Result<[u32; 2], ModelError> {
        let [rows, columns] = sides.pair();
        Ok([self.count(index, field, rows)?, self.count(index, field, columns)?])
    }

    fn activate(&mut self, x: NodeId, function: Activation) -> Result<NodeId, GraphError> {
        match function {
            Activation::Linear => Ok(x),
            Activation::Relu => self.b.unary(UnaryFn::Relu, x),
            Activation::Tanh => self.b.unary(UnaryFn::Tanh, x),
            Activation::Sigmoid => self.b.unary(UnaryFn::Sigmoid, x),
            Activation::Softmax => {
                let last = self.b.shape(x).rank() as u32 - 1;
                self.b.softmax(x, last)
            }
        }
    }

    /// How a weight starts: by the activation that follows it, its own or
    /// that of a later layer without weights.
    fn initial(&self, index: usize, fan_in: f64, fan_out: f64) -> Initial {
        let own = match &self.layers[index] {
            Layer::Dense(dense) => dense.activation,
            Layer::Conv2d(conv) => conv.activation,
            _ => Activation::Linear,
        };
        let following = self.layers[index + 1..].iter().find_map(|layer| match layer {
            Layer::Activation(layer) => Some(layer.function),
            Layer::Dense(_) | Layer::Conv2d(_) => Some(Activation::Linear),
            _ => None,
        });
        let effective = match own {
            Activation::Linear => following.unwrap_or_default(),
            own => own,
        };
        match effective {
            Activation::Relu => Initial::he_uniform(fan_in),
            _ => Initial::glorot_uniform(fan_in, fan_out),
        }
    }
}

/// Zeros before and after an axis so that `ceil(extent / stride)` windows fit.
fn same_padding(extent: u32, kernel: u32, stride: u32) -> [u32; 2] {
    let windows = u64::from(extent.div_ceil(stride));
    let covered = (windows - 1) * u64::from(stride) + u64::from(kernel);
    let missing = covered.saturating_sub(extent.into());
    // `covered` is below `extent + kernel`, so halves fit 32 bits.
    [(missing / 2) as u32, missing.div_ceil(2) as u32]
}

/// The path of a layer's field, e.g. `layers[2].units`.
pub(super) fn path(index: usize, field: &str) -> String {
    format!("layers[{index}].{field}")
}

fn at(index: usize, field: &str, error: GraphError) -> ModelError {
    ModelError::Layer { field: path(index, field), error }
}

fn refuse(
    index: usize,
    field: &str,
    rule: &'static str,
    found: impl std::fmt::Display,
) -> ModelError {
    ModelError::Field { field: path(index, field), rule, found: found.to_string() }
}

fn shape_refused(index: usize, field: &str, expected: &'static str, found: Shape) -> ModelError {
    ModelError::SampleShape { field: path(index, field), expected, found }
}
