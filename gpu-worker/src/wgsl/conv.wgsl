Convolutions as matrix products whose operands are read where they lie (implicit
GEMM). A pixel numbers the whole batch's result, a tap is (channel, row, column)
of the kernel within one group; the batch of the product is the group.

//# constants
const H = $H$;
const W = $W$;
const OH = $OH$;
const OW = $OW$;
const KH = $KH$;
const KW = $KW$;
const SH = $SH$;
const SW = $SW$;
const PT = $PT$;
const PL = $PL$;
const DH = $DH$;
const DW = $DW$;
const CG = $CG$;
const OG = $OG$;
const C = $C$;
const O = $O$;
const N = $N$;

//# patch
// Column j: what tap + j of the kernel meets at four pixels, 0 in the padding.
fn met(group: u32, pixel: u32, tap: u32) -> mat4x4<f32> {
    let pixels = vec4<i32>(i32(pixel)) + vec4<i32>(0, 1, 2, 3);
    let image = pixels / (OH * OW);
    let within = pixels % (OH * OW);
    let top = (within / OW) * SH - PT;
    let left = (within % OW) * SW - PL;
    let start = (image * C + i32(group) * CG) * (H * W);
    let inside = pixels < vec4<i32>(N * OH * OW);
    var block = mat4x4<f32>();
    for (var j = 0; j < 4; j++) {
        let at = i32(tap) + j;
        let row = top + ((at / KW) % KH) * DH;
        let column = left + (at % KW) * DW;
        let valid = inside & (row >= vec4<i32>(0)) & (row < vec4<i32>(H))
            & (column >= vec4<i32>(0)) & (column < vec4<i32>(W))
            & vec4<bool>(at < CG * KH * KW);
        let source = start + (at / (KH * KW)) * (H * W) + row * W + column;
        let safe = select(vec4<i32>(0), source, valid);
        let found = vec4<f32>($X$[safe.x], $X$[safe.y], $X$[safe.z], $X$[safe.w]);
        block[j] = select(vec4<f32>(), found, valid);
    }
    return block;
}

//# load_patch
fn load_b(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    return met(batch, o, k);
}

//# load_patch_transposed
fn load_b(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    return transpose(met(batch, k, o));
}

//# load_weight_transposed
// Rows are input channels, the summed axis is (filter, kernel row, kernel column).
fn load_a(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    let channels = vec4<i32>(i32(o)) + vec4<i32>(0, 1, 2, 3);
    var block = mat4x4<f32>();
    for (var j = 0; j < 4; j++) {
        let at = i32(k) + j;
        let plane = i32(batch) * OG + at / (KH * KW);
        let valid = (channels < vec4<i32>(CG)) & vec4<bool>(at < OG * KH * KW);
        let source = (plane * CG + channels) * (KH * KW) + at % (KH * KW);
        let safe = select(vec4<i32>(0), source, valid);
        let found = vec4<f32>($WEIGHT$[safe.x], $WEIGHT$[safe.y], $WEIGHT$[safe.z], $WEIGHT$[safe.w]);
        block[j] = select(vec4<f32>(), found, valid);
    }
    return block;
}

//# load_gradient_at_input
// Columns are pixels of the input: which results did a pixel contribute to?
fn load_b(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    let pixels = vec4<i32>(i32(o)) + vec4<i32>(0, 1, 2, 3);
    let image = pixels / (H * W);
    let within = pixels % (H * W);
    let inside = pixels < vec4<i32>(N * H * W);
    var block = mat4x4<f32>();
    for (var j = 0; j < 4; j++) {
        let at = i32(k) + j;
        let plane = i32(batch) * OG + at / (KH * KW);
        let down = within / W + PT - ((at / KW) % KH) * DH;
        let right = within % W + PL - (at % KW) * DW;
        let row = down / SH;
        let column = right / SW;
        let valid = inside & (down >= vec4<i32>(0)) & (right >= vec4<i32>(0))
            & (row * SH == down) & (column * SW == right)
            & (row < vec4<i32>(OH)) & (column < vec4<i32>(OW))
            & vec4<bool>(at < OG * KH * KW);
        let source = (image * O + plane) * (OH * OW) + row * OW + column;
        let safe = select(vec4<i32>(0), source, valid);
        let found = vec4<f32>($DY$[safe.x], $DY$[safe.y], $DY$[safe.z], $DY$[safe.w]);
        block[j] = select(vec4<f32>(), found, valid);
    }
    return block;
}

//# load_gradient
// Rows are filters, the summed axis is the pixel of the result.
fn load_a(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    let filters = vec4<i32>(i32(o)) + vec4<i32>(0, 1, 2, 3);
    var block = mat4x4<f32>();
    for (var j = 0; j < 4; j++) {
        let pixel = i32(k) + j;
        let valid = (filters < vec4<i32>(OG)) & vec4<bool>(pixel < N * OH * OW);
        let plane = i32(batch) * OG + filters;
        let source = ((pixel / (OH * OW)) * O + plane) * (OH * OW) + pixel % (OH * OW);
        let safe = select(vec4<i32>(0), source, valid);
        let found = vec4<f32>($DY$[safe.x], $DY$[safe.y], $DY$[safe.z], $DY$[safe.w]);
        block[j] = select(vec4<f32>(), found, valid);
    }
    return block;
}

//# store_planes_vector
// Four pixels never straddle two images: the plane is a multiple of four.
fn store(z: u32, m: u32, n: u32, sums: vec4<f32>) {
    const plane = $PLANE$u;
    if (m < p.m && n < p.n) {
        out[(((n / plane) * $PLANES$u + z * p.m + m) * plane + n % plane) >> 2u] = sums;
    }
}

//# store_planes
fn store(z: u32, m: u32, n: u32, sums: vec4<f32>) {
    const plane = $PLANE$u;
    for (var i = 0u; i < 4u; i++) {
        let pixel = n + i;
        if (m < p.m && pixel < p.n) {
            out[((pixel / plane) * $PLANES$u + z * p.m + m) * plane + pixel % plane] = sums[i];
        }
    }
}
