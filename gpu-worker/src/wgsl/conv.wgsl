Convolutions as matrix products whose operands are read where they lie (implicit
GEMM). A pixel numbers the whole batch's result, a tap is (channel, row, column)
of the kernel within one group; the batch of the product is the group. Divisions
by extents are functions that the host writes: by_plane and by_width of the
result, by_area and by_row of the input, by_window and by_kernel_width of the
kernel, by_down and by_right of the strides; with a 4, of four numbers at once.

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

//# division1
fn $NAME$(x: i32) -> i32 {
    let q = i32(f32(x) * $INVERSE$);
    let rest = x - q * $DIVISOR$;
    return q + select(0, 1, rest >= $DIVISOR$) - select(0, 1, rest < 0);
}
//# division4
fn $NAME$4(x: vec4<i32>) -> vec4<i32> {
    let q = vec4<i32>(vec4<f32>(x) * $INVERSE$);
    let rest = x - q * $DIVISOR$;
    let over = select(vec4<i32>(0), vec4<i32>(1), rest >= vec4<i32>($DIVISOR$));
    return q + over - select(vec4<i32>(0), vec4<i32>(1), rest < vec4<i32>(0));
}

//# tap
// Channel, kernel row and kernel column of a tap, the latter two dilated.
fn tap_at(tap: i32) -> vec3<i32> {
    let channel = by_window(tap);
    let within = tap - channel * (KH * KW);
    let line = by_kernel_width(within);
    return vec3<i32>(channel, line * DH, (within - line * KW) * DW);
}

//# met
// What a tap meets in four windows with these corners, 0 in the padding.
fn met_by(tap: i32, start: vec4<i32>, top: vec4<i32>, left: vec4<i32>, inside: vec4<bool>) -> vec4<f32> {
    let at = tap_at(tap);
    let row = top + at.y;
    let column = left + at.z;
    let valid = inside & (row >= vec4<i32>(0)) & (row < vec4<i32>(H))
        & (column >= vec4<i32>(0)) & (column < vec4<i32>(W)) & vec4<bool>(at.x < CG);
    let source = start + at.x * (H * W) + row * W + column;
    let safe = select(vec4<i32>(0), source, valid);
    let found = vec4<f32>($X$[safe.x], $X$[safe.y], $X$[safe.z], $X$[safe.w]);
    return select(vec4<f32>(), found, valid);
}
// Column j: what tap + j of the kernel meets at four pixels.
fn met(group: u32, pixel: u32, tap: u32) -> mat4x4<f32> {
    let pixels = vec4<i32>(i32(pixel)) + vec4<i32>(0, 1, 2, 3);
    let image = by_plane4(pixels);
    let within = pixels - image * (OH * OW);
    let line = by_width4(within);
    let top = line * SH - PT;
    let left = (within - line * OW) * SW - PL;
    let start = (image * C + i32(group) * CG) * (H * W);
    let inside = pixels < vec4<i32>(N * OH * OW);
    return mat4x4<f32>(
        met_by(i32(tap), start, top, left, inside),
        met_by(i32(tap) + 1, start, top, left, inside),
        met_by(i32(tap) + 2, start, top, left, inside),
        met_by(i32(tap) + 3, start, top, left, inside),
    );
}
//# load_met
fn load_b(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    return met(batch, o, k);
}
//# load_met_transposed
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
        let plane = by_window(at);
        let valid = (channels < vec4<i32>(CG)) & vec4<bool>(plane < OG);
        let first = ((i32(batch) * OG + plane) * CG + channels) * (KH * KW);
        let safe = select(vec4<i32>(0), first + (at - plane * (KH * KW)), valid);
        let found = vec4<f32>($WEIGHT$[safe.x], $WEIGHT$[safe.y], $WEIGHT$[safe.z], $WEIGHT$[safe.w]);
        block[j] = select(vec4<f32>(), found, valid);
    }
    return block;
}
//# load_gradient_at_input
// What a tap of a filter brought from the results to four pixels of the input.
fn brought(k: i32, start: vec4<i32>, bottom: vec4<i32>, far: vec4<i32>, inside: vec4<bool>) -> vec4<f32> {
    let at = tap_at(k);
    let down = bottom - at.y;
    let right = far - at.z;
    let row = by_down4(down);
    let column = by_right4(right);
    let valid = inside & (down >= vec4<i32>(0)) & (right >= vec4<i32>(0))
        & (row * SH == down) & (column * SW == right)
        & (row < vec4<i32>(OH)) & (column < vec4<i32>(OW)) & vec4<bool>(at.x < OG);
    let safe = select(vec4<i32>(0), start + at.x * (OH * OW) + row * OW + column, valid);
    let found = vec4<f32>($DY$[safe.x], $DY$[safe.y], $DY$[safe.z], $DY$[safe.w]);
    return select(vec4<f32>(), found, valid);
}
// Columns are pixels of the input: which results did a pixel contribute to?
fn load_b(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    let pixels = vec4<i32>(i32(o)) + vec4<i32>(0, 1, 2, 3);
    let image = by_area4(pixels);
    let within = pixels - image * (H * W);
    let line = by_row4(within);
    let bottom = line + PT;
    let far = within - line * W + PL;
    let start = (image * O + i32(batch) * OG) * (OH * OW);
    let inside = pixels < vec4<i32>(N * H * W);
    return mat4x4<f32>(
        brought(i32(k), start, bottom, far, inside),
        brought(i32(k) + 1, start, bottom, far, inside),
        brought(i32(k) + 2, start, bottom, far, inside),
        brought(i32(k) + 3, start, bottom, far, inside),
    );
}

//# load_gradient
// Rows are filters, the summed axis is the pixel of the result.
fn load_a(batch: u32, o: u32, k: u32) -> mat4x4<f32> {
    let filters = vec4<i32>(i32(o)) + vec4<i32>(0, 1, 2, 3);
    var block = mat4x4<f32>();
    for (var j = 0; j < 4; j++) {
        let pixel = i32(k) + j;
        let valid = (filters < vec4<i32>(OG)) & vec4<bool>(pixel < N * OH * OW);
        let image = by_plane(pixel);
        let first = (image * O + i32(batch) * OG + filters) * (OH * OW);
        let safe = select(vec4<i32>(0), first + (pixel - image * (OH * OW)), valid);
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
