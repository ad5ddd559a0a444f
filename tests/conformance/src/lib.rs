//! Ops and gradients against independent references.
//!
//! `reference.py` writes the cases; [`suite`] turns each into the frames that
//! a kernel takes, so that one suite runs natively, under wasmtime, in Node
//! and in a browser; [`verdict`] compares what comes back. [`training`] has whole training steps, of
//! which only the bits matter.

pub mod reseed;
pub mod suite;
pub mod training;
pub mod verdict;
