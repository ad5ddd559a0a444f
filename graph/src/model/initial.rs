//! Where weights start.

use super::layers::Param;
use crate::builder::GraphBuilder;
use crate::dtype::DType;
use crate::error::GraphError;
use crate::limits::Limits;
use crate::op::Distribution;
use crate::valid::ValidGraph;

/// Keeps initial weights apart from dropout masks, which use layer indices,
/// should both ever be drawn under one seed.
const STREAM_BASE: u32 = 0x4000_0000;

/// The first value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Initial {
    Zeros,
    /// Uniform in `-limit..limit`.
    Uniform {
        limit: f32,
    },
}

impl Initial {
    /// He et al. (2015): keeps the variance through rectifiers.
    pub fn he_uniform(fan_in: f64) -> Self {
        Initial::Uniform { limit: (6.0 / fan_in).sqrt() as f32 }
    }

    /// Glorot and Bengio (2010): balances forward and backward variance.
    pub fn glorot_uniform(fan_in: f64, fan_out: f64) -> Self {
        Initial::Uniform { limit: (6.0 / (fan_in + fan_out)).sqrt() as f32 }
    }
}

/// A graph without inputs whose outputs are the parameters by name.
pub(super) fn graph(params: &[Param], limits: &Limits) -> Result<ValidGraph, GraphError> {
    let mut b = GraphBuilder::new(limits);
    for (stream, param) in (STREAM_BASE..).zip(params) {
        let shape = param.spec.shape.clone();
        let value = match param.initial {
            Initial::Zeros => b.constant(DType::F32, shape, 0.0)?,
            Initial::Uniform { limit } => {
                let unit = b.random(Distribution::Uniform, shape, stream)?;
                let wide = b.scale(unit, 2.0 * limit)?;
                let low = b.scalar(limit)?;
                b.sub(wide, low)?
            }
        };
        b.output(&param.spec.name, value);
    }
    b.finish()
}
