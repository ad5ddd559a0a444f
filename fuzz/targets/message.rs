//! A header from a peer: a message or a refusal; a message that was read is written and read alike.

#![no_main]

use libfuzzer_sys::fuzz_target;
use raven_protocol::{FromContributor, Receipt, ToContributor};

fuzz_target!(|header: &str| {
    if let Ok(message) = FromContributor::from_header(header) {
        let text = serde_json::to_string(&message).expect("messages serialize");
        assert_eq!(FromContributor::from_header(&text).expect("what was written is read"), message);
    }
    if let Ok(ToContributor::Task(task)) = ToContributor::from_header(header) {
        // A spec that passes its own check names a graph and runs it a bounded number of times.
        if task.spec.check().is_ok() {
            assert!(task.spec.program.runs() >= 1);
        }
    }
    let _ = Receipt::from_text(header);
});
