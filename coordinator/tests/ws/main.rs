//! Sessions over WebSockets, honest and hostile.

mod hostile;
mod limits;
mod results;
#[path = "../support/mod.rs"]
mod support;
mod views;
