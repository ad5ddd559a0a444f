//! NumPy's `.npy`, versions 1 to 3, plain numbers only. Object arrays are
//! pickles, and unpickling runs code: they are refused by their type.

use super::element::{Element, Kind};
use super::rows::Array;
use super::unpack::{read_error, read_up_to};
use super::{DatasetError, UploadLimits};
use std::io::Read;

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy itself writes 118 bytes or so.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Reads the header.
///
/// # Errors
/// [`DatasetError`] with the field.
pub fn open(
    part: &'static str,
    mut source: Box<dyn Read + Send>,
    limits: &UploadLimits,
) -> Result<Array, DatasetError> {
    let malformed =
        |field, reason: &str| DatasetError::Malformed { part, field, reason: reason.into() };
    let mut fill = |buffer: &mut [u8]| {
        let have = read_up_to(&mut source, buffer).map_err(read_error(part))?;
        if have < buffer.len() {
            return Err(malformed("header", "the file ends inside of it"));
        }
        Ok(())
    };
    let mut prefix = [0; 8];
    fill(&mut prefix)?;
    if &prefix[..6] != MAGIC {
        return Err(malformed("magic", "not an npy file"));
    }
    let header_bytes = match prefix[6] {
        1 => {
            let mut length = [0; 2];
            fill(&mut length)?;
            u32::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            fill(&mut length)?;
            u32::from_le_bytes(length)
        }
        version => {
            return Err(malformed("version", &format!("{version} is not 1, 2 or 3")));
        }
    };
    if header_bytes > HEADER_BYTES_MAX {
        let (limit, found) = (HEADER_BYTES_MAX.into(), header_bytes.into());
        return Err(DatasetError::Limit { part, field: "header_bytes", limit, found });
    }
    let mut header = vec![0; header_bytes as usize];
    fill(&mut header)?;
    let header = std::str::from_utf8(&header).map_err(|_| malformed("header", "not text"))?;
    let header = parse(header).map_err(|(field, reason)| malformed(field, &reason))?;
    let element = element(part, &header.descr)?;
    // One axis has no order; more would have to be transposed.
    if header.fortran_order && header.shape.len() > 1 {
        return Err(malformed("fortran_order", "True; save it with numpy.ascontiguousarray"));
    }
    Array::new(part, element, header.shape, source, limits)
}

struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

type Refusal = (&'static str, String);

/// Reads the dictionary literal `{'descr': .., 'fortran_order': .., 'shape': .., }`.
fn parse(text: &str) -> Result<Header, Refusal> {
    let (mut descr, mut order, mut shape) = (None, None, None);
    let body = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let mut rest = body.ok_or(("header", "not a dictionary".to_owned()))?.trim();
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or(("header", "a key is not quoted".to_owned()))?;
        let value = after.trim_start().strip_prefix(':');
        let value = value.ok_or(("header", format!("no colon after {key:?}")))?.trim_start();
        rest = match key {
            "descr" => {
                // A structured type is a list; it is named in the refusal.
                let (text, after) = quoted(value).ok_or(("descr", "not one plain type".into()))?;
                descr = Some(text.to_owned());
                after
            }
            "fortran_order" => {
                let (word, after) = word(value);
                order = match word {
                    "True" => Some(true),
                    "False" => Some(false),
                    _ => return Err(("fortran_order", "neither True nor False".into())),
                };
                after
            }
            "shape" => {
                let (extents, after) = tuple(value).ok_or(("shape", "not a tuple".to_owned()))?;
                shape = Some(extents);
                after
            }
            _ => return Err(("header", format!("unknown key {key:?}"))),
        }
        .trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.is_empty() => rest,
            None => return Err(("header", "no comma between entries".into())),
        };
    }
    let missing = |field: &'static str| (field, "missing".to_owned());
    Ok(Header {
        descr: descr.ok_or_else(|| missing("descr"))?,
        fortran_order: order.ok_or_else(|| missing("fortran_order"))?,
        shape: shape.ok_or_else(|| missing("shape"))?,
    })
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    text.split_at(end)
}

fn tuple(text: &str) -> Option<(Vec<u64>, &str)> {
    let (inside, after) = text.strip_prefix('(')?.split_once(')')?;
    let inside = inside.trim().trim_end_matches(',');
    if inside.is_empty() {
        return Some((Vec::new(), after));
    }
    let extents = inside.split(',').map(|extent| extent.trim().parse().ok());
    Some((extents.collect::<Option<_>>()?, after))
}

fn element(part: &'static str, descr: &str) -> Result<Element, DatasetError> {
    let refuse = |hint| DatasetError::ElementType { part, found: format!("{descr:?}"), hint };
    let (order, code) = match descr.as_bytes() {
        [order @ (b'<' | b'>' | b'|' | b'='), ..] => (*order, &descr[1..]),
        _ => (b'=', descr),
    };
    let kind = match code {
        "b1" => Kind::Bool,
        "u1" => Kind::U8,
        "i1" => Kind::I8,
        "u2" => Kind::U16,
        "i2" => Kind::I16,
        "u4" => Kind::U32,
        "i4" => Kind::I32,
        "u8" => Kind::U64,
        "i8" => Kind::I64,
        "f4" => Kind::F32,
        "f8" => Kind::F64,
        _ if code.starts_with('O') => {
            return Err(refuse(": object arrays hold pickles, which are never loaded"));
        }
        _ => return Err(refuse("; use u1, i1 to i8, u2 to u8, f4, f8 or b1")),
    };
    Ok(Element { kind, big_endian: order == b'>' })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_as_numpy_writes_them() {
        let header = parse("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }   \n");
        let header = header.unwrap_or_else(|(field, reason)| panic!("{field}: {reason}"));
        assert_eq!((header.descr.as_str(), header.fortran_order), ("<f8", false));
        assert_eq!(header.shape, [3, 4]);
        let one = parse("{'shape': (5,), 'fortran_order': True, 'descr': '|u1'}");
        assert_eq!(one.ok().map(|header| header.shape), Some(vec![5]));
    }

    #[test]
    fn other_texts_are_refused_by_field() {
        let fields = [
            ("", "header"),
            ("{'descr': '<f8'}", "fortran_order"),
            ("{'descr': [('a', '<f8')], 'shape': (1,)}", "descr"),
            ("{'descr': '<f8', 'shape': (1, -2), 'fortran_order': False}", "shape"),
            ("{'descr': '<f8', 'shape': 3, 'fortran_order': False}", "shape"),
            ("{'descr': '<f8' 'shape': (3,)}", "header"),
            ("{'descr': '<f8', 'fortran_order': 1}", "fortran_order"),
            ("{'evil': __import__('os')}", "header"),
            ("{'", "header"),
        ];
        for (text, field) in fields {
            assert_eq!(parse(text).err().map(|(field, _)| field), Some(field), "{text}");
        }
    }

    #[test]
    fn objects_are_named_as_pickles() {
        let error = element("train_x", "|O").expect_err("refused").to_string();
        assert!(error.contains("pickles"), "{error}");
        assert!(element("train_x", "<c16").is_err());
        assert!(element("train_x", ">i2").is_ok_and(|element| element.big_endian));
    }
}
