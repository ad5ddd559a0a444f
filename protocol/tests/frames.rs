//! The frame codec: round trips, and a typed refusal for everything else.

use proptest::prelude::*;
use raven_graph::{DType, TensorType};
use raven_protocol::frame::{encode, frame_bytes};
use raven_protocol::{
    Frame, FrameError, FrameLimits, FromContributor, MessageError, TensorPart, ToContributor,
};

const LIMITS: FrameLimits = FrameLimits::TO_COORDINATOR;

fn sample() -> Vec<u8> {
    let header = serde_json::json!({"type": "resume"});
    let (weights, flags) = ([1u8, 2, 3, 4, 5, 6, 7, 8], [1u8, 0, 1]);
    encode(
        &header,
        &[
            TensorPart { name: "w".into(), ty: TensorType::new(DType::F32, [2]), data: &weights },
            TensorPart { name: "f".into(), ty: TensorType::new(DType::Bool, [3]), data: &flags },
        ],
    )
}

/// A frame with a hand-written header and a body of `body` bytes.
fn raw(header: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"RAVN\x01\x00\x00\x00".to_vec();
    bytes.extend((header.len() as u32).to_le_bytes());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes.extend(body);
    bytes
}

fn refusal(bytes: &[u8]) -> FrameError {
    Frame::decode(bytes, &LIMITS).expect_err("refused")
}

#[test]
fn tensors_come_back_aligned_and_unchanged() {
    let bytes = sample();
    let frame = Frame::decode(&bytes, &LIMITS).expect("valid");
    let tensors: Vec<_> = frame.tensors().collect();
    assert_eq!(tensors.len(), 2);
    assert_eq!(tensors[0].data, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(frame.tensor("f").map(|t| t.data), Some(&[1u8, 0, 1][..]));
    for tensor in tensors {
        let offset = tensor.data.as_ptr() as usize - bytes.as_ptr() as usize;
        assert_eq!(offset % 16, 0);
    }
}

#[test]
fn every_truncation_is_named() {
    let bytes = sample();
    for len in 0..bytes.len() {
        assert!(
            matches!(refusal(&bytes[..len]), FrameError::Truncated { .. }),
            "cut at {len} of {}",
            bytes.len()
        );
    }
    let mut long = bytes.clone();
    long.push(0);
    assert!(matches!(refusal(&long), FrameError::TrailingBytes { .. }));
}

#[test]
fn each_field_has_its_refusal() {
    let with = |at: usize, byte: u8| {
        let mut bytes = sample();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(refusal(&with(0, b'X')), FrameError::BadMagic);
    assert_eq!(refusal(&with(4, 9)), FrameError::UnsupportedVersion { found: 9, supported: 1 });
    assert_eq!(refusal(&with(7, 1)), FrameError::ReservedBits);
    assert!(matches!(refusal(&with(11, 0xff)), FrameError::HeaderTooLarge { limit: 65_536, .. }));
    assert!(matches!(refusal(&with(15, 0xff)), FrameError::BodyTooLarge { .. }));
    assert!(matches!(refusal(&raw("{", &[])), FrameError::BadHeader { .. }));
    assert!(matches!(refusal(&raw("[]x", &[])), FrameError::BadHeader { .. }));
    let mut dirty = raw(r#"{"a":1}"#, &[]);
    *dirty.last_mut().expect("padding") = 1;
    assert!(matches!(refusal(&dirty), FrameError::DirtyPadding { .. }));
}

#[test]
fn tensors_that_lie_are_refused_before_they_are_read() {
    let tensor = |entry: &str| format!(r#"{{"tensors":[{entry}]}}"#);
    let body = |entry: &str, body: &[u8]| refusal(&raw(&tensor(entry), body));
    assert!(matches!(
        body(r#"{"name":"a","dtype":"f32","shape":[1000000,1000000]}"#, &[0; 16]),
        FrameError::BodyMismatch { found: 16, .. }
    ));
    let huge = r#"{"name":"a","dtype":"f32","shape":[4294967295,4294967295,4294967295]}"#;
    assert!(matches!(body(huge, &[0; 16]), FrameError::BodyMismatch { expected: u64::MAX, .. }));
    let deep = format!(r#"{{"name":"a","dtype":"u8","shape":{:?}}}"#, [1u32; 40]);
    assert!(matches!(
        body(&deep, &[0]),
        FrameError::TensorLimit { field: "shape.rank", found: 40, limit: 8, .. }
    ));
    assert!(matches!(
        body(r#"{"name":"a","dtype":"bool","shape":[2]}"#, &[1, 2]),
        FrameError::BadBool { index: 0 }
    ));
    assert!(matches!(
        body(r#"{"name":"a","dtype":"u8","shape":[1]}"#, &[1, 2]),
        FrameError::BodyMismatch { found: 2, expected: 1 }
    ));
    let twice = r#"{"name":"a","dtype":"u8","shape":[0]},{"name":"a","dtype":"u8","shape":[0]}"#;
    assert!(matches!(body(twice, &[]), FrameError::DuplicateTensor { index: 1, .. }));
    assert!(matches!(refusal(&raw(r#"{"tensors":null}"#, &[])), FrameError::BadHeader { .. }));
    let gap = r#"{"name":"a","dtype":"u8","shape":[1]},{"name":"b","dtype":"u8","shape":[1]}"#;
    let mut dirty = [0u8; 17];
    dirty[5] = 1;
    assert!(matches!(body(gap, &dirty), FrameError::DirtyPadding { offset: 5 }));
}

/// Counts what this thread asks of the allocator, to show what a peer can make it hold.
mod allocations {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    struct Counting;

    thread_local! {
        static BYTES: Cell<usize> = const { Cell::new(0) };
    }

    // SAFETY: every call goes to the system's allocator unchanged; the count is beside it.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            BYTES.set(BYTES.get() + layout.size());
            // SAFETY: the caller's layout is passed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            // SAFETY: `at` came from `alloc` with this layout.
            unsafe { System.dealloc(at, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    /// Bytes allocated while `work` ran, freed ones included.
    pub fn during<T>(work: impl FnOnce() -> T) -> (T, usize) {
        let before = BYTES.get();
        let result = work();
        (result, BYTES.get() - before)
    }
}

#[test]
fn more_tensors_than_the_limit_are_counted_and_not_kept() {
    let limits = FrameLimits { header_bytes_max: 8 << 20, ..LIMITS };
    let entry = r#"{"name":"","dtype":"u8","shape":[0]}"#;
    let header = format!(r#"{{"tensors":[{}]}}"#, vec![entry; 200_000].join(","));
    let bytes = raw(&header, &[]);
    let (refused, allocated) = allocations::during(|| Frame::decode(&bytes, &limits).err());
    assert_eq!(refused, Some(FrameError::TooManyTensors { found: 200_000, limit: 4096 }));
    assert!(allocated < 4 << 20, "{allocated} bytes for 4096 entries");
}

#[test]
fn a_graph_or_a_long_message_is_not_unfolded_to_be_refused() {
    let nodes = |count: usize| vec![r#"{"op":"select"}"#; count].join(",");
    let id = "0".repeat(64);
    let graph = format!(r#"{{"version":1,"nodes":[{}],"outputs":[]}}"#, nodes(400_000));
    let header = format!(r#"{{"type":"graph","id":"{id}","graph":{graph}}}"#);
    let (message, allocated) = allocations::during(|| ToContributor::from_header(&header));
    let Ok(ToContributor::Graph { graph, .. }) = message else { panic!("{message:?}") };
    assert!(allocated < 2 * header.len(), "{allocated} bytes for {}", header.len());
    let limits = raven_graph::Limits::default();
    let (refused, allocated) = allocations::during(|| graph.validate(&limits));
    let limit = limits.nodes_max;
    let expected = raven_graph::GraphError::Nodes { limit, found: u64::from(limit) + 1 };
    assert_eq!(refused, Err(expected));
    assert!(allocated < 1 << 10, "{allocated} bytes to count nodes");

    let long = format!(r#"{{"type":"drop","blobs":[],"graphs":[],"x":[{}]}}"#, nodes(400_000));
    let (refused, allocated) = allocations::during(|| ToContributor::from_header(&long));
    assert!(matches!(refused, Err(MessageError::TextTooLong { field: "header", .. })));
    assert!(allocated < 1 << 10, "{allocated} bytes to look at a type");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = Frame::decode(&bytes, &LIMITS);
    }

    #[test]
    fn damaged_frames_never_panic(at in 0usize..200, byte in any::<u8>()) {
        let mut bytes = sample();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(frame) = Frame::decode(&bytes, &LIMITS) {
            prop_assert!(frame.tensors().count() <= 2);
        }
    }

    #[test]
    fn the_prefix_alone_bounds_the_length(prefix in proptest::collection::vec(any::<u8>(), 8)) {
        let mut bytes = b"RAVN\x01\x00\x00\x00".to_vec();
        bytes.extend(prefix);
        if let Ok(length) = frame_bytes(&bytes, &LIMITS) {
            prop_assert!(length <= LIMITS.frame_bytes_max());
        }
    }

    #[test]
    fn random_headers_are_messages_or_typed_errors(text in "\\PC{0,200}") {
        let _ = FromContributor::from_header(&text);
        let _ = ToContributor::from_header(&text);
    }

    #[test]
    fn tensors_round_trip(data in proptest::collection::vec(any::<u8>(), 0..100), copies in 0usize..5) {
        let ty = TensorType::new(DType::U8, [data.len() as u32]);
        let parts: Vec<_> = (0..copies)
            .map(|i| TensorPart { name: format!("t{i}"), ty: ty.clone(), data: &data })
            .collect();
        let bytes = encode(&serde_json::json!({"type": "result"}), &parts);
        let frame = Frame::decode(&bytes, &LIMITS).expect("round trip");
        prop_assert_eq!(frame.tensors().count(), copies);
        prop_assert!(frame.tensors().all(|t| t.data == data));
    }
}
