//! Gather and scatter.

use super::{Arg, Lower};
use crate::shader::{Shader, snippet};

const INDEX: &str = include_str!("../wgsl/index.wgsl");

/// Operations that looking at an index takes as long as, its barriers included.
const LOOK_FLOPS: u64 = 16;

/// `x [a.., size, b..]`, `index [t..]` to `[a.., t.., b..]`; zeros where out of range.
pub fn gather(cx: &mut Lower, x: Arg<'_>, index: Arg<'_>, axis: usize, out: Arg<'_>) {
    let count = out.count();
    let mut shader = Shader::new("gather", 256, out.value, "u32");
    shader.bind(x.value, "u32");
    shader.bind(index.value, "i32");
    shader.field("count", count);
    shader.field("extent", x.dims[axis]);
    shader.field("inner", x.dims[axis + 1..].iter().product());
    shader.field("indices", index.count());
    shader.code(snippet(INDEX, "gather"));
    cx.push(shader.launch(u64::from(count).div_ceil(256), u64::from(count) * 8));
}

/// `updates [a.., t.., b..]`, `index [t..]` to `[a.., size, b..]`.
pub fn scatter_add(cx: &mut Lower, updates: Arg<'_>, index: Arg<'_>, axis: usize, out: Arg<'_>) {
    let (extent, inner) = (out.dims[axis], out.dims[axis + 1..].iter().product::<u32>());
    let outer: u32 = out.dims[..axis].iter().product();
    let (indices, blocks) = (index.count(), inner.div_ceil(64));
    let mut shader = Shader::new("scatter_add", 64, out.value, "f32");
    shader.bind(updates.value, "f32");
    shader.bind(index.value, "i32");
    shader.field("extent", extent);
    shader.field("inner", inner);
    shader.field("indices", indices);
    shader.field("blocks", blocks);
    shader.code(snippet(INDEX, "scatter_add"));
    let groups = u64::from(outer) * u64::from(extent) * u64::from(blocks);
    let looks = groups.saturating_mul(u64::from(indices)).saturating_mul(LOOK_FLOPS);
    // Each look of a workgroup waits at three barriers; at worst every index is a hit.
    let waits = u64::from(indices.div_ceil(64)) * LOOK_FLOPS;
    shader.steps(waits + u64::from(indices));
    cx.push(shader.launch(groups, looks.saturating_add(u64::from(updates.count()))));
}
