//! Convolutions as products whose operands are read where they lie.

use super::gemm::{Extents, Loader, Store, Stored, product, stored};
use super::{Arg, Lower};
use crate::shader::{Shader, fill, snippet};
use raven_graph::Conv2dAttrs;

const CONV: &str = include_str!("../wgsl/conv.wgsl");

/// Extents of one convolution, whichever of its three products it is.
#[derive(Clone, Copy, Debug)]
struct Geometry<'a> {
    attrs: &'a Conv2dAttrs,
    /// `[n, c, h, w]`.
    x: &'a [u32],
    /// `[o, c / groups, kh, kw]`.
    weight: &'a [u32],
    /// `[n, o, oh, ow]`.
    y: &'a [u32],
}

impl Geometry<'_> {
    fn groups(&self) -> u32 {
        self.attrs.groups
    }

    fn filters(&self) -> u32 {
        self.weight[0] / self.attrs.groups
    }

    fn taps(&self) -> u32 {
        self.weight[1] * self.weight[2] * self.weight[3]
    }

    fn pixels(&self) -> u32 {
        self.y[0] * self.y[2] * self.y[3]
    }

    fn code(&self, parts: &[&str], sources: &[(&str, String)]) -> String {
        let text: String = parts.iter().map(|part| snippet(CONV, part)).collect();
        fill(&text, sources)
    }

    /// Geometry as constants: divisions by them cost the shader nothing.
    fn constants(&self) -> String {
        let [top, _, left, _] = self.attrs.padding;
        let values = [
            ("H", self.x[2]),
            ("W", self.x[3]),
            ("OH", self.y[2]),
            ("OW", self.y[3]),
            ("KH", self.weight[2]),
            ("KW", self.weight[3]),
            ("SH", self.attrs.stride[0]),
            ("SW", self.attrs.stride[1]),
            ("PT", top),
            ("PL", left),
            ("DH", self.attrs.dilation[0]),
            ("DW", self.attrs.dilation[1]),
            ("CG", self.weight[1]),
            ("OG", self.filters()),
            ("C", self.x[1]),
            ("O", self.weight[0]),
            ("N", self.x[0]),
        ];
        let values: Vec<(&str, String)> =
            values.iter().map(|(name, value)| (*name, value.to_string())).collect();
        fill(snippet(CONV, "constants"), &values)
    }

    /// Writes whole vectors where four pixels lie in one plane `[.., plane]`.
    fn store(&self, image: &[u32]) -> Store {
        let plane = image[2] * image[3];
        let vector = plane.is_multiple_of(4);
        let part = if vector { "store_planes_vector" } else { "store_planes" };
        let values = [("PLANE", plane.to_string()), ("PLANES", image[1].to_string())];
        Store::Custom { code: self.code(&[part], &values), vector }
    }
}

/// `x`, `weight` to `y`: rows are filters, columns the batch's pixels, taps are summed.
pub fn forward(cx: &mut Lower, attrs: &Conv2dAttrs, x: Arg<'_>, weight: Arg<'_>, y: Arg<'_>) {
    let g = Geometry { attrs, x: x.dims, weight: weight.dims, y: y.dims };
    let extents =
        Extents { batches: g.groups(), m: g.filters(), n: g.pixels(), k: g.taps() };
    product(cx, "conv2d", extents, y.value, g.store(y.dims), |shader| {
        let lead = [(g.groups(), g.filters() * g.taps())];
        let lead = if g.groups() > 1 { &lead[..] } else { &[] };
        let weight = Stored { value: weight.value, along_k: true, lead };
        let a = stored(shader, "a", weight, extents);
        [a, patches(shader, &g, x, "load_patch", false)]
    });
}

fn patches(
    shader: &mut Shader,
    g: &Geometry<'_>,
    x: Arg<'_>,
    part: &str,
    along_k: bool,
) -> Loader {
    let source = shader.read(x.value, "f32");
    let code = g.constants() + &g.code(&["patch", part], &[("X", source)]);
    Loader { code, along_k }
}

/// `weight`, `dy` to `dx`: rows are channels, columns the input's pixels,
/// filters and taps are summed.
pub fn input_grad(
    cx: &mut Lower,
    attrs: &Conv2dAttrs,
    weight: Arg<'_>,
    dy: Arg<'_>,
    dx: Arg<'_>,
) {
    let g = Geometry { attrs, x: dx.dims, weight: weight.dims, y: dy.dims };
    let taps = weight.dims[2] * weight.dims[3];
    let extents = Extents {
        batches: g.groups(),
        m: weight.dims[1],
        n: dx.dims[0] * dx.dims[2] * dx.dims[3],
        k: g.filters() * taps,
    };
    product(cx, "conv2d_input_grad", extents, dx.value, g.store(dx.dims), |shader| {
        let sources = [
            ("WEIGHT", shader.read(weight.value, "f32")),
            ("DY", shader.read(dy.value, "f32")),
        ];
        let a = g.constants() + &g.code(&["load_weight_transposed"], &sources);
        let b = g.code(&["load_gradient_at_input"], &sources);
        [Loader { code: a, along_k: true }, Loader { code: b, along_k: false }]
    });
}

/// `x`, `dy` to the weight's gradient: rows are filters, columns taps, the
/// batch's pixels are summed.
pub fn weight_grad(
    cx: &mut Lower,
    attrs: &Conv2dAttrs,
    x: Arg<'_>,
    dy: Arg<'_>,
    weight: Arg<'_>,
) {
    let g = Geometry { attrs, x: x.dims, weight: weight.dims, y: dy.dims };
    let extents =
        Extents { batches: g.groups(), m: g.filters(), n: g.taps(), k: g.pixels() };
    product(cx, "conv2d_weight_grad", extents, weight.value, Store::Rows, |shader| {
        let sources = [("DY", shader.read(dy.value, "f32"))];
        let a = g.code(&["load_gradient"], &sources);
        let b = patches(shader, &g, x, "load_patch_transposed", true);
        [Loader { code: a, along_k: true }, b]
    });
}
