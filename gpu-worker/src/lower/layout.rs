//! Joining values, reading rows of shards, and sums over micro-batches.

use super::{Arg, Lower};
use crate::shader::{Launch, Shader, ValueId, snippet};

const LAYOUT: &str = include_str!("../wgsl/layout.wgsl");

/// The parts joined along `axis`.
pub fn concat(cx: &mut Lower, parts: &[Arg<'_>], axis: usize, out: Arg<'_>) {
    let inner: u32 = out.dims[axis + 1..].iter().product();
    let mut start = 0;
    for part in parts {
        let (count, width) = (part.count(), part.dims[axis] * inner);
        let mut shader = Shader::new("concat", 256, out.value, "u32");
        shader.bind(part.value, "u32");
        shader.field("count", count);
        shader.field("width", width);
        shader.field("whole", out.dims[axis] * inner);
        shader.field("start", start);
        shader.code(snippet(LAYOUT, "concat"));
        cx.push(shader.launch(u64::from(count).div_ceil(256), u64::from(count) * 4));
        start += width;
    }
}

/// Reads rows of one shard's column into a graph input: `pairs` of (row of the
/// input, row of the shard), rows of `width` elements, packed as bytes or not.
pub fn rows(
    shard: ValueId,
    pairs: ValueId,
    out: ValueId,
    bytes: bool,
    [count, width]: [u32; 2],
) -> Launch {
    let mut shader = Shader::new("rows", 256, out, "u32");
    shader.bind(shard, "u32");
    shader.bind(pairs, "u32");
    let words = count * width;
    shader.field("count", words);
    shader.field("width", width);
    shader.code(snippet(LAYOUT, if bytes { "bytes" } else { "words" }));
    shader.code(snippet(LAYOUT, "rows"));
    shader.launch(u64::from(words).div_ceil(256), u64::from(words) * 4)
}

/// Bytes of a blob to words.
pub fn unpack(from: ValueId, out: ValueId, count: u32) -> Launch {
    let mut shader = Shader::new("unpack", 256, out, "u32");
    shader.bind(from, "u32");
    shader.field("count", count);
    shader.code(snippet(LAYOUT, "bytes"));
    shader.code(snippet(LAYOUT, "unpack"));
    shader.launch(u64::from(count).div_ceil(256), u64::from(count) * 2)
}

/// `out += from`, element by element.
pub fn accumulate(from: ValueId, out: ValueId, count: u32) -> Launch {
    let mut shader = Shader::new("accumulate", 256, out, "f32");
    shader.bind(from, "f32");
    shader.field("count", count);
    shader.code(snippet(LAYOUT, "accumulate"));
    shader.launch(u64::from(count).div_ceil(256), u64::from(count) * 2)
}
