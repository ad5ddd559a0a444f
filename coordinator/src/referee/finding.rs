//! What the referee finds, in types that evidence carries and in words.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The bits of an f32: what strict results are compared by. As text `0x3f800000`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bits(pub u32);

impl Bits {
    /// The bits of a number.
    pub fn of(x: f32) -> Self {
        Bits(x.to_bits())
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:08x})", f32::from_bits(self.0), self.0)
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("0x{:08x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").and_then(crate::runtime::session::parse_hex::<4>);
        let bytes = digits.ok_or_else(|| serde::de::Error::custom("0x and 8 hex digits"))?;
        Ok(Bits(u32::from_be_bytes(bytes)))
    }
}

/// One element of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Element {
    F32(Bits),
    I32(i32),
    U8(u8),
    Bool(bool),
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::F32(bits) => fmt::Display::fmt(bits, f),
            Element::I32(x) => fmt::Display::fmt(x, f),
            Element::U8(x) => fmt::Display::fmt(x, f),
            Element::Bool(x) => fmt::Display::fmt(x, f),
        }
    }
}

/// How a wrong output relates to the right one, where that is easily seen. Of several that hold,
/// the first in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Manner {
    /// Nothing but zeros.
    Zeros,
    /// Of a `Scan`: the value after so many steps, fewer than the task has; 0 is what it began with.
    StaleStep { step: u32 },
    /// The bytes of what the task bound to this input.
    CopiedInput { input: String },
    /// Every element has the other sign.
    SignFlipped,
    /// Every element is the right one times this, up to its rounding.
    Scaled { factor: Bits },
    /// None of these.
    Other,
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Manner::Zeros => f.write_str("nothing but zeros"),
            Manner::StaleStep { step: 0 } => f.write_str("stale: what the scan began with"),
            Manner::StaleStep { step } => write!(f, "stale: the value after step {step}"),
            Manner::CopiedInput { input } => write!(f, "a copy of input {input:?}"),
            Manner::SignFlipped => f.write_str("all signs turned"),
            Manner::Scaled { factor } => write!(f, "all scaled by {factor}"),
            Manner::Other => f.write_str("no simple relation"),
        }
    }
}

/// The first output that is wrong, by where its node stands in the graph's topological order: what
/// an output depends on comes before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// The output's name.
    pub output: String,
    /// The node that yields it.
    pub node: u32,
    /// The node's op.
    pub op: String,
    /// The first element that is wrong, row-major.
    pub element: u64,
    /// What was claimed there.
    pub claimed: Element,
    /// What it is.
    pub found: Element,
    /// Elements of this output that are wrong.
    pub elements_wrong: u64,
    /// Elements of this output.
    pub elements: u64,
    /// Outputs that are wrong.
    pub outputs_wrong: u32,
    /// How this output was made up.
    pub manner: Manner,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { output, node, op, element, claimed, found, .. } = self;
        write!(f, "output {output:?} of node {node} ({op}): element {element} is {found}, ")?;
        write!(f, "{claimed} was claimed; {} of {} elements ", self.elements_wrong, self.elements)?;
        write!(f, "and {} outputs are wrong; {}", self.outputs_wrong, self.manner)
    }
}

/// What a claim is worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// The digest is the task's: the claim is right.
    Agrees,
    /// It is not, and the payload was never shown.
    DigestOnly,
    /// It is not, and this is where.
    Differs(Box<Difference>),
}

impl Finding {
    /// Whether the claim is proven wrong.
    pub fn is_lie(&self) -> bool {
        !matches!(self, Finding::Agrees)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Agrees => f.write_str("the claim is right"),
            Finding::DigestOnly => f.write_str("the claim is wrong; its payload was not shown"),
            Finding::Differs(difference) => write!(f, "the claim is wrong: {difference}"),
        }
    }
}
