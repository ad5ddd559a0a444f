Reductions. A result's position gives the offset of its kept axes (kept), a
number of a summand that of its reduced ones (reduced). A long reduction comes in
parts, whose results are reduced once more.

//# sum
fn merge(a: f32, b: f32) -> f32 {
    return a + b;
}
//# max
// NaN if either is, as the CPU's.
fn merge(a: f32, b: f32) -> f32 {
    return select(b, a, a > b || is_nan(a));
}
//# min
fn merge(a: f32, b: f32) -> f32 {
    return select(b, a, a < b || is_nan(a));
}
//# is_nan
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

//# columns
// One invocation per result and part: neighbours read neighbouring columns.
fn run(group: u32, lane: u32) {
    let at = group * 256u + lane;
    if (at >= p.results * p.parts) { return; }
    let result = at % p.results;
    let first = (at / p.results) * p.part;
    let end = min(first + p.part, p.summands);
    let start = kept(result);
    var total = in0[start + reduced(first)];
    for (var i = first + 1u; i < end; i++) {
        total = merge(total, in0[start + reduced(i)]);
    }
    out[at] = total / bitcast<f32>(p.divisor);
}

//# rows
// One workgroup per result and part: neighbours read along the row.
var<workgroup> totals: array<f32, 256>;
fn run(group: u32, lane: u32) {
    let result = group % p.results;
    let first = (group / p.results) * p.part;
    let end = min(first + p.part, p.summands);
    let start = kept(result);
    if (first + lane < end) {
        var total = in0[start + reduced(first + lane)];
        for (var i = first + lane + 256u; i < end; i += 256u) {
            total = merge(total, in0[start + reduced(i)]);
        }
        totals[lane] = total;
    }
    workgroupBarrier();
    let filled = min(end - first, 256u);
    for (var half = 128u; half > 0u; half /= 2u) {
        if (lane < half && lane + half < filled) {
            totals[lane] = merge(totals[lane], totals[lane + half]);
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        out[group] = totals[0] / bitcast<f32>(p.divisor);
    }
}

//# arg_max
// The first maximum; the first NaN counts as one.
fn run(group: u32, lane: u32) {
    let at = group * 64u + lane;
    if (at >= p.results) { return; }
    let start = (at / p.inner) * p.extent * p.inner + at % p.inner;
    var best = 0u;
    var greatest = in0[start];
    for (var i = 1u; i < p.extent; i++) {
        let x = in0[start + i * p.inner];
        if (x > greatest || (is_nan(x) && !is_nan(greatest))) {
            best = i;
            greatest = x;
        }
    }
    out[at] = i32(best);
}
