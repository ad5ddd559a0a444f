//! The layer list as a requester writes it.

use crate::dtype::TensorType;
use serde::{Deserialize, Serialize};

/// A feed-forward network, layer by layer.
///
/// Extents and counts are 64 bits wide here, so that a number that is far too
/// large is refused by the limit that it passes and not by the parser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The shape of one sample, channels first; taken from the data if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_shape: Option<Vec<u64>>,
    /// Applied in order.
    pub layers: Vec<Layer>,
    /// What training minimizes.
    pub loss: Loss,
}

/// What training minimizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Soft-max cross-entropy of the last layer's logits against class labels.
    CrossEntropy,
    /// Mean over the target's width of squared differences.
    Mse,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Layer {
    /// `y = activation(x W + bias)`.
    Dense(Dense),
    /// `y = activation(conv(x, W) + bias)` over `[channels, rows, columns]`.
    Conv2d(Conv2d),
    /// The largest value of each window.
    MaxPool2d(Pool2d),
    /// The mean of each window.
    AvgPool2d(Pool2d),
    /// All axes of a sample in one.
    Flatten(Empty),
    /// A function of each element, or soft-max over the last axis.
    Activation(ActivationLayer),
    /// Zeroes elements at random while training.
    Dropout(Dropout),
}

impl Layer {
    /// The name used in JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Layer::Dense(_) => "dense",
            Layer::Conv2d(_) => "conv2d",
            Layer::MaxPool2d(_) => "max_pool2d",
            Layer::AvgPool2d(_) => "avg_pool2d",
            Layer::Flatten(_) => "flatten",
            Layer::Activation(_) => "activation",
            Layer::Dropout(_) => "dropout",
        }
    }
}

/// A fully connected layer with weight `[in, out]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Width of the result.
    pub units: u64,
    /// Applied to the result.
    #[serde(default)]
    pub activation: Activation,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub bias: bool,
}

/// A convolution with weight `[filters, channels, rows, columns]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Channels of the result.
    pub filters: u64,
    /// Rows and columns of the kernel.
    pub kernel: Extent2,
    /// Step in rows and columns.
    #[serde(default)]
    pub stride: Extent2,
    /// What surrounds the image.
    #[serde(default)]
    pub padding: Padding,
    /// Applied to the result.
    #[serde(default)]
    pub activation: Activation,
    /// Whether a bias per filter is added.
    #[serde(default = "yes")]
    pub bias: bool,
}

/// Pooling without padding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool2d {
    /// Rows and columns of the window.
    pub size: Extent2,
    /// Step in rows and columns; the window's size if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Extent2>,
}

/// A layer without attributes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// An activation as a layer of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationLayer {
    /// Which one.
    pub function: Activation,
}

/// Inverted dropout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// Probability that an element is zeroed, at least 0 and less than 1.
    pub rate: f32,
}

/// A function applied to a layer's result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The identity.
    #[default]
    Linear,
    Relu,
    Tanh,
    Sigmoid,
    /// Over the last axis.
    Softmax,
}

/// What surrounds an image under a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Nothing.
    #[default]
    Valid,
    /// Zeros, so that the result has `ceil(extent / stride)` rows and columns;
    /// an odd zero goes after the image.
    Same,
}

/// One number for rows and columns alike, or `[rows, columns]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Extent2 {
    /// The same along both axes.
    Square(u64),
    /// Rows, then columns.
    Pair([u64; 2]),
}

impl Default for Extent2 {
    fn default() -> Self {
        Extent2::Square(1)
    }
}

impl Extent2 {
    /// Rows and columns.
    pub const fn pair(self) -> [u64; 2] {
        match self {
            Extent2::Square(side) => [side, side],
            Extent2::Pair(pair) => pair,
        }
    }
}

const fn yes() -> bool {
    true
}

/// What the data set offers the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// Type of one sample, u8 or f32, e.g. `u8[28, 28]`.
    pub features: TensorType,
    /// Samples are cast to f32 and multiplied by this, e.g. 1/255.
    pub scale: f32,
    /// What is to be predicted.
    pub target: Target,
}

/// What is to be predicted of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Target {
    /// A label from 0 to `count - 1`, stored as i32.
    Classes { count: u32 },
    /// This many f32 numbers.
    Values { width: u32 },
}

/// A named tensor of f32 that training changes, or optimizer state beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ParamSpec {
    /// `<layer index>.weight` or `<layer index>.bias`.
    pub name: String,
    /// Its extents.
    pub shape: crate::dtype::Shape,
}
