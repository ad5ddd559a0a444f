//! The two ways in: blocking calls for servers and tests, promises for pages.

#[cfg(target_arch = "wasm32")]
pub mod browser;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
