Loaders of matrix operands: a block of four positions along the operand's own
axis (o: a row of the left, a column of the right operand) by four along the
summed axis (k). Column j of the result holds the four positions at k + j.
Outside of the operand everything is 0.

//# along_own_vector
fn load_$SIDE$(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    var block = mat4x4<f32>();
    if (o >= $EXTENT$) { return block; }
$OFFSET_LINES$
    let at = ($OFFSET$ + k * $EXTENT$ + o) >> 2u;
    let step = $EXTENT$ >> 2u;
    if (k < p.k) { block[0] = $SOURCE$[at]; }
    if (k + 1u < p.k) { block[1] = $SOURCE$[at + step]; }
    if (k + 2u < p.k) { block[2] = $SOURCE$[at + 2u * step]; }
    if (k + 3u < p.k) { block[3] = $SOURCE$[at + 3u * step]; }
    return block;
}
//# along_own
fn element_$SIDE$(start: u32, o: u32, k: u32) -> f32 {
    if (o >= $EXTENT$ || k >= p.k) { return 0.0; }
    return $SOURCE$[start + k * $EXTENT$ + o];
}
//# along_k_vector
fn load_$SIDE$(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    var block = mat4x4<f32>();
    if (k >= p.k) { return block; }
$OFFSET_LINES$
    let at = ($OFFSET$ + o * p.k + k) >> 2u;
    let step = p.k >> 2u;
    if (o < $EXTENT$) { block[0] = $SOURCE$[at]; }
    if (o + 1u < $EXTENT$) { block[1] = $SOURCE$[at + step]; }
    if (o + 2u < $EXTENT$) { block[2] = $SOURCE$[at + 2u * step]; }
    if (o + 3u < $EXTENT$) { block[3] = $SOURCE$[at + 3u * step]; }
    return transpose(block);
}
//# along_k
fn element_$SIDE$(start: u32, o: u32, k: u32) -> f32 {
    if (o >= $EXTENT$ || k >= p.k) { return 0.0; }
    return $SOURCE$[start + o * p.k + k];
}
//# elements
fn column_$SIDE$(start: u32, o: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(
        element_$SIDE$(start, o, k),
        element_$SIDE$(start, o + 1u, k),
        element_$SIDE$(start, o + 2u, k),
        element_$SIDE$(start, o + 3u, k),
    );
}
fn load_$SIDE$(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
$OFFSET_LINES$
    let start = $OFFSET$;
    return mat4x4<f32>(
        column_$SIDE$(start, o, k),
        column_$SIDE$(start, o, k + 1u),
        column_$SIDE$(start, o, k + 2u),
        column_$SIDE$(start, o, k + 3u),
    );
}
//# store_vector
fn store(z: u32, m: u32, n: u32, sums: vec4<f32>) {
    if (m < p.m && n < p.n) { out[((z * p.m + m) * p.n + n) >> 2u] = sums; }
}
//# store
fn store(z: u32, m: u32, n: u32, sums: vec4<f32>) {
    if (m >= p.m) { return; }
    let at = (z * p.m + m) * p.n + n;
    if (n < p.n) { out[at] = sums.x; }
    if (n + 1u < p.n) { out[at + 1u] = sums.y; }
    if (n + 2u < p.n) { out[at + 2u] = sums.z; }
    if (n + 3u < p.n) { out[at + 3u] = sums.w; }
}
