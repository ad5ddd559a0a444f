//! The door of servers and tests: Vulkan, and calls that block.

use crate::device::{Gpu, OpenOptions, Waiting};
use crate::error::OpenError;
use crate::kernel::Kernel;
use crate::measure::Probe;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Opens a device, blocking.
///
/// # Errors
/// [`OpenError`].
pub fn open(options: OpenOptions) -> Result<Gpu, OpenError> {
    let mut future = pin!(Gpu::open(options));
    loop {
        // Native adapters and devices are there at once; the loop is for form.
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(found) => return found,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

/// For tests: a device on whatever adapter there is; `None`, with a word, where
/// there is none.
///
/// # Panics
/// Where there is none and `RAVEN_GPU_NEEDED` is set: a run that has seen to an
/// adapter must not pass without one.
#[doc(hidden)]
pub fn open_for_tests() -> Option<Gpu> {
    match open(OpenOptions { software: true }) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            assert!(std::env::var_os("RAVEN_GPU_NEEDED").is_none(), "no GPU adapter: {error}");
            eprintln!("SKIPPED: no GPU adapter here ({error})");
            None
        }
    }
}

/// Waits for the device until `future` resolves. A device that is lost before it
/// answers drops the future unresolved.
pub fn block_on<T>(gpu: &Gpu, mut future: Waiting<T>) -> Option<T> {
    loop {
        if let Poll::Ready(found) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(found);
        }
        let polled = gpu.device().poll(wgpu::PollType::wait_indefinitely());
        if polled.is_err() || gpu.lost().is_some() {
            // Callbacks that the loss has triggered have run by now.
            return match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(found) => Some(found),
                Poll::Pending => None,
            };
        }
    }
}

/// Operations per second of the kernel's device, measured in at most 300 ms;
/// `None` where the device did not do the work. Long launches are cut by it from
/// then on.
pub fn measure(kernel: &mut Kernel) -> Option<u64> {
    let gpu = kernel.gpu_mut();
    let mut probe = Probe::default();
    loop {
        let start = Instant::now();
        let Some(submitted) = probe.submit(gpu) else { break };
        if block_on(gpu, submitted) != Some(true) {
            return None;
        }
        probe.took(start.elapsed().as_secs_f64() * 1000.0);
    }
    gpu.set_flops_per_s(probe.flops_per_s());
    Some(probe.flops_per_s())
}
