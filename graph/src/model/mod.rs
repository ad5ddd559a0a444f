//! Models as lists of layers, and their lowering to graphs.

mod initial;
mod layers;
mod lower;
mod spec;

pub use lower::{LoweredModel, lower};
pub use spec::{
    Activation, ActivationLayer, Conv2d, DataSpec, Dense, Dropout, Empty, Extent2, Layer, Loss,
    ModelSpec, Padding, ParamSpec, Pool2d, Target,
};

use crate::dtype::{DType, Shape};
use crate::error::GraphError;
use thiserror::Error;

/// Why a model cannot be built, or does not fit its data. Each variant names
/// the field at fault.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ModelError {
    /// There is nothing to apply.
    #[error("layers: at least one layer is needed")]
    NoLayers,
    /// More layers than any graph within the limits could hold.
    #[error("layers: {found}, limit {limit}")]
    Layers { limit: usize, found: usize },
    /// A field is outside its domain.
    #[error("{field}: {found} must be {rule}")]
    Field { field: String, rule: &'static str, found: String },
    /// A count or extent passes a limit of the graphs.
    #[error("{field}: {found}, limit {name} = {limit}")]
    Limit { field: String, name: &'static str, limit: u64, found: u64 },
    /// The declared input shape does not hold the data's elements.
    #[error("input_shape: {expected} does not fit samples of shape {found}")]
    InputShape { expected: Shape, found: Shape },
    /// A layer takes samples of another shape.
    #[error("{field}: takes {expected}, found samples of shape {found}")]
    SampleShape { field: String, expected: &'static str, found: Shape },
    /// Samples are of a type that is not cast to f32.
    #[error("data.features.dtype: must be u8 or f32, found {found}")]
    SampleType { found: DType },
    /// The last layer's result is not what the data asks to predict.
    #[error("{field}: the data needs {expected}, the model gives {found}")]
    Target { field: String, expected: Shape, found: Shape },
    /// The loss does not go with the target.
    #[error("loss: {loss} needs {expected}, the data has {found}")]
    Loss { loss: &'static str, expected: &'static str, found: &'static str },
    /// The loss applies soft-max itself.
    #[error("{field}: cross_entropy takes logits; leave the last softmax out")]
    SoftmaxTwice { field: String },
    /// A layer's graph is refused.
    #[error("{field}: {error}")]
    Layer { field: String, error: GraphError },
    /// The whole graph is refused, e.g. for its size.
    #[error("{part} graph: {error}")]
    Graph { part: &'static str, error: GraphError },
}
