@compute @workgroup_size($INVOCATIONS$)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // One number per workgroup, from p.first on: long launches come in several dispatches.
    let group = p.first + workgroup.x + workgroup.y * 65535u;
    if (group >= p.end) {
        return;
    }
    run(group, lane);
}
