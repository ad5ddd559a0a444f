Pooling, one invocation per element written. Gradients gather: each input
position asks the windows that cover it, so that nothing is added atomically.

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

//# first_max
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}
// Position of the first maximum (or the first NaN) of a window within its plane.
fn first_max(plane: i32, oh: i32, ow: i32) -> i32 {
    let top = max(oh * SH - PT, 0);
    let left = max(ow * SW - PL, 0);
    let bottom = min(oh * SH - PT + KH, H);
    let right = min(ow * SW - PL + KW, W);
    var best = top * W + left;
    var greatest = in0[plane + best];
    for (var row = top; row < bottom; row++) {
        for (var column = left; column < right; column++) {
            let at = row * W + column;
            let x = in0[plane + at];
            if (x > greatest || (is_nan(x) && !is_nan(greatest))) {
                best = at;
                greatest = x;
            }
        }
    }
    return best;
}

//# max
fn run(group: u32, lane: u32) {
    let index = group * 64u + lane;
    if (index >= p.count) { return; }
    let at = i32(index);
    let plane = (at / (OH * OW)) * (H * W);
    out[index] = in0[plane + first_max(plane, (at / OW) % OH, at % OW)];
}

//# average
fn run(group: u32, lane: u32) {
    let index = group * 64u + lane;
    if (index >= p.count) { return; }
    let at = i32(index);
    let plane = (at / (OH * OW)) * (H * W);
    let top = ((at / OW) % OH) * SH - PT;
    let left = (at % OW) * SW - PL;
    var sum = 0.0;
    for (var row = max(top, 0); row < min(top + KH, H); row++) {
        for (var column = max(left, 0); column < min(left + KW, W); column++) {
            sum += in0[plane + row * W + column];
        }
    }
    out[index] = sum / (f32(KH) * f32(KW));
}

//# covering
// The windows of one axis that cover a position: first and last, last < first if none.
fn first_window(at: i32, kernel: i32, stride: i32, pad: i32) -> i32 {
    let beyond = at + pad - kernel + 1;
    return select((beyond + stride - 1) / stride, 0, beyond <= 0);
}
fn last_window(at: i32, stride: i32, pad: i32, windows: i32) -> i32 {
    return min((at + pad) / stride, windows - 1);
}

//# max_grad
fn run(group: u32, lane: u32) {
    let index = group * 64u + lane;
    if (index >= p.count) { return; }
    let at = i32(index);
    let within = at % (H * W);
    let row = within / W;
    let column = within % W;
    let plane = at - within;
    let pooled = (at / (H * W)) * (OH * OW);
    var sum = 0.0;
    for (var oh = first_window(row, KH, SH, PT); oh <= last_window(row, SH, PT, OH); oh++) {
        for (var ow = first_window(column, KW, SW, PL); ow <= last_window(column, SW, PL, OW); ow++) {
            if (first_max(plane, oh, ow) == within) {
                sum += in1[pooled + oh * OW + ow];
            }
        }
    }
    out[index] = sum;
}

//# average_grad
fn run(group: u32, lane: u32) {
    let index = group * 64u + lane;
    if (index >= p.count) { return; }
    let at = i32(index);
    let within = at % (H * W);
    let row = within / W;
    let column = within % W;
    let pooled = (at / (H * W)) * (OH * OW);
    var sum = 0.0;
    for (var oh = first_window(row, KH, SH, PT); oh <= last_window(row, SH, PT, OH); oh++) {
        for (var ow = first_window(column, KW, SW, PL); ow <= last_window(column, SW, PL, OW); ow++) {
            sum += in0[pooled + oh * OW + ow] / (f32(KH) * f32(KW));
        }
    }
    out[index] = sum;
}
