Loaders of matrix operands: a block of four positions along the operand's own
axis (o: a row of the left, a column of the right operand) by four along the
summed axis (k). Column j of the result holds the four positions at k + j.
Outside of the operand everything is 0. No early returns: they are inlined many
times, and some compilers take exponentially long to untangle them.

//# along_own_vector
fn line_$SIDE$(at: u32, valid: bool) -> vec4<f32> {
    return select(vec4<f32>(), $SOURCE$[select(0u, at, valid)], vec4<bool>(valid));
}
fn load_$SIDE$(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
$OFFSET_LINES$
    let at = ($OFFSET$ + k * $EXTENT$ + o) >> 2u;
    let step = $EXTENT$ >> 2u;
    let valid = o < $EXTENT$;
    return mat4x4<f32>(
        line_$SIDE$(at, valid & (k < p.k)),
        line_$SIDE$(at + step, valid & (k + 1u < p.k)),
        line_$SIDE$(at + 2u * step, valid & (k + 2u < p.k)),
        line_$SIDE$(at + 3u * step, valid & (k + 3u < p.k)),
    );
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
fn line_$SIDE$(at: u32, valid: bool) -> vec4<f32> {
    return select(vec4<f32>(), $SOURCE$[select(0u, at, valid)], vec4<bool>(valid));
}
fn load_$SIDE$(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
$OFFSET_LINES$
    let at = ($OFFSET$ + o * p.k + k) >> 2u;
    let step = p.k >> 2u;
    let valid = k < p.k;
    return transpose(mat4x4<f32>(
        line_$SIDE$(at, valid & (o < $EXTENT$)),
        line_$SIDE$(at + step, valid & (o + 1u < $EXTENT$)),
        line_$SIDE$(at + 2u * step, valid & (o + 2u < $EXTENT$)),
        line_$SIDE$(at + 3u * step, valid & (o + 3u < $EXTENT$)),
    ));
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
