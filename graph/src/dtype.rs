//! Element types and shapes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The element type of a tensor. Every tensor is stored little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DType {
    /// IEEE 754 binary32. NaN is always written as `0x7fc00000`.
    F32,
    /// Two's complement 32-bit integer: indices and class labels.
    I32,
    /// Unsigned byte: raw pixels and small labels, cast inside the graph.
    U8,
    /// One byte, 0 or 1: the result of a comparison.
    Bool,
}

impl DType {
    /// Bytes that one element takes in memory and on the wire.
    pub const fn bytes(self) -> u64 {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::U8 | DType::Bool => 1,
        }
    }

    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::U8 => "u8",
            DType::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The extents of a tensor, outermost first. A scalar has rank 0.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(pub Vec<u32>);

impl Shape {
    /// The shape of a single number.
    pub const fn scalar() -> Self {
        Shape(Vec::new())
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Extents, outermost first.
    pub fn dims(&self) -> &[u32] {
        &self.0
    }

    /// Number of elements, or `None` where it does not fit 64 bits.
    pub fn elements(&self) -> Option<u64> {
        self.0.iter().try_fold(1u64, |n, &d| n.checked_mul(u64::from(d)))
    }

    /// Bytes of a tensor of this shape, or `None` where it does not fit 64 bits.
    pub fn bytes(&self, dtype: DType) -> Option<u64> {
        self.elements()?.checked_mul(dtype.bytes())
    }
}

impl From<&[u32]> for Shape {
    fn from(dims: &[u32]) -> Self {
        Shape(dims.to_vec())
    }
}

impl<const N: usize> From<[u32; N]> for Shape {
    fn from(dims: [u32; N]) -> Self {
        Shape(dims.to_vec())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What flows along an edge of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
}

impl TensorType {
    /// Pairs an element type with extents.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        TensorType { dtype, shape: shape.into() }
    }

    /// Bytes of one tensor of this type, or `None` where it does not fit 64 bits.
    pub fn bytes(&self) -> Option<u64> {
        self.shape.bytes(self.dtype)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}
