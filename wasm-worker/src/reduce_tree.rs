//! How one output of a `Map` combines over its micro-batches.

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
    /// Sums with the number of values in each, sizes falling.
    partial: Vec<(u32, Tensor)>,
}

impl TreeSum {
    /// Adds the next value.
    pub fn push(&mut self, value: Tensor) {
        let (mut size, mut sum) = (1, value);
        while let Some((_, left)) = self.partial.pop_if(|(below, _)| *below == size) {
            sum = add(left, &sum);
            size *= 2;
        }
        self.partial.push((size, sum));
    }

    /// The root, or `None` where nothing was added.
    pub fn finish(mut self) -> Option<Tensor> {
        let (_, mut sum) = self.partial.pop()?;
        while let Some((_, left)) = self.partial.pop() {
            sum = add(left, &sum);
        }
        Some(sum)
    }
}

fn add(left: Tensor, right: &Tensor) -> Tensor {
    let dims = left.dims().to_vec();
    let mut sum = left.into_elements::<f32>();
    for (sum, &right) in sum.iter_mut().zip(right.elements::<f32>()) {
        *sum += right;
    }
    Tensor::of(&dims, sum)
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

    /// Adds the next value.
    pub fn push(&mut self, value: &Tensor) {
        self.extent += value.dims()[0] as u64;
        self.bytes.extend(value.to_le_bytes());
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
                tree.push(Tensor::new(&[], vec![value]));
            }
            let sum = tree.finish().expect("not empty").elements::<f32>()[0];
            assert_eq!(sum.to_bits(), root(&values).to_bits(), "{count} values");
            orders_differ |= sum != values.iter().sum::<f32>();
        }
        assert!(orders_differ, "the numbers must tell one order from another");
    }
}
