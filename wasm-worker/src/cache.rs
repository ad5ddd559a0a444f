//! Graphs and blobs by content id, the least recently used forgotten first.

use crate::error::KernelError;
use crate::plan::Plan;
use crate::received::Received;
use crate::tensor::Tensor;
use raven_graph::GraphId;
use raven_protocol::{BlobId, Frame, TensorView};
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

/// A blob's tensors in their frame.
#[derive(Debug)]
pub struct Blob {
    tensors: Vec<(String, Tensor)>,
    bytes: u64,
}

impl Blob {
    /// The tensors of a checked frame, which stay where they arrived.
    pub fn from_frame(frame: &Frame<'_>, received: &Received<'_>) -> Self {
        let tensor = |view: TensorView<'_>| Tensor::received(&view.ty(), received.part(&view));
        let tensors = frame.tensors().map(|view| (view.name.to_owned(), tensor(view))).collect();
        Blob { tensors, bytes: received.held_bytes(frame) }
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(held, _)| held == name).map(|(_, tensor)| tensor)
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

    /// The blob, now the most recently used.
    pub fn blob(&mut self, id: BlobId) -> Option<Rc<Blob>> {
        let now = self.tick();
        let entry = self.blobs.entries.get_mut(&id)?;
        entry.used = now;
        Some(entry.value.clone())
    }

    /// Whether the blob is here.
    pub fn holds_blob(&self, id: BlobId) -> bool {
        self.blobs.entries.contains_key(&id)
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
