// The same product for devices whose invocations are the lanes of a CPU's vectors.
// Workgroup memory and barriers cost more there than the caches that are behind
// every load anyway: an invocation reads blocks of four by four of both operands
// and sums $OWN_ROWS$ rows by $QUADS$ vectors of columns, neighbours side by side.
fn run(group: u32, lane: u32) {
    let column_tile = group % p.column_tiles;
    let row_tile = (group / p.column_tiles) % p.row_tiles;
    let z = group / (p.column_tiles * p.row_tiles);
    let batch = z % p.batches;
    // The summed axis may be cut into parts, each with its own result.
    let part = z / p.batches;
    let k_end = min(p.k, (part + 1u) * p.k_part);
    let row = row_tile * $BM$u + (lane / $WIDE$u) * $OWN_ROWS$u;
    let column = column_tile * $BN$u + (lane % $WIDE$u) * 4u;
$ACCUMULATORS$
    for (var k = part * p.k_part; k < k_end; k += 4u) {
$PRODUCTS$
    }
    var sums = array<vec4<f32>, $SUMS$>($SUM_NAMES$);
    for (var i = 0u; i < $SUMS$u; i++) {
        store(z, row + i / $QUADS$u, column + (i % $QUADS$u) * $QUAD_STEP$u, sums[i]);
    }
}
