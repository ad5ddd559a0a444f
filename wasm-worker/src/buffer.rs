//! Memory that comes back: the elements of a value that dies are kept for the
//! next value of about that size, so that a graph that runs again takes no new
//! memory.
//!
//! What is kept is bounded by [`limit`], which the kernel sets to what its
//! budget leaves. Each thread keeps its own; the module has one.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// A buffer serves values of at least this fraction of its size: 1 / 2.
const TIMES_MAX: usize = 2;
/// Buffers kept of one type at most, so that looking through them stays cheap.
const KEPT_MAX: usize = 256;

/// What is kept, by type.
#[derive(Debug, Default)]
pub struct Shelves {
    f32: Vec<Vec<f32>>,
    i32: Vec<Vec<i32>>,
    u8: Vec<Vec<u8>>,
    bool: Vec<Vec<bool>>,
    usize: Vec<Vec<usize>>,
    rows: Vec<Vec<[f32; 4]>>,
    bytes: u64,
    limit: u64,
}

thread_local! {
    static KEPT: RefCell<Shelves> = RefCell::default();
}

/// A type whose buffers are kept.
pub trait Pooled: Copy + Default + 'static {
    /// Its shelf.
    fn shelf(shelves: &mut Shelves) -> &mut Vec<Vec<Self>>;
}

macro_rules! pooled {
    ($($type:ty: $shelf:ident),*) => {
        $(impl Pooled for $type {
            fn shelf(shelves: &mut Shelves) -> &mut Vec<Vec<Self>> {
                &mut shelves.$shelf
            }
        })*
    };
}

pooled!(f32: f32, i32: i32, u8: u8, bool: bool, usize: usize, [f32; 4]: rows);

fn bytes_of<T>(elements: &Vec<T>) -> u64 {
    (elements.capacity() * size_of::<T>()) as u64
}

/// Keeps at most `bytes` from now on; what is more goes at once.
pub fn limit(bytes: u64) {
    fn trim<T: Pooled>(shelves: &mut Shelves) {
        while shelves.bytes > shelves.limit {
            let Some(elements) = T::shelf(shelves).pop() else { return };
            shelves.bytes -= bytes_of(&elements);
        }
    }
    KEPT.with_borrow_mut(|shelves| {
        shelves.limit = bytes;
        trim::<f32>(shelves);
        trim::<[f32; 4]>(shelves);
        trim::<i32>(shelves);
        trim::<u8>(shelves);
        trim::<bool>(shelves);
        trim::<usize>(shelves);
    });
}

/// Elements that are kept when nobody needs them any more.
#[derive(Debug)]
pub struct Buffer<T: Pooled>(Vec<T>);

impl<T: Pooled> Buffer<T> {
    /// The smallest kept buffer with room for `count`, else a new one; it holds
    /// whatever it held before.
    fn take(count: usize) -> Vec<T> {
        let kept = KEPT.with_borrow_mut(|shelves| {
            let shelf = T::shelf(shelves);
            let fits = |elements: &Vec<T>| {
                (count..=count.saturating_mul(TIMES_MAX)).contains(&elements.capacity())
            };
            let places = shelf.iter().enumerate().filter(|(_, elements)| fits(elements));
            let (at, _) = places.min_by_key(|(_, elements)| elements.capacity())?;
            let elements = shelf.swap_remove(at);
            shelves.bytes -= bytes_of(&elements);
            Some(elements)
        });
        kept.unwrap_or_else(|| Vec::with_capacity(count))
    }

    /// No elements, with room for `count`.
    pub fn empty(count: usize) -> Self {
        let mut elements = Self::take(count);
        elements.clear();
        Buffer(elements)
    }

    /// `count` elements of any value, for who writes all of them.
    pub fn stale(count: usize) -> Self {
        let mut elements = Self::take(count);
        elements.resize(count, T::default());
        Buffer(elements)
    }

    /// `count` times one value.
    pub fn filled(count: usize, value: T) -> Self {
        let mut elements = Self::empty(count);
        elements.resize(count, value);
        elements
    }

    /// A copy.
    pub fn copy_of(elements: &[T]) -> Self {
        let mut copy = Self::empty(elements.len());
        copy.extend_from_slice(elements);
        copy
    }

    /// The elements, never to come back.
    pub fn into_vec(mut self) -> Vec<T> {
        std::mem::take(&mut self.0)
    }
}

impl<T: Pooled> From<Vec<T>> for Buffer<T> {
    fn from(elements: Vec<T>) -> Self {
        Buffer(elements)
    }
}

impl<T: Pooled> Deref for Buffer<T> {
    type Target = Vec<T>;
    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T: Pooled> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T: Pooled> Drop for Buffer<T> {
    fn drop(&mut self) {
        let elements = std::mem::take(&mut self.0);
        let bytes = bytes_of(&elements);
        // While the thread ends, its shelves are gone and the buffer goes too.
        let _ = KEPT.try_with(|shelves| {
            let mut shelves = shelves.borrow_mut();
            let has_room = shelves.bytes + bytes <= shelves.limit;
            if bytes > 0 && has_room && T::shelf(&mut shelves).len() < KEPT_MAX {
                T::shelf(&mut shelves).push(elements);
                shelves.bytes += bytes;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> u64 {
        KEPT.with_borrow(|shelves| shelves.bytes)
    }

    #[test]
    fn a_buffer_comes_back_to_values_of_about_its_size() {
        limit(1 << 20);
        let first = Buffer::filled(1000, 1f32);
        let address = first.as_ptr();
        drop(first);
        assert_eq!(kept(), 4000);
        assert_ne!(Buffer::<f32>::stale(400).as_ptr(), address, "it is too large");
        let again = Buffer::<f32>::filled(600, 2.0);
        assert_eq!((again.as_ptr(), again.len()), (address, 600));
        assert!(again.iter().all(|&x| x == 2.0));
        drop(again);
        let whole = Buffer::<f32>::stale(1000);
        assert_eq!((whole.as_ptr(), whole.len()), (address, 1000));
        limit(0);
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        limit(1000);
        drop(Buffer::filled(100, 0f32));
        drop([Buffer::filled(200, 0u8), Buffer::filled(200, 1u8), Buffer::filled(300, 2u8)]);
        assert_eq!(kept(), 800);
        limit(500);
        assert!(kept() <= 500);
        limit(0);
        assert_eq!(kept(), 0);
    }
}
