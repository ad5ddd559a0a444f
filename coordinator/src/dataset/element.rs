//! Numbers as files hold them, and their conversion to what shards hold.

use super::DatasetError;
use raven_graph::DType;

/// A number's type in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

/// A number's type and byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    pub kind: Kind,
    pub big_endian: bool,
}

/// What a column's numbers become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// u8 as it is, everything else f32.
    Features,
    /// i32 in `0..classes`.
    Labels { classes: u32 },
    /// f32.
    Values,
}

impl Kind {
    /// Bytes of one number.
    pub const fn bytes(self) -> usize {
        match self {
            Kind::Bool | Kind::U8 | Kind::I8 => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 => 8,
        }
    }
}

/// A number read from a file. 64-bit integers keep their bits, so that a label
/// beyond 2^53 is refused for what it is.
#[derive(Clone, Copy, Debug)]
enum Number {
    Integer(i128),
    Float(f64),
}

impl Element {
    fn read(self, bytes: &[u8]) -> Number {
        let mut wide = [0u8; 8];
        for (index, slot) in wide.iter_mut().take(bytes.len()).enumerate() {
            *slot = if self.big_endian { bytes[bytes.len() - 1 - index] } else { bytes[index] };
        }
        let [a, b, c, d, ..] = wide;
        match self.kind {
            Kind::Bool | Kind::U8 => Number::Integer(a.into()),
            Kind::I8 => Number::Integer(i8::from_le_bytes([a]).into()),
            Kind::U16 => Number::Integer(u16::from_le_bytes([a, b]).into()),
            Kind::I16 => Number::Integer(i16::from_le_bytes([a, b]).into()),
            Kind::U32 => Number::Integer(u32::from_le_bytes([a, b, c, d]).into()),
            Kind::I32 => Number::Integer(i32::from_le_bytes([a, b, c, d]).into()),
            Kind::U64 => Number::Integer(u64::from_le_bytes(wide).into()),
            Kind::I64 => Number::Integer(i64::from_le_bytes(wide).into()),
            Kind::F32 => Number::Float(f32::from_le_bytes([a, b, c, d]).into()),
            Kind::F64 => Number::Float(f64::from_le_bytes(wide)),
        }
    }
}

/// Why a number has no place in its column: the rule and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadNumber {
    pub rule: String,
    pub found: String,
}

impl BadNumber {
    /// The error for a number at that place.
    pub fn at(self, part: &'static str, row: u64, column: u64) -> DatasetError {
        let name = None;
        DatasetError::Value { part, row, column, name, rule: self.rule, found: self.found }
    }
}

impl Role {
    /// The element type in shards of numbers that come as `kind`.
    pub fn dtype(self, kind: Kind) -> DType {
        match self {
            Role::Features if matches!(kind, Kind::U8 | Kind::Bool) => DType::U8,
            Role::Features | Role::Values => DType::F32,
            Role::Labels { .. } => DType::I32,
        }
    }

    /// Appends the little-endian bytes of whole numbers. On failure the second
    /// value is the number's index.
    ///
    /// # Errors
    /// [`BadNumber`] with the index of the number.
    pub fn convert(
        self,
        element: Element,
        raw: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), (usize, BadNumber)> {
        let plain = !element.big_endian || element.kind.bytes() == 1;
        if self.dtype(element.kind) == DType::U8 && plain {
            out.extend_from_slice(raw);
            return Ok(());
        }
        for (index, bytes) in raw.chunks_exact(element.kind.bytes()).enumerate() {
            let written = match self {
                Role::Labels { classes } => {
                    label(element.read(bytes), classes).map(i32::to_le_bytes)
                }
                Role::Features | Role::Values => float(element.read(bytes)).map(f32::to_le_bytes),
            };
            out.extend_from_slice(&written.map_err(|bad| (index, bad))?);
        }
        Ok(())
    }
}

fn float(number: Number) -> Result<f32, BadNumber> {
    let value = match number {
        Number::Integer(value) => value as f32,
        Number::Float(value) => value as f32,
    };
    finite(value)
}

/// A number that an f32 can hold.
pub fn finite(value: f32) -> Result<f32, BadNumber> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(BadNumber { rule: "finite as f32".into(), found: value.to_string() })
}

fn label(number: Number, classes: u32) -> Result<i32, BadNumber> {
    match number {
        Number::Integer(value) if (0..i128::from(classes)).contains(&value) => Ok(value as i32),
        Number::Integer(value) => Err(bad_label(classes, value.to_string())),
        Number::Float(value) => float_label(value, classes),
    }
}

/// A label written as a floating-point number, e.g. `3.0`.
pub fn float_label(value: f64, classes: u32) -> Result<i32, BadNumber> {
    if value.fract() == 0.0 && (0.0..f64::from(classes)).contains(&value) {
        return Ok(value as i32);
    }
    Err(bad_label(classes, value.to_string()))
}

fn bad_label(classes: u32, found: String) -> BadNumber {
    BadNumber { rule: format!("a whole label in 0..{classes}"), found }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: bool = false;

    #[test]
    fn numbers_of_every_kind_convert() {
        let cases: &[(Kind, bool, &[u8], f32)] = &[
            (Kind::I8, LITTLE, &[0xff], -1.0),
            (Kind::U16, true, &[1, 0], 256.0),
            (Kind::I16, true, &[0xff, 0xfe], -2.0),
            (Kind::I32, LITTLE, &[0xfd, 0xff, 0xff, 0xff], -3.0),
            (Kind::U32, true, &[0, 0, 0, 7], 7.0),
            (Kind::I64, LITTLE, &[0xff; 8], -1.0),
            (Kind::U64, LITTLE, &[1, 0, 0, 0, 0, 0, 0, 0], 1.0),
            (Kind::F32, true, &[0x3f, 0x80, 0, 0], 1.0),
            (Kind::F64, LITTLE, &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f], 1.5),
        ];
        for &(kind, big_endian, raw, expected) in cases {
            let mut out = Vec::new();
            Role::Values.convert(Element { kind, big_endian }, raw, &mut out).expect("converts");
            assert_eq!(out, expected.to_le_bytes(), "{kind:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_index() {
        let labels = Role::Labels { classes: 10 };
        let u8s = Element { kind: Kind::U8, big_endian: false };
        let (index, bad) = labels.convert(u8s, &[0, 9, 10], &mut Vec::new()).expect_err("10");
        assert_eq!((index, bad.found.as_str()), (2, "10"));
        let i64s = Element { kind: Kind::I64, big_endian: false };
        let (_, bad) = labels.convert(i64s, &[0xff; 8], &mut Vec::new()).expect_err("-1");
        assert_eq!(bad.found, "-1");
        let f64s = Element { kind: Kind::F64, big_endian: false };
        for value in [2.5, f64::NAN, -1.0] {
            assert!(labels.convert(f64s, &value.to_le_bytes(), &mut Vec::new()).is_err());
        }
        let huge = 1e300f64.to_le_bytes();
        assert!(Role::Features.convert(f64s, &huge, &mut Vec::new()).is_err());
        let f32s = Element { kind: Kind::F32, big_endian: false };
        let nan = f32::NAN.to_le_bytes();
        assert!(Role::Features.convert(f32s, &nan, &mut Vec::new()).is_err());
    }
}
