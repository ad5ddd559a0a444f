Reading and writing by index. Elements are words; what they mean does not matter
where they are only moved.

//# gather
// x [outer, extent, inner], index [indices] to [outer, indices, inner].
fn run(group: u32, lane: u32) {
    let at = group * 256u + lane;
    if (at >= p.count) { return; }
    let column = at % p.inner;
    let rest = at / p.inner;
    // A negative index becomes a large one, and both yield 0.
    let index = u32(in1[rest % p.indices]);
    var word = 0u;
    if (index < p.extent) {
        word = in0[((rest / p.indices) * p.extent + index) * p.inner + column];
    }
    out[at] = word;
}

//# scatter_add
// updates [outer, indices, inner] to [outer, extent, inner]. A workgroup owns one
// row and 64 of its columns, looks through the indices 64 at a time, and adds in
// their order: no float atomics, and the same bits each time.
var<workgroup> hits: array<atomic<u32>, 2>;
fn run(group: u32, lane: u32) {
    let block = group % p.blocks;
    let row = (group / p.blocks) % p.extent;
    let outer = group / (p.blocks * p.extent);
    let column = block * 64u + lane;
    var sum = 0.0;
    for (var first = 0u; first < p.indices; first += 64u) {
        if (lane < 2u) { atomicStore(&hits[lane], 0u); }
        workgroupBarrier();
        if (first + lane < p.indices && u32(in1[first + lane]) == row) {
            atomicOr(&hits[lane / 32u], 1u << (lane % 32u));
        }
        workgroupBarrier();
        for (var half = 0u; half < 2u; half++) {
            var left = atomicLoad(&hits[half]);
            while (left != 0u) {
                let index = first + half * 32u + firstTrailingBit(left);
                left &= left - 1u;
                if (column < p.inner) {
                    sum += in0[(outer * p.indices + index) * p.inner + column];
                }
            }
        }
        workgroupBarrier();
    }
    if (column < p.inner) {
        out[(outer * p.extent + row) * p.inner + column] = sum;
    }
}
