//! Ops and gradients against independent references.
//!
//! `reference.py` writes the cases; [`suite`] turns each into the frames that
//! a kernel takes, so that one suite runs natively, under wasmtime, in Node
//! and in a browser; [`verdict`] compares what comes back.

pub mod suite;
pub mod verdict;
