//! A graph's text at the door that peers use: the kernel keeps it exactly where its one reader
//! takes it, and any other header is a message or a refusal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use raven_graph::{GraphId, Limits, ValidGraph};
use raven_worker::Kernel;

/// Room for any graph that the limits admit.
const BUDGET: u64 = 256 << 20;

fn frame(header: &str) -> Vec<u8> {
    let mut frame = b"RAVN\x01\0\0\0".to_vec();
    frame.extend((header.len() as u32).to_le_bytes());
    frame.extend([0; 4]);
    frame.extend(header.as_bytes());
    frame.resize(frame.len().next_multiple_of(16), 0);
    frame
}

fuzz_target!(|text: &str| {
    let _ = Kernel::new(BUDGET).accept(&frame(text));
    // Whitespace around a document is not a part of the value that a header carries.
    let valid = ValidGraph::from_json(text.trim_matches([' ', '\t', '\r', '\n']).as_bytes(), &Limits::default());
    let id = valid.as_ref().map_or(GraphId([0; 32]), ValidGraph::id);
    let taken = Kernel::new(BUDGET).accept(&frame(&format!(r#"{{"type":"graph","id":"{id}","graph":{text}}}"#)));
    assert_eq!(taken.is_ok(), valid.is_ok(), "{taken:?} but {:?}", valid.err());
});
