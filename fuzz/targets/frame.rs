//! A frame from a peer: decoded or refused; what was decoded fits its buffer and survives a round trip.

#![no_main]

use libfuzzer_sys::fuzz_target;
use raven_protocol::frame::{encode, frame_bytes};
use raven_protocol::{Frame, FrameLimits, TensorPart};

fn check(bytes: &[u8], limits: &FrameLimits) {
    let Ok(frame) = Frame::decode(bytes, limits) else { return };
    assert_eq!(frame_bytes(bytes, limits), Ok(bytes.len() as u64));
    assert!(bytes.len() as u64 <= limits.frame_bytes_max());
    let parts: Vec<TensorPart<'_>> = frame
        .tensors()
        .map(|tensor| TensorPart { name: tensor.name.into(), ty: tensor.ty(), data: tensor.data })
        .collect();
    // Tensors without a header of their own: the header's other fields are the message's matter.
    let again = encode(&Empty {}, &parts);
    let decoded = Frame::decode(&again, &FrameLimits::TO_CONTRIBUTOR).expect("what was encoded decodes");
    assert!(decoded.tensors().eq(frame.tensors()));
}

#[derive(serde::Serialize)]
struct Empty {}

fuzz_target!(|bytes: &[u8]| {
    check(bytes, &FrameLimits::TO_COORDINATOR);
    check(bytes, &FrameLimits::TO_CONTRIBUTOR);
});
