//! The kernel as its callers see it: frames in, frames out.

mod common;
mod frames;
mod hostile;
