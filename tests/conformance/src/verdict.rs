//! Comparing what a kernel returned with what was expected.

use crate::suite::{Case, Suite};
use raven_graph::DType;
use raven_protocol::{Frame, FrameLimits, FromContributor};

const CANONICAL_NAN: u32 = 0x7fc0_0000;

/// The greatest error of one case, as a fraction of what is tolerated.
///
/// # Errors
/// A text naming the first element that is wrong.
pub fn check(suite: &Suite, case: &Case, result: &[u8]) -> Result<f64, String> {
    let frame = Frame::decode(result, &FrameLimits::TO_COORDINATOR).map_err(|e| e.to_string())?;
    match FromContributor::from_header(frame.header()).map_err(|e| e.to_string())? {
        FromContributor::Result { .. } => {}
        other => return Err(format!("answered by {other:?}")),
    }
    let found: Vec<_> = frame.tensors().collect();
    if found.len() != case.expected.len() {
        return Err(format!("{} outputs, expected {}", found.len(), case.expected.len()));
    }
    let mut worst = 0f64;
    for (found, expected) in found.iter().zip(&case.expected) {
        if found.name != expected.name
            || found.dtype != expected.dtype
            || *found.shape != expected.shape
        {
            let (name, ty) = (found.name, found.ty());
            return Err(format!("{name:?} is {ty}, expected {:?}", expected));
        }
        let data = suite.tensor(expected);
        let error = match expected.dtype {
            DType::F32 => floats(case, found.data, data),
            DType::I32 | DType::U8 | DType::Bool if found.data == data => Ok(0.0),
            DType::I32 | DType::U8 | DType::Bool => {
                let at = found.data.iter().zip(data).position(|(a, b)| a != b);
                Err(format!("differs at byte {}", at.unwrap_or(0)))
            }
        };
        worst = worst.max(error.map_err(|error| format!("{:?} {error}", expected.name))?);
    }
    Ok(worst)
}

fn floats(case: &Case, found: &[u8], expected: &[u8]) -> Result<f64, String> {
    let bits = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let pairs = found.chunks_exact(4).map(bits).zip(expected.chunks_exact(4).map(bits));
    let mut worst = 0f64;
    for (at, (found, expected)) in pairs.enumerate() {
        let (x, y) = (f32::from_bits(found), f32::from_bits(expected));
        if x.is_nan() && found != CANONICAL_NAN {
            return Err(format!("holds the NaN {found:#010x} at {at}"));
        }
        // Infinities and NaN must be the same; -0 and 0 are one number.
        if x == y || (x.is_nan() && y.is_nan()) {
            continue;
        }
        let difference = (f64::from(x) - f64::from(y)).abs();
        let tolerated = case.abs + case.rel * f64::from(y).abs();
        // A difference that is NaN is none that is tolerated.
        let is_close = difference <= tolerated;
        if !is_close {
            return Err(format!("is {x} at {at}, expected {y} within {tolerated}"));
        }
        worst = worst.max(difference / tolerated);
    }
    Ok(worst)
}
