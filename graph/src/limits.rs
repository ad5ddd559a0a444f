//! Bounds that every graph from outside must respect.

/// What a graph may ask for at most. Each bound is checked before the memory
/// or time that it guards is spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nodes in one graph: a deep network with its gradient has a few thousand.
    pub nodes_max: u32,
    /// Operands of one node; only a concatenation has more than three.
    pub operands_max: u32,
    /// Named results of one graph.
    pub outputs_max: u32,
    /// Axes of one tensor, before it is stored: kernels index with fixed arrays.
    pub rank_max: u32,
    /// Elements of one tensor.
    pub elements_max: u64,
    /// Bytes of all values that the outputs depend on, were none ever freed.
    pub bytes_max: u64,
    /// Floating-point operations of one run, after dead-code removal.
    pub flops_max: u64,
    /// Bytes of an input's or output's name.
    pub name_bytes_max: u32,
    /// Bytes of the JSON or canonical form, checked before parsing.
    pub json_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            nodes_max: 16_384,
            operands_max: 4_096,
            outputs_max: 4_096,
            rank_max: 8,
            elements_max: 1 << 28,
            bytes_max: 1 << 30,
            flops_max: 10_000_000_000_000,
            name_bytes_max: 128,
            json_bytes_max: 8 << 20,
        }
    }
}

impl Limits {
    /// For graphs derived from a valid one by rewrites that only shrink it.
    pub(crate) const fn unbounded() -> Self {
        Limits {
            nodes_max: u32::MAX,
            operands_max: u32::MAX,
            outputs_max: u32::MAX,
            rank_max: u32::MAX,
            elements_max: u64::MAX,
            bytes_max: u64::MAX,
            flops_max: u64::MAX,
            name_bytes_max: u32::MAX,
            json_bytes_max: u64::MAX,
        }
    }
}
