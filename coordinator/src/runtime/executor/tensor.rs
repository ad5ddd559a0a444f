//! Tensors as the shell holds them: bytes with a type, never numbers.

use super::ExecutorError;
use super::kernel::read_frame;
use axum::body::Bytes;
use raven_graph::{DType, TensorType};
use raven_protocol::{TensorPart, TensorView};

/// A tensor's little-endian bytes. Clones share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Element type and extents.
    pub ty: TensorType,
    /// Exactly as many bytes as the type takes.
    pub data: Bytes,
}

impl Tensor {
    /// A tensor of zeros.
    pub fn zeros(ty: TensorType) -> Tensor {
        let bytes = ty.bytes().unwrap_or(0) as usize;
        Tensor { ty, data: Bytes::from(vec![0; bytes]) }
    }

    /// A single f32.
    pub fn scalar(value: f32) -> Tensor {
        let ty = TensorType::new(DType::F32, []);
        Tensor { ty, data: Bytes::copy_from_slice(&value.to_le_bytes()) }
    }

    /// Row numbers, i32 `[runs, rows]`.
    pub fn rows(runs: u32, rows: u32, numbers: &[i32]) -> Tensor {
        let data: Vec<u8> = numbers.iter().flat_map(|row| row.to_le_bytes()).collect();
        Tensor { ty: TensorType::new(DType::I32, [runs, rows]), data: data.into() }
    }

    /// As a part of a frame.
    pub fn part(&self, name: impl Into<String>) -> TensorPart<'_> {
        TensorPart { name: name.into(), ty: self.ty.clone(), data: &self.data }
    }

    /// As a named view, for digests.
    pub fn view<'a>(&'a self, name: &'a str) -> TensorView<'a> {
        TensorView { name, dtype: self.ty.dtype, shape: &self.ty.shape, data: &self.data }
    }

    /// The number of a scalar f32.
    pub fn as_scalar(&self) -> Option<f32> {
        let bytes: [u8; 4] = self.data.as_ref().try_into().ok()?;
        (self.ty == TensorType::new(DType::F32, [])).then(|| f32::from_le_bytes(bytes))
    }

    /// The numbers of an f32 tensor, in row-major order.
    pub fn as_f32s(&self) -> Option<impl Iterator<Item = f32> + Clone + '_> {
        let chunks = self.data.chunks_exact(4);
        let number = |chunk: &[u8]| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        (self.ty.dtype == DType::F32).then(|| chunks.map(number))
    }
}

/// The tensors of a frame, in its order, sharing its bytes.
///
/// # Errors
/// [`ExecutorError::Frame`].
pub fn tensors_of(frame: &Bytes) -> Result<Vec<(String, Tensor)>, ExecutorError> {
    let decoded = read_frame(frame)?;
    let tensors = decoded.tensors().map(|view| {
        (view.name.to_owned(), Tensor { ty: view.ty(), data: frame.slice_ref(view.data) })
    });
    Ok(tensors.collect())
}
