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
fn power(a: $F$, b: $F$) -> $F$ {
    let m = pow(abs(a), b);
    let whole = floor(b) == b;
    let odd = whole & (abs(b - 2.0 * floor(b * 0.5)) == $F$(1.0));
    let signed_ = select(select(special(0x7fc00000u), m, whole), -m, odd);
    let zero_base = select(select($F$(0.0), special(0x7f800000u), b < $F$(0.0)), $F$(1.0), b == $F$(0.0));
    let negative = select(m, signed_, a < $F$(0.0));
    let found = select(negative, zero_base, a == $F$(0.0));
    return select(select(found, $F$(1.0), b == $F$(0.0)), a + b, is_nan(a) | is_nan(b));
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
