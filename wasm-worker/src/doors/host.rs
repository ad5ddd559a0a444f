//! The host's door: plain exports for an embedder without JavaScript.
//!
//! No export here reaches an import of the module, so a host may define every
//! import as a trap. Kernels are named by handles. A frame is passed as the
//! address and length of a buffer from [`raven_alloc`]; a reply is
//! `address | length << 32` of a buffer that the host gives back with
//! [`raven_free`], 0 for no reply, or [`FAILED`], after which
//! [`raven_error`] has the reason.
//!
//! The host is trusted with addresses: it owns the module's memory anyway.

use crate::error::KernelError;
use std::alloc::{Layout, alloc, dealloc};

/// The reply of a call that failed.
const FAILED: u64 = u64::MAX;
/// Alignment of exchanged buffers, that of tensors in a frame.
const ALIGNMENT: usize = 16;

/// A kernel with its last error.
#[derive(Debug)]
pub struct Handle {
    kernel: crate::Kernel,
    error: String,
}

/// A buffer of `len` bytes; 0 where there is no memory for it.
#[unsafe(no_mangle)]
pub extern "C" fn raven_alloc(len: usize) -> *mut u8 {
    match Layout::from_size_align(len.max(1), ALIGNMENT) {
        // SAFETY: the size is at least one.
        Ok(layout) => unsafe { alloc(layout) },
        Err(_) => std::ptr::null_mut(),
    }
}

/// Gives back a buffer of [`raven_alloc`] or of a reply.
///
/// # Safety
/// `ptr` and `len` are those of a buffer that was not given back yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raven_free(ptr: *mut u8, len: usize) {
    if let Ok(layout) = Layout::from_size_align(len.max(1), ALIGNMENT) {
        // SAFETY: every exchanged buffer was allocated with this layout.
        unsafe { dealloc(ptr, layout) };
    }
}

/// A kernel with a budget of `memory_bytes`.
#[unsafe(no_mangle)]
pub extern "C" fn raven_kernel_new(memory_bytes: u64) -> *mut Handle {
    let kernel = crate::Kernel::new(memory_bytes);
    Box::into_raw(Box::new(Handle { kernel, error: String::new() }))
}

/// Ends a kernel.
///
/// # Safety
/// `handle` comes from [`raven_kernel_new`] and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raven_kernel_free(handle: *mut Handle) {
    // SAFETY: by the caller's promise the box is still ours.
    drop(unsafe { Box::from_raw(handle) });
}

/// Copies a reply into a buffer for the host and packs its place.
fn reply(bytes: &[u8]) -> u64 {
    let ptr = raven_alloc(bytes.len());
    if ptr.is_null() {
        return FAILED;
    }
    // SAFETY: the buffer was just allocated with that length.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), ptr, bytes.len()) };
    ptr as u64 | (bytes.len() as u64) << 32
}

/// Calls the kernel with a frame of the host and packs what it answers.
///
/// # Safety
/// `handle` is a live handle; `ptr` and `len` are those of a live buffer.
unsafe fn call(
    handle: *mut Handle,
    ptr: *const u8,
    len: usize,
    f: impl FnOnce(&mut crate::Kernel, &[u8]) -> Result<Option<Vec<u8>>, KernelError>,
) -> u64 {
    // SAFETY: by the caller's promise; the module has one thread, and the host
    // does not call in while a call is running.
    let (handle, frame) = unsafe { (&mut *handle, std::slice::from_raw_parts(ptr, len)) };
    match f(&mut handle.kernel, frame) {
        Ok(Some(bytes)) => reply(&bytes),
        Ok(None) => 0,
        Err(error) => {
            handle.error = error.to_string();
            FAILED
        }
    }
}

/// Takes a `graph`, `blob`, `drop`, `cancel`, `project` or `reveal` frame.
///
/// # Safety
/// As the module says of handles and buffers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raven_accept(handle: *mut Handle, ptr: *const u8, len: usize) -> u64 {
    // SAFETY: passed on.
    unsafe { call(handle, ptr, len, |kernel, frame| kernel.accept(frame)) }
}

/// Ids of the blobs that a task frame names and that are not here, one a line.
///
/// # Safety
/// As the module says of handles and buffers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raven_missing(handle: *mut Handle, ptr: *const u8, len: usize) -> u64 {
    let missing = |kernel: &mut crate::Kernel, frame: &[u8]| {
        let ids = kernel.missing(frame)?;
        let lines: Vec<String> = ids.iter().map(ToString::to_string).collect();
        Ok((!lines.is_empty()).then(|| lines.join("\n").into_bytes()))
    };
    // SAFETY: passed on.
    unsafe { call(handle, ptr, len, missing) }
}

/// Runs a whole task; replies with its `result` or `refuse` frame.
///
/// # Safety
/// As the module says of handles and buffers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raven_execute(handle: *mut Handle, ptr: *const u8, len: usize) -> u64 {
    // SAFETY: passed on.
    unsafe { call(handle, ptr, len, |kernel, frame| kernel.execute(frame).map(Some)) }
}

/// Begins a task; a reply is its `refuse` frame.
///
/// # Safety
/// As the module says of handles and buffers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raven_begin(handle: *mut Handle, ptr: *const u8, len: usize) -> u64 {
    // SAFETY: passed on.
    unsafe { call(handle, ptr, len, |kernel, frame| kernel.begin(frame)) }
}

/// Does at least `flops` operations: 1 once the task is finished, 0 before,
/// -1 where none is running.
///
/// # Safety
/// As the module says of handles.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raven_step(handle: *mut Handle, flops: f64) -> i32 {
    // SAFETY: by the caller's promise.
    let handle = unsafe { &mut *handle };
    match handle.kernel.step(flops as u64) {
        Ok(finished) => i32::from(finished),
        Err(error) => {
            handle.error = error.to_string();
            -1
        }
    }
}

/// Ends the finished task; replies with its `commit` frame.
///
/// # Safety
/// As the module says of handles.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raven_finish(handle: *mut Handle, elapsed_ms: u64) -> u64 {
    let finish = |kernel: &mut crate::Kernel, _: &[u8]| kernel.finish(elapsed_ms).map(Some);
    // SAFETY: a dangling, aligned address of no bytes is a valid empty slice.
    unsafe { call(handle, std::ptr::NonNull::dangling().as_ptr(), 0, finish) }
}

/// The text of the last error.
///
/// # Safety
/// As the module says of handles.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raven_error(handle: *mut Handle) -> u64 {
    // SAFETY: by the caller's promise.
    reply(unsafe { &*handle }.error.as_bytes())
}
