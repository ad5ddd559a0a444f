//! Why a graph is refused: first what an op says of its operands, then what
//! the graph says of a node.

use crate::dtype::{DType, Shape};
use thiserror::Error;

/// Why one operation cannot take its operands or attributes.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum OpError {
    /// The op takes another number of operands.
    #[error("takes {expected} operands, found {found}")]
    OperandCount { expected: &'static str, found: usize },
    /// An operand has an element type that the op does not take.
    #[error("operand {operand} must be {expected}, found {found}")]
    DType { operand: usize, expected: &'static str, found: DType },
    /// An operand has the wrong number of axes.
    #[error("operand {operand} must have {expected} axes, found {found}")]
    Rank { operand: usize, expected: &'static str, found: usize },
    /// Two shapes do not broadcast together.
    #[error("shapes {lhs} and {rhs} do not broadcast")]
    Broadcast { lhs: Shape, rhs: Shape },
    /// Two extents that must be equal are not.
    #[error("{field} must be {expected}, found {found}")]
    Extent { field: &'static str, expected: u64, found: u64 },
    /// An axis is not one of the operand's.
    #[error("{field} is axis {axis}, the operand has {rank} axes")]
    Axis { field: &'static str, axis: u32, rank: usize },
    /// A list of axes is not sorted, repeats an axis, or leaves one out.
    #[error("{field} must be {rule}, found {found:?}")]
    Axes { field: &'static str, rule: &'static str, found: Vec<u32> },
    /// An attribute list has another length than the operand has axes.
    #[error("{field} must have {expected} entries, found {found}")]
    Length { field: &'static str, expected: usize, found: usize },
    /// An extent, step or count is zero.
    #[error("{field} must be at least 1")]
    Zero { field: &'static str },
    /// A window is larger than the padded image that it slides over.
    #[error("{field} covers {window} elements, the padded input has {padded}")]
    Window { field: &'static str, window: u64, padded: u64 },
    /// A half-open range is empty or leaves the operand.
    #[error("{field} on axis {axis} is {start}..{end}, the extent is {extent}")]
    Range { field: &'static str, axis: usize, start: u32, end: u32, extent: u32 },
    /// A number cannot be represented in the element type, or is not finite.
    #[error("{field} must be {rule}, found {found}")]
    Number { field: &'static str, rule: &'static str, found: f32 },
    /// A function is not defined on this element type.
    #[error("{function} takes {expected}, found {found}")]
    Function { function: &'static str, expected: &'static str, found: DType },
    /// An extent or count does not fit its integer type.
    #[error("{field} overflows")]
    Overflow { field: &'static str },
}

/// Why a graph is refused. Every variant names the node, field or name at
/// fault, and the limit where one is passed.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum GraphError {
    /// The document is longer than the limit; it was not parsed.
    #[error("graph: {found} bytes, limit json_bytes_max = {limit}")]
    DocumentBytes { limit: u64, found: u64 },
    /// The document is not JSON of the documented form.
    #[error("graph: not valid JSON: {reason}")]
    Json { reason: String },
    /// The canonical bytes cannot be decoded.
    #[error("graph: canonical form at byte {offset}: {reason}")]
    Canonical { offset: usize, reason: &'static str },
    /// The version is not the one that this crate reads.
    #[error("version: {found}, expected {expected}")]
    Version { expected: u32, found: u32 },
    /// Too many nodes.
    #[error("nodes: {found}, limit nodes_max = {limit}")]
    Nodes { limit: u32, found: u64 },
    /// Too many outputs.
    #[error("outputs: {found}, limit outputs_max = {limit}")]
    Outputs { limit: u32, found: u64 },
    /// Nothing is returned.
    #[error("outputs: at least one is needed")]
    NoOutputs,
    /// A node has too many operands.
    #[error("nodes[{node}].inputs: {found}, limit operands_max = {limit}")]
    Operands { node: u32, limit: u32, found: u64 },
    /// A node reads itself, a later node, or one that does not exist.
    #[error("nodes[{node}].inputs: node {operand} does not precede its user")]
    OperandOrder { node: u32, operand: u32 },
    /// An output names a node that does not exist.
    #[error("outputs.{name}: node {node} of {nodes}")]
    OutputNode { name: String, node: u32, nodes: u32 },
    /// A name is empty, too long, or holds control characters.
    #[error(
        "{field}: name of {found} bytes must hold 1 to {limit} bytes and no control characters"
    )]
    Name { field: &'static str, limit: u32, found: u64 },
    /// Two inputs have one name.
    #[error("nodes[{node}].name: input {name:?} is declared twice")]
    DuplicateInput { node: u32, name: String },
    /// Two outputs have one name.
    #[error("outputs: {name:?} is declared twice")]
    DuplicateOutput { name: String },
    /// The op refuses its operands or attributes.
    #[error("nodes[{node}] ({op}): {error}")]
    Op { node: u32, op: &'static str, error: OpError },
    /// A tensor, or an attribute that lists axes, has too many axes.
    #[error("nodes[{node}]: rank {found}, limit rank_max = {limit}")]
    Rank { node: u32, limit: u32, found: u64 },
    /// A tensor has too many elements (`u64::MAX` where the count overflows).
    #[error("nodes[{node}]: {found} elements, limit elements_max = {limit}")]
    Elements { node: u32, limit: u64, found: u64 },
    /// All values together take too much memory.
    #[error("graph: {found} bytes of values, limit bytes_max = {limit}")]
    Bytes { limit: u64, found: u64 },
    /// One run takes too many operations.
    #[error("graph: {found} flops, limit flops_max = {limit}")]
    Flops { limit: u64, found: u64 },
    /// A gradient is asked of, or with respect to, something that has none.
    #[error("gradient: {role} node {node} must be {expected}")]
    GradientOf { role: &'static str, node: u32, expected: &'static str },
    /// The op's derivative is not expressible in the closed set of ops.
    #[error("gradient: node {node} ({op}) has no derivative with respect to operand {operand}")]
    NoGradient { node: u32, op: &'static str, operand: usize },
    /// A content id is not 64 hexadecimal digits.
    #[error("graph id: expected 64 hexadecimal digits, found {found} bytes")]
    Id { found: usize },
    /// A number that becomes a constant is outside its domain.
    #[error("{field}: {found} must be {rule}")]
    Parameter { field: &'static str, rule: &'static str, found: f32 },
}
