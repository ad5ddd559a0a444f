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
fn normal4(block: u32, stream: u32) -> vec4<f32> {
    let u = uniform4(block, stream);
    // Half a step below the first positive uniform is the least logarithm taken.
    let radius = sqrt(-2.0 * log(u.xz + vec2<f32>(1.0 / 33554432.0)));
    return vec4<f32>(radius.x * turn(u.y), radius.y * turn(u.w));
}
