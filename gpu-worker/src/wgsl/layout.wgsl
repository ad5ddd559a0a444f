Moving words into a part of a result, and reading rows of data shards.

//# concat
// x [outer, width] into columns p.start.. of out [outer, p.whole].
fn run(group: u32, lane: u32) {
    let at = group * 256u + lane;
    if (at >= p.count) { return; }
    out[(at / p.width) * p.whole + p.start + at % p.width] = in0[at];
}

//# rows
// Pairs of (row of the result, row of the shard) in in1; a row that no shard
// holds is zeros.
fn run(group: u32, lane: u32) {
    let at = group * 256u + lane;
    if (at >= p.count) { return; }
    let pair = (at / p.width) * 2u;
    let column = at % p.width;
    let source = in1[pair + 1u];
    var word = 0u;
    if (source != 0xffffffffu) {
        word = element(source * p.width + column);
    }
    out[in1[pair] * p.width + column] = word;
}

//# unpack
// Bytes of a blob to words.
fn run(group: u32, lane: u32) {
    let at = group * 256u + lane;
    if (at >= p.count) { return; }
    out[at] = element(at);
}

//# words
fn element(at: u32) -> u32 {
    return in0[at];
}
//# bytes
fn element(at: u32) -> u32 {
    return (in0[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu;
}

//# accumulate
// out += in0, for sums over micro-batches.
fn run(group: u32, lane: u32) {
    let at = group * 256u + lane;
    if (at >= p.count) { return; }
    out[at] = out[at] + in0[at];
}
