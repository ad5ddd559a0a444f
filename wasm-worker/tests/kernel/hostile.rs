//! Bytes from a peer never panic, whatever they are.

use crate::common::*;
use proptest::prelude::*;
use raven_graph::{GraphError, GraphId, Limits, ValidGraph};
use raven_worker::{Kernel, KernelError};

/// Every call that takes bytes, and whatever it started.
fn poke(kernel: &mut Kernel, bytes: &[u8]) {
    let _ = kernel.accept(bytes);
    let _ = kernel.missing(bytes);
    if matches!(kernel.begin(bytes), Ok(None)) {
        for _ in 0..1000 {
            if kernel.step(1 << 20).unwrap_or(true) {
                let _ = kernel.finish(0);
                break;
            }
        }
    }
    let _ = kernel.abort();
}

proptest! {
    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        poke(&mut Kernel::new(1 << 20), &bytes);
    }

    #[test]
    fn random_headers(header in "[ -~]{0,200}") {
        poke(&mut Kernel::new(1 << 20), &header_frame(&header));
    }

    #[test]
    fn good_frames_with_flipped_bytes(
        which in 0..3usize,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut kernel = kernel_with(&small_graph());
        let mut frame = match which {
            0 => graph_frame(&small_graph()),
            1 => blob_frame(&[f32s("x", &[4], &[1.0; 4])]).1,
            _ => small_task(1, 0, 4),
        };
        for (at, byte) in flips {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        poke(&mut kernel, &frame);
    }

    /// The door that peers knock at is the one that is checked elsewhere: the
    /// kernel keeps a graph exactly where `ValidGraph::from_json` takes its text.
    #[test]
    fn graphs_are_taken_by_their_one_reader(
        changes in proptest::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(b"0123456789[]{},:\"".to_vec())),
            0..4,
        ),
    ) {
        let mut text = serde_json::to_vec(&small_graph()).expect("json");
        for (at, byte) in changes {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let valid = ValidGraph::from_json(&text, &Limits::default());
        let id = valid.as_ref().map_or(GraphId([0; 32]), ValidGraph::id);
        let text = String::from_utf8(text).expect("ascii");
        let header = format!(r#"{{"type":"graph","id":"{id}","graph":{text}}}"#);
        let mut kernel = Kernel::new(8 << 20);
        match (valid, kernel.accept(&header_frame(&header))) {
            (Ok(_), taken) => prop_assert!(matches!(taken, Ok(None)), "{taken:?}"),
            (Err(expected), Err(KernelError::Graph(found))) => prop_assert_eq!(found, expected),
            // Where brackets no longer match it is the header that is no JSON.
            (Err(GraphError::Json { .. }), Err(KernelError::Frame(_) | KernelError::Message(_))) => {}
            (expected, found) => prop_assert!(false, "{expected:?} but {found:?}"),
        }
    }

    /// Digits of a task's header are changed, so that it still parses but says something else.
    #[test]
    fn tasks_with_other_numbers(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), b'0'..=b'9'), 1..8),
    ) {
        let mut kernel = kernel_with(&small_graph());
        let mut frame = small_task(1, 4, 4);
        let header = u32::from_le_bytes([frame[8], frame[9], frame[10], frame[11]]) as usize;
        let digits: Vec<usize> =
            (16..16 + header).filter(|&at| frame[at].is_ascii_digit()).collect();
        for (at, digit) in changes {
            frame[digits[at.index(digits.len())]] = digit;
        }
        poke(&mut kernel, &frame);
    }
}
