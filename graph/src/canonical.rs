//! The binary form that a graph's identity is taken from.
//!
//! All numbers are little-endian; lists and strings carry a 32-bit length. A
//! float is its bits, with every NaN written as `0x7fc00000` and the sign of
//! zero kept. One graph has exactly one form, so equal ids mean equal graphs,
//! whatever their JSON text looked like.

mod attributes;

use crate::dtype::{DType, Shape};
use crate::error::GraphError;
use crate::limits::Limits;
use crate::program::{GRAPH_VERSION, Graph, Node, NodeId, Output};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

const MAGIC: &[u8; 4] = b"RVNG";
/// Separates graph ids from every other use of the hash.
const ID_CONTEXT: &str = "raven graph id, version 1";
const NAN_BITS: u32 = 0x7fc0_0000;

/// The content id of a graph: a BLAKE3 hash of its canonical form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GraphId(pub [u8; 32]);

impl GraphId {
    /// The id of a graph.
    pub fn of(graph: &Graph) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
        hasher.update(&encode(graph));
        GraphId(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for GraphId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for GraphId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GraphId({self})")
    }
}

impl FromStr for GraphId {
    type Err = GraphError;

    fn from_str(text: &str) -> Result<Self, GraphError> {
        let refused = GraphError::Id { found: text.len() };
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| refused.clone())?;
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |d: u8| char::from(d).to_digit(16).ok_or_else(|| refused.clone());
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(GraphId(id))
    }
}

impl Serialize for GraphId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GraphId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The canonical form of a graph.
pub fn encode(graph: &Graph) -> Vec<u8> {
    let mut writer = Writer { bytes: MAGIC.to_vec() };
    writer.u32(graph.version);
    writer.u32(graph.nodes.len() as u32);
    for node in &graph.nodes {
        writer.node(node);
    }
    writer.u32(graph.outputs.len() as u32);
    for output in &graph.outputs {
        writer.text(&output.name);
        writer.u32(output.node.0);
    }
    writer.bytes
}

/// The canonical form of one node: equal bytes mean equal nodes.
pub(crate) fn encode_node(node: &Node) -> Vec<u8> {
    let mut writer = Writer { bytes: Vec::new() };
    writer.node(node);
    writer.bytes
}

/// Reads a canonical form back. Nothing is allocated before its length has
/// been held against `limits` and the bytes that are left.
///
/// # Errors
/// [`GraphError::DocumentBytes`], [`GraphError::Canonical`] with the offset,
/// or the limit that a count passes. The graph is not validated yet.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Graph, GraphError> {
    let found = bytes.len() as u64;
    if found > limits.json_bytes_max {
        return Err(GraphError::DocumentBytes { limit: limits.json_bytes_max, found });
    }
    let mut reader = Reader { bytes, at: 0, limits, node: 0 };
    if reader.array::<4>()? != *MAGIC {
        return Err(reader.refuse("not a graph"));
    }
    let version = reader.u32()?;
    if version != GRAPH_VERSION {
        return Err(GraphError::Version { expected: GRAPH_VERSION, found: version });
    }
    let nodes = read_nodes(&mut reader)?;
    let outputs = read_outputs(&mut reader)?;
    if reader.at != bytes.len() {
        return Err(reader.refuse("bytes after the end"));
    }
    Ok(Graph { version, nodes, outputs })
}

fn read_nodes(reader: &mut Reader<'_>) -> Result<Vec<Node>, GraphError> {
    let count = reader.u32()?;
    if count > reader.limits.nodes_max {
        let limit = reader.limits.nodes_max;
        return Err(GraphError::Nodes { limit, found: count.into() });
    }
    // A node takes a tag and an operand count at least.
    reader.expect_left(count, 5)?;
    let mut nodes = Vec::with_capacity(count as usize);
    for node in 0..count {
        reader.node = node;
        let op = attributes::read(reader)?;
        let operands = reader.u32()?;
        if operands > reader.limits.operands_max {
            let limit = reader.limits.operands_max;
            return Err(GraphError::Operands { node, limit, found: operands.into() });
        }
        reader.expect_left(operands, 4)?;
        let inputs = (0..operands).map(|_| reader.u32().map(NodeId)).collect::<Result<_, _>>()?;
        nodes.push(Node { op, inputs });
    }
    Ok(nodes)
}

fn read_outputs(reader: &mut Reader<'_>) -> Result<Vec<Output>, GraphError> {
    let count = reader.u32()?;
    if count > reader.limits.outputs_max {
        let limit = reader.limits.outputs_max;
        return Err(GraphError::Outputs { limit, found: count.into() });
    }
    // An output takes a name length and a node id at least.
    reader.expect_left(count, 8)?;
    (0..count)
        .map(|_| Ok(Output { name: reader.text("outputs")?, node: NodeId(reader.u32()?) }))
        .collect()
}

/// Appends numbers and lists.
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn node(&mut self, node: &Node) {
        attributes::write(self, &node.op);
        self.u32(node.inputs.len() as u32);
        node.inputs.iter().for_each(|operand| self.u32(operand.0));
    }

    fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn f32(&mut self, value: f32) {
        self.u32(if value.is_nan() { NAN_BITS } else { value.to_bits() });
    }

    fn list(&mut self, values: &[u32]) {
        self.u32(values.len() as u32);
        self.fixed(values);
    }

    fn fixed(&mut self, values: &[u32]) {
        values.iter().for_each(|&value| self.u32(value));
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn dtype(&mut self, dtype: DType) {
        self.u8(match dtype {
            DType::F32 => 0,
            DType::I32 => 1,
            DType::U8 => 2,
            DType::Bool => 3,
        });
    }
}

/// Takes numbers and lists from the front of untrusted bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: &'a Limits,
    /// The node being read, for errors.
    node: u32,
}

impl Reader<'_> {
    fn refuse(&self, reason: &'static str) -> GraphError {
        GraphError::Canonical { offset: self.at, reason }
    }

    /// Refuses a count of entries that the remaining bytes cannot hold.
    fn expect_left(&self, count: u32, bytes_each: u64) -> Result<(), GraphError> {
        let left = (self.bytes.len() - self.at) as u64;
        if u64::from(count) * bytes_each <= left {
            Ok(())
        } else {
            Err(self.refuse("a count exceeds the bytes left"))
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GraphError> {
        let chunk = self.bytes[self.at..].first_chunk::<N>();
        let chunk = *chunk.ok_or_else(|| self.refuse("ends too early"))?;
        self.at += N;
        Ok(chunk)
    }

    fn u8(&mut self) -> Result<u8, GraphError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Result<bool, GraphError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.refuse("a flag is not 0 or 1")),
        }
    }

    fn u32(&mut self) -> Result<u32, GraphError> {
        self.array().map(u32::from_le_bytes)
    }

    fn f32(&mut self) -> Result<f32, GraphError> {
        let value = f32::from_bits(self.u32()?);
        if value.is_nan() && value.to_bits() != NAN_BITS {
            return Err(self.refuse("a NaN is not canonical"));
        }
        Ok(value)
    }

    fn list(&mut self) -> Result<Vec<u32>, GraphError> {
        let count = self.u32()?;
        if count > self.limits.rank_max {
            let (node, limit) = (self.node, self.limits.rank_max);
            return Err(GraphError::Rank { node, limit, found: count.into() });
        }
        (0..count).map(|_| self.u32()).collect()
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u32; N], GraphError> {
        let mut values = [0; N];
        for value in &mut values {
            *value = self.u32()?;
        }
        Ok(values)
    }

    fn shape(&mut self) -> Result<Shape, GraphError> {
        self.list().map(Shape)
    }

    fn text(&mut self, field: &'static str) -> Result<String, GraphError> {
        let length = self.u32()?;
        let limit = self.limits.name_bytes_max;
        if length > limit {
            return Err(GraphError::Name { field, limit, found: length.into() });
        }
        self.expect_left(length, 1)?;
        let end = self.at + length as usize;
        let text = std::str::from_utf8(&self.bytes[self.at..end]);
        let text = text.map_err(|_| self.refuse("a name is not UTF-8"))?.to_owned();
        self.at = end;
        Ok(text)
    }

    fn dtype(&mut self) -> Result<DType, GraphError> {
        match self.u8()? {
            0 => Ok(DType::F32),
            1 => Ok(DType::I32),
            2 => Ok(DType::U8),
            3 => Ok(DType::Bool),
            _ => Err(self.refuse("unknown element type")),
        }
    }
}
