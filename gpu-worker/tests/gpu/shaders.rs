//! Every shader that the cases and whole training steps generate, checked by
//! naga. Needs no device.

use crate::{cases, steps};
use naga::AddressSpace;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use raven_gpu::{Plan, Target};
use std::collections::HashSet;

const BINDING_BYTES_MAX: u64 = 128 << 20;
const WORKGROUP_BYTES_MAX: u32 = 16 << 10;

fn check(label: &str, source: &str) -> Result<(), String> {
    let parsed = naga::front::wgsl::parse_str(source);
    let module = parsed.map_err(|error| format!("{label}: {}", error.emit_to_string(source)))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    let valid = validator.validate(&module);
    valid.map_err(|error| format!("{label}: {}", error.emit_to_string(source)))?;
    let [x, y, z] = module.entry_points[0].workgroup_size;
    assert!(x * y * z <= 256, "{label}: {x} by {y} by {z} invocations");
    let shared: u32 = module
        .global_variables
        .iter()
        .filter(|(_, variable)| variable.space == AddressSpace::WorkGroup)
        .map(|(_, variable)| module.types[variable.ty].inner.size(module.to_ctx()))
        .sum();
    assert!(shared <= WORKGROUP_BYTES_MAX, "{label}: {shared} bytes of workgroup memory");
    let bound = module.global_variables.iter();
    let bound =
        bound.filter(|(_, variable)| matches!(variable.space, AddressSpace::Storage { .. }));
    assert!(bound.count() <= 8, "{label}: more than eight storage buffers");
    Ok(())
}

#[test]
fn every_shader_is_valid_and_keeps_to_the_default_limits() {
    let mut seen = HashSet::new();
    let mut failed = Vec::new();
    let graphs = cases::all().into_iter().map(|(name, graph, ..)| (name, graph));
    let models = steps::MODELS.iter().map(|(name, data, model)| {
        let (graph, _) = steps::step_graph(data, model, 4);
        ((*name).to_owned(), graph)
    });
    for (name, graph) in graphs.chain(models) {
        for lanes in [false, true] {
            let target = Target { binding_bytes_max: BINDING_BYTES_MAX, lanes };
            let plan = Plan::new(graph.clone(), target);
            let plan = plan.unwrap_or_else(|error| panic!("{name}: {error}"));
            for launch in plan.launches() {
                if seen.insert(launch.source.clone()) {
                    let label = format!("{name}, {}", launch.label);
                    failed.extend(check(&label, &launch.source).err());
                }
            }
        }
    }
    println!("{} shaders", seen.len());
    assert!(failed.is_empty(), "{} shaders are not valid:\n{}", failed.len(), failed.join("\n"));
    assert!(seen.len() > 100, "only {} shaders", seen.len());
}
