//! The door of servers and tests: Vulkan, and calls that block.

use crate::device::{Gpu, OpenOptions, Waiting};
use crate::error::OpenError;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

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
