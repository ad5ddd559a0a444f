// The same product for devices whose invocations are the lanes of a CPU's vectors:
// neighbouring invocations read one element together, or neighbouring elements,
// which is one load there; vectors per invocation would be gathered. An invocation
// sums rows $OWN$ * ty.. and every $TX$th column from tx on.
var<workgroup> tile_a: array<f32, $A_WORDS$>;
var<workgroup> tile_b: array<f32, $B_WORDS$>;

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
$PREPARED$
$ACCUMULATORS$
    for (var k0 = part * p.k_part; k0 < k_end; k0 += $BK$u) {
$LOADS$
        workgroupBarrier();
        for (var kk = 0u; kk < $BK$u; kk++) {
$PRODUCTS$
        }
        workgroupBarrier();
    }
    var sums = array<f32, $SUMS$>($SUM_NAMES$);
    for (var j = 0u; j < $OWN$u; j++) {
        let n = column + tx + j * $TX$u;
        let at = place(z, n);
        for (var i = 0u; i < $OWN$u; i++) {
            let m = row + ty * $OWN$u + i;
            if ((m < p.m) & (n < p.n)) { out[at + m * $ROW_STEP$] = sums[i * $OWN$u + j]; }
        }
    }
}
