//! Buffers that outlive a task, so that the next one allocates nothing.

use std::rc::Rc;

/// A buffer of the device; clones are the same buffer.
#[derive(Clone, Debug)]
pub struct Buffer(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    id: u32,
    raw: wgpu::Buffer,
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

/// Free buffers, and the bytes of all that came from here.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Buffer>,
    next_id: u32,
}

impl Pool {
    /// The length that a request gets: at most an eighth more, so that sizes repeat.
    pub fn rounded(bytes: u64) -> u64 {
        let step = (bytes.next_power_of_two() / 8).max(256);
        bytes.max(1).next_multiple_of(step)
    }

    /// Numbers a new buffer.
    pub fn adopt(&mut self, raw: wgpu::Buffer) -> Buffer {
        self.next_id = self.next_id.wrapping_add(1);
        Buffer(Rc::new(Inner { id: self.next_id, raw }))
    }

    /// The smallest free buffer of at least `bytes` that is not much larger.
    pub fn take(&mut self, bytes: u64) -> Option<Buffer> {
        let most = Pool::rounded(bytes).saturating_mul(2);
        let fits = |buffer: &Buffer| buffer.bytes() >= bytes && buffer.bytes() <= most;
        let found = self.free.iter().enumerate().filter(|(_, buffer)| fits(buffer));
        let at = found.min_by_key(|(_, buffer)| (buffer.bytes(), buffer.id())).map(|(at, _)| at)?;
        Some(self.free.swap_remove(at))
    }

    /// Takes a buffer back.
    pub fn give(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }

    /// Drops the largest free buffers until at most `bytes_max` are free; whether any went.
    pub fn trim(&mut self, bytes_max: u64) -> bool {
        let mut trimmed = false;
        while self.free_bytes() > bytes_max {
            let largest = self.free.iter().enumerate().max_by_key(|(_, buffer)| buffer.bytes());
            let Some(at) = largest.map(|(at, _)| at) else { break };
            self.free.swap_remove(at);
            trimmed = true;
        }
        trimmed
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
