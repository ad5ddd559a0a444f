//! Element-wise arithmetic, comparison and selection.

use super::broadcast;
use crate::tensor::{Element, Tensor};
use burn_ndarray::ExpElement;
use raven_graph::{BinaryFn, CompareFn, DType, UnaryFn};

/// `f` of each element, in place where nobody else holds the buffer.
fn map(x: Tensor, f: impl Fn(f32) -> f32) -> Tensor {
    let dims = x.extents();
    let mut elements = x.into_elements::<f32>();
    for element in elements.iter_mut() {
        *element = f(*element);
    }
    Tensor::of(&dims, elements)
}

/// -1, 0 or 1; 0 of a NaN.
pub fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// `1 / (1 + e^-x)`. Burn's goes through a logarithm and loses three digits for large `x`.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + libm::expf(-x))
}

/// The hyperbolic tangent.
fn tanh(x: f32) -> f32 {
    f64::from(x).tanh() as f32
}

/// Negative numbers as 0.
pub fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// A function of one number: burn's of elements, where it has one, on our memory. Its functions of
/// whole tensors would allocate what holds them.
pub fn unary(function: UnaryFn, x: Tensor) -> Tensor {
    match function {
        UnaryFn::Neg => map(x, |x| -x),
        UnaryFn::Abs => map(x, ExpElement::abs_elem),
        UnaryFn::Sign => map(x, sign),
        UnaryFn::Exp => map(x, ExpElement::exp_elem),
        UnaryFn::Log => map(x, ExpElement::log_elem),
        UnaryFn::Sqrt => map(x, ExpElement::sqrt_elem),
        UnaryFn::Recip => map(x, |x| 1.0 / x),
        // In f64, as burn computes it: slower than an f32 series, right to the last bit.
        UnaryFn::Tanh => map(x, tanh),
        UnaryFn::Sigmoid => map(x, sigmoid),
        UnaryFn::Relu => map(x, relu),
        // Burn goes through f64.
        UnaryFn::Floor => map(x, f32::floor),
    }
}

/// The greater number; NaN where either is.
pub fn maximum(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// The smaller number; NaN where either is.
pub fn minimum(a: f32, b: f32) -> f32 {
    if a < b || a.is_nan() { a } else { b }
}

fn zip<T: Element, R: Element>(
    a: &Tensor,
    b: &Tensor,
    dims: &[usize],
    f: impl Fn(T, T) -> R,
) -> Tensor {
    let pair = ((a.elements::<T>(), a.dims()), (b.elements::<T>(), b.dims()));
    Tensor::of(dims, broadcast::zip(pair.0, pair.1, dims, f))
}

/// A function of two numbers, broadcast to `dims`.
pub fn binary(function: BinaryFn, a: Tensor, b: Tensor, dims: &[usize]) -> Tensor {
    if a.dtype() == DType::I32 {
        return binary_i32(function, &a, &b, dims);
    }
    match function {
        BinaryFn::Add => arithmetic(a, b, dims, |a, b| a + b),
        BinaryFn::Sub => arithmetic(a, b, dims, |a, b| a - b),
        BinaryFn::Mul => arithmetic(a, b, dims, |a, b| a * b),
        BinaryFn::Div => arithmetic(a, b, dims, |a, b| a / b),
        BinaryFn::Max => zip(&a, &b, dims, maximum),
        BinaryFn::Min => zip(&a, &b, dims, minimum),
        BinaryFn::Pow => zip(&a, &b, dims, libm::powf),
    }
}

/// Arithmetic that rounds once, so that every way gives the same bits: in
/// place where an operand's buffer is free and has the result's extents.
fn arithmetic(a: Tensor, b: Tensor, dims: &[usize], f: impl Fn(f32, f32) -> f32) -> Tensor {
    if a.dims() == dims && a.is_unique() {
        return in_place(a, &b, f);
    }
    if b.dims() == dims && b.is_unique() {
        return in_place(b, &a, |b, a| f(a, b));
    }
    zip(&a, &b, dims, f)
}

fn in_place(target: Tensor, other: &Tensor, f: impl Fn(f32, f32) -> f32) -> Tensor {
    let dims = target.extents();
    let mut elements = target.into_elements::<f32>();
    broadcast::zip_into((&mut elements, &dims), (other.elements::<f32>(), other.dims()), f);
    Tensor::of(&dims, elements)
}

/// Integers wrap around: an overflow must not depend on how the kernel was built.
fn binary_i32(function: BinaryFn, a: &Tensor, b: &Tensor, dims: &[usize]) -> Tensor {
    match function {
        BinaryFn::Add => zip(a, b, dims, i32::wrapping_add),
        BinaryFn::Sub => zip(a, b, dims, i32::wrapping_sub),
        BinaryFn::Mul => zip(a, b, dims, i32::wrapping_mul),
        BinaryFn::Max => zip(a, b, dims, |a: i32, b| a.max(b)),
        BinaryFn::Min => zip(a, b, dims, |a: i32, b| a.min(b)),
        BinaryFn::Div | BinaryFn::Pow => unreachable!("validation admits f32 only"),
    }
}

/// A comparison, broadcast to `dims`; false where either number is NaN.
pub fn compare(function: CompareFn, a: Tensor, b: Tensor, dims: &[usize]) -> Tensor {
    fn typed<T: Element + PartialOrd>(
        function: CompareFn,
        a: &Tensor,
        b: &Tensor,
        dims: &[usize],
    ) -> Tensor {
        match function {
            CompareFn::Eq => zip(a, b, dims, |a: T, b| a == b),
            CompareFn::Lt => zip(a, b, dims, |a: T, b| a < b),
            CompareFn::Le => zip(a, b, dims, |a: T, b| a <= b),
            CompareFn::Gt => zip(a, b, dims, |a: T, b| a > b),
            CompareFn::Ge => zip(a, b, dims, |a: T, b| a >= b),
        }
    }
    match a.dtype() {
        DType::I32 => typed::<i32>(function, &a, &b, dims),
        _ => typed::<f32>(function, &a, &b, dims),
    }
}

/// `a` where `condition`, else `b`, broadcast to `dims`.
pub fn select(condition: Tensor, a: Tensor, b: Tensor, dims: &[usize]) -> Tensor {
    fn typed<T: Element>(condition: &Tensor, a: &Tensor, b: &Tensor, dims: &[usize]) -> Tensor {
        let chosen = broadcast::select(
            (condition.elements(), condition.dims()),
            (a.elements::<T>(), a.dims()),
            (b.elements::<T>(), b.dims()),
            dims,
        );
        Tensor::of(dims, chosen)
    }
    match a.dtype() {
        DType::F32 => typed::<f32>(&condition, &a, &b, dims),
        DType::I32 => typed::<i32>(&condition, &a, &b, dims),
        DType::U8 => typed::<u8>(&condition, &a, &b, dims),
        DType::Bool => typed::<bool>(&condition, &a, &b, dims),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Cpu;
    use burn_backend::ops::FloatTensorOps;
    use burn_ndarray::NdArrayTensor;

    /// Its functions of tensors and ours give the same bits, for numbers of every exponent.
    #[test]
    fn functions_are_those_of_burns_backend() {
        let bits = (0..1u32 << 16).map(|i| i.wrapping_mul(0x9e37_79b1));
        let small = (0..1u32 << 16).map(|i| ((i as f32 - 32768.0) * 3e-4).to_bits());
        let numbers: Vec<f32> = bits.chain(small).map(f32::from_bits).collect();
        type Function = fn(NdArrayTensor) -> NdArrayTensor;
        let cases: [(UnaryFn, Function); 5] = [
            (UnaryFn::Abs, Cpu::float_abs),
            (UnaryFn::Exp, Cpu::float_exp),
            (UnaryFn::Log, Cpu::float_log),
            (UnaryFn::Sqrt, Cpu::float_sqrt),
            (UnaryFn::Tanh, Cpu::float_tanh),
        ];
        for (function, burns) in cases {
            let x = Tensor::new(&[numbers.len()], numbers.clone());
            let expected = Tensor::from_burn(burns(x.clone().into_burn())).to_le_bytes();
            assert_eq!(unary(function, x).to_le_bytes(), expected, "{function:?}");
        }
    }
}
