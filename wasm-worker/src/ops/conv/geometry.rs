//! The extents of a convolution.

use super::framed::Extents;
use crate::gemm::WholeRight;
use raven_graph::Conv2dAttrs;
use std::ops::Range;

/// The frames of all groups may take this many times the image, and as many
/// elements more: with wide padding or dilation they would be nearly all zeros.
const FRAME_TIMES_MAX: u64 = 4;
const FRAME_EXTRA_MAX: u64 = 64 * 1024;

/// All extents of one convolution.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub attrs: Conv2dAttrs,
    pub images: usize,
    pub groups: usize,
    /// Channels and filters per group.
    pub channels: usize,
    pub filters: usize,
    pub height: usize,
    pub width: usize,
    pub kernel: [usize; 2],
    pub out_height: usize,
    pub out_width: usize,
}

impl Geometry {
    pub fn new(attrs: &Conv2dAttrs, image: &[usize], weight: &[usize], out: &[usize]) -> Self {
        let groups = attrs.groups as usize;
        Geometry {
            attrs: *attrs,
            images: image[0],
            groups,
            channels: image[1] / groups,
            filters: weight[0] / groups,
            height: image[2],
            width: image[3],
            kernel: [weight[2], weight[3]],
            out_height: out[2],
            out_width: out[3],
        }
    }

    /// Rows of the unrolled matrix: elements of one patch.
    pub fn patch(&self) -> usize {
        self.channels * self.kernel[0] * self.kernel[1]
    }

    pub fn plane(&self) -> usize {
        self.height * self.width
    }

    pub fn out_plane(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Elements of one group of one image, and where they start.
    pub fn image_range(&self, image: usize, group: usize) -> Range<usize> {
        let size = self.channels * self.plane();
        let at = (image * self.groups + group) * size;
        at..at + size
    }

    pub fn out_range(&self, image: usize, group: usize) -> Range<usize> {
        let size = self.filters * self.out_plane();
        let at = (image * self.groups + group) * size;
        at..at + size
    }

    pub fn weight_range(&self, group: usize) -> Range<usize> {
        let size = self.filters * self.patch();
        group * size..(group + 1) * size
    }

    /// A kernel of one tap with unit steps and no padding reads the image as it lies.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.attrs.stride == [1, 1] && self.attrs.padding == [0; 4]
    }

    /// The input row that output row `out_row` reads at tap `tap`, unless it is
    /// padding. In 64 bits, because stride and padding alone may fill 32.
    pub fn source_row(&self, out_row: usize, tap: usize) -> Option<usize> {
        let [stride, dilation] = [self.attrs.stride[0], self.attrs.dilation[0]].map(u64::from);
        let at = out_row as u64 * stride + tap as u64 * dilation;
        let row = at.checked_sub(self.attrs.padding[0].into())?;
        (row < self.height as u64).then_some(row as usize)
    }

    /// Output columns that read inside of the image at tap `tap`, and the input
    /// column that the first of them reads.
    pub fn columns_inside(&self, tap: usize) -> (Range<usize>, usize) {
        let [_, _, left, _] = self.attrs.padding.map(u64::from);
        let [stride, dilation] = [self.attrs.stride[1], self.attrs.dilation[1]].map(u64::from);
        let (width, out_width) = (self.width as u64, self.out_width as u64);
        let offset = tap as u64 * dilation;
        let first = left.saturating_sub(offset).div_ceil(stride).min(out_width);
        let end = (width + left).saturating_sub(offset).div_ceil(stride).min(out_width);
        if end <= first {
            return (first as usize..first as usize, 0);
        }
        let source = first * stride + offset - left;
        (first as usize..end as usize, source as usize)
    }

    /// Calls `visit(row of cols, channel, tap row, tap column)` in storage order.
    pub fn for_each_patch_row(&self, mut visit: impl FnMut(usize, usize, usize, usize)) {
        let mut row = 0;
        for channel in 0..self.channels {
            for tap_row in 0..self.kernel[0] {
                for tap_column in 0..self.kernel[1] {
                    visit(row, channel, tap_row, tap_column);
                    row += 1;
                }
            }
        }
    }

    /// Taps of one channel.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// What [`super::framed`] needs for the forward pass and the weight gradient, where it serves.
    pub fn framed(&self) -> Option<Extents> {
        let [top, _, left, _] = self.attrs.padding.map(|zeros| zeros as usize);
        // A kernel of one tap is a plain matrix product.
        if self.is_pointwise() {
            return None;
        }
        self.within_bounds(Extents {
            channels: self.channels,
            image: [self.height, self.width],
            before: [top, left],
            kernel: self.kernel,
            dilation: self.attrs.dilation.map(|step| step as usize),
            stride: self.attrs.stride.map(|step| step as usize),
            out: [self.out_height, self.out_width],
        })
    }

    /// The same for the input gradient: `dy` is read, the image is written.
    pub fn framed_input_grad(&self) -> Option<Extents> {
        if self.attrs.stride != [1, 1] || self.is_pointwise() {
            return None;
        }
        let [top, _, left, _] = self.attrs.padding;
        let before = |axis: usize, zeros: u32| {
            let before = self.reach(axis).checked_sub(zeros.into())?;
            usize::try_from(before).ok()
        };
        self.within_bounds(Extents {
            channels: self.filters,
            image: [self.out_height, self.out_width],
            before: [before(0, top)?, before(1, left)?],
            kernel: self.kernel,
            dilation: self.attrs.dilation.map(|step| step as usize),
            stride: [1, 1],
            out: [self.height, self.width],
        })
    }

    /// The extents of one group, unless its frame would be nearly all zeros.
    fn within_bounds(&self, extents: Extents) -> Option<Extents> {
        let [rows, pitch] = extents.frame();
        let [height, width] = extents.image.map(|extent| extent as u64);
        let planes = (self.groups * extents.channels) as u64;
        let plane_max = FRAME_TIMES_MAX * height * width + FRAME_EXTRA_MAX / planes;
        (rows.checked_mul(pitch)? <= plane_max).then_some(extents)
    }

    /// How far the last tap of an axis lies from the first.
    fn reach(&self, axis: usize) -> u64 {
        u64::from(self.attrs.dilation[axis]) * (self.kernel[axis] as u64 - 1)
    }

    /// Elements of the right operands of [`super::framed`]: packed weights for the forward pass,
    /// turned and packed ones for the input gradient, packed `dy` for the weight gradient.
    pub fn right_elements(&self) -> [u64; 3] {
        let turned = self.filters * self.taps();
        [
            WholeRight::elements(self.patch(), self.filters),
            WholeRight::elements(turned, self.channels) + (turned * self.channels) as u64,
            WholeRight::elements(self.out_plane(), self.filters),
        ]
    }
}
