//! Buffers that outlive a task, so that the next one allocates nothing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Bytes of one buffer at most: WebGPU's default limit.
const BUFFER_BYTES_MAX: u64 = 256 << 20;

/// A buffer of the device; clones are the same buffer.
#[derive(Clone, Debug)]
pub struct Buffer(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    id: u32,
    raw: wgpu::Buffer,
    ledger: Rc<Ledger>,
}

impl Drop for Inner {
    /// Frees the memory at once: browsers do so only when they collect garbage, and
    /// elsewhere bind groups hold on to it. Work that is submitted still completes.
    fn drop(&mut self) {
        self.raw.destroy();
        self.ledger.bytes.set(self.ledger.bytes.get().saturating_sub(self.raw.size()));
        self.ledger.dropped.borrow_mut().push(self.id);
    }
}

/// What a device's buffers take, and which of them are gone.
#[derive(Debug, Default)]
struct Ledger {
    bytes: Cell<u64>,
    dropped: RefCell<Vec<u32>>,
}

impl Buffer {
    /// Distinguishes it from every other buffer of the device.
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// The buffer itself.
    pub fn raw(&self) -> &wgpu::Buffer {
        &self.0.raw
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.0.raw.size()
    }

    /// The first `bytes` of it.
    pub fn view(&self, bytes: u64) -> View {
        View { buffer: self.clone(), offset: 0, bytes }
    }
}

/// A part of a buffer.
#[derive(Clone, Debug)]
pub struct View {
    /// The buffer.
    pub buffer: Buffer,
    /// A multiple of 256 where it is bound.
    pub offset: u64,
    /// Bytes of the part.
    pub bytes: u64,
}

impl View {
    /// Part `at` of a row of parts, each `stride` bytes long.
    pub fn part(&self, at: u32, stride: u64) -> View {
        View { offset: self.offset + u64::from(at) * stride, ..self.clone() }
    }
}

/// Free buffers, and the bytes of all that were numbered here.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Buffer>,
    next_id: u32,
    ledger: Rc<Ledger>,
}

impl Pool {
    /// The length that a request gets: at most an eighth more, so that sizes repeat,
    /// but no more than one buffer may have where the request fits that.
    pub fn rounded(bytes: u64) -> u64 {
        let step = (bytes.next_power_of_two() / 8).max(256);
        bytes.max(1).next_multiple_of(step).min(BUFFER_BYTES_MAX.max(bytes))
    }

    /// Numbers a new buffer.
    pub fn adopt(&mut self, raw: wgpu::Buffer) -> Buffer {
        self.next_id = self.next_id.wrapping_add(1);
        self.ledger.bytes.set(self.ledger.bytes.get() + raw.size());
        Buffer(Rc::new(Inner { id: self.next_id, raw, ledger: self.ledger.clone() }))
    }

    /// Bytes of all buffers that were numbered here and are not dropped.
    pub fn held_bytes(&self) -> u64 {
        self.ledger.bytes.get()
    }

    /// Numbers of the buffers that were dropped since the last call.
    pub fn take_dropped(&self) -> Vec<u32> {
        self.ledger.dropped.take()
    }

    /// The smallest free buffer of at least `bytes`, and at most what is counted for them.
    pub fn take(&mut self, bytes: u64) -> Option<Buffer> {
        let most = Pool::rounded(bytes);
        let fits = |buffer: &Buffer| buffer.bytes() >= bytes && buffer.bytes() <= most;
        let found = self.free.iter().enumerate().filter(|(_, buffer)| fits(buffer));
        let at = found.min_by_key(|(_, buffer)| (buffer.bytes(), buffer.id())).map(|(at, _)| at)?;
        Some(self.free.swap_remove(at))
    }

    /// Takes a buffer back.
    pub fn give(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }

    /// Drops the largest free buffers until at most `bytes_max` are free.
    pub fn trim(&mut self, bytes_max: u64) {
        while self.free_bytes() > bytes_max {
            let largest = self.free.iter().enumerate().max_by_key(|(_, buffer)| buffer.bytes());
            let Some(at) = largest.map(|(at, _)| at) else { break };
            self.free.swap_remove(at);
        }
    }

    /// Bytes of the free buffers.
    pub fn free_bytes(&self) -> u64 {
        self.free.iter().map(Buffer::bytes).sum()
    }

    /// Forgets all free buffers.
    pub fn clear(&mut self) {
        self.free.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_rounded_up_to_what_one_buffer_may_have() {
        for bytes in [0, 1, 256, 257, 5000, 1 << 20, (192 << 20) + 1, 250 << 20, 256 << 20] {
            let rounded = Pool::rounded(bytes);
            assert!(rounded >= bytes && rounded <= BUFFER_BYTES_MAX, "{bytes}: {rounded}");
            assert!(rounded <= bytes + bytes / 4 + 256, "{bytes}: {rounded}");
        }
        // What no buffer holds stays as large as it is, to be refused.
        assert!(Pool::rounded(300 << 20) >= 300 << 20);
    }
}
