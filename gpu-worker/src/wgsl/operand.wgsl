Loaders of matrix operands. For devices that like vectors (gemm.wgsl), a block of four positions along the operand's own
axis (o: a row of the left, a column of the right operand) by four along the
summed axis (k). Column j of the result holds the four positions at k + j.
Outside of the operand everything is 0. No early returns: they are inlined many
times, and some compilers take exponentially long to untangle them.

//# along_own_vector
fn load_$SIDE$(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    var block = mat4x4<f32>();
$OFFSET_LINES$
    let at = ($OFFSET$ + k * $EXTENT$ + o) >> 2u;
    let step = $EXTENT$ >> 2u;
    for (var j = 0u; j < 4u; j++) {
        if ((o < $EXTENT$) & (k + j < p.k)) { block[j] = $SOURCE$[at + j * step]; }
    }
    return block;
}
//# along_own
fn load_$SIDE$(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    var block = mat4x4<f32>();
$OFFSET_LINES$
    let own = vec4<u32>(o) + vec4<u32>(0u, 1u, 2u, 3u);
    for (var j = 0u; j < 4u; j++) {
        let valid = (own < vec4<u32>($EXTENT$)) & vec4<bool>(k + j < p.k);
        let at = select(vec4<u32>(0u), $OFFSET$ + (k + j) * $EXTENT$ + own, valid);
        let found = vec4<f32>($SOURCE$[at.x], $SOURCE$[at.y], $SOURCE$[at.z], $SOURCE$[at.w]);
        block[j] = select(vec4<f32>(), found, valid);
    }
    return block;
}
//# along_k_vector
fn load_$SIDE$(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    var block = mat4x4<f32>();
$OFFSET_LINES$
    let at = ($OFFSET$ + o * p.k + k) >> 2u;
    let step = p.k >> 2u;
    for (var j = 0u; j < 4u; j++) {
        if ((o + j < $EXTENT$) & (k < p.k)) { block[j] = $SOURCE$[at + j * step]; }
    }
    return transpose(block);
}
//# along_k
fn load_$SIDE$(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    var block = mat4x4<f32>();
$OFFSET_LINES$
    let own = vec4<u32>(o) + vec4<u32>(0u, 1u, 2u, 3u);
    for (var j = 0u; j < 4u; j++) {
        let valid = (own < vec4<u32>($EXTENT$)) & vec4<bool>(k + j < p.k);
        let at = select(vec4<u32>(0u), $OFFSET$ + own * p.k + (k + j), valid);
        let found = vec4<f32>($SOURCE$[at.x], $SOURCE$[at.y], $SOURCE$[at.z], $SOURCE$[at.w]);
        block[j] = select(vec4<f32>(), found, valid);
    }
    return block;
}
//# store_vector
fn store(z: u32, m: u32, n: u32, sums: vec4<f32>) {
    if ((m < p.m) & (n < p.n)) { out[((z * p.m + m) * p.n + n) >> 2u] = sums; }
}
//# store
fn store(z: u32, m: u32, n: u32, sums: vec4<f32>) {
    let at = (z * p.m + m) * p.n + n;
    for (var i = 0u; i < 4u; i++) {
        if ((m < p.m) & (n + i < p.n)) { out[at + i] = sums[i]; }
    }
}

//# prepare
fn prepare_$SIDE$(batch: u32, o: u32) -> vec4<i32> {
$OFFSET_LINES$
    return vec4<i32>(i32($OFFSET$ + o * $OWN_STEP$), 0, 0, i32(o < $EXTENT$));
}
fn locate_$SIDE$(k: u32) -> vec4<i32> {
    return vec4<i32>(i32(k * $K_STEP$), 0, 0, i32(k < p.k));
}
fn fetch_$SIDE$(own: vec4<i32>, at: vec4<i32>) -> f32 {
    let valid = (own.w & at.w) != 0;
    return select(0.0, $SOURCE$[select(0, own.x + at.x, valid)], valid);
}
//# place
fn place(z: u32, n: u32) -> u32 {
    return z * p.m * p.n + n;
}
