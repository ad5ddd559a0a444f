//! How one output of a `Map` combines over its micro-batches.

use crate::axes::Dims;
use crate::buffer::Buffer;
use crate::tensor::Tensor;
use raven_graph::TensorType;

/// Sums values in the order of a fixed balanced binary tree over their index,
/// holding one partial sum per level.
///
/// A run of length n is split at the greatest power of two below n. Going
/// through the values in order, that is a binary counter: two sums of equal
/// size merge at once, and what is left at the end merges from the smallest up.
#[derive(Debug, Default)]
pub struct TreeSum {
    /// Extents of the values.
    dims: Dims,
    /// A value whose neighbour is still to come.
    single: Option<Tensor>,
    /// Sums of two values and more with the number of values in each, sizes falling.
    partial: Vec<(u32, Buffer<f32>)>,
    /// Room for further sums. A sum in a buffer of its own leaves its values' to the next run.
    free: Vec<Buffer<f32>>,
}

impl TreeSum {
    /// Sums of two values and more that are held at once of `count` values.
    fn sums(count: u32) -> usize {
        count.checked_ilog2().unwrap_or(0) as usize
    }

    /// Values and sums that are held at once of `count` values, at most.
    pub fn levels(count: u32) -> u64 {
        Self::sums(count) as u64 + 2
    }

    /// Bytes of the lists of them, beside the sums themselves.
    pub fn list_bytes(count: u32) -> u64 {
        let sizes = size_of::<(u32, Buffer<f32>)>() + size_of::<Buffer<f32>>();
        (Self::sums(count) * sizes) as u64
    }

    /// Takes the memory for `count` values of extents `dims`. The caller has checked that it fits.
    pub fn reserve(&mut self, count: u32, dims: Dims) {
        self.dims = dims;
        let (sums, elements) = (Self::sums(count), dims.iter().product());
        self.partial.reserve_exact(sums);
        self.free.reserve_exact(sums);
        self.free.extend((0..sums).map(|_| Buffer::stale(elements)));
    }

    /// Adds the next value.
    pub fn push(&mut self, value: &Tensor) {
        let Some(left) = self.single.take() else {
            self.single = Some(value.clone());
            return;
        };
        let pairs = left.elements::<f32>().iter().zip(value.elements::<f32>());
        let mut sum = self.free.pop().unwrap_or_else(|| Buffer::stale(left.len()));
        sum.iter_mut().zip(pairs).for_each(|(sum, (&left, &right))| *sum = left + right);
        let mut size = 2;
        while let Some((_, mut left)) = self.partial.pop_if(|(below, _)| *below == size) {
            add(&mut left, &sum);
            self.free.push(std::mem::replace(&mut sum, left));
            size *= 2;
        }
        self.partial.push((size, sum));
    }

    /// The root, or `None` where nothing was added.
    pub fn finish(mut self) -> Option<Tensor> {
        let Some((_, mut sum)) = self.partial.pop() else { return self.single };
        if let Some(single) = &self.single {
            add(&mut sum, single.elements());
        }
        while let Some((_, mut left)) = self.partial.pop() {
            add(&mut left, &sum);
            sum = left;
        }
        Some(Tensor::of(&self.dims, sum))
    }
}

fn add(left: &mut [f32], right: &[f32]) {
    left.iter_mut().zip(right).for_each(|(left, &right)| *left += right);
}

/// Joins values along their first axis, as the bytes that are sent.
#[derive(Debug)]
pub struct Joined {
    ty: TensorType,
    extent: u64,
    bytes: Vec<u8>,
}

impl Joined {
    /// An empty join of values of type `ty`.
    pub fn new(ty: TensorType) -> Self {
        Joined { ty, extent: 0, bytes: Vec::new() }
    }

    /// Makes room for `count` values. The caller has checked that they fit.
    pub fn reserve(&mut self, count: u32) {
        let bytes = self.ty.bytes().unwrap_or(0) as usize;
        self.bytes.reserve_exact(bytes.saturating_mul(count as usize));
    }

    /// Adds the next value.
    pub fn push(&mut self, value: &Tensor) {
        self.extent += value.dims()[0] as u64;
        value.append_le_bytes(&mut self.bytes);
    }

    /// The whole, as type and bytes.
    pub fn finish(self) -> (TensorType, Vec<u8>) {
        let mut ty = self.ty;
        ty.shape.0[0] = self.extent as u32;
        (ty, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree by its definition.
    fn root(values: &[f32]) -> f32 {
        match values {
            [value] => *value,
            _ => {
                let half = values.len().next_power_of_two() / 2;
                root(&values[..half]) + root(&values[half..])
            }
        }
    }

    #[test]
    fn the_counter_builds_the_tree_for_every_length() {
        // Numbers whose sum depends on the order of additions.
        let value =
            |i: usize| ((i * 2_654_435_761) % 1_000_003) as f32 * 1e-3 + 1e4 * (i % 7) as f32;
        let mut orders_differ = false;
        for count in 1..200 {
            let values: Vec<f32> = (0..count).map(value).collect();
            let mut tree = TreeSum::default();
            for &value in &values {
                tree.push(&Tensor::new(&[], vec![value]));
            }
            let sum = tree.finish().expect("not empty").elements::<f32>()[0];
            assert_eq!(sum.to_bits(), root(&values).to_bits(), "{count} values");
            orders_differ |= sum != values.iter().sum::<f32>();
        }
        assert!(orders_differ, "the numbers must tell one order from another");
    }
}
