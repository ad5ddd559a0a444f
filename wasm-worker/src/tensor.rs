//! Values between ops: typed, row-major, shared until written.

use burn_ndarray::{NdArrayTensor, SharedArray};
use ndarray::{ArrayD, IxDyn};
use raven_graph::{DType, Shape, TensorType};

/// The only bits in which a NaN leaves the kernel.
pub const CANONICAL_NAN: u32 = 0x7fc0_0000;

/// A tensor on burn's ndarray backend.
///
/// Invariant: the array is in standard (row-major, gapless) layout, so every
/// kernel may read it as one slice. A clone shares the buffer.
#[derive(Clone, Debug)]
pub enum Tensor {
    /// Element type f32.
    F32(SharedArray<f32>),
    /// Element type i32.
    I32(SharedArray<i32>),
    /// Element type u8.
    U8(SharedArray<u8>),
    /// Element type bool.
    Bool(SharedArray<bool>),
}

/// An element type that a [`Tensor`] can hold.
pub trait Element: Copy + Default + PartialEq + 'static {
    /// `a` where `condition`, else `b`, by masking: a branch on data that
    /// nobody can predict would cost ten times as much.
    fn pick(condition: bool, a: Self, b: Self) -> Self;
    /// Wraps an array in standard layout.
    fn wrap(array: SharedArray<Self>) -> Tensor;
    /// The array, if the tensor holds this element type.
    fn array(tensor: &Tensor) -> Option<&SharedArray<Self>>;
    /// The array by value, if the tensor holds this element type.
    fn into_array(tensor: Tensor) -> Option<SharedArray<Self>>;
}

macro_rules! element {
    ($type:ty, $variant:ident, $pick:expr) => {
        impl Element for $type {
            #[inline(always)]
            fn pick(condition: bool, a: Self, b: Self) -> Self {
                let pick: fn(bool, Self, Self) -> Self = $pick;
                pick(condition, a, b)
            }
            fn wrap(array: SharedArray<Self>) -> Tensor {
                Tensor::$variant(array)
            }
            fn array(tensor: &Tensor) -> Option<&SharedArray<Self>> {
                if let Tensor::$variant(array) = tensor { Some(array) } else { None }
            }
            fn into_array(tensor: Tensor) -> Option<SharedArray<Self>> {
                if let Tensor::$variant(array) = tensor { Some(array) } else { None }
            }
        }
    };
}

/// `a` where `condition`, else `b`.
fn pick_bits(condition: bool, a: u32, b: u32) -> u32 {
    let mask = u32::from(condition).wrapping_neg();
    (a & mask) | (b & !mask)
}

element!(f32, F32, |c, a, b| f32::from_bits(pick_bits(c, a.to_bits(), b.to_bits())));
element!(i32, I32, |c, a, b| pick_bits(c, a as u32, b as u32) as i32);
element!(u8, U8, |c, a, b| pick_bits(c, a.into(), b.into()) as u8);
element!(bool, Bool, |c, a, b| (c & a) | (!c & b));

/// Extents as ndarray wants them.
pub fn dims_of(shape: &Shape) -> Vec<usize> {
    shape.dims().iter().map(|&extent| extent as usize).collect()
}

impl Tensor {
    /// A tensor from its elements in row-major order.
    ///
    /// # Panics
    /// Where the number of elements does not match the shape: a mistake of a
    /// kernel, since shapes are inferred before anything runs.
    pub fn new<T: Element>(dims: &[usize], elements: Vec<T>) -> Tensor {
        let array = ArrayD::from_shape_vec(IxDyn(dims), elements)
            .expect("a kernel yields as many elements as its shape has");
        T::wrap(array.into_shared())
    }

    /// A tensor with one value everywhere.
    pub fn filled<T: Element>(dims: &[usize], value: T) -> Tensor {
        let count = dims.iter().product();
        Tensor::new(dims, vec![value; count])
    }

    /// Extents, outermost first.
    pub fn dims(&self) -> &[usize] {
        match self {
            Tensor::F32(array) => array.shape(),
            Tensor::I32(array) => array.shape(),
            Tensor::U8(array) => array.shape(),
            Tensor::Bool(array) => array.shape(),
        }
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
        match self {
            Tensor::F32(array) => array.is_unique(),
            Tensor::I32(array) => array.is_unique(),
            Tensor::U8(array) => array.is_unique(),
            Tensor::Bool(array) => array.is_unique(),
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            Tensor::F32(_) => DType::F32,
            Tensor::I32(_) => DType::I32,
            Tensor::U8(_) => DType::U8,
            Tensor::Bool(_) => DType::Bool,
        }
    }

    /// Element type and extents.
    pub fn ty(&self) -> TensorType {
        let dims: Vec<u32> = self.dims().iter().map(|&extent| extent as u32).collect();
        TensorType { dtype: self.dtype(), shape: Shape(dims) }
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
        T::array(self)
            .expect("validation has checked element types")
            .as_slice()
            .expect("tensors are in standard layout")
    }

    /// The elements in row-major order, without copying where nobody else
    /// holds the buffer.
    ///
    /// # Panics
    /// As [`Tensor::elements`].
    pub fn into_elements<T: Element>(self) -> Vec<T> {
        let array = T::into_array(self).expect("validation has checked element types");
        let count = array.len();
        match array.try_into_owned_nocopy() {
            Ok(owned) => {
                let (mut elements, offset) = owned.into_raw_vec_and_offset();
                let offset = offset.unwrap_or(0);
                if offset > 0 {
                    elements.drain(..offset);
                }
                elements.truncate(count);
                elements
            }
            Err(shared) => shared.iter().copied().collect(),
        }
    }

    /// The same elements under other extents of the same count; never copies.
    ///
    /// # Panics
    /// Where the counts differ; validation excludes it.
    pub fn reshaped(self, dims: &[usize]) -> Tensor {
        fn apply<T: Element>(array: SharedArray<T>, dims: &[usize]) -> Tensor {
            T::wrap(
                array
                    .into_shape_with_order(IxDyn(dims))
                    .expect("validation has checked the number of elements"),
            )
        }
        match self {
            Tensor::F32(array) => apply(array, dims),
            Tensor::I32(array) => apply(array, dims),
            Tensor::U8(array) => apply(array, dims),
            Tensor::Bool(array) => apply(array, dims),
        }
    }

    /// As a tensor of burn's backend; shares the buffer.
    pub fn into_burn(self) -> NdArrayTensor {
        match self {
            Tensor::F32(array) => array.into(),
            Tensor::I32(array) => array.into(),
            Tensor::U8(array) => array.into(),
            Tensor::Bool(array) => array.into(),
        }
    }

    /// From a tensor of burn's backend, brought to standard layout.
    ///
    /// # Panics
    /// On element types that no graph has.
    pub fn from_burn(tensor: NdArrayTensor) -> Tensor {
        fn standard<T: Element>(array: SharedArray<T>) -> Tensor {
            if array.is_standard_layout() {
                T::wrap(array)
            } else {
                T::wrap(array.as_standard_layout().into_owned().into_shared())
            }
        }
        match tensor {
            NdArrayTensor::F32(storage) => standard(storage.into_shared()),
            NdArrayTensor::I32(storage) => standard(storage.into_shared()),
            NdArrayTensor::U8(storage) => standard(storage.into_shared()),
            NdArrayTensor::Bool(storage) => standard(storage.into_shared()),
            _ => unreachable!("no op yields another element type"),
        }
    }

    /// Reads little-endian elements. The caller has checked that `bytes` has
    /// the length of `ty` and that bools are 0 or 1; the rest is read as is.
    pub fn from_le_bytes(ty: &TensorType, bytes: &[u8]) -> Tensor {
        let dims = dims_of(&ty.shape);
        match ty.dtype {
            DType::F32 => {
                let words = bytes.chunks_exact(4);
                Tensor::new(
                    &dims,
                    words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
                )
            }
            DType::I32 => {
                let words = bytes.chunks_exact(4);
                Tensor::new(
                    &dims,
                    words.map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
                )
            }
            DType::U8 => Tensor::new(&dims, bytes.to_vec()),
            DType::Bool => Tensor::new(&dims, bytes.iter().map(|&byte| byte != 0).collect()),
        }
    }

    /// The elements as little-endian bytes, every NaN as [`CANONICAL_NAN`].
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Tensor::F32(_) => self
                .elements::<f32>()
                .iter()
                .flat_map(|&x| canonical_bits(x).to_le_bytes())
                .collect(),
            Tensor::I32(_) => self.elements::<i32>().iter().flat_map(|x| x.to_le_bytes()).collect(),
            Tensor::U8(_) => self.elements::<u8>().to_vec(),
            Tensor::Bool(_) => self.elements::<bool>().iter().map(|&x| u8::from(x)).collect(),
        }
    }
}

/// The bits of `x`, with one pattern for all NaNs.
pub fn canonical_bits(x: f32) -> u32 {
    if x.is_nan() { CANONICAL_NAN } else { x.to_bits() }
}
