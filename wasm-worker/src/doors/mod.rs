//! The two ways into the compiled module: a class for pages, plain exports for
//! a host that runs the module without JavaScript.

#[cfg(target_arch = "wasm32")]
pub mod browser;
#[cfg(target_arch = "wasm32")]
pub mod host;
