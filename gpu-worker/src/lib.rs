//! The GPU kernel library: runs tensor-op tasks on WebGPU in a visitor's
//! browser and on Vulkan elsewhere, with shaders of its own.
//!
//! [`Kernel`] takes protocol frames and gives frames back, as the CPU module
//! does. A task is one submission and one readback; weights and shards stay on
//! the device between tasks. A device that is lost or out of memory hands the
//! lease back: nothing is ever computed elsewhere instead.

pub mod bind;
pub mod cache;
pub mod device;
pub mod doors;
pub mod error;
pub mod kernel;
pub mod lower;
pub mod measure;
pub mod plan;
pub mod pool;
mod program;
pub mod record;
pub mod shader;
pub mod signal;
pub mod task;

pub use device::{Counters, Gpu, OpenOptions};
pub use error::{KernelError, OpenError, TaskError, Unsupported};
pub use kernel::Kernel;
pub use plan::{Plan, Target, supports};
