//! Convolutions with unit steps along the row, without unrolling patches: the
//! image is copied once into a frame of zeros, where neighbouring positions of
//! every tap lie side by side and load as one register.
//!
//! Rows of positions are rounded up to whole registers; what lies beyond the
//! row's end is computed from the frame and thrown away.

use crate::simd::F32x4;

/// Filters that share what is loaded of the image.
const FILTERS: usize = 4;
/// Positions of one tile of a correlation: two registers.
pub const TILE: usize = 8;
/// Positions of one register.
pub const LANES: usize = 4;
/// Taps whose weight gradients are summed at once.
const TAPS: usize = 2;

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
    /// Step between output rows; along the row it is one.
    pub row_stride: usize,
    /// Output rows and columns.
    pub out: [usize; 2],
}

/// An image's frame of zeros, and where in it everything lies.
#[derive(Debug)]
pub struct Framed {
    extents: Extents,
    rows: usize,
    pitch: usize,
    /// Offset of each tap (channel, row, column) from a position's first one.
    taps: Vec<usize>,
    frame: Vec<f32>,
}

/// Rows and row length of a frame for rows of `registers` positions.
fn frame_extents(extents: &Extents, registers: usize) -> [usize; 2] {
    let reach = |axis: usize| extents.dilation[axis] * (extents.kernel[axis] - 1);
    let read = (extents.out[0] - 1) * extents.row_stride + reach(0) + 1;
    // Rows below the last one that is read need no place.
    [read, extents.out[1].next_multiple_of(registers) + reach(1)]
}

/// Elements of the frame that a correlation needs.
pub fn frame_elements(extents: &Extents) -> usize {
    let [rows, pitch] = frame_extents(extents, TILE);
    extents.channels * rows * pitch
}

impl Framed {
    fn new(extents: Extents, registers: usize) -> Self {
        let [rows, pitch] = frame_extents(&extents, registers);
        let mut taps = Vec::with_capacity(extents.channels * extents.kernel[0] * extents.kernel[1]);
        for channel in 0..extents.channels {
            for row in 0..extents.kernel[0] {
                for column in 0..extents.kernel[1] {
                    let row = channel * rows + row * extents.dilation[0];
                    taps.push(row * pitch + column * extents.dilation[1]);
                }
            }
        }
        let frame = vec![0f32; extents.channels * rows * pitch];
        Framed { extents, rows, pitch, taps, frame }
    }

    /// Copies an image into the frame; the zeros around it stay.
    fn fill(&mut self, image: &[f32]) {
        let Extents { image: [height, width], before: [top, left], .. } = self.extents;
        // An image may reach beyond what is read.
        let height_read = height.min(self.rows.saturating_sub(top));
        let width_read = width.min(self.pitch.saturating_sub(left));
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

/// Weights `[filters, taps]` as panels of four filters, tap by tap.
fn weight_panels(
    weights: impl Fn(usize, usize) -> f32,
    filters: usize,
    taps: usize,
) -> Vec<[f32; FILTERS]> {
    let mut panels = Vec::with_capacity(filters.div_ceil(FILTERS) * taps);
    for first in (0..filters).step_by(FILTERS) {
        for tap in 0..taps {
            panels.push(std::array::from_fn(|i| {
                if first + i < filters { weights(first + i, tap) } else { 0.0 }
            }));
        }
    }
    panels
}

/// Slides one group's filters over images.
#[derive(Debug)]
pub struct Correlation {
    framed: Framed,
    panels: Vec<[f32; FILTERS]>,
    filters: usize,
}

impl Correlation {
    /// Prepares `weights(filter, tap)`, taps counted by channel, row, column.
    pub fn new(extents: Extents, filters: usize, weights: impl Fn(usize, usize) -> f32) -> Self {
        let framed = Framed::new(extents, TILE);
        let panels = weight_panels(weights, filters, framed.taps.len());
        Correlation { framed, panels, filters }
    }

    /// `image [channels, h, w]` to `out [filters, oh, ow]`.
    pub fn run(&mut self, image: &[f32], out: &mut [f32]) {
        self.framed.fill(image);
        let Framed { extents, pitch, taps, frame, .. } = &self.framed;
        let [height, width] = extents.out;
        let panels = self.panels.chunks_exact(taps.len());
        let planes = out.chunks_mut(FILTERS * height * width);
        for (panel, planes) in panels.zip(planes) {
            for row in 0..height {
                for column in (0..width).step_by(TILE) {
                    let start = row * extents.row_stride * pitch + column;
                    let tile = correlate_tile(panel, taps, &frame[start..]);
                    let count = TILE.min(width - column);
                    for (plane, tile) in planes.chunks_exact_mut(height * width).zip(&tile) {
                        let at = row * width + column;
                        plane[at..at + count].copy_from_slice(&tile[..count]);
                    }
                }
            }
        }
        debug_assert_eq!(out.len(), self.filters * height * width);
    }
}

/// Four filters at eight neighbouring positions, added tap by tap.
#[inline(always)]
fn correlate_tile(
    panel: &[[f32; FILTERS]],
    taps: &[usize],
    frame: &[f32],
) -> [[f32; TILE]; FILTERS] {
    let mut sums = [[F32x4::splat(0.0); 2]; FILTERS];
    for (weights, &tap) in panel.iter().zip(taps) {
        let image = &frame[tap..tap + TILE];
        let (low, high) = (register(image), register(&image[LANES..]));
        for (sums, &weight) in sums.iter_mut().zip(weights) {
            let weight = F32x4::splat(weight);
            sums[0] = sums[0].plus_product(weight, low);
            sums[1] = sums[1].plus_product(weight, high);
        }
    }
    sums.map(|[low, high]| {
        let (low, high) = (low.to_array(), high.to_array());
        std::array::from_fn(|i| if i < LANES { low[i] } else { high[i - LANES] })
    })
}

/// The first four numbers.
#[inline(always)]
fn register(values: &[f32]) -> F32x4 {
    F32x4::load(values.first_chunk().expect("frames hold whole registers"))
}

/// Gathers one group's weight gradient, image by image.
#[derive(Debug)]
pub struct WeightGradient {
    framed: Framed,
    filters: usize,
    /// `dy` of one image: per four filters, row and register, the filters' registers.
    panels: Vec<[[f32; LANES]; FILTERS]>,
    /// Where the frame is read for each register of a plane, tap aside. One
    /// flat list, because rows are too short for a loop of their own.
    starts: Vec<usize>,
}

impl WeightGradient {
    /// Prepares for `dy` of `filters` planes over images of `extents`.
    pub fn new(extents: Extents, filters: usize) -> Self {
        let framed = Framed::new(extents, LANES);
        let registers = extents.out[0] * extents.out[1].div_ceil(LANES);
        let panels = vec![[[0f32; LANES]; FILTERS]; filters.div_ceil(FILTERS) * registers];
        let row_step = extents.row_stride * framed.pitch;
        let row =
            |row: usize| (0..extents.out[1]).step_by(LANES).map(move |at| row * row_step + at);
        let starts = (0..extents.out[0]).flat_map(row).collect();
        WeightGradient { framed, filters, panels, starts }
    }

    /// Adds what `image [channels, h, w]` and `dy [filters, oh, ow]` give to `dw [filters, taps]`.
    pub fn add(&mut self, image: &[f32], dy: &[f32], dw: &mut [f32]) {
        self.framed.fill(image);
        self.pack(dy);
        let taps = &self.framed.taps;
        let [height, width] = self.framed.extents.out;
        let panel_registers = height * width.div_ceil(LANES);
        let panels = self.panels.chunks_exact(panel_registers);
        for (panel, dw) in panels.zip(dw.chunks_mut(FILTERS * taps.len())) {
            for first in (0..taps.len()).step_by(TAPS) {
                // The last pair of an odd number of taps repeats its tap.
                let pair = [taps[first], taps[(first + 1).min(taps.len() - 1)]];
                let sums = self.gradient_tile(panel, pair);
                for (dw, sums) in dw.chunks_exact_mut(taps.len()).zip(&sums) {
                    for (dw, sum) in dw[first..].iter_mut().zip(sums) {
                        *dw += sum;
                    }
                }
            }
        }
    }

    /// Lays out `dy` in the order in which it is read, rows filled up with zeros.
    fn pack(&mut self, dy: &[f32]) {
        let [height, width] = self.framed.extents.out;
        let registers = width.div_ceil(LANES);
        for (filter, plane) in dy.chunks_exact(height * width).enumerate().take(self.filters) {
            let panel = filter / FILTERS * height * registers;
            for (row, values) in plane.chunks_exact(width).enumerate() {
                for (register, values) in values.chunks(LANES).enumerate() {
                    let place = &mut self.panels[panel + row * registers + register];
                    place[filter % FILTERS][..values.len()].copy_from_slice(values);
                }
            }
        }
    }

    /// The gradients of four filters at two taps.
    #[inline(never)]
    fn gradient_tile(
        &self,
        panel: &[[[f32; LANES]; FILTERS]],
        taps: [usize; TAPS],
    ) -> [[f32; TAPS]; FILTERS] {
        let frame = &self.framed.frame;
        let (first, second) = (&frame[taps[0]..], &frame[taps[1]..]);
        let mut sums = [[F32x4::splat(0.0); TAPS]; FILTERS];
        for (dy, &start) in panel.iter().zip(&self.starts) {
            let image = [register(&first[start..]), register(&second[start..])];
            for (sums, dy) in sums.iter_mut().zip(dy) {
                let dy = F32x4::load(dy);
                sums[0] = sums[0].plus_product(dy, image[0]);
                sums[1] = sums[1].plus_product(dy, image[1]);
            }
        }
        sums.map(|pair| {
            pair.map(|sum| {
                let [a, b, c, d] = sum.to_array();
                (a + c) + (b + d)
            })
        })
    }
}
