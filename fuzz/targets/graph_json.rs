//! A graph's JSON from outside: valid within the limits, or refused; never a panic, never much memory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use raven_graph::{Limits, ValidGraph};

fuzz_target!(|json: &[u8]| {
    let limits = Limits::default();
    let Ok(graph) = ValidGraph::from_json(json, &limits) else { return };
    assert!(graph.graph().nodes.len() <= limits.nodes_max as usize);
    assert!(graph.cost().flops <= limits.flops_max);
    let again = ValidGraph::from_json(&graph.to_json(), &limits).expect("what was written is valid");
    assert_eq!(again.id(), graph.id());
    let canonical = ValidGraph::from_canonical(&graph.to_canonical(), &limits).expect("both forms are valid");
    assert_eq!(canonical.id(), graph.id());
});
