//! Graphs and blobs by content id, blobs on the device, the least recently used
//! forgotten first.

#[cfg(test)]
use crate::device::Waiting;
use crate::device::{Fault, Gpu};
use crate::error::KernelError;
use crate::plan::Plan;
use crate::pool::{Buffer, View};
use crate::signal::Shared;
use raven_graph::{GraphId, TensorType};
use raven_protocol::{BlobId, Frame};
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

/// Where a tensor of a blob may begin, so that it can be bound.
const ALIGNMENT: u64 = 256;

/// A blob's tensors, packed as they came, in one buffer of the device.
#[derive(Debug)]
pub struct Blob {
    tensors: Vec<(String, TensorType, View)>,
    bytes: u64,
    /// What went wrong with the upload, once that is known.
    upload: Shared<Option<Fault>>,
}

impl Blob {
    /// Bytes that the tensors of a frame take on the device.
    pub fn device_bytes(frame: &Frame<'_>) -> u64 {
        frame.tensors().map(|tensor| (tensor.data.len() as u64).next_multiple_of(ALIGNMENT)).sum()
    }

    /// Uploads the tensors of a checked frame.
    pub fn upload(gpu: &mut Gpu, frame: &Frame<'_>) -> Self {
        let bytes = Blob::device_bytes(frame).max(ALIGNMENT);
        use wgpu::BufferUsages as Usage;
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let (tensors, upload) = gpu.checked(|gpu| {
            let buffer = gpu.create(bytes, usage);
            let mut offset = 0;
            let tensors = frame.tensors().map(|tensor| {
                write(gpu, &buffer, offset, tensor.data);
                let bytes = (tensor.data.len() as u64).next_multiple_of(4);
                let view = View { buffer: buffer.clone(), offset, bytes };
                offset += bytes.next_multiple_of(ALIGNMENT);
                (tensor.name.to_owned(), tensor.ty(), view)
            });
            tensors.collect()
        });
        gpu.counters.blob_bytes += bytes;
        Blob { tensors, bytes, upload: Shared::new(upload) }
    }

    /// Resolves to what went wrong with the upload, if anything did.
    pub fn upload_fault(&self) -> Shared<Option<Fault>> {
        self.upload.clone()
    }

    /// Whether the upload is known to have failed.
    fn is_spoilt(&self) -> bool {
        self.upload.now().flatten().is_some()
    }

    /// Type and place of the tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<(&TensorType, &View)> {
        let found = self.tensors.iter().find(|(held, ..)| held == name);
        found.map(|(_, ty, view)| (ty, view))
    }
}

/// Writes bytes of any length; the queue takes whole words.
fn write(gpu: &Gpu, buffer: &Buffer, offset: u64, data: &[u8]) {
    let (words, rest) = data.split_at(data.len() / 4 * 4);
    if !words.is_empty() {
        gpu.queue().write_buffer(buffer.raw(), offset, words);
    }
    if !rest.is_empty() {
        let mut word = [0u8; 4];
        word[..rest.len()].copy_from_slice(rest);
        gpu.queue().write_buffer(buffer.raw(), offset + words.len() as u64, &word);
    }
}

#[derive(Debug)]
struct Entry<V> {
    value: Rc<V>,
    bytes: u64,
    /// Time of the last use, by the cache's own count.
    used: u64,
}

/// Entries of one kind. What a task holds has a second owner and stays.
#[derive(Debug)]
struct Shelf<K, V> {
    entries: HashMap<K, Entry<V>>,
}

impl<K: Copy + Eq + Hash + Ord, V> Shelf<K, V> {
    fn new() -> Self {
        Shelf { entries: HashMap::new() }
    }

    fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.bytes).sum()
    }

    /// The entry that was used longest ago and that nobody holds.
    fn oldest(&self) -> Option<(u64, K)> {
        let free = self.entries.iter().filter(|(_, entry)| Rc::strong_count(&entry.value) == 1);
        free.map(|(id, entry)| (entry.used, *id)).min()
    }

    fn free_bytes(&self) -> u64 {
        let free = self.entries.values().filter(|entry| Rc::strong_count(&entry.value) == 1);
        free.map(|entry| entry.bytes).sum()
    }
}

/// All that is held by content id.
#[derive(Debug)]
pub struct Cache {
    graphs: Shelf<GraphId, Plan>,
    blobs: Shelf<BlobId, Blob>,
    clock: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Cache { graphs: Shelf::new(), blobs: Shelf::new(), clock: 0 }
    }
}

impl Cache {
    /// Bytes of all entries.
    pub fn bytes(&self) -> u64 {
        self.graphs.bytes() + self.blobs.bytes()
    }

    /// Bytes of the entries that could be forgotten now.
    pub fn free_bytes(&self) -> u64 {
        self.graphs.free_bytes() + self.blobs.free_bytes()
    }

    /// Forgets the entries used longest ago until at most `bytes_max` are held
    /// or nothing more can go.
    pub fn shrink_to(&mut self, bytes_max: u64) {
        while self.bytes() > bytes_max {
            match (self.graphs.oldest(), self.blobs.oldest()) {
                (Some((used, id)), Some((other, _))) if used < other => self.drop_graph(id),
                (Some((_, id)), None) => self.drop_graph(id),
                (_, Some((_, id))) => self.drop_blob(id),
                (None, None) => return,
            }
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The graph, now the most recently used.
    pub fn graph(&mut self, id: GraphId) -> Option<Rc<Plan>> {
        let now = self.tick();
        let entry = self.graphs.entries.get_mut(&id)?;
        entry.used = now;
        Some(entry.value.clone())
    }

    /// The blob, now the most recently used. One whose upload has failed is not here.
    pub fn blob(&mut self, id: BlobId) -> Option<Rc<Blob>> {
        if !self.holds_blob(id) {
            self.drop_blob(id);
        }
        let now = self.tick();
        let entry = self.blobs.entries.get_mut(&id)?;
        entry.used = now;
        Some(entry.value.clone())
    }

    /// Whether the blob is here.
    pub fn holds_blob(&self, id: BlobId) -> bool {
        self.blobs.entries.get(&id).is_some_and(|entry| !entry.value.is_spoilt())
    }

    /// Keeps a graph.
    pub fn put_graph(&mut self, id: GraphId, plan: Plan) {
        let entry = Entry { bytes: plan.held_bytes(), used: self.tick(), value: Rc::new(plan) };
        self.graphs.entries.insert(id, entry);
    }

    /// Keeps a blob.
    pub fn put_blob(&mut self, id: BlobId, blob: Blob) {
        let entry = Entry { bytes: blob.bytes, used: self.tick(), value: Rc::new(blob) };
        self.blobs.entries.insert(id, entry);
    }

    /// Forgets a graph; a running task keeps its own hold of it.
    pub fn drop_graph(&mut self, id: GraphId) {
        self.graphs.entries.remove(&id);
    }

    /// Forgets a blob; a running task keeps its own hold of it.
    pub fn drop_blob(&mut self, id: BlobId) {
        self.blobs.entries.remove(&id);
    }

    /// Forgets all blobs, after an error of the device that may have spoilt them.
    pub fn drop_blobs(&mut self) {
        self.blobs.entries.clear();
    }

    /// Lets a test say what becomes of an upload. Nobody may hold the blob.
    #[cfg(test)]
    pub fn set_upload(&mut self, id: BlobId, upload: Waiting<Option<Fault>>) {
        let entry = self.blobs.entries.get_mut(&id).expect("a blob");
        Rc::get_mut(&mut entry.value).expect("held by nobody").upload = Shared::new(upload);
    }

    /// Makes room for `needed` bytes beside `others` that are not in the cache.
    ///
    /// # Errors
    /// [`KernelError::TooLarge`] naming `field`; then nothing was forgotten.
    pub fn make_room(
        &mut self,
        field: &'static str,
        needed: u64,
        others: u64,
        budget: u64,
    ) -> Result<(), KernelError> {
        let pinned = self.bytes() - self.free_bytes();
        let available = budget.saturating_sub(others.saturating_add(pinned));
        if needed > available {
            return Err(KernelError::TooLarge { field, needed, available, budget });
        }
        self.shrink_to(budget.saturating_sub(others.saturating_add(needed)));
        Ok(())
    }
}
