//! Sessions over WebSockets, honest and hostile.

mod hostile;
mod limits;
#[path = "../support/mod.rs"]
mod support;
mod views;
