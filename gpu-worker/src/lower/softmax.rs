//! Soft-max and the classification loss.

use super::{Arg, Lower};
use crate::shader::{Shader, fill, snippet};

const SOFTMAX: &str = include_str!("../wgsl/softmax.wgsl");

/// Length of a row from which a workgroup shares it.
const SHARED_MIN: u32 = 256;
const LANES: u32 = 64;
/// Passes over a row, the last two with exponentials.
const PASSES: u64 = 4;
/// Operations per element: two exponentials and what surrounds them.
const FLOPS: u64 = 40;

fn rows(
    cx: &mut Lower,
    label: &'static str,
    reads: &[(Arg<'_>, &'static str)],
    axis: usize,
    out: Arg<'_>,
) {
    let x = reads[0].0;
    let (length, inner) = (x.dims[axis], x.dims[axis + 1..].iter().product::<u32>());
    let rows = x.count() / length;
    let mut shader = Shader::new(label, LANES, out.value, "f32");
    // Bound by position: two operands may be one value.
    for (arg, element) in reads {
        shader.bind(arg.value, element);
    }
    shader.field("rows", rows);
    shader.field("extent", length);
    shader.field("inner", inner);
    let shared = length >= SHARED_MIN;
    let text = snippet(SOFTMAX, "rows");
    shader.code(&fill(text, &[("BODY", snippet(SOFTMAX, label).to_owned())]));
    shader.code(snippet(SOFTMAX, if shared { "row_per_workgroup" } else { "row_per_lane" }));
    let lanes = if shared { LANES } else { 1 };
    shader.steps(PASSES * u64::from(length.div_ceil(lanes)));
    let groups = if shared { rows } else { rows.div_ceil(LANES) };
    cx.push(shader.launch(groups.into(), u64::from(x.count()) * FLOPS));
}

/// Soft-max or its logarithm along `axis`.
pub fn along(cx: &mut Lower, label: &'static str, x: Arg<'_>, axis: usize, out: Arg<'_>) {
    rows(cx, label, &[(x, "f32")], axis, out);
}

/// One loss per row of `logits [b, c]`, or, with the loss's gradient, that of the logits.
pub fn cross_entropy(
    cx: &mut Lower,
    logits: Arg<'_>,
    labels: Arg<'_>,
    scale: Option<Arg<'_>>,
    out: Arg<'_>,
) {
    match scale {
        None => rows(cx, "cross_entropy", &[(logits, "f32"), (labels, "i32")], 1, out),
        Some(scale) => {
            let reads = [(logits, "f32"), (labels, "i32"), (scale, "f32")];
            rows(cx, "cross_entropy_grad", &reads, 1, out);
        }
    }
}
