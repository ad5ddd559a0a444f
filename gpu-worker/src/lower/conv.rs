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

/// WGSL that divides numbers up to about `most` by `divisor`, rounding down.
///
/// An integer division takes a CPU's lanes one by one, and is a call elsewhere; a
/// product with the inverse is off by one at most while the quotient has so few
/// bits that its rounding errors stay below one.
fn division(name: &str, divisor: u32, most: u32) -> String {
    const QUOTIENT_MAX: u32 = 1 << 20;
    let both = |one: String, four: String| {
        format!(
            "fn {name}(x: i32) -> i32 {{ return {one}; }}\n\
             fn {name}4(x: vec4<i32>) -> vec4<i32> {{ return {four}; }}\n"
        )
    };
    if divisor == 1 {
        return both("x".into(), "x".into());
    }
    if divisor.is_power_of_two() {
        let shift = divisor.trailing_zeros();
        return both(format!("x >> {shift}u"), format!("x >> vec4<u32>({shift}u)"));
    }
    // Tiles reach some hundred positions beyond the end.
    if most.saturating_add(1024) / divisor > QUOTIENT_MAX {
        return both(format!("x / {divisor}"), format!("x / vec4<i32>({divisor})"));
    }
    let values = [
        ("NAME", name.to_owned()),
        ("DIVISOR", divisor.to_string()),
        ("INVERSE", format!("{:?}", 1.0 / f64::from(divisor))),
    ];
    fill(&[snippet(CONV, "division1"), snippet(CONV, "division4")].concat(), &values)
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
        fill(snippet(CONV, "constants"), &values) + &self.divisions()
    }

    /// Division functions of the loaders, over one number and over four.
    fn divisions(&self) -> String {
        let (x, y, kernel) = (self.x, self.y, &self.weight[2..]);
        let pixels = |image: &[u32]| image[0] * image[2] * image[3];
        let window = kernel[0] * kernel[1];
        let taps = window * self.weight[0].max(self.x[1]);
        let far = [0, 1].map(|i| x[2 + i] + self.attrs.padding[2 * i]);
        [
            ("by_plane", y[2] * y[3], pixels(y)),
            ("by_width", y[3], y[2] * y[3]),
            ("by_area", x[2] * x[3], pixels(x)),
            ("by_row", x[3], x[2] * x[3]),
            ("by_window", window, taps),
            ("by_kernel_width", kernel[1], window),
            ("by_down", self.attrs.stride[0], far[0]),
            ("by_right", self.attrs.stride[1], far[1]),
        ]
        .map(|(name, divisor, most)| division(name, divisor, most))
        .concat()
            + snippet(CONV, "tap")
    }

    /// Writes whole vectors where four pixels lie in one plane `[.., plane]`.
    fn store(&self, image: &[u32]) -> Store {
        let plane = image[2] * image[3];
        let vector = plane.is_multiple_of(4);
        let part = if vector { "store_planes_vector" } else { "store_planes" };
        let values = [("PLANE", plane.to_string()), ("PLANES", image[1].to_string())];
        Store::Planes { code: self.code(&[part], &values), vector }
    }
}

/// `x`, `weight` to `y`: rows are filters, columns the batch's pixels, taps are summed.
pub fn forward(cx: &mut Lower, attrs: &Conv2dAttrs, x: Arg<'_>, weight: Arg<'_>, y: Arg<'_>) {
    let g = Geometry { attrs, x: x.dims, weight: weight.dims, y: y.dims };
    let extents = Extents { batches: g.groups(), m: g.filters(), n: g.pixels(), k: g.taps() };
    let store = g.store(y.dims);
    product(cx, "conv2d", extents, y.value, store, |shader| {
        let lead = [(g.groups(), g.filters() * g.taps())];
        let lead = if g.groups() > 1 { &lead[..] } else { &[] };
        let weight = Stored { value: weight.value, along_k: true, lead };
        let a = stored(shader, "a", weight, extents);
        [a, patches(shader, &g, x, false)]
    });
}

/// What taps meet at pixels; `transposed` has the taps as columns.
fn patches(shader: &mut Shader, g: &Geometry<'_>, x: Arg<'_>, transposed: bool) -> Loader {
    let source = shader.read(x.value, "f32");
    let part = if transposed { "load_met_transposed" } else { "load_met" };
    let code = g.constants() + &g.code(&["met", part], &[("X", source)]);
    Loader { code, along_k: transposed }
}

/// `weight`, `dy` to `dx`: rows are channels, columns the input's pixels,
/// filters and taps are summed.
pub fn input_grad(cx: &mut Lower, attrs: &Conv2dAttrs, weight: Arg<'_>, dy: Arg<'_>, dx: Arg<'_>) {
    let g = Geometry { attrs, x: dx.dims, weight: weight.dims, y: dy.dims };
    let taps = weight.dims[2] * weight.dims[3];
    let extents = Extents {
        batches: g.groups(),
        m: weight.dims[1],
        n: dx.dims[0] * dx.dims[2] * dx.dims[3],
        k: g.filters() * taps,
    };
    let store = g.store(dx.dims);
    product(cx, "conv2d_input_grad", extents, dx.value, store, |shader| {
        let sources =
            [("WEIGHT", shader.read(weight.value, "f32")), ("DY", shader.read(dy.value, "f32"))];
        let a = g.constants() + &g.code(&["load_weight_transposed"], &sources);
        let b = g.code(&["load_gradient_at_input"], &sources);
        [Loader { code: a, along_k: true }, Loader { code: b, along_k: false }]
    });
}

/// `x`, `dy` to the weight's gradient: rows are filters, columns taps, the
/// batch's pixels are summed.
pub fn weight_grad(cx: &mut Lower, attrs: &Conv2dAttrs, x: Arg<'_>, dy: Arg<'_>, weight: Arg<'_>) {
    let g = Geometry { attrs, x: x.dims, weight: weight.dims, y: dy.dims };
    let extents = Extents { batches: g.groups(), m: g.filters(), n: g.taps(), k: g.pixels() };
    product(cx, "conv2d_weight_grad", extents, weight.value, Store::Rows, |shader| {
        let sources = [("DY", shader.read(dy.value, "f32"))];
        let a = g.code(&["load_gradient"], &sources);
        let b = patches(shader, &g, x, true);
        [Loader { code: a, along_k: true }, b]
    });
}
