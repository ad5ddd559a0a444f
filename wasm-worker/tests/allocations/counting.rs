//! An allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts what one thread allocates.
pub struct Counting;

#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub allocations: u64,
    pub largest: usize,
    pub live: i64,
    /// The most that was live at once.
    pub peak: i64,
}

thread_local! {
    pub static COUNTS: Cell<Counts> =
        const { Cell::new(Counts { allocations: 0, largest: 0, live: 0, peak: 0 }) };
}

fn count(change: impl FnOnce(&mut Counts)) {
    // Threads that end still free what they held.
    let _ = COUNTS.try_with(|cell| {
        let mut counts = cell.get();
        change(&mut counts);
        cell.set(counts);
    });
}

// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|counts| {
            counts.allocations += 1;
            counts.largest = counts.largest.max(layout.size());
            counts.live += layout.size() as i64;
            counts.peak = counts.peak.max(counts.live);
        });
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(|counts| counts.live -= layout.size() as i64);
        // SAFETY: passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `act` allocates.
pub fn counted<R>(act: impl FnOnce() -> R) -> (Counts, R) {
    let before = COUNTS.get();
    COUNTS.set(Counts { allocations: 0, largest: 0, peak: before.live, ..before });
    let result = act();
    let after = COUNTS.get();
    (Counts { live: after.live - before.live, peak: after.peak - before.live, ..after }, result)
}
