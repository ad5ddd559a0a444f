//! The GPU kernels against the CPU's. What needs a device is skipped, with a
//! word, where there is none.

mod cases;
mod chains;
mod common;
mod kernel;
mod ops;
mod plans;
mod shaders;
mod steps;
mod tasks;
