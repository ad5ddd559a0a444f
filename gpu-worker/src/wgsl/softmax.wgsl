Soft-max and the classification loss over rows whose elements lie p.inner apart,
shifted by the row's maximum so that no exponential overflows.

//# row_per_lane
// Short rows: one invocation each.
const LANES = 1u;
fn row_of(group: u32, lane: u32) -> u32 {
    return group * 64u + lane;
}
fn lane_of(lane: u32) -> u32 {
    return 0u;
}
fn max_of_row(x: f32, lane: u32) -> f32 {
    return x;
}
fn sum_of_row(x: f32, lane: u32) -> f32 {
    return x;
}
//# row_per_workgroup
// Long rows: one workgroup each.
const LANES = 64u;
var<workgroup> shared_row: array<f32, 64>;
fn row_of(group: u32, lane: u32) -> u32 {
    return group;
}
fn lane_of(lane: u32) -> u32 {
    return lane;
}
fn max_of_row(x: f32, lane: u32) -> f32 {
    shared_row[lane] = x;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lane < half) {
            shared_row[lane] = greater(shared_row[lane], shared_row[lane + half]);
        }
        workgroupBarrier();
    }
    let result = shared_row[0];
    workgroupBarrier();
    return result;
}
fn sum_of_row(x: f32, lane: u32) -> f32 {
    shared_row[lane] = x;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lane < half) {
            shared_row[lane] += shared_row[lane + half];
        }
        workgroupBarrier();
    }
    let result = shared_row[0];
    workgroupBarrier();
    return result;
}

//# rows
fn greater(a: f32, b: f32) -> f32 {
    let is_nan = (bitcast<u32>(a) & 0x7fffffffu) > 0x7f800000u;
    return select(b, a, a > b || is_nan);
}
struct Row {
    greatest: f32,
    sum: f32,
}
// The row's maximum and the sum of its shifted exponentials.
fn statistics(start: u32, first: u32, lane: u32) -> Row {
    // Lanes beyond a short row repeat its last element, which no maximum minds.
    var greatest = in0[start + min(first, p.extent - 1u) * p.inner];
    for (var i = first + LANES; i < p.extent; i += LANES) {
        greatest = greater(greatest, in0[start + i * p.inner]);
    }
    greatest = max_of_row(greatest, lane);
    var sum = 0.0;
    for (var i = first; i < p.extent; i += LANES) {
        sum += exp(in0[start + i * p.inner] - greatest);
    }
    return Row(greatest, sum_of_row(sum, lane));
}
fn run(group: u32, lane: u32) {
    let row = row_of(group, lane);
    if (row >= p.rows) { return; }
    let first = lane_of(lane);
    let start = (row / p.inner) * p.extent * p.inner + row % p.inner;
    let stats = statistics(start, first, lane);
$BODY$
}

//# softmax
    for (var i = first; i < p.extent; i += LANES) {
        let at = start + i * p.inner;
        out[at] = exp(in0[at] - stats.greatest) / stats.sum;
    }
//# log_softmax
    let log_sum = log(stats.sum);
    for (var i = first; i < p.extent; i += LANES) {
        let at = start + i * p.inner;
        out[at] = (in0[at] - stats.greatest) - log_sum;
    }
//# cross_entropy
    // A label out of range, negative ones included, costs nothing.
    let label = u32(in1[row]);
    if (first == 0u) {
        var loss = 0.0;
        if (label < p.extent) {
            loss = log(stats.sum) - (in0[start + label] - stats.greatest);
        }
        out[row] = loss;
    }
//# cross_entropy_grad
    let label = u32(in1[row]);
    let scale = in2[row];
    for (var i = first; i < p.extent; i += LANES) {
        let share = exp(in0[start + i] - stats.greatest) / stats.sum;
        let hit = select(0.0, 1.0, i == label);
        out[start + i] = select(0.0, (share - hit) * scale, label < p.extent);
    }
