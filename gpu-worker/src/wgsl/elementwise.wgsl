Functions of fused element-wise chains, over one number or four: $F$ is f32 or
vec4<f32>, $U$ and $I$ likewise. Infinity and NaN are made from a variable, since a
constant expression must not yield them.

//# entry1
fn run(group: u32, lane: u32) {
    let i = group * 256u + lane;
    if (i >= p.count) { return; }
    let at = i;
//# entry4
fn run(group: u32, lane: u32) {
    let i = group * 256u + lane;
    if (i >= p.count) { return; }
    let at = i * 4u;
//# is_nan
fn is_nan(x: $F$) -> $B$ {
    return (bitcast<$U$>(x) & $U$(0x7fffffffu)) > $U$(0x7f800000u);
}
//# special
fn special(bits: u32) -> $F$ {
    var b = bits;
    return $F$(bitcast<f32>(b));
}
//# greater
fn greater(a: $F$, b: $F$) -> $F$ {
    return select(b, a, (a > b) | is_nan(a));
}
//# smaller
fn smaller(a: $F$, b: $F$) -> $F$ {
    return select(b, a, (a < b) | is_nan(a));
}
//# tanh_
fn tanh_(x: $F$) -> $F$ {
    // Large arguments overflow in some implementations.
    return select(x, tanh(clamp(x, $F$(-15.0), $F$(15.0))), x == x);
}
//# power
// The device's own power for positive finite numbers; the edges as IEEE has them.
fn power(a: $F$, b: $F$) -> $F$ {
    let size = abs(a);
    let infinity = special(0x7f800000u);
    let edge = (size == $F$(0.0)) | (size == infinity) | (abs(b) == infinity);
    let beyond = select($F$(0.0), infinity, (size > $F$(1.0)) == (b > $F$(0.0)));
    let one = (size == $F$(1.0)) | (b == $F$(0.0));
    let m = select(select(pow(size, b), beyond, edge), $F$(1.0), one);
    // Every number from 2^24 on is even.
    let whole = (floor(b) == b) | (abs(b) == infinity);
    let odd = whole & (abs(b) < $F$(16777216.0)) & (abs(b - 2.0 * floor(b * 0.5)) == $F$(1.0));
    let negative = (bitcast<$U$>(a) >> $U$(31u)) == $U$(1u);
    let signed_ = select(m, -m, negative & odd);
    let no_number = negative & !whole & (size != $F$(0.0)) & (size != infinity);
    // NaN is not equal to anything; "unequal" may not say so.
    let unknown = (is_nan(a) & !(b == $F$(0.0))) | (is_nan(b) & !(a == $F$(1.0)));
    return select(signed_, special(0x7fc00000u), no_number | unknown);
}
//# to_i32
fn to_i32(x: $F$) -> $I$ {
    let clamped = $I$(clamp(x, $F$(-2147483648.0), $F$(2147483520.0)));
    let high = select(clamped, $I$(2147483647), x >= $F$(2147483648.0));
    return select(high, $I$(0), is_nan(x));
}
//# to_u8
fn to_u8(x: $F$) -> $U$ {
    return select($U$(clamp(x, $F$(0.0), $F$(255.0))), $U$(0u), is_nan(x));
}
