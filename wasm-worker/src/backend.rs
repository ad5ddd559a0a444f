//! The CPU backend, named in one place so that another can take its seat.

/// Burn's ndarray backend: same bits wherever the same module runs.
pub type Cpu = burn_ndarray::NdArray;
