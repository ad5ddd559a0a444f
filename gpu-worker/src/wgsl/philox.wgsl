// Philox 4x32-10, as graph/src/philox.rs: four words for a counter and a key.
fn high_product(a: u32, b: u32) -> u32 {
    // Of four 16-bit products; none of the sums below overflows.
    let low = (a & 0xffffu) * (b & 0xffffu);
    let mid = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let cross = (a & 0xffffu) * (b >> 16u) + (mid & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (mid >> 16u) + (cross >> 16u);
}
fn philox(block: u32, stream: u32) -> vec4<u32> {
    // A block's number fits 32 bits: no tensor has 2^34 elements.
    var c = vec4<u32>(block, stream, p.run, 0u);
    var key = vec2<u32>(p.seed_low, p.seed_high);
    for (var round = 0u; round < 10u; round++) {
        if (round > 0u) {
            key += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
        }
        let high_0 = high_product(0xD2511F53u, c.x);
        let low_0 = 0xD2511F53u * c.x;
        let high_1 = high_product(0xCD9E8D57u, c.z);
        let low_1 = 0xCD9E8D57u * c.z;
        c = vec4<u32>(high_1 ^ c.y ^ key.x, low_1, high_0 ^ c.w ^ key.y, low_0);
    }
    return c;
}
fn uniform4(block: u32, stream: u32) -> vec4<f32> {
    return vec4<f32>(philox(block, stream) >> vec4<u32>(8u)) * (1.0 / 16777216.0);
}
// Sine and cosine of a full turn times u, for u in [0, 1): the quarter is exact,
// and the series is right to the last digits over an eighth of a turn either way,
// where the built-in functions may be off by 2^-11.
fn turn(u: f32) -> vec2<f32> {
    let quarter = floor(u * 4.0 + 0.5);
    let x = (u * 4.0 - quarter) * 1.5707963267948966;
    let y = x * x;
    let s = x * (1.0 + y * (-0.16666667 + y * (0.008333333 + y * (-0.00019841270 + y * 0.0000027557319))));
    let c = 1.0 + y * (-0.5 + y * (0.041666668 + y * (-0.0013888889 + y * 0.000024801587)));
    switch (u32(quarter) & 3u) {
        case 0u: { return vec2<f32>(c, s); }
        case 1u: { return vec2<f32>(-s, c); }
        case 2u: { return vec2<f32>(-c, -s); }
        default: { return vec2<f32>(s, -c); }
    }
}
// The square root of -2 log u for u = (k + 0.5) / 2^24. Near 1 the error of the
// built-in logarithm, which may even be above 0, would be much of the result: there it
// is a series in (1 - u) / (1 + u). The sum is rounded to even as on the CPU, by
// integers, since a device may round either way.
fn radius(k: vec2<u32>) -> vec2<f32> {
    let u = vec2<f32>(k) * (1.0 / 16777216.0) + vec2<f32>(1.0 / 33554432.0);
    let rest = vec2<f32>(vec2<u32>(16777216u) - (k + (k & vec2<u32>(1u)))) * (1.0 / 16777216.0);
    let s = rest / (2.0 - rest);
    let y = s * s;
    let series = 2.0 * s * (1.0 + y * (0.33333334 + y * (0.2 + y * 0.14285715)));
    let plain = max(-log(u), vec2<f32>(0.0));
    return sqrt(2.0 * select(plain, series, u > vec2<f32>(0.75)));
}
fn normal4(block: u32, stream: u32) -> vec4<f32> {
    let words = philox(block, stream) >> vec4<u32>(8u);
    let u = vec4<f32>(words) * (1.0 / 16777216.0);
    let r = radius(words.xz);
    return vec4<f32>(r.x * turn(u.y), r.y * turn(u.w));
}
