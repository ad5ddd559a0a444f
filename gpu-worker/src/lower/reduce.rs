//! Reductions in one or two passes.

use super::{Arg, Lower};
use crate::shader::{Shader, ValueId, merged, offset, snippet, steps};
use raven_graph::ReduceFn;

const REDUCE: &str = include_str!("../wgsl/reduce.wgsl");

/// Invocations that keep a device busy; with fewer results, sums are cut.
const INVOCATIONS_WANTED: u32 = 4096;
/// Summands that one invocation takes at least before a sum is cut.
const PART_MIN: u32 = 64;
/// Summands along a row from which a workgroup shares it.
const ROW_MIN: u32 = 128;
const ROW_LANES: u32 = 256;

/// What is added up, and where it lies.
struct Pass<'a> {
    function: ReduceFn,
    from: ValueId,
    /// Extents and steps of the axes that stay.
    kept: &'a [(u32, u32)],
    /// Extents and steps of the axes that go.
    reduced: &'a [(u32, u32)],
    /// Summands of one part, and the number of parts.
    part: u32,
    parts: u32,
    /// What a result is divided by.
    divisor: f32,
    /// A workgroup shares each result.
    rows: bool,
}

fn extent(axes: &[(u32, u32)]) -> u32 {
    axes.iter().map(|(extent, _)| extent).product()
}

fn launch(cx: &mut Lower, pass: &Pass<'_>, out: ValueId) {
    let (results, summands) = (extent(pass.kept), extent(pass.reduced));
    let mut shader = Shader::new("reduce", 256, out, "f32");
    shader.bind(pass.from, "f32");
    shader.field("results", results);
    shader.field("summands", summands);
    shader.field("part", pass.part);
    shader.field("parts", pass.parts);
    shader.field("divisor", pass.divisor.to_bits());
    for (name, axes) in [("kept", pass.kept), ("reduced", pass.reduced)] {
        let (lines, at) = offset(&mut shader, &name[..1], "index", "0u", axes);
        shader.code(&format!("fn {name}(index: u32) -> u32 {{\n{lines}    return {at};\n}}"));
    }
    let merge = match pass.function {
        ReduceFn::Sum | ReduceFn::Mean => "sum",
        ReduceFn::Max => "max",
        ReduceFn::Min => "min",
    };
    shader.code(snippet(REDUCE, "is_nan"));
    shader.code(snippet(REDUCE, merge));
    shader.code(snippet(REDUCE, if pass.rows { "rows" } else { "columns" }));
    shader.steps(u64::from(if pass.rows { pass.part.div_ceil(ROW_LANES) } else { pass.part }));
    let outputs = u64::from(results) * u64::from(pass.parts);
    let groups = if pass.rows { outputs } else { outputs.div_ceil(256) };
    cx.push(shader.launch(groups, u64::from(results) * u64::from(summands) * 4));
}

/// `x` reduced over `axes`.
pub fn reduce(cx: &mut Lower, function: ReduceFn, x: Arg<'_>, axes: &[u32], out: ValueId) {
    let steps = steps(x.dims);
    let select = |reduced: bool| {
        let axes = (0..x.dims.len()).filter(|axis| axes.contains(&(*axis as u32)) == reduced);
        merged(axes.map(|axis| (x.dims[axis], steps[axis])))
    };
    let (kept, reduced) = (select(false), select(true));
    let (results, summands) = (extent(&kept), extent(&reduced));
    let divisor = if function == ReduceFn::Mean { summands as f32 } else { 1.0 };
    // Neighbours in memory must be read by neighbouring invocations.
    let inner_is_reduced = reduced.last().is_some_and(|(_, step)| *step == 1);
    let rows = inner_is_reduced && summands >= ROW_MIN;
    let lanes = if rows { ROW_LANES } else { 1 };
    let wanted = (INVOCATIONS_WANTED / lanes).div_ceil(results).max(1);
    let parts = wanted.min(summands / (PART_MIN * lanes)).max(1);
    let part = summands.div_ceil(parts);
    let parts = summands.div_ceil(part);
    let pass = Pass {
        function,
        from: x.value,
        kept: &kept,
        reduced: &reduced,
        part,
        parts,
        divisor: if parts > 1 { 1.0 } else { divisor },
        rows,
    };
    if parts == 1 {
        return launch(cx, &pass, out);
    }
    let partial = cx.value(parts * results);
    launch(cx, &pass, partial);
    fold_leading(cx, function, (partial, parts, results), divisor, out);
}

/// The sum of `[parts, words]` over its first axis.
pub fn sum_leading(cx: &mut Lower, from: ValueId, parts: u32, words: u32, out: ValueId) {
    fold_leading(cx, ReduceFn::Sum, (from, parts, words), 1.0, out);
}

fn fold_leading(
    cx: &mut Lower,
    function: ReduceFn,
    (from, parts, words): (ValueId, u32, u32),
    divisor: f32,
    out: ValueId,
) {
    let pass = Pass {
        function,
        from,
        kept: &[(words, 1)],
        reduced: &[(parts, words)],
        part: parts,
        parts: 1,
        divisor,
        rows: false,
    };
    launch(cx, &pass, out);
}

/// The index of the first maximum along `axis`.
pub fn arg_max(cx: &mut Lower, x: Arg<'_>, axis: usize, out: Arg<'_>) {
    let results = out.count();
    let mut shader = Shader::new("arg_max", 64, out.value, "i32");
    shader.bind(x.value, "f32");
    shader.field("results", results);
    shader.field("extent", x.dims[axis]);
    shader.field("inner", x.dims[axis + 1..].iter().product());
    shader.code(snippet(REDUCE, "is_nan"));
    shader.code(snippet(REDUCE, "arg_max"));
    shader.steps(x.dims[axis].into());
    cx.push(shader.launch(u64::from(results).div_ceil(64), u64::from(x.count()) * 4));
}
