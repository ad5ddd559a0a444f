//! Pooling and its gradients.

use super::{Arg, Lower};
use crate::shader::{Shader, fill, snippet};
use raven_graph::Pool2dAttrs;

const POOL: &str = include_str!("../wgsl/pool.wgsl");
const LANES: u32 = 64;

fn shader(
    label: &'static str,
    parts: &[&str],
    attrs: &Pool2dAttrs,
    (image, pooled): (&[u32], &[u32]),
    out: Arg<'_>,
) -> Shader {
    let [top, _, left, _] = attrs.padding;
    let values = [
        ("H", image[2]),
        ("W", image[3]),
        ("OH", pooled[2]),
        ("OW", pooled[3]),
        ("KH", attrs.kernel[0]),
        ("KW", attrs.kernel[1]),
        ("SH", attrs.stride[0]),
        ("SW", attrs.stride[1]),
        ("PT", top),
        ("PL", left),
    ];
    let values: Vec<(&str, String)> =
        values.iter().map(|(name, value)| (*name, value.to_string())).collect();
    let mut shader = Shader::new(label, LANES, out.value, "f32");
    shader.field("count", out.count());
    shader.code(&fill(snippet(POOL, "constants"), &values));
    for part in parts {
        shader.code(snippet(POOL, part));
    }
    shader
}

/// Operations per window, at least one per element written.
fn window(attrs: &Pool2dAttrs) -> u64 {
    4 * u64::from(attrs.kernel[0]) * u64::from(attrs.kernel[1])
}

/// Elements of a window that lie within an image at most.
fn inside(attrs: &Pool2dAttrs, image: &[u32]) -> u64 {
    let [height, width] = [0, 1].map(|at| attrs.kernel[at].min(image[2 + at]));
    u64::from(height) * u64::from(width)
}

/// Windows that cover one position at most.
fn covering(attrs: &Pool2dAttrs, pooled: &[u32]) -> u64 {
    let along = |at: usize| attrs.kernel[at].div_ceil(attrs.stride[at]).min(pooled[2 + at]);
    u64::from(along(0)) * u64::from(along(1))
}

/// `x [n, c, h, w]` to `[n, c, oh, ow]`; `kind` is "max" or "average".
pub fn forward(cx: &mut Lower, attrs: &Pool2dAttrs, kind: &'static str, x: Arg<'_>, out: Arg<'_>) {
    let parts: &[&str] = if kind == "max" { &["first_max", "max"] } else { &["average"] };
    let mut shader = shader("pool", parts, attrs, (x.dims, out.dims), out);
    shader.bind(x.value, "f32");
    shader.steps(inside(attrs, x.dims));
    let count = u64::from(out.count());
    cx.push(shader.launch(count.div_ceil(LANES.into()), count.saturating_mul(window(attrs))));
}

/// `dy [n, c, oh, ow]` to `[n, c, h, w]`: of maximum pooling where `x` is given, else of the mean.
pub fn gradient(
    cx: &mut Lower,
    attrs: &Pool2dAttrs,
    x: Option<Arg<'_>>,
    dy: Arg<'_>,
    out: Arg<'_>,
) {
    let parts: &[&str] = match x {
        Some(_) => &["first_max", "covering", "max_grad"],
        None => &["covering", "average_grad"],
    };
    let mut shader = shader("pool_grad", parts, attrs, (out.dims, dy.dims), out);
    if let Some(x) = x {
        shader.bind(x.value, "f32");
    }
    shader.bind(dy.value, "f32");
    let looked = if x.is_some() { inside(attrs, out.dims) } else { 1 };
    shader.steps(covering(attrs, dy.dims).saturating_mul(looked));
    let windows = u64::from(dy.count()).saturating_mul(window(attrs));
    // Every position looks through every window that covers it.
    let covering = if x.is_some() { window(attrs) / 4 } else { 1 };
    let flops = windows.saturating_mul(covering).max(u64::from(out.count()));
    cx.push(shader.launch(u64::from(out.count()).div_ceil(LANES.into()), flops));
}
