//! The browser's door: a class for a page or a Web Worker.
//!
//! Calls that wait for the device give promises and do not hold the kernel
//! meanwhile, so that frames can be taken while a task runs. Errors are thrown
//! as `Error`.

use crate::device::{Gpu, OpenOptions};
use crate::error::KernelError;
use crate::measure::Probe;
use std::cell::RefCell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

#[wasm_bindgen]
extern "C" {
    /// Milliseconds of the page's clock.
    #[wasm_bindgen(js_namespace = performance)]
    fn now() -> f64;
}

fn thrown(error: KernelError) -> JsError {
    JsError::new(&error.to_string())
}

/// A number of bytes or milliseconds from JavaScript: whole, not negative, saturating.
fn count(number: f64) -> u64 {
    number as u64
}

/// The kernel of one device.
#[wasm_bindgen(js_name = GpuKernel)]
#[derive(Debug)]
pub struct BrowserKernel(Rc<RefCell<crate::Kernel>>);

#[wasm_bindgen(js_class = GpuKernel)]
impl BrowserKernel {
    /// Opens the page's adapter, with a budget of bytes for everything that the
    /// kernel holds. A software adapter is taken only where `software` says so.
    pub async fn open(memory_bytes: f64, software: bool) -> Result<BrowserKernel, JsError> {
        let opened = Gpu::open(OpenOptions { software }).await;
        let gpu = opened.map_err(|error| JsError::new(&error.to_string()))?;
        let kernel = crate::Kernel::new(gpu, count(memory_bytes));
        Ok(BrowserKernel(Rc::new(RefCell::new(kernel))))
    }

    /// Operations per second, measured in at most 300 ms; 0 where the device
    /// did not do the work. Long launches are cut by it from then on.
    pub fn measure(&self) -> js_sys::Promise {
        let kernel = self.0.clone();
        future_to_promise(async move {
            let mut probe = Probe::default();
            loop {
                let start = now();
                let submitted = probe.submit(kernel.borrow_mut().gpu_mut());
                let Some(submitted) = submitted else { break };
                if !submitted.await {
                    return Ok(JsValue::from_f64(0.0));
                }
                probe.took(now() - start);
            }
            kernel.borrow_mut().gpu_mut().set_flops_per_s(probe.flops_per_s());
            Ok(JsValue::from_f64(probe.flops_per_s() as f64))
        })
    }

    /// What the adapter calls itself.
    pub fn adapter(&self) -> String {
        self.0.borrow().gpu().name().to_owned()
    }

    /// Why the device is gone; nothing while it is there.
    pub fn lost(&self) -> Option<String> {
        self.0.borrow().gpu().lost()
    }

    /// Takes a `graph`, `blob`, `drop`, `cancel`, `project` or `reveal` frame; may answer with a frame.
    pub fn accept(&self, frame: &[u8]) -> Result<Option<Vec<u8>>, JsError> {
        self.0.borrow_mut().accept(frame).map_err(thrown)
    }

    /// Ids of the blobs that a task frame names and that are not here.
    pub fn missing(&self, frame: &[u8]) -> Result<Vec<String>, JsError> {
        let missing = self.0.borrow().missing(frame).map_err(thrown)?;
        Ok(missing.iter().map(ToString::to_string).collect())
    }

    /// Why the graph of a `graph` frame cannot run here; nothing where it can.
    pub fn unsupported(&self, frame: &[u8]) -> Result<Option<String>, JsError> {
        let found = self.0.borrow().unsupported(frame).map_err(thrown)?;
        Ok(found.map(|reason| reason.to_string()))
    }

    /// Submits a task; a returned frame is its refusal.
    pub fn begin(&self, frame: &[u8]) -> Result<Option<Vec<u8>>, JsError> {
        self.0.borrow_mut().begin(frame).map_err(thrown)
    }

    /// Resolves once the device has answered, well or not.
    pub fn settled(&self) -> Result<js_sys::Promise, JsError> {
        let settled = self.0.borrow_mut().settled().map_err(thrown)?;
        Ok(future_to_promise(async move {
            settled.await;
            Ok(JsValue::UNDEFINED)
        }))
    }

    /// Operations of the whole running task.
    #[wasm_bindgen(js_name = flopsTotal)]
    pub fn flops_total(&self) -> f64 {
        self.0.borrow().running().map_or(0.0, |task| task.flops() as f64)
    }

    /// Ends the answered task: its `commit` frame, or the `refuse` frame that
    /// hands the lease back.
    pub fn finish(&self, elapsed_ms: f64) -> Result<Vec<u8>, JsError> {
        self.0.borrow_mut().finish(count(elapsed_ms)).map_err(thrown)
    }

    /// Gives the running task up; returns its `refuse` frame.
    pub fn abort(&self) -> Option<Vec<u8>> {
        self.0.borrow_mut().abort()
    }

    /// Bytes held now.
    #[wasm_bindgen(js_name = heldBytes)]
    pub fn held_bytes(&self) -> f64 {
        self.0.borrow().held_bytes() as f64
    }

    /// Submissions so far.
    pub fn submits(&self) -> f64 {
        self.0.borrow().gpu().counters().submits as f64
    }

    /// Dispatches so far.
    pub fn dispatches(&self) -> f64 {
        self.0.borrow().gpu().counters().dispatches as f64
    }

    /// Takes the device away, for tests of what happens then.
    #[wasm_bindgen(js_name = destroyDevice)]
    pub fn destroy_device(&self) {
        self.0.borrow().gpu().device().destroy();
    }
}
