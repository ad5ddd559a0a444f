//! Values between ops: typed, row-major, shared until written.

use crate::axes::Dims;
use crate::buffer::{Buffer, Pooled, Shared};
use crate::received::Part;
use burn_ndarray::{NdArrayTensor, SharedArray};
use bytemuck::Pod;
use ndarray::{ArrayD, IxDyn};
use raven_graph::{DType, Shape, TensorType};
use std::ops::Deref;

/// The only bits in which a NaN leaves the kernel.
pub const CANONICAL_NAN: u32 = 0x7fc0_0000;

/// Elements in row-major order without gaps, so that every kernel may read
/// them as one slice. A clone shares the buffer.
#[derive(Clone, Debug)]
pub struct Tensor {
    dims: Dims,
    data: Data,
}

/// Where a tensor's elements are.
#[derive(Clone, Debug)]
pub enum Elements<T: Element> {
    /// In memory that comes back when nobody holds it any more.
    Held(Shared<T>),
    /// Where their frame arrived; nobody writes there.
    Received(Part),
}

impl<T: Element> Elements<T> {
    fn is_unique(&self) -> bool {
        matches!(self, Elements::Held(elements) if elements.is_unique())
    }

    fn into_buffer(self) -> Buffer<T> {
        match self {
            Elements::Held(elements) => elements.into_buffer(),
            Elements::Received(part) => Buffer::copy_of(part.elements()),
        }
    }
}

impl<T: Element> Deref for Elements<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match self {
            Elements::Held(elements) => elements,
            Elements::Received(part) => part.elements(),
        }
    }
}

/// The elements of a [`Tensor`].
#[derive(Clone, Debug)]
pub enum Data {
    /// Element type f32.
    F32(Elements<f32>),
    /// Element type i32.
    I32(Elements<i32>),
    /// Element type u8.
    U8(Elements<u8>),
    /// Element type bool.
    Bool(Elements<bool>),
}

/// An element type that a [`Tensor`] can hold.
pub trait Element: Pooled + PartialEq {
    /// `a` where `condition`, else `b`, by masking: a branch on data that
    /// nobody can predict would cost ten times as much.
    fn pick(condition: bool, a: Self, b: Self) -> Self;
    /// Wraps elements.
    fn wrap(elements: Elements<Self>) -> Data;
    /// The elements, if they have this type.
    fn buffer(data: &Data) -> Option<&Elements<Self>>;
    /// The elements by value, if they have this type.
    fn into_buffer(data: Data) -> Option<Elements<Self>>;
    /// Little-endian bytes as elements, where they lie aligned and any bytes are elements.
    fn read_in_place(bytes: &[u8]) -> Option<&[Self]>;
}

macro_rules! element {
    ($type:ty, $variant:ident, $pick:expr, $read:expr) => {
        impl Element for $type {
            #[inline(always)]
            fn pick(condition: bool, a: Self, b: Self) -> Self {
                let pick: fn(bool, Self, Self) -> Self = $pick;
                pick(condition, a, b)
            }
            fn wrap(elements: Elements<Self>) -> Data {
                Data::$variant(elements)
            }
            fn buffer(data: &Data) -> Option<&Elements<Self>> {
                if let Data::$variant(elements) = data { Some(elements) } else { None }
            }
            fn into_buffer(data: Data) -> Option<Elements<Self>> {
                if let Data::$variant(elements) = data { Some(elements) } else { None }
            }
            fn read_in_place(bytes: &[u8]) -> Option<&[Self]> {
                let read: fn(&[u8]) -> Option<&[Self]> = $read;
                read(bytes)
            }
        }
    };
}

/// `a` where `condition`, else `b`.
fn pick_bits(condition: bool, a: u32, b: u32) -> u32 {
    let mask = u32::from(condition).wrapping_neg();
    (a & mask) | (b & !mask)
}

element!(f32, F32, |c, a, b| f32::from_bits(pick_bits(c, a.to_bits(), b.to_bits())), words);
element!(i32, I32, |c, a, b| pick_bits(c, a as u32, b as u32) as i32, words);
element!(u8, U8, |c, a, b| pick_bits(c, a.into(), b.into()) as u8, |bytes| Some(bytes));
// Not every byte is a bool.
element!(bool, Bool, |c, a, b| (c & a) | (!c & b), |_| None);

/// Whether elements of that type can be read where they lie.
pub fn lies_as_it_is(dtype: DType, bytes: &[u8]) -> bool {
    match dtype {
        DType::F32 => f32::read_in_place(bytes).is_some(),
        DType::I32 => i32::read_in_place(bytes).is_some(),
        DType::U8 => u8::read_in_place(bytes).is_some(),
        DType::Bool => bool::read_in_place(bytes).is_some(),
    }
}

/// Aligned little-endian words as they are.
fn words<T: Pod>(bytes: &[u8]) -> Option<&[T]> {
    if cfg!(target_endian = "little") { bytemuck::try_cast_slice(bytes).ok() } else { None }
}

/// Extents as kernels want them.
pub fn dims_of(shape: &Shape) -> Dims {
    shape.dims().iter().map(|&extent| extent as usize).collect()
}

impl Tensor {
    /// A tensor from its elements in row-major order.
    ///
    /// # Panics
    /// Where the number of elements does not match the shape: a mistake of a
    /// kernel, since shapes are inferred before anything runs.
    pub fn new<T: Element>(dims: &[usize], elements: Vec<T>) -> Tensor {
        Tensor::of(dims, Buffer::from(elements))
    }

    /// The same from a buffer.
    ///
    /// # Panics
    /// As [`Tensor::new`].
    pub fn of<T: Element>(dims: &[usize], elements: Buffer<T>) -> Tensor {
        let count: usize = dims.iter().product();
        assert_eq!(elements.len(), count, "a kernel yields as many elements as its shape has");
        Tensor { dims: dims.into(), data: T::wrap(Elements::Held(elements.into_shared())) }
    }

    /// A tensor with one value everywhere.
    pub fn filled<T: Element>(dims: &[usize], value: T) -> Tensor {
        let count = dims.iter().product();
        Tensor::of(dims, Buffer::filled(count, value))
    }

    /// Extents, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The extents, to be kept beyond the tensor.
    pub fn extents(&self) -> Dims {
        self.dims
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nobody else holds the buffer, so that it may be written in place.
    pub fn is_unique(&self) -> bool {
        match &self.data {
            Data::F32(elements) => elements.is_unique(),
            Data::I32(elements) => elements.is_unique(),
            Data::U8(elements) => elements.is_unique(),
            Data::Bool(elements) => elements.is_unique(),
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F32(_) => DType::F32,
            Data::I32(_) => DType::I32,
            Data::U8(_) => DType::U8,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// Element type and extents.
    pub fn ty(&self) -> TensorType {
        let dims: Vec<u32> = self.dims().iter().map(|&extent| extent as u32).collect();
        TensorType { dtype: self.dtype(), shape: Shape(dims) }
    }

    /// Whether element type and extents are those of `ty`.
    pub fn has_type(&self, ty: &TensorType) -> bool {
        let extents = ty.shape.dims().iter().map(|&extent| extent as usize);
        self.dtype() == ty.dtype && self.dims().iter().copied().eq(extents)
    }

    /// Bytes of the elements.
    pub fn bytes(&self) -> u64 {
        self.len() as u64 * self.dtype().bytes()
    }

    /// The elements in row-major order.
    ///
    /// # Panics
    /// Where the tensor holds another element type; validation excludes it.
    pub fn elements<T: Element>(&self) -> &[T] {
        T::buffer(&self.data).expect("validation has checked element types")
    }

    /// The elements in row-major order, without copying where nobody else
    /// holds the buffer.
    ///
    /// # Panics
    /// As [`Tensor::elements`].
    pub fn into_elements<T: Element>(self) -> Buffer<T> {
        let elements = T::into_buffer(self.data).expect("validation has checked element types");
        elements.into_buffer()
    }

    /// The same elements under other extents of the same count; never copies.
    ///
    /// # Panics
    /// Where the counts differ; validation excludes it.
    pub fn reshaped(self, dims: &[usize]) -> Tensor {
        let count: usize = dims.iter().product();
        assert_eq!(self.len(), count, "validation has checked the number of elements");
        Tensor { dims: dims.into(), data: self.data }
    }

    /// As a tensor of burn's backend, without copying where nobody else holds the buffer.
    pub fn into_burn(self) -> NdArrayTensor {
        fn array<T: Element>(tensor: Tensor) -> SharedArray<T> {
            let dims = IxDyn(tensor.dims());
            let elements = tensor.into_elements::<T>().into_vec();
            ArrayD::from_shape_vec(dims, elements)
                .expect("a tensor has as many elements as its shape")
                .into_shared()
        }
        match self.data {
            Data::F32(_) => array::<f32>(self).into(),
            Data::I32(_) => array::<i32>(self).into(),
            Data::U8(_) => array::<u8>(self).into(),
            Data::Bool(_) => array::<bool>(self).into(),
        }
    }

    /// From a tensor of burn's backend, brought to row-major order.
    ///
    /// # Panics
    /// On element types that no graph has.
    pub fn from_burn(tensor: NdArrayTensor) -> Tensor {
        fn standard<T: Element>(array: SharedArray<T>) -> Tensor {
            let dims = array.shape().to_vec();
            let array = match array.is_standard_layout() {
                true => array,
                false => array.as_standard_layout().into_owned().into_shared(),
            };
            let elements = match array.try_into_owned_nocopy() {
                Ok(owned) => {
                    let count = owned.len();
                    let (mut elements, offset) = owned.into_raw_vec_and_offset();
                    elements.drain(..offset.unwrap_or(0));
                    elements.truncate(count);
                    elements
                }
                Err(shared) => shared.iter().copied().collect(),
            };
            Tensor::of(&dims, Buffer::returned(elements))
        }
        match tensor {
            NdArrayTensor::F32(storage) => standard(storage.into_shared()),
            NdArrayTensor::I32(storage) => standard(storage.into_shared()),
            NdArrayTensor::U8(storage) => standard(storage.into_shared()),
            NdArrayTensor::Bool(storage) => standard(storage.into_shared()),
            _ => unreachable!("no op yields another element type"),
        }
    }

    /// A tensor of a frame, whose bytes stay where they are if they can be read there. The caller
    /// has checked them as for [`Tensor::from_le_bytes`].
    pub fn received(ty: &TensorType, part: Part) -> Tensor {
        if !lies_as_it_is(ty.dtype, part.bytes()) {
            return Tensor::from_le_bytes(ty, part.bytes());
        }
        let data = match ty.dtype {
            DType::F32 => Data::F32(Elements::Received(part)),
            DType::I32 => Data::I32(Elements::Received(part)),
            DType::U8 => Data::U8(Elements::Received(part)),
            DType::Bool => unreachable!("a bool is not read where it lies"),
        };
        Tensor { dims: dims_of(&ty.shape), data }
    }

    /// Item number `at` along the first axis, of extents `dims`; copied unless it lies in a frame.
    ///
    /// # Panics
    /// Where there is no such item; the caller has checked the type.
    pub fn item(&self, at: usize, dims: &[usize]) -> Tensor {
        fn typed<T: Element>(elements: &Elements<T>, at: usize, dims: &[usize]) -> Data {
            let count: usize = dims.iter().product();
            let size = count * size_of::<T>();
            T::wrap(match elements {
                Elements::Received(part) => Elements::Received(part.part(at * size, size)),
                Elements::Held(elements) => {
                    let item = &elements[at * count..(at + 1) * count];
                    Elements::Held(Buffer::copy_of(item).into_shared())
                }
            })
        }
        let data = match &self.data {
            Data::F32(elements) => typed(elements, at, dims),
            Data::I32(elements) => typed(elements, at, dims),
            Data::U8(elements) => typed(elements, at, dims),
            Data::Bool(elements) => typed(elements, at, dims),
        };
        Tensor { dims: dims.into(), data }
    }

    /// Reads little-endian elements. The caller has checked that `bytes` has
    /// the length of `ty` and that bools are 0 or 1; the rest is read as is.
    /// What is read may stay for long, so it takes exactly its bytes.
    pub fn from_le_bytes(ty: &TensorType, bytes: &[u8]) -> Tensor {
        fn read<T: Element, const N: usize>(
            ty: &TensorType,
            bytes: &[u8],
            element: impl Fn([u8; N]) -> T,
        ) -> Tensor {
            let (words, _) = bytes.as_chunks::<N>();
            let elements: Vec<T> = words.iter().map(|&word| element(word)).collect();
            Tensor::new(&dims_of(&ty.shape), elements)
        }
        match ty.dtype {
            DType::F32 => read(ty, bytes, f32::from_le_bytes),
            DType::I32 => read(ty, bytes, i32::from_le_bytes),
            DType::U8 => read(ty, bytes, |[byte]: [u8; 1]| byte),
            DType::Bool => read(ty, bytes, |[byte]: [u8; 1]| byte != 0),
        }
    }

    /// The elements as little-endian bytes, every NaN as [`CANONICAL_NAN`].
    pub fn to_le_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes() as usize);
        self.append_le_bytes(&mut bytes);
        bytes
    }

    /// Writes them behind what is there.
    pub fn append_le_bytes(&self, bytes: &mut Vec<u8>) {
        fn words<T: Element>(tensor: &Tensor, to: &mut Vec<u8>, word: impl Fn(T) -> [u8; 4]) {
            let elements = tensor.elements::<T>();
            let start = to.len();
            to.resize(start + 4 * elements.len(), 0);
            let (words, _) = to[start..].as_chunks_mut();
            words.iter_mut().zip(elements).for_each(|(to, &x)| *to = word(x));
        }
        match self.data {
            Data::F32(_) => words(self, bytes, |x: f32| canonical_bits(x).to_le_bytes()),
            Data::I32(_) => words(self, bytes, i32::to_le_bytes),
            Data::U8(_) => bytes.extend_from_slice(self.elements()),
            Data::Bool(_) => bytes.extend(self.elements().iter().map(|&x: &bool| u8::from(x))),
        }
    }
}

/// The bits of `x`, with one pattern for all NaNs.
pub fn canonical_bits(x: f32) -> u32 {
    if x.is_nan() { CANONICAL_NAN } else { x.to_bits() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::limit;

    #[test]
    fn what_arrives_takes_exactly_its_bytes() {
        limit(1 << 20, 0);
        drop(Buffer::filled(1000, 0f32));
        let read = Tensor::from_le_bytes(&TensorType::new(DType::F32, [950]), &[0; 3800]);
        let Data::F32(Elements::Held(elements)) = &read.data else { panic!("{read:?}") };
        assert_eq!(elements.capacity(), 950);
        limit(0, 0);
    }
}
