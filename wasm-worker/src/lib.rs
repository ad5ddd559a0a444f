//! The kernel library: runs tensor-op tasks on burn's ndarray backend, in a
//! visitor's browser and under wasmtime in the coordinator, from one file.
//!
//! [`Kernel`] takes protocol frames and gives frames back. It reads no clock,
//! no random source and no file, starts no thread, and everything that it
//! allocates is counted against a declared budget first. [`doors`] holds the
//! two ways into the compiled module.

// Burn's ndarray backend is announced as deprecated in favour of burn-flex; on
// wasm it is the faster of the two and smaller.
#![allow(deprecated)]

pub(crate) mod axes;
pub mod backend;
pub mod bind;
pub mod buffer;
pub mod cache;
pub mod doors;
pub mod error;
mod fuse;
pub mod gemm;
pub mod kernel;
pub mod ops;
pub mod plan;
pub mod received;
pub mod reduce_tree;
mod simd;
pub mod task;
pub mod tensor;

pub use error::{KernelError, TaskError};
pub use kernel::Kernel;
pub use plan::{Plan, Run};
pub use tensor::Tensor;
