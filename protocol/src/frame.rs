//! Frames: a short JSON header and raw little-endian tensors.
//!
//! ```text
//! offset  bytes
//! 0       4      magic "RAVN"
//! 4       2      frame version, u16 little-endian
//! 6       2      zero
//! 8       4      header length H, u32
//! 12      4      body length B, u32
//! 16      H      header, JSON in UTF-8
//! 16+H    0..15  zeros up to the next multiple of 16
//! ..      B      tensors in the order of the header's "tensors", each starting
//!                at a multiple of 16, zeros between them
//! ```
//!
//! Offsets are derived from the declared types, never read from the peer, so
//! tensors cannot overlap or reach outside of the frame.

use crate::limits::{FRAME_VERSION, FrameLimits, NAME_BYTES_MAX, RANK_MAX};
use raven_graph::{DType, Shape, TensorType};
use serde::de::{DeserializeSeed, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::fmt;

/// First four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"RAVN";
/// Bytes before the header.
pub const PREFIX_BYTES: usize = 16;
const ALIGNMENT: u64 = 16;

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame: {have} bytes, at least {need} needed")]
    Truncated { have: u64, need: u64 },
    #[error("frame: {have} bytes, {expected} declared")]
    TrailingBytes { have: u64, expected: u64 },
    #[error("frame.magic: not a frame of this protocol")]
    BadMagic,
    #[error("frame.version: {found} is not supported, {supported} is")]
    UnsupportedVersion { found: u16, supported: u16 },
    #[error("frame.reserved: must be zero")]
    ReservedBits,
    #[error("frame.header_bytes: {found} exceeds the limit of {limit}")]
    HeaderTooLarge { found: u32, limit: u32 },
    #[error("frame.body_bytes: {found} exceeds the limit of {limit}")]
    BodyTooLarge { found: u32, limit: u32 },
    #[error("frame.header: {reason}")]
    BadHeader { reason: String },
    #[error("frame.tensors: {found} exceeds the limit of {limit}")]
    TooManyTensors { found: u64, limit: u32 },
    #[error("frame.tensors[{index}].{field}: {found} exceeds the limit of {limit}")]
    TensorLimit { index: usize, field: &'static str, found: u64, limit: u64 },
    #[error("frame.tensors[{index}].name: {name:?} is used twice")]
    DuplicateTensor { index: usize, name: String },
    #[error("frame.body_bytes: {found} declared, the tensors take {expected}")]
    BodyMismatch { found: u64, expected: u64 },
    #[error("frame.padding: byte {offset} is not zero")]
    DirtyPadding { offset: u64 },
    #[error("frame.tensors[{index}]: a bool is neither 0 nor 1")]
    BadBool { index: usize },
}

/// A tensor's entry in the header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorEntry {
    /// Unique within the frame.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
}

/// A named tensor borrowed from a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// Name within the frame.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: &'a Shape,
    /// Exactly `shape.bytes(dtype)` little-endian bytes.
    pub data: &'a [u8],
}

impl TensorView<'_> {
    /// The type of this tensor.
    pub fn ty(&self) -> TensorType {
        TensorType { dtype: self.dtype, shape: self.shape.clone() }
    }
}

/// A frame whose bytes have been checked, borrowing the buffer that holds it.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    header: &'a str,
    entries: Vec<TensorEntry>,
    body: &'a [u8],
    offsets: Vec<usize>,
}

/// The header's own part, its list of tensors not yet read.
#[derive(Deserialize)]
struct TensorTable<'a> {
    #[serde(default, borrow, deserialize_with = "given")]
    tensors: Option<&'a RawValue>,
}

/// A field that may be left out, but not be null.
fn given<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// Reads a list of tensors up to this many; those behind are counted only.
struct Entries(u32);

impl<'de> DeserializeSeed<'de> for Entries {
    /// The entries within the limit, and how many there are.
    type Value = (Vec<TensorEntry>, u64);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = (Vec<TensorEntry>, u64);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tensors")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while entries.len() < self.0 as usize {
            match list.next_element()? {
                Some(entry) => entries.push(entry),
                None => break,
            }
        }
        let mut found = entries.len() as u64;
        while list.next_element::<IgnoredAny>()?.is_some() {
            found += 1;
        }
        Ok((entries, found))
    }
}

/// The tensors that a header lists.
fn entries(header: &str, limits: &FrameLimits) -> Result<Vec<TensorEntry>, FrameError> {
    let malformed = |error: serde_json::Error| FrameError::BadHeader { reason: error.to_string() };
    let table: TensorTable<'_> = serde_json::from_str(header).map_err(malformed)?;
    let Some(list) = table.tensors else { return Ok(Vec::new()) };
    let limit = limits.tensors_max;
    let mut json = serde_json::Deserializer::from_str(list.get());
    let (entries, found) = Entries(limit).deserialize(&mut json).map_err(malformed)?;
    if found > limit.into() {
        Err(FrameError::TooManyTensors { found, limit })
    } else {
        Ok(entries)
    }
}

const fn align(offset: u64) -> u64 {
    offset.next_multiple_of(ALIGNMENT)
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The length of the whole frame, judged from its first 16 bytes alone.
///
/// # Errors
/// Whatever the prefix already shows to be wrong: magic, version, lengths over `limits`.
pub fn frame_bytes(prefix: &[u8], limits: &FrameLimits) -> Result<u64, FrameError> {
    if prefix.len() < PREFIX_BYTES {
        return Err(FrameError::Truncated { have: prefix.len() as u64, need: PREFIX_BYTES as u64 });
    }
    if prefix[..4] != MAGIC {
        return Err(FrameError::BadMagic);
    }
    let version = u16::from_le_bytes([prefix[4], prefix[5]]);
    if version != FRAME_VERSION {
        return Err(FrameError::UnsupportedVersion { found: version, supported: FRAME_VERSION });
    }
    if prefix[6..8] != [0, 0] {
        return Err(FrameError::ReservedBits);
    }
    let (header, body) = (le_u32(prefix, 8), le_u32(prefix, 12));
    if header > limits.header_bytes_max {
        return Err(FrameError::HeaderTooLarge { found: header, limit: limits.header_bytes_max });
    }
    if body > limits.body_bytes_max {
        return Err(FrameError::BodyTooLarge { found: body, limit: limits.body_bytes_max });
    }
    Ok(align(PREFIX_BYTES as u64 + u64::from(header)) + u64::from(body))
}

impl<'a> Frame<'a> {
    /// Checks that `bytes` are exactly one frame within `limits`.
    ///
    /// # Errors
    /// [`FrameError`] names the first field that is wrong.
    pub fn decode(bytes: &'a [u8], limits: &FrameLimits) -> Result<Self, FrameError> {
        let expected = frame_bytes(bytes, limits)?;
        let have = bytes.len() as u64;
        if have < expected {
            return Err(FrameError::Truncated { have, need: expected });
        }
        if have > expected {
            return Err(FrameError::TrailingBytes { have, expected });
        }
        let header_end = PREFIX_BYTES + le_u32(bytes, 8) as usize;
        let body_start = align(header_end as u64) as usize;
        check_zero(bytes, header_end, body_start)?;
        let header = std::str::from_utf8(&bytes[PREFIX_BYTES..header_end])
            .map_err(|error| FrameError::BadHeader { reason: error.to_string() })?;
        let tensors = entries(header, limits)?;
        let body = &bytes[body_start..];
        let offsets = layout(&tensors, body)?;
        Ok(Frame { header, entries: tensors, body, offsets })
    }

    /// The header's JSON text.
    pub fn header(&self) -> &'a str {
        self.header
    }

    /// The tensors, in the order of the header.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.entries.iter().zip(&self.offsets).map(|(entry, &offset)| {
            let bytes = entry.shape.bytes(entry.dtype).unwrap_or(0) as usize;
            TensorView {
                name: &entry.name,
                dtype: entry.dtype,
                shape: &entry.shape,
                data: &self.body[offset..offset + bytes],
            }
        })
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors().find(|tensor| tensor.name == name)
    }
}

fn check_zero(bytes: &[u8], from: usize, to: usize) -> Result<(), FrameError> {
    match bytes[from..to].iter().position(|&byte| byte != 0) {
        Some(at) => Err(FrameError::DirtyPadding { offset: (from + at) as u64 }),
        None => Ok(()),
    }
}

/// Places the tensors in the body and checks that they fill it exactly.
fn layout(tensors: &[TensorEntry], body: &[u8]) -> Result<Vec<usize>, FrameError> {
    let body_bytes = body.len() as u64;
    let mut offsets = Vec::with_capacity(tensors.len());
    let mut names = std::collections::HashSet::with_capacity(tensors.len());
    let mut end = 0u64;
    for (index, tensor) in tensors.iter().enumerate() {
        let limit = |field, found, limit| FrameError::TensorLimit { index, field, found, limit };
        if tensor.name.len() > NAME_BYTES_MAX {
            return Err(limit("name", tensor.name.len() as u64, NAME_BYTES_MAX as u64));
        }
        if tensor.shape.rank() > RANK_MAX {
            return Err(limit("shape.rank", tensor.shape.rank() as u64, RANK_MAX as u64));
        }
        if !names.insert(tensor.name.as_str()) {
            return Err(FrameError::DuplicateTensor { index, name: tensor.name.clone() });
        }
        let bytes = tensor.shape.bytes(tensor.dtype).unwrap_or(u64::MAX);
        let start = align(end);
        // `start` is at most the body's length rounded up, so only `bytes` can overflow.
        end = start.saturating_add(bytes);
        if end > body_bytes {
            return Err(FrameError::BodyMismatch { found: body_bytes, expected: end });
        }
        check_zero(body, previous_end(tensors, &offsets), start as usize)?;
        let data = &body[start as usize..end as usize];
        if tensor.dtype == DType::Bool && data.iter().any(|&byte| byte > 1) {
            return Err(FrameError::BadBool { index });
        }
        offsets.push(start as usize);
    }
    if end != body_bytes {
        return Err(FrameError::BodyMismatch { found: body_bytes, expected: end });
    }
    Ok(offsets)
}

/// Where the data of the last placed tensor ends.
fn previous_end(tensors: &[TensorEntry], offsets: &[usize]) -> usize {
    match offsets.last() {
        Some(&offset) => {
            let entry = &tensors[offsets.len() - 1];
            offset + entry.shape.bytes(entry.dtype).unwrap_or(0) as usize
        }
        None => 0,
    }
}

/// A tensor to be written into a frame.
#[derive(Clone, Debug)]
pub struct TensorPart<'a> {
    /// Unique within the frame.
    pub name: String,
    /// Element type and extents.
    pub ty: TensorType,
    /// Little-endian bytes, exactly as many as the type takes.
    pub data: &'a [u8],
}

/// Writes a frame. `header` must serialize to a JSON object; its `tensors` field is added here.
///
/// # Panics
/// Where `header` is not an object or a tensor's data does not have its type's
/// length: both are mistakes of the caller, never of a peer.
pub fn encode<H: Serialize>(header: &H, tensors: &[TensorPart<'_>]) -> Vec<u8> {
    let mut value = serde_json::to_value(header).expect("headers serialize");
    let entries: Vec<TensorEntry> = tensors
        .iter()
        .map(|part| TensorEntry {
            name: part.name.clone(),
            dtype: part.ty.dtype,
            shape: part.ty.shape.clone(),
        })
        .collect();
    if !entries.is_empty() {
        let object = value.as_object_mut().expect("a header is a JSON object");
        object.insert("tensors".into(), serde_json::to_value(entries).expect("entries serialize"));
    }
    let header = value.to_string();
    let mut frame = Vec::with_capacity(encoded_bytes(header.len(), tensors));
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&FRAME_VERSION.to_le_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(&(header.len() as u32).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(header.as_bytes());
    pad(&mut frame);
    let body_start = frame.len();
    for part in tensors {
        pad(&mut frame);
        assert_eq!(Some(part.data.len() as u64), part.ty.bytes(), "tensor {}", part.name);
        frame.extend_from_slice(part.data);
    }
    let body = u32::try_from(frame.len() - body_start).expect("a frame body fits 32 bits");
    frame[12..16].copy_from_slice(&body.to_le_bytes());
    frame
}

fn encoded_bytes(header: usize, tensors: &[TensorPart<'_>]) -> usize {
    let body: usize = tensors.iter().map(|part| part.data.len() + ALIGNMENT as usize).sum();
    PREFIX_BYTES + header + ALIGNMENT as usize + body
}

fn pad(frame: &mut Vec<u8>) {
    frame.resize(align(frame.len() as u64) as usize, 0);
}
