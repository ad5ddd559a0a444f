//! IDX, the format of MNIST: two zero bytes, type, number of axes, extents and
//! values, all big-endian. (<http://yann.lecun.com/exdb/mnist/> described it.)

use super::element::{Element, Kind};
use super::rows::Array;
use super::unpack::{read_error, read_up_to};
use super::{DatasetError, UploadLimits};
use std::io::Read;

/// Reads the header.
///
/// # Errors
/// [`DatasetError`] with the field.
pub fn open(
    part: &'static str,
    mut source: Box<dyn Read + Send>,
    limits: &UploadLimits,
) -> Result<Array, DatasetError> {
    let mut magic = [0; 4];
    fill(part, &mut source, &mut magic)?;
    let [0, 0, code, axes] = magic else {
        let reason = "the first two bytes are not zero: not an IDX file".into();
        return Err(DatasetError::Malformed { part, field: "magic", reason });
    };
    let kind = match code {
        0x08 => Kind::U8,
        0x09 => Kind::I8,
        0x0b => Kind::I16,
        0x0c => Kind::I32,
        0x0d => Kind::F32,
        0x0e => Kind::F64,
        _ => {
            let found = format!("IDX type 0x{code:02x}");
            return Err(DatasetError::ElementType { part, found, hint: "" });
        }
    };
    let mut shape = Vec::new();
    for _ in 0..axes {
        let mut extent = [0; 4];
        fill(part, &mut source, &mut extent)?;
        shape.push(u64::from(u32::from_be_bytes(extent)));
    }
    Array::new(part, Element { kind, big_endian: true }, shape, source, limits)
}

fn fill(part: &'static str, source: &mut impl Read, buffer: &mut [u8]) -> Result<(), DatasetError> {
    let have = read_up_to(source, buffer).map_err(read_error(part))?;
    if have < buffer.len() {
        let reason = "the file ends inside of the header".into();
        return Err(DatasetError::Malformed { part, field: "header", reason });
    }
    Ok(())
}
