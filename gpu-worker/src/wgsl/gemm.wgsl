// out = a b over tiles of $BM$ by $BN$. Both tiles lie in workgroup memory with the
// summed axis outside, so that the inner loop reads whole vectors of rows and
// columns. An invocation sums rows 4 * ty.. and columns 4 * tx.., and as many
// again half a tile further on where it has eight: neighbours then read
// neighbouring vectors.
var<workgroup> tile_a: array<vec4<f32>, $A_VECTORS$>;
var<workgroup> tile_b: array<vec4<f32>, $B_VECTORS$>;

fn run(group: u32, lane: u32) {
    let column_tile = group % p.column_tiles;
    let row_tile = (group / p.column_tiles) % p.row_tiles;
    let z = group / (p.column_tiles * p.row_tiles);
    let batch = z % p.batches;
    // The summed axis may be cut into parts, each with its own result.
    let part = z / p.batches;
    let k_end = min(p.k, (part + 1u) * p.k_part);
    let tx = lane % $TX$u;
    let ty = lane / $TX$u;
    let row = row_tile * $BM$u;
    let column = column_tile * $BN$u;
$ACCUMULATORS$
    for (var k0 = part * p.k_part; k0 < k_end; k0 += $BK$u) {
$LOADS$
        workgroupBarrier();
        for (var kk = 0u; kk < $BK$u; kk++) {
$PRODUCTS$
        }
        workgroupBarrier();
    }
    // One loop: stores written out one by one take long to compile.
    var sums = array<vec4<f32>, $SUMS$>($SUM_NAMES$);
    for (var i = 0u; i < $SUMS$u; i++) {
        let down = i / $HALVES$u;
        let m = row + (down / 4u) * $HALF_ROWS$u + ty * 4u + down % 4u;
        let n = column + (i % $HALVES$u) * $HALF_COLUMNS$u + tx * 4u;
        store(z, m, n, sums[i]);
    }
}
