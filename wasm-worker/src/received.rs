//! Frames that stay where they arrived, for the tensors that lie in them: what
//! a page hands over is copied once, into the module's memory.

use crate::tensor::{Element, lies_as_it_is};
use raven_protocol::{Frame, TensorView};
use std::cell::OnceCell;
use std::rc::Rc;

/// Bytes of a frame, to be kept where a tensor asks for it.
#[derive(Debug)]
pub struct Received<'a> {
    bytes: &'a [u8],
    kept: OnceCell<Rc<Vec<u8>>>,
}

/// A tensor's bytes within a frame that is kept as long as anybody reads them.
#[derive(Clone, Debug)]
pub struct Part {
    frame: Rc<Vec<u8>>,
    start: usize,
    len: usize,
}

impl<'a> Received<'a> {
    /// Bytes that belong to somebody else: they are copied once a tensor is to stay.
    pub fn borrowed(bytes: &'a [u8]) -> Self {
        Received { bytes, kept: OnceCell::new() }
    }

    /// Bytes that are ours.
    pub fn owned(bytes: &'a Rc<Vec<u8>>) -> Self {
        Received { bytes, kept: OnceCell::from(bytes.clone()) }
    }

    /// The bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes that are held for the tensors of this frame, at most: all of it, and those of tensors
    /// that cannot be read where they lie.
    pub fn held_bytes(&self, frame: &Frame<'_>) -> u64 {
        let copied = frame.tensors().filter(|tensor| !lies_as_it_is(tensor.dtype, tensor.data));
        self.bytes.len() as u64 + copied.map(|tensor| tensor.data.len() as u64).sum::<u64>()
    }

    /// The bytes of one of its tensors.
    ///
    /// # Panics
    /// Where the tensor is one of another frame.
    pub fn part(&self, tensor: &TensorView<'_>) -> Part {
        let start = tensor.data.as_ptr().addr().wrapping_sub(self.bytes.as_ptr().addr());
        let len = tensor.data.len();
        assert!(start <= self.bytes.len() && len <= self.bytes.len() - start, "it lies in here");
        let frame = self.kept.get_or_init(|| Rc::new(self.bytes.to_vec())).clone();
        Part { frame, start, len }
    }
}

impl Part {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.frame[self.start..self.start + self.len]
    }

    /// The bytes as elements. They are aligned: that was looked at when the tensor was made.
    pub fn elements<T: Element>(&self) -> &[T] {
        T::read_in_place(self.bytes()).expect("a tensor stays where its elements are aligned")
    }

    /// `len` bytes of it from `start` on.
    pub fn part(&self, start: usize, len: usize) -> Part {
        assert!(start <= self.len && len <= self.len - start, "it lies in here");
        Part { frame: self.frame.clone(), start: self.start + start, len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Blob;
    use crate::tensor::Tensor;
    use raven_graph::{DType, TensorType};
    use raven_protocol::frame::encode;
    use raven_protocol::{FrameLimits, TensorPart, ToContributor, blob_id};

    fn frame() -> Vec<u8> {
        let part = |name: &str, dtype, data| {
            let ty = TensorType::new(dtype, [4]);
            TensorPart { name: name.to_owned(), ty, data }
        };
        let words: Vec<u8> = [1.5f32, -2.0, 0.0, 7.25].map(f32::to_le_bytes).concat();
        let numbers: Vec<u8> = [3i32, -4, 5, 6].map(i32::to_le_bytes).concat();
        let id = blob_id(std::iter::empty());
        encode(
            &ToContributor::Blob { id },
            &[
                part("bytes", DType::U8, &[9, 8, 7, 6]),
                part("words", DType::F32, &words),
                part("truths", DType::Bool, &[1, 0, 0, 1]),
                part("numbers", DType::I32, &numbers),
            ],
        )
    }

    #[test]
    fn tensors_lie_where_their_frame_arrived() {
        let bytes = Rc::new(frame());
        let place = bytes.as_ptr_range();
        let received = Received::owned(&bytes);
        let decoded = Frame::decode(&bytes, &FrameLimits::TO_CONTRIBUTOR).expect("a frame");
        let blob = Blob::from_frame(&decoded, &received);
        let tensor = |name| blob.tensor(name).expect("it is there");
        let [octets, words, numbers] = ["bytes", "words", "numbers"].map(tensor);
        assert_eq!(octets.elements::<u8>(), [9, 8, 7, 6]);
        assert_eq!(words.elements::<f32>(), [1.5, -2.0, 0.0, 7.25]);
        assert_eq!(numbers.elements::<i32>(), [3, -4, 5, 6]);
        assert!(place.contains(&octets.elements::<u8>().as_ptr()));
        assert!(place.contains(&words.elements::<f32>().as_ptr().cast()));
        assert!(place.contains(&numbers.elements::<i32>().as_ptr().cast()));
        assert_eq!(tensor("truths").elements::<bool>(), [true, false, false, true]);
        assert_eq!(received.held_bytes(&decoded), bytes.len() as u64 + 4);
        assert!(!words.clone().is_unique(), "nobody writes into a frame");
        assert_eq!(words.item(1, &[]).elements::<f32>(), [-2.0]);
        let mut copy = words.clone().into_elements::<f32>();
        copy[0] = 3.0;
        assert_eq!(words.elements::<f32>()[0], 1.5);
    }

    #[test]
    fn what_does_not_lie_aligned_is_copied() {
        let bytes: Rc<Vec<u8>> = Rc::new((0..9).collect());
        let received = Received::owned(&bytes);
        let ty = TensorType::new(DType::I32, [2]);
        for start in [0, 1] {
            let data = &bytes[start..start + 8];
            let view = TensorView { name: "x", dtype: ty.dtype, shape: &ty.shape, data };
            let tensor = Tensor::received(&ty, received.part(&view));
            let expected = Tensor::from_le_bytes(&ty, data);
            assert_eq!(tensor.elements::<i32>(), expected.elements::<i32>());
            let is_inside =
                bytes.as_ptr_range().contains(&tensor.elements::<i32>().as_ptr().cast());
            assert_eq!(is_inside, data.as_ptr().addr().is_multiple_of(4));
        }
    }
}
