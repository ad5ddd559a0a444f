//! A graph's canonical bytes from outside: valid within the limits, or refused; one graph has one form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use raven_graph::{Limits, ValidGraph};

fuzz_target!(|bytes: &[u8]| {
    let Ok(graph) = ValidGraph::from_canonical(bytes, &Limits::default()) else { return };
    assert_eq!(graph.to_canonical(), bytes, "two byte strings for one graph would be two ids");
});
