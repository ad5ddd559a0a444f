//! Convolutions as matrix products whose left operand is never written down:
//! the patches of an image are the sums of a position's and a tap's offset in
//! a copy of the image within a frame of zeros.
//!
//! Forward: `out^T [p, o] = patches [p, k] weight^T [k, o]`, the weight gradient
//! `dw^T [k, o] += patches^T [k, p] dy^T [p, o]` swaps positions and taps, and
//! the input gradient is a forward pass over `dy` with turned kernels.

use crate::buffer::Buffer;
use crate::gemm::{Matrix, Scattered, WholeRight, scattered};

/// The extents of one image and how taps meet it.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    /// Channels of the image that is read.
    pub channels: usize,
    /// Its rows and columns.
    pub image: [usize; 2],
    /// Zeros before its first row and column.
    pub before: [usize; 2],
    /// Rows and columns of taps.
    pub kernel: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
    /// Distance between positions.
    pub stride: [usize; 2],
    /// Output rows and columns.
    pub out: [usize; 2],
}

impl Extents {
    /// Rows and columns of the frame: what is read, in 64 bits because padding,
    /// stride and dilation alone may fill 32.
    pub fn frame(&self) -> [u64; 2] {
        [0, 1].map(|axis| {
            let between = |count: usize, step: usize| (count as u64 - 1) * step as u64;
            between(self.out[axis], self.stride[axis])
                + between(self.kernel[axis], self.dilation[axis])
                + 1
        })
    }

    /// Elements of the frame and of both tables of offsets, in words.
    pub fn scratch_words(&self) -> u64 {
        let [rows, pitch] = self.frame();
        let words = (usize::BITS / 32) as u64;
        let taps = self.channels * self.kernel[0] * self.kernel[1];
        let positions = self.out[0] * self.out[1];
        self.channels as u64 * rows * pitch + words * (taps + positions) as u64
    }
}

/// An image's frame of zeros, and where in it everything lies.
#[derive(Debug)]
pub struct Framed {
    extents: Extents,
    rows: usize,
    pitch: usize,
    frame: Buffer<f32>,
}

impl Framed {
    /// A frame for images of these extents.
    pub fn new(extents: Extents) -> Self {
        let [rows, pitch] = extents.frame().map(|extent| extent as usize);
        let frame = Buffer::filled(extents.channels * rows * pitch, 0f32);
        Framed { extents, rows, pitch, frame }
    }

    /// Offset of each tap (channel, row, column) from a position's first one, in units of `unit`.
    fn taps(&self, unit: usize) -> Buffer<usize> {
        let Extents { channels, kernel, dilation, .. } = self.extents;
        let mut taps = Buffer::empty(channels * kernel[0] * kernel[1]);
        for channel in 0..channels {
            for row in 0..kernel[0] {
                let row = channel * self.rows + row * dilation[0];
                let columns = (0..kernel[1]).map(|column| column * dilation[1]);
                taps.extend(columns.map(|column| (row * self.pitch + column) * unit));
            }
        }
        taps
    }

    /// Offset of each position's first tap, in units of `unit`.
    fn positions(&self, unit: usize) -> Buffer<usize> {
        let Extents { stride, out, .. } = self.extents;
        let mut positions = Buffer::empty(out[0] * out[1]);
        for row in 0..out[0] {
            let columns = (0..out[1]).map(|column| column * stride[1]);
            positions.extend(columns.map(|column| (row * stride[0] * self.pitch + column) * unit));
        }
        positions
    }

    /// Copies an image into the frame; the zeros around it stay.
    fn fill(&mut self, image: &[f32]) {
        let Extents { image: [height, width], before: [top, left], .. } = self.extents;
        // An image may reach beyond what is read, or begin there.
        let (top, left) = (top.min(self.rows), left.min(self.pitch));
        let height_read = height.min(self.rows - top);
        let width_read = width.min(self.pitch - left);
        for (plane, framed) in image
            .chunks_exact(height * width)
            .zip(self.frame.chunks_exact_mut(self.rows * self.pitch))
        {
            let rows = plane.chunks_exact(width).take(height_read);
            for (row, framed) in rows.zip(framed.chunks_exact_mut(self.pitch).skip(top)) {
                framed[left..left + width_read].copy_from_slice(&row[..width_read]);
            }
        }
    }
}

/// Bytes of one element: offsets of steps are in bytes.
const ELEMENT: usize = size_of::<f32>();

/// Slides one group's filters over images.
#[derive(Debug)]
pub struct Correlation {
    framed: Framed,
    positions: Buffer<usize>,
    taps: Buffer<usize>,
    weights: WholeRight,
}

impl Correlation {
    /// Prepares weights `[filters, taps]`, taps counted by channel, row, column.
    pub fn new(extents: Extents, filters: usize, weights: &[f32]) -> Self {
        let framed = Framed::new(extents);
        let (positions, taps) = (framed.positions(1), framed.taps(ELEMENT));
        let mut packed = WholeRight::new(taps.len(), filters);
        packed.pack(&Matrix::transposed(weights, taps.len(), filters));
        Correlation { framed, positions, taps, weights: packed }
    }

    /// `image [channels, h, w]` to `out [filters, oh, ow]`.
    pub fn run(&mut self, image: &[f32], out: &mut [f32]) {
        self.framed.fill(image);
        let patches = Scattered::new(&self.framed.frame, &self.positions, &self.taps);
        scattered(patches, &self.weights, false, out, self.positions.len());
    }
}

/// Sums one group's weight gradients over images.
#[derive(Debug)]
pub struct WeightGradient {
    framed: Framed,
    positions: Buffer<usize>,
    taps: Buffer<usize>,
    dy: WholeRight,
}

impl WeightGradient {
    /// Prepares for images of these extents, and gradients of as many filters.
    pub fn new(extents: Extents, filters: usize) -> Self {
        let framed = Framed::new(extents);
        let (positions, taps) = (framed.positions(ELEMENT), framed.taps(1));
        let dy = WholeRight::new(positions.len(), filters);
        WeightGradient { framed, positions, taps, dy }
    }

    /// Adds the gradient of `image [channels, h, w]`, `dy [filters, oh, ow]` to `dw [filters, taps]`.
    pub fn add(&mut self, image: &[f32], dy: &[f32], dw: &mut [f32]) {
        let positions = self.positions.len();
        self.framed.fill(image);
        self.dy.pack(&Matrix::transposed(dy, positions, dy.len() / positions));
        let patches = Scattered::new(&self.framed.frame, &self.taps, &self.positions);
        scattered(patches, &self.dy, true, dw, self.taps.len());
    }
}
