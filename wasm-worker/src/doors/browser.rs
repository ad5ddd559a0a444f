//! The browser's door: a class for a module Web Worker.
//!
//! A frame is copied into the module's memory by the call that hands it over, and
//! what is to stay of it stays there: an array that is taken by value is ours.
//!
//! Every call is synchronous and runs on the calling thread, so a page never
//! calls it from its main thread. Errors are thrown as `Error`.

use crate::error::KernelError;
use wasm_bindgen::prelude::*;

fn thrown(error: KernelError) -> JsError {
    JsError::new(&error.to_string())
}

/// A number of bytes, operations or milliseconds from JavaScript: whole, not
/// negative, saturating.
fn count(number: f64) -> u64 {
    number as u64
}

/// The kernel of one worker.
#[wasm_bindgen(js_name = Kernel)]
#[derive(Debug)]
pub struct BrowserKernel(crate::Kernel);

#[wasm_bindgen(js_class = Kernel)]
impl BrowserKernel {
    /// A kernel with a budget of bytes for everything that it holds.
    #[wasm_bindgen(constructor)]
    pub fn new(memory_bytes: f64) -> BrowserKernel {
        BrowserKernel(crate::Kernel::new(count(memory_bytes)))
    }

    /// Takes a `graph`, `blob`, `drop`, `cancel`, `project` or `reveal` frame; may answer with a frame.
    pub fn accept(&mut self, frame: Vec<u8>) -> Result<Option<Vec<u8>>, JsError> {
        self.0.accept_owned(frame).map_err(thrown)
    }

    /// Ids of the blobs that a task frame names and that are not here.
    pub fn missing(&self, frame: &[u8]) -> Result<Vec<String>, JsError> {
        let missing = self.0.missing(frame).map_err(thrown)?;
        Ok(missing.iter().map(ToString::to_string).collect())
    }

    /// Begins a task; a returned frame is its refusal.
    pub fn begin(&mut self, frame: Vec<u8>) -> Result<Option<Vec<u8>>, JsError> {
        self.0.begin_owned(frame).map_err(thrown)
    }

    /// Does at least `flops` operations; true once the task is finished.
    pub fn step(&mut self, flops: f64) -> Result<bool, JsError> {
        self.0.step(count(flops)).map_err(thrown)
    }

    /// Operations done by the running task.
    #[wasm_bindgen(js_name = flopsDone)]
    pub fn flops_done(&self) -> f64 {
        self.0.running().map_or(0.0, |task| task.flops_done() as f64)
    }

    /// Operations of the whole running task.
    #[wasm_bindgen(js_name = flopsTotal)]
    pub fn flops_total(&self) -> f64 {
        self.0.running().map_or(0.0, |task| task.flops_total() as f64)
    }

    /// Ends the finished task; returns its `commit` frame and keeps the payload.
    pub fn finish(&mut self, elapsed_ms: f64) -> Result<Vec<u8>, JsError> {
        self.0.finish(count(elapsed_ms)).map_err(thrown)
    }

    /// Gives the running task up; returns its `refuse` frame.
    pub fn abort(&mut self) -> Option<Vec<u8>> {
        self.0.abort()
    }

    /// Runs a whole task at once; returns its `result` or `refuse` frame.
    pub fn execute(&mut self, frame: &[u8]) -> Result<Vec<u8>, JsError> {
        self.0.execute(frame).map_err(thrown)
    }

    /// Bytes held now.
    #[wasm_bindgen(js_name = heldBytes)]
    pub fn held_bytes(&self) -> f64 {
        self.0.held_bytes() as f64
    }
}
