//! The extents of a convolution.

use super::direct::{self, Extents};
use raven_graph::Conv2dAttrs;
use std::ops::Range;

/// A frame may take this many times the image, and as many elements more: with
/// wide padding or dilation it would be nearly all zeros.
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

    /// What [`direct`] needs for the forward pass, where it serves.
    pub fn direct_forward(&self) -> Option<Extents> {
        let [top, _, left, _] = self.attrs.padding.map(|zeros| zeros as usize);
        let row_stride = self.attrs.stride[0];
        self.direct(self.channels, [self.height, self.width], [top, left], row_stride, direct::TILE)
    }

    /// The same for the weight gradient, which reads the same frame.
    pub fn direct_weight_grad(&self) -> Option<Extents> {
        let [top, _, left, _] = self.attrs.padding.map(|zeros| zeros as usize);
        let row_stride = self.attrs.stride[0];
        self.direct(
            self.channels,
            [self.height, self.width],
            [top, left],
            row_stride,
            direct::LANES,
        )
    }

    /// The same for the input gradient: `dy` is read, the image is written.
    pub fn direct_input_grad(&self) -> Option<Extents> {
        if self.attrs.stride[0] != 1 {
            return None;
        }
        let [top, _, left, _] = self.attrs.padding;
        let before = |axis: usize, zeros: u32| {
            let before = self.reach(axis).checked_sub(zeros.into())?;
            usize::try_from(before).ok()
        };
        let before = [before(0, top)?, before(1, left)?];
        let turned = Geometry { out_height: self.height, out_width: self.width, ..*self };
        let dy = [self.out_height, self.out_width];
        turned.direct(self.filters, dy, before, 1, direct::TILE)
    }

    /// How far the last tap of an axis lies from the first.
    fn reach(&self, axis: usize) -> u64 {
        u64::from(self.attrs.dilation[axis]) * (self.kernel[axis] as u64 - 1)
    }

    fn direct(
        &self,
        channels: usize,
        image: [usize; 2],
        before: [usize; 2],
        row_stride: u32,
        registers: usize,
    ) -> Option<Extents> {
        let row = self.out_width.next_multiple_of(registers);
        // Short rows would mostly compute what is thrown away; a kernel of one
        // tap is a plain matrix product.
        if self.attrs.stride[1] != 1 || 2 * row > 3 * self.out_width || self.is_pointwise() {
            return None;
        }
        let rows = (self.out_height as u64 - 1) * u64::from(row_stride) + self.reach(0) + 1;
        let pitch = row as u64 + self.reach(1);
        let plane = rows.checked_mul(pitch)?;
        let plane_max =
            FRAME_TIMES_MAX * (image[0] * image[1]) as u64 + FRAME_EXTRA_MAX / channels as u64;
        (plane <= plane_max).then(|| Extents {
            channels,
            image,
            before,
            kernel: self.kernel,
            dilation: self.attrs.dilation.map(|step| step as usize),
            row_stride: row_stride as usize,
            out: [self.out_height, self.out_width],
        })
    }

    /// Elements of what [`direct`] lays out anew of weights or of `dy`, from above.
    pub fn panel_elements(&self) -> u64 {
        let four = |count: usize| count.next_multiple_of(4) as u64;
        // One more of each for the offsets of taps and of registers.
        let forward = (four(self.filters) + 1) * self.patch() as u64;
        let input_grad = (four(self.channels) + 1) * (self.filters * self.taps()) as u64;
        let weight_grad = (four(self.filters) + 1) * self.out_height as u64 * four(self.out_width);
        forward.max(input_grad).max(weight_grad)
    }
}
