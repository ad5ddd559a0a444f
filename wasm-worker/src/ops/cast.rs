//! Casts between element types.

use crate::buffer::Buffer;
use crate::tensor::{Element, Tensor};
use raven_graph::DType;

fn map<A: Element, B: Element>(x: &Tensor, f: impl Fn(A) -> B) -> Tensor {
    let mut result = Buffer::empty(x.len());
    result.extend(x.elements::<A>().iter().map(|&a| f(a)));
    Tensor::of(x.dims(), result)
}

/// `x` in another element type. Floats truncate towards zero and saturate, NaN
/// becomes 0 (Rust's `as`); integers saturate at the bounds of u8; anything to
/// bool is `x != 0`.
pub fn cast(x: Tensor, dtype: DType) -> Tensor {
    match (x.dtype(), dtype) {
        (from, to) if from == to => x,
        (DType::F32, DType::I32) => map(&x, |x: f32| x as i32),
        (DType::F32, DType::U8) => map(&x, |x: f32| x as u8),
        (DType::F32, DType::Bool) => map(&x, |x: f32| x != 0.0),
        (DType::I32, DType::F32) => map(&x, |x: i32| x as f32),
        (DType::I32, DType::U8) => map(&x, |x: i32| x.clamp(0, 255) as u8),
        (DType::I32, DType::Bool) => map(&x, |x: i32| x != 0),
        (DType::U8, DType::F32) => map(&x, |x: u8| f32::from(x)),
        (DType::U8, DType::I32) => map(&x, |x: u8| i32::from(x)),
        (DType::U8, DType::Bool) => map(&x, |x: u8| x != 0),
        (DType::Bool, DType::F32) => map(&x, |x: bool| f32::from(u8::from(x))),
        (DType::Bool, DType::I32) => map(&x, |x: bool| i32::from(x)),
        (DType::Bool, DType::U8) => map(&x, |x: bool| u8::from(x)),
        // Equal types were answered first.
        (DType::F32, DType::F32)
        | (DType::I32, DType::I32)
        | (DType::U8, DType::U8)
        | (DType::Bool, DType::Bool) => x,
    }
}
