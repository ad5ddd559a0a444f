//! Matrix products in register and workgroup tiles; convolutions share them.

use super::direct::Share;
use super::{Arg, Lower, reduce};
use crate::shader::{Shader, ValueId, count, fill, merged, offset, snippet, steps};

const GEMM: &str = include_str!("../wgsl/gemm.wgsl");
const OPERAND: &str = include_str!("../wgsl/operand.wgsl");

/// Workgroups that keep a device busy; with fewer, the summed axis is cut.
const GROUPS_WANTED: u64 = 64;
/// Least length of a part of the summed axis.
const PART_MIN: u32 = 256;
/// Length of a part beyond which a sum is cut in any case, to keep dispatches short.
const PART_MAX: u32 = 32_768;
/// What one step of the summed axis weighs: up to 64 products and their loads.
const PRODUCT_STEPS: u64 = 8;
/// Words that the results of all parts may take together, and where the sum must be cut.
const PARTS_WORDS_MAX: u64 = 4 << 20;
const PARTS_WORDS_MUST: u64 = 32 << 20;

/// A workgroup's tile and the sums of each invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    rows: u32,
    columns: u32,
    /// Steps of the summed axis that are held at once.
    depth: u32,
    /// Rows and columns of one invocation: 4 or 8.
    own: u32,
    /// What an operation costs compared to the best tile's, in percent.
    weight: u64,
}

/// Each keeps to 256 invocations and 16 KiB. Larger tiles read less; narrow
/// ones waste less on matrices with few rows or columns.
const TILES: [Tile; 10] = [
    Tile { rows: 128, columns: 128, depth: 16, own: 8, weight: 100 },
    Tile { rows: 64, columns: 64, depth: 16, own: 8, weight: 110 },
    Tile { rows: 32, columns: 128, depth: 16, own: 8, weight: 115 },
    Tile { rows: 128, columns: 32, depth: 16, own: 8, weight: 115 },
    Tile { rows: 16, columns: 256, depth: 8, own: 8, weight: 125 },
    Tile { rows: 256, columns: 16, depth: 8, own: 8, weight: 125 },
    Tile { rows: 32, columns: 32, depth: 16, own: 4, weight: 170 },
    Tile { rows: 16, columns: 64, depth: 16, own: 4, weight: 180 },
    Tile { rows: 64, columns: 16, depth: 16, own: 4, weight: 180 },
    Tile { rows: 16, columns: 16, depth: 16, own: 4, weight: 230 },
];

/// Extents of one batched product.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    /// Independent products.
    pub batches: u32,
    /// Rows of the result.
    pub m: u32,
    /// Columns of the result.
    pub n: u32,
    /// Length of the sums.
    pub k: u32,
}

impl Tile {
    fn shape(&self) -> Shape {
        Shape {
            rows: self.rows,
            columns: self.columns,
            depth: self.depth,
            invocations: self.rows * self.columns / (self.own * self.own),
            groups_wanted: GROUPS_WANTED,
        }
    }
}

/// What a workgroup takes on, whichever body it has.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rows of a tile.
    pub rows: u32,
    /// Columns of a tile.
    pub columns: u32,
    /// Steps of the summed axis that belong together.
    pub depth: u32,
    /// Invocations.
    pub invocations: u32,
    /// Workgroups that keep a device busy; with fewer, the summed axis is cut.
    pub groups_wanted: u64,
}

impl Extents {
    fn groups(&self, shape: &Shape) -> u64 {
        let down = u64::from(self.m.div_ceil(shape.rows));
        down * u64::from(self.n.div_ceil(shape.columns)) * u64::from(self.batches)
    }

    /// Multiplications and additions.
    pub fn flops(&self) -> u64 {
        let products = u64::from(self.m) * u64::from(self.n) * u64::from(self.k);
        products.saturating_mul(2 * u64::from(self.batches))
    }

    /// Padded work, more where it leaves a device idle; `weight` is what an
    /// operation costs.
    pub fn cost(&self, shape: &Shape, weight: u64) -> u64 {
        let groups = self.groups(shape);
        let work = groups * u64::from(shape.rows * shape.columns) * weight;
        let parts = u64::from(self.k.div_ceil(PART_MIN)).min(shape.groups_wanted);
        work * shape.groups_wanted / (groups * parts).min(shape.groups_wanted)
    }

    /// The tile with the least padded work, spread over enough workgroups.
    fn tile(&self) -> Tile {
        let cost = |tile: &Tile| self.cost(&tile.shape(), tile.weight);
        TILES.into_iter().min_by_key(cost).unwrap_or(TILES[1])
    }

    /// Length of the parts into which the summed axis is cut, a multiple of the
    /// tile's depth; at least `k` where it is not cut.
    fn part(&self, shape: &Shape) -> u32 {
        let wanted = shape.groups_wanted.div_ceil(self.groups(shape)) as u32;
        let words = u64::from(self.m) * u64::from(self.n) * u64::from(self.batches);
        let fit = |most: u64| (most / words.max(1)).min(u64::from(u32::MAX)) as u32;
        let must = self.k.div_ceil(PART_MAX).min(fit(PARTS_WORDS_MUST));
        let parts = wanted.min(self.k / PART_MIN).min(fit(PARTS_WORDS_MAX)).max(must).max(1);
        self.k.div_ceil(parts).next_multiple_of(shape.depth)
    }
}

/// How a shader reads an operand.
#[derive(Debug)]
pub struct Loader {
    /// Defines `load_a` or `load_b`.
    pub code: String,
    /// Neighbours along the summed axis are neighbours in memory.
    pub along_k: bool,
}

/// Where a product's sums go.
#[derive(Debug)]
pub enum Store {
    /// `[batches, m, n]`, row-major.
    Rows,
    /// The planes `[.., batches * m, plane]` of images.
    Planes {
        /// Code that defines `store`.
        code: String,
        /// Whether it writes vectors.
        vector: bool,
    },
}

/// A stored matrix operand.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Where its elements are.
    pub value: ValueId,
    /// Whether neighbours along the summed axis are neighbours in memory.
    pub along_k: bool,
    /// Steps of a batch's matrix along the leading axes.
    pub lead: &'a [(u32, u32)],
}

/// The loader of a stored operand; `side` is "a" or "b".
pub fn stored(shader: &mut Shader, side: &str, operand: Stored<'_>, extents: Extents) -> Loader {
    let own = if side == "a" { extents.m } else { extents.n };
    let contiguous = if operand.along_k { extents.k } else { own };
    let vector = contiguous.is_multiple_of(4);
    let source = shader.read(operand.value, if vector { "vec4<f32>" } else { "f32" });
    let name = format!("b{side}");
    let (lines, start) = offset(shader, &name, "batch", "0u", operand.lead);
    let part = match (operand.along_k, vector) {
        (true, true) => "along_k_vector",
        (true, false) => "along_k",
        (false, true) => "along_own_vector",
        (false, false) => "along_own",
    };
    let extent = if side == "a" { "p.m" } else { "p.n" };
    let code = fill(
        snippet(OPERAND, part),
        &[
            ("SIDE", side.to_owned()),
            ("EXTENT", extent.to_owned()),
            ("SOURCE", source),
            ("OFFSET_LINES", lines),
            ("OFFSET", start),
        ],
    );
    Loader { code, along_k: operand.along_k }
}

/// WGSL of one operand's share of filling the tiles.
fn loads(tile: Tile, side: &str, along_k: bool) -> String {
    let (extent, first) = if side == "a" { (tile.rows, "row") } else { (tile.columns, "column") };
    let invocations = tile.shape().invocations;
    let (across, deep) = (extent / 4, tile.depth / 4);
    let mut text = String::new();
    for pass in 0..(across * deep).div_ceil(invocations) {
        let block = format!("lane + {}u", pass * invocations);
        let (o4, k4) = if along_k {
            (format!("block / {deep}u"), format!("block % {deep}u"))
        } else {
            (format!("block % {across}u"), format!("block / {across}u"))
        };
        text.push_str(&format!(
            "        {{\n            let block = {block};\n            if (block < {}u) {{\n                \
             let o4 = {o4};\n                let k4 = {k4};\n                \
             let found = load_{side}(batch, {first} + o4 * 4u, k0 + k4 * 4u);\n                \
             let at = k4 * {}u + o4;\n",
            across * deep,
            4 * across
        ));
        for j in 0..4 {
            text.push_str(&format!(
                "                tile_{side}[at + {}u] = found[{j}];\n",
                j * across
            ));
        }
        text.push_str("            }\n        }\n");
    }
    text
}

/// WGSL of one step of the summed axis.
fn products(tile: Tile) -> String {
    let mut text = String::new();
    for (side, extent, thread) in [("a", tile.rows, "ty"), ("b", tile.columns, "tx")] {
        for half in 0..tile.own / 4 {
            text.push_str(&format!(
                "            let {side}{half} = tile_{side}[kk * {}u + {thread} + {}u];\n",
                extent / 4,
                half * extent / 8
            ));
        }
    }
    for row in 0..tile.own {
        let component = ["x", "y", "z", "w"][row as usize % 4];
        for half in 0..tile.own / 4 {
            text.push_str(&format!(
                "            c{row}_{half} += a{}.{component} * b{half};\n",
                row / 4
            ));
        }
    }
    text
}

fn accumulators(tile: Tile) -> String {
    let mut text = String::new();
    for row in 0..tile.own {
        for half in 0..tile.own / 4 {
            text.push_str(&format!("    var c{row}_{half} = vec4<f32>();\n"));
        }
    }
    text
}

/// The sums' names, in the order in which they are stored.
fn sum_names(tile: Tile, per_row: u32) -> String {
    let names = (0..tile.own).flat_map(|row| (0..per_row).map(move |at| format!("c{row}_{at}")));
    names.collect::<Vec<String>>().join(", ")
}

/// The shader's body for devices that like vectors.
fn vectors(tile: Tile, [a, b]: &[Loader; 2]) -> String {
    let halves = tile.own / 4;
    fill(
        GEMM,
        &[
            ("BM", tile.rows.to_string()),
            ("BN", tile.columns.to_string()),
            ("BK", tile.depth.to_string()),
            ("TX", (tile.columns / tile.own).to_string()),
            ("A_VECTORS", (tile.rows * tile.depth / 4).to_string()),
            ("B_VECTORS", (tile.columns * tile.depth / 4).to_string()),
            ("ACCUMULATORS", accumulators(tile)),
            ("LOADS", loads(tile, "a", a.along_k) + &loads(tile, "b", b.along_k)),
            ("PRODUCTS", products(tile)),
            ("SUMS", (tile.own * halves).to_string()),
            ("SUM_NAMES", sum_names(tile, halves)),
            ("HALVES", halves.to_string()),
            ("HALF_ROWS", (tile.rows / 2).to_string()),
            ("HALF_COLUMNS", (tile.columns / 2).to_string()),
        ],
    )
}

/// Launches a product whose operands `operands` knows how to read, and, where
/// the summed axis was cut, the sum of the parts.
pub fn product(
    cx: &mut Lower,
    label: &'static str,
    extents: Extents,
    out: ValueId,
    store: Store,
    operands: impl FnOnce(&mut Shader) -> [Loader; 2],
) {
    let share = cx.lanes.then(|| Share::choose(&extents, label != "matmul"));
    let tile = extents.tile();
    let shape = share.map_or_else(|| tile.shape(), |share| share.shape());
    let may_cut = matches!(store, Store::Rows);
    let part = if may_cut { extents.part(&shape) } else { extents.k.next_multiple_of(shape.depth) };
    let parts = extents.k.div_ceil(part);
    let words = extents.batches * extents.m * extents.n;
    let target = if parts > 1 { cx.value(parts * words) } else { out };
    let (store_code, vector) = match store {
        Store::Rows => {
            let vector = extents.n.is_multiple_of(4);
            let name = if vector { "store_vector" } else { "store" };
            (snippet(OPERAND, name).to_owned(), vector)
        }
        Store::Planes { code, vector } => (code, vector),
    };
    let element = if vector { "vec4<f32>" } else { "f32" };
    let mut shader = Shader::new(label, shape.invocations, target, element);
    shader.field("m", extents.m);
    shader.field("n", extents.n);
    shader.field("k", extents.k);
    shader.field("k_part", part);
    shader.field("batches", extents.batches);
    shader.field("row_tiles", extents.m.div_ceil(shape.rows));
    shader.field("column_tiles", extents.n.div_ceil(shape.columns));
    shader.steps(PRODUCT_STEPS * u64::from(part.min(extents.k)));
    let loaders = operands(&mut shader);
    shader.code(&loaders[0].code);
    shader.code(&loaders[1].code);
    shader.code(&store_code);
    shader.code(&share.map_or_else(|| vectors(tile, &loaders), |share| share.body()));
    cx.push(shader.launch(extents.groups(&shape) * u64::from(parts), extents.flops()));
    if parts > 1 {
        reduce::sum_leading(cx, target, parts, words, out);
    }
}

/// Steps of whole matrices along the leading axes of the result `lead`.
fn lead_steps(dims: &[u32], lead: &[u32]) -> Vec<(u32, u32)> {
    let (own, matrix) = dims.split_at(dims.len() - 2);
    let size = count(matrix);
    let own_steps = steps(own);
    let missing = lead.len() - own.len();
    let axes = lead.iter().enumerate().map(|(axis, &extent)| {
        let step = match axis.checked_sub(missing) {
            Some(at) if own[at] != 1 => own_steps[at] * size,
            _ => 0,
        };
        (extent, step)
    });
    merged(axes)
}

/// `a [.., m, k]` times `b [.., k, n]`, either stored transposed.
pub fn matmul(
    cx: &mut Lower,
    (a, transpose_a): (Arg<'_>, bool),
    (b, transpose_b): (Arg<'_>, bool),
    out: Arg<'_>,
) {
    let (lead, matrix) = out.dims.split_at(out.dims.len() - 2);
    let k = a.dims[a.dims.len() - if transpose_a { 2 } else { 1 }];
    let mut extents = Extents { batches: count(lead), m: matrix[0], n: matrix[1], k };
    let (mut a_lead, mut b_lead) = (lead_steps(a.dims, lead), lead_steps(b.dims, lead));
    if !transpose_a
        && b_lead.iter().all(|(_, step)| *step == 0)
        && a.count() == extents.batches * extents.m * k
    {
        // One right operand for all: the left matrices stacked are one tall matrix.
        extents = Extents { batches: 1, m: extents.batches * extents.m, ..extents };
        (a_lead, b_lead) = (Vec::new(), Vec::new());
    }
    product(cx, "matmul", extents, out.value, Store::Rows, |shader| {
        let a = Stored { value: a.value, along_k: !transpose_a, lead: &a_lead };
        let b = Stored { value: b.value, along_k: transpose_b, lead: &b_lead };
        [stored(shader, "a", a, extents), stored(shader, "b", b, extents)]
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_keep_to_the_limits_of_every_device() {
        for tile in TILES {
            assert!(tile.shape().invocations <= 256, "{tile:?}");
            assert!((tile.rows + tile.columns) * tile.depth * 4 <= 16 << 10, "{tile:?}");
        }
    }

    #[test]
    fn tiles_follow_the_shape() {
        let tile = |m, n, k| Extents { batches: 1, m, n, k }.tile();
        assert_eq!(tile(4096, 4096, 4096).rows, 128);
        assert_eq!(tile(512, 512, 512).rows, 64);
        assert_eq!((tile(16, 50_176, 25).rows, tile(16, 50_176, 25).columns), (16, 256));
    }
}
